"""The client against pods that do not behave: banners, garbage, silence, links that break, no Python."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from podlab.errors import EngineUnavailable, LinkLost, SupervisorError
from podlab.lab.facts import Piece
from podlab.lab.supervisor import PodSide
from podlab.transport.base import Process, Stream
from podlab.transport.local import LocalTransport
from tests.remote.bench import Bench, bench


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Bench]:
    made = bench(tmp_path / "pod")
    yield made
    made.sweep()


class Rewritten(LocalTransport):
    """Runs another command than the one that was asked for."""

    def __init__(self, change: Callable[[Sequence[str]], Sequence[str]]) -> None:
        super().__init__("odd")
        self._change = change

    def start(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> Process:
        return super().start(self._change(argv), env=env, cwd=cwd)


def says(script: str) -> PodSide:
    """A pod whose side is a shell script."""
    return PodSide(Rewritten(lambda argv: ("sh", "-c", script)), silence_s=5.0)


class Breaking(LocalTransport):
    """A link that breaks after so many bytes of answers, again and again."""

    def __init__(self, bytes_each: int) -> None:
        super().__init__("far")
        self._each = bytes_each
        self.links = 0

    def start(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> Process:
        self.links += 1
        return Link(super().start(argv, env=env, cwd=cwd), self._each)


class Link(Process):
    def __init__(self, inner: Process, left: int) -> None:
        self._inner, self._left = inner, left

    def read(self, timeout_s: float | None = None) -> tuple[Stream, bytes] | None:
        said = self._inner.read(timeout_s)
        if said is None:
            return None
        stream, data = said
        if self._left <= 0:
            raise LinkLost("the link broke", pod="far")
        kept, self._left = data[: self._left], self._left - len(data)  # cut anywhere, inside a line too
        return stream, kept

    def write(self, data: bytes) -> None:
        self._inner.write(data)

    def close_stdin(self) -> None:
        self._inner.close_stdin()

    def wait(self, timeout_s: float | None = None) -> int:
        return self._inner.wait(timeout_s)

    def close(self) -> None:
        self._inner.close()


def test_hello_tells_the_machine_and_writes_nothing(pod: Bench) -> None:
    facts = pod.side.hello()
    assert facts.home == str(pod.home)
    assert not pod.home.exists()
    assert facts.python == ".".join(map(str, sys.version_info[:3]))
    assert facts.cpus == len(os.sched_getaffinity(0))
    assert facts.user_home == os.environ["HOME"]
    assert pod.side.list() == pod.side.jobs() == ()
    assert not pod.home.exists()


def test_without_a_home_it_is_in_the_users_home_under_the_machines_id(own_home: Path) -> None:
    facts = PodSide(LocalTransport()).hello()
    assert facts.home == str(own_home / ".podlab" / "pod" / facts.machine_id)


def test_a_banner_before_the_answer_is_skipped(pod: Bench) -> None:
    noisy = Rewritten(lambda argv: ("sh", "-c", 'printf "Welcome!\\n\\n{\\"v\\n"; exec "$@"', "x", *argv))
    assert PodSide(noisy, str(pod.home), sys.executable).hello().home == str(pod.home)


@pytest.mark.parametrize(
    "script,message",
    [
        ("cat >/dev/null; echo '{\"v\":2}'", "speaks protocol 2"),
        ('cat >/dev/null; echo \'{"v":1,"protocol":"x"}\'', 'protocol = "x" in hello'),
        ("cat >/dev/null; yes banner", "said 'banner' instead of an answer"),
        ("cat >/dev/null; head -c 9000000 /dev/zero | tr '\\0' x", r"said 'xxxx.* instead of an answer"),
        ("cat >/dev/null; echo no such thing >&2; exit 5", "ended early with status 5: no such thing"),
        ("exit 5", "ended early with status 5: it said nothing"),
        ('echo \'{"v":1,"error":{"kind":"os","message":"No space left"}}\'', "No space left"),
        ('echo \'{"v":1,"error":7}\'', "sent 7 where error was due"),
    ],
)
def test_what_is_not_the_protocol_is_an_error_naming_it(script: str, message: str) -> None:
    with pytest.raises(SupervisorError, match=message):
        says(script).hello()


@pytest.mark.parametrize(
    "answer,message",
    [
        ('{"v":1,"facts":[1]}', r"sent \[1\] where facts"),
        ('{"v":1,"facts":{"kind":"thing"}}', "neither an endpoint nor a job"),
        ('{"v":1,"facts":{"kind":"job","id":5}}', "id = 5 in facts"),
        ('{"v":1,"facts":{"kind":"job","id":"x","name":"x","now":1e400}}', "now"),
        ('{"v":1,"facts":{"kind":"job","id":"x","name":"x","now":1,"generation":true}}', "generation = true"),
    ],
)
def test_facts_of_another_shape_are_refused(answer: str, message: str) -> None:
    with pytest.raises(SupervisorError, match=message):
        says(f"cat >/dev/null; echo '{answer}'").list()


def test_an_answer_that_jumps_is_refused() -> None:
    lines = '{"v":1,"g":1,"o":0,"d":"YWI="}\\n{"v":1,"g":1,"o":3,"d":"YWI="}\\n'
    work = says(f"cat >/dev/null; printf '{lines}'").follow("x")
    assert next(work) == Piece(1, 0, b"ab")
    with pytest.raises(SupervisorError, match="byte 3 of generation 1 where byte 2"):
        next(work)


def test_silence_is_a_lost_link() -> None:
    mute = PodSide(Rewritten(lambda argv: ("sh", "-c", "cat >/dev/null; exec sleep 60")), silence_s=0.3)
    began = time.monotonic()
    with pytest.raises(LinkLost, match=r"has said nothing for 0\.3 s"):
        mute.hello()
    assert time.monotonic() - began < 20


def test_a_pod_without_python_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(EngineUnavailable, match=r"no Python 3\.8 or newer") as caught:
        PodSide(LocalTransport()).hello()
    assert "apt-get install python3" in caught.value.hint
    # One that is too old, one that knows no -I and a shim of nothing are passed over for one that fits.
    for name, body in (("python3", "exit 97"), ("python3.13", "exit 2"), ("python3.12", "exit 127")):
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
        (tools / name).chmod(0o755)
    with pytest.raises(EngineUnavailable):
        PodSide(LocalTransport()).hello()
    (tools / "python3.9").symlink_to(sys.executable)
    assert PodSide(LocalTransport()).hello().cpus > 0


def test_following_through_a_link_that_keeps_breaking_loses_and_repeats_nothing(pod: Bench) -> None:
    facts = pod.job("for n in 1 2 3 4 5 6; do head -c 60000 /dev/urandom; sleep 0.05; done; exit 3")
    far = Breaking(90_000)
    pauses: list[float] = []
    work = PodSide(far, str(pod.home), sys.executable).follow_through(
        facts.id, "stdout", sleep=pauses.append, on_lost=lambda error: None
    )
    heard, end = b"", None
    while end is None:
        try:
            piece = next(work)
        except StopIteration as stop:
            end = stop.value
        else:
            assert piece.offset == len(heard)
            heard += piece.data
    assert heard == (pod.folder(facts.id) / "stdout.1").read_bytes()
    assert len(heard) == 360_000
    assert end.status == 3
    assert far.links > 4
    assert len(pauses) == far.links - 1


def test_following_through_gives_up_after_its_patience(pod: Bench) -> None:
    facts = pod.job("exec sleep 60")
    clock = iter(range(0, 1000, 10))
    work = PodSide(Breaking(0), str(pod.home), sys.executable).follow_through(
        facts.id, "stdout", patience_s=60.0, sleep=lambda s: None, clock=lambda: float(next(clock))
    )
    with pytest.raises(LinkLost):
        next(work)


def test_a_start_whose_answer_was_lost_is_repeated_without_harm(pod: Bench, tmp_path: Path) -> None:
    far = bench(pod.home)
    far.side = PodSide(Breaking(0), str(pod.home), sys.executable)
    count = tmp_path / "count"
    with pytest.raises(LinkLost):
        far.serve("--count", str(count), id="one")
    again = pod.serve("--count", str(count), id="one")
    assert pod.until_ready("one").pid == again.facts.pid
    assert len(count.read_text().split()) == 1
