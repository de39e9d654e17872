"""What does a sample of eight GPUs cost? Ours beside its floor and its peers, in one run, on simulated cards.

    python benchmarks/probe.py            a table
    python benchmarks/probe.py --json     the same as JSON

The simulated driver answers at once, so what is measured is everything around it: a real driver's calls come on top of
each of them alike. The peers ask once for each sample: a Python with pynvml installed, and a small C program that
stands for nvidia-smi at its best (the real one takes longer to start), both over the same warm SSH connection as ours.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from podlab.lab import gpus
from podlab.lab.supervisor import PodSide
from podlab.transport.host_keys import HostKeys
from podlab.transport.ssh import SshTransport
from tests import machines
from tests.nvml import Gpu, SimulatedGpus, library
from tests.processes import marked

CARDS = 8
POLL = """\
#include <stdio.h>
int nvmlInit_v2(void);
int nvmlDeviceGetHandleByIndex_v2(unsigned, void **);
int nvmlDeviceGetUtilizationRates(void *, unsigned *);
int nvmlDeviceGetMemoryInfo(void *, unsigned long long *);
int nvmlDeviceGetPowerUsage(void *, unsigned *);
int nvmlDeviceGetTemperature(void *, int, unsigned *);
int main(void) {
    nvmlInit_v2();
    for (unsigned i = 0; i < 8; i++) {
        void *card;
        unsigned rates[2], power, celsius;
        unsigned long long memory[3];
        nvmlDeviceGetHandleByIndex_v2(i, &card);
        nvmlDeviceGetUtilizationRates(card, rates);
        nvmlDeviceGetMemoryInfo(card, memory);
        nvmlDeviceGetPowerUsage(card, &power);
        nvmlDeviceGetTemperature(card, 0, &celsius);
        printf("%u, %u, %llu, %llu, %u, %u\\n", i, rates[0], memory[0], memory[2], power, celsius);
    }
    return 0;
}
"""

POLL_PYTHON = """\
import pynvml as nvml
nvml.nvmlInit()
for index in range(8):
    card = nvml.nvmlDeviceGetHandleByIndex(index)
    memory, use = nvml.nvmlDeviceGetMemoryInfo(card), nvml.nvmlDeviceGetUtilizationRates(card)
    print(index, use.gpu, memory.total, memory.used, nvml.nvmlDeviceGetPowerUsage(card))
"""


@dataclass(frozen=True)
class Figure:
    """One measurement: ours, and peers or a floor by name, in milliseconds."""

    what: str
    ours_ms: float
    others_ms: dict[str, float]


def median_ms(action: Callable[[], object], count: int) -> float:
    action()
    times = []
    for _ in range(count):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


# In a process of its own, which sees the simulated cards


def read_cards(count: int) -> None:
    """Prints what one reading takes: by the probe (threads, host and JSON included), and by bare calls of pynvml."""
    import pynvml

    from podlab.remote.host import Host
    from podlab.remote.nvml import Card, Nvml
    from podlab.remote.probe import ByNvml, known

    done = threading.Condition()
    source, host = ByNvml(Nvml(pynvml), done), Host("/")
    cards = [Card(pynvml, index) for index in range(CARDS)]
    handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(CARDS)]

    def line() -> str:
        return json.dumps({"host": known(host.read()), "gpus": [known(card) for card in source.read(5.0)]})

    def calls() -> None:
        for handle in handles:
            pynvml.nvmlDeviceGetUtilizationRates(handle)
            pynvml.nvmlDeviceGetMemoryInfo(handle, pynvml.nvmlMemory_v2)
            pynvml.nvmlDeviceGetTemperature(handle, 0)
            pynvml.nvmlDeviceGetPowerUsage(handle)
            pynvml.nvmlDeviceGetEnforcedPowerLimit(handle)
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
            pynvml.nvmlDeviceGetClockInfo(handle, 1)
            pynvml.nvmlDeviceGetClockInfo(handle, 2)
            pynvml.nvmlDeviceGetFanSpeed(handle)
            pynvml.nvmlDeviceGetTotalEccErrors(handle, 1, 0)
            pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
            pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
            pynvml.nvmlDeviceGetGraphicsRunningProcesses(handle)

    found = {
        "ours": median_ms(line, count),
        "the cards one after the other": median_ms(lambda: [card.read() for card in cards], count),
        "floor: bare pynvml calls": median_ms(calls, count),
    }
    print(json.dumps(found))


def reading(environment: dict[str, str], count: int) -> Figure:
    command = [sys.executable, __file__, "--role", "reader", "--count", str(count)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | environment)
    found: dict[str, float] = json.loads(done.stdout)
    return Figure("one reading of 8 cards, p50", found.pop("ours"), found)


# Over SSH


def first_sample(side: PodSide) -> None:
    with gpus.start(side, 0.25) as talk:
        next(iter(talk))


def streamed(side: PodSide, mark: str, count: int) -> tuple[float, float]:
    """(age of a sample when it arrives, processor time it costs on the pod), both in milliseconds."""
    with gpus.start(side, 0.25) as talk:
        lines = iter(talk)
        next(lines)
        pid = marked(mark)[-1]
        before, ages = cpu_s(pid), []
        for _ in range(count):
            line = next(lines)
            ages.append(time.time() - line["at"])
        return statistics.median(ages) * 1000, (cpu_s(pid) - before) / count * 1000


def cpu_s(pid: int) -> float:
    """Processor time of a process and its threads, to the nanosecond."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def measure(folder: Path, count: int) -> list[Figure]:
    os.environ["HOME"], os.environ["PODLAB_HOME"] = str(folder), str(folder / "podlab")
    cards = SimulatedGpus(folder / "cards", [Gpu(used_mib=1000 * index) for index in range(CARDS)])
    environment = cards.environment()
    server = machines.start_sshd(folder, environment=environment)
    (folder / "poll.c").write_text(POLL)
    poll = str(folder / "poll")
    subprocess.run(["cc", "-O2", "-o", poll, str(folder / "poll.c"), str(library() / "libnvidia-ml.so.1")], check=True)
    by_python = [sys.executable, "-c", POLL_PYTHON]
    pins = HostKeys()
    server.pin(pins, "pod")
    try:
        with SshTransport("pod", server.address, pins) as ssh:
            ssh.run(["true"])
            side = PodSide(ssh, python=sys.executable)
            polls = {
                "an exec per sample: C": median_ms(lambda: ssh.run([poll]), count),
                "an exec per sample: Python": median_ms(lambda: ssh.run(by_python), max(5, count // 10)),
            }
            first_ms = median_ms(lambda: first_sample(side), max(3, count // 20))
            bare = median_ms(lambda: ssh.run([sys.executable, "-I", "-S", "-c", ""]), max(5, count // 10))
            age_ms, cpu_ms = streamed(side, f"PODLAB_NVML_STATE={environment['PODLAB_NVML_STATE']}", max(8, count // 5))
    finally:
        server.stop()
    read = reading(environment, count)
    return [
        read,
        Figure("a streamed sample: age on arrival", age_ms, polls),
        Figure(
            "a streamed sample: CPU on the pod", cpu_ms, {"floor: bare pynvml calls": list(read.others_ms.values())[-1]}
        ),
        Figure("start to first sample", first_ms, {"floor: a bare Python over SSH": bare, **polls}),
    ]


def show(figures: list[Figure]) -> None:
    for figure in figures:
        print(f"{figure.what:36} ours {figure.ours_ms:9.3f} ms")
        for name, value in figure.others_ms.items():
            print(f"{'':36} {name:30} {value:9.3f} ms   ours / it = {figure.ours_ms / value:.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--count", type=int, default=200, help="how often each short action is repeated (200)")
    parser.add_argument("--quick", action="store_true", help="few repetitions")
    parser.add_argument("--role", choices=["reader"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    count = 20 if options.quick else options.count
    if options.role == "reader":
        read_cards(count)
        return 0
    if machines.SSHD is None:
        parser.error(machines.WHY_SKIPPED)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), count)
    if options.json:
        print(json.dumps([asdict(figure) for figure in figures]))
    else:
        show(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
