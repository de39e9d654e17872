"""The dead-man switch of a rented pod: its clock, where it is found, and the life it belongs to.

Standard library only, Python 3.8 or newer. Part of the watchdog, which is the switch, and of the request that brings it
word from outside (beat.py). The two meet at an abstract socket named after the launch: it needs no disk, it is free
again the moment its owner is dead, and binding it is the lock that keeps a second switch out.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import time

from podlab.remote.machine import Fault, boot_id, first_line, one_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PROTOCOL = 1
LAUNCH = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}")
LINE_LIMIT_BYTES = 16384
ROOT = 0


def clock() -> float:
    """Seconds since the machine started, its sleep included. Nobody can set it, unlike the time of day."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def address_of(launch: str) -> bytes:
    """The name at which the switch of a launch listens."""
    if not LAUNCH.fullmatch(launch):
        raise Fault("bad_request", f"{launch!r:.80} is no launch")
    return b"\0podlab-switch-" + launch.encode()


def is_trusted(peer: socket.socket) -> bool:
    """Whether the other end is a process of our own user, or of root."""
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return struct.unpack("3i", credentials)[1] in (ROOT, os.getuid())


def life_of(root: int) -> str:
    """What tells this start of the container from every other: the machine's start, and that of its first process.

    `root` is that process; on a machine of its own it is mostly 1. "" when it is gone.
    """
    process = one_process(root)
    if process is None or process.zombie:
        return ""
    kernel = first_line("/proc/sys/kernel/random/boot_id") or boot_id()
    return f"{kernel}.{root}.{process.start}"


def is_over(root: int, life: str) -> bool:
    """Whether the container of a life is gone. What cannot be read says nothing: it goes on."""
    try:
        os.kill(root, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    process = one_process(root)
    return process is not None and (process.zombie or life_of(root) != life)


def started_at(root: int, now: float) -> float:
    """When the container's first process began, by `clock`; `now` where that makes no sense."""
    process = one_process(root)
    try:
        began = int(process.start) / os.sysconf("SC_CLK_TCK") if process else now
    except (ValueError, OSError):
        return now
    return began if 0 < began <= now else now


def folder_of(env: Mapping[str, str]) -> str:
    """Where the switch keeps its state."""
    return os.path.join(env.get("HOME") or os.path.expanduser("~"), ".podlab", "switch")


def read_line(peer: socket.socket, deadline_s: float) -> bytes:
    """One line from the other end, without its end. Raises OSError when it does not come whole in time."""
    until = time.monotonic() + deadline_s
    data = b""
    while b"\n" not in data:
        peer.settimeout(max(0.01, until - time.monotonic()))
        part = peer.recv(4096)
        data += part
        if not part or len(data) > LINE_LIMIT_BYTES or time.monotonic() > until:
            raise OSError("no whole line came")
    return data.partition(b"\n")[0]
