"""One keeper per PODLAB_HOME: it starts by itself, outlives its clients, and ends when nothing is left to keep."""

from __future__ import annotations

import functools
import itertools
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from podlab.errors import KeeperError, LinkLost, StateDamaged
from podlab.keeper.server import LINGER_S, LOOK_S, linger
from podlab.logs import log_path
from podlab.transport import kept, kept_link, kept_wire
from podlab.transport.host_keys import HostKeys
from podlab.transport.kept import KeptTransport
from podlab.transport.kept_place import Place
from tests import machines
from tests.keeper.conftest import keepers
from tests.keeper.echo import EchoServer, greeting
from tests.keeper.gone import wait_until_gone
from tests.processes import deleted_under_way

CLIENT = """
import os, sys
from podlab.transport import kept
from podlab.types import SshAddress
host, port, user, identity, remote = sys.argv[1:]
pod = kept.KeptTransport("pod", "pod-1", SshAddress(host, user, int(port), (identity,)))
print("loaded", flush=True)
sys.stdin.readline()
forward = pod.open_port(int(remote))
process = pod.start(["sh", "-c", "echo $$; exec cat"])
_, remote_pid = process.read()
print(forward.local_port, int(remote_pid), kept.status().pid, flush=True)
sys.stdin.readline()
"""


def client(machine: machines.Sshd, remote_port: int = 9) -> subprocess.Popen[str]:
    """A process of its own group that opens a port and starts a command when it is sent a line, and then waits."""
    words = [machine.host, str(machine.port), machine.user, str(machine.identity), str(remote_port)]
    command = [sys.executable, "-c", CLIENT, *words]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip


def say(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def heard(process: subprocess.Popen[str]) -> list[int]:
    assert process.stdout is not None
    return [int(word) for word in process.stdout.readline().split()]


def end(process: subprocess.Popen[str]) -> None:
    with process:
        process.kill()


def keeper_pid() -> int:
    status = kept.status()
    assert status is not None
    return status.pid


def test_nothing_is_started_by_asking(transport: KeptTransport) -> None:
    assert kept.status() is None
    assert kept.forwards() == []
    kept.stop_keeper()
    kept.drop_pod("pod-1")
    assert keepers(os.environ["PODLAB_HOME"]) == []


def test_it_starts_by_itself_and_belongs_to_nobody(transport: KeptTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    monkeypatch.setenv("PODLAB_SOMETHING", "kept")
    way = {"https_proxy": "http://me:canary-of-a-proxy@127.0.0.1:9", "NO_PROXY": "127.0.0.1", "TZ": "Asia/Tokyo"}
    for name, text in way.items():
        monkeypatch.setenv(name, text)
    transport.run(["true"])
    process = psutil.Process(keeper_pid())
    assert process.ppid() != os.getpid()
    assert os.getsid(process.pid) == process.pid  # a session of its own, without a terminal
    assert process.cwd() == "/"
    environment = process.environ()
    assert "HF_TOKEN" not in environment
    assert environment["PODLAB_SOMETHING"] == "kept"
    assert environment.items() >= way.items(), "it reaches providers as who started it, and its days begin as theirs"
    if sys.platform == "linux":
        assert {os.readlink(f"/proc/{process.pid}/fd/{number}") for number in (0, 1, 2)} == {os.devnull}
    assert process.children() == []


def test_its_files_are_private(transport: KeptTransport) -> None:
    with EchoServer() as echo:
        transport.open_port(echo.port)
    place = Place.here()
    assert stat.S_ISSOCK(place.socket_path.stat().st_mode)
    for path in (place.socket_path, place.lock, place.start_lock, place.forwards, log_path()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_eight_clients_at_once_start_one(transport: KeptTransport, sshd: machines.Sshd) -> None:
    clients = [client(sshd) for _ in range(8)]
    try:
        for one in clients:
            assert one.stdout is not None
            one.stdout.readline()
        for one in clients:
            say(one)
        assert len({heard(one)[2] for one in clients}) == 1
    finally:
        for one in clients:
            end(one)
    assert log_path().read_text().count(" serves ") == 1
    assert len(keepers(os.environ["PODLAB_HOME"])) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_it_outlives_a_client(transport: KeptTransport, sshd: machines.Sshd, number: signal.Signals) -> None:
    with EchoServer() as echo:
        one = client(sshd, echo.port)
        try:
            assert one.stdout is not None
            one.stdout.readline()
            say(one)
            local_port, remote_pid, pid = heard(one)
            strike(one, number)
        finally:
            end(one)
        wait_until_gone(remote_pid)  # its command went with it
        assert keeper_pid() == pid
        assert greeting(local_port) == b"hello\n"


def strike(client: subprocess.Popen[str], number: signal.Signals) -> None:
    """Send a signal until the client ends: an interrupt in the moment before a read blocks is heard only after it."""
    for _ in range(15):
        os.killpg(client.pid, number)
        try:
            client.wait(2)
        except subprocess.TimeoutExpired:
            continue
        return
    raise AssertionError("the client does not end")


def test_killed_while_idle(transport: KeptTransport) -> None:
    with EchoServer() as echo:
        local_port = transport.open_port(echo.port).local_port
        assert greeting(local_port) == b"hello\n"
        first = keeper_pid()
        os.kill(first, signal.SIGKILL)
        wait_until_gone(first)
        assert kept.status() is None
        assert kept.forwards() == [("pod-1", local_port, echo.port)]  # which started another one
        assert keeper_pid() != first
        assert greeting(local_port) == b"hello\n"


def test_killed_under_a_command(transport: KeptTransport) -> None:
    detached = int(transport.run(["sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & echo $!"]).text)
    try:
        with EchoServer() as echo:
            local_port = transport.open_port(echo.port).local_port
            process = transport.start(["cat"])
            os.kill(keeper_pid(), signal.SIGKILL)
            for call in (process.read, process.wait, lambda: process.write(b"x"), process.read):
                with pytest.raises(LinkLost, match="how it ended is unknown"):
                    call()
            process.close()
            assert transport.run(["echo", "again"]).text == "again\n"
            assert transport.open_port(echo.port).local_port == local_port
            assert greeting(local_port) == b"hello\n"
            assert psutil.Process(detached).is_running()
    finally:
        psutil.Process(detached).kill()


def test_it_ends_when_nothing_is_left(transport: KeptTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODLAB_KEEPER_IDLE_S", "0.3")
    with transport.start(["cat"]) as process:
        pid = keeper_pid()
        with pytest.raises(TimeoutError):
            process.read(1.0)  # a command is something to keep
        assert keeper_pid() == pid
    wait_until_gone(pid)
    assert not Place.here().socket_path.exists()
    assert "nothing is left to keep" in log_path().read_text()
    assert transport.run(["echo", "again"]).text == "again\n"


def test_it_ends_when_its_home_is_gone(transport: KeptTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODLAB_KEEPER_IDLE_S", "0.5")
    transport.open_port(9)
    pid = keeper_pid()
    deleted_under_way(Path(os.environ["PODLAB_HOME"]))
    wait_until_gone(pid)


def test_sigterm_keeps_the_forwards_for_the_next(transport: KeptTransport) -> None:
    local_port = transport.open_port(9).local_port
    process = transport.start(["cat"])
    pid = keeper_pid()
    os.kill(pid, signal.SIGINT)  # meant for somebody else
    os.kill(pid, signal.SIGTERM)
    wait_until_gone(pid)
    with pytest.raises(LinkLost):
        process.wait(10)
    assert not Place.here().socket_path.exists()
    assert kept.forwards() == [("pod-1", local_port, 9)]


def test_stop_forgets_the_forwards(transport: KeptTransport) -> None:
    transport.open_port(9)
    pid = keeper_pid()
    kept.stop_keeper()
    assert kept.status() is None
    assert kept.forwards() == []
    wait_until_gone(pid)


def test_a_stale_socket_is_nobody(transport: KeptTransport) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(Place.here().socket_path))
    assert kept.status() is None
    assert transport.run(["echo", "hi"]).text == "hi\n"


def test_a_keeper_that_cannot_start_says_why(transport: KeptTransport) -> None:
    Place.here().lock.mkdir()
    with pytest.raises(KeeperError, match=r"did not start: IsADirectoryError: .*keeper\.lock"):
        transport.run(["true"])


def test_a_second_keeper_names_the_first(transport: KeptTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    transport.run(["true"])
    Place.here().socket_path.unlink()
    monkeypatch.setattr(kept_link, "START_TIMEOUT_S", 1.0)
    with pytest.raises(KeeperError, match="not ready in time"):
        transport.run(["true"])


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_a_file_of_the_home_that_cannot_be_used_is_named(transport: KeptTransport, kind: str) -> None:
    path = Place.here().start_lock
    if kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("elsewhere")  # never followed
    with pytest.raises(StateDamaged, match=re.escape(str(path))) as caught:
        transport.run(["true"])
    assert "can be written" in caught.value.hint and "PODLAB_KEEPER=0" in caught.value.hint


def test_who_starts_a_keeper_and_does_not_go_on_is_named(
    transport: KeptTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_link, "START_TIMEOUT_S", 0.3)
    holding = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print('held'); time.sleep(60)"
    argv = [sys.executable, "-u", "-c", holding, str(Place.here().start_lock)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline()
        with pytest.raises(StateDamaged, match=f"process {holder.pid}") as caught:
            transport.run(["true"])
        holder.kill()
    assert "end it" in caught.value.hint and "PODLAB_KEEPER=0" in caught.value.hint


def test_a_frozen_keeper_is_named(transport: KeptTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    transport.run(["true"])
    process = psutil.Process(keeper_pid())
    monkeypatch.setattr(kept_link, "HELLO_TIMEOUT_S", 0.3)
    process.suspend()
    with pytest.raises(KeeperError, match=f"process {process.pid}.*does not answer"):
        transport.run(["true"])
    process.resume()


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n", b"x" * 10_000, b"podlab-keeper []\n", b""])
def test_noise_harms_nobody(transport: KeptTransport, noise: bytes) -> None:
    transport.run(["true"])
    pid = keeper_pid()
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(Place.here().address())
        stranger.sendall(noise)
        stranger.shutdown(socket.SHUT_WR)
        try:
            assert stranger.recv(100) == b""
        except ConnectionResetError:
            pass
    assert transport.run(["echo", "hi"]).text == "hi\n"
    assert keeper_pid() == pid


@pytest.fixture
def long_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    runtime = Path(tempfile.mkdtemp(prefix="run-", dir="/tmp"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("PODLAB_HOME", str(tmp_path / ("long" * 30)))
    yield runtime
    for process in keepers(os.environ["PODLAB_HOME"]):
        process.kill()
        process.wait(10)
    shutil.rmtree(runtime)


def test_a_path_too_long_for_a_socket(long_home: Path, sshd: machines.Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    sshd.pin(HostKeys(), "pod-1")
    transport = KeptTransport("pod", "pod-1", sshd.address)
    assert transport.run(["echo", "hi"]).text == "hi\n"
    (folder,) = long_home.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "keeper.sock").stat().st_mode) == 0o600
    monkeypatch.delenv("XDG_RUNTIME_DIR")  # another terminal: it is found all the same
    pid = keeper_pid()
    folder.chmod(0o755)
    with pytest.raises(KeeperError, match="not a private folder"):
        kept.status()
    folder.chmod(0o700)
    os.kill(pid, signal.SIGKILL)
    wait_until_gone(pid)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long_home))
    assert transport.run(["echo", "hi"]).text == "hi\n"
    kept.stop_keeper()
    assert list(long_home.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_is_refused(transport: KeptTransport) -> None:
    transport.run(["true"])
    place = Place.here()
    place.home.chmod(0o711)
    place.socket_path.chmod(0o666)
    script = """
import os, socket, sys
os.chdir(sys.argv[1])
os.setgid(65534)
os.setuid(65534)
stranger = socket.socket(socket.AF_UNIX)
stranger.connect("keeper.sock")
try:
    stranger.sendall(sys.stdin.buffer.read())
    print(stranger.recv(100))
except ConnectionError:
    print(b"")
"""
    words = kept_wire.hello_line(kept_wire.ClientHello(kept_wire.build()))
    command = [sys.executable, "-c", script, str(place.home)]
    done = subprocess.run(command, input=words, capture_output=True, check=True)
    assert done.stdout == b"b''\n"
    assert "refused a process of user 65534" in log_path().read_text()
    assert transport.run(["echo", "hi"]).text == "hi\n"


def test_another_build_takes_over(transport: KeptTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    with EchoServer() as echo:
        local_port = transport.open_port(echo.port).local_port
        process = transport.start(["cat"])
        old = keeper_pid()
        monkeypatch.setattr(kept_wire, "build", lambda: "another")
        monkeypatch.setattr(kept_link, "build", lambda: "another")
        monkeypatch.setattr(kept_link, "_accepted", set())
        assert keeper_pid() == old  # one that only asks replaces nothing
        assert transport.run(["echo", "new"]).text == "new\n"
        new = keeper_pid()
        assert new != old
        assert transport.open_port(echo.port).local_port == local_port
        assert greeting(local_port) == b"hello\n"
        assert psutil.Process(old).is_running()
        process.write(b"still there")
        process.close_stdin()
        assert process.read(10) == ("stdout", b"still there")
        assert process.wait(10) == 0
        wait_until_gone(old)
        assert keeper_pid() == new  # nobody is asked twice


def test_a_stream_goes_on_through_a_handover(transport: KeptTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """What flows through a forward is finished by the old keeper, while the new one takes what comes to that port."""
    with EchoServer() as echo:
        local_port = transport.open_port(echo.port).local_port
        with socket.create_connection(("127.0.0.1", local_port), 10) as stream:
            assert stream.recv(6) == b"hello\n"
            old = keeper_pid()
            monkeypatch.setattr(kept_link, "build", lambda: "another")
            monkeypatch.setattr(kept_link, "_accepted", set())
            assert transport.open_port(echo.port).local_port == local_port
            new = keeper_pid()
            assert new != old and psutil.Process(old).is_running()
            assert greeting(local_port) == b"hello\n"
            assert local_port in {each.laddr.port for each in psutil.Process(new).net_connections() if not each.raddr}
            stream.sendall(b"still there")
            assert stream.recv(100) == b"still there"
            assert psutil.Process(old).is_running()
        wait_until_gone(old)
        assert greeting(local_port) == b"hello\n"


def test_the_old_keeper_stays_ten_minutes_at_most() -> None:
    """For as long as something is under way, and not a moment longer than LINGER_S; what is over sooner ends it."""
    now = 1000.0
    looked: list[float] = []

    def pause(longest_s: float) -> None:
        nonlocal now
        looked.append(now)
        now += longest_s

    assert not linger(lambda: True, pause, clock=lambda: now)
    assert now == 1000.0 + LINGER_S == 1600.0
    assert looked[-1] < 1600.0 and max(b - a for a, b in itertools.pairwise(looked)) <= LOOK_S
    assert linger(lambda: now < 1700.0, pause, clock=lambda: now)
    assert now == 1700.0


def test_two_clients_of_another_build_at_once(transport: KeptTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    transport.run(["true"])
    monkeypatch.setattr(kept_link, "build", lambda: "another")
    monkeypatch.setattr(kept_link, "_accepted", set())
    said: list[str] = []
    threads = [threading.Thread(target=lambda: said.append(transport.run(["echo", "hi"]).text)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert said == ["hi\n"] * 8


def test_another_protocol_says_what_to_do(transport: KeptTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    transport.run(["true"])
    monkeypatch.setattr(kept_link, "build", lambda: "another")
    monkeypatch.setattr(kept_link, "_accepted", set())
    monkeypatch.setattr(kept_link, "ClientHello", functools.partial(kept_wire.ClientHello, protocol=0))
    monkeypatch.setattr(kept_link, "PROTOCOL", 0)
    with pytest.raises(KeeperError, match="do not understand each other") as caught:
        transport.run(["true"])
    assert "Restart this kernel" in caught.value.hint
