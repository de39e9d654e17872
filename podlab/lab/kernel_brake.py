"""A kernel's own brake: it tends the rented pods while no keeper does, and sees to it that one does again.

One per process, on a daemon thread: it keeps no kernel from ending, and an interrupt, which the main thread gets, does
not reach it. It has connections of its own, so that unloading the extension does not take them away.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

from podlab.lab.guarding import ensure_keeper
from podlab.lab.money import Caps
from podlab.lab.open_rentals import keeper_is_wanted
from podlab.lab.tender import Tender, world
from podlab.lab.tending_file import Owner

if TYPE_CHECKING:
    from podlab.lab.tending import World
    from podlab.lab.workspace import Workspace

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
    return Tender(market, here, turn=lambda needed: _is_our_turn(own, here, needed))


def _is_our_turn(workspace: Workspace, here: World, needed: bool) -> bool:
    """Whether no keeper tends. One that can be had comes first: it outlives this kernel. None is started where only a
    last bill is missing."""
    owner = here.file.owner()
    if owner is not None and owner.token != here.owner.token:
        return False
    if not needed or not keeper_is_wanted(workspace):
        return True
    if problem := ensure_keeper(workspace):
        _log.warning("no keeper tends the rented pods (%s): this process does", problem)
        return True
    here.file.release(here.owner)
    until = time.monotonic() + YIELD_S
    while time.monotonic() < until:
        owner = here.file.owner()
        if owner is not None and owner.who == "keeper":
            return False
        time.sleep(0.2)
    return True  # it is there and does not tend
