"""What the machine itself does: processors, memory, disk, network. Part of the probe; writes nothing.

Standard library only, Python 3.8 or newer. In a container its own limits count where they are lower than the machine's
(cgroup v2). A figure that cannot be had is None: on macOS that is everything but load, processors and disk.
"""

from __future__ import annotations

import os
import time

from podlab.remote.machine import first_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from podlab.remote.machine import Json

CGROUP = "/sys/fs/cgroup"
SHORTEST_S = 0.05
"""Rates over less than this are noise: the kernel counts processor time in steps of 10 ms."""
INNER = ("lo", "veth", "docker", "br-", "virbr", "cni", "cali", "flannel", "kube")
"""Interfaces that lead nowhere outside of the machine, or that another one is counted for."""


class Host:
    """Reads the figures; rates are those since the reading before."""

    def __init__(self, home: str) -> None:
        self._home = home
        self._quota = cpu_quota()
        self._last = (time.monotonic(), cpu_times(self._quota), network_bytes())

    def read(self) -> Json:
        """The figures of now, named as HostSample's fields are. Called by one thread."""
        folder = self._home  # looked at here and not before: a file server that hangs holds up who reads, nobody else
        while not os.path.isdir(folder) and folder not in ("/", ""):
            folder = os.path.dirname(folder)
        disk = os.statvfs(folder or "/")
        total, available = memory_bytes()
        figures: Json = {
            "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "load_1m": os.getloadavg()[0],
            "memory_total_bytes": total,
            "memory_available_bytes": available,
            "disk_total_bytes": disk.f_blocks * disk.f_frsize,
            "disk_free_bytes": disk.f_bavail * disk.f_frsize,
        }
        figures.update(self._rates())
        return figures

    def _rates(self) -> Json:
        then, cpu_then, network_then = self._last
        now, cpu, network = time.monotonic(), cpu_times(self._quota), network_bytes()
        passed_s = now - then
        if passed_s < SHORTEST_S:
            return {}
        self._last = (now, cpu, network)
        rates: Json = {}
        if cpu and cpu_then and cpu[1] > cpu_then[1]:
            busy_ratio = (cpu[0] - cpu_then[0]) / (cpu[1] - cpu_then[1])
            rates["cpu_percent"] = round(min(100.0, max(0.0, 100.0 * busy_ratio)), 1)
        if network and network_then:
            rates["received_bytes_per_s"] = round(max(0.0, (network[0] - network_then[0]) / passed_s))
            rates["sent_bytes_per_s"] = round(max(0.0, (network[1] - network_then[1]) / passed_s))
        return rates


def cpu_quota() -> float | None:
    """How many processors this container may use, None when it is not limited."""
    quota, _, period = first_line(CGROUP + "/cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def cpu_times(quota: float | None) -> tuple[float, float] | None:
    """(busy, possible) processor time so far: of the container where it is limited, else of the machine."""
    if quota is not None:
        word, _, usage = first_line(CGROUP + "/cpu.stat").partition(" ")
        if word == "usage_usec" and usage.isdigit():
            return int(usage) / 1e6, time.monotonic() * quota
    fields = [int(field) for field in first_line("/proc/stat").split()[1:9] if field.isdigit()]
    if len(fields) < 5:
        return None
    return sum(fields) - fields[3] - fields[4], sum(fields)  # without idle and waiting for a disk


def memory_bytes() -> tuple[int | None, int | None]:
    """(total, available) of the machine, or of the container where that is less."""
    found = {}
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name in ("MemTotal", "MemAvailable"):
                    found[name] = int(value.split()[0]) * 1024
    except OSError:
        return None, None
    total, available = found.get("MemTotal"), found.get("MemAvailable")
    limit, used = first_line(CGROUP + "/memory.max"), first_line(CGROUP + "/memory.current")
    if total is not None and limit.isdigit() and used.isdigit() and int(limit) < total:
        total = int(limit)
        left = max(0, total - int(used) + cache_bytes())
        available = min(left, available) if available is not None else left
    return total, available


def cache_bytes() -> int:
    """What the container's memory holds of files and gives up when asked."""
    try:
        with open(CGROUP + "/memory.stat") as file:
            for line in file:
                name, _, value = line.partition(" ")
                if name == "inactive_file":
                    return int(value)
    except (OSError, ValueError):
        pass  # counted as used then, which errs to the safe side
    return 0


def network_bytes() -> tuple[int, int] | None:
    """(received, sent) over the interfaces that lead outside, since the machine was started."""
    try:
        with open("/proc/net/dev") as file:
            lines = file.readlines()[2:]
    except OSError:
        return None
    received = sent = 0
    for line in lines:
        name, _, counts = line.partition(":")
        fields = counts.split()
        if len(fields) > 8 and not name.strip().startswith(INNER):
            received, sent = received + int(fields[0]), sent + int(fields[8])
    return received, sent
