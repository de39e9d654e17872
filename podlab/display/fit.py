"""Whether a model fits, as a sentence, a table of what takes each GPU's memory, and a bar of it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from podlab.catalog.fit import GpuParts
from podlab.commands.results import FitReport
from podlab.display.layout import Bar, Bars, Block, Cell, Facts, Head, Line, Part, Steps, Table
from podlab.units import memory_text, tokens_text


@dataclasses.dataclass(frozen=True)
class _Alike:
    """GPUs next to each other of which all the same is said; `part` is one of them."""

    part: GpuParts
    count: int

    @property
    def name(self) -> str:
        if self.part.name == "memory":
            return "memory"
        last = "" if self.count == 1 else f"-{self.part.index + self.count - 1}"
        return f"{self.part.index}{last}: {self.part.name.removeprefix('NVIDIA ')}"


def fit_report(value: FitReport, now: float) -> tuple[Block, ...]:
    """The blocks of a verdict."""
    tone = {True: "good", False: "bad", None: "quiet"}[value.fits]
    word = {True: "fits", False: "does not fit", None: "not known"}[value.fits]
    where = f" on {_where(value)}" if value.gpus else ""
    blocks: list[Block] = [Line(Cell(f"{value.model}: {word}{where}", tone))]  # type: ignore[arg-type]
    blocks.append(Line(Cell(value.reason)))
    if value.gpus:
        alike = _alike(value.gpus)
        blocks += [_table(alike), Bars(tuple(map(_bar, alike)))]
    blocks.append(Facts(_facts(value)))
    if value.nearest:
        blocks.append(Steps("It would fit with one of:", value.nearest))
    return tuple(blocks)


def _where(value: FitReport) -> str:
    """'2x RTX 4090', 'the CPU of lab'."""
    names = Counter(part.name for part in value.gpus)
    if "memory" in names:
        return f"the CPU of {value.pod}"
    return ", ".join(f"{count}x {name}" for name, count in names.items()) + (f" of {value.pod}" if value.pod else "")


def _alike(parts: Sequence[GpuParts]) -> tuple[_Alike, ...]:
    found: list[_Alike] = []
    for part in parts:
        last = found[-1] if found else None
        if last and part == dataclasses.replace(last.part, index=last.part.index + last.count):
            found[-1] = _Alike(last.part, last.count + 1)
        else:
            found.append(_Alike(part, 1))
    return tuple(found)


def _table(alike: Sequence[_Alike]) -> Table:
    """GPUs that nobody uses are all free: their own column would say it a second time."""
    used = any(each.part.free_bytes != each.part.total_bytes for each in alike)
    titles = ("memory", *(("free now",) if used else ()), "weights", "KV cache", "activations", "overhead", "left")
    spare = {"overhead": 2, "activations": 1}
    heads = (Head("GPU"), *(Head(title, numeric=True, spare=spare.get(title, 0)) for title in titles))
    return Table(heads, tuple(_row(each, used) for each in alike))


def _size(count: int) -> Cell:
    return Cell(memory_text(count), hover=f"{count} bytes")


def _row(alike: _Alike, used: bool) -> tuple[Cell, ...]:
    part = alike.part
    left = _size(part.left_bytes) if part.left_bytes >= 0 else Cell(f"{memory_text(-part.left_bytes)} missing", "bad")
    sizes = (part.total_bytes, *((part.free_bytes,) if used else ()), part.weights_bytes, part.cache_bytes,
             part.activations_bytes, part.overhead_bytes)  # fmt: skip
    return (Cell(alike.name), *(_size(size) for size in sizes), left)


def _bar(alike: _Alike) -> Bar:
    """The same in proportion: what is used by others or by the driver, and what stays free, is the rest."""
    part = alike.part
    pieces = (
        ("weights", part.weights_bytes), ("KV cache", part.cache_bytes),
        ("activations", part.activations_bytes), ("overhead", part.overhead_bytes),
    )  # fmt: skip
    rest = max(0, part.total_bytes - sum(size for _, size in pieces))
    return Bar(
        alike.name,
        (*(Part(name, size, memory_text(size)) for name, size in pieces), Part("rest", rest, memory_text(rest), True)),
    )


def _facts(value: FitReport) -> tuple[tuple[str, Cell], ...]:
    pairs = (
        ("context asked", _tokens(value.context)), ("largest context", _tokens(value.largest_context)),
        ("requests asked", _count(value.concurrency)), ("most requests", _count(value.largest_concurrency)),
        ("tokens in all", _tokens(value.cache_tokens)), ("a token costs", _per_token(value)), ("split", _split(value)),
        ("share of memory", f"{value.memory_ratio:.0%}" if value.engine == "vllm" else ""),
        ("shape from", value.source),
    )  # fmt: skip
    return tuple((name, Cell(said)) for name, said in pairs if said)


def _tokens(count: int | None) -> str:
    return "" if count is None else "none" if not count else tokens_text(count)


def _count(count: int | None) -> str:
    return "" if count is None else str(count or "none")


def _per_token(value: FitReport) -> str:
    if value.cache_bytes_per_token is None:
        return ""
    return memory_text(round(value.cache_bytes_per_token)) + (" of each GPU" if len(value.gpus) > 1 else "")


def _split(value: FitReport) -> str:
    if value.engine != "vllm" or not value.gpus:
        return ""
    width, replicas = value.tensor_parallel, value.data_parallel
    cut = "none: it is whole on one GPU" if width == 1 else f"over {width} GPUs"
    return cut + (f", {replicas} replicas" if replicas > 1 else "")
