"""Logs of real processes, byte for byte: followed, resumed, over restarts, and from their end."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import pytest

from podlab.errors import BadArgument, SupervisorError
from podlab.lab.facts import ExitFacts, Facts, LogStream, Piece
from podlab.lab.supervisor import PodSide, result_of
from tests.remote.bench import Bench, bench

# Bytes of every value, some lines longer than a piece, and a last line without an end.
NOISE = "head -c 200000 /dev/urandom; sleep 0.1; head -c 3000 /dev/urandom; sleep 0.1; printf end"


def all_of(
    pod: Bench, facts: Facts, stream: LogStream = "stdout", generation: int = 1, offset: int = 0
) -> tuple[list[Piece], ExitFacts]:
    pieces: list[Piece] = []
    work = pod.side.follow(facts.id, stream, generation, offset)
    while True:
        try:
            pieces.append(next(work))
        except StopIteration as end:
            return pieces, end.value


def test_what_is_followed_is_the_file_and_ends_with_the_status(pod: Bench) -> None:
    facts = pod.job(f"{NOISE}; echo oh >&2; exit 7")
    pieces, end = all_of(pod, facts)
    written = (pod.folder(facts.id) / "stdout.1").read_bytes()
    assert b"".join(piece.data for piece in pieces) == written
    assert len(written) == 203_003
    assert (end.status, end.signal, end.step) == (7, None, "run")
    assert b"".join(piece.data for piece in all_of(pod, facts, "stderr")[0]) == b"oh\n"
    assert pieces[0].offset == 0
    assert all(before.next_offset == after.offset for before, after in itertools.pairwise(pieces))


def test_following_resumes_at_any_byte(pod: Bench) -> None:
    facts = pod.job(NOISE)
    work = pod.side.follow(facts.id, "stdout")
    first = next(work)
    work.close()  # the link is gone; what comes after belongs to somebody who asks again
    rest, _ = all_of(pod, facts, offset=first.next_offset)
    written = (pod.folder(facts.id) / "stdout.1").read_bytes()
    assert first.data + b"".join(piece.data for piece in rest) == written
    middle, _ = all_of(pod, facts, offset=101_001)
    assert (
        hashlib.sha256(b"".join(piece.data for piece in middle)).digest() == hashlib.sha256(written[101_001:]).digest()
    )
    with pytest.raises(SupervisorError, match="fewer"):
        all_of(pod, facts, offset=10**6)


def test_following_goes_on_with_the_next_generation(pod: Bench) -> None:
    first = pod.ready()
    work = pod.side.follow(first.id, until_exit=False)
    heard = {1: b"", 2: b""}
    told = False
    for piece in work:
        heard[piece.generation] += piece.data
        if heard[1].endswith(b"listening\n") and not told:
            told = True
            result_of(pod.side.restart(first.id, 1))
        if heard[2].endswith(b"listening\n"):
            break
    work.close()
    assert heard[1] == heard[2] == b"loading the model\nlistening\n"
    result_of(pod.side.stop(first.id))
    pieces, end = all_of(pod, first, "log")
    assert [piece.generation for piece in pieces] == [1, 2]
    assert end.signal == 15


def test_heartbeats_keep_a_quiet_watch_alive(tmp_path: Path) -> None:
    pod = bench(tmp_path / "pod")
    facts = pod.job("exec sleep 60")
    hasty = PodSide(pod.side.transport, str(pod.home), pod.python, silence_s=3.9)  # it beats every 3 s
    assert result_of(hasty.watch(facts.id, 4.2, "ended")) == "timeout"
    pod.sweep()


def test_watch_tells_why_it_ends(pod: Bench) -> None:
    ended = pod.until_ended(pod.job("sleep 0.2; exit 4").id)
    assert ended.exit is not None
    assert ended.exit.status == 4
    work = pod.side.watch(pod.job("exec sleep 60").id, 0.2, "ended")
    assert result_of(work) == "timeout"


def test_tail_by_lines_offset_and_time(pod: Bench, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    facts = pod.job(f"seq 1 1000; sleep 0.1; until [ -e {gate} ]; do sleep 0.02; done; seq 1001 1010; exec sleep 60")
    work = pod.side.follow(facts.id, "stdout")
    heard = b""
    while not heard.endswith(b"\n1000\n"):
        heard += next(work).data
    last = pod.side.tail(facts.id, "stdout", lines=3)
    assert last.piece.data == b"998\n999\n1000\n"
    assert last.piece.next_offset == last.size == len(heard)
    marks = pod.folder(facts.id) / "marks.1"
    pod_time = pod.facts(facts.id).now
    gate.touch()
    while not heard.endswith(b"\n1010\n"):
        heard += next(work).data
    work.close()
    assert pod.side.tail(facts.id, "stdout", offset=last.size).piece.data == heard[last.size :]
    since = pod.side.tail(facts.id, "stdout", since=pod_time).piece
    assert heard.endswith(since.data)
    assert len(since.data) >= len(heard) - last.size
    assert marks.read_text().splitlines()[0].split()[1:] in (["0", "0"], ["3893", "0"])
    assert pod.side.tail(facts.id, "stdout", since=0.0).piece.data == heard
    assert pod.side.tail(facts.id, "stdout", lines=10**6).piece.data == heard
    assert pod.side.tail(facts.id, "stderr").piece.data == b""
    with pytest.raises(BadArgument, match="stream"):
        pod.side.tail(facts.id, "log")


def test_a_progress_bar_shows_as_its_last_state_and_long_lines_are_cut(pod: Bench) -> None:
    facts = pod.until_ended(pod.job("printf '1%%\\r50%%\\r99%%\\n' >&2; head -c 9000 /dev/zero | tr '\\0' x >&2").id)
    assert facts.lines == ("99%", "x" * 2000)
