"""Which rented pod a person means: by the name it has here, else by what the ledger or its company calls it.

The name in the registry goes first: a person may write there, which the ledger does not know. It knows every pod that
was ever asked for: one whose registration was lost, or cannot be read, can still be ended.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from podlab.errors import BadArgument, BadSettings, NotFound, PodlabError
from podlab.lab import pods
from podlab.lab.launches import Launch, Phase, all_launches
from podlab.ledger import Ledger
from podlab.renting import Rental
from podlab.types import Pod

if TYPE_CHECKING:
    from podlab.lab.workspace import Workspace


def launch_meant(workspace: Workspace, ledger: Ledger, name: str | None) -> Launch:
    """The launch of the ledger that `name` means, as `launch_among` finds it. Raises StateDamaged, too."""
    return launch_among(workspace, all_launches(ledger), name)


def launch_among(workspace: Workspace, launches: tuple[Launch, ...], name: str | None) -> Launch:
    """The launch that `name` means, one that may be billed before one that has ended; the pod in use without a name.
    It is called as its pod is called here now.

    Raises BadArgument for a pod that is not rented, NotFound with the nearest name.
    """
    text = name or workspace.value("pod")
    here = _registered()
    called, pod = _called(launches, here), here.get(text)
    if pod is not None and (known := next((each for each in called if each.id == pod.id), None)) is not None:
        return known
    # By the name that it was rented by only where no other pod has that now.
    rented_as = {each.id: each.order_name.rpartition("-")[0] for each in launches if pod is None}
    for open_only in (True, False):
        among = launch_list(called, open_only=open_only)
        found = [each for each in among if text in (each.name, each.id, each.order_name, *each.ids)]
        found += [each for each in among if rented_as.get(each.id) == text]
        if found:
            return found[0]
    if pod is not None:
        raise not_rented(pod)
    raise NotFound(f"No rented pod is called {text!r}.", hint=_nearest(text, called))


def called_here(launches: tuple[Launch, ...]) -> tuple[Launch, ...]:
    """Launches with the names that their pods have in the registry now."""
    return _called(launches, _registered())


def _called(launches: tuple[Launch, ...], here: dict[str, Pod]) -> tuple[Launch, ...]:
    names = {pod.id: pod.name for pod in here.values()}
    return tuple(replace(launch, name=names.get(launch.id, launch.name)) for launch in launches)


def _registered() -> dict[str, Pod]:
    """The pods of the registry by their names; none where it cannot be read: that must not keep a meter running."""
    try:
        return {pod.name: pod for pod in pods.all_pods()}
    except BadSettings:
        return {}


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
        launches = called_here(all_launches(ledger))
        return list(dict.fromkeys(launch.name for launch in launch_list(launches, open_only=True)))
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
