"""A kernel's own brake: it tends the rented pods while no keeper does, and sees to it that one does again.

One per process, on a daemon thread: it keeps no kernel from ending, and an interrupt, which the main thread gets, does
not reach it. It has connections of its own, so that unloading the extension does not take them away.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from podlab.errors import StateDamaged
from podlab.lab.guarding import ensure_keeper, trouble
from podlab.lab.launches import open_launches
from podlab.lab.money import Caps
from podlab.lab.open_rentals import keeper_is_wanted
from podlab.lab.tender import Tender, world
from podlab.lab.tending_file import Owner

if TYPE_CHECKING:
    from podlab.lab.market import Market
    from podlab.lab.tending import World
    from podlab.lab.workspace import Workspace

HAND_OVER_S = 60.0
"""Between two times that one who could not end a pod is helped: a keeper gets what this kernel reaches providers with,
and this kernel lets another one have its turn."""
YIELD_S = 10.0
"""How long a keeper that was just started has to begin before the kernel takes the round itself."""

_log = logging.getLogger(__name__)
_brake: Tender | None = None
_starting = threading.Lock()


def start(workspace: Workspace) -> Tender:
    """The brake of this process, started at the first call."""
    global _brake
    with _starting:
        if _brake is None:
            _brake = _new(workspace)
            _brake.start()
        return _brake


def stop() -> None:
    """End the brake of this process, which another PODLAB_HOME may be for; the next `start` makes a new one."""
    global _brake
    with _starting:
        if _brake is not None:
            _brake.stop()
            _brake = None


def _new(workspace: Workspace) -> Tender:
    from podlab.lab.market import Market
    from podlab.lab.workspace import Workspace as Its

    own = Its.open()
    own.override("keeper", "on" if keeper_is_wanted(workspace) else "off")
    market = Market.of(own)
    here = world(
        market, Owner.here("kernel"), lambda pod: nullcontext(own.transport(pod)), lambda: Caps.of(own.value),
        forget=own.drop_transport,
    )  # fmt: skip
    helped = Helped(market, here)
    return Tender(market, here, turn=lambda needed: _is_our_turn(own, here, helped, needed))


@dataclass
class Helped:
    """Whether the one who tends, who may be this kernel, needs what another one has; and when it was helped last."""

    market: Market
    here: World
    at: float | None = None

    def is_due(self) -> bool:
        """Whether it could not end an open pod: it lacks the key, or the way to the provider. Not asked for often."""
        steady = self.here.file.steady()
        if self.at is not None and steady - self.at < HAND_OVER_S:
            return False
        try:
            launches = open_launches(self.market.ledger)
        except StateDamaged:
            return False
        if not any(trouble(launch, self.here.file) for launch in launches):
            return False
        self.at = steady
        return True


def _is_our_turn(workspace: Workspace, here: World, helped: Helped, needed: bool) -> bool:
    """Whether no keeper tends. One that can be had comes first: it outlives this kernel. None is started where only a
    last bill is missing. One that tends and cannot reach a provider gets what this kernel reaches it with, and a kernel
    that cannot gives way for a moment to whoever stands by."""
    owner = here.file.owner()
    if owner is not None and owner.token != here.owner.token:
        if owner.who == "keeper" and keeper_is_wanted(workspace) and helped.is_due():
            ensure_keeper(workspace)
        return False
    if not needed:
        return True
    problem = ensure_keeper(workspace)
    if problem and keeper_is_wanted(workspace):
        _log.warning("no keeper tends the rented pods (%s): this process does", problem)
    if problem and (owner is None or not helped.is_due()):
        return True
    here.file.release(here.owner)
    until = time.monotonic() + YIELD_S
    while time.monotonic() < until:
        owner = here.file.owner()
        if owner is not None and (problem or owner.who == "keeper"):
            return False
        time.sleep(0.2)
    return True  # it is there and does not tend, or nobody stands by
