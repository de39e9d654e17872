"""Forwards of the keeper: the same local port across connections, clients and keepers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from pathlib import Path

import pytest

from podlab.errors import BadArgument, StateDamaged, Unreachable
from podlab.keeper.forwards import SAVE_S, Forwards
from podlab.transport import kept
from podlab.transport.host_keys import HostKeys
from podlab.transport.kept import KeptTransport
from podlab.transport.kept_place import KEPT_S, Place
from podlab.transport.kept_wire import PodRef
from podlab.transport.ssh import SshTransport
from podlab.transport.tunnel import PodStream
from podlab.types import SshAddress
from tests import machines
from tests.keeper.echo import EchoServer, greeting
from tests.keeper.gone import wait_until_gone
from tests.keeper.test_lifecycle import keeper_pid
from tests.processes import wait_until

POD = PodRef("pod", "pod-1", SshAddress("127.0.0.1"))


def test_asking_again_gives_the_same(transport: KeptTransport, sshd: machines.Sshd) -> None:
    with EchoServer() as echo:
        first = transport.open_port(echo.port)
        assert KeptTransport("pod", "pod-1", sshd.address).open_port(echo.port).local_port == first.local_port
        assert transport.open_port(echo.port, local_port=machines.free_port()).local_port == first.local_port
        assert kept.forwards() == [("pod-1", first.local_port, echo.port)]
        assert greeting(first.local_port) == b"hello\n"
        first.close()
        first.close()
        assert kept.forwards() == []
        assert not Place.here().forwards.exists()
        with pytest.raises(ConnectionRefusedError):
            greeting(first.local_port)
        assert transport.open_port(echo.port).local_port == first.local_port  # it comes back where it was


def test_a_port_of_ones_own(transport: KeptTransport) -> None:
    wished = machines.free_port()
    assert transport.open_port(9, local_port=wished).local_port == wished
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(BadArgument, match="cannot be used"):
            transport.open_port(10, local_port=taken.getsockname()[1])
    assert kept.forwards() == [("pod-1", wished, 9)]


def test_it_is_written_down_before_it_is_announced(transport: KeptTransport) -> None:
    port = transport.open_port(9).local_port
    (row,) = json.loads(Place.here().forwards.read_text())["forwards"]
    assert (row["remote_port"], row["local_port"], row["pod"]["id"]) == (9, port, "pod-1")


def test_the_link_to_the_pod_is_cut(transport: KeptTransport, sshd: machines.Sshd) -> None:
    with EchoServer() as echo:
        port = transport.open_port(echo.port).local_port
        with socket.create_connection(("127.0.0.1", port), 10) as open_one:
            assert open_one.recv(6) == b"hello\n"
            assert sshd.kill_sessions()
            with pytest.raises(ConnectionResetError):  # an answer that was cut must not look like one that ended
                open_one.recv(1)
        assert greeting(port) == b"hello\n"


def test_a_port_that_was_taken_meanwhile_is_forgotten(transport: KeptTransport) -> None:
    port = transport.open_port(9).local_port
    other = transport.open_port(10).local_port
    pid = keeper_pid()
    os.kill(pid, signal.SIGKILL)
    wait_until_gone(pid)
    with socket.create_server(("127.0.0.1", port)):
        assert kept.forwards() == [("pod-1", other, 10)]
        assert transport.open_port(9).local_port not in (port, other)
    assert "forgetting the forward to port 9" in (Place.here().home / "logs" / "podlab.log").read_text()


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"format": 99}', b'{"format": 1, "forwards": [{"pod": 1}]}'])
def test_a_damaged_list_stops_nobody(transport: KeptTransport, damage: bytes) -> None:
    Place.here().forwards.write_bytes(damage)
    assert kept.forwards() == []
    assert transport.open_port(9).local_port


def test_a_pod_that_moved(transport: KeptTransport, sshd: machines.Sshd, tmp_path: Path) -> None:
    with EchoServer() as echo:
        port = KeptTransport("pod", "pod-1", SshAddress("127.0.0.1", port=machines.free_port())).open_port(echo.port)
        with pytest.raises(OSError, match="reset"):
            greeting(port.local_port)
        assert transport.open_port(echo.port).local_port == port.local_port
        assert greeting(port.local_port) == b"hello\n"


def test_a_host_key_that_is_not_known_is_a_reset(sshd: machines.Sshd) -> None:
    with EchoServer() as echo:
        port = KeptTransport("pod", "pod-7", sshd.address).open_port(echo.port).local_port
        with pytest.raises(ConnectionResetError):
            greeting(port)
        sshd.pin(HostKeys(), "pod-7")
        assert greeting(port) == b"hello\n"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def no_stream(ref: PodRef, port: int) -> PodStream:
    raise OSError("nothing there")


def test_what_counts_as_something_to_keep(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "keeper.json"
    forwards = Forwards(path, no_stream, now=clock)
    assert not forwards.tend()
    forwards.open(POD, 9, 0)
    clock.now += KEPT_S - 1
    assert forwards.tend()
    clock.now += 2
    assert not forwards.tend()
    forwards.open(POD, 9, 0)  # asked for again
    assert forwards.tend()
    forwards.close_all(forget=False)


def test_what_nobody_uses_is_closed_while_the_keeper_lives(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "keeper.json"
    forwards = Forwards(path, no_stream, now=clock)
    old = forwards.open(POD, 9, 0)
    clock.now += KEPT_S - 1
    young = forwards.open(POD, 10, 0)
    assert forwards.tend()
    assert len(forwards.rows()) == 2
    clock.now += 2
    assert forwards.tend()
    assert forwards.rows() == (("pod-1", young, 10),)
    assert [row["remote_port"] for row in json.loads(path.read_text())["forwards"]] == [10]
    with pytest.raises(ConnectionRefusedError):
        greeting(old)
    clock.now += KEPT_S
    assert not forwards.tend()
    assert not path.exists()


def test_what_goes_on_for_too_long_is_reset(sshd: machines.Sshd, tmp_path: Path) -> None:
    sshd.pin(HostKeys(), "pod-1")
    with EchoServer() as echo, SshTransport("pod", sshd.address, HostKeys(), pod_id="pod-1") as way:
        forwards = Forwards(tmp_path / "keeper.json", lambda ref, port: way.open_stream(port))
        port = forwards.open(POD, echo.port, 0)
        with socket.create_connection(("127.0.0.1", port), 10) as stream:
            assert stream.recv(6) == b"hello\n"
            forwards.hand_over()
            assert forwards.rows() == () and forwards.is_carrying()
            stream.sendall(b"on")
            assert stream.recv(100) == b"on"
            with pytest.raises(ConnectionRefusedError):
                greeting(port)
            forwards.cut()
            with pytest.raises(ConnectionResetError):  # an answer that was cut must not look like one that ended
                stream.recv(1)
        wait_until(lambda: not forwards.is_carrying(), timeout_s=10, why="the connection is over")


def test_what_the_next_keeper_opens_again(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "keeper.json"
    first = Forwards(path, no_stream, now=clock)
    old = first.open(POD, 9, 0)
    clock.now += KEPT_S / 2
    young = first.open(POD, 10, 0)
    assert old != young
    first.close_all(forget=False)
    clock.now += KEPT_S / 2 + SAVE_S
    second = Forwards(path, no_stream, now=clock)
    second.restore()
    assert second.rows() == (("pod-1", young, 10),)
    second.close_all(forget=True)
    assert not path.exists()


def test_a_forward_that_cannot_be_written_down_is_not_announced(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    forwards = Forwards(folder / "keeper.json", no_stream)
    folder.rmdir()
    with pytest.raises(StateDamaged, match="gone"):
        forwards.open(POD, 9, 0)
    assert forwards.rows() == ()


def test_a_pod_that_moved_keeps_its_local_ports(tmp_path: Path) -> None:
    """A rented pod has another address after each start: what is open leads there from then on, and after a crash."""
    asked: list[PodRef] = []

    def nowhere(ref: PodRef, port: int) -> PodStream:
        asked.append(ref)
        raise Unreachable("nobody is there")

    moved = PodRef("pod", "pod-1", SshAddress("127.0.0.1", port=40001))
    other = PodRef("other", "pod-2", SshAddress("127.0.0.1", port=2))
    forwards = Forwards(tmp_path / "keeper.json", nowhere)
    port, other_port = forwards.open(POD, 8000, 0), forwards.open(other, 8000, 0)

    forwards.repoint(moved)

    for local_port in (port, other_port):
        with contextlib.suppress(ConnectionResetError), socket.create_connection(("127.0.0.1", local_port), 10):
            pass
    wait_until(lambda: len(asked) == 2, timeout_s=20, why="both connections ask for their pod")
    assert sorted(ref.address.port or 0 for ref in asked) == [2, 40001]
    assert forwards.rows() == (("pod-1", port, 8000), ("pod-2", other_port, 8000))
    assert "40001" in (tmp_path / "keeper.json").read_text()
    forwards.close_all(forget=True)
