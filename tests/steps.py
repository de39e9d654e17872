"""Every step boundary of a process that rents or tends, found by running it, and kill -9 at any one of them.

What changes the world is watched where it is defined, so that a new call of it is a new boundary without a list of
them: each public method of the provider, of what a create needs of this computer and of the way to a pod; each line
of the ledger, also half of it; each file that is put in place, before and after its rename; each host key; each word
to the keeper; each write on a connection to the company; each stage, question and notice.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from podlab.settings import home

KEPT = 2
"""Of each boundary the first so many times count: what comes after is the same, polled again."""
_REQUEST = re.compile(rb"(GET|POST|PUT|PATCH|DELETE) (/[^ ?]*)\S* HTTP/1\.1\r\n")


@dataclass(frozen=True, order=True)
class Step:
    """The `time`th time (from 1) that a process came to a boundary."""

    name: str
    time: int = 1

    @property
    def what(self) -> str:
        """What it is a boundary of."""
        return re.sub(r"^(before|after|half of|the unsynced) (the )?", "", self.name)

    def __str__(self) -> str:
        return self.name if self.time == 1 else f"{self.name}, time {self.time}"


class Steps:
    """Counts the boundaries that this process comes to. It kills itself at `last`; without one it writes them down."""

    def __init__(self, last: Step | None, record: Path | None = None, *, main_only: bool = True) -> None:
        """With `main_only` what other threads do is not counted, so that a step comes again where it was."""
        self._last = last
        self._record = record
        self._main_only = main_only
        self._times: Counter[str] = Counter()
        self._guard = threading.Lock()

    def at(self, name: str) -> None:
        """This process is at that boundary."""
        if self._main_only and threading.current_thread() is not threading.main_thread():
            return
        with self._guard:
            self._times[name] += 1
            step = Step(name, self._times[name])
            if self._record is not None:
                with self._record.open("a") as file:
                    file.write(json.dumps([step.name, step.time]) + "\n")
        if step == self._last:
            os.kill(os.getpid(), signal.SIGKILL)

    def watch(self, owner: Any, method: str, said: Callable[..., str]) -> None:
        """Have each call of it be two boundaries, named by what `said` makes of its arguments."""
        original = getattr(owner, method)

        def call(*words: Any, **more: Any) -> Any:
            name = said(*words, **more)
            self.at(f"before {name}")
            found = original(*words, **more)
            if inspect.isgenerator(found):
                return self._through(found, name)
            self.at(f"after {name}")
            return found

        setattr(owner, method, call)

    def watch_all(self, kind: type, what: str) -> None:
        """The same for every public method that a class defines."""
        for name, member in list(vars(kind).items()):
            if inspect.isfunction(member) and not name.startswith("_"):
                self.watch(kind, name, lambda *_, _said=f"{what} {name}", **__: _said)

    def _through(self, found: Any, name: str) -> Any:
        value = yield from found
        self.at(f"after {name}")
        return value


def steps_in(record: Path) -> tuple[Step, ...]:
    """The boundaries that a process wrote down, in their order; of each the first KEPT times."""
    found = (Step(*json.loads(line)) for line in record.read_text().splitlines())
    return tuple(step for step in found if step.time <= KEPT)


def watch_files(steps: Steps) -> None:
    """Each line of the ledger and each file that is put in place."""
    from podlab import durable, ledger

    steps.watch(ledger.Ledger, "append_checked", lambda self, verb, *_, **__: f"the line {verb}")
    steps.watch(durable, "_replace", lambda path, *_, **__: f"the file {_named(path)}")
    steps.watch(Path, "replace", lambda self, target: f"the rename to {_named(target)}")
    whole = ledger._write_all

    def in_halves(descriptor: int, data: bytes) -> None:
        whole(descriptor, data[: len(data) // 2])
        steps.at(f"half of the line {json.loads(data)['verb']}")
        whole(descriptor, data[len(data) // 2 :])
        steps.at(f"the unsynced line {json.loads(data)['verb']}")

    ledger._write_all = in_halves


def watch_company(steps: Steps) -> None:
    """Each call of the provider, and each write on a connection to it."""
    from podlab.providers.runpod import RunpodProvider

    steps.watch_all(RunpodProvider, "the company's")
    port = urlsplit(json.loads((home() / "sandbox.json").read_bytes())["url"]).port
    asked: dict[socket.socket, str] = {}

    def said(self: socket.socket, data: bytes, *_: object) -> str:
        begun = _REQUEST.match(bytes(data[:300]))
        if begun is not None:
            asked[self] = f"{begun[1].decode()} {_plain(begun[2].decode())}"
            return f"sending the head of {asked[self]}"
        return f"sending the body of {asked.get(self, 'what was asked')}"

    for method in ("send", "sendall"):
        original = getattr(socket.socket, method)

        def call(self: socket.socket, data: Any, *more: Any, _original: Any = original) -> Any:
            if not _leads_to(self, port):
                return _original(self, data, *more)
            name = said(self, data)
            steps.at(f"before {name}")
            sent = _original(self, data, *more)
            steps.at(f"after {name}")
            return sent

        setattr(socket.socket, method, call)


def watch_asker(steps: Steps) -> None:
    """All that a create does."""
    from podlab.lab.crew import Here
    from podlab.transport import kept_link
    from podlab.transport.host_keys import HostKeys
    from podlab.transport.kept import KeptTransport
    from tests.rentals import Nobody

    watch_files(steps)
    watch_company(steps)
    steps.watch_all(Here, "this computer's")
    steps.watch_all(HostKeys, "the host keys'")
    steps.watch(KeptTransport, "start", lambda *_, **__: "a word to the pod")
    steps.watch(kept_link, "request", lambda place, asked, *_, **__: f"a word to the keeper ({type(asked).__name__})")
    steps.watch(Nobody, "stage", lambda self, stage: f"the stage {stage.key}")
    steps.watch(Nobody, "ask", lambda self, ask: f"the question of the {ask.kind}")
    steps.watch(Nobody, "notice", lambda self, notice: "a notice")


def watch_keeper(steps: Steps) -> None:
    """All that a keeper does for rented pods."""
    from podlab.lab import ending, tender, tending
    from podlab.lab.tending_file import TendingFile

    watch_files(steps)
    watch_company(steps)
    steps.watch(tending, "tend", lambda *_: "a round")
    steps.watch(tender, "beat", lambda *_, **__: "a word to the switch")
    for name in ("end", "look", "push"):
        steps.watch(ending, name, lambda *_, _said=name, **__: f"the ending's {_said}")
    for name in ("take", "write"):
        steps.watch(TendingFile, name, lambda *_, _said=name, **__: f"the tending file's {_said}")


def _leads_to(connection: socket.socket, port: int | None) -> bool:
    try:
        peer = connection.getpeername()
    except OSError:
        return False
    return isinstance(peer, tuple) and peer[1] == port


def _named(path: object) -> str:
    given = Path(str(path))
    try:
        return _plain(str(given.relative_to(home())))
    except ValueError:
        return given.name


def _plain(text: str) -> str:
    """Without what is another one each time."""
    return re.sub(r"(?<=/)[a-z0-9]{12,}(?=/|$)", "ID", text)
