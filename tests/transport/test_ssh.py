"""SSH against real servers: keys, config, machines in between, and every way a connection can die."""

from __future__ import annotations

import ast
import inspect
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import paramiko
import pytest

import podlab.transport
from podlab.errors import (
    AuthenticationFailed,
    BadArgument,
    BadSettings,
    HostKeyChanged,
    HostKeyUnknown,
    LinkLost,
    PodlabError,
    Unreachable,
)
from podlab.transport import files, ssh
from podlab.transport.host_keys import HostKeys
from podlab.transport.ssh import SshTransport
from podlab.types import SshAddress
from tests import machines
from tests.machines import Sshd

pytestmark = pytest.mark.skipif(machines.SSHD is None, reason=machines.WHY_SKIPPED)

DEAD_LINK_S = 15.0
SLACK = 3


@pytest.fixture
def pins(sshd: Sshd) -> HostKeys:
    keys = HostKeys()
    sshd.pin(keys, "pod")
    return keys


@pytest.fixture
def way(sshd: Sshd, pins: HostKeys) -> Iterator[SshTransport]:
    with SshTransport("pod", sshd.address, pins) as transport:
        yield transport


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Sshd]:
    """A server of this test's own, to be mistreated."""
    server = machines.start_sshd(tmp_path)
    yield server
    server.thaw_sessions()
    server.stop()


def connect(server: Sshd, *, address: SshAddress | None = None, **options: object) -> SshTransport:
    keys = HostKeys()
    server.pin(keys, "pod")
    return SshTransport("pod", address or server.address, keys, **options)  # type: ignore[arg-type]


# Host keys


def test_an_unknown_host_key_is_never_accepted(sshd: Sshd) -> None:
    for number in range(20):
        transport = SshTransport(f"pod-{number % 3}", sshd.address, HostKeys())
        with pytest.raises(HostKeyUnknown) as caught:
            transport.run(["true"])
        assert caught.value.fingerprint == sshd.fingerprint()
        assert HostKeys().pinned("pod-0") is None


def test_the_expected_fingerprint_is_pinned(sshd: Sshd) -> None:
    with SshTransport("pod", sshd.address, HostKeys(), expected_host_key=sshd.fingerprint()) as transport:
        transport.run(["true"])
    with SshTransport("pod", sshd.address, HostKeys()) as transport:
        transport.run(["true"])
    with pytest.raises(HostKeyChanged):
        SshTransport("other", sshd.address, HostKeys(), expected_host_key="SHA256:" + "A" * 43).run(["true"])
    with pytest.raises(BadArgument, match="fingerprint"):
        SshTransport("other", sshd.address, HostKeys(), expected_host_key="MD5:00")


def test_a_changed_host_key_is_a_hard_stop(machine: Sshd) -> None:
    transport = connect(machine)
    transport.run(["true"])
    machine.change_host_key()
    for _ in range(20):
        with pytest.raises(HostKeyChanged) as caught:
            transport.run(["true"])
    assert caught.value.shown == machine.fingerprint()


def test_the_known_hosts_of_the_user_counts(sshd: Sshd, own_home: Path) -> None:
    (own_home / ".ssh").mkdir()
    (own_home / ".ssh" / "known_hosts").write_text(sshd.known_hosts_line())
    with SshTransport("pod", sshd.address, HostKeys()) as transport:
        transport.run(["true"])
    assert HostKeys().pinned("pod") is not None


def test_a_server_with_several_keys_has_not_changed(tmp_path: Path) -> None:
    kinds = ("ed25519", "ecdsa", "rsa")
    server = machines.start_sshd(tmp_path, key_kinds=kinds)
    try:
        for kind in kinds:
            keys = HostKeys()
            keys.pin(f"pinned-{kind}", *server.public_key(kind))
            SshTransport(f"pinned-{kind}", server.address, keys).run(["true"])
            expected = server.fingerprint(kind)
            SshTransport(f"named-{kind}", server.address, HostKeys(), expected_host_key=expected).run(["true"])
    finally:
        server.stop()


def test_our_pins_serve_openssh_too(sshd: Sshd, way: SshTransport, pins: HostKeys) -> None:
    way.run(["true"])
    known = Path(os.environ["PODLAB_HOME"]) / "known_hosts"
    assert known.stat().st_mode & 0o777 == 0o600
    command = ["ssh", "-F", "none", "-i", str(sshd.identity), "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes",
               "-o", f"UserKnownHostsFile={known}", "-o", "HostKeyAlias=podlab-pod",
               "-p", str(sshd.port), f"{sshd.user}@{sshd.host}", "echo hello"]  # fmt: skip
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"hello\n"


def test_nothing_in_the_package_accepts_keys_by_itself() -> None:
    for path in Path(inspect.getfile(podlab)).parent.rglob("*.py"):
        names = {getattr(node, "attr", getattr(node, "id", "")) for node in ast.walk(ast.parse(path.read_text()))}
        assert not names & {"AutoAddPolicy", "WarningPolicy", "set_missing_host_key_policy"}, path


# Keys of the user


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_key_kinds(sshd: Sshd, pins: HostKeys, tmp_path: Path, kind: str) -> None:
    key = machines.make_key(tmp_path / "key", kind)
    sshd.authorize(key.with_name("key.pub"))
    address = SshAddress(sshd.host, sshd.user, sshd.port, (str(key),))
    with SshTransport("pod", address, pins) as transport:
        assert transport.run(["echo", "in"]).text == "in\n"


def test_a_key_under_its_default_name(sshd: Sshd, pins: HostKeys, own_home: Path) -> None:
    (own_home / ".ssh").mkdir()
    shutil.copy(sshd.identity, own_home / ".ssh" / "id_ed25519")
    with SshTransport("pod", SshAddress(sshd.host, sshd.user, sshd.port), pins) as transport:
        transport.run(["true"])


def test_no_key_and_a_wrong_key(sshd: Sshd, pins: HostKeys, tmp_path: Path) -> None:
    with pytest.raises(AuthenticationFailed, match="no SSH key") as caught:
        SshTransport("pod", SshAddress(sshd.host, sshd.user, sshd.port), pins).run(["true"])
    assert "ssh-keygen" in caught.value.hint
    wrong = machines.make_key(tmp_path / "wrong")
    with pytest.raises(AuthenticationFailed, match="accepted none of 1 key"):
        SshTransport("pod", SshAddress(sshd.host, sshd.user, sshd.port, (str(wrong),)), pins).run(["true"])


def test_too_many_keys(sshd: Sshd, pins: HostKeys, tmp_path: Path) -> None:
    wrong = tuple(str(machines.make_key(tmp_path / f"wrong{number}")) for number in range(8))
    with pytest.raises(AuthenticationFailed, match="hung up after 6 keys") as caught:
        SshTransport("pod", SshAddress(sshd.host, sshd.user, sshd.port, wrong), pins).run(["true"])
    assert "IdentitiesOnly" in caught.value.hint


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if shutil.which("ssh-agent") is None:
        pytest.skip("install openssh-client: apt-get install openssh-client")
    place = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(place)], stdout=subprocess.DEVNULL)
    while not place.exists():
        assert process.poll() is None
        time.sleep(0.01)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(place))
    yield
    process.terminate()
    process.wait()


def test_a_key_with_a_passphrase(sshd: Sshd, pins: HostKeys, tmp_path: Path, agent: None) -> None:
    key = machines.make_key(tmp_path / "locked", passphrase="correct horse")
    sshd.authorize(tmp_path / "locked.pub")
    (tmp_path / "locked.pub").unlink()
    address = SshAddress(sshd.host, sshd.user, sshd.port, (str(key),))
    with pytest.raises(AuthenticationFailed, match="passphrase") as caught:
        SshTransport("pod", address, pins).run(["true"])
    assert f"ssh-add {key}" in caught.value.hint
    asked = tmp_path / "askpass"
    asked.write_text("#!/bin/sh\necho correct horse\n")
    asked.chmod(0o700)
    environment = os.environ | {"SSH_ASKPASS": str(asked), "SSH_ASKPASS_REQUIRE": "force"}
    subprocess.run(["ssh-add", "-q", str(key)], check=True, env=environment)
    with SshTransport("pod", address, pins) as transport:
        transport.run(["true"])


def test_a_key_only_the_agent_has(sshd: Sshd, pins: HostKeys, agent: None) -> None:
    subprocess.run(["ssh-add", "-q", str(sshd.identity)], check=True)
    with SshTransport("pod", SshAddress(sshd.host, sshd.user, sshd.port), pins) as transport:
        transport.run(["true"])
        assert transport.run(["sh", "-c", "echo $SSH_AUTH_SOCK"]).text == "\n"


# ~/.ssh/config and machines in between


def write_config(home: Path, text: str) -> None:
    (home / ".ssh").mkdir(exist_ok=True)
    (home / ".ssh" / "config").write_text(text)


def test_an_alias_of_the_config(sshd: Sshd, pins: HostKeys, own_home: Path) -> None:
    write_config(own_home, "Include more/*.conf\nHost *\n  User nobody-we-know\n")
    (own_home / ".ssh" / "more").mkdir()
    (own_home / ".ssh" / "more" / "a.conf").write_text(
        f"Host box\n  HostName {sshd.host}\n  Port {sshd.port}\n  User {sshd.user}\n"
        f"  IdentityFile {sshd.identity}\n  IdentitiesOnly yes\n"
    )
    with SshTransport("pod", SshAddress("box", alias="box"), pins) as transport:
        transport.run(["true"])


def test_a_config_nobody_can_read(own_home: Path, pins: HostKeys) -> None:
    write_config(own_home, "Host\n=\n")
    with pytest.raises(BadSettings):
        SshTransport("pod", SshAddress("box"), pins).run(["true"])


@pytest.mark.parametrize("host", ["-oProxyCommand=x", "a b", "$(x)", "a;b", ""])
def test_names_that_are_no_hosts(pins: HostKeys, host: str) -> None:
    with pytest.raises(BadArgument):
        SshTransport("pod", SshAddress(host), pins).run(["true"])


def test_through_another_machine(sshd: Sshd, pins: HostKeys, machine: Sshd, own_home: Path) -> None:
    write_config(
        own_home,
        f"Host jump\n  HostName {machine.host}\n  Port {machine.port}\n  User {machine.user}\n"
        f"  IdentityFile {machine.identity}\nHost box\n  HostName {sshd.host}\n  Port {sshd.port}\n  ProxyJump jump\n"
        f"  User {sshd.user}\n  IdentityFile {sshd.identity}\n",
    )
    transport = SshTransport("pod", SshAddress("box", alias="box"), pins)
    with pytest.raises(HostKeyUnknown) as caught:
        transport.run(["true"])
    assert "on the way" in caught.value.hint
    (own_home / ".ssh" / "known_hosts").write_text(machine.known_hosts_line())
    assert transport.run(["wc", "-c"], stdin=bytes(3_000_000)).text.strip() == "3000000"
    machine.kill_sessions()
    assert transport.run(["echo", "again"]).text == "again\n"
    transport.close()


def test_through_a_program(sshd: Sshd, pins: HostKeys, own_home: Path, tmp_path: Path) -> None:
    relay = tmp_path / "relay.py"
    relay.write_text(
        "import os, socket, sys, threading\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def up():\n    while data := os.read(0, 65536): s.sendall(data)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while data := s.recv(65536): os.write(1, data)\n"
    )
    write_config(own_home, f"Host *\n  ProxyCommand {sys.executable} '{relay}' %h %p\n")
    with SshTransport("pod", sshd.address, pins) as transport:
        assert transport.run(["wc", "-c"], stdin=bytes(1_000_000)).text.strip() == "1000000"
    write_config(own_home, "Host *\n  ProxyCommand false\n")
    with pytest.raises(Unreachable):
        SshTransport("pod", sshd.address, pins).run(["true"])
    write_config(own_home, "Host *\n  ProxyCommand no-such-program-here %h\n")
    with pytest.raises(Unreachable, match="missing"):
        SshTransport("pod", sshd.address, pins).run(["true"])


# Connections that cannot be made, and those that die


def test_nothing_listens(pins: HostKeys) -> None:
    with pytest.raises(Unreachable, match="nothing listens") as caught:
        SshTransport("pod", SshAddress("127.0.0.1", "me", machines.free_port()), pins).run(["true"])
    assert caught.value.pod == "pod"
    with pytest.raises(Unreachable, match="cannot be resolved"):
        SshTransport("pod", SshAddress("no-such-host.invalid", "me"), pins).run(["true"])


def test_something_else_listens(pins: HostKeys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            client, _ = listener.accept()
            client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            client.close()

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(Unreachable):
            SshTransport("pod", SshAddress("127.0.0.1", "me", listener.getsockname()[1]), pins).run(["true"])


def test_connecting_again_by_itself(machine: Sshd) -> None:
    with connect(machine) as transport:
        for _ in range(5):
            assert transport.run(["echo", "here"]).text == "here\n"
            assert machine.kill_sessions() > 0


def test_a_cut_link_is_told_to_everybody_who_waits(machine: Sshd) -> None:
    with connect(machine) as transport, ThreadPoolExecutor(8) as pool:
        processes = [transport.start(["cat"]) for _ in range(4)]
        readers = [pool.submit(process.read) for process in processes]
        waiters = [pool.submit(process.wait) for process in processes]
        machine.kill_sessions()
        for pending in (*readers, *waiters):
            with pytest.raises(LinkLost):
                pending.result(DEAD_LINK_S * SLACK)
        for process in processes:
            with pytest.raises(LinkLost):
                process.write(b"x")
            with pytest.raises(LinkLost):
                process.read()
            process.close_stdin()
            process.close()
        assert transport.run(["echo", "back"]).text == "back\n"


def test_output_before_the_cut_is_not_lost(machine: Sshd) -> None:
    with connect(machine) as transport:
        process = transport.start(["sh", "-c", "echo said; exec sleep 100"])
        first = process.read()
        machine.kill_sessions()
        assert first == ("stdout", b"said\n")
        with pytest.raises(LinkLost):
            process.read()
        process.close()


def test_a_frozen_link_is_noticed(machine: Sshd) -> None:
    with connect(machine) as transport:
        process = transport.start(["cat"])
        machine.freeze_sessions()
        began = time.monotonic()
        with pytest.raises(LinkLost):
            process.read(DEAD_LINK_S * SLACK)
        assert time.monotonic() - began < DEAD_LINK_S * SLACK
        process.close()
        assert transport.run(["echo", "over another"]).text == "over another\n"


def test_a_frozen_link_sets_a_writer_free(machine: Sshd) -> None:
    with connect(machine, probe_s=0.5, silence_s=1.5) as transport, ThreadPoolExecutor(2) as pool:
        sleeper, new = transport.start(["sleep", "100"]), transport.start(["cat"])
        machine.freeze_sessions()
        writing = pool.submit(sleeper.write, bytes(50_000_000))
        with pytest.raises(LinkLost):
            writing.result(DEAD_LINK_S * SLACK)
        new.close()
        with pytest.raises(LinkLost):
            new.wait(0)


def test_a_quiet_link_is_not_a_dead_one(sshd: Sshd, pins: HostKeys) -> None:
    with SshTransport("pod", sshd.address, pins, probe_s=0.2, silence_s=1.0) as transport:
        process = transport.start(["sh", "-c", "read line; echo got $line"])
        with pytest.raises(TimeoutError):
            process.read(2.5)
        process.write(b"it\n")
        assert process.read(30) == ("stdout", b"got it\n")
        process.close()


def test_more_sessions_than_the_server_takes(tmp_path: Path) -> None:
    server = machines.start_sshd(tmp_path, max_sessions=2)
    try:
        with connect(server, probe_s=0.1) as transport:
            open_ones = [transport.start(["cat"]) for _ in range(7)]
            assert len(server.connections()) == 4
            for number, process in enumerate(open_ones):
                process.write(b"%d" % number)
                assert process.read(30) == ("stdout", b"%d" % number)
                process.close_stdin()
                assert process.wait(30) == 0
            deadline = time.monotonic() + 30
            while len(server.connections()) > 1:
                assert time.monotonic() < deadline, "connections nobody needs are still open"
                time.sleep(0.02)
            assert transport.run(["echo", "kept"]).text == "kept\n"
    finally:
        server.stop()


def test_a_server_that_runs_nothing(tmp_path: Path) -> None:
    server = machines.start_sshd(tmp_path, max_sessions=0)
    try:
        with connect(server) as transport, pytest.raises(Unreachable, match="runs no commands"):
            transport.run(["true"])
    finally:
        server.stop()


def test_many_short_commands_do_not_cost_the_connection(machine: Sshd) -> None:
    # An end-of-file that overtakes nothing: see ssh._Gate.
    with connect(machine) as transport, ThreadPoolExecutor(6) as pool:
        transport.connect()
        (connection,) = machine.connections()
        list(pool.map(lambda _: transport.run(["true"], stdin=b"x" * 10), range(300)))
        assert connection in machine.connections()


def test_a_connection_is_replaced_before_it_carried_too_much(sshd: Sshd, pins: HostKeys) -> None:
    with SshTransport("pod", sshd.address, pins, drain_bytes=3_000_000, probe_s=0.1) as transport:
        before = sshd.connections()
        staying = transport.start(["cat"])
        (first,) = sshd.connections() - before
        transport.run(["cat"], stdin=bytes(2_000_000))
        transport.run(["true"])
        assert len(sshd.connections() - before) == 2
        staying.write(b"still here")
        assert staying.read(30) == ("stdout", b"still here")
        staying.close_stdin()
        assert staying.wait(30) == 0
        deadline = time.monotonic() + 30
        while first in sshd.connections():
            assert time.monotonic() < deadline, "the drained connection is still open"
            time.sleep(0.02)


def test_a_slow_rc_file_changes_nothing_but_the_time(machine: Sshd) -> None:
    (machine.home / ".bashrc").write_text("sleep 0.3\n")
    with connect(machine) as transport:
        done = transport.run(["sh", "-c", "cat; echo err >&2; exit 5"], stdin=b"in", check=False)
        assert (done.status, done.stdout, done.stderr) == (5, b"in", b"err\n")


def test_a_transfer_goes_on_after_the_link_was_cut(machine: Sshd, tmp_path: Path) -> None:
    source, there = tmp_path / "source", tmp_path / "there"
    source.write_bytes(os.urandom(8_000_000))
    with connect(machine) as transport:
        sending = files.send_file(transport, source, str(there))
        with pytest.raises(LinkLost):
            for done in sending:
                if done > 4_000_000:
                    machine.kill_sessions()
        assert not there.exists()
        again = list(files.send_file(transport, source, str(there)))
        assert again[0] > 0
        assert there.read_bytes() == source.read_bytes()
        files.write_file(transport, str(there), b"old")
        machine.kill_sessions()
        assert files.read_file(transport, str(there)) == b"old"


# Ports


def test_a_forward_outlives_its_connection(machine: Sshd) -> None:
    with connect(machine) as transport, socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                client.sendall(b"hello")
                threading.Thread(target=client.recv, args=(1,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        forward = transport.open_port(listener.getsockname()[1])
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", forward.local_port), 30) as client:
                assert client.recv(5, socket.MSG_WAITALL) == b"hello"
                machine.kill_sessions()
                with pytest.raises(ConnectionResetError):  # not b"": that would look like an answer's end
                    client.recv(1)
        listener.shutdown(socket.SHUT_RDWR)


def test_a_port_nobody_listens_on_and_a_pod_that_is_gone(machine: Sshd) -> None:
    with connect(machine) as transport:
        forward = transport.open_port(machines.free_port())
        for _ in range(2):
            with pytest.raises(ConnectionResetError):  # the reset may come before `connect` has looked
                with socket.create_connection(("127.0.0.1", forward.local_port), 30) as client:
                    client.recv(1)
            machine.stop()
        machine.start()


def test_closing_a_forward_cuts_what_is_open(way: SshTransport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        forward = way.open_port(listener.getsockname()[1])
        with socket.create_connection(("127.0.0.1", forward.local_port), 30) as client:
            client.sendall(b"x")
            served, _ = listener.accept()
            served.settimeout(30)
            assert served.recv(1) == b"x"
            forward.close()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            assert served.recv(1) == b""
            served.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", forward.local_port), 30)


def test_a_forward_listens_on_this_computer_only(way: SshTransport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        forward = way.open_port(port)
        assert forward._listener.getsockname()[0] == "127.0.0.1"  # type: ignore[attr-defined]
        with pytest.raises(BadArgument, match=f"Port {port}"):
            way.open_port(80, local_port=port)
        with pytest.raises(BadArgument):
            way.open_port(0)


# The border


def test_every_error_of_the_library_has_one_of_ours() -> None:
    arguments: dict[type, tuple[object, ...]] = {
        paramiko.BadHostKeyException: ("h", paramiko.RSAKey.generate(1024), paramiko.RSAKey.generate(1024)),
        paramiko.ChannelException: (1, "x"),
        paramiko.ProxyCommandFailure: ("x", "y"),
        paramiko.BadAuthenticationType: ("x", ["password"]),
        paramiko.ssh_exception.PartialAuthentication: (["password"],),
        paramiko.ssh_exception.NoValidConnectionsError: ({("h", 22): OSError("x")},),
    }
    kinds = [kind for kind in vars(paramiko.ssh_exception).values() if inspect.isclass(kind)]
    kinds = [kind for kind in kinds if issubclass(kind, Exception)] + [EOFError, TimeoutError, socket.gaierror, OSError]
    for kind in kinds:
        error = kind(*arguments.get(kind, ("x",)))
        with pytest.raises(PodlabError), ssh.translated("pod", LinkLost):
            raise error


def test_signals_have_numbers() -> None:
    assert ssh._signal_number("TERM") == signal.SIGTERM
    assert ssh._signal_number("SIG@openssh.com") == 0
