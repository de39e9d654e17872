"""What does the keeper cost? The same things directly and through it, in turns, against a private OpenSSH server.

python benchmarks/keeper.py            a table, and the goals with pass or fail
python benchmarks/keeper.py --json     the same as JSON
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from podlab.transport import kept
from podlab.transport.host_keys import HostKeys
from podlab.transport.kept import KeptTransport
from podlab.transport.ssh import SshTransport
from tests import machines

WARM_UP = 10
STREAM_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Figure:
    """One measurement, directly and through the keeper (None where there is nothing to compare with)."""

    what: str
    unit: str
    direct: float | None
    kept: float


@dataclass(frozen=True)
class Goal:
    """What a figure must be, and whether it is."""

    what: str
    limit: str
    value: str
    passed: bool


def in_turns(direct: Callable[[], object], through: Callable[[], object], count: int) -> tuple[float, float]:
    """Medians in milliseconds. In turns, so that whatever else the machine does hits both."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(WARM_UP + count):
        for action, taken in zip((direct, through), times, strict=True):
            began = time.perf_counter()
            action()
            if number >= WARM_UP:
                taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(times[0]), statistics.median(times[1])


def greeter() -> int:
    """A port where every connection is greeted with one line."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)

    def serve() -> None:
        while True:
            client, _ = listener.accept()
            with client:
                client.sendall(b"hello\n")

    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1])


def connect_and_read(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        assert client.recv(6) == b"hello\n"


def rate(transport: KeptTransport | SshTransport) -> float:
    """MB/s of a command's output."""
    began = time.perf_counter()
    count = len(transport.run(["head", "-c", str(STREAM_BYTES - 1), "/dev/zero"]).stdout)
    return count / (time.perf_counter() - began) / 1e6


def measure(folder: Path, count: int, idle_s: float) -> tuple[list[Figure], list[Goal]]:
    os.environ["HOME"], os.environ["PODLAB_HOME"] = str(folder), str(folder / "podlab")
    server = machines.start_sshd(folder)
    pins = HostKeys()
    server.pin(pins, "pod")
    direct, through = SshTransport("pod", server.address, pins), KeptTransport("pod", "pod", server.address)
    try:
        port = greeter()
        began = time.perf_counter()
        kept_port = through.open_port(port).local_port
        start_ms = (time.perf_counter() - began) * 1000
        run = in_turns(lambda: direct.run(["true"]), lambda: through.run(["true"]), count)
        straight = direct.open_port(port).local_port
        new = in_turns(lambda: connect_and_read(straight), lambda: connect_and_read(kept_port), count)
        again = in_turns(lambda: None, lambda: through.open_port(port), count)[1]
        rates = max(rate(direct) for _ in range(3)), max(rate(through) for _ in range(3))
        status = kept.status()
        assert status is not None
        keeper = psutil.Process(status.pid)
        used = sum(keeper.cpu_times()[:2])
        time.sleep(idle_s)
        idle_percent = (sum(keeper.cpu_times()[:2]) - used) / idle_s * 100
        figures = [
            Figure("warm run true, p50", "ms", *run),
            Figure("new forwarded connection, p50", "ms", *new),
            Figure("open a port that is open, p50", "ms", None, again),
            Figure("output of a command", "MB/s", *rates),
            Figure("first use, which starts it", "ms", None, start_ms),
            Figure(f"idle for {idle_s:g} s with one pod, CPU", "%", None, idle_percent),
            Figure("resident memory", "MB", None, keeper.memory_info().rss / 1e6),
        ]
    finally:
        kept.stop_keeper()
        direct.close()
        server.stop()
    return figures, goals(figures)


def goals(figures: list[Figure]) -> list[Goal]:
    run, new, _, rates, start, idle, _ = figures
    assert run.direct is not None
    assert rates.direct is not None
    more, part = run.kept - run.direct, rates.kept / rates.direct
    return [
        Goal(run.what, "<= 1 ms more", f"{more:.2f} ms", more <= 1),
        Goal(new.what, "<= 2 ms", f"{new.kept:.2f} ms", new.kept <= 2),
        Goal(rates.what, ">= 0.7 x", f"{part:.2f} x", part >= 0.7),
        Goal(start.what, "<= 1000 ms", f"{start.kept:.0f} ms", start.kept <= 1000),
        Goal(idle.what, "<= 0.5 %", f"{idle.kept:.2f} %", idle.kept <= 0.5),
    ]


def show(figures: list[Figure], reached: list[Goal]) -> None:
    for figure in figures:
        compared = (
            ""
            if figure.direct is None
            else f"direct {figure.direct:8.2f}   kept / it = {figure.kept / figure.direct:.2f}"
        )
        print(f"{figure.what:36} {figure.kept:8.2f} {figure.unit:5} {compared}")
    print()
    for goal in reached:
        print(f"{'pass' if goal.passed else 'FAIL'}  {goal.what:36} {goal.value:>10}   goal {goal.limit}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--count", type=int, default=300, help="how often each short action is repeated (300)")
    parser.add_argument("--idle", type=float, default=5.0, help="how long to watch it idle, in seconds (5)")
    options = parser.parse_args()
    if machines.SSHD is None:
        parser.error(machines.WHY_SKIPPED)
    with tempfile.TemporaryDirectory() as folder:
        figures, reached = measure(Path(folder), options.count, options.idle)
    if options.json:
        print(json.dumps({"figures": [asdict(it) for it in figures], "goals": [asdict(it) for it in reached]}))
    else:
        show(figures, reached)
    return 0 if all(goal.passed for goal in reached) else 1


if __name__ == "__main__":
    sys.exit(main())
