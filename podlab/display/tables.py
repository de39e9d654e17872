"""One table of columns per kind of row: the single source of what text and HTML show."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from podlab.commands.results import ModelRow, RecipeRow, SecretRow, SettingRow
from podlab.display.layout import Cell, Head, Table, Tone
from podlab.loadtest import Level, Spread
from podlab.settings import SETTINGS
from podlab.types import Check, Endpoint, EndpointState, JobRow, PodState, PodStatus, Tried, TunnelRow
from podlab.units import age_text, bytes_text, duration_text, memory_text, rate_text, tokens_text

_POD_TONES: dict[PodState, Tone] = {
    PodState.REACHABLE: "good", PodState.UNREACHABLE: "bad", PodState.UNKNOWN: "quiet",
}  # fmt: skip
_ENDPOINT_TONES: dict[EndpointState, Tone] = {
    EndpointState.DOWNLOADING: "busy", EndpointState.LOADING: "busy", EndpointState.READY: "good",
    EndpointState.UNHEALTHY: "bad", EndpointState.CRASHED: "bad", EndpointState.STOPPED: "quiet",
    EndpointState.UNREACHABLE: "bad", EndpointState.ORPHAN: "bad",
}  # fmt: skip
_JOB_TONES: dict[str, Tone] = {
    "running": "busy", "failed": "bad", "crashed": "bad", "unreachable": "bad", "lost": "bad",
}  # fmt: skip


_TRIED_TONES: dict[str, Tone] = {"works": "good", "partly": "busy", "fails": "bad"}
_CHECK_TONES: dict[str, Tone] = {"ok": "good", "warning": "busy", "failed": "bad", "skipped": "quiet"}


@dataclass(frozen=True)
class Column:
    """A title, how a row's entry is made (`now` is seconds since the epoch), and what layout.Head says of the rest."""

    title: str
    entry: Callable[[Any, float], Cell]
    numeric: bool = False
    note: bool = False
    spare: int = 0


def text_cell(value: Any) -> Cell:
    """A value as an entry; what is missing shows as a dash."""
    if value is None or value == "" or value == ():
        return Cell("-")
    if isinstance(value, bool):
        return Cell("yes" if value else "no")
    if isinstance(value, (tuple, list)):
        return Cell(", ".join(str(item) for item in value))
    return Cell(str(value))


def bytes_cell(count: int | None) -> Cell:
    """A size, the exact count behind it."""
    return Cell("-") if count is None else Cell(bytes_text(count), hover=f"{count} bytes")


def memory_cell(count: int | None) -> Cell:
    """Memory of a computer or a GPU, the exact count behind it."""
    return Cell("-") if count is None else Cell(memory_text(count), hover=f"{count} bytes")


def tokens_cell(count: int | None) -> Cell:
    """A context, the exact count behind it."""
    return Cell("-") if count is None else Cell(tokens_text(count), hover=f"{count} tokens")


def count_cell(count: int | None) -> Cell:
    """How many weights, to three digits, the exact count behind it."""
    if count is None:
        return Cell("-")
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return Cell(f"{count / size:.3g} {unit}", hover=str(count))
    return Cell(str(count))


def age_cell(then: float | None, now: float) -> Cell:
    """How long ago, the exact time behind it."""
    return Cell("never" if then is None else age_text(then, now), hover=moment_text(then))


def moment_text(then: float | None) -> str:
    """Seconds since the epoch -> '2026-11-21 02:03:11 UTC'."""
    return "" if then is None else datetime.fromtimestamp(then, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def pod_state_cell(status: PodStatus) -> Cell:
    """A pod's state in its word."""
    return Cell(status.state.value, tone=_POD_TONES[status.state])


def endpoint_state_cell(endpoint: Endpoint) -> Cell:
    """An endpoint's state in its word, with the cause of a crash."""
    word = endpoint.state.value + (f" ({endpoint.cause})" if endpoint.cause else "")
    return Cell(word, tone=_ENDPOINT_TONES[endpoint.state])


def job_state_cell(job: JobRow) -> Cell:
    """A job's state in its word."""
    ended_well: Tone = "good" if job.status == 0 else "bad" if job.status is not None else "quiet"
    return Cell(job.state, tone=_JOB_TONES.get(job.state, ended_well))


def _where(status: PodStatus) -> Cell:
    address = status.pod.address
    if address is None:
        return Cell("this computer") if status.pod.provider == "local" else Cell("-")
    host = f"{address.user}@{address.host}" if address.user else address.host
    return Cell(host + (f":{address.port}" if address.port else ""), code=True)


def _attribute(name: str) -> Callable[[Any, float], Cell]:
    return lambda row, now: text_cell(getattr(row, name))


def _started(row: Endpoint | JobRow, now: float) -> Cell:
    return Cell("-") if row.started_at is None else age_cell(row.started_at, now)


def _setting(row: SettingRow) -> Cell:
    """A setting as a person writes it; a value that no setting of ours has is shown as it is."""
    declared = next((each for each in SETTINGS if each.name == row.name), None)
    try:
        return text_cell(row.value if declared is None else declared.shown(row.value))
    except (TypeError, ValueError):
        return text_cell(row.value)


def _load(level: Level) -> Cell:
    return Cell(f"{level.rate_per_s:g}/s" if level.rate_per_s is not None else f"{level.concurrency} at once")


def _rate(per_s: float | None) -> Cell:
    return Cell("-" if per_s is None else rate_text(per_s))


def _passed(tried: Tried) -> Cell:
    ok = [check.name for check in tried.checks if check.state == "ok"]
    rest = [f"{check.name} {check.state}" for check in tried.checks if check.state != "ok"]
    return Cell(", ".join([f"{len(ok)} of {len(tried.checks)}", *rest]) if tried.checks else "-")


def _sent(level: Level, now: float) -> Cell:
    if not level.failed:
        return Cell(str(level.requests))
    return Cell(f"{level.requests}, {level.failed} failed", tone="bad")


def _middle_and_worst(spread: Spread) -> Cell:
    """'12, 48 ms': a unit that both have is said once."""
    middle, worst = _latency(spread.p50_s), _latency(spread.p99_s)
    number, _, unit = middle.partition(" ")
    return Cell(f"{number if unit == worst.partition(' ')[2] else middle}, {worst}")


def _latency(seconds: float | None) -> str:
    """A duration, to a tenth of a millisecond below ten: fast answers differ there."""
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.1f} ms" if seconds < 0.00995 else duration_text(seconds)


def _took(seconds: float | None) -> Cell:
    return Cell("-" if seconds is None else duration_text(seconds))


def _fits(model: ModelRow) -> Cell:
    """Whether the pod that was asked can serve a model."""
    if model.fits is None:
        return Cell("not known" if model.how else "-", tone="quiet", hover=model.how)
    return Cell("yes", tone="good", hover=model.how) if model.fits else Cell("no", tone="bad", hover=model.how)


COLUMNS: dict[type, tuple[Column, ...]] = {
    PodStatus: (
        Column("pod", lambda row, now: Cell(row.pod.name)),
        Column("state", lambda row, now: pod_state_cell(row)),
        Column("in use", lambda row, now: Cell("in use" if row.in_use else "")),
        Column("provider", lambda row, now: Cell(row.pod.provider), spare=2),
        Column("where", lambda row, now: _where(row), spare=1),
        Column("last seen", lambda row, now: age_cell(row.last_seen, now)),
        Column("detail", lambda row, now: Cell(row.detail), note=True),
    ),
    Endpoint: (
        Column("endpoint", lambda row, now: Cell(row.name or row.id)),
        Column("state", lambda row, now: endpoint_state_cell(row)),
        Column("detail", lambda row, now: Cell(row.detail), note=True),
        Column("pod", _attribute("pod")),
        Column("URL", lambda row, now: Cell(row.url or "", code=bool(row.url)), spare=1),
        Column("model", _attribute("model"), spare=3),
        Column("engine", _attribute("engine"), spare=5),
        Column("GPUs", _attribute("gpus"), spare=4),
        Column("started", _started, spare=2),
    ),
    ModelRow: (
        Column("model", _attribute("id")),
        Column("fits", lambda row, now: _fits(row)),
        Column("parameters", lambda row, now: count_cell(row.parameters), numeric=True),
        Column("size", lambda row, now: bytes_cell(row.size_bytes), numeric=True),
        Column("context", lambda row, now: tokens_cell(row.context), numeric=True),
        Column("engine", _attribute("engine"), spare=2),
        Column("licence", _attribute("licence"), spare=3),
        Column("on what, or why not", _attribute("how")),
        Column("summary", _attribute("summary"), spare=1),
    ),
    RecipeRow: (
        Column("recipe", lambda row, now: Cell(f"{row.gpus}x {'/'.join(row.types) or 'any GPU'}")),
        Column("engine", _attribute("engine"), spare=2),
        Column("context", lambda row, now: tokens_cell(row.context), numeric=True),
        Column("cut", lambda row, now: Cell(f"tensor {row.tensor_parallel}, data {row.data_parallel}")),
        Column("arguments", lambda row, now: Cell(" ".join(row.arguments), code=True)),
        Column("environment", lambda row, now: Cell(" ".join(f"{k}={v}" for k, v in row.env.items()), code=True)),
        Column("startable", _attribute("startable")),
        Column("notes", _attribute("notes")),
        Column("source", _attribute("source"), spare=1, note=True),
    ),
    JobRow: (
        Column("job", _attribute("id")),
        Column("state", lambda row, now: job_state_cell(row)),
        Column("status", _attribute("status"), numeric=True),
        Column("pod", _attribute("pod")),
        Column("started", _started),
        Column("command", lambda row, now: Cell(row.command, code=True)),
    ),
    TunnelRow: (
        Column("pod", _attribute("pod")),
        Column("here", lambda row, now: Cell(f"127.0.0.1:{row.local_port}", code=True)),
        Column("there", _attribute("remote_port"), numeric=True),
    ),
    SettingRow: (
        Column("setting", _attribute("name")),
        Column("value", lambda row, now: _setting(row)),
        Column("from", _attribute("source")),
        Column("meaning", _attribute("help")),
    ),
    Level: (
        Column("load", lambda row, now: _load(row)),
        Column("sent", _sent, numeric=True),
        Column("requests/s", lambda row, now: Cell(rate_text(row.requests_per_s)), numeric=True),
        Column("goodput/s", lambda row, now: _rate(row.goodput_per_s), numeric=True),
        Column("tokens/s", lambda row, now: Cell(rate_text(row.output_tokens_per_s)), numeric=True),
        Column("TTFT p50, p99", lambda row, now: _middle_and_worst(row.ttft), numeric=True),
        Column("TPOT p50, p99", lambda row, now: _middle_and_worst(row.tpot), numeric=True),
        Column("ITL p50, p99", lambda row, now: _middle_and_worst(row.itl), numeric=True, spare=2),
        Column("E2E p50, p99", lambda row, now: _middle_and_worst(row.e2e), numeric=True, spare=1),
    ),
    Tried: (
        Column("model", _attribute("model")),
        Column("engine", _attribute("engine")),
        Column("backend", _attribute("backend")),
        Column("", lambda row, now: Cell(row.state, tone=_TRIED_TONES[row.state])),
        Column("ready after", lambda row, now: _took(row.ready_s), numeric=True),
        Column("tokens/s", lambda row, now: _rate(row.tokens_per_s), numeric=True),
        Column("first token", lambda row, now: _took(row.first_token_s), numeric=True),
        Column("checks", lambda row, now: _passed(row)),
        Column("cause", _attribute("cause")),
        Column("detail", lambda row, now: Cell(row.detail)),
    ),
    Check: (
        Column("check", _attribute("name")),
        Column("", lambda row, now: Cell(row.state, tone=_CHECK_TONES[row.state])),
        Column("took", lambda row, now: _took(row.took_s), numeric=True),
        Column("found", _attribute("detail")),
        Column("what to do", _attribute("fix")),
    ),
    SecretRow: (Column("secret", _attribute("name")), Column("from", _attribute("source"))),
}

_OPTIONAL = frozenset(
    {"in use", "detail", "URL", "GPUs", "last seen", "licence", "fits", "on what, or why not", "goodput/s",
     "backend", "cause", "what to do", "took", "arguments", "environment", "notes", "source"}
)  # fmt: skip
"""Columns that are left out when no row has anything in them."""


def table_of(rows: Iterable[Any], row_type: type, *, now: float, empty: str = "Nothing to show.") -> Table:
    """Rows of one kind as a table. A kind without a column table shows its fields."""
    columns = COLUMNS.get(row_type) or tuple(
        Column(field.name.replace("_", " "), _attribute(field.name)) for field in dataclasses.fields(row_type)
    )
    return table_by(columns, rows, now=now, empty=empty)


def titled(title: str, table: Table) -> Table:
    """The table with another title of its first column."""
    return dataclasses.replace(table, heads=(dataclasses.replace(table.heads[0], title=title), *table.heads[1:]))


def table_by(columns: Sequence[Column], rows: Iterable[Any], *, now: float, empty: str) -> Table:
    """Rows as a table of these columns, less those that may be left out where no row has anything in them."""
    entries = [tuple(column.entry(row, now) for column in columns) for row in rows]
    kept = [
        index for index, column in enumerate(columns)
        if column.title not in _OPTIONAL or any(row[index].text not in ("", "-") for row in entries)
    ]  # fmt: skip
    heads = tuple(
        Head(column.title, column.numeric, column.note, column.spare) for column in (columns[index] for index in kept)
    )
    return Table(heads, tuple(tuple(row[index] for index in kept) for row in entries), empty)
