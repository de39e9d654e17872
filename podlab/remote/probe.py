"""The probe: one JSON line a tick about the GPUs and the machine, until nobody listens. Writes nothing on the pod.

Standard library only, Python 3.8 or newer. Sent to the pod's Python on standard input, followed by one line with the
request, {"v": 1, "interval_s": 1.0, "home": null, "pynvml_bytes": 50000}, and that many bytes of zlib: the text of
pynvml.py, so nothing has to be installed there. interval_s 0 means one line; another rate is another probe. With
"cards_only" that line is of the cards alone and comes at once: no rate of the machine has to be measured for it.

Each line is {"v": 1, "at": ..., "source": ..., "host": {...}, "gpus": [...]}; the names inside are the fields of
PodSample, HostSample, GpuSample and GpuProcess in podlab/types.py, and what is not known is left out. Where the first
reading takes long, lines {"v": 1, "beat": time} come before it.

It ends when its input ends, when its output is closed, and when nobody has taken a line for a while.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time

from podlab.remote.host import Host
from podlab.remote.nvidia_smi import NvidiaSmi
from podlab.remote.nvidia_smi import find as find_nvidia_smi
from podlab.remote.nvml import Nvml, load_library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from podlab.remote.machine import Json

PROTOCOL = 1
SHORTEST_S, LONGEST_S = 0.25, 60.0
FIRST_S = 20.0
"""How long the first reading may take: initialising a driver that is not kept loaded takes seconds a card."""
SHARE, LONGEST_WAIT_S = 0.8, 2.0
"""Of a tick, how long cards are waited for; and never longer than this."""
BEAT_S = 2.5
STUCK_S = 60.0
"""How long nobody may take a line before nobody is taken to be there: a dead link can stay open for hours."""
ONCE_WAIT_S = 5.0
"""The same for a single line."""
ONCE_S = 0.1
"""Between the two looks at counters that give a single line its rates."""


EXPLAINED = {
    "NVMLError_LibRmVersionMismatch":
        "the NVIDIA driver was exchanged while it ran: its library and its kernel module are of different versions "
        "until the machine is started anew",
    "NVMLError_DriverNotLoaded": "the kernel module of the NVIDIA driver is not loaded",
    "NVMLError_NoPermission": "this user may not use the NVIDIA driver",
}  # fmt: skip
"""Why the library cannot be initialised, by pynvml's class of the error."""


class Reader:
    """A thread that reads one thing when asked to: a call that hangs holds up nothing but itself."""

    def __init__(self, read: Callable[[], Any], done: threading.Condition) -> None:
        self._read = read
        self._done = done
        self._wanted = threading.Semaphore(0)
        self._asked_at: float | None = None
        self._found: Any = None
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            self._wanted.acquire()
            try:
                found = self._read()
            except Exception as error:  # noqa: BLE001 - it came out of the driver's library: told, and the others go on
                found = error
            with self._done:
                self._found, self._asked_at = found, None
                self._done.notify()

    def ask(self) -> bool:
        """Begin to read; False when it is at it still."""
        if self._asked_at is not None:
            return False
        self._asked_at = time.monotonic()
        self._wanted.release()
        return True

    def take(self) -> Any:
        """What was found since it was last taken, an exception included; None when it is at it still."""
        found, self._found = self._found, None
        return found

    @property
    def waiting_s(self) -> float | None:
        """For how long it has been at it; None when it is idle."""
        since = self._asked_at
        return None if since is None else time.monotonic() - since


def collect(readers: list[Reader], done: threading.Condition, wait_s: float) -> list[Any]:
    """Ask all of them and take what they found; None for who has not found anything since.

    Waits for at most `wait_s`, and not at all for who is late already: what it finds is taken the next time.
    """
    asked = [reader for reader in readers if reader.ask()]
    with done:
        done.wait_for(lambda: all(reader.waiting_s is None for reader in asked), wait_s)
        return [reader.take() for reader in readers]


class NoGpus:
    """Nothing to read but the machine."""

    name = "none"
    driver = cuda = None

    def __init__(self, detail: str) -> None:
        self.detail = detail

    def read(self, wait_s: float) -> list[Json]:
        """No card at all."""
        return []


class ByNvml:
    """A thread per card."""

    name = "nvml"
    detail = ""

    def __init__(self, nvml: Nvml, done: threading.Condition) -> None:
        self.driver, self.cuda = nvml.driver, nvml.cuda
        self._done = done
        self._cards = nvml.cards
        self._readers = [Reader(card.read, done) for card in nvml.cards]

    def read(self, wait_s: float) -> list[Json]:
        """Every card and MIG instance; one whose driver does not answer in time is there without figures."""
        found: list[Json] = []
        for card, reader, answer in zip(self._cards, self._readers, collect(self._readers, self._done, wait_s)):
            if isinstance(answer, list):
                found += answer
            elif answer is not None:
                found.append(card.silent(f"{type(answer).__name__}: {answer}"))
            else:
                found.append(card.silent(f"the driver has not answered for {reader.waiting_s or wait_s:.1f} s"))
        return found


class BySmi:
    """A thread for the program that reads all cards."""

    name = "nvidia-smi"

    def __init__(self, smi: NvidiaSmi, why: str, done: threading.Condition) -> None:
        self.driver, self.cuda = smi.driver, smi.cuda
        self._why = self.detail = f"NVML was not used: {why}"
        self._done = done
        self._readers = [Reader(smi.read, done)]
        self._last: list[Json] = []

    def read(self, wait_s: float) -> list[Json]:
        """Every card; those of the reading before without figures while the program has not answered."""
        (answer,) = collect(self._readers, self._done, wait_s)
        if isinstance(answer, list):
            self.detail, self._last = self._why, answer
            return answer
        problem = (
            str(answer) if answer else f"nvidia-smi has not answered for {self._readers[0].waiting_s or wait_s:.1f} s"
        )
        self.detail = f"{self._why}; {problem}"
        return [{"index": card["index"], "name": card["name"], "uuid": card["uuid"], "error": problem}
                for card in self._last]  # fmt: skip


class Probe:
    """The ticks, and when to end."""

    def __init__(self, request: Json, pynvml_text: bytes) -> None:
        self.interval_s = float(request["interval_s"])
        if self.interval_s and not SHORTEST_S <= self.interval_s <= LONGEST_S:
            raise ValueError(f"an interval of {self.interval_s:g} s")
        self.once_s = 0.0 if request.get("cards_only") else ONCE_S
        self.began = self.moved = time.monotonic()
        self.done = threading.Condition()
        self.host = Reader(Host(os.path.expanduser(str(request.get("home") or "~"))).read, self.done)
        self.smi: NvidiaSmi | None = None
        self._pynvml_text = pynvml_text

    def run(self) -> NoReturn:
        """One line, or a line a tick."""
        if self.interval_s:
            threading.Thread(target=self.end_with_the_link, daemon=True).start()
        opening = Reader(self.open, self.done)
        source = self.opened(opening) or NoGpus(f"the driver has not let itself be opened for {FIRST_S:g} s")
        if not self.interval_s:
            time.sleep(max(0.0, self.began + self.once_s - time.monotonic()))
            self.emit(self.line(source, ONCE_WAIT_S))
            self.leave(0)
        wait_s = min(SHARE * self.interval_s, LONGEST_WAIT_S)
        self.emit(self.line(source, max(wait_s, LONGEST_WAIT_S)))  # the first call to a card may load its firmware
        due = time.monotonic()
        while True:
            due = max(due + self.interval_s, time.monotonic())  # what was missed is not made up for
            time.sleep(max(0.0, due - time.monotonic()))
            if isinstance(source, NoGpus):
                with self.done:
                    source = opening.take() or source  # it came late
            self.emit(self.line(source, wait_s))

    def opened(self, opening: Reader) -> Any:
        """The source of GPUs, with a sign of life now and then; None when it takes longer than FIRST_S."""
        end = time.monotonic() + FIRST_S
        opening.ask()
        while True:
            with self.done:
                self.done.wait_for(lambda: opening.waiting_s is None, min(BEAT_S, max(0.0, end - time.monotonic())))
                found = opening.take()
            if found is not None or time.monotonic() >= end:
                return found
            self.emit({"beat": time.time()})

    def open(self) -> Any:
        """The best source there is. May take as long as the driver likes."""
        why = load_library()
        if why:
            why = f"no NVIDIA driver was found ({why})"
        else:
            try:
                return ByNvml(Nvml(pynvml_from(self._pynvml_text)), self.done)
            except Exception as error:  # noqa: BLE001 - whatever it is: nvidia-smi may know better
                why = EXPLAINED.get(type(error).__name__) or str(error)
            finally:
                self._pynvml_text = b""
        path = find_nvidia_smi()
        if path is None:
            return NoGpus(why)
        try:
            self.smi = NvidiaSmi(path)
            return BySmi(self.smi, why, self.done)
        except Exception as error:  # noqa: BLE001 - the last source there is
            return NoGpus(f"{why}; {error}")

    def line(self, source: Any, wait_s: float) -> Json:
        """One tick. A home on a file server that hangs holds up the machine's figures, not the cards'."""
        at, asked = time.time(), bool(self.interval_s or self.once_s) and self.host.ask()
        gpus = source.read(wait_s)
        with self.done:
            self.done.wait_for(lambda: not asked or self.host.waiting_s is None, wait_s)
            host = self.host.take()
        return known({
            "at": at, "source": source.name, "driver": source.driver, "cuda": source.cuda, "detail": source.detail,
            "host": known(host) if isinstance(host, dict) else {},
            "gpus": [known(gpu) for gpu in gpus],
        })  # fmt: skip

    def emit(self, fields: Json) -> None:
        """Send one line; when nobody listens any more: end."""
        data = (json.dumps({"v": PROTOCOL, **fields}, separators=(",", ":")) + "\n").encode()
        try:
            while data:
                data = data[os.write(1, data) :]
        except OSError:
            self.leave(0)
        self.moved = time.monotonic()

    def end_with_the_link(self) -> None:
        """Watch the input, on which nothing is due but its end, and the progress of our output."""
        import select

        while True:
            readable, _, _ = select.select([0], [], [], 5.0)
            if readable and not os.read(0, 65536):
                self.leave(0)
            if time.monotonic() - self.moved > self.interval_s + FIRST_S + STUCK_S:
                self.leave(1)

    def leave(self, status: int) -> NoReturn:
        """End at once: threads that hang in the driver cannot be ended otherwise."""
        child = self.smi.running if self.smi else None
        if child is not None:
            try:
                child.kill()
            except OSError:
                pass  # it ended in between
        os._exit(status)


def known(fields: Json) -> Json:
    """Without what is not known."""
    return {name: value for name, value in fields.items() if value is not None and value != ""}


def pynvml_from(packed: bytes) -> Any:
    """The module pynvml, made from its text. Raises ImportError where this Python has no zlib."""
    import zlib

    module = type(sys)("pynvml")
    sys.modules["pynvml"] = module  # it looks itself up there while it is made
    exec(compile(zlib.decompress(packed), "pynvml", "exec"), module.__dict__)
    return module


def main() -> NoReturn:
    """Read the request, then tick."""
    try:
        request = json.loads(sys.stdin.buffer.readline().decode("utf-8"))
        if request.get("v") != PROTOCOL:
            raise ValueError(f"protocol {request.get('v')!r:.20}")
        probe = Probe(request, sys.stdin.buffer.read(int(request["pynvml_bytes"])))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        print(json.dumps({"v": PROTOCOL, "error": {"kind": "bad_request", "message": f"{error!r:.300}"}}), flush=True)
        os._exit(1)
    probe.run()


if __name__ == "__main__":
    main()
