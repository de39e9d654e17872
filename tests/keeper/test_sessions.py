"""Commands through the keeper: many at once, slow readers, and what becomes of them when something dies."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from podlab.errors import AuthenticationFailed, BadArgument, HostKeyChanged, HostKeyUnknown, LinkLost, Unreachable
from podlab.transport import kept
from podlab.transport.base import Process
from podlab.transport.host_keys import HostKeys
from podlab.transport.kept import KeptTransport
from tests import machines
from tests.keeper.echo import EchoServer, greeting
from tests.keeper.gone import wait_until_gone
from tests.keeper.test_lifecycle import client, end, heard, keeper_pid, say


def test_a_slow_reader_costs_no_memory_and_holds_up_nobody(transport: KeptTransport) -> None:
    size = 150_000_000
    transport.run(["true"])
    keeper = psutil.Process(keeper_pid())
    before = keeper.memory_info().rss
    with transport.start(["head", "-c", str(size), "/dev/zero"]) as unread, transport.start(["yes"]) as endless:
        for _ in range(20):
            assert transport.run(["echo", "hi"]).text == "hi\n"
        assert keeper.memory_info().rss - before < 32 * 2**20
        count = 0
        while (piece := unread.read(30)) is not None:
            count += len(piece[1])
        assert count == size
        assert unread.wait(10) == 0
        assert endless.read(10) is not None
        assert keeper.memory_info().rss - before < 48 * 2**20


def test_input_that_nobody_reads_costs_no_memory(transport: KeptTransport) -> None:
    with transport.start(["sleep", "600"]) as process:
        keeper = psutil.Process(keeper_pid())
        before = keeper.memory_info().rss
        stuck = threading.Thread(target=_write_until_let_go, args=(process,), daemon=True)
        stuck.start()
        for _ in range(20):
            assert transport.run(["echo", "hi"]).text == "hi\n"
        assert keeper.memory_info().rss - before < 32 * 2**20
        assert stuck.is_alive()
    stuck.join(10)
    assert not stuck.is_alive()


def _write_until_let_go(process: Process) -> None:
    try:
        while True:
            process.write(bytes(2**20))
    except BrokenPipeError:
        pass


def test_waiting_without_reading(transport: KeptTransport) -> None:
    with transport.start(["head", "-c", "1000000", "/dev/zero"]) as process:
        assert process.wait(30) == 0
        count = 0
        while (piece := process.read(10)) is not None:
            count += len(piece[1])
        assert count == 1_000_000


def test_waiting_never_takes_in_without_end(transport: KeptTransport) -> None:
    with transport.start(["yes"]) as process:
        with pytest.raises(TimeoutError):
            process.wait(1.0)
        assert process.read(1.0) is not None


def test_a_command_that_closes_its_output_first(transport: KeptTransport) -> None:
    with transport.start(["sh", "-c", "echo x; exec >&- 2>&-; read line; exit 7"]) as process:
        assert process.read(10) == ("stdout", b"x\n")
        assert process.read(10) is None
        with pytest.raises(TimeoutError):
            process.wait(0.1)
        process.write(b"go\n")
        assert process.wait(10) == 7


def test_thirty_at_once(transport: KeptTransport) -> None:
    def one(number: int) -> bytes:
        with transport.start(["cat"]) as process:
            together.wait(30)
            process.write(b"%d" % number)
            process.close_stdin()
            said = process.read(30)
            assert process.read(30) is None
            assert process.wait(30) == 0
            assert said is not None
            return said[1]

    together = threading.Barrier(31)
    with ThreadPoolExecutor(30) as pool:
        answers = pool.map(one, range(30))
        together.wait(30)
        assert list(answers) == [b"%d" % number for number in range(30)]
    status = kept.status()
    assert status is not None
    assert status.pods == ("pod-1",)


def test_the_link_to_the_pod_is_cut(transport: KeptTransport, sshd: machines.Sshd) -> None:
    with transport.start(["cat"]) as process:
        pid = keeper_pid()
        assert sshd.kill_sessions()
        for call in (process.read, process.wait, lambda: process.write(b"x")):
            with pytest.raises(LinkLost, match="pod 'pod'"):
                call()
    assert transport.run(["echo", "again"]).text == "again\n"
    assert keeper_pid() == pid


def test_a_client_that_dies_lets_go_of_its_command(transport: KeptTransport, sshd: machines.Sshd) -> None:
    one = client(sshd)
    try:
        assert one.stdout is not None
        one.stdout.readline()
        say(one)
        remote_pid = heard(one)[1]
        os.kill(one.pid, signal.SIGKILL)
        wait_until_gone(remote_pid)
    finally:
        end(one)


def test_closing_the_transport_cuts_this_clients_commands_only(transport: KeptTransport, sshd: machines.Sshd) -> None:
    other = KeptTransport("pod", "pod-1", sshd.address)
    ours, theirs = transport.start(["cat"]), other.start(["cat"])
    transport.close()
    with pytest.raises(LinkLost):
        ours.wait(10)
    theirs.close_stdin()
    assert theirs.wait(10) == 0
    for process in (ours, theirs):
        process.close()


def test_another_address_lets_commands_finish(transport: KeptTransport, sshd: machines.Sshd) -> None:
    with transport.start(["cat"]) as process:
        moved = KeptTransport("pod", "pod-1", replace(sshd.address, host="localhost"))
        assert moved.run(["echo", "there"]).text == "there\n"
        process.write(b"here")
        assert process.read(10) == ("stdout", b"here")
        process.close_stdin()
        assert process.wait(10) == 0


def test_a_dropped_pod_loses_its_commands(transport: KeptTransport) -> None:
    with transport.start(["cat"]) as process:
        transport.open_port(9)
        kept.drop_pod("pod-1")
        with pytest.raises(LinkLost):
            process.wait(10)
        assert kept.forwards() == []
        status = kept.status()
        assert status is not None
        assert status.pods == ()


def test_nothing_is_left_of_commands_and_connections(transport: KeptTransport) -> None:
    with EchoServer() as echo:
        port = transport.open_port(echo.port).local_port

        def some(_: int) -> None:
            transport.run(["true"])
            transport.run(["sh", "-c", "exit 3"], check=False)
            transport.start(["cat"]).close()
            assert greeting(port) == b"hello\n"

        def many() -> tuple[int, int]:
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(some, range(20)))
            transport.run(["true"])
            return keeper.num_fds(), keeper.num_threads()

        transport.run(["true"])
        keeper = psutil.Process(keeper_pid())
        first = many()
        for _ in range(3):
            latest = many()
        assert latest[0] <= first[0] + 8
        assert latest[1] <= first[1] + 8


# What a pod's SSH server says reaches the client as it would without a keeper.


def test_an_unknown_host_key(sshd: machines.Sshd) -> None:
    transport = KeptTransport("new", "pod-2", sshd.address)
    with pytest.raises(HostKeyUnknown) as caught:
        transport.run(["true"])
    error = caught.value
    assert (error.pod, error.host, error.fingerprint) == ("new", "127.0.0.1", sshd.fingerprint())
    assert (error.key_type, error.key_base64) == sshd.public_key()
    assert sshd.fingerprint() in error.hint
    HostKeys().pin("pod-2", error.key_type, error.key_base64)
    assert transport.run(["echo", "hi"]).text == "hi\n"


def test_a_changed_host_key(sshd: machines.Sshd, tmp_path: Path) -> None:
    other = machines.make_key(tmp_path / "other").with_name("other.pub").read_text().split()
    HostKeys().pin("pod-3", other[0], other[1])
    with pytest.raises(HostKeyChanged) as caught:
        KeptTransport("changed", "pod-3", sshd.address).run(["true"])
    assert caught.value.shown == sshd.fingerprint()
    assert caught.value.expected.startswith("SHA256:")


def test_no_key_is_accepted(sshd: machines.Sshd, tmp_path: Path) -> None:
    sshd.pin(HostKeys(), "pod-4")
    wrong = replace(sshd.address, identity_files=(str(machines.make_key(tmp_path / "wrong")),))
    with pytest.raises(AuthenticationFailed, match="accepted none of 1 key") as caught:
        KeptTransport("pod", "pod-4", wrong).run(["true"])
    assert caught.value.hint


def test_nothing_listens(sshd: machines.Sshd) -> None:
    gone = replace(sshd.address, port=machines.free_port())
    with pytest.raises(Unreachable, match="nothing listens there"):
        KeptTransport("pod", "pod-5", gone).run(["true"])


def test_what_cannot_be_sent(transport: KeptTransport) -> None:
    for length in (200_000, 3_000_000):
        with pytest.raises(BadArgument, match="takes 120000"):
            transport.run(["echo", "x" * length])
    with pytest.raises(BadArgument):
        transport.open_port(0)


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """An agent that is started after the keeper."""
    address = str(tmp_path / "agent")
    with subprocess.Popen(["ssh-agent", "-D", "-a", address], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it listens once it says where
        yield address
        process.terminate()


def test_the_agent_is_the_clients(
    transport: KeptTransport, sshd: machines.Sshd, agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sshd.pin(HostKeys(), "pod-6")
    without = KeptTransport("pod", "pod-6", replace(sshd.address, identity_files=()))
    with pytest.raises(AuthenticationFailed):
        without.run(["true"])
    monkeypatch.setenv("SSH_AUTH_SOCK", agent)
    subprocess.run(["ssh-add", "-q", str(sshd.identity)], check=True)
    assert without.run(["echo", "hi"]).text == "hi\n"
