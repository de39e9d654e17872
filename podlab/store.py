"""cache.sqlite: what was last seen of pods and endpoints. Disposable: a damaged one is set aside and begun anew.

Nothing here is truth; it lets a list say "last seen 3 min ago" of a pod that does not answer, and completion offer
names without asking anybody.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from podlab.settings import home
from podlab.types import Endpoint, EndpointState

SCHEMA = 1
BUSY_S = 5.0


class Store:
    """Opens the file for each use: kernels and terminals come and go, and a connection must not cross a fork."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or home() / "cache.sqlite"

    def saw_pod(self, pod_id: str, when: float) -> None:
        """Note that a pod answered at `when` (seconds since the epoch)."""
        with self._open() as db:
            db.execute("insert or replace into pods values (?, ?)", (pod_id, when))

    def pod_seen(self, pod_id: str) -> float | None:
        """When the pod last answered, None if never."""
        with self._open() as db:
            row = db.execute("select last_seen from pods where id = ?", (pod_id,)).fetchone()
        return row[0] if row else None

    def saw_endpoints(self, pod_id: str, endpoints: list[Endpoint], when: float) -> None:
        """Replace what is remembered of a pod's endpoints by what was just seen."""
        with self._open() as db:
            db.execute("delete from endpoints where pod_id = ?", (pod_id,))
            db.executemany(
                "insert or replace into endpoints values (?, ?, ?, ?, ?)",
                [(e.id, pod_id, e.name, when, json.dumps(asdict(e))) for e in endpoints],
            )

    def endpoints_of(self, pod_id: str) -> list[Endpoint]:
        """What was last seen of a pod's endpoints; `last_seen` is set."""
        with self._open() as db:
            found = db.execute("select seen, value from endpoints where pod_id = ?", (pod_id,)).fetchall()
        return [_endpoint(value, seen) for seen, value in found]

    def endpoint_names(self) -> list[str]:
        """Names of remembered endpoints, sorted."""
        with self._open() as db:
            return [name for (name,) in db.execute("select distinct name from endpoints order by name")]

    def forget_pod(self, pod_id: str) -> None:
        """Drop what is remembered of a pod."""
        with self._open() as db:
            db.execute("delete from pods where id = ?", (pod_id,))
            db.execute("delete from endpoints where pod_id = ?", (pod_id,))

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            db = self._connect()
        except sqlite3.DatabaseError:
            self._set_aside()
            db = self._connect()
        try:
            with db:
                yield db
        finally:
            db.close()

    def _connect(self) -> sqlite3.Connection:
        self._path.touch(mode=0o600)
        db = sqlite3.connect(self._path, timeout=BUSY_S)
        try:
            (version,) = db.execute("pragma user_version").fetchone()
            if version != SCHEMA:
                with db:
                    db.execute("begin immediate")  # two kernels may find an empty file at the same time
                    db.execute("drop table if exists pods")
                    db.execute("drop table if exists endpoints")
                    db.execute("create table pods (id text primary key, last_seen real)")
                    db.execute("create table endpoints (id text primary key, pod_id text, name text, seen real, value text)")
                    db.execute(f"pragma user_version = {SCHEMA:d}")
            else:
                db.execute("select count(*) from pods").fetchone()
        except BaseException:
            db.close()
            raise
        return db

    def _set_aside(self) -> None:
        if self._path.exists():
            self._path.replace(self._path.with_name(f"cache.damaged.{int(time.time())}.sqlite"))


def _endpoint(value: str, seen: float) -> Endpoint:
    fields = json.loads(value) | {"last_seen": seen}
    return Endpoint(**fields | {"state": EndpointState(fields["state"]), "gpus": tuple(fields["gpus"])})
