"""The contract of podlab/transport/base.py and files.py, kept by every transport."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from podlab.errors import BadArgument, CommandFailed, CommandTimeout, NotFound, TransferFailed
from podlab.transport import files
from podlab.transport.base import Completed, Forward, Process, Transport
from podlab.transport.host_keys import HostKeys
from podlab.transport.kept import KeptTransport, stop_keeper
from podlab.transport.local import LocalTransport
from podlab.transport.ssh import SshTransport
from tests import machines
from tests.sandbox_pods import Tenant, a_tenant

KINDS = ("local", "ssh", "kept", "dash", "sandbox")
"""`kept` is ssh through a keeper of its own, `dash` is ssh to a user whose login shell is dash, `ssh` to the user who
runs the tests (usually bash), `sandbox` is ssh to a pod of the simulated company."""

HOSTILE = ["", " ", "-n", "--help", "$(touch marker)", "`touch marker`", "a;touch marker", "a'b", 'a"b', "a\\b", "a\nb",
           "\t", "*", "~", "~root", "!!", "#x", "&", "|", ">marker", "{a,b}", "=ls", "a=b", "%s", "é漢",
           "$HOME"]  # fmt: skip


@dataclass
class Way:
    """A transport, a folder its user may write to, and HOME over there."""

    transport: Transport
    folder: Path
    home: Path


@pytest.fixture(scope="module")
def dash_machine() -> Iterator[machines.Sshd]:
    with machines.for_a_user_of("dash") as server:
        yield server


@pytest.fixture(scope="module")
def sandbox_pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Tenant, str]]:
    with a_tenant(tmp_path_factory.mktemp("sandbox")) as tenant:
        pod = tenant.rent()
        tenant.address(pod)
        tenant.machine(pod).sshd.own_ports_only = False  # the servers below run in the process of the test
        yield tenant, pod


@pytest.fixture(params=KINDS)
def way(request: pytest.FixtureRequest, tmp_path: Path, own_home: Path) -> Iterator[Way]:
    if request.param == "local":
        yield Way(LocalTransport(), tmp_path, own_home)
        return
    if request.param == "sandbox":
        tenant, pod = request.getfixturevalue("sandbox_pod")
        with tenant.reach(pod) as to_pod:
            yield Way(to_pod, tmp_path, tenant.folder(pod) / "root")
        return
    machine: machines.Sshd = request.getfixturevalue("dash_machine" if request.param == "dash" else "sshd")
    folder = tmp_path
    if request.param == "dash":
        folder = Path(tempfile.mkdtemp(dir=machine.home))
        shutil.chown(folder, machine.user)
    pins = HostKeys()
    machine.pin(pins, "pod")
    if request.param == "kept":
        with KeptTransport("pod", "pod", machine.address) as kept_transport:
            yield Way(kept_transport, folder, machine.home)
        stop_keeper()
        return
    with SshTransport("pod", machine.address, pins) as transport:
        yield Way(transport, folder, machine.home)


@pytest.fixture
def transport(way: Way) -> Transport:
    return way.transport


def _argv_seen(transport: Transport, words: Sequence[str]) -> list[str]:
    done = transport.run(["sh", "-c", 'for word do printf "%s\\0" "$word"; done', "sh", *words])
    return done.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]


def test_hostile_words_arrive_as_they_are(way: Way) -> None:
    assert _argv_seen(way.transport, HOSTILE) == HOSTILE
    assert not list(way.folder.rglob("marker"))
    assert not list(way.home.rglob("marker"))


@settings(
    max_examples=60, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(words=st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=5))
def test_any_words_arrive_as_they_are(transport: Transport, words: list[str]) -> None:
    assert _argv_seen(transport, words) == words


def test_nul_and_nothing_are_refused(transport: Transport) -> None:
    with pytest.raises((BadArgument, ValueError)):
        transport.run(["echo", "a\0b"])


def test_the_first_word_is_only_a_name(way: Way) -> None:
    for name in ("a=b", "if", "-x", "$(touch marker)", "echo; true"):
        try:
            assert way.transport.run([name, "true"], check=False).status == 127
        except BadArgument:
            assert isinstance(way.transport, LocalTransport)
    assert not list(way.home.rglob("marker"))


def test_a_missing_program(transport: Transport) -> None:
    if isinstance(transport, LocalTransport):
        with pytest.raises(BadArgument, match="no-such-program"):
            transport.run(["no-such-program"])
    else:
        assert transport.run(["no-such-program"], check=False).status == 127


@pytest.mark.parametrize("status", [0, 1, 2, 42, 255])
def test_status(transport: Transport, status: int) -> None:
    assert transport.run(["sh", "-c", 'exit "$1"', "sh", str(status)], check=False).status == status


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_signal_is_128_and_its_number(transport: Transport, number: signal.Signals) -> None:
    done = transport.run(["sh", "-c", 'kill -"$1" $$; sleep 60', "sh", str(int(number))], check=False)
    assert done.status == 128 + number


def test_a_failure_carries_what_was_said(transport: Transport) -> None:
    with pytest.raises(CommandFailed) as caught:
        transport.run(["sh", "-c", "echo out; echo first >&2; echo last >&2; exit 3"])
    error = caught.value
    assert (error.status, error.stdout, error.stderr) == (3, b"out\n", b"first\nlast\n")
    assert "last" in str(error)


def test_stdin_and_binary(transport: Transport) -> None:
    data = bytes(range(256)) * 12_000
    assert transport.run(["cat"], stdin=data).stdout == data
    assert transport.run(["true"], stdin=data).stdout == b""


def test_both_streams_at_once(transport: Transport) -> None:
    script = "head -c 3000000 /dev/zero & head -c 3000000 /dev/zero | tr '\\0' x >&2; wait"
    done = transport.run(["sh", "-c", script])
    assert done.stdout == bytes(3_000_000)
    assert done.stderr == b"x" * 3_000_000


def test_a_timeout_carries_what_had_arrived(transport: Transport) -> None:
    with pytest.raises(CommandTimeout) as caught:
        transport.run(["sh", "-c", "echo early; echo error >&2; exec sleep 60"], timeout_s=1.0)
    assert (caught.value.stdout, caught.value.stderr) == (b"early\n", b"error\n")


def test_reading_and_waiting_time_out_and_go_on(transport: Transport) -> None:
    with transport.start(["cat"]) as process:
        with pytest.raises(TimeoutError):
            process.read(0.05)
        with pytest.raises(TimeoutError):
            process.wait(0.05)
        process.write(b"still there")
        assert process.read(30) == ("stdout", b"still there")
        process.close_stdin()
        process.close_stdin()
        assert process.read(30) is None
        assert process.read(30) is None
        assert process.wait(30) == 0
        with pytest.raises(BrokenPipeError):
            process.write(b"x" * 10)
    process.close()


def test_close_lets_a_command_end(transport: Transport) -> None:
    process = transport.start(["sh", "-c", "echo $$; exec cat"])
    piece = process.read(30)
    assert piece is not None
    process.close()
    process.close()
    _wait_until_gone(int(piece[1]))


def test_close_wakes_a_reader_in_another_thread(transport: Transport) -> None:
    process = transport.start(["cat"])
    ended = threading.Event()

    def read_to_the_end() -> None:
        process.read()
        ended.set()

    threading.Thread(target=read_to_the_end, daemon=True).start()
    process.close()
    assert ended.wait(10)


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    raise AssertionError(f"process {pid} is still there")


def test_env(transport: Transport) -> None:
    values = {f"WORD_{i}": word for i, word in enumerate(HOSTILE)}
    script = "".join(f'printf "%s\\0" "$WORD_{i}";' for i in range(len(HOSTILE)))
    done = transport.run(["sh", "-c", script], env=values)
    assert done.stdout.decode().split("\0")[:-1] == HOSTILE
    assert transport.run(["sh", "-c", "echo $HOME$A"], env={"A": "1"}).text.strip().endswith("1")


def test_cwd(way: Way) -> None:
    odd = way.folder / "-odd 'name\n"
    odd.mkdir()
    odd.chmod(0o777)
    (way.home / "below").mkdir(exist_ok=True)
    (way.home / "below").chmod(0o755)
    run = way.transport.run
    assert run(["sh", "-c", 'printf %s "$PWD"'], cwd=str(odd)).text.rstrip("\n") == os.path.realpath(odd).rstrip("\n")
    assert run(["pwd", "-P"], cwd="below", env={"CDPATH": "/"}).text.strip() == os.path.realpath(way.home / "below")


def test_more_commands_at_once_than_one_connection_takes(transport: Transport) -> None:
    def one(number: int) -> str:
        return transport.run(["sh", "-c", 'sleep 0.1; echo "$1"', "sh", str(number)]).text

    with ThreadPoolExecutor(30) as pool:
        assert list(pool.map(one, range(30))) == [f"{number}\n" for number in range(30)]


class Echo:
    """A server that sends back what it gets, and at the end of its input how much that was."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        count = 0
        with client:
            while data := client.recv(65536):
                count += len(data)
                client.sendall(data)
            client.sendall(f"<{count}>".encode())

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


def _exchange(port: int, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        threading.Thread(target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR)), daemon=True).start()
        answer = bytearray()
        while piece := client.recv(65536):
            answer += piece
    return bytes(answer)


def test_open_port(transport: Transport, echo: Echo) -> None:
    forward: Forward = transport.open_port(echo.port)
    assert forward.remote_port == echo.port
    data = os.urandom(3_000_000)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: _exchange(forward.local_port, data), range(8)))
    assert all(answer == data + b"<3000000>" for answer in answers)
    forward.close()
    forward.close()


def test_a_slow_client_gets_everything_in_order(transport: Transport) -> None:
    data = b"".join(number.to_bytes(4, "big") for number in range(2_000_000))
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:

        def serve() -> None:
            served, _ = listener.accept()
            with served:
                served.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        forward = transport.open_port(listener.getsockname()[1])
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(30)
        client.connect(("127.0.0.1", forward.local_port))
        answer = bytearray()
        while piece := client.recv(7919 if len(answer) < 1_000_000 else 1_000_000):
            answer += piece
        forward.close()
    assert bytes(answer) == data


def test_close_is_final_and_can_be_repeated(transport: Transport) -> None:
    transport.run(["true"])
    transport.close()
    transport.close()


# Files


def test_small_files(way: Way) -> None:
    t, path = way.transport, str(way.folder / "deep" / "er" / "file")
    assert files.kind(t, path) is None
    files.write_file(t, path, b"first", mode=0o640)
    files.write_file(t, path, b"second\0")
    assert files.read_file(t, path) == b"second\0"
    assert files.read_file(t, path, offset=3, limit_bytes=2) == b"on"
    assert files.read_file(t, path, offset=100) == b""
    assert files.kind(t, path) == "file"
    assert files.kind(t, str(way.folder / "deep")) == "folder"
    assert files.exists(t, "/dev/null")
    assert (way.folder / "deep" / "er" / "file").stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in (way.folder / "deep" / "er").iterdir()] == ["file"]


def test_paths_below_home(way: Way) -> None:
    files.write_file(way.transport, "~/dot folder/x", b"1")
    assert (way.home / "dot folder" / "x").read_bytes() == b"1"
    assert files.read_file(way.transport, "dot folder/x") == b"1"


def test_what_cannot_be_read(way: Way) -> None:
    with pytest.raises(NotFound):
        files.read_file(way.transport, str(way.folder / "missing"))
    with pytest.raises(TransferFailed, match="is not a file"):
        files.read_file(way.transport, str(way.folder))
    with pytest.raises(TransferFailed, match="is not a file"):
        files.write_file(way.transport, str(way.folder), b"")
    with pytest.raises(NotFound):
        list(files.fetch_file(way.transport, str(way.folder / "missing"), way.folder / "here"))


class Shortened(Transport):
    """A link that loses the second half of what is sent."""

    def __init__(self, inner: Transport) -> None:
        self.pod = inner.pod
        self._inner = inner

    def start(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> Process:
        return self._inner.start(argv, env=env, cwd=cwd)

    def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", env: Mapping[str, str] | None = None,
        cwd: str | None = None, timeout_s: float = 60.0, check: bool = True,
    ) -> Completed:  # fmt: skip
        half = stdin[: len(stdin) // 2]
        return self._inner.run(argv, stdin=half, env=env, cwd=cwd, timeout_s=timeout_s, check=check)

    def open_port(self, remote_port: int, *, local_port: int = 0) -> Forward:
        return self._inner.open_port(remote_port, local_port=local_port)

    def close(self) -> None:
        self._inner.close()


def test_a_file_that_did_not_arrive_whole_leaves_the_old_one(way: Way) -> None:
    path = way.folder / "file"
    files.write_file(way.transport, str(path), b"old")
    with pytest.raises(TransferFailed, match="did not arrive whole"):
        files.write_file(Shortened(way.transport), str(path), b"new" * 1000)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in way.folder.iterdir() if entry.name.startswith(".podlab")] == []


def test_send_and_fetch_20_mb(way: Way, tmp_path: Path) -> None:
    source, there, back = tmp_path / "source", way.folder / "there", tmp_path / "back" / "file"
    source.write_bytes(os.urandom(20_000_000))
    source.chmod(0o750)
    sent = list(files.send_file(way.transport, source, str(there)))
    assert sent == sorted(sent)
    assert sent[-1] == 20_000_000
    assert list(files.send_file(way.transport, source, str(there))) == [20_000_000]
    fetched = list(files.fetch_file(way.transport, str(there), back))
    assert fetched[-1] == 20_000_000
    assert list(files.fetch_file(way.transport, str(there), back)) == [20_000_000]
    assert back.read_bytes() == source.read_bytes()
    assert (there.stat().st_mode & 0o777, back.stat().st_mode & 0o777) == (0o750, 0o750)


def test_an_empty_file(way: Way, tmp_path: Path) -> None:
    source, back = tmp_path / "empty", tmp_path / "empty-back"
    source.touch()
    assert list(files.send_file(way.transport, source, str(way.folder / "e")))[-1] == 0
    assert list(files.fetch_file(way.transport, str(way.folder / "e"), back))[-1] == 0
    assert back.read_bytes() == b""


def test_a_transfer_that_was_cut_goes_on_where_it_was(way: Way, tmp_path: Path) -> None:
    source, there, back = tmp_path / "source", way.folder / "there", tmp_path / "back"
    source.write_bytes(os.urandom(8_000_000))
    for transfer, wanted in (
        (lambda: files.send_file(way.transport, source, str(there)), there),
        (lambda: files.fetch_file(way.transport, str(there), back), back),
    ):
        cut = transfer()
        for done in cut:
            if done > 4_000_000:
                break
        cut.close()  # type: ignore[attr-defined]
        assert not wanted.exists()
        again = list(transfer())
        assert 0 < again[0] < 8_000_000
        assert wanted.read_bytes() == source.read_bytes()


def test_a_damaged_part_is_never_taken(way: Way, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(4_000_000))
    sending = files.send_file(way.transport, source, str(way.folder / "there"))
    next(sending)
    sending.close()  # type: ignore[attr-defined]
    (part,) = way.folder.glob(".podlab-*.part")
    part.write_bytes(b"x" * 2_500_000)
    with pytest.raises(TransferFailed, match="did not arrive whole"):
        list(files.send_file(way.transport, source, str(way.folder / "there")))
    assert list(files.send_file(way.transport, source, str(way.folder / "there")))[-1] == 4_000_000


def test_hostile_names(way: Way, tmp_path: Path) -> None:
    names = [word for word in HOSTILE if word and "/" not in word]
    root = way.folder / "tree -x"
    for name in names:
        files.write_file(way.transport, f"{root}/{name}/{name}", name.encode(), mode=0o604)
    (root / "link").symlink_to("/etc/passwd")
    (root / "out").symlink_to("/etc")
    listed = files.list_tree(way.transport, str(root))
    assert [file.path for file in listed] == sorted(f"{name}/{name}" for name in names)
    assert {file.mode for file in listed} == {0o604}
    assert {file.path: file.size_bytes for file in listed} == {f"{n}/{n}": len(n.encode()) for n in names}
    for name in names:
        local = tmp_path / "fetched" / name
        list(files.fetch_file(way.transport, f"{root}/{name}/{name}", local))
        assert local.read_bytes() == name.encode()
    assert not list(way.home.rglob("marker"))


def test_listing_what_is_not_there(way: Way) -> None:
    with pytest.raises(NotFound):
        files.list_tree(way.transport, str(way.folder / "missing"))
    (way.folder / "many").mkdir()
    for number in range(20):
        (way.folder / "many" / str(number)).touch()
    with pytest.raises(TransferFailed, match="more than 10 files"):
        files.list_tree(way.transport, str(way.folder / "many"), limit=10)
