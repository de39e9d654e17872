"""Files that survive kill -9, a full disk, other processes and somebody else's traps."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from podlab import durable
from podlab.errors import StateDamaged
from tests.processes import stopped_holder


def python(body: str, *words: object) -> subprocess.Popen[bytes]:
    """A process of its own that runs `body`, its stdout to be read."""
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(body), *map(str, words)], stdout=subprocess.PIPE)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@contextlib.contextmanager
def wide_umask() -> Iterator[None]:
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def test_kill_9_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    """A writer killed in the middle leaves one content whole: no mixture, no empty file, no half."""
    path = tmp_path / "file"
    size = 200_000
    for round_number in range(25):
        writer = python(
            """
            import sys
            from pathlib import Path
            from podlab.durable import replace_file
            path, size, first = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
            for number in range(first, first + 10**6):
                replace_file(path, bytes([97 + number % 26]) * size)
                print(number, flush=True)
            """, path, size, round_number,
        )  # fmt: skip
        assert writer.stdout is not None
        with writer, writer.stdout:
            for _ in range(1 + round_number % 5):
                assert writer.stdout.readline()
            writer.send_signal(signal.SIGKILL)
            acknowledged = writer.stdout.read().split()
        data = path.read_bytes()
        assert len(data) == size
        assert len(set(data)) == 1
        if acknowledged:
            last = int(acknowledged[-1])
            assert data[0] in (97 + last % 26, 97 + (last + 1) % 26)


def test_locked_processes_lose_nothing(tmp_path: Path) -> None:
    """8 processes that each read, add and write 300 times under the lock arrive at the sum."""
    path = tmp_path / "count"
    path.write_text("0")
    body = """
        import sys
        from pathlib import Path
        from podlab.durable import locked
        path = Path(sys.argv[1])
        for _ in range(300):
            with locked(path.with_name("lock")):
                path.write_text(str(int(path.read_text()) + 1))
    """
    workers = [python(body, path) for _ in range(8)]
    for worker in workers:
        assert worker.wait() == 0
        assert worker.stdout is not None
        worker.stdout.close()
    assert path.read_text() == "2400"
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.is_file()) == ["count", "lock"]


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    """kill -9 of the holder frees the lock, and an exception in the body does, too."""
    lock = tmp_path / "lock"
    holder = python(
        """
        import sys, time
        from pathlib import Path
        from podlab.durable import locked
        with locked(Path(sys.argv[1])):
            print("held", flush=True)
            time.sleep(600)
        """, lock,
    )  # fmt: skip
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        holder.kill()
        holder.wait()
    with pytest.raises(KeyError), durable.locked(lock):
        raise KeyError
    with durable.locked(lock):
        pass


def test_a_lock_that_a_stopped_process_holds_is_not_waited_for_without_end(tmp_path: Path) -> None:
    """Who holds it and what to do is said; once that process goes on, the lock is to be had again."""
    lock = tmp_path / "lock"
    with stopped_holder(lock) as holder:
        with (
            pytest.raises(StateDamaged, match="lock is held by another process") as refused,
            durable.locked(lock, wait_s=0.3),
        ):
            pass
        assert f"process {holder.pid}" in refused.value.message
        assert "which is stopped" in refused.value.message
        assert "kill -CONT" in refused.value.hint

        holder.send_signal(signal.SIGCONT)
        with durable.locked(lock):
            assert holder.stdout is not None and holder.stdout.readline() == b"let go\n"


def test_private_under_any_umask(tmp_path: Path) -> None:
    """With umask 000 every file is 0600 and every folder 0700, those made on the way included."""
    with wide_umask():
        folder = durable.private_folder(tmp_path / "a" / "b" / "c")
        durable.replace_file(folder / "file", b"x")
        with durable.locked(folder / "lock"):
            pass
    assert [mode(path) for path in (folder, folder.parent, folder.parent.parent)] == [0o700] * 3
    assert [mode(folder / "file"), mode(folder / "lock")] == [0o600] * 2


def test_never_wider_in_between(tmp_path: Path) -> None:
    """No moment of a replacement has a file that others may read: its modes are taken while each is written."""
    seen: list[int] = []
    real = os.fsync

    def look(descriptor: int) -> None:
        seen.extend(mode(entry) for entry in tmp_path.iterdir() if entry.is_file())
        real(descriptor)

    with wide_umask(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", look)
        durable.replace_file(tmp_path / "file", b"x" * 100_000)
    assert seen
    assert set(seen) == {0o600}


def test_a_wide_folder_is_narrowed(tmp_path: Path) -> None:
    """A folder of ours that others could enter is closed to them."""
    (tmp_path / "wide").mkdir(mode=0o755)
    durable.private_folder(tmp_path / "wide")
    assert mode(tmp_path / "wide") == 0o700


@pytest.mark.skipif(os.getuid() == 0, reason="root owns what a test could take for somebody else's")
def test_somebody_elses_folder_is_refused() -> None:
    """A folder of another user is not used."""
    with pytest.raises(StateDamaged, match="belongs to another user"):
        durable.private_folder(Path("/"))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_folder_given_away_is_refused(tmp_path: Path) -> None:
    """A folder of another user is not used."""
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 65534, 65534)
    with pytest.raises(StateDamaged, match="belongs to another user"):
        durable.private_folder(tmp_path / "theirs")


def test_planted_links_are_not_followed(tmp_path: Path) -> None:
    """A symlink where a file or a lock belongs is replaced or refused; what it points to stays as it was."""
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    for name in ("file", "lock"):
        (tmp_path / name).symlink_to(victim)
    durable.replace_file(tmp_path / "file", b"mine")
    assert not (tmp_path / "file").is_symlink()
    with pytest.raises(StateDamaged), durable.locked(tmp_path / "lock"):
        pass
    assert victim.read_text() == "untouched"


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """Where a write runs out of room the error is ours, the old content stays and nothing half is left."""
    path = tmp_path / "file"
    durable.replace_file(path, b"old")
    writer = python(
        """
        import resource, signal, sys
        from pathlib import Path
        from podlab.durable import replace_file
        from podlab.errors import StateDamaged
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            replace_file(Path(sys.argv[1]), b"new" * 1000)
        except StateDamaged as error:
            print(error)
        """, path,
    )  # fmt: skip
    with writer:
        assert writer.stdout is not None
        said = writer.stdout.read().decode()
    assert str(path) in said
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ["file"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def test_a_failed_fsync_is_a_failed_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk does not take it, the new content does not appear."""
    path = tmp_path / "file"
    durable.replace_file(path, b"old")

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StateDamaged, match="Input/output error"):
        durable.replace_file(path, b"new")
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("use", [durable.private_folder, lambda path: durable.replace_file(path, b"x")])
def test_the_operating_systems_refusals_are_ours(tmp_path: Path, use: Callable[[Path], object]) -> None:
    """A file where a folder should be gives an error that names the path, not a bare OSError."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StateDamaged, match="file/below"):
        use(tmp_path / "file" / "below")
