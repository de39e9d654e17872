"""The brake of this computer: rounds of tending, one after the other, on a thread of the keeper or of a kernel.

It looks at the ledger every second, and at nothing else while nothing is rented. A new intent, a policy that was
changed, and a pod that somebody else wants ended are seen by the ledger having grown.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

from podlab import settings
from podlab.lab import pods, rented, tending
from podlab.lab.bills import EVERY_S
from podlab.lab.heartbeat import beat
from podlab.lab.introduction import Introduction
from podlab.lab.launches import Launch
from podlab.lab.market import Market
from podlab.lab.money import Caps
from podlab.lab.open_rentals import OpenRentals
from podlab.lab.tending import World
from podlab.lab.tending_file import Owner, TendingFile
from podlab.renting import Armed, Rental
from podlab.transport.base import Transport
from podlab.types import Pod

LOOK_S = 1.0
"""Between looks at whether the ledger has grown."""
FAILED_S = 30.0

_log = logging.getLogger(__name__)

Reach = Callable[[Pod], AbstractContextManager[Transport]]
"""The way to a pod, for as long as the block lasts."""


def tending_file() -> TendingFile:
    """The one of this PODLAB_HOME."""
    return TendingFile(settings.home() / "tending.json")


def world(
    market: Market, owner: Owner, reach: Reach, caps: Callable[[], Caps], *, forget: Callable[[str], None]
) -> World:
    """What a process that tends the pods of this PODLAB_HOME has: words to pods go over `reach`, and `forget` drops
    what is open to one."""
    file = tending_file()
    introduction = Introduction(market, file.steady, forget)

    def beat_over(launch: Launch, rental: Rental, now: float) -> Armed:
        # As its provider says that it is reached now: this needs no registry, which may be damaged.
        pod = Pod(launch.name, launch.id, launch.provider, rented.address_of(rental), rental_id=rental.id)

        def word() -> Armed:
            with reach(pod) as transport:
                return beat(transport, launch, now=now)

        return introduction.speak(launch, rental, word)

    return World(file, owner, beat_over, caps, _moved)


def _moved(launch: Launch, rental: Rental) -> None:
    """Its address of now into the registry, where a pod that a crash left is missing."""
    known = next((pod for pod in pods.all_pods() if pod.id == launch.id), None)
    if known is None or (known.address, known.rental_id) != (rented.address_of(rental), rental.id):
        rented.keep(launch, rental)


class Tender:
    """Tends until it is stopped. `turn` is asked before each round whether it is this process's turn at all, and told
    whether a pod may be billed."""

    def __init__(self, market: Market, here: World, *, turn: Callable[[bool], bool] = lambda needed: True) -> None:
        self._market = market
        self._world = here
        self._turn = turn
        self._rentals = OpenRentals(settings.home())
        self._watches = False
        self._stopped = False
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name="podlab-brake", daemon=True)

    def start(self) -> None:
        """Begin, on a thread that keeps no process from ending."""
        self._thread.start()

    def wake(self) -> None:
        """Have the next round now."""
        self._woken.set()

    def stop(self) -> None:
        """Let another process tend at once. A round under way finds that it is not its turn any more."""
        self._stopped = True
        self._woken.set()
        self._world.file.release(self._world.owner)

    def is_needed(self) -> bool:
        """Whether something may be billed, so that this process should stay."""
        return self._watches or self._rentals.may_be_any()

    def _run(self) -> None:
        while not self._stopped:
            again_s = LOOK_S
            try:
                self._rentals.seen()
                if self._watches or self._rentals.were_any():
                    again_s = self._round()
            except Exception:  # noqa: BLE001  # nothing may end the brake but the end of its process
                _log.exception("a round of tending failed")
                again_s = FAILED_S
            self._wait(again_s)

    def _round(self) -> float:
        if not self._is_our_turn():
            return tending.STANDBY_S if self.is_needed() else EVERY_S
        tended = tending.tend(self._market, self._world)
        if not tended.standby:
            self._watches = tended.watches
            if not tended.watches:
                self._world.file.release(self._world.owner)
        if self._stopped:  # it may have taken its turn after it was given away
            self._world.file.release(self._world.owner)
        return tended.again_s

    def _is_our_turn(self) -> bool:
        try:
            return self._turn(self.is_needed())
        except Exception:  # noqa: BLE001  # no descriptors, no disk: the lease decides, which is looked at next
            _log.exception("it cannot be told whose turn it is to tend the rented pods")
            return True

    def _wait(self, seconds: float) -> None:
        """Until the next round is due, the ledger has changed since it began, or somebody wakes it."""
        steady = self._world.file.steady
        until = steady() + seconds
        while not self._stopped and steady() < until and not self._rentals.has_changed():
            if self._woken.wait(min(LOOK_S, max(0.0, until - steady()))):
                break
        self._woken.clear()
