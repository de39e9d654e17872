"""The sandbox as a process: opened, looked at, disturbed and closed. What `podlab sandbox ...` does.

One sandbox per PODLAB_HOME. Where it is, and with which key, stands in PODLAB_HOME/sandbox.json; it belongs to whoever
may read that, and to nobody else on this computer.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from podlab.errors import BadArgument, HttpError, NotFound, PodlabError
from podlab.sandbox.fault_names import NAMES, Ask
from podlab.sandbox.place import Place, Said
from podlab.sandbox.records import Pace
from podlab.secrets import Secret

READY = b"\0ready"
START_S = 30.0
END_S = 30.0
ANSWER_S = 15.0
PACE = Pace(provision_s=1.0, start_s=1.0, runtime_s=0.5)
"""Slow enough for each stage to be seen."""
FASTEST = 3600.0
LAG_S = 2.0
"""How late its listings may be, as it says: they are not, unless a fault has them be. An end is proven in seconds."""


@dataclass(frozen=True)
class Opened:
    """A sandbox that is open. `was_open`: it was before."""

    url: str
    pid: int
    speed: float
    """How many seconds of bill a second is."""
    was_open: bool


@dataclass(frozen=True)
class SandboxStatus:
    """How a sandbox does. All of it is simulated, the money too."""

    url: str
    pid: int
    speed: float
    balance_usd: float
    spend_usd_per_hour: float
    """At a speed of 1."""
    pods: int
    """Stopped ones included."""
    running: int
    faults: tuple[FaultSet, ...] = ()


@dataclass(frozen=True)
class FaultSet:
    """A fault that is set. `times` None: until it is cleared."""

    name: str
    times: int | None
    struck: int


@dataclass(frozen=True)
class FaultName:
    """A fault that can be set."""

    name: str
    help: str


def up(*, speed: float = 1.0, balance_usd: float = 25.0) -> Opened:
    """Open the sandbox of this PODLAB_HOME, unless it is. Raises PodlabError when it does not start, BadArgument."""
    if not 0 < speed <= FASTEST:
        raise BadArgument(f"The bill cannot run {speed:g} times as fast.", hint=f"Choose from 1 to {FASTEST:g}.")
    place = Place.here()
    if (said := _alive(place)) is not None:
        return Opened(said.url, said.pid, said.speed, True)
    _spawn(["--speed", repr(speed), "--balance", repr(balance_usd)])
    said = _alive(place)
    if said is None:
        raise PodlabError("The sandbox ended as soon as it was open.", hint="Try again: podlab sandbox up")
    return Opened(said.url, said.pid, said.speed, False)


def down() -> bool:
    """Close the sandbox: its pods and all that runs on them end. False when it was not open."""
    place = Place.here()
    said = place.read()
    if not place.is_locked():
        if said is not None:
            place.leave(said.pid)
        return False
    deadline = time.monotonic() + END_S
    if said is not None:
        try:
            _ask(said, "POST", "stop")
        except PodlabError:
            with contextlib.suppress(OSError):  # it holds its lock, so that number is still its own
                os.kill(said.pid, signal.SIGTERM)
    while place.is_locked():
        if time.monotonic() > deadline:
            if said is None:
                raise PodlabError("The sandbox does not end.", hint=f"Its process holds {place.lock}.")
            with contextlib.suppress(OSError):
                os.kill(said.pid, signal.SIGKILL)
            deadline += END_S
        time.sleep(0.02)
    if said is not None:
        place.leave(said.pid)
    return True


def status() -> SandboxStatus | None:
    """How the sandbox of this PODLAB_HOME does; None when it is not open."""
    said = _alive(Place.here())
    if said is None:
        return None
    told, faults = _ask(said, "GET", "status"), _ask(said, "GET", "faults")
    return SandboxStatus(
        said.url, said.pid, told["speed"], told["balanceUsd"], told["spendUsdPerHour"], told["pods"], told["running"],
        tuple(FaultSet(each["name"], each["times"], each["struck"]) for each in faults["faults"]),
    )  # fmt: skip


def fault_names() -> tuple[FaultName, ...]:
    """What can go wrong on order."""
    return tuple(FaultName(name, named.help) for name, named in NAMES.items())


def fault(name: str, ask: Ask | None = None) -> SandboxStatus:
    """Have something go wrong. Raises NotFound: no such fault, no such pod, no sandbox."""
    if name not in NAMES:
        import difflib

        near = difflib.get_close_matches(name, NAMES, n=1)
        hint = f"Did you mean {near[0]}?" if near else "See: podlab sandbox fault"
        raise NotFound(f"No fault is called {name!r}.", hint=hint)
    _ask(_open(), "POST", "faults", {"name": name, **vars(ask or Ask())})
    return _status()


def clear_faults() -> SandboxStatus:
    """From now on everything goes right. What has happened to pods stays. Raises NotFound."""
    _ask(_open(), "DELETE", "faults")
    return _status()


def add_money(usd: float) -> SandboxStatus:
    """Put money on the simulated account. Raises NotFound, BadArgument."""
    if not 0 < usd <= 1e6:
        raise BadArgument(f"{usd:g} dollars cannot be put on the account.", hint="Give an amount, such as 10.")
    _ask(_open(), "POST", "money", {"usd": usd})
    return _status()


def _status() -> SandboxStatus:
    found = status()
    if found is None:
        raise NotFound("The sandbox is not open.", hint="Open it: podlab sandbox up")
    return found


def _open() -> Said:
    said = _alive(Place.here())
    if said is None:
        raise NotFound("The sandbox is not open.", hint="Open it: podlab sandbox up")
    return said


def _alive(place: Place) -> Said | None:
    """What the sandbox says of itself, if its process runs."""
    return place.read() if place.is_locked() else None


def _ask(said: Said, method: str, route: str, body: dict[str, Any] | None = None) -> Any:
    """One request to the sandbox's own desk; its document, None for none. Raises NotFound, PodlabError."""
    import json

    from podlab.http import Http

    http = Http(said.url, key=Secret(said.key), user_agent="podlab")
    content = None if body is None else json.dumps(body).encode()
    try:
        answer = http.ask(method, f"/sandbox/{route}", content=content, deadline_s=ANSWER_S)
    except HttpError as error:
        raise PodlabError("The sandbox does not answer.", hint="Open it anew: podlab sandbox down, then up") from error
    finally:
        http.close()
    document: Any = json.loads(answer.content) if answer.content else None
    if answer.status >= 400 and document:
        detail = "; ".join(document.get("errors", [])) or document.get("detail", "")
        raise (NotFound if answer.status == 404 else PodlabError)(f"The sandbox refused: {detail}")
    return document


def _spawn(arguments: list[str]) -> None:
    """Start the process and wait until it serves. Raises PodlabError with the last line it said."""
    ours, theirs = os.pipe()
    try:
        command = [sys.executable, "-P", "-m", "podlab.sandbox", *arguments]
        starter = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=theirs, start_new_session=True
        )
    except OSError as error:
        os.close(ours)
        raise PodlabError(f"The sandbox cannot be started: {error.strerror}.") from error
    finally:
        os.close(theirs)
    said, deadline = b"", time.monotonic() + START_S
    with contextlib.closing(os.fdopen(ours, "rb", buffering=0)) as pipe:
        while READY not in said and select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            if not (piece := os.read(ours, 4096)):
                break
            said += piece
    starter.wait()
    if READY not in said:
        last = said.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        raise PodlabError(f"The sandbox did not start: {last[0][:300]}")
