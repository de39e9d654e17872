"""How fast is the way to a pod? Ours beside its peers and its floor, in one run against a private OpenSSH server.

    python benchmarks/ssh.py            a table, and the goals with pass or fail
    python benchmarks/ssh.py --json     the same as JSON

Upstream and clients of the tunnels are processes of their own and the same for every tunnel, so only the tunnel
differs. Sessions have an empty home: what a pod's ~/.bashrc costs is not measured.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from podlab.transport.host_keys import HostKeys
from podlab.transport.ssh import SshTransport
from tests import machines

TOKEN_INTERVAL_S = 0.02
WARM_UP = 5
TURNS = 5


@dataclass(frozen=True)
class Figure:
    """One measurement: ours, one peer or floor by name, in milliseconds."""

    what: str
    ours_ms: float
    others_ms: dict[str, float]


@dataclass(frozen=True)
class Goal:
    """What a figure must be, and whether it is."""

    what: str
    limit: str
    value: str
    passed: bool


def percentile(values: list[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def median_ms(action: Callable[[], object], count: int) -> float:
    for _ in range(WARM_UP):
        action()
    times = []
    for _ in range(count):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


# The two sides of a tunnel, each a process of its own


async def upstream() -> None:
    """Greets with one line, then sends the time as an SSE event every 20 ms until the client leaves."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        writer.write(b"hello\n")
        if await reader.readline() == b"echo\n":
            while line := await reader.readline():
                writer.write(line)
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(b"data: %d\n\n" % time.monotonic_ns())
                await writer.drain()
                await asyncio.sleep(TOKEN_INTERVAL_S)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def read_tokens(port: int, streams: int, tokens: int) -> None:
    """Prints how long each token of `streams` parallel streams was under way, in milliseconds, as JSON."""
    latencies: list[float] = []

    async def one(delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"stream\n")
        await reader.readline()
        for number in range(tokens):
            line = await reader.readline()
            now = time.monotonic_ns()
            await reader.readline()
            if number >= WARM_UP:
                latencies.append((now - int(line.split()[1])) / 1e6)
        writer.close()

    await asyncio.gather(*(one(index * TOKEN_INTERVAL_S / streams) for index in range(streams)))
    print(json.dumps(latencies))


@contextlib.contextmanager
def upstream_process() -> Iterator[int]:
    command = [sys.executable, __file__, "--role", "upstream"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.terminate()


def token_latencies(port: int, streams: int, tokens: int) -> list[float]:
    command = [sys.executable, __file__, "--role", "client", "--port", str(port)]
    command += ["--streams", str(streams), "--tokens", str(tokens)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: list[float] = json.loads(done.stdout)
    return found


def in_turns(tunnels: dict[str, int], streams: int, tokens: int) -> dict[str, list[float]]:
    """Token latencies of each tunnel, in several short turns: what else the machine does hits all of them alike."""
    found: dict[str, list[float]] = {name: [] for name in tunnels}
    for _ in range(TURNS):
        for name, port in tunnels.items():
            found[name] += token_latencies(port, streams, WARM_UP + tokens // TURNS)
    return found


# The peers


class OpenSsh:
    """The ssh program: a master connection, commands over it, and -L."""

    def __init__(self, server: machines.Sshd, folder: Path) -> None:
        known = folder / "known_hosts"
        known.write_text(server.known_hosts_line())
        self._place = f"{server.user}@{server.host}"
        self._base = ["ssh", "-F", "none", "-S", str(folder / "master"), "-p", str(server.port), "-i",
                      str(server.identity), "-o", f"UserKnownHostsFile={known}", "-o", "BatchMode=yes"]  # fmt: skip
        self._master = subprocess.Popen([*self._base, "-M", "-N", self._place])
        while not (folder / "master").exists():
            time.sleep(0.01)

    def run_true(self) -> None:
        subprocess.run([*self._base, self._place, "true"], check=True, stdin=subprocess.DEVNULL)

    def forward(self, remote_port: int) -> int:
        port = machines.free_port()
        place = f"127.0.0.1:{port}:127.0.0.1:{remote_port}"
        subprocess.run([*self._base, "-O", "forward", "-L", place, self._place], check=True)
        return port

    def close(self) -> None:
        self._master.terminate()
        self._master.wait()


class Untuned:
    """paramiko as its manual shows it."""

    def __init__(self, server: machines.Sshd) -> None:
        import paramiko

        self._client = paramiko.SSHClient()
        self._client.get_host_keys().add(
            f"[{server.host}]:{server.port}", "ssh-ed25519",
            paramiko.PKey.from_type_string("ssh-ed25519", base64.b64decode(server.public_key()[1])),
        )  # fmt: skip
        self._client.connect(
            server.host, server.port, server.user, key_filename=str(server.identity), allow_agent=False,
            look_for_keys=False,
        )  # fmt: skip

    def run_true(self) -> None:
        _, stdout, _ = self._client.exec_command("true")
        stdout.channel.recv_exit_status()

    def close(self) -> None:
        self._client.close()


def connect_and_read(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as client:
        assert client.recv(6) == b"hello\n"


def round_trip(port: int) -> Callable[[], None]:
    client = socket.create_connection(("127.0.0.1", port))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.recv(6)
    client.sendall(b"echo\n")

    def once() -> None:
        client.sendall(b"x\n")
        client.recv(2)

    return once


def measure(folder: Path, count: int, tokens: int, streams: int) -> tuple[list[Figure], list[Goal]]:
    os.environ["HOME"], os.environ["PODLAB_HOME"] = str(folder), str(folder / "podlab")
    server = machines.start_sshd(folder)
    pins = HostKeys()
    server.pin(pins, "pod")
    ours, untuned, openssh = SshTransport("pod", server.address, pins), Untuned(server), OpenSsh(server, folder)
    try:
        with upstream_process() as port:
            loopback = median_ms(round_trip(port), count)
            run = Figure(
                "warm run true, p50",
                median_ms(lambda: ours.run(["true"]), count),
                {
                    "paramiko untuned": median_ms(untuned.run_true, count // 4),
                    "ssh ControlMaster": median_ms(openssh.run_true, count // 4),
                    "floor: loopback round trip": loopback,
                },
            )
            tunnels = {"ours": ours.open_port(port).local_port, "ssh -L": openssh.forward(port), "floor: direct": port}
            new = {name: median_ms(lambda at=at: connect_and_read(at), count) for name, at in tunnels.items()}
            one, many = in_turns(tunnels, 1, tokens), in_turns(tunnels, streams, tokens)
    finally:
        ours.close()
        untuned.close()
        openssh.close()
        server.stop()

    def figure(what: str, found: dict[str, float]) -> Figure:
        return Figure(what, found["ours"], {name: value for name, value in found.items() if name != "ours"})

    def at(percent: float, found: dict[str, list[float]]) -> dict[str, float]:
        return {name: percentile(values, percent) for name, values in found.items()}

    figures = [
        run,
        figure("new forwarded connection, p50", new),
        figure("one stream, token p50", at(50, one)),
        figure("one stream, token p99", at(99, one)),
        figure(f"{streams} streams, token p50", at(50, many)),
        figure(f"{streams} streams, token p99", at(99, many)),
    ]
    return figures, goals(figures)


def goals(figures: list[Figure]) -> list[Goal]:
    run, new, one, _, _, many = figures
    ratio, allowed = one.ours_ms / one.others_ms["ssh -L"], max(3 * many.others_ms["ssh -L"], 100.0)
    return [
        Goal(run.what, "<= 4 ms", f"{run.ours_ms:.2f} ms", run.ours_ms <= 4),
        Goal(new.what, "<= 2 ms", f"{new.ours_ms:.2f} ms", new.ours_ms <= 2),
        Goal(one.what, "<= 2 x ssh -L", f"{ratio:.2f} x", ratio <= 2),
        Goal(many.what, "<= 3 x ssh -L or 100 ms", f"{many.ours_ms:.2f} ms", many.ours_ms <= allowed),
    ]


def show(figures: list[Figure], reached: list[Goal]) -> None:
    for figure in figures:
        print(f"{figure.what:34} ours {figure.ours_ms:8.3f} ms")
        for name, value in figure.others_ms.items():
            print(f"{'':34} {name:28} {value:8.3f} ms   ours / it = {figure.ours_ms / value:.2f}")
    print()
    for goal in reached:
        print(f"{'pass' if goal.passed else 'FAIL'}  {goal.what:34} {goal.value:>10}   goal {goal.limit}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--count", type=int, default=200, help="how often each short action is repeated (200)")
    parser.add_argument("--tokens", type=int, default=300, help="tokens of each stream (300)")
    parser.add_argument("--streams", type=int, default=32, help="parallel streams (32)")
    parser.add_argument("--role", choices=["upstream", "client"], help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "upstream":
        asyncio.run(upstream())
    elif options.role == "client":
        asyncio.run(read_tokens(options.port, options.streams, options.tokens))
    else:
        if machines.SSHD is None:
            parser.error(machines.WHY_SKIPPED)
        with tempfile.TemporaryDirectory() as folder:
            figures, reached = measure(Path(folder), options.count, options.tokens, options.streams)
        if options.json:
            print(json.dumps({"figures": [asdict(it) for it in figures], "goals": [asdict(it) for it in reached]}))
        else:
            show(figures, reached)
        return 0 if all(goal.passed for goal in reached) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
