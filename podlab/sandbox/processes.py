"""What a simulated pod's processes do: how much CPU and memory they use, and which of them listens on a port."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class ProcessFacts:
    """A process: processor time it has used so far, memory it holds, the GPU its environment names first."""

    pid: int
    parent: int
    cpu_s: float
    resident_bytes: int
    gpu: int = 0


def below(root: int, table: list[ProcessFacts]) -> list[ProcessFacts]:
    """All descendants of a process in a table of processes, in no order."""
    children: dict[int, list[ProcessFacts]] = {}
    for each in table:
        children.setdefault(each.parent, []).append(each)
    found: list[ProcessFacts] = []
    waiting = [root]
    while waiting:
        born = children.get(waiting.pop(), [])
        found += born
        waiting += [each.pid for each in born]
    return found


def table() -> list[ProcessFacts]:
    """Every process of this computer that can be seen."""
    if sys.platform != "linux":
        return _table_of_ps()
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue  # it has ended
        cpu_s = (int(fields[11]) + int(fields[12])) / ticks
        found.append(ProcessFacts(int(name), int(fields[1]), cpu_s, int(fields[21]) * page))
    return found


def _table_of_ps() -> list[ProcessFacts]:
    said = subprocess.run(["ps", "-axo", "pid=,ppid=,time=,rss="], capture_output=True, text=True, check=False).stdout
    found = []
    for line in said.splitlines():
        pid, parent, spent, resident = line.split()
        seconds = 0.0
        for part in spent.replace("-", ":").split(":"):
            seconds = seconds * 60 + float(part)
        found.append(ProcessFacts(int(pid), int(parent), seconds, int(resident) * 1024))
    return found


def gpu_of(pid: int) -> int:
    """The first GPU that CUDA_VISIBLE_DEVICES names in a process's environment; 0 where it names none."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            text = file.read(2**20)
    except OSError:
        return 0
    named = (b"\0" + text).partition(b"\0CUDA_VISIBLE_DEVICES=")[2].partition(b"\0")[0].partition(b",")[0]
    return int(named) if named.isdigit() else 0


def listens(pids: set[int], port: int) -> bool:
    """Whether one of these processes listens on that TCP port of the loopback or of all addresses.

    True where that cannot be known (no /proc): then a pod reaches what listens on this computer.
    """
    if sys.platform != "linux":
        return True
    inodes = {inode for table in ("tcp", "tcp6") for inode in _listeners(f"/proc/net/{table}", port)}
    if not inodes:
        return False
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for pid in pids:
        try:
            for name in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{name}") in wanted:
                    return True
        except OSError:
            continue  # it has ended, or closed that one just now
    return False


def _listeners(path: str, port: int) -> set[str]:
    try:
        with open(path, encoding="ascii") as file:
            rows = [line.split() for line in file.readlines()[1:]]
    except OSError:
        return set()
    return {row[9] for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port}
