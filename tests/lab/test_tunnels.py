"""Tunnels a person opens, shells and hidden input, and names for completion."""

from __future__ import annotations

import http.server
import io
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from podlab import secrets, settings
from podlab.errors import BadArgument, BadSecret, NotFound
from podlab.lab import hidden, known, pods, shells, tunnels
from podlab.lab.workspace import Reached, Workspace
from podlab.transport.host_keys import HostKeys
from podlab.types import Endpoint, EndpointState, Pod, SshAddress
from tests.machines import SSHD as SSHD_PATH
from tests.machines import WHY_SKIPPED, Sshd, make_key, start_sshd


@pytest.fixture
def page() -> Iterator[int]:
    """The port of a small web server; the SSH pod of these tests is this machine too."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_open_list_close(workspace: Workspace, box: Pod, page: int) -> None:
    """A tunnel carries requests, opening it again gives the same port, and a closed one is gone."""
    row = tunnels.open_port(workspace, box, page, None)
    url = f"http://127.0.0.1:{row.local_port}/"
    assert urllib.request.urlopen(url, timeout=10).read() == b"hello"
    assert tunnels.open_port(workspace, box, page, None) == row
    assert tunnels.listing(workspace) == (row,)
    tunnels.close(workspace, box, page)
    assert tunnels.listing(workspace) == ()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=10)
    with pytest.raises(NotFound):
        tunnels.close(workspace, box, page)


@pytest.mark.parametrize("text", ["0", "65536", "-1", "http", "80a", ""])
def test_no_port(text: str) -> None:
    """What is no port is refused by name."""
    with pytest.raises(BadArgument, match="is not a port"):
        tunnels.port(text)


def test_shell_pins_the_host_key(box: Pod, sshd: Sshd) -> None:
    """The interactive shell uses podlab's pinned key and asks nobody, and forwards no agent."""
    words = shells.shell_of(box).argv
    line = " ".join(words)
    assert f"HostKeyAlias=podlab-{box.id}" in line and str(settings.home() / "known_hosts") in line
    assert "StrictHostKeyChecking=yes" in line and "ForwardAgent=no" in line
    assert words[-2:] == ("--", sshd.host)


def test_shell_really_opens(box: Pod) -> None:
    """OpenSSH accepts the pinned key as podlab wrote it."""
    argv = [word for word in shells.shell_of(box).argv if word != "-t"]
    cut = argv.index("--")
    done = subprocess.run([*argv[:cut], "-o", "BatchMode=yes", *argv[cut:], "echo", "in"], capture_output=True,
                          stdin=subprocess.DEVNULL, timeout=30, check=False)  # fmt: skip
    assert done.stdout == b"in\n", done.stderr


@pytest.fixture
def hop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sshd: Sshd) -> Iterator[Sshd]:
    """A second machine, on the way to the first; its key is in an agent, as a jump host's usually is."""
    if SSHD_PATH is None:
        pytest.skip(WHY_SKIPPED)
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(tmp_path / "agent")], stdout=subprocess.PIPE)
    assert agent.stdout is not None
    agent.stdout.readline()
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    server = start_sshd(tmp_path)
    for each in (server, sshd):
        subprocess.run(["ssh-add", "-q", str(each.identity)], check=True, stderr=subprocess.DEVNULL)
    yield server
    server.stop()
    agent.terminate()
    agent.wait()
    agent.stdout.close()


def through(sshd: Sshd, jump: str) -> Pod:
    """A pod behind other machines, its host key pinned."""
    sshd.pin(HostKeys(), "0123456789ab")
    address = SshAddress(sshd.host, sshd.user, sshd.port, (str(sshd.identity),), proxy_jump=jump)
    return Pod("inner", "0123456789ab", "ssh", address)


def said_in_a_shell(pod: Pod) -> subprocess.CompletedProcess[bytes]:
    """What `echo in` says where `pod shell` leads."""
    argv = [word for word in shells.shell_of(pod).argv if word != "-t"]
    return subprocess.run([*argv, "echo", "in"], capture_output=True, stdin=subprocess.DEVNULL, timeout=30, check=False)


def trust(home: Path, line: str) -> None:
    (home / ".ssh").mkdir(exist_ok=True)
    (home / ".ssh" / "known_hosts").write_text(line)


def test_a_jump_host_is_held_to_its_key(
    sshd: Sshd, hop: Sshd, own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine on the way must show the key that the user's known_hosts holds; nobody is asked, nothing is added."""
    pod = through(sshd, f"{hop.user}@{hop.host}:{hop.port}")
    yes = tmp_path / "yes"
    yes.write_text("#!/bin/sh\necho yes\n")
    yes.chmod(0o755)
    monkeypatch.setenv("SSH_ASKPASS", str(yes))  # who says yes to anything, and is asked without a terminal
    monkeypatch.setenv("SSH_ASKPASS_REQUIRE", "force")
    unknown = said_in_a_shell(pod)
    assert unknown.returncode == 255 and b"Host key verification failed" in unknown.stderr
    trust(own_home, hop.known_hosts_line())
    known = said_in_a_shell(pod)
    assert (known.stdout, known.returncode) == (b"in\n", 0), known.stderr
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text().split()[:2]
    trust(own_home, f"[{hop.host}]:{hop.port} {' '.join(other)}\n")
    changed = said_in_a_shell(pod)
    assert changed.returncode == 255 and b"HAS CHANGED" in changed.stderr


def test_two_jump_hosts_in_a_row(sshd: Sshd, hop: Sshd, own_home: Path) -> None:
    """Each machine on the way leads to the next, and each is held to its key."""
    pod = through(sshd, f"{sshd.user}@{sshd.host}:{sshd.port},{hop.user}@{hop.host}:{hop.port}")
    trust(own_home, sshd.known_hosts_line())
    assert said_in_a_shell(pod).returncode == 255  # the second one is not known
    trust(own_home, sshd.known_hosts_line() + hop.known_hosts_line())
    done = said_in_a_shell(pod)
    assert done.stdout == b"in\n", done.stderr


def test_a_jump_host_of_the_config_is_held_to_its_key(sshd: Sshd, hop: Sshd, own_home: Path) -> None:
    """So is one that only ~/.ssh/config names."""
    pod = through(sshd, "")
    (own_home / ".ssh").mkdir()
    (own_home / ".ssh" / "config").write_text(
        f"Host {sshd.host}\n  ProxyJump {hop.user}@jump.invalid:{hop.port}\nHost jump.invalid\n  ProxyJump none\n"
    )
    (command,) = [word for word in shells.shell_of(pod).argv if word.startswith("ProxyCommand=")]
    assert "StrictHostKeyChecking=yes" in command and "jump.invalid" in command
    assert not any(word == "-J" for word in shells.shell_of(pod).argv)


def test_threads_that_ask_at_once_get_one_port(workspace: Workspace, box: Pod, page: int) -> None:
    """Without a keeper too, one listener leads to a port of a pod."""
    everybody = threading.Barrier(8)

    def ask(_: int) -> int:
        everybody.wait()
        return workspace.local_port(box, page)

    transport = workspace.transport(box)
    with ThreadPoolExecutor(8) as pool:
        ports = set(pool.map(ask, range(8)))
    assert len(ports) == 1
    assert len(transport._forwards) == 1  # type: ignore[attr-defined]


def test_a_closed_workspace_holds_nothing(workspace: Workspace, box: Pod, page: int) -> None:
    """Its ports are closed, its clients too, and what is used afterwards is opened anew."""
    port = workspace.local_port(box, page)
    endpoint = Endpoint("0" * 32, "tiny", "box", "tiny", "llamacpp", EndpointState.READY)
    reached = Reached(endpoint, f"http://127.0.0.1:{port}/v1", None, "tiny")
    workspace.keep_reached(reached)
    client = workspace.http(reached)
    workspace.close()
    assert workspace.forwards() == [] and workspace.reached("tiny") is None
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10)
    assert client._client.is_closed
    again = workspace.local_port(box, page)
    assert urllib.request.urlopen(f"http://127.0.0.1:{again}/", timeout=10).read() == b"hello"


def test_how_long_an_address_works(workspace: Workspace, box: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said as it is: with a keeper, without one, and on this computer."""
    assert "until this process ends" in tunnels.lasting(workspace, box)
    assert tunnels.lasting(workspace, pods.find("local")) == "as long as it runs"
    monkeypatch.setenv("PODLAB_KEEPER", "1")
    assert "12 hours" in tunnels.lasting(workspace, box)


def test_hidden_from_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret may come on standard input; nothing is an error."""
    monkeypatch.setattr("sys.stdin", io.StringIO("s3cret-value\n"))
    assert hidden.read("HF_TOKEN").reveal() == "s3cret-value"
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    with pytest.raises(BadSecret, match="HF_TOKEN"):
        hidden.read("HF_TOKEN")


def test_known_names(workspace: Workspace, box: Pod) -> None:
    """What completion offers comes from files of this computer."""
    assert known.names(workspace, "pods") == ["local", "box"]
    assert "tiny" in known.names(workspace, "models")
    assert "chat.max_tokens" in known.names(workspace, "settings")
    secrets.keep("HF_TOKEN", secrets.Secret("hf_0123456789"))
    assert known.names(workspace, "secrets") == ["HF_TOKEN"]
    assert known.names(workspace, "endpoints") == [] == known.names(workspace, "nonsense")
    assert pods.find("box") == box
