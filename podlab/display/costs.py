"""What rented pods cost, and pods that nobody owns, as tables and sentences. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from podlab.commands.rent_results import CostList, CostRow, OrphanList, OrphanRow
from podlab.display.layout import Block, Cell, Line
from podlab.display.rent import (
    company_text,
    rate_cell,
    shortened,
    simulated_line,
    simulated_names,
    state_cell,
    usd_cell,
)
from podlab.display.tables import Column, table_by
from podlab.units import usd_text

_NOBODY = {"pod": "-", "model": "no model", "notebook": "no notebook"}


def _columns(by: str) -> tuple[Column, ...]:
    return (
        Column(by, lambda row, now: Cell(row.of or _NOBODY.get(by, "-"))),
        Column("now", lambda row, now: rate_cell(row.usd_per_hour) if row.usd_per_hour else Cell("-"), numeric=True),
        Column("today", lambda row, now: usd_cell(row.today_usd), numeric=True),
        Column("this month", lambda row, now: usd_cell(row.month_usd), numeric=True, spare=1),
        Column("in all", lambda row, now: usd_cell(row.total_usd), numeric=True),
        Column("billed", lambda row, now: usd_cell(row.billed_usd), numeric=True),
        Column("bill less ours", lambda row, now: _difference(row), numeric=True, spare=2),
        Column("pods", lambda row, now: Cell(str(row.pods) if row.pods else "-"), numeric=True, spare=3),
    )


def _difference(row: CostRow) -> Cell:
    if row.difference_usd is None:
        return Cell("-")
    sign = "+" if row.difference_usd > 0 else ""
    return Cell(sign + usd_text(row.difference_usd))


def _costs(value: CostList, now: float) -> tuple[Block, ...]:
    shown, more = shortened(value.costs, lambda row: not row.open_pods, value.limit, value.left_out)
    real = [row for row in shown if not row.simulated]
    pretended = [row for row in shown if row.simulated]
    blocks: list[Block] = []
    if real or not pretended:
        table = table_by(_columns(value.by), real, now=now, empty="No rented pod has cost anything.")
        blocks += [table, *([Line(Cell(_sum(value.total, value)))] if real else [])]
    blocks += [Line(Cell(note, "busy")) for note in value.notes]
    if pretended:
        blocks += [simulated_line("sandbox"), table_by(_columns(value.by), pretended, now=now, empty="")]
        if value.simulated is not None:
            blocks.append(Line(Cell(f"{_sum(value.simulated, None)} All of it pretended.")))
    return (*blocks, *more)


def _sum(row: CostRow, value: CostList | None) -> str:
    """'In all $3.20, this month $1.10, today $0.40 of $5.00 a day; $0.44/h now.'"""
    day = f" of {usd_text(value.per_day_usd)} a day" if value is not None and value.per_day_usd is not None else ""
    most = f" of {usd_text(value.total_limit_usd)}" if value is not None and value.total_limit_usd is not None else ""
    now = f"; {usd_text(row.usd_per_hour)}/h now." if row.usd_per_hour else "; nothing is billed now."
    today = f"today {usd_text(row.today_usd)}{day}"
    return f"In all {usd_text(row.total_usd)}{most}, this month {usd_text(row.month_usd)}, {today}{now}"


_ORPHANS = (
    Column("pod", lambda row, now: Cell(row.name or row.rental_id or row.launch)),
    Column("whose", lambda row, now: Cell(row.owner, tone="bad" if row.owner == "ours" else "quiet")),
    Column("state", lambda row, now: state_cell(row.state), spare=1),
    Column("price", lambda row, now: rate_cell(row.usd_per_hour), numeric=True, spare=2),
    Column("company", lambda row, now: Cell(company_text(row.provider, row.simulated)), spare=3),
    Column("found", lambda row, now: Cell(row.found)),
    Column("what to do", lambda row, now: Cell(row.fix)),
)


def _orphans(value: OrphanList, now: float) -> tuple[Block, ...]:
    blocks: list[Block] = list(_verdict(value))
    if value.orphans:
        blocks.append(table_by(_ORPHANS, value.orphans, now=now, empty=""))
        blocks += simulated_names((row.name, row.provider) for row in value.orphans if row.simulated)
    blocks += [Line(Cell(problem, "bad")) for problem in value.problems]
    return tuple(blocks)


def _verdict(value: OrphanList) -> Iterator[Line]:
    ours = sum(row.owner == "ours" for row in value.orphans)
    many = "pod of ours is" if value.open_pods == 1 else "pods of ours are"
    where = ", ".join(company_text(name, name == "sandbox") for name in value.asked) or "no company"
    if ours:
        lost = "is not where it" if ours == 1 else "are not where they"
        yield Line(Cell(f"{ours} of ours {lost} should be. Asked: {where}.", "bad"))
    elif value.problems:
        yield Line(Cell("Whether anything is orphaned is not known.", "bad"))
    else:
        yield Line(Cell(f"Nothing of ours is orphaned; {value.open_pods} rented {many} known. Asked: {where}.", "good"))


def _rows(value: OrphanRow, now: float) -> tuple[Block, ...]:
    return (table_by(_ORPHANS, (value,), now=now, empty=""),)


DRAWN: dict[type, Callable[[Any, float], tuple[Block, ...]]] = {
    CostList: _costs,
    OrphanList: _orphans,
    OrphanRow: _rows,
}
