"""A verb's value as blocks: which tables, facts and sentences say it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from podlab.commands.results import (
    BenchReport,
    ConversationDetail,
    Done,
    EndpointDetail,
    EndpointList,
    FitReport,
    ImportList,
    ImportRow,
    JobList,
    MatrixList,
    MetricsReport,
    ModelDetail,
    ModelList,
    ModelRow,
    Plan,
    PodDetail,
    PodList,
    RecipeRow,
    Reply,
    SecretList,
    SecretRow,
    SettingList,
    SettingRow,
    ShellScript,
    SmokeReport,
    Transfer,
    TunnelList,
    UrlDetail,
    document,
)
from podlab.display import sanitize
from podlab.display.costs import DRAWN as COSTS_DRAWN
from podlab.display.fit import fit_report
from podlab.display.gpus import driver_text, gpus_text, pod_sample
from podlab.display.layout import Block, Cell, Facts, Line, Prose, Steps, Verbatim
from podlab.display.rent import DRAWN as RENT_DRAWN
from podlab.display.rent import rental_facts, rental_table, shortened
from podlab.display.tables import (
    age_cell,
    bytes_cell,
    count_cell,
    endpoint_state_cell,
    memory_cell,
    pod_state_cell,
    table_of,
    text_cell,
    titled,
    tokens_cell,
)
from podlab.display.weights import DRAWN as WEIGHTS_DRAWN
from podlab.loadtest import Level
from podlab.types import (
    Check,
    Endpoint,
    Explanation,
    ForeignProcess,
    Interactive,
    JobRow,
    LogLines,
    PodSample,
    PodState,
    PodStatus,
    SetupReport,
    Tried,
    TunnelRow,
)
from podlab.units import age_text, bytes_text, duration_text, memory_text, rate_text

_EMPTY: dict[type, tuple[str, type, str]] = {
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
    """'tiny, 42 tokens, 38.2 tokens/s, first after 120 ms, 1.2 s, ended by itself': what is known about an answer."""
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
    if reply.stop_reason:
        usual = {"stop": "ended by itself", "length": "cut at max_tokens"}
        parts.append(usual.get(reply.stop_reason, f"ended by {reply.stop_reason}"))
    return ", ".join(parts)


def _done(value: Done, now: float) -> tuple[Block, ...]:
    return (Line(Cell(value.text, tone="good")),)


def _plan(value: Plan, now: float) -> tuple[Block, ...]:
    if not value.would:
        return (Line(Cell("Nothing would be done.")),)
    return (Steps("Would, in this order:", value.would),)


def _pod_detail(value: PodDetail, now: float) -> tuple[Block, ...]:
    status = value.pod
    pretended = " (simulated)" if value.rental is not None and value.rental.simulated else ""
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
        ("memory", memory_cell(value.memory_bytes)),
        ("free disk", bytes_cell(value.free_disk_bytes)),
        ("home", text_cell(value.home)),
        ("GPUs", Cell("" if value.gpus is None else (gpus_text(value.gpus) or "none") + pretended)),
        ("driver", Cell(driver_text(value.driver, value.cuda))),
    ]
    if value.rental is None:
        return (Facts(_present(pairs)),)
    # What it costs and what ends it comes before what the machine is.
    return (Facts(_present(pairs[:_OF_STATUS])), *rental_facts(value.rental, now), Facts(_present(pairs[_OF_STATUS:])))


_OF_STATUS = 6
"""How many of a pod's facts are about the pod and not about its machine."""


def _pod_list(value: PodList, now: float) -> tuple[Block, ...]:
    rented = bool(value.rentals or value.left_out)
    empty = "No pods in the list." if rented else "No pods yet."
    blocks: list[Block] = [] if value.unread else [table_of(value.pods, PodStatus, now=now, empty=empty)]
    if rented:
        shown, more = shortened(value.rentals, lambda row: row.ended_at is not None, value.limit, value.left_out)
        blocks += [*rental_table(shown, now), *more]
    return tuple(blocks)


def _endpoint_list(value: EndpointList, now: float) -> tuple[Block, ...]:
    table = table_of(value.endpoints, Endpoint, now=now, empty="No endpoints.")
    return (table, *_foreign(value.foreign), *_silent(value.pods, now))


def _foreign(processes: tuple[ForeignProcess, ...]) -> Iterator[Block]:
    """A line for each GPU that others use too."""
    for pod, gpu in dict.fromkeys((each.pod, each.gpu) for each in processes):
        there = [each for each in processes if (each.pod, each.gpu) == (pod, gpu)]
        who = ", ".join(f"pid {each.pid} {each.name}".strip() for each in there)
        known = [each.memory_bytes for each in there if each.memory_bytes is not None]
        amount = f"{memory_text(sum(known))} of" if known else "memory of"
        what = "1 process that is not podlab's holds" if len(there) == 1 else (
            f"{len(there)} processes that are not podlab's hold"
        )  # fmt: skip
        yield Line(Cell(f"{what} {amount} GPU {gpu} on {pod}: {who}", "busy"))


def _model_detail(value: ModelDetail, now: float) -> tuple[Block, ...]:
    model = value.model
    pairs = [
        ("model", Cell(model.id)),
        ("summary", Cell(model.summary)),
        ("fits", Cell(" ".join(part for part in (_VERDICTS[model.fits] if model.how else "", model.how) if part))),
        ("source", Cell(model.source, code=True)),
        ("also called", text_cell(value.aliases)),
        ("engine", Cell(model.engine + (f" {value.min_version} or newer" if value.min_version else ""))),
        ("format", Cell(value.format)),
        ("parameters", count_cell(model.parameters)),
        ("at work per token", count_cell(model.active_parameters)),
        ("size", bytes_cell(model.size_bytes)),
        ("context", tokens_cell(model.context)),
        ("licence", Cell((model.licence or "not known") + (", gated: it needs HF_TOKEN" if model.gated else ""))),
        ("tool parser", text_cell(value.tool_parser)),
        ("reasoning parser", text_cell(value.reasoning_parser)),
        *(
            (sanitize.line(name.replace("_", " ")), _shape_cell(name, found))
            for name, found in value.geometry.items()
            if name not in _SAID
        ),
        *_sources(value.sources),
    ]
    recipes = table_of(value.recipes, RecipeRow, now=now) if value.recipes else None
    return (Facts(_present(pairs)), *((recipes,) if recipes else ()))


def _shape_cell(name: str, found: Any) -> Cell:
    return bytes_cell(found) if name.endswith("_bytes") and isinstance(found, int) else text_cell(found)


def _sources(sources: Mapping[str, str]) -> Iterator[tuple[str, Cell]]:
    """Each address once, with all that is from there."""
    for address in dict.fromkeys(sources.values()):
        names = ", ".join(name for name, where in sources.items() if where == address)
        yield sanitize.line(f"source of {names}"), Cell(address)


_VERDICTS = {True: "yes, on", False: "no,", None: "not known,"}
_SAID = frozenset({"parameters", "active_parameters", "max_context", "weight_bytes"})


def _import_list(value: ImportList, now: float) -> tuple[Block, ...]:
    table = table_of(value.machines, ImportRow, now=now, empty=f"{value.path} knows no machine.")
    return (table, *(Line(Cell(note)) for note in value.notes))


def _bench(value: BenchReport, now: float) -> tuple[Block, ...]:
    asked = f"{value.endpoint} on {value.pod} ({value.engine}), {value.output_tokens} tokens asked for an answer"
    given = {"TTFT": value.ttft_limit_s, "TPOT": value.tpot_limit_s, "E2E": value.e2e_limit_s}
    limits = ", ".join(f"{name} {duration_text(most_s)}" for name, most_s in given.items() if most_s is not None)
    errors = dict.fromkeys(error for level in value.levels for error in level.errors)
    return (
        Line(Cell(asked + (f"; goodput within {limits}" if limits else ""))),
        table_of(value.levels, Level, now=now),
        *(Line(Cell(error, tone="bad")) for error in errors),
    )


def _smoke(value: SmokeReport, now: float) -> tuple[Block, ...]:
    said = f"{value.endpoint} on {value.pod} ({value.engine}) " + ("does what it should" if value.ok else "fails")
    return (Line(Cell(said, tone="good" if value.ok else "bad")), table_of(value.checks, Check, now=now))


def _setup(value: SetupReport, now: float) -> tuple[Block, ...]:
    """The checks, what was done, what there is now."""
    versions = value.versions
    untried = "" if value.verified else ", which no test of podlab runs"
    pairs = [
        ("pod", Cell(value.pod)),
        ("engine", Cell(f"{value.engine} {value.version}{untried}")),
        ("ready", Cell("yes" if value.ready else "no", tone="good" if value.ready else "bad")),
        ("environment", Cell(value.environment or "", code=bool(value.environment))),
        ("installed", Cell("just now" if value.installed else "")),
        ("models", Cell(value.models_path, code=True)),
        ("version", text_cell(versions.engine)),
        ("torch", text_cell(versions.torch)),
        ("CUDA", text_cell(versions.cuda)),
        ("Python", text_cell(versions.python)),
    ]
    stages = titled("step", table_of(value.stages, Check, now=now, empty="Nothing was done."))
    return (table_of(value.checks, Check, now=now), stages, Facts(_present(pairs)))


def _matrix(value: MatrixList, now: float) -> tuple[Block, ...]:
    where = f"{value.pod}: {value.machine}" + (f"; the table is in {value.saved}" if value.saved else "")
    return (table_of(value.rows, Tried, now=now, empty="Nothing was tried."), Line(Cell(where, tone="quiet")))


def _script(value: ShellScript, now: float) -> tuple[Block, ...]:
    return (Verbatim(value.text.rstrip("\n")),)


def _job_list(value: JobList, now: float) -> tuple[Block, ...]:
    return (table_of(value.jobs, JobRow, now=now, empty="No jobs."), *_silent(value.pods, now))


def _silent(pods: tuple[PodStatus, ...], now: float) -> tuple[Block, ...]:
    """A pod that did not answer may be running anything: an empty table alone would claim that it runs nothing."""
    lines = []
    for status in pods:
        if status.state is not PodState.REACHABLE:
            why = f": {status.detail.removesuffix('.')}" if status.detail else ""
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
        ("GPU memory", Cell(value.freed.text, tone="bad" if value.freed.left else "good") if value.freed else Cell("")),
        ("id", Cell(endpoint.id, code=True)),
    ]
    blocks: list[Block] = [Facts(_present(pairs))]
    if value.command:
        blocks.append(Verbatim(" ".join(value.command), "command"))
    if value.log:
        blocks.append(Verbatim("\n".join(value.log), "log"))
    return tuple(blocks)


def _metrics(value: MetricsReport, now: float) -> tuple[Block, ...]:
    def rate(tokens_per_s: float | None) -> Cell:
        return Cell("-" if tokens_per_s is None else f"{rate_text(tokens_per_s)} tokens/s")

    ratio = value.kv_used_ratio
    pairs = [
        ("endpoint", Cell(value.endpoint)),
        ("running", text_cell(value.running)),
        ("waiting", text_cell(value.waiting)),
        ("KV cache", Cell("-" if ratio is None else f"{ratio:.1%} used")),
        ("reading", rate(value.prompt_tokens_per_s)),
        ("writing", rate(value.generation_tokens_per_s)),
        ("read so far", Cell(_tokens(value.prompt_tokens))),
        ("written so far", Cell(_tokens(value.generation_tokens))),
    ]
    return (Facts(_present(pairs)), Line(Cell(f"counted for {duration_text(value.seconds)}", tone="quiet")))


def _tokens(count: int | None) -> str:
    return "-" if count is None else f"{count} token{'' if count == 1 else 's'}"


def _url(value: UrlDetail, now: float) -> tuple[Block, ...]:
    pairs = [
        ("endpoint", Cell(value.name)),
        ("base URL", Cell(value.base_url, code=True)),
        ("key", Cell("" if value.key is None else str(value.key))),
        ("model", Cell(value.model, code=True)),
        ("works", Cell(value.works)),
    ]
    blocks: list[Block] = [Facts(_present(pairs))]
    if value.exports:
        blocks.append(Verbatim("\n".join(value.exports), "shell"))
    if value.snippet:
        blocks.append(Verbatim(value.snippet, "Python"))
    return tuple(blocks)


def _log(value: LogLines, now: float) -> tuple[Block, ...]:
    if value.lines:
        missing = f"{bytes_text(value.dropped_bytes)} before this were dropped: the log had come to its cap."
        return (*((Line(Cell(missing, "quiet")),) if value.dropped_bytes else ()), Verbatim("\n".join(value.lines)))
    return (Line(Cell("Nothing was added to the log in that time." if value.offset else "The log is empty.")),)


_NO_CAUSE = {"other": "No rule knows this log. Read it yourself, from the last error upwards."}


def _explanation(value: Explanation, now: float) -> tuple[Block, ...]:
    known = value.verified or value.cause == "other"
    pairs = [
        ("cause", Cell(value.cause, tone="good" if value.cause == "none" else "bad")),
        ("engine", Cell(value.engine or "")),
        ("suggestion", Cell(value.suggestion or _NO_CAUSE.get(value.cause, ""))),
        ("checked", Cell("" if known else "not against a real failure: the rule follows what others report")),
    ]
    lines = (Verbatim("\n".join(value.lines), "log"),) if value.lines else ()
    return (Facts(_present(pairs)), *lines)


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
    if value.left_out:
        what += f"; {len(value.left_out)} left out that {'is' if len(value.left_out) == 1 else 'are'} no regular file"
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
    PodList: _pod_list,
    PodDetail: _pod_detail,
    PodSample: pod_sample,
    EndpointList: _endpoint_list,
    FitReport: fit_report,
    EndpointDetail: _endpoint_detail,
    MetricsReport: _metrics,
    ModelDetail: _model_detail,
    ImportList: _import_list,
    ShellScript: _script,
    MatrixList: _matrix,
    BenchReport: _bench,
    SmokeReport: _smoke,
    SetupReport: _setup,
    JobList: _job_list,
    UrlDetail: _url,
    LogLines: _log,
    Explanation: _explanation,
    JobRow: _job,
    Transfer: _transfer,
    Interactive: _interactive,
    Reply: _reply,
    ConversationDetail: _conversation,
    **WEIGHTS_DRAWN,
    **RENT_DRAWN,
    **COSTS_DRAWN,
}
