"""Pods of the simulated company are real: folders, processes, SSH; and they end when they should."""

from __future__ import annotations

import os
import shlex
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from podlab.errors import AuthenticationFailed, Unreachable
from podlab.transport import files
from podlab.transport.host_keys import HostKeys
from podlab.transport.ssh import SshTransport
from tests.sandbox_pods import Tenant, a_tenant, new_identity, until


@pytest.fixture
def tenant(tmp_path: Path) -> Iterator[Tenant]:
    with a_tenant(tmp_path) as found:
        yield found


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return (
        Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z" if Path("/proc").exists() else True
    )


def test_a_pod_is_reached_by_ssh_and_runs_real_commands(tenant: Tenant) -> None:
    with tenant.reach(tenant.rent()) as pod:
        done = pod.run(["sh", "-c", "cat; echo said >&2; exit 3"], stdin=b"given" * 100_000, check=False)
        told = pod.run(["sh", "-c", 'echo "$HOME|$PWD|$PODLAB_SIMULATED|${RUNPOD_API_KEY-none}"']).text.strip()
        killed = pod.run(["sh", "-c", "kill -TERM $$"], check=False)

    home, here, simulated, key = told.split("|")
    assert (done.status, done.stdout, done.stderr) == (3, b"given" * 100_000, b"said\n")
    assert home == here and simulated == "1" and key == "none", "the pod's own key is its first process's alone"
    assert killed.status == 143


def test_much_output_arrives_whole_and_many_commands_run_at_once(tenant: Tenant) -> None:
    with tenant.reach(tenant.rent()) as pod:
        assert len(pod.run(["head", "-c", "8000000", "/dev/zero"]).stdout) == 8_000_000
        found: list[str] = []
        threads = [
            threading.Thread(target=lambda n=n: found.append(pod.run(["echo", str(n)]).text.strip())) for n in range(12)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(found, key=int) == [str(n) for n in range(12)]


def test_a_client_that_breaks_off_in_the_middle_of_much_output_ends_no_thread_in_an_error(tenant: Tenant) -> None:
    """pytest fails a test in which a thread died."""
    rented = tenant.rent()
    for _ in range(8):
        with tenant.reach(rented) as pod:
            assert pod.start(["yes"]).read(30)
    until(lambda: not any(thread.name.endswith("(_pour)") for thread in threading.enumerate()))


def test_files_travel_both_ways(tenant: Tenant, tmp_path: Path) -> None:
    given, back = tmp_path / "given", tmp_path / "back"
    given.write_bytes(os.urandom(300_000))
    with tenant.reach(tenant.rent()) as pod:
        list(files.send_file(pod, given, "there"))
        list(files.fetch_file(pod, "there", back))
    assert back.read_bytes() == given.read_bytes()


def test_a_port_of_a_pod_is_led_to_and_another_pods_port_is_not(tenant: Tenant) -> None:
    with socket.socket() as picked:
        picked.bind(("127.0.0.1", 0))
        port = picked.getsockname()[1]
    server = ("import socket,sys; s=socket.socket(); s.setsockopt(1,2,1) if sys.platform=='linux' else 0; "
              f"s.bind(('127.0.0.1',{port})); s.listen(); print('up',flush=True); c,_=s.accept(); "
              "c.sendall(c.recv(100).upper()); c.close()")  # fmt: skip
    with tenant.reach(tenant.rent("one")) as one, tenant.reach(tenant.rent("two")) as two:
        with one.start([sys.executable, "-c", server]) as running:
            assert running.read(60) == ("stdout", b"up\n")
            wrong = two.open_port(port)
            with socket.create_connection(("127.0.0.1", wrong.local_port), 30) as wire:
                wire.settimeout(30)
                assert _read(wire) == b""
            right = one.open_port(port)
            with socket.create_connection(("127.0.0.1", right.local_port), 30) as wire:
                wire.settimeout(30)
                wire.sendall(b"word")
                assert _read(wire) == b"WORD"


def _read(wire: socket.socket) -> bytes:
    try:
        return wire.recv(100)
    except ConnectionResetError:
        return b""


def test_only_the_pods_key_opens_it(tenant: Tenant, tmp_path: Path) -> None:
    pod = tenant.rent()
    address = tenant.address(pod)
    (tmp_path / "other").mkdir()
    stranger = type(address)(address.host, address.user, address.port, (str(new_identity(tmp_path / "other")),))
    pins = HostKeys()
    kind, key = (tenant.folder(pod) / "etc_ssh" / "ssh_host_ed25519_key.pub").read_text().split()[:2]
    pins.pin(pod, kind, key)

    with SshTransport(pod, stranger, pins) as transport, pytest.raises(AuthenticationFailed):
        transport.run(["true"])


def test_two_pods_share_neither_folders_nor_host_keys(tenant: Tenant) -> None:
    one, two = tenant.rent("one"), tenant.rent("two")
    with tenant.reach(one) as first, tenant.reach(two) as second:
        homes = {pod.run(["sh", "-c", "echo $HOME $TMPDIR"]).text for pod in (first, second)}
    keys = {(tenant.folder(pod) / "etc_ssh" / "ssh_host_ed25519_key.pub").read_text() for pod in (one, two)}

    assert len(homes) == len(keys) == 2


def test_a_start_command_is_the_first_process_and_its_words_are_the_log(tenant: Tenant) -> None:
    script = 'echo "pod $RUNPOD_POD_ID has $RUNPOD_GPU_COUNT"; echo "$GREETING"; exec sshd -D -e'
    pod = tenant.rent(args=shlex.join(["sh", "-c", script]), env={"GREETING": 'it\'s "me"'})

    until(lambda: 'it\'s "me"' in tenant.log(pod))
    assert f"pod {pod} has 1" in tenant.log(pod)
    until(lambda: tenant.machine(pod).sshd.is_open)


def test_the_port_refuses_until_an_ssh_server_runs(tenant: Tenant) -> None:
    pod = tenant.rent(args="sleep 1000")
    direct = until(lambda: tenant.look(pod)["ssh"]["direct"])

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((direct["host"], direct["port"]), 30)


def test_a_first_process_that_ends_is_started_again_and_billed_on(tenant: Tenant) -> None:
    pod = tenant.rent(args="sh -c 'echo again; exit 7'")

    until(lambda: tenant.log(pod).count("again") >= 2)
    assert "container exited with status 7, starting it again" in tenant.log(pod)
    assert tenant.look(pod)["status"] == "RUNNING"


def test_a_pod_ends_itself_with_its_own_key(tenant: Tenant) -> None:
    ask = ("import os,urllib.request as r; e=os.environ; "
           "r.urlopen(r.Request(e['RUNPOD_API_BASE_URL']+'/v2/pods/'+e['RUNPOD_POD_ID'], method='DELETE', headers={"
           "'Authorization':'Bearer '+e['RUNPOD_API_KEY'],'User-Agent':'pod'}))")  # fmt: skip
    pod = tenant.rent(args=shlex.join([sys.executable, "-c", ask]))

    until(lambda: tenant.http.get(f"/v2/pods/{pod}").status_code == 404)
    until(lambda: tenant.machine(pod) is None)


DETACHED = ("import os,sys,time\nos.environ.clear()\nif os.fork(): os._exit(0)\nos.setsid()\n"
            "if os.fork(): os._exit(0)\nprint(os.getpid(),flush=True)\n"
            "d=os.open('/dev/null',2)\n[os.dup2(d,n) for n in (0,1,2)]\ntime.sleep(1000)")  # fmt: skip


@pytest.mark.parametrize("how", ["stop", "terminate", "restart"])
def test_no_process_outlives_its_pod_however_it_hid(tenant: Tenant, how: str) -> None:
    pod = tenant.rent()
    with tenant.reach(pod) as transport:
        hidden = int(transport.run([sys.executable, "-c", DETACHED]).text)
        folder = tenant.folder(pod)
        assert alive(hidden)
        tenant.act(pod, how)
        until(lambda: not alive(hidden))
    if how == "terminate":
        until(lambda: not folder.exists())


def test_a_stopped_pod_refuses_and_starts_as_a_fresh_container_at_another_port(tenant: Tenant) -> None:
    pod = tenant.rent(mounts={"persistent": {"size": 10, "path": "/workspace"}})
    with tenant.reach(pod) as transport:
        transport.run(["sh", "-c", "echo 1 >gone; echo 2 >workspace/kept"])
    before = tenant.address(pod)
    key = (tenant.folder(pod) / "etc_ssh" / "ssh_host_ed25519_key.pub").read_text()
    tenant.act(pod, "stop")
    until(lambda: tenant.machine(pod) is None)

    with SshTransport(pod, before, HostKeys()) as closed, pytest.raises(Unreachable):
        closed.run(["true"])
    tenant.act(pod, "start")
    with tenant.reach(pod) as transport:
        assert transport.run(["sh", "-c", "cat workspace/kept; ls gone"], check=False).stdout == b"2\n"
    assert tenant.address(pod).port != before.port
    assert (tenant.folder(pod) / "etc_ssh" / "ssh_host_ed25519_key.pub").read_text() != key


def test_a_network_volume_outlives_its_pod(tenant: Tenant) -> None:
    asked = {"name": "data", "size": 10, "dataCenter": "EU-RO-1"}
    volume = tenant.http.post("/v2/network-volumes", json=asked).json()["id"]
    mounts = {"network": [{"volumeId": volume, "path": "/workspace"}]}
    with tenant.reach(tenant.rent(mounts=mounts)) as one:
        one.run(["sh", "-c", "echo 1 >$PODLAB_WORKSPACE/kept"])
    for pod in list(tenant.running.company.pods):
        tenant.act(pod, "terminate")
    with tenant.reach(tenant.rent(mounts=mounts)) as two:
        assert two.run(["sh", "-c", "cat $PODLAB_WORKSPACE/kept"]).text == "1\n"


def test_a_public_port_moves_while_the_pod_runs(tenant: Tenant) -> None:
    pod = tenant.rent()
    before = tenant.address(pod).port
    tenant.http.post("/sandbox/faults", json={"name": "new-port"})

    after = until(lambda: (found := tenant.look(pod)["ssh"]["direct"]) and found["port"] != before and found)
    with tenant.reach(pod) as transport:
        assert transport.run(["echo", "here"]).text == "here\n"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((after["host"], before), 30)


def test_a_shell_has_a_terminal(tenant: Tenant) -> None:
    import paramiko

    pod = tenant.rent()
    address = tenant.address(pod)
    link = paramiko.Transport((address.host, address.port))
    link.start_client(timeout=60)
    link.auth_publickey("root", paramiko.Ed25519Key.from_private_key_file(str(tenant.identity)))
    channel = link.open_session()
    channel.get_pty("xterm", 101, 37)
    channel.invoke_shell()
    channel.settimeout(60)
    channel.sendall(b"stty size; tty; exit 5\n")
    said = b""
    while data := channel.recv(1000):
        said += data
    assert b"37 101" in said and (b"/dev/pts/" in said or b"/dev/tty" in said) and channel.recv_exit_status() == 5
    link.close()


def test_a_port_that_was_asked_for_is_led_to_the_pod(tenant: Tenant) -> None:
    with socket.socket() as picked:
        picked.bind(("127.0.0.1", 0))
        port = picked.getsockname()[1]
    pod = tenant.rent(ports=["22/tcp", f"{port}/http"])
    with tenant.reach(pod) as transport:
        with transport.start([sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]):
            ports = tenant.look(pod)["runtime"]["ports"]
            public = next(each["public"] for each in ports if each["private"] == port)
            url = f"http://127.0.0.1:{public}/"

            def answer() -> bool:
                try:
                    return httpx2.get(url, timeout=30, trust_env=False).status_code == 200
                except httpx2.TransportError:
                    return False

            until(answer)
            tenant.act(pod, "stop")
            until(lambda: not answer())


def test_an_ssh_server_may_never_listen(tenant: Tenant) -> None:
    tenant.http.post("/sandbox/faults", json={"name": "no-sshd"})
    pod = tenant.rent()
    until(lambda: "Start script(s) finished, pod is ready to use." in tenant.log(pod))
    direct = until(lambda: tenant.look(pod)["ssh"]["direct"])

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((direct["host"], direct["port"]), 30)


@pytest.mark.parametrize("args", ["no-such-program --x", "'unbalanced", "sh -c \ud800", "a\x00b"])
def test_a_command_that_cannot_be_run_breaks_that_pod_alone(tenant: Tenant, args: str) -> None:
    broken, other = tenant.rent("broken", args=args), tenant.rent("other")

    until(lambda: any("exited with status 127" in line or "cannot start" in line for line in tenant.log(broken)))
    with tenant.reach(other) as transport:
        assert transport.run(["echo", "here"]).text == "here\n"
