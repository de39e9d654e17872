"""What is known of rented pods where the ledger is damaged or cannot be written: enough to end them, never to rent.

The rule. What this process read while the file was whole counts as it was. Of a damaged file

- a line counts whose sum holds;
- one whose line before is lost counts where it only helps to find and end pods (FINDS): a pod may then be ended by
  limits that were moved later, but none is taken for gone because of it;
- one whose sum does not hold counts for nothing, but for one case: the intent of a pod whose id a proven line has. That
  the pod is ours is certain then, and limits that may be wrong are better than none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from podlab.errors import StateDamaged
from podlab.lab.launches import Launch, Phase, Span, all_launches, fold
from podlab.ledger import Entry, Ledger, Salvaged, Trust
from podlab.renting import Rental, RentalState

FINDS = frozenset({"rent.ask", "rent.live", "rent.extra", "rent.ending"})
HAS_ID = frozenset({"rent.live", "rent.extra"})


def salvage(known: Sequence[Entry], lines: Iterable[Salvaged]) -> tuple[Launch, ...]:
    """The launches of a damaged ledger: `known` are the lines as they were when it was whole, `lines` what is left."""
    numbers, asked = {entry.number for entry in known}, {entry.subject for entry in known if entry.verb == "rent.ask"}
    fresh = [line for line in lines if line.entry.number not in numbers]
    proven = [line.entry for line in fresh if line.trust is Trust.PROVEN]
    asked |= {entry.subject for entry in proven if entry.verb == "rent.ask"}
    ours = {entry.subject for entry in proven if entry.verb in HAS_ID}
    kept = list(known)
    for line in fresh:
        entry = line.entry
        is_new = entry.verb != "rent.ask" or entry.subject not in asked
        counts = line.trust is Trust.PROVEN or (
            is_new
            and (
                entry.verb in FINDS if line.trust is Trust.ALONE else entry.verb == "rent.ask" and entry.subject in ours
            )
        )
        if counts:
            kept.append(entry)
            if entry.verb == "rent.ask":
                asked.add(entry.subject)
    return fold(kept)


def endable(ledger: Ledger) -> tuple[tuple[Launch, ...], StateDamaged | None]:
    """Every launch that a person may want to end; of a damaged ledger what can still be read, and what is wrong."""
    try:
        return all_launches(ledger), None
    except StateDamaged as error:
        return salvage((), ledger.salvaged()), error


def as_listed(launch: Launch, rentals: Iterable[Rental]) -> Launch:
    """A launch whose pod is listed by its unique name, with the pod's id, where that cannot be written down."""
    if launch.phase is not Phase.ASKED or not launch.order_name:
        return launch
    mine = [each for each in rentals if each.name == launch.order_name and each.state is not RentalState.TERMINATED]
    if not mine:
        return launch
    spans = launch.spans or (Span(RentalState.RUNNING, launch.usd_per_hour, launch.asked_at),)
    extra_ids = tuple(each.id for each in mine[1:])
    return replace(launch, phase=Phase.LIVE, rental_id=mine[0].id, extra_ids=extra_ids, spans=spans)
