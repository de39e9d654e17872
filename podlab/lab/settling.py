"""What became of an order whose answer was lost: looked up by its unique name, never asked for again.

A pod that is found is adopted, and any other of the same order is ended. That there is none is believed only after
listings would have shown it, and said twice: until then nothing else is rented in its place.
"""

from __future__ import annotations

from podlab.errors import PodlabError, RateLimited, RentalFailed, StateDamaged
from podlab.events import Stage, Work
from podlab.lab.ending import listing, look
from podlab.lab.launches import Launch
from podlab.lab.market import Market
from podlab.renting import Rental, RentalState

FIRST_S, LONGEST_S = 2.0, 15.0
"""Between two looks: the second is twice as late as the first, and so on."""
GIVE_UP_S = 900.0
"""After this long without an answer a person has to know; the row stays open."""


def settle(market: Market, launch: Launch) -> Work[Rental | None]:
    """The pod that came of an order, or None when it is proven that none did (its row is closed then).

    Raises RentalFailed when the provider cannot tell, StateDamaged when the ledger cannot be written.
    """
    begun_at = market.ticks()
    wait_s, problem = FIRST_S, ""
    while True:
        asked_first_s = wait_s
        try:
            shown = listing(market, launch.provider)
            launch = look(market, launch, shown)
            found = next((rental for rental in shown.rentals if rental.id == launch.rental_id), None)
            if found is not None and found.state is not RentalState.TERMINATED:
                return found
            if not launch.is_open:
                return None
            problem = ""
        except StateDamaged:
            raise
        except RateLimited as error:
            asked_first_s, problem = max(wait_s, error.retry_after_s), error.message
        except PodlabError as error:
            problem = error.message
        if market.ticks() - begun_at > GIVE_UP_S:
            raise RentalFailed(
                f"Whether {launch.name} was rented is not known: {problem or 'it comes and goes in the list'}.",
                launch=launch.id, rental_id=launch.rental_id,
                hint=f"It counts as billed until that is known. Look at it: podlab pod show {launch.name}",
            )  # fmt: skip
        yield Stage("settle", f"Looking for {launch.order_name}: the answer was lost{problem and f' ({problem})'}")
        market.pause(asked_first_s)
        wait_s = min(2 * wait_s, LONGEST_S)
