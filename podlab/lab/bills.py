"""The providers' own bills, read into the ledger: what stands beside our figures, and what tells of a pod that is
billed although it was proven gone.
"""

from __future__ import annotations

from collections.abc import Sequence

from podlab.lab.launches import LAG_S, Launch
from podlab.lab.market import Market
from podlab.lab.money import SETTLED_S
from podlab.renting import Bill

EVERY_S = 3600.0
"""Between two looks: providers add up by the hour."""
ASKED_AFTER_S = 3 * 86400.0
"""So long after a pod's end its bill is still asked for."""
LEAST_USD = 0.0001
STRAY_USD = 0.01


def wanted(launches: Sequence[Launch], now: float) -> tuple[Launch, ...]:
    """Those whose bill may still change, or was not read since it is final."""
    return tuple(launch for launch in launches if launch.ids and _is_wanted(launch, now))


def read(market: Market, name: str, launches: Sequence[Launch]) -> tuple[str, ...]:
    """Read what a provider billed for these launches of its own into the ledger.

    Returns an alarm for each that is billed after its proven end. Raises what the provider raises, and StateDamaged.
    """
    now = market.now()
    since = min(launch.asked_at for launch in launches) - EVERY_S
    bills = market.provider(name).bills(since=since, until=now)
    alarms = []
    for launch in launches:
        mine = [bill for bill in bills if bill.rental_id in launch.ids]
        _note(market, launch, mine)
        stray = sum(bill.usd for bill in mine if _is_stray(launch, bill))
        if stray >= STRAY_USD:
            alarms.append(
                f"{launch.name} was proven gone and is still billed: ${stray:.2f} since. See: podlab pod orphans"
            )
    return tuple(alarms)


def _note(market: Market, launch: Launch, bills: Sequence[Bill]) -> None:
    usd = sum(bill.usd for bill in bills)
    is_final = launch.ended_at is not None and market.now() >= launch.ended_at + SETTLED_S
    if bills and (launch.billed_usd is None or abs(usd - launch.billed_usd) >= LEAST_USD or is_final):
        market.ledger.append("rent.bill", launch.id, usd=f"{usd:.6f}")


def _is_stray(launch: Launch, bill: Bill) -> bool:
    """A bill for the hour in which a pod ended is none, nor one for all of its life."""
    return launch.ended_at is not None and bill.begins_at > launch.ended_at + LAG_S


def _is_wanted(launch: Launch, now: float) -> bool:
    if launch.is_open or launch.ended_at is None:
        return launch.is_open
    settled = launch.billed_at is not None and launch.billed_at >= launch.ended_at + SETTLED_S
    return not settled and now - launch.ended_at < ASKED_AFTER_S
