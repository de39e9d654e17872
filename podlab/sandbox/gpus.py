"""A simulated pod's GPUs: their use is the measured CPU of that pod's processes, their memory what these hold.

A process is taken to be on a GPU when it holds HOLDS_BYTES or more: a shell or a probe holds less, a model server more.
The figures go into a text file that the simulated library (nvml.c) and the simulated nvidia-smi read at each call.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from podlab.sandbox.catalogue import GpuKind
from podlab.sandbox.processes import ProcessFacts, gpu_of

HOLDS_BYTES = 40 * 2**20
MIB = 2**20
DRIVERS = {"12.4": "550.127.05", "12.6": "560.35.05", "12.8": "570.86.15", "12.9": "575.57.08", "13.0": "580.65.06"}
IDLE_MILLIWATTS, FULL_MILLIWATTS = 20_000, 300_000
IDLE_CELSIUS, FULL_CELSIUS = 33, 71


@dataclass
class GpuUse:
    """What the GPUs of a pod did since the look before."""

    kind: GpuKind
    count: int
    pod_id: str
    cuda: str | None
    _spent: dict[int, float] = field(default_factory=dict)
    _looked_at: float | None = None
    percent: tuple[int, ...] = ()
    """Of each GPU."""
    used_mib: tuple[int, ...] = ()
    error: int = 0
    """What initialising the driver answers."""

    def look(self, processes: list[ProcessFacts], now: float) -> str:
        """Measure, and the text of the state file."""
        holders = [each for each in processes if each.resident_bytes >= HOLDS_BYTES]
        passed_s = None if self._looked_at is None else now - self._looked_at
        busy_s = [0.0] * self.count
        memory = [0] * self.count
        lines: list[str] = []
        for each in holders:
            card = min(gpu_of(each.pid), self.count - 1)
            busy_s[card] += max(0.0, each.cpu_s - self._spent.get(each.pid, each.cpu_s))
            memory[card] += each.resident_bytes // MIB
            lines.append(f"card {card} process {each.pid}:{each.resident_bytes // MIB}")
        self._spent = {each.pid: each.cpu_s for each in holders}
        self._looked_at = now
        cpus = os.cpu_count() or 1
        self.percent = tuple(min(100, round(100 * one / passed_s / cpus)) if passed_s else 0 for one in busy_s)
        total_mib = self.kind.memory_gb * 1024
        self.used_mib = tuple(min(total_mib, one) for one in memory)
        version = self.cuda or "12.8"
        major, _, minor = version.partition(".")
        machine = [f"driver {DRIVERS.get(version, '570.86.15')}", f"cuda {int(major) * 1000 + int(minor) * 10}",
                   f"init {self.error}"]  # fmt: skip
        cards = [line for card in range(self.count) for line in self._card(card, total_mib)]
        return "\n".join([*machine, *cards, *lines]) + "\n"

    def _card(self, card: int, total_mib: int) -> list[str]:
        share = self.percent[card] / 100
        figures = {
            "name": self.kind.id, "uuid": f"GPU-{self.pod_id:0<16.16}-simulated-{card}", "total_mib": total_mib,
            "utilization": self.percent[card],
            "celsius": round(IDLE_CELSIUS + share * (FULL_CELSIUS - IDLE_CELSIUS)),
            "milliwatts": round(IDLE_MILLIWATTS + share * (FULL_MILLIWATTS - IDLE_MILLIWATTS)),
            "limit_milliwatts": FULL_MILLIWATTS,
        }  # fmt: skip
        return [f"card {card} {key} {value}" for key, value in figures.items()]


def write_state(path: Path, text: str) -> None:
    """Put the state where it is read, whole."""
    part = path.with_suffix(f".{time.monotonic_ns()}")
    part.write_text(text)
    part.rename(path)
