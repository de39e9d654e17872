"""The brake in the keeper: it tends the rented pods for as long as one may be billed, kernels or not.

It needs no request to begin: it looks at the ledger. A client's request only brings it the key that it may need, and
the next round at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from podlab import settings
from podlab.keeper.access import COMPANY, Access
from podlab.keeper.pods import KeptPods
from podlab.lab.market import Market
from podlab.lab.money import Caps
from podlab.lab.tender import Tender, world
from podlab.lab.tending_file import Owner
from podlab.transport.base import Transport
from podlab.transport.kept_wire import PodRef
from podlab.types import Pod


def _caps() -> Caps:
    return Caps.of(lambda name: settings.value(name)[0])


class Brakes:
    """Tends the rented pods of this PODLAB_HOME over the connections that the keeper has."""

    def __init__(self, pods: KeptPods, repoint: Callable[[PodRef], None]) -> None:
        """`repoint` has the open forwards of a pod lead to where it is by now."""
        self._pods = pods
        self._repoint = repoint
        market = Market.here()
        here = world(market, Owner.here("keeper"), self._reach, _caps, forget=pods.drop)
        self._world = here
        self._access = Access(market.ledger, lambda: here.answers.get(COMPANY, ""), here.file.steady)
        self._tender = Tender(market, here, turn=self._turn)

    def start(self) -> None:
        """Begin, on a thread."""
        self._tender.start()

    def stop(self) -> None:
        """Let another process tend at once."""
        self._tender.stop()

    def is_needed(self) -> bool:
        """Whether a rented pod may be billed, so that the keeper stays."""
        return self._tender.is_needed()

    def tend(self, environment: dict[str, str]) -> None:
        """Have the next round now, with what a client reaches providers with."""
        self._access.bring(environment)
        self._tender.wake()

    def _turn(self, needed: bool) -> bool:
        """It is always the keeper's turn, with the best that it has to reach providers with."""
        if self._access.choose():
            self._world.tries.clear()
            self._world.answers.clear()
        return True

    @contextmanager
    def _reach(self, pod: Pod) -> Iterator[Transport]:
        assert pod.address is not None, "it is not beaten without an address"
        ref = PodRef(pod.name, pod.id, pod.address)
        self._repoint(ref)
        with self._pods.used(ref) as transport:
            yield transport
