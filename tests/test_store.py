"""The cache: shared by processes, thrown away when damaged, and never a raw error."""

from __future__ import annotations

import dataclasses
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from podlab import store as store_module
from podlab.settings import home
from podlab.store import Store
from podlab.types import Endpoint, EndpointState

ENDPOINT = Endpoint(
    "e1", "tiny", "lab", "tiny", "llamacpp", EndpointState.READY, detail="é\U0001f600", pid=7, gpus=(0, 1)
)


@pytest.fixture
def path() -> Path:
    return home() / "cache.sqlite"


@pytest.fixture
def filled(path: Path) -> Store:
    """A store with enough in it to need several pages."""
    store = Store()
    store.saw_pod("p1", 100.0)
    store.saw_endpoints("p1", [dataclasses.replace(ENDPOINT, id=f"e{number}") for number in range(60)], 100.0)
    return store


def works(store: Store) -> None:
    store.saw_pod("p2", 5.0)
    assert store.pod_seen("p2") == 5.0
    store.saw_endpoints("p2", [ENDPOINT], 6.0)
    assert store.endpoints_of("p2") == [dataclasses.replace(ENDPOINT, last_seen=6.0)]
    assert "tiny" in store.endpoint_names()
    store.forget_pod("p2")
    assert store.pod_seen("p2") is None
    assert store.endpoints_of("p2") == []


def test_what_was_seen_is_remembered(path: Path) -> None:
    """Pods and endpoints come back as they were seen, newer sights replace older, forgotten ones are gone."""
    works(Store())
    store = Store()
    store.saw_endpoints("p1", [ENDPOINT, dataclasses.replace(ENDPOINT, id="e2", name="big")], 1.0)
    store.saw_endpoints("p1", [dataclasses.replace(ENDPOINT, state=EndpointState.STOPPED, gpus=())], 2.0)
    (only,) = Store().endpoints_of("p1")
    assert (only.state, only.last_seen, only.gpus) == (EndpointState.STOPPED, 2.0, ())
    assert Store().endpoint_names() == ["tiny"]
    assert path.stat().st_mode & 0o777 == 0o600


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for position in range(0, len(data), 3):
        data[position] ^= 0xFF
    path.write_bytes(data)


def flipped_behind_the_header(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = bytes(byte ^ 0x5A for byte in data[4096:])
    path.write_bytes(data)


def no_sqlite(path: Path) -> None:
    path.write_bytes(b"this is no database\n" * 1000)


def with_sql(*statements: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        db = sqlite3.connect(path)
        with db:
            for statement in statements:
                db.execute(statement)
        db.close()

    return change


DAMAGES = [
    truncated, flipped, flipped_behind_the_header, no_sqlite, with_sql("drop table pods"),
    with_sql("drop table endpoints"),
    with_sql("alter table endpoints rename column value to something"), with_sql("update endpoints set value = '{'"),
    with_sql("update endpoints set value = '{}'"),
    with_sql("update endpoints set value = replace(value, 'ready', 'odd')"),
    with_sql("update endpoints set value = cast(x'ff' as text)"), with_sql("update endpoints set value = null"),
    with_sql("update endpoints set name = x'ff'", "update endpoints set value = '[]'"),
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_set_aside(path: Path, filled: Store, damage: Callable[[Path], None]) -> None:
    """Whatever was done to the file, reading does not fail, writing works, and the damaged one is kept beside it."""
    damage(path)
    before = path.read_bytes()
    assert filled.pod_seen("p1") in (None, 100.0)
    assert filled.endpoints_of("p1") == []
    works(filled)
    assert path.with_name("cache.damaged.sqlite").read_bytes()[:100] == before[:100]


@pytest.mark.parametrize(
    "change", [lambda path: path.write_bytes(b""), lambda path: path.unlink(), with_sql("pragma user_version = 99")]
)
def test_an_empty_or_a_foreign_version_is_begun_anew(path: Path, filled: Store, change: Callable[[Path], None]) -> None:
    """An empty file, none, and one of another version of podlab are simply begun anew."""
    change(path)
    assert filled.endpoints_of("p1") == []
    works(filled)
    assert not path.with_name("cache.damaged.sqlite").exists()


def test_every_truncation_is_survived(path: Path, filled: Store) -> None:
    """Cut at any of many lengths, the cache is used or begun anew, and never raises."""
    data = path.read_bytes()
    for size in range(0, len(data), 977):
        path.write_bytes(data[:size])
        Store().endpoints_of("p1")
        Store().saw_pod("p1", 1.0)
        assert Store().pod_seen("p1") == 1.0


def test_a_leftover_journal_is_not_played_into_the_new_file(path: Path, filled: Store) -> None:
    """What belonged to the damaged file goes with it."""
    no_sqlite(path)
    journal = path.with_name("cache.sqlite-journal")
    journal.write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + b"\0" * 2000)
    works(filled)
    assert not journal.exists()


def test_processes_share_it(path: Path) -> None:
    """6 processes that begin with no file and write at the same time lose none of each other's pods."""
    body = textwrap.dedent("""
        import sys
        from podlab.store import Store
        for number in range(12):
            Store().saw_pod(f"{sys.argv[1]}-{number}", 1.0)
    """)
    workers = [subprocess.Popen([sys.executable, "-c", body, str(number)]) for number in range(6)]
    assert [worker.wait() for worker in workers] == [0] * 6
    assert all(Store().pod_seen(f"{worker}-{number}") == 1.0 for worker in range(6) for number in range(12))


def test_processes_that_find_it_damaged(path: Path, filled: Store) -> None:
    """4 processes that meet a damaged file at the same time set it aside once: what each wrote afterwards is there."""
    no_sqlite(path)
    body = textwrap.dedent("""
        import sys
        from podlab.store import Store
        Store().saw_pod(sys.argv[1], 1.0)
    """)
    workers = [subprocess.Popen([sys.executable, "-c", body, str(number)]) for number in range(4)]
    assert [worker.wait() for worker in workers] == [0] * 4
    assert [Store().pod_seen(str(number)) for number in range(4)] == [1.0] * 4
    assert path.with_name("cache.damaged.sqlite").read_bytes().startswith(b"this is no database")


def test_one_that_is_held_is_not_set_aside(path: Path, filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that does not let go costs the memory of one moment, and the healthy file stays."""
    monkeypatch.setattr(store_module, "BUSY_S", 0.05)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("begin exclusive")
    filled.saw_pod("p1", 200.0)
    holder.execute("rollback")
    holder.close()
    assert filled.pod_seen("p1") == 100.0
    assert not path.with_name("cache.damaged.sqlite").exists()


def test_a_folder_in_its_place(path: Path) -> None:
    """Where no file can be opened nothing is remembered, and nothing fails."""
    path.mkdir()
    Store().saw_pod("p1", 1.0)
    assert Store().pod_seen("p1") is None
    assert Store().endpoints_of("p1") == [] == Store().endpoint_names()


MOUNT = 'set -e; mount --bind "$1" "$1"; mount -o remount,ro,bind "$1"; shift; exec "$@"'


def can_mount() -> bool:
    unshare = shutil.which("unshare")
    return unshare is not None and subprocess.run([unshare, "-rm", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="this system lets no test mount anything (unshare -rm)")
@pytest.mark.parametrize("exists", [True, False])
def test_a_read_only_home(path: Path, exists: bool) -> None:
    """On a file system that takes no writes the cache is silent, and every other file answers with an error of ours."""
    if exists:
        Store().saw_pod("p1", 1.0)
    body = textwrap.dedent("""
        from podlab import secrets, settings
        from podlab.errors import StateDamaged
        from podlab.ledger import Ledger
        from podlab.store import Store
        for use in (lambda: Store().saw_pod("p1", 2.0), lambda: settings.store("pod", "lab"),
                    lambda: Ledger().append("x", "y"), lambda: secrets.keep("KEY", secrets.Secret("12345678"))):
            try:
                use()
            except StateDamaged as error:
                print(error)
        print(settings.value("pod"))
    """)
    command = ["unshare", "-rm", "sh", "-c", MOUNT, "sh", str(path.parent), sys.executable, "-c", body]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    *refused, value = done.stdout.splitlines()
    assert len(refused) == 3
    assert all("Read-only file system" in line or "readonly" in line for line in refused)
    assert value == "('local', 'default')"
