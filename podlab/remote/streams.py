"""Streams of endpoints and jobs on disk: read from a position, and kept from filling it.

Standard library only, Python 3.8 or newer. A program writes its stream's file itself, so that it outlives whoever
watches it; its monitor drops the beginning of a file that takes more than it may. Positions stay true all the while.
Beside a file that was shortened lies FILE.cut, an object: `dropped` is the first position that is kept, `base` the
position of the file's own first byte, `whole` false while the file is just being emptied.

Where the file system can, the beginning becomes a hole: the file keeps its length, and `base` is 0. Where it cannot,
the file is emptied, which loses what was in it, and goes on at a later `base`.
"""

from __future__ import annotations

import os
import time

from podlab.remote.machine import read_json, read_part, write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK_BYTES = 4096
LINE_BYTES = 65536
"""How far ahead the start of a line is looked for, so that what is kept begins with one."""
SLACK_BYTES = 2**20
"""What a program may write between the last look at a file and its being emptied: no position is used twice."""
TRIES = 200
PUNCH_HOLE = 0x02 | 0x01
"""FALLOC_FL_PUNCH_HOLE and FALLOC_FL_KEEP_SIZE of linux/falloc.h."""


def cut_of(path: str) -> tuple[int, int, bool]:
    """(first position that is kept, position of the file's first byte, whether both hold) of a stream's file."""
    try:
        said = read_json(path + ".cut")
    except (OSError, ValueError):
        said = None
    if said is None or not all(isinstance(said.get(key), int) for key in ("dropped", "base")):
        return 0, 0, True
    return said["dropped"], said["base"], bool(said.get("whole", True))


def end_of(path: str) -> int:
    """The position after a stream's last byte; 0 when there is no file."""
    try:
        return os.lstat(path).st_size + cut_of(path)[1]
    except OSError:
        return 0


def read_stream(path: str, offset: int, limit: int) -> tuple[int, bytes, int]:
    """(position, at most `limit` bytes from there on, position of the end). A negative offset counts from the end.

    The position is later than the one asked for where what lies between was dropped.
    """
    tries = TRIES
    while True:
        cut = dropped, base, whole = cut_of(path)
        data, size = read_part(path, offset if offset < 0 else max(0, max(offset, dropped) - base), limit)
        tries -= 1
        # What is being dropped reads as NUL bytes. It is on record before it happens, so a record that has not changed
        # says that what was read was there.
        if (whole and cut_of(path) == cut) or not tries:
            begin = base + size - len(data) if offset < 0 else max(offset, dropped)
            lost = max(0, dropped - begin)
            return begin + lost, data[lost:], base + size
        time.sleep(0.01)


def shorten(path: str, cap_bytes: int, punch: Callable[[int, int], None] | None = None) -> None:
    """Drop the beginning of a stream's file that holds more than `cap_bytes`, so that half of that is left.

    `punch(descriptor, length)` makes a hole of the first `length` bytes, and raises OSError where that cannot be.
    """
    dropped, base, _ = cut_of(path)
    size = os.lstat(path).st_size
    if base + size - dropped <= cap_bytes:
        return
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        length = (size - cap_bytes // 2) // BLOCK_BYTES * BLOCK_BYTES
        line = os.pread(descriptor, LINE_BYTES, length).find(b"\n") + 1
        kept = base + length + line
        recorded = put_on_record(path, kept, base)
        try:
            (punch or punch_hole)(descriptor, length)
        except OSError:
            kept = base = base + size + SLACK_BYTES
            put_on_record(path, kept, base, whole=False)
            os.ftruncate(descriptor, 0)  # the program appends, and goes on at the new beginning
            recorded = False
        if not recorded:  # on a full disk there is room for it only now
            put_on_record(path, kept, base)
    finally:
        os.close(descriptor)


def put_on_record(path: str, dropped: int, base: int, whole: bool = True) -> bool:
    """Write what `cut_of` reads; False when it cannot be written."""
    try:
        write_json(path + ".cut", {"v": 1, "dropped": dropped, "base": base, "whole": whole})
    except OSError:
        return False
    return True


def punch_hole(descriptor: int, length: int) -> None:
    """Give the first `length` bytes of a file back to the file system. Raises OSError where it does not take them."""
    import errno

    try:
        import ctypes

        library = ctypes.CDLL(None, use_errno=True)
        call = getattr(library, "fallocate64", None) or library.fallocate
    except (ImportError, AttributeError, OSError) as error:  # a Python without it, a system that is no Linux
        raise OSError(errno.ENOSYS, f"no fallocate: {error}") from error
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if call(descriptor, PUNCH_HOLE, 0, length) != 0:
        raise OSError(ctypes.get_errno(), "no hole can be made")
