"""One candidate, from the intent to a pod that is ready: the only place that asks a provider for a pod.

The order of things is what keeps a pod from being lost: the intent is on the disk before the provider is asked, the
provider's id is on the disk before anything else is done with the pod, and whatever goes wrong in between ends it.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from podlab.errors import (
    AlreadyExists,
    ApiRetired,
    BadOrder,
    KeyRefused,
    NotAllowed,
    OutcomeUnknown,
    OutOfFunds,
    OutOfStock,
    PodlabError,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    RentalFailed,
    StateDamaged,
)
from podlab.events import Notice, Stage, Work
from podlab.lab import ending
from podlab.lab.candidates import Candidate
from podlab.lab.launches import Launch, Phase, find, fold, new_id, policy_fields, price
from podlab.lab.market import Market
from podlab.lab.money import Caps, check_order
from podlab.lab.rent_wish import SSH_PORT, RentWish
from podlab.lab.settling import settle
from podlab.ledger import Entry
from podlab.renting import Order, Policy, Rental

_log = logging.getLogger(__name__)

NONCE_BYTES = 4
LATE_S = 10.0
"""Between the intent and the order. If more has passed, this computer slept, and others may have closed the row."""
GONE_S = 300.0
"""How long the end of a bad machine is waited for before the next one is rented."""
PRICE_SLACK_USD = 0.0005
CERTAIN = (OutOfStock, OutOfFunds, BadOrder, NotAllowed, KeyRefused, ApiRetired, RateLimited, ProviderUnavailable)
"""What a provider raises when it certainly created nothing."""


class BadDraw(PodlabError):
    """The machine is no good: no container, no SSH, no GPU. `data_center` is where it stood."""

    def __init__(self, message: str, *, data_center: str | None = None) -> None:
        super().__init__(message, hint="Another machine may do.")
        self.data_center = data_center


class NothingCame(PodlabError):
    """The answer to an order was lost, and it is proven that no pod came of it."""


class Crew(Protocol):
    """What renting needs of this computer. Called by one create at a time; may block as each method says."""

    def taken(self) -> Collection[str]:
        """Names that pods here have already."""
        ...

    def caps(self) -> Caps:
        """What all pods together may cost."""
        ...

    def watched(self) -> str:
        """See to it that somebody on this computer tends what is rented. "": so it is; else why nobody does."""
        ...

    def start(self, launch: Launch, candidate: Candidate) -> tuple[tuple[str, ...], Mapping[str, str]]:
        """The container's start command and the environment it needs, podlab's public SSH key included."""
        ...

    def keep(self, launch: Launch, rental: Rental) -> None:
        """Enter a pod into the registry, or renew what stands there. Raises AlreadyExists when its name went."""
        ...

    def drop(self, launch: Launch) -> None:
        """Take a pod that is gone out of the registry again."""
        ...

    def arrive(self, launch: Launch, rental: Rental, check: Callable[[Rental], None]) -> Work[None]:
        """Wait until the pod works, with a Stage for each step; `check` is called with each description of it.

        Raises BadDraw for a machine that is no good. May take as long as an image takes to be pulled.
        """
        ...


@dataclass(frozen=True)
class Agreed:
    """What a person said yes to. The deadline of `policy` is put off to when the intent is written."""

    wish: RentWish
    policy: Policy


def attempt(
    market: Market, agreed: Agreed, candidate: Candidate, crew: Crew
) -> Work[Launch]:  # fmt: skip
    """Rent a candidate and wait until it works.

    Raises what CERTAIN names, NothingCame and BadDraw: nothing is billed any more. Raises RentalFailed with the ids
    for everything else that goes wrong after the intent; KeyboardInterrupt ends the pod and goes on.
    """
    launch_id = new_id()
    with market.asking.held(launch_id):
        return (yield from _attempted(market, agreed, candidate, crew, launch_id))


def _attempted(
    market: Market, agreed: Agreed, candidate: Candidate, crew: Crew, launch_id: str
) -> Work[Launch]:  # fmt: skip
    held = _Held(market, agreed, candidate, crew, intend(market, agreed, candidate, crew, launch_id))
    try:
        yield from _rented(held)
        yield from crew.arrive(held.launch, held.rental(), held.check)
    except (*CERTAIN, NothingCame) as error:
        if held.closed():
            raise
        raise held.failed(error) from error
    except BadDraw as draw:
        yield from held.replaced(draw)
        raise
    except GeneratorExit:
        held.let_go("its rental was given up before it was ready")
        raise
    except Exception as error:  # whatever it is, a pod may be billed, and its id must not be lost
        raise held.failed(error) from error
    except BaseException:
        after = held.let_go("its rental was interrupted before it was ready")
        if after.is_open:
            yield Notice(
                f"{after.name} was not ready, and its end is asked for. It counts as billed until that is proven. See: "
                "podlab pod list",
                "warning",
            )
        raise
    return find(market.ledger, held.launch.id) or held.launch


def intend(market: Market, agreed: Agreed, candidate: Candidate, crew: Crew, launch_id: str) -> Launch:
    """Write down what is about to be asked, its name and the caps checked with no other process in between.

    It is asked for by the one who holds `launch_id` in `market.asking`.
    Raises AlreadyExists for a name in use, Refused where a cap does not allow it, StateDamaged when the ledger cannot
    be trusted or written: then nothing may be asked.
    """
    taken, caps, now = crew.taken(), crew.caps(), market.now()
    provider = market.provider(candidate.offer.provider)
    told = {"lag_s": repr(float(provider.lag_s)), "key": provider.identity}

    def decide(entries: list[Entry]) -> Mapping[str, str]:
        launches = fold(entries)
        name = agreed.wish.name or free_name((launch.name for launch in launches), taken, now)
        if name in taken or any(launch.is_open and launch.name == name for launch in launches):
            raise AlreadyExists(f"There is a pod {name!r} already.", hint="Choose another name.")
        simulated = candidate.offer.simulated
        check_order(launches, candidate.usd_per_hour, caps, now, simulated=simulated)
        # By the very clock that the row gets its time from: the deadline counts from there.
        ttl_s = agreed.wish.ttl_s
        policy = replace(agreed.policy, deadline_at=None if ttl_s is None else market.now() + ttl_s)
        return {**_intent(agreed, candidate, name), **policy_fields(policy), **told, **market.stamp()}

    try:
        market.ledger.append_checked("rent.ask", launch_id, decide)
    except KeyboardInterrupt:  # nothing was asked yet, whether or not the row is there
        with contextlib.suppress(StateDamaged):
            market.ledger.append("rent.refused", launch_id, why="interrupted before it was asked for")
        raise
    found = find(market.ledger, launch_id)
    assert found is not None, "a row that was just written is read"
    return found


def free_name(used: Iterable[str], taken: Collection[str], now: float) -> str:
    """podlab-YYYY-MM-DD-NNN, one more than the highest of that day."""
    day = f"podlab-{datetime.fromtimestamp(now, UTC):%Y-%m-%d}-"
    numbers = [
        int(name[len(day) :]) for name in (*used, *taken) if name.startswith(day) and name[len(day) :].isdecimal()
    ]
    return f"{day}{max(numbers, default=0) + 1:03d}"


def order_of(wish: RentWish, candidate: Candidate, launch: Launch, crew: Crew) -> Order:
    """What the provider is asked for."""
    command, env = crew.start(launch, candidate)
    offer = candidate.offer
    return Order(
        launch.order_name, offer.gpu_id, offer.gpu_count, offer.cloud,
        image="" if wish.template else wish.image, template_id=wish.template, data_centers=candidate.data_centers,
        disk_gb=wish.disk_gb, persistent_gb=wish.persistent_gb, volume_id=wish.volume, mount_path=wish.mount_path,
        ports=(SSH_PORT, *wish.ports), env=dict(wish.variables) | dict(env), command=command,
        min_cuda=wish.needed_cuda, registry_id=wish.registry,
    )  # fmt: skip


def check(candidate: Candidate, wish: RentWish, rental: Rental) -> None:
    """Refuse a pod that is not what was agreed. Raises RentalFailed naming what was asked and what came."""
    offer = candidate.offer
    agreed = candidate.usd_per_hour
    billed = None if rental.usd_per_hour is None else rental.usd_per_hour + candidate.disk_usd_per_hour
    wrong = (
        f"it costs ${billed:.3f}/h, and ${agreed:.3f}/h were agreed"
        if billed is not None and billed > agreed + PRICE_SLACK_USD
        else f"it has {rental.gpu_id}, and {offer.gpu_id} was ordered"
        if rental.gpu_id and rental.gpu_id != offer.gpu_id
        else f"it has {rental.gpu_count} GPUs, and {offer.gpu_count} were ordered"
        if rental.gpu_count is not None and rental.gpu_count != offer.gpu_count
        else f"it is in the {rental.cloud} cloud, and {offer.cloud} was ordered"
        if rental.cloud is not None and rental.cloud != offer.cloud
        else f"it is in {rental.data_center}, and {', '.join(candidate.data_centers)} was ordered"
        if wish.regions and rental.data_center and rental.data_center not in candidate.data_centers
        else ""
    )
    if wrong:
        raise RentalFailed(f"What came is not what was ordered: {wrong}.", launch="", rental_id=rental.id)


def _intent(agreed: Agreed, candidate: Candidate, name: str) -> dict[str, str]:
    offer, wish = candidate.offer, agreed.wish
    return {
        "name": name, "order": f"{name}-{secrets.token_hex(NONCE_BYTES)}", "provider": offer.provider,
        "gpu": offer.gpu, "gpu_count": str(offer.gpu_count), "cloud": offer.cloud,
        "usd_per_hour": repr(candidate.usd_per_hour), "disk_usd_per_hour": repr(candidate.disk_usd_per_hour),
        "stopped_usd_per_hour": repr(candidate.stopped_usd_per_hour), "model": wish.for_model or "",
        "notebook": wish.notebook, "simulated": "yes" if offer.simulated else "no",
        "wish": replace(wish, name=name).text(),
    }  # fmt: skip


def _rented(held: _Held) -> Work[None]:
    """Ask for the pod and write down what came."""
    yield Stage("rented", f"Renting {held.candidate.title} as {held.launch.name}")
    order = order_of(held.agreed.wish, held.candidate, held.launch, held.crew)
    rental = yield from _asked(held, order)
    if rental is None:
        row = find(held.market.ledger, held.launch.id)
        if row is not None and row.ending_at is not None:  # nobody wants it any more, so none is rented in its place
            raise RentalFailed(
                f"The end of {row.name} was asked for while it was being rented; no pod came of it.",
                launch=row.id, rental_id=row.rental_id, ended=True,
            )  # fmt: skip
        raise NothingCame(f"The answer to {held.launch.order_name} was lost, and no pod came of it.")
    held.saw(rental)
    held.check(rental)
    held.crew.keep(held.launch, held.rental())


def _asked(held: _Held, order: Order) -> Work[Rental | None]:
    """Send the order once. None: its answer was lost, and it is proven that nothing came of it."""
    market, launch = held.market, held.launch
    provider = market.provider(launch.provider)
    known = find(market.ledger, launch.id)
    if known is None or known.phase is not Phase.ASKED or market.moment().since(launch.asked) > LATE_S:
        raise ProviderUnavailable("This computer slept between the intent and the order.", provider=launch.provider)
    held.was_asked = True
    try:
        return provider.create(order)
    except CERTAIN as error:
        market.ledger.append("rent.refused", launch.id, why=error.message)
        raise
    except OutcomeUnknown as error:
        why = error.message
    except ProviderError as error:  # a class that came later: it may have been carried out
        why = error.message
    market.ledger.append("rent.unclear", launch.id, why=why, **market.stamp())
    yield Notice(f"{why} It may have been rented all the same, so it is looked for before anything else.", "warning")
    return (yield from settle(market, launch))


class _Held:
    """A launch under way, so that whatever happens its pod is known and can be ended."""

    def __init__(
        self, market: Market, agreed: Agreed, candidate: Candidate, crew: Crew, launch: Launch
    ) -> None:  # fmt: skip
        self.market = market
        self.agreed = agreed
        self.candidate = candidate
        self.crew = crew
        self.launch = launch
        self.was_asked = False
        """Whether the order may have left."""
        self._rental: Rental | None = None

    def rental(self) -> Rental:
        """The pod that came."""
        assert self._rental is not None, "asked for only once it is there"
        return self._rental

    def saw(self, rental: Rental) -> None:
        """Write down the provider's id. Raises RentalFailed when somebody asked for its end meanwhile."""
        self._rental = rental
        self.launch = replace(self.launch, rental_id=rental.id)  # also where the ledger cannot be written now
        billed = price(self.launch, rental)
        usd = {} if billed is None else {"usd_per_hour": repr(billed)}
        self.market.ledger.append("rent.live", self.launch.id, rental=rental.id, **usd, **self.market.stamp())
        self.launch = find(self.market.ledger, self.launch.id) or self.launch
        if self.launch.rental_id != rental.id and self.launch.rental_id is not None:
            # Another process has adopted one of two pods that came of this order: that one counts.
            self._rental = self.market.provider(self.launch.provider).get(self.launch.rental_id) or rental
            ending.push(self.market, replace(self.launch, rental_id=rental.id, extra_ids=()))
        if self.launch.phase is not Phase.LIVE:
            raise RentalFailed(
                f"The end of {self.launch.name} was asked for while it was being rented.",
                launch=self.launch.id, rental_id=rental.id,
            )  # fmt: skip

    def check(self, rental: Rental) -> None:
        """Raise RentalFailed for what was not ordered."""
        check(self.candidate, self.agreed.wish, rental)

    def closed(self) -> bool:
        """Whether its row is closed: nothing came of it, with certainty."""
        found = find(self.market.ledger, self.launch.id)
        return found is not None and not found.is_open

    def let_go(self, why: str) -> Launch:
        """End it, whatever is known of it. Never raises: what cannot be done now is left to whoever tends."""
        try:
            if not self.was_asked:
                self.market.ledger.append("rent.refused", self.launch.id, why=f"never asked for: {why}")
            ending.end(self.market, self.launch, why=why, brake="create")
            return find(self.market.ledger, self.launch.id) or self.launch
        except Exception:  # noqa: BLE001  # its ids are more than why its end could not be asked for
            _log.exception("the end of %s could not be asked for", self.launch.name)
            return self.launch

    def failed(self, error: Exception) -> Exception:
        """The pod is ended, and this says so with its ids; what went wrong itself where none was asked for."""
        said = error.message if isinstance(error, PodlabError) else f"{type(error).__name__}: {error}"
        after = self.let_go(f"its rental failed: {said}"[:300])
        if not self.was_asked and not after.is_open:
            return error
        hint = (
            f"Its end was asked for and is not proven yet. See: podlab pod show {after.name}"
            if after.is_open
            else "Nothing of it is billed."
        )
        return RentalFailed(
            f"{after.name} could not be rented: {said}", launch=after.id,
            rental_id=after.rental_id or self.launch.rental_id, ended=not after.is_open, hint=hint,
        )  # fmt: skip

    def replaced(self, draw: BadDraw) -> Work[None]:
        """End a bad machine, and wait until nothing of it is billed: never are two at once.

        Raises RentalFailed when that does not come in time.
        """
        said = draw.message.rstrip(".")
        yield Notice(f"{self.launch.name}: {said}. It is ended before another one is rented.", "warning")
        launch = self.let_go(f"a bad machine: {draw.message}"[:300])
        begun_at, problem = self.market.ticks(), ""
        while self.market.ticks() - begun_at < GONE_S:
            try:
                launch = ending.prove(self.market, launch)
                if not launch.is_open:
                    self.crew.drop(launch)
                    return
            except StateDamaged:
                raise
            except PodlabError as error:
                problem = error.message
            yield Stage("replace", f"Waiting for the end of {launch.name}{problem and f': {problem}'}")
            self.market.pause(5.0)
        raise self.failed(draw)
