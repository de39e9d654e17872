"""Renting as tables and sentences: offers, plans, what a pod costs and what ends it, orphans. Pure.

Whatever is shown of a pretended company says so in a line of its own. That a pod is protected is said in a word.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from podlab.commands.rent_results import (
    AccountDetail,
    AccountKeyList,
    CandidateRow,
    DoctorReport,
    FaultList,
    InitReport,
    OfferList,
    OfferRow,
    PodPlan,
    RegistryList,
    RentalDetail,
    RentalList,
    RentalLog,
    RentalPanel,
    SandboxDetail,
    TemplateList,
    VolumeList,
    log_text,
)
from podlab.display.layout import Block, Cell, Facts, Head, Line, Steps, Table, Tone, Verbatim
from podlab.display.tables import Column, age_cell, memory_cell, moment_text, table_by, table_of, text_cell
from podlab.lab.brakes import Rules
from podlab.renting import Account, Stock
from podlab.types import Check
from podlab.units import age_text, duration_text, usd_text

_STOCK_TONES: dict[Stock, Tone] = {"high": "good", "medium": "good", "low": "busy", "none": "bad", "unknown": "quiet"}
_STATE_TONES: dict[str, Tone] = {
    "running": "good", "provisioning": "busy", "starting": "busy", "asked": "busy", "ending": "busy",
    "stopped": "quiet", "ended": "quiet", "refused": "quiet", "terminated": "quiet", "error": "bad", "unknown": "bad",
}  # fmt: skip
_PROTECTION_TONES: dict[str, Tone] = {"protected": "good", "partly": "busy", "unprotected": "bad"}
_MOST_PLACES = 3
_MOST_REFUSED = 6

NAMED = 8
"""So many names are read in a line."""
SHOWN = 50
"""So many rows of what is over are shown unless another number is asked for."""


def simulated_line(provider: str) -> Line:
    """What every sheet of a pretended company begins with."""
    return Line(Cell(f"Simulated: {provider} is a pretended company, and its dollars are none.", tone="busy"))


def simulated_names(rows: Iterable[tuple[str, str]]) -> tuple[Line, ...]:
    """Which rows of a table are pretended, as (name, company): a line where there are any."""
    named: dict[str, list[str]] = {}
    for name, company in rows:
        named.setdefault(company, []).append(name)
    return tuple(
        Line(Cell(f"Simulated: {_few(names)}. {company} is a pretended company.", tone="busy"))
        for company, names in named.items()
    )


def _few(names: Iterable[str]) -> str:
    """'a, b and 7 more'."""
    every = list(dict.fromkeys(names))
    rest = len(every) - NAMED if len(every) > NAMED + 1 else 0
    return ", ".join(every[: len(every) - rest]) + (f" and {rest} more" if rest else "")


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


def protection_cell(rental: RentalDetail) -> Cell:
    """How sure it is that a pod ends by itself, in its word."""
    return Cell(rental.protection or "-", tone=_PROTECTION_TONES.get(rental.protection, "plain"))


def state_cell(state: str) -> Cell:
    """The state of a rented pod in its word."""
    return Cell(state, tone=_STATE_TONES.get(state, "plain"))


def _stock_cell(stock: Stock) -> Cell:
    return Cell(stock, tone=_STOCK_TONES[stock])


def _fits(row: OfferRow) -> Cell:
    if row.fits is None:
        return Cell("not known" if row.how else "-", tone="quiet")
    return Cell("yes", tone="good") if row.fits else Cell("no", tone="bad")


def ends_cell(rental: RentalDetail, now: float) -> Cell:
    """When its deadline ends it, the exact time behind it; for one that has ended, when that was."""
    if rental.ended_at is not None:
        return Cell(age_text(rental.ended_at, now), hover=moment_text(rental.ended_at))
    if rental.state == "ending":
        return Cell("its end is asked for", "busy")
    if (ends_at := _ends_at(rental)) is None:
        return Cell("no deadline" if rental.protection else "-")
    left_s = ends_at - now
    return Cell(f"in {duration_text(left_s)}" if left_s > 0 else "overdue", hover=moment_text(ends_at))


def _ends_at(rental: RentalDetail) -> float | None:
    """When its deadline ends it: a stopped pod's disk is kept for a while behind it."""
    if rental.deadline_at is None:
        return None
    return rental.deadline_at + (Rules().stopped_kept_s if rental.state == "stopped" else 0.0)


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
_RENTALS = (
    Column("pod", lambda row, now: Cell(row.name)),
    Column("state", lambda row, now: state_cell(row.state)),
    Column("GPU", lambda row, now: Cell(gpu_text(row.gpu, row.gpu_count)), spare=3),
    Column("price", lambda row, now: rate_cell(row.usd_per_hour if row.ended_at is None else None), numeric=True),
    Column("has cost", lambda row, now: usd_cell(row.spent_usd), numeric=True, spare=2),
    Column("ends", ends_cell, spare=1),
    Column("protection", lambda row, now: protection_cell(row)),
    Column("company", lambda row, now: Cell(company_text(row.provider, row.simulated)), spare=4),
)


def company_text(provider: str, simulated: bool) -> str:
    """'runpod', 'sandbox (simulated)'."""
    return f"{provider} (simulated)" if simulated else provider


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
    most = "at most " if sum(not row.refused for row in value.candidates) > 1 else ""
    price = "-" if value.usd_per_hour is None else f"{most}{usd_text(value.usd_per_hour)}/h{disk}{stopped}"
    cap = "none: nothing limits it" if value.cap_usd is None else usd_text(value.cap_usd)
    idle = "may be idle for ever" if value.idle_s is None else f"ends when idle for {_duration(value.idle_s)}"
    pairs = (
        ("price", Cell(price)),
        ("cap", Cell(f"{cap} ({_bound(value)})", "plain" if value.cap_usd is not None else "bad")),
        ("deadline", Cell("none" if value.ttl_s is None else f"{duration_text(value.ttl_s)} after it is asked for")),
        ("idle", Cell(idle)),
        ("worst case", Cell(_worst(value.worst_usd, value.worst, "right after asking for it"))),
        ("image", Cell(value.image, code=True)),
    )  # fmt: skip
    return tuple((name, cell) for name, cell in pairs if cell.text)


def _bound(value: PodPlan) -> str:
    """Which of its limits the cap is: the one that is reached first."""
    if value.budget_usd is None:
        return "no budget" if value.cap_usd is None else "by its deadline; no budget"
    budget = usd_text(value.budget_usd)
    sooner = value.cap_usd is not None and value.cap_usd < value.budget_usd
    return f"by its deadline; its budget is {budget}" if sooner else f"by its budget of {budget}"


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


_PUBLIC = (
    "anybody can ask there, no login stands before it, and an answer that takes longer than 100 s is cut: "
    "a tunnel (podlab pod tunnel open PORT) has neither fault"
)


def rental_facts(rental: RentalDetail, now: float) -> tuple[Block, ...]:
    """What a rented pod costs and what ends it, as `pod show` has it."""
    billed = "" if rental.billed_usd is None else f", of which {usd_text(rental.billed_usd)} are billed"
    open_ = rental.ended_at is None
    pairs = (
        ("rented from", Cell(company_text(rental.provider, rental.simulated), "busy" if rental.simulated else "plain")),
        ("rental", state_cell(rental.state)),
        ("GPU", Cell(gpu_text(rental.gpu, rental.gpu_count))),
        ("where", Cell(", ".join(part for part in (rental.cloud, rental.data_center or "") if part))),
        ("price", rate_cell(rental.usd_per_hour)),
        ("has cost", Cell(usd_text(rental.spent_usd) + billed)),
        ("up", Cell("" if rental.uptime_s is None else duration_text(rental.uptime_s))),
        ("limits", Cell(_limits(rental, now) if open_ else "")),
        ("protection", _protection(rental)),
        ("worst case", Cell(_worst(rental.worst_usd, rental.worst) if open_ and rental.worst else "")),
        ("ended", Cell("") if rental.ended_at is None else age_cell(rental.ended_at, now)),
        ("public at", Cell(", ".join(rental.public_urls), code=bool(rental.public_urls))),
        ("mind", Cell(_PUBLIC if rental.public_urls else "", "busy")),
        ("why" if rental.state in ("ended", "ending", "refused") else "note", Cell(rental.why)),
        ("named there", Cell(rental.order_name, code=True)),
        ("id there", Cell(rental.rental_id or "", code=True)),
    )
    return (Facts(tuple((name, cell) for name, cell in pairs if cell.text and cell.text != "-")),)


def _protection(rental: RentalDetail) -> Cell:
    detail = f": {rental.protection_detail}" if rental.protection_detail else ""
    return Cell(
        rental.protection and rental.protection + detail, tone=_PROTECTION_TONES.get(rental.protection, "plain")
    )


def _limits(rental: RentalDetail, now: float) -> str:
    """'ends in 1 h 20 min, at $10.00, when idle for 30 min, or 10 min after the last word from here'."""
    if rental.state == "ending":
        return "its end is asked for; it counts as billed until that is proven"
    found = []
    if (ends_at := _ends_at(rental)) is not None:
        found.append(f"in {duration_text(max(0.0, ends_at - now))}")
    if rental.budget_usd is not None:
        found.append(f"at {usd_text(rental.budget_usd)}")
    if rental.state == "stopped":  # nothing on it is idle, and no switch runs there
        return f"ends {' or '.join(found) or 'never by itself'}, if this computer is there to end it"
    if rental.idle_s is not None:
        found.append(f"when idle for {duration_text(rental.idle_s)}")
    if rental.lease_s is not None:
        found.append(f"{duration_text(rental.lease_s)} after the last word from here")
    *most, last = found or ["never by itself"]
    return "ends " + ", ".join(most) + (" or " if most else "") + last


_SURE = {"partly": "partly protected", "unprotected": "unprotected"}


def rental_table(rentals: Sequence[RentalDetail], now: float) -> tuple[Block, ...]:
    """Rented pods as a table, and a line for each that nothing would end."""
    table = table_by(_RENTALS, rentals, now=now, empty="No rented pods.")
    lines = [
        Line(Cell(f"{rental.name} is {_SURE[rental.protection]}: {rental.protection_detail or rental.worst}", "bad"))
        for rental in rentals
        if rental.protection in _SURE and rental.state != "ending"
    ]
    pretended = simulated_names((rental.name, rental.provider) for rental in rentals if rental.simulated)
    return (table, *pretended, *lines)


Over = TypeVar("Over")


def shortened(
    rows: Sequence[Over], is_over: Callable[[Over], bool], limit: int | None, left_out: int
) -> tuple[list[Over], tuple[Line, ...]]:  # fmt: skip
    """The rows that are shown, with all that may cost money, and a line that says how many more there are."""
    over = itertools.count(1)
    kept = [row for row in rows if limit is not None or not is_over(row) or next(over) <= SHOWN]
    rest = left_out + len(rows) - len(kept)
    if not rest:
        return kept, ()
    whole = rest + sum(map(is_over, kept))
    return kept, (Line(Cell(f"{rest} more that are over are not shown. All: --limit {whole}")),)


def panel_notes(value: RentalPanel) -> tuple[Line, ...]:
    """What a look at the companies found beside our own pods."""
    lines = [Line(Cell(problem, "bad")) for problem in value.problems]
    if value.foreign:
        pods = "1 pod was" if value.foreign == 1 else f"{value.foreign} pods were"
        lines.append(Line(Cell(f"{pods} not rented from here, and not touched. See: podlab pod orphans")))
    return tuple(lines)


def _panel(value: RentalPanel, now: float) -> tuple[Block, ...]:
    return (*rental_table(value.rentals, now), *panel_notes(value))


def rental_card(rental: RentalDetail, now: float) -> tuple[Block, ...]:
    """A rented pod in a few lines, for who looks at it all the time."""
    cost = f"{usd_text(rental.usd_per_hour)}/h, {usd_text(rental.spent_usd)} so far"
    pairs = (
        ("pod", Cell(rental.name)),
        ("state", state_cell(rental.state)),
        ("GPU", Cell(gpu_text(rental.gpu, rental.gpu_count))),
        ("cost", Cell(cost)),
        ("limits", Cell(_limits(rental, now))),
        ("protection", _protection(rental)),
        ("worst case", Cell(_worst(rental.worst_usd, rental.worst) if rental.worst else "")),
        ("why" if rental.state == "ending" else "note", Cell(rental.why)),
        ("rented from", Cell(company_text(rental.provider, rental.simulated), "busy" if rental.simulated else "plain")),
    )  # fmt: skip
    return (Facts(tuple((name, cell) for name, cell in pairs if cell.text)),)


def _rental_list(value: RentalList, now: float) -> tuple[Block, ...]:
    return rental_table(value.rentals, now)


def _log(value: RentalLog, now: float) -> tuple[Block, ...]:
    if not value.lines:
        return _marked(value, (Line(Cell(f"{value.provider} has logged nothing of {value.pod} yet.")),))
    return _marked(value, (Verbatim("\n".join(map(log_text, value.lines))),))


def _volumes(value: VolumeList, now: float) -> tuple[Block, ...]:
    columns = (
        Column("volume", lambda row, now: Cell(row.name)), Column("id", lambda row, now: Cell(row.id, code=True)),
        Column("size", lambda row, now: Cell(f"{row.size_gb} GB"), numeric=True),
        Column("where", lambda row, now: Cell(row.data_center)), Column("tier", lambda row, now: text_cell(row.tier)),
    )  # fmt: skip
    table = table_by(columns, value.volumes, now=now, empty="No network volumes.")
    month = value.usd_per_month
    said = () if not value.volumes or month is None else (Line(Cell(f"They cost about {usd_text(month)} a month.")),)
    return _marked(value, (table, *said))


def _templates(value: TemplateList, now: float) -> tuple[Block, ...]:
    columns = (
        Column("template", lambda row, now: Cell(row.name)), Column("id", lambda row, now: Cell(row.id, code=True)),
        Column("image", lambda row, now: Cell(row.image, code=True)),
        Column("public", lambda row, now: text_cell(row.public)),
    )  # fmt: skip
    return _marked(value, (table_by(columns, value.templates, now=now, empty="No templates."),))


def _registries(value: RegistryList, now: float) -> tuple[Block, ...]:
    columns = (
        Column("registry", lambda row, now: Cell(row.name)), Column("id", lambda row, now: Cell(row.id, code=True)),
    )  # fmt: skip
    return _marked(value, (table_by(columns, value.registries, now=now, empty="No logins to registries."),))


def _keys(value: AccountKeyList, now: float) -> tuple[Block, ...]:
    columns = (
        Column("key", lambda row, now: Cell(row.comment or row.type)), Column("type", lambda row, now: Cell(row.type)),
        Column("fingerprint", lambda row, now: Cell(row.fingerprint, code=True)),
    )  # fmt: skip
    return _marked(value, (table_by(columns, value.keys, now=now, empty="The account has no SSH keys."),))


def _account(value: AccountDetail, now: float) -> tuple[Block, ...]:
    account: Account = value.account
    lasts = "" if value.lasts_s is None else f", enough for {duration_text(value.lasts_s)} at what is spent now"
    pairs = (
        ("company", Cell(company_text(account.provider, value.simulated), "busy" if value.simulated else "plain")),
        ("account", Cell(account.email)),
        ("balance", Cell("not known" if account.balance_usd is None else usd_text(account.balance_usd) + lasts)),
        ("spends now", rate_cell(account.spend_usd_per_hour)),
        ("may spend", rate_cell(account.spend_limit_usd_per_hour)),
        ("the key may", text_cell(account.scopes)),
        ("not read", Cell(account.detail)),
    )
    return (Facts(tuple((name, cell) for name, cell in pairs if cell.text and cell.text != "-")),)


def _doctor(value: DoctorReport, now: float) -> tuple[Block, ...]:
    failed = sum(check.state == "failed" for check in value.checks)
    warned = sum(check.state == "warning" for check in value.checks)
    if failed:
        said = f"{failed} of {len(value.checks)} checks failed: pods of {value.provider} cannot be rented safely."
    else:
        said = f"Pods of {value.provider} can be rented from here" + (f"; {warned} to look at." if warned else ".")
    line = Line(Cell(said, "bad" if failed else "busy" if warned else "good"))
    return _marked(value, (line, table_of(value.checks, Check, now=now)))


def _init(value: InitReport, now: float) -> tuple[Block, ...]:
    blocks: list[Block] = [table_of(value.checks, Check, now=now)]
    if value.settings:
        blocks.append(Verbatim("\n".join(value.settings), "config.toml"))
    if value.next:
        blocks.append(Steps("Go on with:", value.next))
    return _marked(value, blocks)


def _sandbox(value: SandboxDetail, now: float) -> tuple[Block, ...]:
    if not value.running:
        return (Line(Cell("The sandbox is not open. Open it: podlab sandbox up", "quiet")),)
    pods = f"{value.pods}, of which {value.running_pods} running" if value.pods else "none"
    pairs = (
        ("sandbox", Cell("open (simulated)", "busy")), ("URL", Cell(value.url or "", code=True)),
        ("process", text_cell(value.pid)),
        ("bill runs", Cell("" if value.speed is None else f"{value.speed:g} times as fast as time")),
        ("pods", Cell(pods)), ("pretended balance", usd_cell(value.balance_usd)),
        ("spends", rate_cell(value.spend_usd_per_hour)), ("goes wrong", Cell("; ".join(value.faults))),
    )  # fmt: skip
    return (Facts(tuple((name, cell) for name, cell in pairs if cell.text and cell.text != "-")),)


def _faults(value: FaultList, now: float) -> tuple[Block, ...]:
    columns = (
        Column("fault", lambda row, now: Cell(row.name, code=True)),
        Column("what happens", lambda row, now: Cell(row.help)),
    )
    return (table_by(columns, value.faults, now=now, empty=""),)


DRAWN: dict[type, Callable[[Any, float], tuple[Block, ...]]] = {
    OfferList: _offers, PodPlan: _plan, RentalList: _rental_list, RentalPanel: _panel, RentalLog: _log,
    VolumeList: _volumes, TemplateList: _templates, RegistryList: _registries, AccountKeyList: _keys,
    AccountDetail: _account,
    DoctorReport: _doctor, InitReport: _init, SandboxDetail: _sandbox, FaultList: _faults,
    RentalDetail: rental_facts,
}  # fmt: skip
