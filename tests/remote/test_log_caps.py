"""Logs that come to their cap: the newest is kept, positions stay true, and no reader sees a hole."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from podlab.lab.facts import Facts, LogStream, Piece
from podlab.lab.supervisor import PodSide, result_of
from podlab.remote import streams
from podlab.transport.local import LocalTransport
from tests.processes import wait_until
from tests.remote.bench import PYTHON38, Bench

CAP_BYTES = 2**20
LINE_BYTES = 100
PARTS, PART_LINES = 8, 5000
TALK = """
import os, sys, time
parts, lines = int(sys.argv[1]), int(sys.argv[2])
for part in range(parts):
    for number in range(lines):
        os.write(1, b"%08d %s\\n" % (part * lines + number, b"." * 90))
    while sys.argv[3:] and not os.path.exists(sys.argv[3] + str(part)):
        time.sleep(0.01)
"""
"""Writes numbered lines of LINE_BYTES, a part at a time; before the next one it waits for a file, if one is named."""


def line(number: int) -> bytes:
    return b"%08d %s\n" % (number, b"." * 90)


@pytest.fixture(params=["own", "3.8"])
def pod(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """What is started there may keep CAP_BYTES of each stream."""
    python = sys.executable if request.param == "own" else PYTHON38
    if python is None:
        pytest.skip("no Python 3.8 here: set PODLAB_TEST_PYTHON38, or install one with pyenv")
    home = tmp_path / "pod"
    made = Bench(PodSide(LocalTransport(), str(home), python, log_cap_bytes=lambda: CAP_BYTES), home, python)
    yield made
    made.sweep()


def talker(pod: Bench, *words: object) -> Facts:
    from podlab.types import Step

    argv = (pod.python, "-I", "-S", "-c", TALK, *map(str, words))
    return pod.side.start(id="talker", name="talker", kind="job", steps=(Step("run", argv),)).facts


def all_of(pod: Bench, id: str, stream: LogStream = "stdout", offset: int = 0) -> list[Piece]:
    return list(pod.side.follow(id, stream, 1, offset))


def kept_bytes(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_a_chatty_job_does_not_fill_the_disk(pod: Bench) -> None:
    """Of 4 MB it wrote, about a cap is on the disk; who reads from the start is told how much is missing."""
    facts = talker(pod, PARTS, PART_LINES)
    pod.until_ended(facts.id)
    total = PARTS * PART_LINES * LINE_BYTES
    path = pod.folder(facts.id) / "stdout.1"
    assert CAP_BYTES // 4 < kept_bytes(path) <= CAP_BYTES + 2**16
    assert pod.facts(facts.id).log_bytes["stdout"] == total
    pieces = all_of(pod, facts.id)
    data = b"".join(piece.data for piece in pieces)
    first = pieces[0]
    assert first.dropped == first.offset > 0
    assert [piece.dropped for piece in pieces[1:]] == [0] * (len(pieces) - 1)
    assert b"\0" not in data
    assert pieces[-1].next_offset == total
    begin, rest = divmod(first.offset, LINE_BYTES)
    assert rest == 0, "what is kept begins with a line"
    assert data == b"".join(map(line, range(begin, PARTS * PART_LINES)))


def test_tails_of_a_shortened_stream_show_no_hole(pod: Bench) -> None:
    facts = talker(pod, PARTS, PART_LINES)
    pod.until_ended(facts.id)
    last = PARTS * PART_LINES
    assert pod.side.tail(facts.id, "stdout", lines=3).piece.data == b"".join(map(line, range(last - 3, last)))
    everything = pod.side.tail(facts.id, "stdout", lines=10**6)
    assert everything.piece.dropped == everything.piece.offset > 0
    assert b"\0" not in everything.piece.data
    assert everything.size == last * LINE_BYTES
    from_start = pod.side.tail(facts.id, "stdout", offset=500)
    assert from_start.piece.offset == everything.piece.offset == from_start.piece.dropped + 500
    assert from_start.piece.data.startswith(line(from_start.piece.offset // LINE_BYTES))
    inside = everything.piece.offset + 10 * LINE_BYTES
    assert pod.side.tail(facts.id, "stdout", offset=inside).piece.dropped == 0
    assert all_of(pod, facts.id, offset=inside)[0].dropped == 0


def test_who_follows_is_given_each_byte_or_told_of_it(pod: Bench, tmp_path: Path) -> None:
    """A program that writes faster than its stream is read: what comes is in order, and gaps are counted."""
    gate = tmp_path / "gate"
    facts = talker(pod, PARTS, PART_LINES, gate)
    path = pod.folder(facts.id) / "stdout.1"
    work = pod.side.follow(facts.id, "stdout")
    seen = [next(work)]
    for part in range(PARTS):
        size = (part + 1) * PART_LINES * LINE_BYTES
        wait_until(lambda size=size: streams.end_of(str(path)) >= size, timeout_s=20.0, why="a part is written")
        wait_until(lambda: kept_bytes(path) <= CAP_BYTES + 2**16, timeout_s=20.0, why="the stream is shortened")
        Path(f"{gate}{part}").touch()
    seen += work
    position = 0
    for piece in seen:
        assert piece.offset == position + piece.dropped
        begin = piece.offset
        numbers = range(begin // LINE_BYTES, piece.next_offset // LINE_BYTES + 1)
        whole = b"".join(map(line, numbers))
        assert whole[begin % LINE_BYTES :][: len(piece.data)] == piece.data
        position = piece.next_offset
    assert position == PARTS * PART_LINES * LINE_BYTES


def test_an_endpoint_serves_on_while_its_log_is_shortened(pod: Bench) -> None:
    facts = pod.ready()
    words = "x" * 60_000
    for _ in range(30):
        pod.tell(facts, f"/say/{words}")
    path = pod.folder(facts.id) / "log.1"
    wait_until(lambda: kept_bytes(path) <= CAP_BYTES, timeout_s=20.0, why="its log is shortened")
    now = pod.facts(facts.id)
    assert now.alive and now.pid == facts.pid
    assert now.log_bytes["log"] > 30 * 60_000
    assert now.lines[-1].strip("x") == ""
    os.kill(pod.monitor_of(facts.id), signal.SIGKILL)
    pod.tell(facts, "/say/after")
    assert pod.facts(facts.id).lines[-1] == "after"
    result_of(pod.side.stop(facts.id, grace_s=2))


def test_without_a_cap_nothing_is_dropped(pod: Bench) -> None:
    pod.side = PodSide(LocalTransport(), str(pod.home), pod.python)
    facts = talker(pod, PARTS, PART_LINES)
    pod.until_ended(facts.id)
    assert len(b"".join(piece.data for piece in all_of(pod, facts.id))) == PARTS * PART_LINES * LINE_BYTES


def refused(descriptor: int, length: int) -> None:
    raise OSError(errno.EOPNOTSUPP, "no hole can be made")


@pytest.fixture
def appended(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A file that a living program appends what it reads to."""
    path = tmp_path / "log.1"
    with path.open("ab") as file:
        process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file)
    yield path, process
    process.kill()
    process.wait()


def append(process: subprocess.Popen[bytes], path: Path, data: bytes, size: int) -> None:
    assert process.stdin is not None
    process.stdin.write(data)
    process.stdin.flush()
    wait_until(lambda: path.stat().st_size == size, timeout_s=10.0, why="it is written")


def test_where_no_hole_can_be_made_positions_go_on(appended: tuple[Path, subprocess.Popen[bytes]]) -> None:
    """The file is emptied under a program that appends to it, twice; no position is used again."""
    path, process = appended
    append(process, path, b"a" * 100_000, 100_000)
    streams.shorten(str(path), 2**16, refused)
    assert path.stat().st_size == 0
    first = streams.end_of(str(path))
    assert first >= 100_000
    assert streams.read_stream(str(path), 50, 1000) == (first, b"", first)
    append(process, path, b"b" * 70_000, 70_000)
    assert streams.read_stream(str(path), 0, 10) == (first, b"b" * 10, first + 70_000)
    assert streams.read_stream(str(path), -5, 5) == (first + 69_995, b"b" * 5, first + 70_000)
    streams.shorten(str(path), 2**16, refused)
    append(process, path, b"end", 3)
    second = streams.end_of(str(path)) - 3
    assert second > first + 70_000
    assert streams.read_stream(str(path), first, 10) == (second, b"end", second + 3)


def test_a_stream_below_its_cap_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "log.1"
    path.write_bytes(b"x" * 2**16)
    streams.shorten(str(path), 2**16, refused)
    assert path.read_bytes() == b"x" * 2**16
    assert streams.cut_of(str(path)) == (0, 0, True)
    (tmp_path / "log.1.cut").write_text("{torn")
    assert streams.read_stream(str(path), 0, 3) == (0, b"xxx", 2**16)
