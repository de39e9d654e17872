"""Hashing on the pod as fast as it computes: files, and files that are still coming. Standard library, Python 3.8.

Shared by download.py, which it is put beside, and weights.py, which it travels inside.
"""

from __future__ import annotations

import hashlib
import queue
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

BLOCK_BYTES = 4 << 20


def hasher(digest: str, size: int) -> Any:
    """The hash that `digest` is made with; git hashes a header with the size first."""
    if digest.startswith("git:"):
        return hashlib.sha1(b"blob %d\0" % size)  # noqa: S324 - git's own name for the content
    return hashlib.sha256()


def hash_file(path: str, hashed: Any, heard: Any = None) -> Any:
    """Feed a file to a hash, one thread reading while this one computes; `heard` is told of each piece's bytes."""
    empty: Any = queue.Queue()
    full: Any = queue.Queue()
    for _ in range(2):
        empty.put(bytearray(BLOCK_BYTES))

    def read() -> None:
        try:
            with open(path, "rb", buffering=0) as file:
                while True:
                    buffer = empty.get()
                    count = None if buffer is None else file.readinto(buffer)
                    full.put((buffer, count))
                    if not count:
                        return
        except OSError as error:
            full.put((error, 0))

    threading.Thread(target=read, daemon=True).start()
    try:
        while True:
            buffer, count = full.get()
            if isinstance(buffer, OSError):
                raise buffer
            if not count:
                return hashed
            hashed.update(memoryview(buffer)[:count])
            if heard is not None:
                heard(count)
            empty.put(buffer)
    finally:
        empty.put(None)


class Follower:
    """The hash of a file that is being written, in a thread of its own: at the last byte little of it is left to do."""

    def __init__(self, path: str, digest: str, size: int) -> None:
        self._path = path
        self._new: Callable[[], Any] = lambda: hasher(digest, size)
        self._changed = threading.Condition()
        self._limit = 0
        self._at = 0
        self._closed = False
        self._hashed = self._new()
        threading.Thread(target=self._run, daemon=True).start()

    def upto(self, have: int) -> None:
        """The file's first `have` bytes are written. Fewer than before: it begins anew."""
        with self._changed:
            if have < self._limit:
                self._at, self._hashed = 0, self._new()
            self._limit = have
            self._changed.notify_all()

    def digest(self, size: int) -> str:
        """The hash of all `size` bytes, once it is done; of a file that is not so long, or cannot be read, nothing."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._at >= size or self._limit < size)
            return str(self._hashed.hexdigest()) if self._at == self._limit == size else ""

    def close(self) -> None:
        """End its thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._at < self._limit)
                if self._closed:
                    return None
                at, limit, hashed = self._at, self._limit, self._hashed
            try:
                with open(self._path, "rb", buffering=0) as file:
                    file.seek(at)
                    data = file.read(min(BLOCK_BYTES, limit - at))
            except OSError:
                data = b""
            if not data:  # somebody took it away: then it is read again as a whole, which says why
                return self.close()
            hashed.update(data)
            with self._changed:
                if hashed is self._hashed:  # else it began anew meanwhile
                    self._at = at + len(data)
                    self._changed.notify_all()
