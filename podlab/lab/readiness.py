"""From a pod that was rented to one that works, in stages with clocks: image, container, armed, sshd, CUDA, set up.

The provider's description and its log are asked again and again, for nothing of a pod can be taken for granted: a
pod may be called running long before its container runs, and its public port may be another machine's for a minute.
What is no good is told as BadDraw, and whoever rents ends it before the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from podlab.errors import (
    KeeperError,
    NotFound,
    PodlabError,
    ProviderError,
    RateLimited,
    RentalFailed,
    StateDamaged,
    SupervisorError,
    TransportError,
)
from podlab.events import Stage, Work
from podlab.lab.attempts import BadDraw
from podlab.lab.brakes import is_armed
from podlab.lab.ending import listing, look
from podlab.lab.launches import LAG_S, Launch, Phase, find
from podlab.lab.market import Market
from podlab.lab.start_command import Heard, Hearing
from podlab.providers.base import Provider
from podlab.renting import Armed, Rental, RentalLine, RentalState
from podlab.units import duration_text

LIST_S = 20.0
LOG_LINES = 5000
"""Of a log, at one look."""
CLOCKS_S = 60.0
"""How much the clocks of a provider's machines may differ."""
LATE_S = 60.0
"""Its switch speaks within seconds of its container's start."""
StageKey = Literal["image", "armed", "sshd", "cuda", "setup"]
NAMES: dict[StageKey, str] = {"image": "image", "armed": "switch", "sshd": "SSH", "cuda": "GPUs", "setup": "setup"}


@dataclass(frozen=True)
class Patience:
    """How long each stage may take, in seconds, before a pod counts as no good."""

    image_s: float = 600.0
    """Without a new line in the provider's log; an image of many gigabytes shows progress there."""
    image_most_s: float = 1800.0
    armed_s: float = 300.0
    """From the container's start to the word of its switch."""
    sshd_s: float = 300.0
    """A public port may lead elsewhere for a minute and a half after a start."""
    silence_s: float = 600.0
    """Of the provider."""
    poll_s: float = 4.0


class Way(Protocol):
    """How a pod itself is reached. Called by one create at a time; each call may block for some seconds."""

    def moved(self, launch: Launch, rental: Rental) -> None:
        """The pod has an address now, or another one: it is entered into the registry."""
        ...

    def knock(self, launch: Launch, fingerprints: tuple[str, ...]) -> Work[str]:
        """Reach the pod by SSH, its host key held against `fingerprints`, or asked about where there are none.

        Returns how its key was confirmed. Raises TransportError while it does not answer, Refused for a key that
        nobody confirms, BadDraw for a key that is another one.
        """
        ...

    def beat(self, launch: Launch) -> Armed:
        """A first word to the pod's switch, and its answer. Raises PodlabError."""
        ...

    def cuda(self, launch: Launch) -> str:
        """What is wrong with its GPUs, "" for nothing. Raises PodlabError where it could not be asked."""
        ...


def arrive(
    market: Market, launch: Launch, rental: Rental, check: Callable[[Rental], None], way: Way,
    patience: Patience = Patience(),  # frozen
) -> Work[Rental]:  # fmt: skip
    """Wait until a pod works. Returns it as its provider describes it then.

    Raises BadDraw for a machine that is no good, RentalFailed where somebody asked for its end, the provider went
    silent, or `check` refuses it; Refused for its host key.
    """
    wait = _Arrival(market, launch, rental, check, way, patience)
    yield from wait.container()
    yield from wait.reached()
    yield from wait.works()
    return wait.rental


class _Arrival:
    """One pod on its way."""

    def __init__(
        self, market: Market, launch: Launch, rental: Rental, check: Callable[[Rental], None], way: Way,
        patience: Patience,
    ) -> None:  # fmt: skip
        self.market = market
        self.launch = launch
        self.rental = rental
        self._check = check
        self._way = way
        self._patience = patience
        self._begun_at = self._answered_at = self._spoken_at = market.ticks()
        self._listed_at = self._begun_at
        self._container_at: float | None = None
        self._address: tuple[str, int] | None = None
        self._cursor: str | None = None
        self._unanswered = ""
        """What its provider's silence looks like, "" while it answers."""
        self._hearing = Hearing()
        self._is_read = False
        """Whether the last look read its log."""
        self._heard = Heard()
        self._progress = ""
        """What the machine's own log said last."""
        self._key = ""

    def container(self) -> Work[None]:
        """Until its container runs, its switch said that it is armed, and there is an address for SSH."""
        while True:
            self._look()
            now = self.market.ticks()
            if self.rental.has_runtime and self._container_at is None:
                self._container_at = now
            if self._container_at is None:
                self._wait_for_image(now)
                yield self._stage("image", self._image_text())
            elif not self._is_armed():
                why = f" ({self._heard.detail})" if self._heard.detail else ""
                self._limit(self._container_at, self._patience.armed_s, f"its switch was not armed{why}", now)
                yield self._stage("armed", f"the container runs; its switch is not armed yet{why}")
            elif self._address is None:
                self._limit(self._container_at, self._patience.sshd_s, "it got no public port for SSH", now)
                yield self._stage("sshd", "armed; it has no public port yet")
            else:
                return
            self.market.pause(self._patience.poll_s)

    def reached(self) -> Work[None]:
        """Until it answers by SSH and shows its own host key."""
        begun_at, problem = self.market.ticks(), ""
        while True:
            yield self._stage("sshd", problem or "reaching it by SSH")
            try:
                self._key = yield from self._way.knock(self.launch, self._heard.fingerprints)
                return
            except (TransportError, KeeperError, SupervisorError) as error:
                problem = error.message
            self._limit(begun_at, self._patience.sshd_s, f"it does not answer by SSH ({problem})", self.market.ticks())
            self.market.pause(self._patience.poll_s)
            self._look()

    def works(self) -> Work[None]:
        """Until its switch has heard from here and its GPUs have answered."""
        yield from self._tried("armed", "speaking to its switch", self._beaten)
        self.market.ledger.append("rent.armed", self.launch.id, key=self._key)
        yield from self._tried("cuda", "looking at its GPUs", lambda: self._way.cuda(self.launch))
        yield self._stage("setup", "ready")

    def _beaten(self) -> str:
        armed = self._way.beat(self.launch)
        return "" if armed.armed else f"its switch is not armed: {armed.detail or 'it does not say why'}"

    def _tried(self, key: StageKey, doing: str, ask: Callable[[], str]) -> Work[None]:
        """Ask until an answer comes; what it complains of makes it a bad draw."""
        begun_at, problem = self.market.ticks(), ""
        while True:
            yield self._stage(key, f"{doing}; not yet: {problem}" if problem else doing)
            try:
                wrong = ask()
            except StateDamaged:
                raise
            except PodlabError as error:
                problem = error.message
                self._limit(begun_at, self._patience.sshd_s, error.message, self.market.ticks())
                self.market.pause(self._patience.poll_s)
                self._look()
                continue
            if wrong:
                raise self._bad(wrong)
            return

    def _is_armed(self) -> bool:
        """Whether its switch said so: in its log, or to whoever tends it. The log has to have been read in both cases,
        for it is what vouches for the host keys."""
        return self._is_read and (is_armed(self.launch) if self._heard.armed is None else self._heard.armed)

    def _look(self) -> None:
        """One look at the provider: what it says of the pod, and what its log says. Raises BadDraw, RentalFailed."""
        known = find(self.market.ledger, self.launch.id)
        if known is not None:
            self.launch = known
        if self.launch.phase is not Phase.LIVE:
            raise RentalFailed(f"Its end was asked for: {self.launch.why or 'nobody said why'}.", launch=self.launch.id)
        provider = self.market.provider(self.launch.provider)
        self._is_read = False
        try:
            found = self._found()
            if found is not None:
                self._take(found)  # whatever its log does
                self._read(self._said(provider))
                self._is_read = True
        except RateLimited as error:
            self._silent(error)
            self.market.pause(error.retry_after_s)
            return
        except ProviderError as error:
            self._silent(error)
            return
        self._answered_at, self._unanswered = self.market.ticks(), ""
        if found is None and self.market.ticks() - self._begun_at > LAG_S:
            raise self._bad("its provider does not know it any more")

    def _said(self, provider: Provider) -> tuple[RentalLine, ...]:
        """The lines of its log that were not read yet. From its beginning again where its switch should have spoken by
        now: a log was seen to begin too late for one look, and every later one asks behind what was there."""
        now = self.market.ticks()
        late = self._container_at is not None and now - self._container_at > LATE_S
        again = late and self._heard.armed is None and not is_armed(self.launch)
        after = None if again else self._cursor
        try:
            since = None if after else self._start()
            return tuple(provider.logs(self.rental.id, after=after, since=since, tail=LOG_LINES))
        except NotFound:  # a new pod may be known before its log is
            return ()

    def _found(self) -> Rental | None:
        """The pod as it is now. While another one that came of the same order may not be listed yet, the list is
        looked through now and then."""
        provider = self.market.provider(self.launch.provider)
        now = self.market.ticks()
        is_new = self.market.moment().since(self.launch.asked) < 2 * LAG_S
        if is_new and now - self._listed_at >= LIST_S:
            self._listed_at = now
            look(self.market, self.launch, listing(self.market, self.launch.provider))
        return provider.get(self.rental.id)

    def _take(self, found: Rental) -> None:
        self._check(found)
        self.rental = found
        if found.state in (RentalState.TERMINATED, RentalState.STOPPED, RentalState.ERROR):
            raise self._bad(f"its provider says that it is {found.said or found.state}")
        if found.ssh_host and found.ssh_port and (found.ssh_host, found.ssh_port) != self._address:
            self._address = found.ssh_host, found.ssh_port
            self._way.moved(self.launch, found)

    def _read(self, fresh: tuple[RentalLine, ...]) -> None:
        if fresh and fresh[-1].id != self._cursor:
            self._cursor = fresh[-1].id
            self._spoken_at = self.market.ticks()
        for line in fresh:
            self._hearing.take(line)
            if line.source == "system":
                self._progress = line.text[:120]
        # What an earlier start said of itself counts no more: its switch is gone, and so may be its host keys. One that
        # never was stopped has no earlier start, and by another clock its first words may be older than its start.
        since = self.rental.started_at
        if self.launch.was_stopped:
            self._heard = Heard() if since is None else self._hearing.heard(since)
        else:
            self._heard = self._hearing.heard()

    def _start(self) -> float | None:
        """Since when its log is read: however much it has said meanwhile, what was said first counts."""
        began = self.rental.started_at
        if began is None and not self.launch.was_stopped:
            began = self.rental.created_at
        return None if began is None else began - CLOCKS_S

    def _silent(self, error: ProviderError) -> None:
        waited_s = self.market.ticks() - self._answered_at
        self._unanswered = f"no word of its provider for {duration_text(max(1.0, waited_s))}: {error.message}"
        if waited_s > self._patience.silence_s:
            raise RentalFailed(
                f"Its provider gave no answer for {duration_text(waited_s)}: {error.message}",
                launch=self.launch.id, rental_id=self.rental.id,
            )  # fmt: skip

    def _wait_for_image(self, now: float) -> None:
        quiet_s = now - self._spoken_at
        self._limit(now - quiet_s, self._patience.image_s, "it has no container, and its log is silent", now)
        self._limit(self._begun_at, self._patience.image_most_s, "it has no container", now)

    def _limit(self, since: float, limit_s: float, what: str, now: float) -> None:
        if now - since > limit_s:
            raise self._bad(f"{what} after {duration_text(now - since)}")

    def _bad(self, why: str) -> BadDraw:
        return BadDraw(why, data_center=self.rental.data_center)

    def _image_text(self) -> str:
        return self._progress or f"its provider says {self.rental.said or self.rental.state}"

    def _stage(self, key: StageKey, text: str) -> Stage:
        said = f"{self.launch.name}: {self._unanswered or text}"
        return Stage(key, said, clock_s=self.market.ticks() - self._begun_at, name=NAMES[key])
