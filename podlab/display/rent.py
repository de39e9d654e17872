"""Renting as tables and sentences: offers, plans, what a pod costs and what ends it, orphans. Pure.

Whatever is shown of a pretended company says so in a line of its own. That a pod is protected is said in a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from podlab.commands.rent_results import CandidateRow, OfferList, OfferRow, PodPlan
from podlab.display.layout import Block, Cell, Facts, Head, Line, Table, Tone
from podlab.display.tables import Column, memory_cell, table_by
from podlab.renting import Stock
from podlab.units import duration_text, usd_text

_STOCK_TONES: dict[Stock, Tone] = {"high": "good", "medium": "good", "low": "busy", "none": "bad", "unknown": "quiet"}
_MOST_PLACES = 3
_MOST_REFUSED = 6


def simulated_line(provider: str) -> Line:
    """What every sheet of a pretended company begins with."""
    return Line(Cell(f"Simulated: {provider} is a pretended company, and its dollars are none.", tone="busy"))


def rate_cell(usd_per_hour: float | None) -> Cell:
    """A price for an hour."""
    return Cell("-" if usd_per_hour is None else f"{usd_text(usd_per_hour)}/h")


def usd_cell(usd: float | None) -> Cell:
    """An amount of dollars."""
    return Cell("-" if usd is None else usd_text(usd))


def gpu_text(gpu: str, count: int) -> str:
    """'2x RTX 4090', 'A40'."""
    return f"{count}x {gpu}" if count > 1 else gpu


def places_text(data_centers: Sequence[str]) -> str:
    """Some of the data centres, and how many more."""
    shown = ", ".join(data_centers[:_MOST_PLACES])
    more = len(data_centers) - _MOST_PLACES
    return f"{shown}, {more} more" if more > 0 else shown


def _stock_cell(stock: Stock) -> Cell:
    return Cell(stock, tone=_STOCK_TONES[stock])


def _fits(row: OfferRow) -> Cell:
    if row.fits is None:
        return Cell("not known" if row.how else "-", tone="quiet")
    return Cell("yes", tone="good") if row.fits else Cell("no", tone="bad")


_OFFERS = (
    Column("GPU", lambda row, now: Cell(gpu_text(row.gpu, row.gpu_count), hover=row.gpu_id)),
    Column("price", lambda row, now: rate_cell(row.usd_per_hour), numeric=True),
    Column("stock", lambda row, now: _stock_cell(row.stock)),
    Column("memory each", lambda row, now: memory_cell(row.memory_bytes), numeric=True),
    Column("cloud", lambda row, now: Cell(row.cloud), spare=1),
    Column("where", lambda row, now: Cell(places_text(row.data_centers)), spare=2),
    Column("fits", lambda row, now: _fits(row)),
    Column("on what, or why not", lambda row, now: Cell(row.how), spare=3),
)
_CANDIDATES = (
    Column("GPU", lambda row, now: Cell(gpu_text(row.gpu, row.gpu_count), hover=row.gpu_id)),
    Column("price", lambda row, now: rate_cell(row.usd_per_hour), numeric=True),
    Column("stock", lambda row, now: _stock_cell(row.stock)),
    Column("cloud", lambda row, now: Cell(row.cloud)),
    Column("where", lambda row, now: Cell(places_text(row.data_centers) or "anywhere"), spare=1),
)


def _offers(value: OfferList, now: float) -> tuple[Block, ...]:
    table = table_by(_OFFERS, value.offers, now=now, empty="Nothing of that kind is offered now.")
    return _marked(value, (table,))


def _marked(value: Any, blocks: Iterable[Block]) -> tuple[Block, ...]:
    """Blocks, with what they are pretended by in front."""
    return ((simulated_line(value.provider),) if value.simulated else ()) + tuple(blocks)


def _plan(value: PodPlan, now: float) -> tuple[Block, ...]:
    tried = [row for row in value.candidates if not row.refused]
    refused = [row for row in value.candidates if row.refused]
    if tried:
        said = f"{value.name} would be rented from {value.provider}, as the first of these that can be had:"
    else:
        said = f"{value.name} cannot be rented from {value.provider} like this."
    blocks: list[Block] = [Line(Cell(said, "plain" if tried else "bad"))]
    if tried:
        blocks += [table_by(_CANDIDATES, tried, now=now, empty=""), Facts(_price_sheet(value))]
    blocks += [Line(Cell(note, "busy")) for note in value.notes]
    if refused:
        blocks.append(_refusals(refused))
    return _marked(value, blocks)


def _price_sheet(value: PodPlan) -> tuple[tuple[str, Cell], ...]:
    """What a person says yes to."""
    disk = f", of that {usd_text(value.disk_usd_per_hour)}/h for its disk" if value.disk_usd_per_hour else ""
    stopped = f"; stopped {usd_text(value.stopped_usd_per_hour)}/h" if value.stopped_usd_per_hour else ""
    price = "-" if value.usd_per_hour is None else f"{usd_text(value.usd_per_hour)}/h{disk}{stopped}"
    cap = "none: nothing limits it" if value.cap_usd is None else usd_text(value.cap_usd)
    budget = "no budget" if value.budget_usd is None else f"a budget of {usd_text(value.budget_usd)}"
    idle = "may be idle for ever" if value.idle_s is None else f"ends when idle for {_duration(value.idle_s)}"
    pairs = (
        ("price", Cell(price)),
        ("cap", Cell(f"{cap} ({budget})", "plain" if value.cap_usd is not None else "bad")),
        ("deadline", Cell("none" if value.ttl_s is None else f"{duration_text(value.ttl_s)} after it is asked for")),
        ("idle", Cell(idle)),
        ("worst case", Cell(_worst(value.worst_usd, value.worst, "right after asking for it"))),
        ("image", Cell(value.image, code=True)),
    )  # fmt: skip
    return tuple((name, cell) for name, cell in pairs if cell.text)


def _duration(seconds: float | None) -> str:
    return "-" if seconds is None else duration_text(seconds)


def _worst(usd: float | None, why: str, when: str = "now") -> str:
    amount = "no bound" if usd is None else usd_text(usd)
    return f"{amount} if this computer died {when}" + (f": {why}" if why else "")


def _refusals(rows: Sequence[CandidateRow]) -> Table:
    """Reasons, each with the machines it is about: many share one."""
    reasons = dict.fromkeys(row.refused for row in rows)
    entries = []
    for reason in reasons:
        named = list(dict.fromkeys(gpu_text(row.gpu, row.gpu_count) for row in rows if row.refused == reason))
        more = len(named) - _MOST_REFUSED
        shown = ", ".join(named[:_MOST_REFUSED]) + (f" and {more} more" if more > 0 else "")
        entries.append((Cell(reason), Cell(shown)))
    return Table((Head("not tried, because"), Head("machines")), tuple(entries))


DRAWN: dict[type, Callable[[Any, float], tuple[Block, ...]]] = {OfferList: _offers, PodPlan: _plan}
