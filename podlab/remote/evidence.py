"""What the machine says of a server's end: that the kernel ended it for memory, that a GPU failed, that a disk is full.

Standard library only, Python 3.8 or newer; travels inside the monitor, which asks it once its child has ended. It
needs no root: what may not be read, or is not there, is left out, and then nothing is claimed.

- The kernel counts in each memory group (cgroup) how many of its processes it killed: `oom_kill` in memory.events of
  version 2, in memory.oom_control of version 1 (Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst).
  A container sees its own group as the root of /sys/fs/cgroup.
- The kernel's log, /dev/kmsg, is open to everybody where kernel.dmesg_restrict is 0. Of it only lines that name one of
  the server's processes or GPUs are told (Documentation/ABI/testing/dev-kmsg).
"""

from __future__ import annotations

import os
import re
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podlab.remote.machine import Json

RECENT_S = 60.0
"""A kill counts as the reason of an end when it is no older: in a group of many processes it may be another's."""
NOTE_PIDS_S = 5.0
PIDS_LIMIT = 512
LINES_LIMIT, LINE_CUT = 8, 300
RECORDS_LIMIT = 20_000
DRIVER_S = 3.0
"""A driver that does not answer is a finding, and an end has to be told within some seconds."""
INITIAL_PIDS = "pid:[4026531836]"
"""The namespace whose numbers the kernel's log speaks of (PROC_PID_INIT_INO)."""
KILLED = re.compile(r"(?:Killed process |oom-kill:.*,pid=)(\d{1,10})\b")
XID = re.compile(r"NVRM: (?:Xid \(PCI:([0-9a-fA-F:.]+)\)|GPU (?:at PCI:)?([0-9a-fA-F:.]+)).*")
XID_PID = re.compile(r"\bpid='?(\d{1,10})\b")


class Places:
    """Where the system tells these things."""

    def __init__(self, cgroups: str = "/sys/fs/cgroup", proc: str = "/proc", kmsg: str = "/dev/kmsg") -> None:
        self.cgroups, self.proc, self.kmsg = cgroups, proc, kmsg


class Witness:
    """Looks on while a child runs, and tells what the machine says of its end."""

    def __init__(
        self, pid: int, gpus: list[int], folders: list[str], places: Places | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.places, self.clock = places or Places(), clock
        self.gpus, self.folders = gpus, folders
        self.pid, self.pids = pid, {pid}
        self.noted_at = -NOTE_PIDS_S
        self.counter = oom_counter(self.places)
        self.kills = [(clock(), count)] if (count := oom_kills(self.counter)) is not None else []
        self.log = kernel_log(self.places.kmsg)

    def look(self) -> None:
        """To be called every second or so."""
        now = self.clock()
        count = oom_kills(self.counter)
        if count is not None and (not self.kills or self.kills[-1][1] != count):
            self.kills = [*self.kills[-LINES_LIMIT:], (now, count)]
        if now - self.noted_at >= NOTE_PIDS_S and len(self.pids) < PIDS_LIMIT:
            self.noted_at = now
            self.pids |= descendants(self.pid, self.places.proc)

    def tell(self) -> Json:
        """What there is to say now that it has ended; empty when the machine says nothing."""
        self.look()
        told: Json = {}
        if (kills := self.recent_kills()) is not None:
            told["oom_kills"] = kills
        if lines := self.kernel_lines():
            told["kernel_lines"] = lines
        if (free := free_bytes(self.folders)) is not None:
            told["disk_free_bytes"] = free
        if self.gpus and (error := driver_error()):
            told["driver_error"] = error
        return told

    def recent_kills(self) -> int | None:
        """How many were killed in its memory group a short while ago; None where nobody counts."""
        if not self.kills:
            return None
        before = self.kills[0][1]
        for at, count in self.kills:
            if self.clock() - at > RECENT_S:
                before = count
        return max(0, self.kills[-1][1] - before)

    def kernel_lines(self) -> list[str]:
        """What the kernel has logged since the start of this process' processes and GPUs."""
        if self.log is None:
            return []
        ours = self.pids if pids_are_the_kernels(self.places.proc) else set()
        cards = cards_of(self.gpus, self.places.proc)
        lines = [line for line in records(self.log) if concerns(line, ours, cards)]
        os.close(self.log)
        self.log = None
        return [line[:LINE_CUT] for line in lines[-LINES_LIMIT:]]


# ------------------------------------------------------------------------------------------------ memory groups


def oom_counter(places: Places) -> str | None:
    """The file in which the kernel counts what it killed in our memory group, or None."""
    try:
        with open(os.path.join(places.proc, "self/cgroup"), errors="replace") as file:
            groups = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return None
    for entry in groups:
        if len(entry) != 3:
            continue
        number, controllers, path = entry
        if "memory" in controllers.split(","):
            top, name = os.path.join(places.cgroups, "memory"), "memory.oom_control"
        elif number == "0" and not controllers:
            top, name = places.cgroups, "memory.events"
        else:
            continue
        # In a container the path may be that of the host, and our group is what is mounted at the top.
        for folder in (os.path.join(top, path.lstrip("/")), top):
            if oom_kills(os.path.join(folder, name)) is not None:
                return os.path.join(folder, name)
    return None


def oom_kills(counter: str | None) -> int | None:
    """How many processes were killed there so far."""
    try:
        with open(counter or "", errors="replace") as file:
            for line in file:
                name, _, count = line.partition(" ")
                if name == "oom_kill":
                    return int(count)
    except (OSError, ValueError):
        pass  # none of our business, or a kernel that does not count
    return None


# ------------------------------------------------------------------------------------------------ processes


def descendants(pid: int, proc: str) -> set[int]:
    """The children of a process, and theirs; where the kernel does not tell them, none."""
    found = {pid}
    left = [pid]
    while left and len(found) < PIDS_LIMIT:
        here = os.path.join(proc, str(left.pop()), "task")
        try:
            for thread in os.listdir(here):
                with open(os.path.join(here, thread, "children")) as file:
                    fresh = set(map(int, file.read().split())) - found
                left += fresh
                found |= fresh
        except (OSError, ValueError):
            continue  # it has ended
    return found - {pid}


def pids_are_the_kernels(proc: str) -> bool:
    """Whether our process numbers are those of the kernel's log; a container has its own."""
    try:
        return os.readlink(os.path.join(proc, "self/ns/pid")) == INITIAL_PIDS
    except OSError:
        return False


# ------------------------------------------------------------------------------------------------ the kernel's log


def kernel_log(path: str) -> int | None:
    """A descriptor that reads what is logged from now on, or None where that is not for us."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        os.lseek(descriptor, 0, os.SEEK_END)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def records(descriptor: int) -> Iterator[str]:
    """The messages that wait to be read; each read of /dev/kmsg gives one."""
    for _ in range(RECORDS_LIMIT):
        try:
            data = os.read(descriptor, 8192)
        except BrokenPipeError:
            continue  # what was to come next has been overwritten
        except OSError:
            return  # nothing more for now
        if not data:
            return
        for line in data.decode("utf-8", "replace").splitlines():
            head, mark, message = line.partition(";")
            if mark and not line.startswith(" "):  # lines that begin with a space are its dictionary
                yield message
            elif not mark and head and not line.startswith(" "):
                yield head


def concerns(line: str, pids: set[int], cards: set[str] | None) -> bool:
    """Whether a line is about one of these processes, or one of these GPUs (None: any)."""
    if killed := KILLED.search(line):
        return int(killed.group(1)) in pids
    failed = XID.search(line)
    if failed is None:
        return "NVRM: API mismatch" in line and cards != set()
    named = XID_PID.search(line)
    if named and pids:
        return int(named.group(1)) in pids
    return cards is None or short(failed.group(1) or failed.group(2)) in cards


def short(address: str) -> str:
    """A PCI address without its function, in one spelling: 0000:3b:00."""
    parts = address.strip(":").lower().split(".")[0].split(":")
    return ":".join([parts[0][-4:].rjust(4, "0"), *parts[1:]]) if len(parts) > 2 else ":".join(["0000", *parts])


def cards_of(gpus: list[int], proc: str) -> set[str] | None:
    """The PCI addresses of these GPUs. None: all that there are, because the driver does not tell which is which."""
    if not gpus:
        return set()
    top = os.path.join(proc, "driver/nvidia/gpus")
    found = {}
    try:
        for address in os.listdir(top):
            with open(os.path.join(top, address, "information"), errors="replace") as file:
                minor = re.search(r"Device Minor:\s*(\d+)", file.read())
            if minor:
                found[int(minor.group(1))] = short(address)
    except OSError:
        return None
    return {found[gpu] for gpu in gpus} if set(gpus) <= set(found) else None


# ------------------------------------------------------------------------------------------------ disk and driver


def free_bytes(folders: list[str]) -> int | None:
    """Of the fullest disk that these folders are on and that can be written to at all."""
    rooms = []
    for folder in folders:
        try:
            disk = os.statvfs(folder)
        except OSError:
            continue
        if not disk.f_flag & os.ST_RDONLY:
            rooms.append((disk.f_bfree if os.geteuid() == 0 else disk.f_bavail) * disk.f_frsize)
    return min(rooms) if rooms else None


def driver_error() -> str:
    """What nvidia-smi says instead of a list of GPUs; "" when it lists them, or is not there."""
    import subprocess

    try:
        done = subprocess.run(
            ["nvidia-smi", "-L"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=DRIVER_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "nvidia-smi does not answer"
    except OSError:
        return ""
    if done.returncode == 0:
        return ""
    said = done.stdout.decode("utf-8", "replace").strip().splitlines()
    return said[0][:LINE_CUT] if said else f"nvidia-smi ended with status {done.returncode}"
