"""The end of a pod: asked for until it is proven. Idempotent, and tolerant of whatever the provider does.

    end(market, launch, why=..., brake=...)     write down that it has to end, and ask
    look(market, launch, listing)               what one listing says of it; may write, ask again, or close the row
    prove(market, launch)                       one look of its own
    until_proven(market, launch)                looks until the row is closed

Every process that has the ledger may call these at any time, also several at once. A row is closed only after the
provider did not know the pod twice, `Launch.gap_s` apart, and not before a new pod would have been listed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from podlab.errors import NotAllowed, NotFound, PodlabError, ProviderError, StateDamaged
from podlab.events import Stage, Work
from podlab.lab.launches import Launch, Moment, Phase, all_launches, find, price
from podlab.lab.market import Market
from podlab.lab.money import limit
from podlab.providers.base import DEADLINE_S, Provider
from podlab.renting import Rental, RentalState
from podlab.units import duration_text

SENT_S = DEADLINE_S
"""From the last moment at which an order can have been sent to when a pod that comes of it must be there."""
GONE = "whoever asked for it is gone, and what came of it is not known"
STALE_S = DEADLINE_S + 15.0
"""A listing older than this is not written down: this process may have been stopped since."""
PROOF_S = 900.0
"""How long `until_proven` looks before it leaves the rest to whoever tends."""
LOOK_S = 15.0


def end(market: Market, launch: Launch, *, why: str, brake: str) -> None:
    """Write down that a pod has to end, and ask its provider. What the provider makes of it is seen by `look`.

    Asked all the same where the ledger cannot be written; StateDamaged is raised afterwards.
    """
    damage: StateDamaged | None = None
    try:
        known = find(market.ledger, launch.id) or launch
        if not known.is_open:
            return
        if launch.rental_id and launch.rental_id not in known.ids:
            # Whoever asks knows a pod of it that could not be written down when it came.
            market.ledger.append("rent.live", launch.id, rental=launch.rental_id, **market.stamp())
            known = find(market.ledger, launch.id) or launch
        if known.phase is not Phase.ENDING:
            market.ledger.append("rent.ending", launch.id, why=why, brake=brake)
        launch = known
    except StateDamaged as error:
        damage = error
    problem = push(market, launch)
    if damage is not None:
        asked = f"asking for it failed ({problem})" if problem else "it was asked for all the same"
        raise StateDamaged(
            f"The end of {launch.name} could not be written down, and {asked}: {damage.message}",
            hint=f"See podlab pod doctor, then repeat it: podlab pod terminate {launch.name}",
        ) from damage


def push(market: Market, launch: Launch) -> str:
    """Ask the provider to end every pod that is known to have come of a launch. Returns what went wrong, or ""."""
    try:
        provider = market.provider(launch.provider)
        wanted = launch.ids or tuple(rental.id for rental in _of(launch, provider.list()))
    except PodlabError as error:
        return error.message
    problems = [said for each in wanted if (said := _terminate(provider, launch, each))]
    return "; ".join(problems)


@dataclass(frozen=True)
class Listing:
    """What a provider listed, asked for at `at`. `provider` is who answered: a key that is set meanwhile makes another
    one, and what one account shows says nothing of another's."""

    provider: Provider
    rentals: tuple[Rental, ...]
    at: float


def listing(market: Market, name: str) -> Listing:
    """All pods of a provider now. Raises ProviderError when it gave no usable answer."""
    at, provider = market.now(), market.provider(name)
    return Listing(provider, provider.list(), at)


def prove(market: Market, launch: Launch) -> Launch:
    """One look at the provider. Returns the launch as it is then known; it is closed when the proof is complete.

    Raises ProviderError when the provider gave no usable answer, StateDamaged when the ledger cannot be written.
    """
    return look(market, launch, listing(market, launch.provider))


def look(market: Market, launch: Launch, shown: Listing) -> Launch:
    """What a listing says of a launch, written down; what has to end is asked to.

    A pod that is missing from it is asked for by its id before it counts as absent. Raises as `prove` does.
    """
    launch = find(market.ledger, launch.id) or launch
    rentals = _of(launch, shown.rentals)
    if not any(rental.state is not RentalState.TERMINATED for rental in rentals):
        rentals += _asked_for(shown.provider, launch, {rental.id for rental in rentals})
    if market.now() - shown.at > STALE_S:
        return launch
    alive = sorted(
        (rental for rental in rentals if rental.state is not RentalState.TERMINATED),
        key=lambda rental: (rental.created_at or 0.0, rental.id),
    )
    if not alive:
        return _missed(market, launch, shown.provider, named=bool(rentals))
    launch = _seen(market, launch, shown.provider, alive)
    for rental in alive:
        if launch.phase is Phase.ENDING or rental.id != launch.rental_id:
            _terminate(shown.provider, launch, rental.id)
    return launch


def until_proven(market: Market, launch: Launch, *, for_s: float = PROOF_S) -> Work[Launch]:
    """Look until the row of a pod that has to end is closed, or `for_s` have passed.

    Returns it as it is then known: an open row is looked at again by whoever tends.
    """
    begun_at = market.ticks()
    problem = ""
    while True:
        try:
            launch = prove(market, launch)
            problem = ""
        except ProviderError as error:
            problem = error.message
        waited_s = market.ticks() - begun_at
        if not launch.is_open or waited_s >= for_s:
            return launch
        yield Stage("proof", _told(launch, problem))
        market.pause(min(LOOK_S, launch.gap_s))


def _told(launch: Launch, problem: str) -> str:
    if problem:
        return f"Ending {launch.name}: {problem}"
    if launch.absent_at:
        return f"{launch.name} is gone; the provider is asked once more before that counts"
    return f"Ending {launch.name}"


def _of(launch: Launch, rentals: Sequence[Rental]) -> tuple[Rental, ...]:
    """The pods of a listing that came of a launch: by their ids, or by the name that no other order has."""
    return tuple(
        rental for rental in rentals
        if rental.id in launch.ids or (launch.order_name and rental.name == launch.order_name)
    )  # fmt: skip


def _asked_for(provider: Provider, launch: Launch, told: Collection[str]) -> tuple[Rental, ...]:
    """The pods of a launch that the provider knows by id, but for those it has `told` of: a listing may be late, cut or
    hide some."""
    asked = (provider.get(each) for each in launch.ids if each not in told)
    return tuple(rental for rental in asked if rental is not None)


def _terminate(provider: Provider, launch: Launch, rental_id: str) -> str:
    try:
        provider.terminate(rental_id)
    except NotFound:
        return ""
    except PodlabError as error:
        return error.message
    return ""


def _seen(market: Market, launch: Launch, provider: Provider, alive: Sequence[Rental]) -> Launch:
    """Write down what is new of pods that are there."""
    ledger, before = market.ledger, launch
    first = next((rental for rental in alive if rental.id == launch.rental_id), alive[0])
    if not launch.rental_id:
        billed = price(launch, first)
        usd = {} if billed is None else {"usd_per_hour": repr(billed)}
        ledger.append("rent.live", launch.id, rental=first.id, **usd, **market.stamp())
    elif not launch.is_open or launch.absent_at:
        ledger.append("rent.present", launch.id, rental=first.id)
    for rental in alive:
        if rental is not first and rental.id not in launch.ids:
            ledger.append("rent.extra", launch.id, rental=rental.id)
    if launch.keys and provider.identity and provider.identity not in launch.keys:
        ledger.append("rent.key", launch.id, key=provider.identity)
    launch = find(ledger, launch.id) or before
    return _noted(market, launch, first) if first.id == launch.rental_id else launch


def _noted(market: Market, launch: Launch, rental: Rental) -> Launch:
    """Write down a state or price that changed."""
    last = launch.spans[-1] if launch.spans else None
    billed = price(launch, rental)
    if billed is None:
        billed = launch.usd_per_hour
    starting = rental.state in (RentalState.PROVISIONING, RentalState.STARTING)
    if last is not None and last.ends_at is None and last.usd_per_hour == billed:
        if last.state is rental.state or (starting and last.state is RentalState.RUNNING):
            return launch  # it is billed from the beginning, whatever the beginning is called
    market.ledger.append("rent.state", launch.id, state=rental.state.value, usd_per_hour=repr(billed))
    return find(market.ledger, launch.id) or launch


def _missed(market: Market, launch: Launch, provider: Provider, *, named: bool) -> Launch:
    """Write down that the provider knows nothing of a pod, or has `named` it terminated; close its row once that is
    proven. That a young pod is missing says nothing."""
    if launch.is_open and not named:
        launch = _with_answer(market, launch)
    now = market.moment()
    if not launch.is_open or not (named or _would_be_listed(launch, now)):
        return launch
    if not named:
        _check_account(market, launch, provider)
    if not launch.absent or now.since(launch.absent[-1]) >= launch.gap_s:
        market.ledger.append("rent.absent", launch.id, **market.stamp())
        launch = find(market.ledger, launch.id) or launch
    if launch.is_open and launch.is_proven_absent():
        why = _unasked(launch)
        market.ledger.append("rent.ended", launch.id, **({"why": why} if why else {}))
        launch = find(market.ledger, launch.id) or launch
    return launch


def _unasked(launch: Launch) -> str:
    """What may have ended a pod that lived and whose end nobody here has asked for; "" for one that was asked to."""
    if launch.ending_at is not None or launch.live_at is None:
        return ""
    if launch.armed_at is None:
        return "it was ended elsewhere: nobody here asked for it, and its switch was never armed"
    due = limit(launch, launch.absent_at[0])
    at = (
        f"at {datetime.fromtimestamp(due.at, UTC):%Y-%m-%d %H:%M} UTC by its {due.rule}, or " if due is not None else ""
    )
    lease = duration_text(launch.policy.lease_s)
    return f"it ended itself or was ended elsewhere: its switch was due {at}{lease} after the last word from here"


def _with_answer(market: Market, launch: Launch) -> Launch:
    """The launch as it is known once its order cannot be sent any more; one whose asker was killed is unclear."""
    if launch.rental_id or launch.unclear or market.asking.is_held(launch.id):
        return launch
    launch = find(market.ledger, launch.id) or launch  # it may have been answered just before the lock was let go
    if launch.is_open and not launch.rental_id and not launch.unclear:
        market.ledger.append("rent.unclear", launch.id, why=GONE, **market.stamp())
        launch = find(market.ledger, launch.id) or launch
    return launch


def _check_account(market: Market, launch: Launch, provider: Provider) -> None:
    """Refuse to believe an absence that another account's key shows: every pod is absent there.

    Another key of the same account is believed once anything vouches for that: a pod that was seen with both, or a
    bill for this one. Raises NotAllowed saying what to do.
    """
    identity = provider.identity
    if not identity or not launch.keys or identity in _same_account(market, launch):
        return
    now = market.now()
    if launch.ids and any(bill.rental_id in launch.ids for bill in provider.bills(since=launch.asked_at, until=now)):
        market.ledger.append("rent.key", launch.id, key=identity)
        return
    raise NotAllowed(
        f"{launch.name} was rented with another key of {provider.name}. The key of now shows nothing of it, which "
        "proves nothing: it counts as billed.",
        provider=provider.name,
        hint="Set the key that it was rented with once more: podlab secret set RUNPOD_API_KEY",
    )


def _same_account(market: Market, launch: Launch) -> set[str]:
    """The keys that are known to be of one account with those of a launch."""
    known = set(launch.keys)
    groups = [set(each.keys) for each in all_launches(market.ledger) if len(each.keys) > 1]
    while more := [group for group in groups if group & known and not group <= known]:
        known |= more[0]
    return known


def _would_be_listed(launch: Launch, now: Moment) -> bool:
    """Whether the absence of a pod means something: it is not so new that listings may lack it, and none can be made
    of its order any more."""
    if launch.seen is not None and launch.rental_id:
        return now.since(launch.seen) >= launch.lag_s
    return launch.unclear is not None and now.since(launch.unclear) >= launch.lag_s + SENT_S
