"""Tunnels a person opens, shells and hidden input, and names for completion."""

from __future__ import annotations

import http.server
import io
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from podlab import secrets, settings
from podlab.errors import BadArgument, BadSecret, NotFound
from podlab.lab import hidden, known, pods, shells, tunnels
from podlab.lab.workspace import Workspace
from podlab.types import Pod
from tests.machines import Sshd


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
    import subprocess

    argv = [word for word in shells.shell_of(box).argv if word != "-t"]
    cut = argv.index("--")
    done = subprocess.run([*argv[:cut], "-o", "BatchMode=yes", *argv[cut:], "echo", "in"], capture_output=True,
                          stdin=subprocess.DEVNULL, timeout=30, check=False)  # fmt: skip
    assert done.stdout == b"in\n", done.stderr


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
