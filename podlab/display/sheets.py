"""A verb's value as blocks: which tables, facts and sentences say it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from podlab.commands.results import (
    ConversationDetail,
    Done,
    EndpointDetail,
    EndpointList,
    JobList,
    ModelList,
    ModelRow,
    Plan,
    PodDetail,
    PodList,
    Reply,
    SecretList,
    SecretRow,
    SettingList,
    SettingRow,
    Transfer,
    TunnelList,
    UrlDetail,
    document,
)
from podlab.display.layout import Block, Cell, Facts, Line, Prose, Steps, Verbatim
from podlab.display.tables import age_cell, bytes_cell, endpoint_state_cell, pod_state_cell, table_of, text_cell
from podlab.types import Endpoint, Interactive, JobRow, LogLines, PodState, PodStatus, TunnelRow
from podlab.units import age_text, bytes_text, duration_text, rate_text

_EMPTY: dict[type, tuple[str, type, str]] = {
    PodList: ("pods", PodStatus, "No pods yet."),
    ModelList: ("models", ModelRow, "No models match."),
    TunnelList: ("tunnels", TunnelRow, "No open tunnels."),
    SettingList: ("settings", SettingRow, "No settings."),
    SecretList: ("secrets", SecretRow, "No secrets are kept."),
}


def sheet(value: Any, *, now: float) -> tuple[Block, ...]:
    """The blocks of a value; `now` is seconds since the epoch. A dataclass nobody drew shows its fields."""
    if type(value) in _EMPTY:
        name, row_type, empty = _EMPTY[type(value)]
        return (table_of(getattr(value, name), row_type, now=now, empty=empty),)
    draw = _DRAWN.get(type(value))
    if draw is not None:
        return draw(value, now)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value, now)
    return (Verbatim(str(value)),) if "\n" in str(value) else (Line(Cell(str(value))),)


def figures(reply: Reply) -> str:
    """'tiny on local.1, 42 tokens, 38.2 tokens/s, first after 120 ms, 1.2 s': what is known about an answer."""
    parts = [reply.model if reply.model == reply.endpoint else f"{reply.model} at {reply.endpoint}"]
    if reply.usage is not None:
        count = reply.usage.completion_tokens
        parts.append(f"{count} token{'' if count == 1 else 's'}")
    if reply.tokens_per_second is not None:
        parts.append(f"{rate_text(reply.tokens_per_second)} tokens/s")
    if reply.first_token_s is not None:
        parts.append(f"first after {duration_text(reply.first_token_s)}")
    if reply.total_s is not None:
        parts.append(duration_text(reply.total_s))
    if reply.stop_reason and reply.stop_reason != "stop":
        why = {"length": "cut at max_tokens"}.get(reply.stop_reason, f"ended by {reply.stop_reason}")
        parts.append(why)
    return ", ".join(parts)


def _done(value: Done, now: float) -> tuple[Block, ...]:
    return (Line(Cell(value.text, tone="good")),)


def _plan(value: Plan, now: float) -> tuple[Block, ...]:
    if not value.would:
        return (Line(Cell("Nothing would be done.")),)
    return (Steps("Would, in this order:", value.would),)


def _pod_detail(value: PodDetail, now: float) -> tuple[Block, ...]:
    status = value.pod
    pairs = [
        ("pod", Cell(status.pod.name)),
        ("state", pod_state_cell(status)),
        ("in use", text_cell(status.in_use)),
        ("provider", Cell(status.pod.provider)),
        ("last seen", age_cell(status.last_seen, now)),
        ("detail", Cell(status.detail)),
        ("host name", text_cell(value.hostname)),
        ("system", text_cell(value.system)),
        ("Python", text_cell(value.python)),
        ("CPUs", text_cell(value.cpu_count)),
        ("memory", bytes_cell(value.memory_bytes)),
        ("free disk", bytes_cell(value.free_disk_bytes)),
        ("home", text_cell(value.home)),
    ]
    return (Facts(_present(pairs)),)


def _endpoint_list(value: EndpointList, now: float) -> tuple[Block, ...]:
    return (table_of(value.endpoints, Endpoint, now=now, empty="No endpoints."), *_silent(value.pods, now))


def _job_list(value: JobList, now: float) -> tuple[Block, ...]:
    return (table_of(value.jobs, JobRow, now=now, empty="No jobs."), *_silent(value.pods, now))


def _silent(pods: tuple[PodStatus, ...], now: float) -> tuple[Block, ...]:
    """A pod that did not answer may be running anything: an empty table alone would claim that it runs nothing."""
    lines = []
    for status in pods:
        if status.state is not PodState.REACHABLE:
            why = f": {status.detail}" if status.detail else ""
            seen = age_text(status.last_seen, now)
            said = f"pod {status.pod.name} is {status.state.value}, last seen {seen}{why}; what runs there is not known"
            lines.append(Line(Cell(said, "bad")))
    return tuple(lines)


def _endpoint_detail(value: EndpointDetail, now: float) -> tuple[Block, ...]:
    endpoint = value.endpoint
    pairs = [
        ("endpoint", Cell(endpoint.name)),
        ("state", endpoint_state_cell(endpoint)),
        ("detail", Cell(endpoint.detail)),
        ("pod", Cell(endpoint.pod)),
        ("model", Cell(endpoint.model)),
        ("engine", Cell(endpoint.engine)),
        ("GPUs", text_cell(endpoint.gpus)),
        ("started", Cell("-") if endpoint.started_at is None else age_cell(endpoint.started_at, now)),
        ("exit status", text_cell(endpoint.exit_status)),
        ("process", text_cell(endpoint.pid)),
        ("port on the pod", text_cell(endpoint.port)),
        ("URL", Cell(endpoint.url or "", code=True)),
        ("starts", Cell(str(endpoint.generation) if endpoint.generation > 1 else "")),
        ("id", Cell(endpoint.id, code=True)),
    ]
    blocks: list[Block] = [Facts(_present(pairs))]
    if value.command:
        blocks.append(Verbatim(" ".join(value.command), "command"))
    if value.log:
        blocks.append(Verbatim("\n".join(value.log), "log"))
    return tuple(blocks)


def _url(value: UrlDetail, now: float) -> tuple[Block, ...]:
    pairs = [
        ("endpoint", Cell(value.name)),
        ("base URL", Cell(value.base_url, code=True)),
        ("key", Cell("" if value.key is None else str(value.key))),
        ("model", Cell(value.model, code=True)),
    ]
    blocks: list[Block] = [Facts(_present(pairs))]
    if value.exports:
        blocks.append(Verbatim("\n".join(value.exports), "shell"))
    if value.snippet:
        blocks.append(Verbatim(value.snippet, "Python"))
    return tuple(blocks)


def _log(value: LogLines, now: float) -> tuple[Block, ...]:
    return (Verbatim("\n".join(value.lines)),) if value.lines else (Line(Cell("The log is empty.")),)


def _job(value: JobRow, now: float) -> tuple[Block, ...]:
    return (table_of((value,), JobRow, now=now),)


def _interactive(value: Interactive, now: float) -> tuple[Block, ...]:
    return (Line(Cell("This needs a terminal. Open one and write there:")), Verbatim(value.how))


def _transfer(value: Transfer, now: float) -> tuple[Block, ...]:
    count = len(value.files)
    what = f"{count} file{'' if count == 1 else 's'}, {bytes_text(value.total_bytes)}, verified by SHA-256"
    if value.sent_bytes < value.total_bytes:
        what += f"; {bytes_text(value.sent_bytes)} sent, the rest was there already"
    if value.seconds > 0 and value.sent_bytes:
        what += f"; {duration_text(value.seconds)}, {bytes_text(round(value.sent_bytes / value.seconds))}/s"
    return (Line(Cell(what + ".", tone="good")),)


def _reply(value: Reply, now: float) -> tuple[Block, ...]:
    return (Prose(value.text, value.reasoning, figures(value)),)


def _conversation(value: ConversationDetail, now: float) -> tuple[Block, ...]:
    if not value.messages:
        return (Line(Cell(f"Nothing has been said to {value.endpoint} yet.")),)
    return tuple(Prose(said.content.strip("\n"), said.reasoning, speaker=said.role) for said in value.messages)


def _present(pairs: list[tuple[str, Cell]]) -> tuple[tuple[str, Cell], ...]:
    return tuple((name, cell) for name, cell in pairs if cell.text not in ("", "-"))


def _fields(value: Any, now: float) -> tuple[Block, ...]:
    """A dataclass by its fields: rows of dataclasses as tables, everything else as facts."""
    pairs: list[tuple[str, Cell]] = []
    blocks: list[Block] = []
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        name = field.name.replace("_", " ")
        if isinstance(item, tuple) and item and all(dataclasses.is_dataclass(row) for row in item):
            blocks.append(table_of(item, type(item[0]), now=now))
        elif isinstance(item, str) and "\n" in item:
            blocks.append(Verbatim(item, name))
        else:
            pairs.append((name, text_cell(document(item) if dataclasses.is_dataclass(item) else item)))
    return (*((Facts(_present(pairs)),) if _present(pairs) else ()), *blocks)


_DRAWN: dict[type, Callable[[Any, float], tuple[Block, ...]]] = {
    Done: _done,
    Plan: _plan,
    PodDetail: _pod_detail,
    EndpointList: _endpoint_list,
    EndpointDetail: _endpoint_detail,
    JobList: _job_list,
    UrlDetail: _url,
    LogLines: _log,
    JobRow: _job,
    Transfer: _transfer,
    Interactive: _interactive,
    Reply: _reply,
    ConversationDetail: _conversation,
}
