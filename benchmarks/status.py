"""How long does a checked state of 16 endpoints on 4 pods take? Beside one warm exec of the same probe on one pod.

    python benchmarks/status.py            a table, and the goal with pass or fail
    python benchmarks/status.py --json     the same as JSON

Each pod is a private OpenSSH server with four model servers (real processes and sockets, no model) started by podlab.
All pods share this machine's processors, which rented ones would not: each probe is a Python that starts, reads its
program and looks at the processes, some tens of milliseconds of one processor, and four of them on two processors take
twice as long as one before anything of ours is done. The floor shows that: the very same program and request, sent by
OpenSSH's own client over connections that are open already, to one pod and to all four at once. Where the floor itself
is above the goal, the goal cannot be seen here, and the list is held to the floor: at most a tenth more.
The peer is what pi pods does: one ssh after the other for each model, here running nothing but `true`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from podlab.commands.drive import drive
from podlab.lab import endpoints, pods, talk
from podlab.lab.facts import HealthCheck
from podlab.lab.supervisor import result_of
from podlab.lab.workspace import Workspace
from podlab.quoting import shell_line
from podlab.types import EndpointState, Pod, Step
from tests import machines
from tests.audiences import Silent
from tests.remote.bench import SERVER

PODS, EACH = 4, 4
LIMIT = 2.0
OVER_FLOOR = 1.1
WARM_UP = 3
READY_S = 60.0


@dataclass(frozen=True)
class Figure:
    """In milliseconds: a list of all, one exec of its probe on one pod, the same two by OpenSSH, and pi's way."""

    way: str
    list_ms: float
    probe_ms: float
    floor_one_ms: float
    floor_all_ms: float
    serial_ssh_ms: float

    @property
    def ratio(self) -> float:
        """The list in execs of the probe."""
        return self.list_ms / self.probe_ms

    @property
    def floor_ratio(self) -> float:
        """What four probes at once take here in probes, without podlab."""
        return self.floor_all_ms / self.floor_one_ms

    @property
    def passed(self) -> bool:
        return self.ratio <= LIMIT or (self.floor_ratio > LIMIT and self.list_ms <= OVER_FLOOR * self.floor_all_ms)


def in_turns_ms(actions: dict[str, Callable[[], object]], count: int) -> dict[str, float]:
    """The median of each, taken in turns: what else the machine does hits all of them alike."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(WARM_UP + count):
        for name, action in actions.items():
            began = time.perf_counter()
            action()
            if turn >= WARM_UP:
                times[name].append((time.perf_counter() - began) * 1000)
    return {name: statistics.median(values) for name, values in times.items()}


@contextlib.contextmanager
def four_pods(folder: Path) -> Iterator[list[machines.Sshd]]:
    with contextlib.ExitStack() as stack:
        servers = []
        for _ in range(PODS):
            servers.append(machines.start_sshd(folder))
            stack.callback(servers[-1].stop)
        yield servers


def added(workspace: Workspace, servers: list[machines.Sshd]) -> list[Pod]:
    found = []
    for number, server in enumerate(servers):
        address = f"ssh {server.user}@{server.host} -p {server.port} -i {server.identity}"
        work = pods.add(workspace, f"pod{number}", address, models_path=None, host_key=server.fingerprint())
        found.append(drive(work, Silent())[0])
    return found


def serve(workspace: Workspace, pod: Pod) -> None:
    """The pod's endpoints, ready."""
    side = workspace.side(pod)
    ids = []
    for number in range(EACH):
        name = f"{pod.name}-{number}"
        step = Step("serve", (sys.executable, "-I", "-S", str(SERVER), "--port", "{port}", "--name", name))
        started = side.start(id=uuid.uuid4().hex, name=name, steps=(step,), health=HealthCheck(name))
        ids.append(started.facts.id)
    for each in ids:
        *_, facts = side.watch(each, READY_S)
        if facts.health is None or facts.health.status != 200:
            raise RuntimeError(f"{each} is not ready: {facts}")


class Masters:
    """An OpenSSH connection to each pod, and the probe of a list sent over it."""

    def __init__(self, servers: list[machines.Sshd], folder: Path) -> None:
        request = json.dumps({"v": talk.PROTOCOL, "op": "list", "home": None}).encode() + b"\n"
        program = talk.program("supervisor", "machine", "streams", "records").encode()
        self._sent = program + request
        line = shell_line(["sh", "-c", talk.FIND_PYTHON, "podlab", talk.BOOT, str(len(program))])
        self._commands: list[list[str]] = []
        self._closing: list[list[str]] = []
        for number, server in enumerate(servers):
            common = ["ssh", "-F", "none", "-S", str(folder / f"m{number}"), "-p", str(server.port)]
            to = f"{server.user}@{server.host}"
            options = ["-i", str(server.identity), "-o", "BatchMode=yes", "-o",
                       f"UserKnownHostsFile={folder / 'known_hosts'}"]  # fmt: skip
            subprocess.run([*common, *options, "-M", "-f", "-N", to], check=True, stdin=subprocess.DEVNULL)
            self._commands.append([*common, to, line])
            self._closing.append([*common, "-O", "exit", to])

    def probe(self, count: int) -> None:
        """Send the probe to `count` pods at once and wait for all answers."""
        running = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                   for command in self._commands[:count]]  # fmt: skip
        for process in running:
            assert process.stdin is not None
            process.stdin.write(self._sent)
            process.stdin.close()
        for process in running:
            assert process.stdout is not None
            answers = process.stdout.read().count(b'"facts"')
            if process.wait() != 0 or answers != EACH:
                raise RuntimeError(f"a pod told {answers} endpoints")

    def close(self) -> None:
        for command in self._closing:
            subprocess.run(command, check=False, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def one_ssh(server: machines.Sshd, known: Path) -> None:
    command = ["ssh", "-F", "none", "-p", str(server.port), "-i", str(server.identity), "-o", "BatchMode=yes",
               "-o", f"UserKnownHostsFile={known}", f"{server.user}@{server.host}", "true"]  # fmt: skip
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def measured(way: str, known: list[Pod], servers: list[machines.Sshd], folder: Path, count: int) -> Figure:
    workspace = Workspace.open()

    def everything() -> None:
        found, statuses = endpoints.listing(workspace, known)
        ready = [endpoint for endpoint in found if endpoint.state is EndpointState.READY]
        assert len(ready) == PODS * EACH, (found, statuses)

    def serial() -> None:
        for server in servers:
            for _ in range(EACH):
                one_ssh(server, folder / "known_hosts")

    masters = Masters(servers, folder)
    try:
        ways = {
            "list": everything, "probe": workspace.side(known[0]).list,
            "floor one": lambda: masters.probe(1), "floor all": lambda: masters.probe(PODS),
        }  # fmt: skip
        found = in_turns_ms(ways, count)
        slow = in_turns_ms({"serial": serial}, max(1, count // 20))
    finally:
        masters.close()
        workspace.close()
    return Figure(way, found["list"], found["probe"], found["floor one"], found["floor all"], slow["serial"])


def measure(folder: Path, count: int) -> list[Figure]:
    from podlab.transport import kept

    os.environ["HOME"], os.environ["PODLAB_HOME"] = str(folder), str(folder / "podlab")
    os.environ["PODLAB_KEEPER"] = "0"
    with four_pods(folder) as servers:
        (folder / "known_hosts").write_text("".join(server.known_hosts_line() for server in servers))
        workspace = Workspace.open()
        known = added(workspace, servers)
        try:
            for pod in known:
                serve(workspace, pod)
            figures = [measured("without keeper", known, servers, folder, count)]
            os.environ["PODLAB_KEEPER"] = "1"
            figures.append(measured("with keeper", known, servers, folder, count))
            kept.stop_keeper()
        finally:
            for pod in known:
                for facts in workspace.side(pod).list():
                    result_of(workspace.side(pod).stop(facts.id, grace_s=2.0))
            workspace.close()
    return figures


def show(figures: list[Figure]) -> None:
    for figure in figures:
        print(f"{PODS * EACH} endpoints on {PODS} pods, {figure.way}")
        print(f"    ours                                  {figure.list_ms:9.1f} ms")
        for name, value in (
            ("one warm exec of the probe", figure.probe_ms), ("pi: an ssh each", figure.serial_ssh_ms),
            ("floor: that probe by OpenSSH, one pod", figure.floor_one_ms),
            ("floor: four of them at once", figure.floor_all_ms),
        ):  # fmt: skip
            print(f"    {name:37} {value:9.1f} ms   ours / it = {figure.list_ms / value:.2f}")
    print(f"\n{os.cpu_count()} processors for client, servers and all pods")
    for figure in figures:
        print(f"{'pass' if figure.passed else 'FAIL'}  status, {figure.way:16} {figure.ratio:.2f} x {_goal(figure)}")


def _goal(figure: Figure) -> str:
    if figure.floor_ratio <= LIMIT or figure.ratio <= LIMIT:
        return f"  goal <= {LIMIT:g} x one warm exec"
    over = figure.list_ms / figure.floor_all_ms
    return (f"  goal <= {LIMIT:g} x one warm exec, where OpenSSH's four probes at once take {figure.floor_ratio:.2f} x "
            f"here; {over:.2f} x those, goal <= {OVER_FLOOR:g}")  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--count", type=int, default=100, help="how often each is repeated (100)")
    parser.add_argument("--quick", action="store_true", help="few repetitions")
    options = parser.parse_args()
    if machines.SSHD is None:
        parser.error(machines.WHY_SKIPPED)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), 10 if options.quick else options.count)
    if options.json:
        print(
            json.dumps(
                [asdict(figure) | {"ratio": figure.ratio, "floor_ratio": figure.floor_ratio} for figure in figures]
            )
        )
    else:
        show(figures)
    return 0 if all(figure.passed for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
