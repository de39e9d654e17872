"""A rented pod between its creation and its end: stopped, started again or rented anew elsewhere, waited for, adopted.

stop(market, launch)                       its GPU is given back; a persistent disk is kept, and billed on
start(market, launch, crew)                asks its price, and waits until it works again
wait(market, launch, crew)                 until it works, whoever is renting it
adopt(market, launch, crew)                a pod of ours that no list of this computer has
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from podlab.errors import (
    NotFound,
    OutcomeUnknown,
    OutOfStock,
    PodlabError,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    Refused,
    RentalFailed,
    WrongState,
)
from podlab.events import Ask, Notice, Stage, Work
from podlab.lab import ending, renting
from podlab.lab.attempts import PRICE_SLACK_USD, BadDraw, Crew
from podlab.lab.launches import Launch, Phase, all_launches, find, price
from podlab.lab.market import Market
from podlab.lab.money import check_order, policy_facts, spent_usd
from podlab.lab.rent_wish import wish_from
from podlab.renting import Rental, RentalState

SETTLED_S = 180.0
"""How long a change of state is waited for."""
LOOK_S = 3.0
UP = (RentalState.PROVISIONING, RentalState.STARTING, RentalState.RUNNING)


def stop(market: Market, launch: Launch) -> Work[Rental]:
    """Give a pod's GPU back. A persistent disk stays, and is billed until the pod is terminated; what is on the
    container's own disk is gone (`lost_at_stop`).

    Raises RentalFailed when it does not stop, what the provider raises, and Refused for one that ends.
    """
    rental = _rental(market, launch)
    if rental.state is RentalState.STOPPED:
        return rental
    yield Stage("stop", f"Stopping {launch.name}")
    yield from _asked(market, launch, lambda: market.provider(launch.provider).stop(rental.id))
    stopped = yield from _until(market, launch, lambda seen: seen.state is RentalState.STOPPED, "stopped")
    per_month = launch.stopped_usd_per_hour * 720
    kept = "Its persistent disk is billed" if not lost_at_stop(launch) else "It counts as billed"
    yield Notice(f"{launch.name} is stopped. {kept} at ${per_month:.2f} a month until it is terminated.")
    return stopped


def lost_at_stop(launch: Launch) -> str:
    """What a stop takes from a pod, in a sentence; "" where it has a disk or a volume for what is to be kept."""
    wish = wish_from(launch.wish)
    if wish is not None and (wish.persistent_gb or wish.volume):
        return ""
    return "Its files are lost: it has no persistent disk and no network volume (pod create --persistent GB, --volume)."


def start(market: Market, launch: Launch, crew: Crew) -> Work[Launch]:
    """Start a stopped pod, asked about with its price; where its machine has no free GPU, the same is rented anew in
    the data center of its network volume.

    A start that goes wrong is stopped again, and not ended: what is on a persistent disk is not lost. Raises Refused
    where the answer is no or its limits are used up, OutOfStock where its machine is taken and no volume holds its
    files, RentalFailed.
    """
    rental = _rental(market, launch)
    if rental.state is not RentalState.STOPPED:
        yield Notice(f"{launch.name} is {rental.said or rental.state} already.")
        return (yield from wait(market, launch, crew))
    yield from _agreed(market, launch, crew)
    yield Stage("start", f"Starting {launch.name}")
    try:
        # On the disk before it is asked: from now on it may cost what it costs while it runs.
        market.ledger.append(
            "rent.state", launch.id, state=RentalState.STARTING.value, usd_per_hour=repr(launch.agreed_usd_per_hour)
        )
        yield from _asked(market, launch, lambda: _begin(market, launch, rental))
        running = yield from _until(market, launch, lambda seen: seen.state in UP, "started")
        yield from crew.arrive(find(market.ledger, launch.id) or launch, running, lambda seen: _check(launch, seen))
    except OutOfStock as error:
        yield from _halted(market, launch)
        return (yield from _anew(market, launch, crew, error))
    except BadDraw as draw:
        yield from _halted(market, launch)
        raise RentalFailed(
            f"{launch.name} was started and does not work: {draw.message}. It is stopped again.",
            launch=launch.id, rental_id=launch.rental_id,
            hint=f"Try again later, or end it: podlab pod terminate {launch.name}",
        ) from draw  # fmt: skip
    except GeneratorExit:  # nobody is left who could be told
        _halt(market, launch)
        raise
    except BaseException:  # a no, Ctrl-C, a ledger that cannot be written: nobody has a use for what runs now
        yield from _halted(market, launch)
        raise
    return find(market.ledger, launch.id) or launch


def wait(market: Market, launch: Launch, crew: Crew) -> Work[Launch]:
    """Until a pod works. It is left alone when that does not come: who rents it decides.

    Raises RentalFailed saying why it does not work, NotFound when it is gone.
    """
    rental = _rental(market, launch)
    try:
        yield from crew.arrive(launch, rental, lambda seen: None)
    except BadDraw as draw:
        raise RentalFailed(
            f"{launch.name} does not work: {draw.message}.", launch=launch.id, rental_id=rental.id,
            hint=f"End it: podlab pod terminate {launch.name}",
        ) from draw  # fmt: skip
    return find(market.ledger, launch.id) or launch


def adopt(market: Market, launch: Launch, crew: Crew) -> Rental:
    """Enter a pod of ours into the list of this computer: its create was killed, or somebody mended the list by hand.

    Raises NotFound when the provider has it no more, AlreadyExists when its name went.
    """
    rental = _rental(market, launch)
    crew.keep(find(market.ledger, launch.id) or launch, rental)
    return rental


def _rental(market: Market, launch: Launch) -> Rental:
    """The pod of a launch as its provider has it now. Raises NotFound, Refused for one that ends, ProviderError."""
    if launch.phase is Phase.ENDING:
        raise Refused(f"{launch.name} is ending: {launch.why or 'its end was asked for'}.", hint="Rent another one.")
    if launch.phase is not Phase.LIVE or launch.rental_id is None:
        launch = ending.prove(market, launch)
    rental = market.provider(launch.provider).get(launch.rental_id) if launch.is_open and launch.rental_id else None
    if rental is None or rental.state is RentalState.TERMINATED:
        raise NotFound(f"Its provider has no pod {launch.name} (any more).", hint="See: podlab pod list --all")
    return rental


def _agreed(market: Market, launch: Launch, crew: Crew) -> Work[None]:
    """A yes to its price. Raises Refused for a no, and where its limits or a cap leave it no time."""
    now = market.now()
    others = [each for each in all_launches(market.ledger) if each.id != launch.id]
    agreed, policy = launch.agreed_usd_per_hour, launch.policy
    notes = check_order(others, agreed, crew.caps(), now, simulated=launch.simulated)
    _refuse_over(launch, now)
    spent = spent_usd(launch, now)
    pretended = " (simulated)" if launch.simulated else ""
    answer = yield Ask(
        f"Start {launch.name} for ${agreed:.3f}/h?{pretended}", "price", detail="\n".join(notes),
        facts=(("price", f"${agreed:.3f}/h"), ("has cost", f"${spent:.2f}"), *policy_facts(policy, now)),
        yes=f"Start for ${agreed:.3f}/h",
    )  # fmt: skip
    if not answer:
        why = "Nobody could be asked" if answer is None else "The answer was no"
        raise Refused(f"{why}, so {launch.name} stays stopped.", hint="Say it in advance with --yes.")


def _refuse_over(launch: Launch, now: float) -> None:
    """Raise Refused where nothing is left of a pod's time or money."""
    policy = launch.policy
    if policy.deadline_at is not None and policy.deadline_at <= now:
        raise Refused(f"The deadline of {launch.name} is over.", hint=f"podlab pod extend {launch.name} --ttl 2h")
    if policy.budget_usd is not None and spent_usd(launch, now) >= policy.budget_usd:
        raise Refused(f"The budget of {launch.name} is used up.", hint=f"podlab pod extend {launch.name} --budget 5")


def _begin(market: Market, launch: Launch, rental: Rental) -> None:
    """Ask for a start, unless this computer slept until there was no time left for one."""
    _refuse_over(find(market.ledger, launch.id) or launch, market.now())
    market.provider(launch.provider).start(rental.id)


def _check(launch: Launch, rental: Rental) -> None:
    """Raise BadDraw for a pod that came back as another one: without its GPUs, or dearer."""
    if rental.gpu_count is not None and rental.gpu_count < launch.gpu_count:
        raise BadDraw(f"it came back with {rental.gpu_count} of its {launch.gpu_count} GPUs")
    billed = price(launch, rental)
    if billed is not None and billed > launch.agreed_usd_per_hour + PRICE_SLACK_USD:
        raise BadDraw(f"it costs ${billed:.3f}/h by now, and ${launch.agreed_usd_per_hour:.3f}/h was agreed")


def _asked(market: Market, launch: Launch, ask: Callable[[], None]) -> Work[None]:
    """Ask for a change of state. What is unclear is seen by looking, which the caller does next."""
    for again in range(3):
        try:
            ask()
            return
        except (OutcomeUnknown, WrongState) as error:
            yield Notice(f"{error.message} It is looked at.", "warning")
            return
        except (ProviderUnavailable, RateLimited) as error:
            if again == 2:
                raise
            pause_s = error.retry_after_s if isinstance(error, RateLimited) else 2.0**again
            yield Stage("again", f"{error.message} Trying again in {pause_s:.0f} s")
            market.pause(pause_s)


def _until(market: Market, launch: Launch, is_so: Callable[[Rental], bool], what: str) -> Work[Rental]:
    """Look until a pod is what it was asked to be. Raises RentalFailed when it is not in time."""
    begun_at, said = market.ticks(), ""
    while True:
        try:
            launch = ending.prove(market, launch)
            rental = market.provider(launch.provider).get(launch.rental_id or "")
            if rental is not None and is_so(rental):
                return rental
            said = "its provider does not know it" if rental is None else f"its provider says {rental.said}"
        except ProviderError as error:
            said = error.message
        if market.ticks() - begun_at > SETTLED_S:
            raise RentalFailed(
                f"{launch.name} is not {what}: {said}.", launch=launch.id, rental_id=launch.rental_id,
                hint=f"See: podlab pod show {launch.name}",
            )  # fmt: skip
        yield Stage("look", f"Waiting until {launch.name} is {what}: {said}")
        market.pause(LOOK_S)


def _halted(market: Market, launch: Launch) -> Work[None]:
    """Stop a pod whose start went wrong. What cannot be done now is told; its limits end it at last."""
    _halt(market, launch)
    try:
        yield from stop(market, find(market.ledger, launch.id) or launch)
        ending.prove(market, launch)  # the ledger counts it as running since it was asked to start
    except (PodlabError, KeyboardInterrupt) as error:
        why = error.message if isinstance(error, PodlabError) else "its stop was not waited for."
        yield Notice(f"{launch.name} may be running: {why} See: podlab pod show {launch.name}", "warning")
        if not isinstance(error, PodlabError):
            raise


def _halt(market: Market, launch: Launch) -> None:
    """Ask for a stop whatever it looks like: a start that was just asked for may not be seen yet."""
    with contextlib.suppress(PodlabError):
        market.provider(launch.provider).stop(launch.rental_id or "")


def _anew(market: Market, launch: Launch, crew: Crew, error: OutOfStock) -> Work[Launch]:
    """The same pod on another machine, when its files are on a network volume: the old one is ended first."""
    wish = wish_from(launch.wish)
    if wish is None or wish.volume is None:
        raise OutOfStock(
            f"The machine of {launch.name} has no free GPU, and its disk is on that machine.",
            provider=launch.provider, status=error.status,
            hint=f"Try again later. A network volume (pod create --volume) can be used from other machines. To give it "
            f"up: podlab pod terminate {launch.name}",
        ) from error  # fmt: skip
    answer = yield Ask(
        f"The machine of {launch.name} has no free GPU. End it and rent another one with the same volume?", "delete",
        yes="End it and rent another one",
        detail=f"What is on the volume {wish.volume} stays; the container's own disk goes with the machine.",
    )  # fmt: skip
    if not answer:
        raise OutOfStock(error.message, provider=launch.provider, status=error.status) from error
    ending.end(market, launch, why="its machine has no free GPU: it is rented anew", brake="person")
    after = yield from ending.until_proven(market, launch)
    if after.is_open:
        raise RentalFailed(
            f"{launch.name} does not end, so nothing is rented in its place yet.", launch=launch.id,
            rental_id=launch.rental_id, hint=f"See: podlab pod show {launch.name}",
        )  # fmt: skip
    crew.drop(after)
    return (yield from renting.create(market, wish, crew))
