"""Launches for tests of money and brakes, made the way they come to be: by lines of a ledger."""

from __future__ import annotations

from podlab.lab.launches import Launch, fold, policy_fields
from podlab.ledger import Entry
from podlab.renting import Policy, Rental, RentalState

ASKED_AT = 1_700_000_000.0
HOUR_S = 3600.0


def launch(
    *lines: tuple[float, str, dict[str, str]], id: str = "l1", price: float = 1.0, policy: Policy | None = None,
    live: bool = True, asked_at: float = ASKED_AT, **told: str,
) -> Launch:  # fmt: skip
    """A launch that was asked for, is live after a minute, and then met `lines`: seconds after that, verb, details."""
    entries = [Entry(1, asked_at, "rent.ask", id, ask(price, policy or Policy(), **told))]
    if live:
        entries.append(Entry(2, asked_at + 60, "rent.live", id, {"rental": f"r-{id}", "usd_per_hour": str(price)}))
    entries += [Entry(3, asked_at + after_s, verb, id, detail) for after_s, verb, detail in lines]
    return fold(entries)[0]


def ask(price: float, policy: Policy, **told: str) -> dict[str, str]:
    """The details of an intent."""
    return {
        "name": "gpu", "order": "gpu-x1", "provider": "sandbox", "gpu": "A40", "gpu_count": "1", "cloud": "secure",
        "usd_per_hour": str(price), "disk_usd_per_hour": "0.1", "stopped_usd_per_hour": "0.2",
    } | policy_fields(policy) | told  # fmt: skip


def state(word: RentalState, price: float | None = None) -> dict[str, str]:
    """The details of a change of state."""
    return {"state": word.value} | ({} if price is None else {"usd_per_hour": str(price)})


def rental(id: str = "r-l1", word: RentalState = RentalState.RUNNING, **fields: object) -> Rental:
    """A pod as its provider describes it."""
    return Rental(id, "gpu-x1", word, **{"usd_per_hour": 0.9, "has_runtime": True, **fields})  # type: ignore[arg-type]
