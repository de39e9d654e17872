"""A large file over several connections at once. Standard library, Python 3.8. Put beside download.py on the pod."""

from __future__ import annotations

import collections
import concurrent.futures
import http.client
import threading
import time
import urllib.error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    from podlab.remote.hub_requests import Failure, Remote, Transient, ask, refused
else:
    from hub_requests import Failure, Transient, ask, refused

CHUNK_BYTES = 1 << 20
CONNECTIONS = 8
SMALLEST_BYTES, LARGEST_BYTES = 2 << 20, 16 << 20
"""What one request of several fetches: about two seconds' worth. All that are under way are held in memory."""
PIECE_S = 2.0
WORTH_BYTES = 16 << 20
"""What is still to come of a file for several connections to pay."""


class Piece:
    """Some bytes of a file, fetched by a thread. `problem` is what kept it from being whole, then `data` is shorter."""

    def __init__(self, first: int, count: int) -> None:
        self.first, self.count = first, count
        self.data = memoryview(b"")
        self.problem: Exception | None = None
        self.etag = ""
        self.whole_file = False
        """The server sends all of the file, whatever it is asked for."""

    def fetch(self, remote: Remote, etag: str, given_up: threading.Event, arrived: Any) -> Piece:
        """Ask for it and read it. Raises nothing: a problem counts only when its turn comes."""
        headers = {"Range": f"bytes={self.first}-{self.first + self.count - 1}"}
        if etag:
            headers["If-Range"] = etag
        try:
            with ask("GET", remote.url, headers) as answer:
                self.etag = answer.headers.get("ETag", "")
                self.whole_file = answer.status != 206
                if not self.whole_file:
                    if not answer.headers.get("Content-Range", "").startswith(f"bytes {self.first}-"):
                        raise Transient("the server goes on somewhere else than asked")
                    self._read(answer, given_up, arrived)
        except (OSError, http.client.HTTPException, Failure, Transient) as error:
            self.problem = error
        return self

    def _read(self, answer: Any, given_up: threading.Event, arrived: Any) -> None:
        buffer = memoryview(bytearray(self.count))
        have = 0
        while have < self.count and not given_up.is_set():
            try:
                count = answer.readinto(buffer[have : have + CHUNK_BYTES])
            except (OSError, http.client.HTTPException) as error:
                self.problem = Transient(f"the connection was cut: {error}")
                break
            if not count:
                self.problem = Transient(f"the connection was cut at byte {self.first + have}")
                break
            have += count
            arrived(count)
        self.data = buffer[:have]


def fetch_in_pieces(
    remote: Remote, repo: str, name: str, part: str, have: int, etag: str, at: Callable[[int], None],
    begun: Callable[[str], None],
) -> bool:  # fmt: skip
    """The rest of a large file over several connections. False: its server gives no parts of files.

    What has come is appended in order, so that `part` is always the file's beginning: a process that is killed loses
    no more than the pieces that were under way. `at` hears how many bytes have come, `begun` the file's ETag with the
    first of them. Raises Transient when a piece breaks off.
    """
    assert remote.size is not None
    began, first_byte, given_up = time.monotonic(), have, threading.Event()
    lock, ahead = threading.Lock(), [0]

    def arrived(count: int) -> None:
        with lock:
            ahead[0] += count

    waiting: Any = collections.deque()
    asked = have
    with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool, open(part, "r+b" if have else "wb", 0) as file:
        file.truncate(have)
        file.seek(have)
        try:
            while waiting or asked < remote.size:
                while asked < remote.size and len(waiting) <= CONNECTIONS:
                    rate = (have - first_byte) / max(time.monotonic() - began, 0.01) / CONNECTIONS
                    size = int(min(max(rate * PIECE_S, SMALLEST_BYTES), LARGEST_BYTES))
                    piece = Piece(asked, min(size, remote.size - asked))
                    waiting.append(pool.submit(piece.fetch, remote, etag, given_up, arrived))
                    asked += piece.count
                try:
                    piece = waiting[0].result(0.5)
                except concurrent.futures.TimeoutError:
                    at(have + ahead[0])
                    continue
                waiting.popleft()
                if piece.whole_file:
                    return False
                if piece.data:
                    if have == first_byte:
                        begun(piece.etag)
                    write_all(file, piece.data)
                    have += len(piece.data)
                    arrived(-len(piece.data))
                    remote.wrote(have)
                    at(have + ahead[0])
                if isinstance(piece.problem, urllib.error.HTTPError):
                    raise refused(piece.problem, remote, repo, name)
                if piece.problem is not None:
                    raise piece.problem
        finally:
            given_up.set()
            for each in waiting:
                each.cancel()
    return True


def write_all(file: Any, data: memoryview) -> None:
    """All of it: a raw file may take less at a time."""
    while data:
        data = data[file.write(data) :]
