"""How long does a checked state of 16 endpoints on 4 pods take? Beside one warm exec of the same probe on one pod.

    python benchmarks/status.py            a table, and the goal with pass or fail
    python benchmarks/status.py --json     the same as JSON

Each pod is a private OpenSSH server with four model servers (real processes and sockets, no model) started by podlab.
All pods share this machine's processors, which rented ones would not: "the four probes at once" is what four execs of
the probe take here at the same time, without anything made of their answers, and no list can be faster. The peer is
what pi pods does: one ssh after the other for each model, here running nothing but `true`.
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
from podlab.lab import endpoints, pods
from podlab.lab.facts import HealthCheck
from podlab.lab.fanout import ask_all
from podlab.lab.supervisor import result_of
from podlab.lab.workspace import Workspace
from podlab.types import EndpointState, Pod, Step
from tests import machines
from tests.audiences import Silent
from tests.remote.bench import SERVER

PODS, EACH = 4, 4
LIMIT = 2.0
WARM_UP = 3
READY_S = 60.0


@dataclass(frozen=True)
class Figure:
    """In milliseconds: a list of all, one exec of its probe on one pod, one on each at once, and pi's way."""

    way: str
    list_ms: float
    probe_ms: float
    probes_ms: float
    serial_ssh_ms: float

    @property
    def ratio(self) -> float:
        """The list in execs of the probe."""
        return self.list_ms / self.probe_ms


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

    try:
        side = workspace.side(known[0])

        def probes() -> None:
            answers = ask_all(known, lambda pod: workspace.side(pod).list(), deadline_s=READY_S)
            assert all(isinstance(answer, tuple) and len(answer) == EACH for answer in answers)

        found = in_turns_ms({"list": everything, "probe": side.list, "probes": probes}, count)
        floor = in_turns_ms({"serial": serial}, max(1, count // 20))
    finally:
        workspace.close()
    return Figure(way, found["list"], found["probe"], found["probes"], floor["serial"])


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
            ("one warm exec of the probe", figure.probe_ms), ("floor: the four probes at once", figure.probes_ms),
            ("pi: an ssh each", figure.serial_ssh_ms),
        ):  # fmt: skip
            print(f"    {name:37} {value:9.1f} ms   ours / it = {figure.list_ms / value:.2f}")
    print(f"\n{os.cpu_count()} processors for client, servers and all pods")
    for figure in figures:
        verdict = "pass" if figure.ratio <= LIMIT else "FAIL"
        print(f"{verdict}  status, {figure.way:16} {figure.ratio:.2f} x   goal <= {LIMIT:g} x one warm exec")


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
        print(json.dumps([asdict(figure) | {"ratio": figure.ratio} for figure in figures]))
    else:
        show(figures)
    return 0 if all(figure.ratio <= LIMIT for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
