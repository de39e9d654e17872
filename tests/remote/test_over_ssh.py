"""The same over a real SSH server, whose sessions are killed while things are under way."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from podlab.errors import PodlabError
from podlab.lab.facts import Piece
from podlab.lab.supervisor import PodSide, result_of
from podlab.transport.host_keys import HostKeys
from podlab.transport.ssh import SshTransport
from tests import machines
from tests.remote.bench import Bench, running


@pytest.fixture
def far(sshd: machines.Sshd, tmp_path: Path, own_home: Path) -> Iterator[Bench]:
    pins = HostKeys()
    sshd.pin(pins, "far")
    with SshTransport("far", sshd.address, pins) as transport:
        bench = Bench(PodSide(transport, str(tmp_path / "pod")), tmp_path / "pod")
        yield bench
        bench.sweep()


def test_an_endpoint_outlives_the_sessions_it_was_started_and_watched_by(far: Bench, sshd: machines.Sshd) -> None:
    facts = far.ready("--key-env", "SERVER_KEY")
    sshd.kill_sessions()
    again = far.facts(facts.id)
    assert again.pid == facts.pid
    assert again.health is not None
    assert again.health.models == ("tiny-1",)
    stopped = result_of(far.side.stop(facts.id))
    assert stopped.was_running
    assert facts.pid is not None
    assert not running(facts.pid)


def test_a_log_is_whole_although_its_sessions_are_killed(far: Bench, sshd: machines.Sshd) -> None:
    facts = far.job("for n in 1 2 3 4 5 6; do head -c 100000 /dev/urandom; sleep 0.1; done; exit 3")
    heard: list[Piece] = []
    lost: list[PodlabError] = []
    work = far.side.follow_through(facts.id, "stdout", on_lost=lost.append)
    status = None
    while status is None:
        try:
            heard.append(next(work))
        except StopIteration as end:
            status = end.value.status
        if len(heard) in (2, 7):
            sshd.kill_sessions()
    assert status == 3
    assert lost
    written = (far.folder(facts.id) / "stdout.1").read_bytes()
    assert len(written) == 600_000
    got = b"".join(piece.data for piece in heard)
    assert hashlib.sha256(got).digest() == hashlib.sha256(written).digest()
