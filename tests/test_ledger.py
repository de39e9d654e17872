"""The ledger: what was acknowledged is there, what is damaged is noticed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from podlab.errors import StateDamaged
from podlab.ledger import Entry, Ledger, Trust
from podlab.settings import home
from tests.processes import stopped_holder

anything = st.text(st.characters(exclude_categories=[]))


@pytest.fixture
def path() -> Path:
    return home() / "ledger.jsonl"


@pytest.fixture
def three(path: Path) -> bytes:
    """The bytes of a ledger of three lines."""
    ledger = Ledger()
    for number in range(3):
        ledger.append("pod.create", f"pod-{number}", name=f"lab-{number}", note="é\n\x85\u2028")
    return path.read_bytes()


def python(body: str, *words: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(body), *map(str, words)], stdout=subprocess.PIPE)


def test_what_is_written_is_read(path: Path) -> None:
    """Entries come back in order, numbered from 1, with what was given; the file is private and a JSON line each."""
    before = os.umask(0)
    try:
        written = [Ledger().append("pod.create", "p1", name="lab", price="2.1"), Ledger().append("pod.end", "p1")]
    finally:
        os.umask(before)
    assert Ledger().entries() == written
    assert [entry.number for entry in written] == [1, 2]
    assert written[0] == Entry(1, written[0].at, "pod.create", "p1", {"name": "lab", "price": "2.1"})
    assert len([json.loads(line) for line in path.read_text().splitlines()]) == 2
    assert path.stat().st_mode & 0o777 == 0o600


def test_none_yet() -> None:
    """No file: no entries."""
    assert Ledger().entries() == []


@hypothesis_settings(deadline=None, max_examples=30)
@given(anything, st.dictionaries(st.from_regex(r"[a-z_]{3,9}", fullmatch=True), anything, max_size=3))
def test_any_text_is_kept(subject: str, detail: dict[str, str]) -> None:
    """Any text, half characters and line ends of every kind included, is read back as it was written."""
    ledger = Ledger()
    detail.pop("verb", None)
    detail.pop("subject", None)
    entry = ledger.append("x", subject, **detail)
    assert ledger.entries()[-1] == entry == Entry(entry.number, entry.at, "x", subject, detail)


def test_a_torn_tail_at_every_byte(path: Path, three: bytes) -> None:
    """Wherever the last line was cut, the ones before are read and the next one is written behind them."""
    kept = three.rindex(b"\n", 0, len(three) - 1) + 1
    for cut in range(kept, len(three)):
        path.write_bytes(three[:cut])
        assert [entry.subject for entry in Ledger().entries()] == ["pod-0", "pod-1"]
        if cut % 16 == 0 or cut in (kept, len(three) - 1):
            Ledger().append("pod.create", "next")
            assert [entry.subject for entry in Ledger().entries()] == ["pod-0", "pod-1", "next"]


def test_a_tail_of_nothing_is_torn(path: Path, three: bytes) -> None:
    """Zeros that a power cut left behind the last line are cut off."""
    path.write_bytes(three + b"\0" * 4096)
    assert len(Ledger().entries()) == 3
    Ledger().append("pod.end", "pod-0")
    assert len(Ledger().entries()) == 4


def test_damage_anywhere_else_fails_closed(path: Path, three: bytes) -> None:
    """Any changed byte of an acknowledged line, its end included, refuses reading and appending; nothing is touched."""
    for position in range(len(three)):
        damaged = bytearray(three)
        damaged[position] ^= 0x20 if position % 2 else 0x01
        path.write_bytes(damaged)
        with pytest.raises(StateDamaged, match=r"line \d is damaged"):
            Ledger().entries()
        if position % 50 == 0 or position == len(three) - 1:
            with pytest.raises(StateDamaged):
                Ledger().append("pod.create", "new")
            assert path.read_bytes() == damaged


def test_the_chain_shows_what_was_taken_out(path: Path, three: bytes) -> None:
    """A line removed, repeated, exchanged or put in from another ledger is noticed."""
    lines = three.splitlines(keepends=True)
    for kept in ([1, 2], [0, 2], [1, 0, 2], [0, 0, 1], [0, 1, 1], [1], [2, 1, 0]):
        path.write_bytes(b"".join(lines[number] for number in kept))
        with pytest.raises(StateDamaged):
            Ledger().entries()
    for foreign in (b"\n", b"{}\n", b"[1]\n", b'{"sum": 1}\n', b"[" * 100_000 + b"\n", b"\xff\n", b"null\n"):
        path.write_bytes(three + foreign)
        with pytest.raises(StateDamaged):
            Ledger().append("pod.create", "new")


def test_processes_lose_nothing() -> None:
    """8 processes that append 15 lines each at the same time leave 120 whole lines, each process's own in order."""
    body = """
        import sys
        from podlab.ledger import Ledger
        for number in range(15):
            Ledger().append("pod.create", sys.argv[1], number=str(number))
    """
    workers = [python(body, number) for number in range(8)]
    for worker in workers:
        with worker:
            assert worker.wait() == 0
    entries = Ledger().entries()
    assert [entry.number for entry in entries] == list(range(1, 121))
    for subject in map(str, range(8)):
        assert [e.detail["number"] for e in entries if e.subject == subject] == [str(number) for number in range(15)]


def test_kill_9_loses_no_acknowledged_line(path: Path) -> None:
    """Every line whose append returned is there after its process was killed, again and again."""
    acknowledged: set[str] = set()
    for run in range(15):
        with python(
            """
            import sys
            from podlab.ledger import Ledger
            ledger = Ledger()
            for number in range(10**6):
                ledger.append("x", f"{sys.argv[1]}-{number}")
                print(f"{sys.argv[1]}-{number}", flush=True)
            """, run,
        ) as writer:  # fmt: skip
            assert writer.stdout is not None
            for _ in range(1 + run % 4):
                acknowledged.add(writer.stdout.readline().decode().strip())
            writer.send_signal(signal.SIGKILL)
            acknowledged |= set(writer.stdout.read().decode().split("\n")[:-1])
    assert acknowledged - {""} <= {entry.subject for entry in Ledger().entries()}
    assert len(acknowledged) >= 15


def test_on_the_disk_before_it_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file holds the whole line when it is synced, its folder is synced after it, and only then append returns."""
    events: list[tuple[str, int]] = []
    real = os.fsync

    def trace(descriptor: int) -> None:
        target = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        events.append((target.name, path.stat().st_size))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", trace)
    Ledger().append("pod.create", "p1")
    whole = path.stat().st_size
    assert events == [(path.name, whole), (path.parent.name, whole)]
    assert path.read_bytes().endswith(b"\n")


def test_a_failed_fsync_is_no_entry(path: Path, three: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk does not take a line, append raises and the line is not read as if it had been committed."""

    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StateDamaged, match="Input/output error"):
            Ledger().append("pod.create", "new")
    assert path.read_bytes() == three
    assert Ledger().append("pod.create", "new").number == 4


def test_a_full_disk_is_no_entry(path: Path, three: bytes) -> None:
    """Where there is no room the error is ours, and the ledger is as it was."""
    with python(
        """
        import resource, signal, sys
        from podlab.errors import StateDamaged
        from podlab.ledger import Ledger
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        size = int(sys.argv[1]) + 20
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        try:
            Ledger().append("pod.create", "new")
        except StateDamaged as error:
            print(error)
        """, len(three),
    ) as writer:  # fmt: skip
        assert writer.stdout is not None
        assert b"ledger.jsonl cannot be written" in writer.stdout.read()
    assert path.read_bytes() == three


def test_a_reader_beside_writers_sees_no_damage(path: Path, three: bytes) -> None:
    """Reading while another process cuts off a torn tail and writes on never takes that for damage."""
    path.write_bytes(three[:-30])
    with python(
        """
        from podlab.ledger import Ledger
        from podlab.settings import home
        ledger, path = Ledger(), home() / "ledger.jsonl"
        for number in range(60):
            ledger.append("x", "y" * (number * 7 % 300))
            with path.open("ab") as file:
                file.write(b'{"n": 1, "at": 17')
        """
    ) as writer:
        while writer.poll() is None:
            assert len(Ledger().entries()) >= 2
    assert writer.returncode == 0
    assert len(Ledger().entries()) == 62


def test_a_writer_that_was_stopped_keeps_nobody_for_ever(path: Path, three: bytes) -> None:
    """Others can read, and learn within their patience that nothing can be written; later all is well again."""
    with stopped_holder(path.with_name("ledger.lock")) as holder:
        ledger = Ledger(lock_s=0.2)
        for _ in range(2):
            with pytest.raises(StateDamaged, match=rf"held by another process .*process {holder.pid}"):
                ledger.append("pod.create", "new")
        assert len(ledger.entries()) == 3
        assert path.read_bytes() == three
    assert ledger.append("pod.create", "new").number == 4


def trusted(path: Path, *lines: bytes) -> list[tuple[str, str]]:
    """What is salvaged of these lines: each one's subject and how far it is believed."""
    path.write_bytes(b"".join(lines))
    return [(each.entry.subject, each.trust.value) for each in Ledger().salvaged()]


@pytest.fixture
def five(path: Path) -> list[bytes]:
    """The lines of a ledger of five."""
    for number in range(5):
        Ledger().append("pod.create", f"p{number}", name=f"lab-{number}")
    return path.read_bytes().splitlines(keepends=True)


PROVEN, ALONE, WRONG = Trust.PROVEN.value, Trust.ALONE.value, Trust.WRONG.value


def test_of_a_whole_file_all_is_proven(path: Path, five: list[bytes]) -> None:
    assert trusted(path, *five) == [(f"p{number}", PROVEN) for number in range(5)]


def test_a_line_that_was_changed_is_believed_nowhere_and_those_beside_it_are(path: Path, five: list[bytes]) -> None:
    changed = five[2].replace(b"lab-2", b"lab-9")
    assert trusted(path, *five[:2], changed, *five[3:]) == [
        ("p0", PROVEN), ("p1", PROVEN), ("p2", WRONG), ("p3", PROVEN), ("p4", PROVEN),
    ]  # fmt: skip


def test_a_sum_that_was_damaged_is_made_up_for_by_the_next_line(path: Path, five: list[bytes]) -> None:
    at = five[2].index(b'"sum": "') + 8
    damaged = five[2][:at] + bytes([five[2][at] ^ 1]) + five[2][at + 1 :]
    assert trusted(path, *five[:2], damaged, *five[3:]) == [(f"p{number}", PROVEN) for number in range(5)]
    assert trusted(path, *five[:2], damaged)[2:] == [("p2", WRONG)]


def test_behind_a_line_that_is_lost_one_stands_alone_and_the_rest_is_proven(path: Path, five: list[bytes]) -> None:
    rest = [("p0", PROVEN), ("p2", ALONE), ("p3", PROVEN), ("p4", PROVEN)]
    for lost in (b"\0" * 80 + b"\n", five[1][:40] + b"\n", b"{}\n", b""):
        assert trusted(path, five[0], lost, *five[2:]) == rest
    assert trusted(path, five[0], b"\0" * 300, *five[2:]) == [("p0", PROVEN), ("p3", ALONE), ("p4", PROVEN)]


def test_what_was_put_in_takes_nothing_else_along(path: Path, five: list[bytes]) -> None:
    """Garbage, a line of another ledger, a line again, and a torn last line."""
    foreign = b'{"n": 3, "at": 1.5, "verb": "x", "subject": "theirs", "detail": {}, "sum": "0"}\n'
    whole = [(f"p{number}", PROVEN) for number in range(5)]
    assert trusted(path, *five[:2], b"garbage\n", *five[2:]) == whole
    assert trusted(path, *five[:2], foreign, *five[2:]) == [*whole[:2], ("theirs", WRONG), *whole[2:]]
    assert [each for each in trusted(path, *five[:2], five[1], *five[2:]) if each[1] == PROVEN] == whole
    assert trusted(path, *five, five[0][:-1]) == whole
    assert trusted(path, b'{"n": [], "at": {}, "verb": 1, "subject": 2, "detail": {"a": 1}, "sum": null}\n') == []


def test_what_is_no_file_is_refused(path: Path, tmp_path: Path) -> None:
    """A folder or a planted symlink in the ledger's place is an error of ours, and what the link names is untouched."""
    path.mkdir()
    with pytest.raises(StateDamaged):
        Ledger().entries()
    path.rmdir()
    victim = tmp_path / "victim"
    victim.write_text("")
    path.symlink_to(victim)
    with pytest.raises(StateDamaged):
        Ledger().append("pod.create", "new")
    assert victim.read_text() == ""
