"""Which rented pod a person means: by the name it has here, else by what the ledger or its company calls it.

The ledger is asked first: a pod whose registration was lost can still be shown, and above all ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from podlab.errors import BadArgument, NotFound, PodlabError
from podlab.lab import pods
from podlab.lab.launches import Launch, Phase, all_launches
from podlab.ledger import Ledger
from podlab.renting import Rental
from podlab.types import Pod

if TYPE_CHECKING:
    from podlab.lab.workspace import Workspace


def launch_meant(workspace: Workspace, ledger: Ledger, name: str | None) -> Launch:
    """The launch that `name` means, one that may be billed before one that has ended; the pod in use without a name.

    Raises BadArgument for a pod that is not rented, NotFound with the nearest name, StateDamaged.
    """
    text = name or workspace.value("pod")
    launches = all_launches(ledger)
    for among in (launch_list(launches, open_only=True), launch_list(launches, open_only=False)):
        found = [launch for launch in among if text in (launch.name, launch.id, launch.order_name, *launch.ids)]
        if found:
            return found[0]
    try:
        pod = pods.meant(workspace, name)
    except NotFound as error:
        raise NotFound(f"No rented pod is called {text!r}.", hint=_nearest(text, launches)) from error
    known = next((launch for launch in launches if launch.id == pod.id), None)
    if known is not None:  # it has another name here than it was rented by
        return known
    raise not_rented(pod)


def launch_list(launches: tuple[Launch, ...], *, open_only: bool) -> list[Launch]:
    """The newest first, without those of which certainly nothing came."""
    kept = [launch for launch in launches if (launch.is_open if open_only else launch.phase is not Phase.REFUSED)]
    return sorted(kept, key=lambda launch: -launch.asked_at)


def not_rented(pod: Pod) -> BadArgument:
    """Why a verb about money means nothing for this pod."""
    what = "this computer" if pod.provider == "local" else "a machine of somebody's own, reached by SSH"
    return BadArgument(
        f"{pod.name} is {what}: nothing of it is rented or billed.",
        hint="See what is rented: podlab pod list --all. Rent one: podlab pod create",
    )


def rental_names(ledger: Ledger) -> list[str]:
    """Names of what may be billed now, for completion; [] where the ledger cannot be read."""
    try:
        return list(dict.fromkeys(launch.name for launch in launch_list(all_launches(ledger), open_only=True)))
    except PodlabError:
        return []


def rental_of(launch: Launch, rentals: tuple[Rental, ...]) -> Rental | None:
    """The pod of a launch in a listing."""
    by_id = (rental for rental in rentals if rental.id == launch.rental_id)
    by_name = (rental for rental in rentals if rental.name == launch.order_name)
    return next(by_id, None) or next(by_name, None)


def _nearest(text: str, launches: tuple[Launch, ...]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(text, [launch.name for launch in launches if launch.is_open], n=1)
    return f"Did you mean {near[0]}?" if near else "See: podlab pod list --all"
