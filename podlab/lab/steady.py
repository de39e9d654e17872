"""A clock that nobody can set, and of which boot it is: what counts where money does.

No import of podlab's: whoever needs the time needs it first.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets as random
import shutil
import time
from pathlib import Path


def steady_now() -> float:
    """Seconds by a clock that nobody can set and that goes on while the computer sleeps. It starts anew at a boot."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    if hasattr(time, "CLOCK_MONOTONIC_RAW"):  # on macOS this one goes on in sleep
        return time.clock_gettime(time.CLOCK_MONOTONIC_RAW)
    return time.monotonic()


def boot_id() -> str:
    """What is another one after each boot, and on each computer."""
    with contextlib.suppress(OSError):
        return LINUX.read_text().strip()
    return _told_by_sysctl()


@functools.cache
def _told_by_sysctl() -> str:
    """What macOS tells of its boot, the same to every process; asked for once by each."""
    import subprocess  # where it is needed at all

    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    for name in SYSCTLS:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            argv = [shutil.which("sysctl", path=path) or "sysctl", "-n", name]
            said = subprocess.run(
                argv, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL,
                timeout=SYSCTL_S, check=True, env={"PATH": path, "LC_ALL": "C"},
            ).stdout.strip()  # fmt: skip
            if said:
                return said
    return _PROCESS  # nothing is known of boots here: only this process can vouch for its own readings


LINUX = Path("/proc/sys/kernel/random/boot_id")
SYSCTLS = ("kern.bootsessionuuid", "kern.boottime")
"""The first is another one at each boot; the second, of older systems, also when the clock is set."""
SYSCTL_S = 5.0
_PROCESS = random.token_hex(8)
