"""The end of a process that is nobody's child here."""

from __future__ import annotations

import os
import select
import sys

import psutil


def wait_until_gone(pid: int, timeout_s: float = 15.0) -> None:
    """Return when the process has ended, reaped or not. Raises TimeoutError."""
    if sys.platform != "linux":
        try:
            psutil.Process(pid).wait(timeout_s)
        except psutil.NoSuchProcess:
            pass
        return
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        if not waiting.poll(timeout_s * 1000):
            raise TimeoutError(f"process {pid} is still there")
    finally:
        os.close(descriptor)
