"""A kernel's own brake: it tends the rented pods while no keeper does, and sees to it that one does again.

One per process, on a daemon thread: it keeps no kernel from ending, and an interrupt, which the main thread gets, does
not reach it. It has connections of its own, so that unloading the extension does not take them away.
"""

from __future__ import annotations

import logging
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from podlab.lab.guarding import ensure_keeper
from podlab.lab.money import Caps
from podlab.lab.tender import Tender, world
from podlab.lab.tending_file import Owner

if TYPE_CHECKING:
    from podlab.lab.workspace import Workspace
    from podlab.transport.base import Transport
    from podlab.types import Pod

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


def _new(workspace: Workspace) -> Tender:
    from podlab.lab.market import Market
    from podlab.lab.workspace import Workspace as Its

    own = Its.open()
    own.override("keeper", "on" if workspace.value("keeper") else "off")
    market = Market.of(own)
    here = world(Owner.here("kernel"), lambda pod: _way(own, pod), lambda: Caps.of(own.value))

    def turn() -> bool:
        """Whether no keeper does it. One that can be had comes first: it outlives this kernel."""
        owner = here.file.owner()
        if owner is not None and owner.token != here.owner.token:
            return False
        if own.value("keeper") and (problem := ensure_keeper(own)) == "":
            here.file.release(here.owner)
            return not _began(here.file.steady)
        if own.value("keeper"):
            _log.warning("no keeper tends the rented pods (%s): this process does", problem)
        return True

    def _began(steady) -> bool:  # type: ignore[no-untyped-def]
        until = steady() + YIELD_S
        while steady() < until:
            owner = here.file.owner()
            if owner is not None and owner.who == "keeper":
                return True
            threading.Event().wait(0.2)
        return False

    return Tender(market, here, turn=turn)


def _way(workspace: Workspace, pod: Pod) -> AbstractContextManager[Transport]:
    """The way to a pod at the address it has now: a rented one has another after each start."""
    known = workspace.transport(pod)
    if getattr(known, "address", pod.address) != pod.address:
        workspace.drop_transport(pod.id)
        known = workspace.transport(pod)
    return nullcontext(known)
