"""A clock that nobody can set, and of which boot it is: what counts where money does.

No import of podlab's: whoever needs the time needs it first.
"""

from __future__ import annotations

import contextlib
import secrets as random
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
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return _PROCESS  # nothing is known of boots here: only this process can vouch for its own readings


_PROCESS = random.token_hex(8)
