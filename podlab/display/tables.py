"""One table of columns per kind of row: the single source of what text and HTML show."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from podlab.commands.results import ModelRow, SecretRow, SettingRow
from podlab.display.layout import Cell, Head, Table, Tone
from podlab.types import Endpoint, EndpointState, JobRow, PodState, PodStatus, TunnelRow
from podlab.units import age_text, bytes_text

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


@dataclass(frozen=True)
class Column:
    """A title and how a row's entry is made; `now` is seconds since the epoch."""

    title: str
    entry: Callable[[Any, float], Cell]
    numeric: bool = False


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


def _setting(value: Any) -> Cell:
    return Cell("on" if value else "off") if isinstance(value, bool) else text_cell(value)


def _parameters(model: ModelRow) -> Cell:
    count = model.parameters
    if count is None:
        return Cell("-")
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return Cell(f"{count / size:.3g} {unit}", hover=str(count))
    return Cell(str(count))


COLUMNS: dict[type, tuple[Column, ...]] = {
    PodStatus: (
        Column("pod", lambda row, now: Cell(row.pod.name)),
        Column("state", lambda row, now: pod_state_cell(row)),
        Column("in use", lambda row, now: Cell("in use" if row.in_use else "")),
        Column("provider", lambda row, now: Cell(row.pod.provider)),
        Column("where", lambda row, now: _where(row)),
        Column("last seen", lambda row, now: age_cell(row.last_seen, now)),
        Column("detail", lambda row, now: Cell(row.detail)),
    ),
    Endpoint: (
        Column("endpoint", _attribute("name")),
        Column("state", lambda row, now: endpoint_state_cell(row)),
        Column("detail", lambda row, now: Cell(row.detail)),
        Column("pod", _attribute("pod")),
        Column("model", _attribute("model")),
        Column("engine", _attribute("engine")),
        Column("GPUs", _attribute("gpus")),
        Column("started", lambda row, now: Cell("-") if row.started_at is None else age_cell(row.started_at, now)),
        Column("URL", lambda row, now: Cell(row.url or "", code=bool(row.url))),
    ),
    ModelRow: (
        Column("model", _attribute("id")),
        Column("parameters", lambda row, now: _parameters(row), numeric=True),
        Column("size", lambda row, now: bytes_cell(row.size_bytes), numeric=True),
        Column("context", _attribute("context"), numeric=True),
        Column("engine", _attribute("engine")),
        Column("licence", _attribute("licence")),
        Column("summary", _attribute("summary")),
    ),
    JobRow: (
        Column("job", _attribute("id")),
        Column("state", lambda row, now: job_state_cell(row)),
        Column("status", _attribute("status"), numeric=True),
        Column("pod", _attribute("pod")),
        Column("started", lambda row, now: Cell("-") if row.started_at is None else age_cell(row.started_at, now)),
        Column("command", lambda row, now: Cell(row.command, code=True)),
    ),
    TunnelRow: (
        Column("pod", _attribute("pod")),
        Column("here", lambda row, now: Cell(f"127.0.0.1:{row.local_port}", code=True)),
        Column("there", _attribute("remote_port"), numeric=True),
    ),
    SettingRow: (
        Column("setting", _attribute("name")),
        Column("value", lambda row, now: _setting(row.value)),
        Column("from", _attribute("source")),
        Column("meaning", _attribute("help")),
    ),
    SecretRow: (Column("secret", _attribute("name")), Column("from", _attribute("source"))),
}

_OPTIONAL = frozenset({"in use", "detail", "URL", "GPUs", "last seen", "licence"})
"""Columns that are left out when no row has anything in them."""


def table_of(rows: Iterable[Any], row_type: type, *, now: float, empty: str = "Nothing to show.") -> Table:
    """Rows of one kind as a table. A kind without a column table shows its fields."""
    columns = COLUMNS.get(row_type) or tuple(
        Column(field.name.replace("_", " "), _attribute(field.name)) for field in dataclasses.fields(row_type)
    )
    entries = [tuple(column.entry(row, now) for column in columns) for row in rows]
    kept = [
        index for index, column in enumerate(columns)
        if column.title not in _OPTIONAL or any(row[index].text not in ("", "-") for row in entries)
    ]  # fmt: skip
    heads = tuple(Head(columns[index].title, columns[index].numeric) for index in kept)
    return Table(heads, tuple(tuple(row[index] for index in kept) for row in entries), empty)
