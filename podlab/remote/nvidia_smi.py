"""GPUs as the program nvidia-smi prints them, where the library behind it cannot be loaded. Part of the probe.

Standard library only, Python 3.8 or newer. Two runs of it a reading: the cards, and who holds their memory. Reference:
`nvidia-smi --help-query-gpu` and `--help-query-compute-apps`; a field the card lacks is printed in brackets.
"""

from __future__ import annotations

import os
import re

from podlab.remote.machine import first_line
from podlab.remote.nvml import owner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from subprocess import Popen

    from podlab.remote.machine import Json

PLACES = ("/usr/bin", "/usr/local/bin", "/usr/local/nvidia/bin", "/usr/lib/wsl/lib", "/opt/bin")
TIMEOUT_S = 10.0
OUTPUT_LIMIT = 2**20
MIB = 2**20
FIELDS = {
    "index": ("index", 1), "name": ("name", 0), "uuid": ("uuid", 0),
    "utilization.gpu": ("utilization_percent", 1), "utilization.memory": ("memory_utilization_percent", 1),
    "memory.total": ("memory_total_bytes", MIB), "memory.used": ("memory_used_bytes", MIB),
    "memory.free": ("memory_free_bytes", MIB), "temperature.gpu": ("temperature_celsius", 1),
    "power.draw": ("power_w", 1), "power.limit": ("power_limit_w", 1), "clocks.sm": ("sm_clock_mhz", 1),
    "clocks.mem": ("memory_clock_mhz", 1), "fan.speed": ("fan_percent", 1),
    "ecc.errors.uncorrected.volatile.total": ("ecc_errors", 1),
}  # fmt: skip
"""Its name of a field -> (ours, what to multiply by; 0 for text)."""


class SmiError(Exception):
    """It did not run, or did not end well."""


def find() -> str | None:
    """Where the program is: the search path of a session over SSH may lack its place."""
    for folder in (*os.environ.get("PATH", "").split(os.pathsep), *PLACES):
        path = os.path.join(folder, "nvidia-smi")
        if folder and os.access(path, os.X_OK):
            return path
    return None


class NvidiaSmi:
    """The program at `path`. `running` is the child under way, for who has to end us."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.running: Popen[bytes] | None = None
        header = self.run()
        self.driver = word(r"Driver Version: *([\d.]+)", header)
        self.cuda = word(r"CUDA Version: *(\d+\.\d+)", header)

    def run(self, *options: str) -> str:
        """What it prints. Raises SmiError."""
        import subprocess

        command = [self.path, *options]
        try:
            with subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            ) as child:
                self.running = child
                try:
                    said = child.communicate(timeout=TIMEOUT_S)[0][:OUTPUT_LIMIT].decode("utf-8", "replace")
                except subprocess.TimeoutExpired:
                    child.kill()
                    raise SmiError(f"nvidia-smi did not end within {TIMEOUT_S:g} s")
        except OSError as error:
            raise SmiError(f"nvidia-smi cannot be run: {error}")
        finally:
            self.running = None
        if child.returncode:
            last = said.strip().splitlines()[-1:] or [f"status {child.returncode}"]
            raise SmiError(f"nvidia-smi: {last[0][:300]}")
        return said

    def read(self) -> list[Json]:
        """Every card. Raises SmiError."""
        rows = self.run("--query-gpu=" + ",".join(FIELDS), "--format=csv,noheader,nounits")
        cards = [card(line) for line in rows.splitlines() if re.match(rf" *\d+ *(,[^,]*){{{len(FIELDS) - 1},}}$", line)]
        holders = self._holders()
        for each in cards:
            each["processes"] = None if holders is None else holders.get(each["uuid"], [])
        return cards

    def _holders(self) -> dict[str, list[Json]] | None:
        try:
            rows = self.run("--query-compute-apps=gpu_uuid,pid,used_memory", "--format=csv,noheader,nounits")
        except SmiError:
            return None
        found: dict[str, list[Json]] = {}
        for line in rows.splitlines():
            uuid, _, rest = line.partition(",")
            pid, _, used = rest.partition(",")
            if pid.strip().isdigit():
                memory = number(used, MIB)
                found.setdefault(uuid.strip(), []).append(
                    {"pid": int(pid), "memory_bytes": memory, "name": first_line(f"/proc/{int(pid)}/comm"),
                     "owner": owner(int(pid))}
                )  # fmt: skip
        return found


def card(line: str) -> Json:
    """One line of its table. A name may hold commas, nothing behind it does."""
    index, _, rest = line.partition(",")
    values = rest.rsplit(",", len(FIELDS) - 2)
    figures: Json = {}
    for (ours, scale), value in zip(FIELDS.values(), [index, *values]):
        figures[ours] = number(value, scale) if scale else value.strip()[:200]
    lost = "lost" in line.lower()
    return dict(figures, lost=True, error="GPU is lost") if lost else figures


def number(text: str, scale: int = 1) -> int | float | None:
    """A figure, None for "[N/A]" and everything else that is none."""
    if not re.fullmatch(r" *\d{1,15}(\.\d{1,9})? *", text):
        return None
    value = float(text) * scale
    return int(value) if value == int(value) else value


def word(pattern: str, text: str) -> str | None:
    """What a pattern's group finds."""
    found = re.search(pattern, text)
    return found.group(1) if found else None
