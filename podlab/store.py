"""cache.sqlite: what was last seen of pods and endpoints. Disposable: a damaged one is set aside and begun anew.

Nothing here is truth; it lets a list say "last seen 3 min ago" of a pod that does not answer, and completion offer
names without asking anybody.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from podlab.durable import locked
from podlab.settings import home
from podlab.types import Endpoint, EndpointState

SCHEMA = 4
BUSY_S = 5.0
T = TypeVar("T")
_log = logging.getLogger(__name__)


class Store:
    """Opens the file for each use: kernels and terminals come and go, and a connection must not cross a fork.

    A file that cannot be used at all (a folder that cannot be written, a full disk, a process that does not let go)
    is logged and forgotten: stopping a model must not fail because of a cache.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or home() / "cache.sqlite"

    def saw_pod(self, pod_id: str, when: float) -> None:
        """Note that a pod answered at `when` (seconds since the epoch)."""
        self._do(lambda db: db.execute("insert or replace into pods values (?, ?)", (pod_id, when)), None)

    def pod_seen(self, pod_id: str) -> float | None:
        """When the pod last answered, None if never."""
        row = self._do(lambda db: db.execute("select last_seen from pods where id = ?", (pod_id,)).fetchone(), None)
        return row[0] if row and isinstance(row[0], float) else None

    def saw_gpus(self, pod_id: str, count: int) -> None:
        """Note how many GPUs a pod was seen to have."""
        self._do(lambda db: db.execute("insert or replace into gpus values (?, ?)", (pod_id, count)), None)

    def gpus_of(self, pod_id: str) -> int:
        """How many GPUs a pod was last seen to have; 0 also where nobody ever looked."""
        row = self._do(lambda db: db.execute("select count from gpus where id = ?", (pod_id,)).fetchone(), None)
        return row[0] if row and isinstance(row[0], int) else 0

    def saw_endpoints(self, pod_id: str, endpoints: list[Endpoint], when: float) -> None:
        """Replace what is remembered of a pod's endpoints by what was just seen."""
        self.saw({pod_id: endpoints}, when, answered=False)

    def saw(self, found: Mapping[str, Sequence[Endpoint]], when: float, *, answered: bool = True) -> None:
        """The same of several pods at once (pod id -> its endpoints), and that these pods answered."""
        rows = [(e.id, pod, e.name, when, json.dumps(asdict(e))) for pod, endpoints in found.items() for e in endpoints]

        def write(db: sqlite3.Connection) -> None:
            db.executemany("delete from endpoints where pod_id = ?", [(pod,) for pod in found])
            db.executemany("insert or replace into endpoints values (?, ?, ?, ?, ?)", rows)
            if answered:
                db.executemany("insert or replace into pods values (?, ?)", [(pod, when) for pod in found])

        self._do(write, None)

    def endpoints_of(self, pod_id: str) -> list[Endpoint]:
        """What was last seen of a pod's endpoints; `last_seen` is set."""

        def read(db: sqlite3.Connection) -> list[Endpoint]:
            found = db.execute("select seen, value from endpoints where pod_id = ?", (pod_id,)).fetchall()
            return [_endpoint(value, seen) for seen, value in found]

        return self._do(read, [])

    def endpoint_names(self) -> list[str]:
        """Names of remembered endpoints, sorted."""
        query = "select distinct name from endpoints order by name"
        return self._do(lambda db: [str(name) for (name,) in db.execute(query)], [])

    def saw_words(self, sort: str, words: Sequence[str]) -> None:
        """Replace the names of that sort (GPUs, data centres ...) that completion may offer."""

        def write(db: sqlite3.Connection) -> None:
            db.execute("delete from words where sort = ?", (sort,))
            db.executemany("insert or replace into words values (?, ?)", [(sort, word) for word in words])

        self._do(write, None)

    def words(self, sort: str) -> list[str]:
        """The names of that sort that were last seen, sorted."""
        query = "select word from words where sort = ? order by word"
        return self._do(lambda db: [str(word) for (word,) in db.execute(query, (sort,))], [])

    def forget_pod(self, pod_id: str) -> None:
        """Drop what is remembered of a pod."""

        def write(db: sqlite3.Connection) -> None:
            db.execute("delete from pods where id = ?", (pod_id,))
            db.execute("delete from gpus where id = ?", (pod_id,))
            db.execute("delete from endpoints where pod_id = ?", (pod_id,))

        self._do(write, None)

    def _do(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """`work` in one transaction; once more on a new file when this one turns out to be damaged.

        `otherwise` is the answer of a file that cannot be used.
        """
        try:
            try:
                return self._once(work)
            except _DAMAGE as error:
                if not _is_damage(error):
                    raise
                self._set_aside(work)
                return self._once(work)
        except (sqlite3.Error, OSError) as error:
            _log.warning("%s cannot be used: %s", self._path, error)
            return otherwise

    def _once(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._path.touch(mode=0o600)
        with contextlib.closing(sqlite3.connect(self._path, timeout=BUSY_S)) as db, db:
            db.execute("pragma synchronous = off")  # what a power cut damages is begun anew, and syncing takes long
            if _version(db) != SCHEMA:
                db.execute("begin immediate")
                if _version(db) != SCHEMA:  # two kernels may find an empty file at the same time
                    _begin_anew(db)
            return work(db)

    def _set_aside(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Move the damaged file away, unless another process did so in the meantime; the last one is kept."""
        with locked(self._path.with_name("cache.lock")):
            try:
                self._once(work)
            except _DAMAGE as error:
                if not _is_damage(error):
                    raise
                # A journal that belonged to the damaged file would be played back into the new one.
                for suffix in ("", "-journal", "-wal", "-shm"):
                    with contextlib.suppress(FileNotFoundError):
                        self._path.with_name(self._path.name + suffix).replace(
                            self._path.with_name(f"{self._path.stem}.damaged.sqlite{suffix}")
                        )


_DAMAGE = (sqlite3.Error, ValueError, KeyError, TypeError, RecursionError)
"""What damaged bytes make of a query or of a row."""
_SURROUNDINGS = frozenset({sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM,
                           sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN,
                           sqlite3.SQLITE_PROTOCOL})  # fmt: skip
"""SQLite's codes for what is no fault of the file."""


def _is_damage(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", None)  # an extended code has the plain one in its lowest byte
    return code is None or code & 0xFF not in _SURROUNDINGS


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("pragma user_version").fetchone()[0])


def _begin_anew(db: sqlite3.Connection) -> None:
    db.execute("drop table if exists pods")
    db.execute("drop table if exists gpus")
    db.execute("drop table if exists endpoints")
    db.execute("drop table if exists words")
    db.execute("create table pods (id text primary key, last_seen real)")
    db.execute("create table gpus (id text primary key, count integer)")
    columns = "id text, pod_id text, name text, seen real, value text"
    db.execute(f"create table endpoints ({columns}, primary key (pod_id, id))")  # two pods may be one machine
    db.execute("create table words (sort text, word text, primary key (sort, word))")
    db.execute(f"pragma user_version = {SCHEMA:d}")


def _endpoint(value: str, seen: float) -> Endpoint:
    fields = json.loads(value) | {"last_seen": seen}
    return Endpoint(**fields | {"state": EndpointState(fields["state"]), "gpus": tuple(fields["gpus"])})
