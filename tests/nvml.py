"""GPUs for tests on a machine that has none: a libnvidia-ml.so.1 compiled from podlab/sandbox/nvml.c.

    cards = SimulatedGpus(tmp_path, [Gpu(used_mib=4096), Gpu(name="NVIDIA A100-SXM4-40GB", total_mib=40960)])
    monkeypatch.setenv(...)  or  start_sshd(..., environment=cards.environment())     what a program there needs
    cards.change([Gpu(lost=True), ...])                                                  while it looks on
    cards.hold(0, pid, 20_000)                                                           memory a process holds

What runs with `environment()` and loads NVML (the probe, nvidia's tools) sees these cards. Memory that a process holds
comes back by itself when that process has ended, as with a real driver.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from podlab.sandbox.nvml_library import compiled

WHY_SKIPPED = "install a C compiler for the simulated GPU library: apt-get install gcc libc6-dev"
MISMATCH, DRIVER_NOT_LOADED, UNKNOWN = 18, 9, 999
"""Codes of nvml.h, for `init` and `error`."""


@dataclass(frozen=True)
class Gpu:
    """One card as it is now. `without` names metrics it lacks: memory, utilization, temperature, power, energy,
    clocks, fan, ecc, reasons, processes. `latency_s` is added to each call; `mig` is how many instances it is cut
    into; `error` is the code every figure answers with; `processes` are (pid, MiB), living or not."""

    name: str = "NVIDIA H100 80GB HBM3"
    total_mib: int = 81559
    used_mib: int = 0
    utilization: int = 0
    celsius: int = 34
    reasons: int = 0
    lost: bool = False
    hang: bool = False
    latency_s: float = 0.0
    mig: int = 0
    error: int = 0
    without: tuple[str, ...] = ()
    processes: tuple[tuple[int, int], ...] = ()

    def lines(self, index: int) -> list[str]:
        given = {
            "name": self.name, "total_mib": self.total_mib, "used_mib": self.used_mib,
            "utilization": self.utilization, "celsius": self.celsius, "reasons": self.reasons, "lost": int(self.lost),
            "hang": int(self.hang), "latency_us": round(self.latency_s * 1e6), "mig": self.mig, "error": self.error,
        }  # fmt: skip
        lines = [f"card {index} {key} {value}" for key, value in given.items()]
        lines += [f"card {index} without {','.join(self.without)}"] if self.without else []
        return lines + [f"card {index} process {pid}:{mib}" for pid, mib in self.processes]


class SimulatedGpus:
    """Cards of one simulated machine; `folder` holds its state and is made if missing. Skips without a compiler."""

    def __init__(
        self, folder: Path, cards: Sequence[Gpu] = (Gpu(),), *, init: int | str = 0, driver: str = "570.86.15",
        cuda: int = 12080,
    ) -> None:  # fmt: skip
        self._library = library()
        self._state = folder / "nvml.state"
        self._users = folder / "nvml.users"
        self._users.mkdir(parents=True, exist_ok=True)
        self._machine = [f"driver {driver}", f"cuda {cuda}", f"users {self._users}"]
        self.change(cards, init=init)

    def environment(self) -> dict[str, str]:
        """What a process needs to find the cards."""
        return {"LD_LIBRARY_PATH": str(self._library), "PODLAB_NVML_STATE": str(self._state)}

    def change(self, cards: Sequence[Gpu], *, init: int | str = 0) -> None:
        """From the next call on, the cards are these; calls that hang go on if nothing holds them any more. How many
        cards there are is asked for once by who looks on."""
        part = self._state.with_suffix(".part")
        lines = [
            *self._machine,
            f"init {init}",
            *(line for index, card in enumerate(cards) for line in card.lines(index)),
        ]
        part.write_text("\n".join(lines) + "\n")
        part.rename(self._state)

    def hold(self, card: int, pid: int, mib: int) -> None:
        """Process `pid` holds memory of a card for as long as it lives. A program does it itself by writing the MiB
        into the file CARD.PID of `users_folder`."""
        (self._users / f"{card}.{pid}").write_text(str(mib))

    @property
    def users_folder(self) -> Path:
        """Where who holds memory is told."""
        return self._users


@cache
def library() -> Path:
    """The folder with libnvidia-ml.so.1, compiled once for as long as its source stays as it is."""
    folder = compiled(Path(tempfile.gettempdir()) / f"podlab-nvml-{os.getuid()}")
    if folder is None:
        pytest.skip(WHY_SKIPPED)
    return folder
