"""What a search of the hub found, downloads, the files of models on a pod: their tables and sentences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from podlab.commands.results import (
    CacheQuota,
    DiskUsage,
    DownloadDetail,
    DownloadList,
    FileList,
    HubModelList,
    VerifyReport,
)
from podlab.display.layout import Bar, Bars, Block, Cell, Line, Part, Tone, Verbatim
from podlab.display.tables import Column, age_cell, bytes_cell, table_by, text_cell
from podlab.types import DownloadRow, HubModel, PodState, StoredModel, VerifiedFile, WeightFile
from podlab.units import bytes_text, duration_text

_BAR_LETTERS = 20
_DOWNLOAD_TONES: dict[str, Tone] = {
    "downloading": "busy", "done": "good", "failed": "bad", "lost": "bad", "crashed": "bad",
}  # fmt: skip
_FILE_TONES: dict[str, Tone] = {"ok": "good", "damaged": "bad", "missing": "bad", "unreadable": "bad"}
_MODEL_TONES: dict[str, Tone] = {"whole": "good", "partial": "busy"}


def _parameters(count: int | None) -> Cell:
    if count is None:
        return Cell("-")
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6)):
        if count >= size:
            return Cell(f"{count / size:.3g} {unit}", hover=str(count))
    return Cell(str(count))


def _many(count: int) -> Cell:
    for unit, size in (("M", 10**6), ("k", 10**3)):
        if count >= size:
            return Cell(f"{count / size:.3g} {unit}", hover=str(count))
    return Cell(str(count))


def _fits(model: HubModel) -> Cell:
    if model.fits is None:
        return Cell("-")
    return Cell("yes", tone="good") if model.fits else Cell("no", tone="bad")


def _done(row: DownloadRow) -> Cell:
    if row.done_bytes is None:
        return Cell("-")
    if not row.total_bytes:
        return Cell(bytes_text(row.done_bytes))
    filled = min(_BAR_LETTERS, _BAR_LETTERS * row.done_bytes // row.total_bytes)
    bar = "#" * filled + "-" * (_BAR_LETTERS - filled)
    return Cell(f"[{bar}] {min(100, 100 * row.done_bytes // row.total_bytes)} %", code=True)


def _rate(row: DownloadRow) -> Cell:
    return Cell("-" if row.rate_bytes_per_s is None else f"{bytes_text(row.rate_bytes_per_s)}/s")


def _checked(file: WeightFile) -> Cell:
    if file.partial_bytes:
        return Cell(f"cut, {bytes_text(file.partial_bytes)} are here", tone="busy")
    if file.checked:
        return Cell("checked when it came", tone="good", hover=file.digest)
    return Cell("changed since it was checked", tone="bad") if file.digest else Cell("never checked", tone="quiet")


_FOUND = (
    Column("model", lambda row, now: Cell(row.id)),
    Column("downloads", lambda row, now: _many(row.downloads), numeric=True),
    Column("parameters", lambda row, now: _parameters(row.parameters), numeric=True),
    Column("kept in", lambda row, now: text_cell(row.dtype)),
    Column("fits", lambda row, now: _fits(row)),
    Column("licence", lambda row, now: text_cell(row.licence), spare=2),
    Column("gated", lambda row, now: Cell("gated" if row.gated else ""), spare=1),
)
_DOWNLOADS = (
    Column("download", lambda row, now: Cell(row.id), spare=3),
    Column("model", lambda row, now: Cell(row.model)),
    Column("pod", lambda row, now: Cell(row.pod)),
    Column("state", lambda row, now: Cell(row.state, tone=_DOWNLOAD_TONES.get(row.state, "quiet"))),
    Column("done", lambda row, now: _done(row)),
    Column("of", lambda row, now: bytes_cell(row.total_bytes), numeric=True, spare=2),
    Column("rate", lambda row, now: _rate(row), numeric=True),
    Column("left", lambda row, now: Cell("-" if row.left_s is None else duration_text(row.left_s)), numeric=True),
    Column("started", lambda row, now: Cell("-") if row.started_at is None else age_cell(row.started_at, now), spare=1),
    Column("detail", lambda row, now: Cell(row.detail), note=True),
)
_MODELS = (
    Column("model", lambda row, now: Cell(row.id, code=True)),
    Column("state", lambda row, now: Cell(row.state, tone=_MODEL_TONES.get(row.state, "quiet"))),
    Column("size", lambda row, now: bytes_cell(row.size_bytes), numeric=True),
    Column("files", lambda row, now: Cell(str(len(row.files))), numeric=True, spare=3),
    Column("last used", lambda row, now: age_cell(row.last_used, now), spare=1),
    Column("used by", lambda row, now: text_cell(row.used_by)),
    Column("commit", lambda row, now: Cell(row.commit[:12] or "-", hover=row.commit), spare=2),
)
_FILES = (
    Column("file", lambda row, now: Cell(row.name)),
    Column("size", lambda row, now: bytes_cell(row.size_bytes), numeric=True),
    Column("state", lambda row, now: _checked(row)),
    Column("digest", lambda row, now: Cell(row.digest or "-", code=bool(row.digest)), spare=1),
)
_VERIFIED = (
    Column("file", lambda row, now: Cell(row.name)),
    Column("", lambda row, now: Cell(row.state, tone=_FILE_TONES.get(row.state, "quiet"))),
    Column("digest", lambda row, now: Cell(row.digest or "-", code=bool(row.digest)), spare=1),
)
_OTHERS = (
    Column("in the standard cache", lambda row, now: Cell(row.id)),
    Column("size", lambda row, now: bytes_cell(row.size_bytes), numeric=True),
    Column("last used", lambda row, now: age_cell(row.last_used, now)),
    Column("where", lambda row, now: Cell(row.path, code=True), spare=1),
)


def _found(value: HubModelList, now: float) -> tuple[Block, ...]:
    columns = [column for column in _FOUND if column.title != "fits" or any(m.fits is not None for m in value.models)]
    blocks: list[Block] = [table_by(columns, value.models, now=now, empty="The hub found no such model.")]
    if value.pod and any(model.fits is not None for model in value.models):
        blocks.append(Line(Cell(f"fits: the weights alone, in what is free on {value.pod} now", "quiet")))
    return tuple(blocks)


def _download(value: DownloadDetail, now: float) -> tuple[Block, ...]:
    if value.model is None:
        return (table_by(_DOWNLOADS, (value.download,), now=now, empty=""),)
    fetched = value.download.total_bytes
    came = f"{bytes_text(fetched)} came" if fetched else "nothing had to come"
    size = bytes_text(value.model.size_bytes)
    return (
        Line(Cell(f"{value.model.id} is on {value.model.pod}, {size}, checked against the hub; {came}.", "good")),
        Verbatim(f"podlab model start {value.model.id}", "start it"),
    )


def _downloads(value: DownloadList, now: float) -> tuple[Block, ...]:
    silent = tuple(
        Line(Cell(f"pod {status.pod.name} is {status.state.value}; what it downloads is not known", "bad"))
        for status in value.pods if status.state is not PodState.REACHABLE
    )  # fmt: skip
    return (table_by(_DOWNLOADS, value.downloads, now=now, empty="No downloads."), *silent)


def _files(value: FileList, now: float) -> tuple[Block, ...]:
    if not value.one:
        return (_models(value.models, now, f"No models on {value.pod}."),)
    blocks: list[Block] = []
    for model in value.models:
        files = table_by(_FILES, model.files, now=now, empty="No files.")
        blocks += [_models((model,), now, ""), files, Verbatim(model.path)]
    return tuple(blocks)


def _models(models: tuple[StoredModel, ...], now: float, empty: str) -> Block:
    return table_by(_MODELS, models, now=now, empty=empty)


def _verified(value: VerifyReport, now: float) -> tuple[Block, ...]:
    rate = f", {bytes_text(round(value.total_bytes / value.seconds))}/s" if value.seconds > 0 else ""
    took = f"{bytes_text(value.total_bytes)} in {duration_text(value.seconds)}{rate}"
    bad = [file.name for file in value.files if file.state not in ("ok", "unknown")]
    blocks: list[Block] = [table_by(_VERIFIED, value.files, now=now, empty="No files.")]
    if bad:
        blocks.append(Line(Cell(f"{value.model} on {value.pod}: {', '.join(bad)} not as it should be. {took}.", "bad")))
    elif all(_known(file) for file in value.files):
        blocks.append(Line(Cell(f"{value.model} on {value.pod} is what the hub has. {took}.", "good")))
    else:
        said = f"{value.model} on {value.pod} was hashed; for some files there is nothing to hold it against. {took}."
        blocks.append(Line(Cell(said, "quiet")))
    if value.mend:
        blocks.append(Verbatim(value.mend, "mend it"))
    return tuple(blocks)


def _known(file: VerifiedFile) -> bool:
    return file.state == "ok"


def _usage(value: DiskUsage, now: float) -> tuple[Block, ...]:
    disk = value.disk
    rest = max(0, disk.total_bytes - disk.free_bytes - disk.used_bytes)
    pieces = (("models", disk.used_bytes, False), ("everything else", rest, False), ("free", disk.free_bytes, True))
    bar = Bar(disk.path, tuple(Part(name, size, bytes_text(size), spare) for name, size, spare in pieces))
    blocks: list[Block] = [
        _models(value.models, now, f"No models on {disk.pod}."),
        Bars((bar,)),
        Line(_quota_cell(value)),
    ]
    if value.others:
        blocks.append(table_by(_OTHERS, value.others, now=now, empty=""))
    return tuple(blocks)


def _quota_cell(value: DiskUsage | CacheQuota) -> Cell:
    disk = value.disk
    quota = "no quota" if disk.quota_bytes is None else f"a quota of {bytes_text(disk.quota_bytes)}"
    return Cell(f"{bytes_text(disk.used_bytes)} of models on {disk.pod}, {bytes_text(disk.free_bytes)} free, {quota}")


def _cache(value: CacheQuota, now: float) -> tuple[Block, ...]:
    going = Line(Cell(f"would go first: {', '.join(value.next)}", "quiet"))
    return (Line(_quota_cell(value)), *((going,) if value.next and value.disk.quota_bytes is not None else ()))


DRAWN: dict[type, Callable[[Any, float], tuple[Block, ...]]] = {
    HubModelList: _found,
    DownloadDetail: _download,
    DownloadList: _downloads,
    FileList: _files,
    VerifyReport: _verified,
    DiskUsage: _usage,
    CacheQuota: _cache,
}
