"""Whether a PODLAB_HOME has pods that may be billed: asked at every start of podlab, so it costs next to nothing.

Imported by what must load fast: nothing heavy is loaded here, no network is asked, and no folder is made.

    wake(workspace)     a command begins: have a keeper that tends them
    adopt(home)         a kernel loads podlab: the same, and the kernel's own brake
    told(home)          what a person is told then: which pods there are, and what they cost
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from podlab.lab.launches import Launch
    from podlab.lab.workspace import Workspace

LEDGER = "ledger.jsonl"
_RENTED = b'"rent.'
"""In every line about a rented pod: the one with its intent may be the one that is damaged. What holds something else
than lines of a ledger may have held anything."""

_log = logging.getLogger(__name__)


def wake(workspace: Workspace) -> threading.Thread | None:
    """Have a keeper that tends what is rented, if anything is. Does not wait for it.

    Returns the thread that sees to it, which ends within seconds; None when nothing may be billed.
    """
    from podlab.settings import home

    if not keeper_is_wanted(workspace) or not OpenRentals(home()).may_be_any():
        return None
    return _aside(lambda: _ensure(workspace), daemon=False)


def adopt(home: Path) -> threading.Thread | None:
    """Have this kernel see to what is rented in `home`: pods that an earlier one rented, or that a reboot left alone.

    Reads nothing but the ledger, and that on a thread; None when nothing was ever asked of a provider.
    """
    if not (home / LEDGER).exists():
        return None

    def see_to_it() -> None:
        if OpenRentals(home).may_be_any():
            from podlab.lab.workspace import Workspace

            Workspace.open().brake()

    return _aside(see_to_it, daemon=True)


def keeper_is_wanted(workspace: Workspace) -> bool:
    """Whether the setting allows a keeper; one that cannot be read keeps nobody from tending what is billed."""
    from podlab.errors import BadSettings

    try:
        return bool(workspace.value("keeper"))
    except BadSettings:
        return True


def told(home: Path) -> str:
    """What a person who loads podlab has to know of what is rented in `home`, in sentences; "" where nothing is.

    As the ledger has it, with the state of each pod that was noted last: nobody is asked.
    """
    if not OpenRentals(home).may_be_any():
        return ""
    from podlab.errors import StateDamaged
    from podlab.lab.launches import open_launches
    from podlab.ledger import Ledger

    try:
        found = open_launches(Ledger(home / LEDGER))
    except StateDamaged as error:
        return f"Pods may be rented: {error.message} {error.hint}".strip()
    if not found:  # it has ended since
        return ""
    now = time.time()
    many = f"{len(found)} rented pods may be billed" if len(found) > 1 else "A rented pod may be billed"
    whose = "They are" if len(found) > 1 else "It is"
    pods = "; ".join(_pod_text(launch, now) for launch in found)
    return f"{many}: {pods}. {whose} looked after from here on. See: %pod list --all"


def _pod_text(launch: Launch, now: float) -> str:
    from podlab.lab import money
    from podlab.units import usd_text

    if money.is_unseen(launch):
        state = "was asked for and not seen yet"
    elif launch.ending_at is not None:
        state = "has to end and is not proven gone"
    else:
        state = f"is {launch.spans[-1].state.value}" if launch.spans else "is there"
    gpu = f"{launch.gpu_count}x {launch.gpu}" if launch.gpu_count > 1 else launch.gpu
    pretended = ", simulated" if launch.simulated else ""
    cost = f"{usd_text(money.usd_per_hour(launch))}/h, {usd_text(money.spent_usd(launch, now))} so far"
    return f"{launch.name} ({gpu} of {launch.provider}{pretended}) {state}: {cost}"


def _ensure(workspace: Workspace) -> None:
    from podlab.lab.guarding import ensure_keeper

    if problem := ensure_keeper(workspace):
        _log.warning("no keeper tends the rented pods: %s", problem)


def _aside(work: Callable[[], None], *, daemon: bool) -> threading.Thread:
    def run() -> None:
        try:
            work()
        except Exception:  # noqa: BLE001  # it is nobody's command, and must not look like one that failed
            _log.exception("what is rented could not be seen to")

    thread = threading.Thread(target=run, name="podlab-wake", daemon=daemon)
    thread.start()
    return thread


class OpenRentals:
    """Reads the ledger again only when it has changed."""

    def __init__(self, home: Path) -> None:
        self._path = home / LEDGER
        self._known: tuple[int, ...] | None = None
        self._any = self._ever = False
        self._seen: tuple[int, ...] | None = None

    def may_be_any(self) -> bool:
        """Whether a pod may be billed. A ledger that cannot be trusted and speaks of rented pods counts as one."""
        self._look()
        return self._any

    def were_any(self) -> bool:
        """Whether a pod was ever asked for: its last bill may be missing."""
        self._look()
        return self._ever

    def seen(self) -> None:
        """From now on `has_changed` compares with the ledger as it is."""
        self._seen = self._mark()

    def has_changed(self) -> bool:
        """Whether the ledger is another one than when it was last seen."""
        return self._mark() != self._seen

    def _look(self) -> None:
        mark = self._mark()
        if mark != self._known:
            self._ever, self._any = (False, False) if mark is None else self._read()
            self._known = mark

    def _mark(self) -> tuple[int, ...] | None:
        try:
            info = os.stat(self._path)
        except OSError:
            return None
        return info.st_ino, info.st_size, info.st_mtime_ns

    def _read(self) -> tuple[bool, bool]:
        """Whether there ever was one, and whether one may be billed now."""
        try:
            data = self._path.read_bytes()
            if _RENTED not in data and all(line.startswith(b"{") for line in data.splitlines()):
                return False, False
        except OSError:
            return True, True  # it is there, and cannot be read
        from podlab.errors import StateDamaged
        from podlab.lab.launches import open_launches
        from podlab.ledger import Ledger

        try:
            return True, bool(open_launches(Ledger(self._path)))
        except StateDamaged:
            return True, True
