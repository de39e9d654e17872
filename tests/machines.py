"""A real OpenSSH server on loopback, for tests that need a pod: it can be killed, frozen, restarted and re-keyed.

`start_sshd` works as root and as an ordinary user. Sessions get a HOME of their own (`SetEnv`), so no test touches a
real one; they still *start* in the account's home folder, as sshd decides that by the password database.
"""

from __future__ import annotations

import base64
import contextlib
import getpass
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from podlab.transport.host_keys import HostKeys
from podlab.types import SshAddress
from tests.processes import deleted_under_way

SSHD = shutil.which("sshd", path=f"/usr/sbin:/usr/local/sbin:{os.environ.get('PATH', '')}")
WHY_SKIPPED = "install openssh-server: apt-get install openssh-server"
START_TIMEOUT_S = 15.0


@dataclass
class Sshd:
    """A running server. `home` is HOME in its sessions, `identity` a private key it accepts."""

    folder: Path
    port: int
    home: Path
    identity: Path
    user: str
    config: Path
    host: str = "127.0.0.1"
    process: subprocess.Popen[bytes] | None = None
    key_kinds: tuple[str, ...] = ("ed25519",)
    frozen: list[int] = field(default_factory=list)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def address(self) -> SshAddress:
        return SshAddress(host=self.host, user=self.user, port=self.port, identity_files=(str(self.identity),))

    def public_key(self, kind: str = "ed25519") -> tuple[str, str]:
        """Type and base64 of a host key."""
        key_type, key_base64 = (self.folder / f"host_{kind}.pub").read_text().split()[:2]
        return key_type, key_base64

    def fingerprint(self, kind: str = "ed25519") -> str:
        digest = hashlib.sha256(base64.b64decode(self.public_key(kind)[1])).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    def pin(self, pins: HostKeys, pod_id: str) -> None:
        pins.pin(pod_id, *self.public_key(self.key_kinds[0]))

    def known_hosts_line(self, kind: str = "ed25519") -> str:
        return f"[{self.host}]:{self.port} {' '.join(self.public_key(kind))}\n"

    def start(self) -> None:
        assert SSHD is not None
        command = [SSHD, "-D", "-e", "-f", str(self.config)]
        with (self.folder / "sshd.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                with socket.create_connection((self.host, self.port), 1.0) as probe:
                    probe.settimeout(5.0)
                    if probe.recv(4) == b"SSH-":
                        return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self.folder / "sshd.log").read_text()) from None
                time.sleep(0.02)

    def stop(self) -> None:
        """End the server and its sessions."""
        self.kill_sessions()
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def session_pids(self) -> list[int]:
        """The sshd processes that serve connections, not what runs in them."""
        if self.process is None:
            return []
        found, parents = [], [self.pid]
        children = _sshd_children()
        while parents:
            for child in children.get(parents.pop(), ()):
                found.append(child)
                parents.append(child)
        return found

    def connections(self) -> set[int]:
        """One process for each connection."""
        return set() if self.process is None else set(_sshd_children().get(self.pid, ()))

    def kill_sessions(self) -> int:
        """Cut every connection as a crash would; how many processes that were."""
        pids = self.session_pids()
        for pid in pids:
            _signal(pid, signal.SIGKILL)
        self.frozen.clear()
        return len(pids)

    def freeze_sessions(self) -> None:
        """Stop every connection's process: the kernel goes on acknowledging, and nothing ever answers."""
        self.frozen = self.session_pids()
        for pid in self.frozen:
            _signal(pid, signal.SIGSTOP)

    def thaw_sessions(self) -> None:
        for pid in self.frozen:
            _signal(pid, signal.SIGCONT)
        self.frozen.clear()

    def change_host_key(self) -> None:
        """Another host key, as after a reinstallation, and a restart."""
        for kind in self.key_kinds:
            make_key(self.folder / f"host_{kind}", kind)
        self.restart()

    def authorize(self, public_key: Path) -> None:
        with (self.folder / "authorized_keys").open("a") as file:
            file.write(public_key.read_text())


def make_key(path: Path, kind: str = "ed25519", *, passphrase: str = "") -> Path:
    """A new key pair at `path` and `path`.pub; the private one's path."""
    for old in (path, path.with_name(path.name + ".pub")):
        old.unlink(missing_ok=True)
    size = ["-b", "2048"] if kind == "rsa" else []
    command = ["ssh-keygen", "-q", "-t", kind, *size, "-N", passphrase, "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True)
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_sshd(
    tmp_path: Path,
    *,
    user: str | None = None,
    home: Path | None = None,
    key_kinds: Sequence[str] = ("ed25519",),
    rekey_limit: str | None = None,
    max_sessions: int | None = None,
    environment: Mapping[str, str] | None = None,
    extra_config: Sequence[str] = (),
) -> Sshd:
    """Start a server under `tmp_path`. `user` is the account to log in as (default: whoever runs this), `home` what
    HOME is in its sessions (default: an empty folder), `environment` what else is set in them. Raises RuntimeError
    with sshd's log when it does not start."""
    folder = tmp_path / f"sshd-{os.urandom(3).hex()}"
    folder.mkdir(mode=0o755)
    if home is None:
        home = folder / "home"
        home.mkdir()
    for kind in key_kinds:
        make_key(folder / f"host_{kind}", kind)
    identity = make_key(folder / "id_test")
    shutil.copy(folder / "id_test.pub", folder / "authorized_keys")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd locks its unprivileged part in
    port = free_port()
    lines = [
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        *(f"HostKey {folder}/host_{kind}" for kind in key_kinds),
        f"AuthorizedKeysFile {folder}/authorized_keys",
        "PidFile none",
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin yes",
        "UseDNS no",
        "PrintMotd no",
        "MaxStartups 100",
        " ".join(("SetEnv", *(f"{name}={value}" for name, value in {"HOME": home, **(environment or {})}.items()))),
        *([f"RekeyLimit {rekey_limit}"] if rekey_limit else []),
        *([f"MaxSessions {max_sessions}"] if max_sessions is not None else []),
        *extra_config,
    ]
    config = folder / "sshd_config"
    config.write_text("\n".join(lines) + "\n")
    server = Sshd(folder, port, home, identity, user or getpass.getuser(), config, key_kinds=tuple(key_kinds))
    server.start()
    return server


def _sshd_children() -> dict[int, list[int]]:
    """Parent -> children, of processes whose program is sshd."""
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,comm="], check=True, capture_output=True, text=True).stdout
    children: dict[int, list[int]] = {}
    for line in listing.splitlines():
        pid, parent, name = line.split(None, 2)
        if name.startswith("sshd"):
            children.setdefault(int(parent), []).append(int(pid))
    return children


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it ended in between


@contextlib.contextmanager
def for_a_user_of(shell: str) -> Iterator[Sshd]:
    """A server for a throw-away user whose login shell is `shell`; skips where there is none or it cannot be made."""
    path, name = shutil.which(shell), f"podlab-{shell}-{os.getpid()}"
    if SSHD is None:
        pytest.skip(WHY_SKIPPED)
    if os.geteuid() != 0 or path is None or shutil.which("useradd") is None:
        pytest.skip(f"only root can make a user whose login shell is {shell}")
    folder = Path(tempfile.mkdtemp(prefix=f"podlab-{shell}-"))
    folder.chmod(0o755)
    home = folder / "home"
    subprocess.run(["useradd", "-M", "-p", "*", "-d", str(home), "-s", path, name], check=True, capture_output=True)
    try:
        home.mkdir()
        shutil.chown(home, name)
        server = start_sshd(folder, user=name, home=home)
        yield server
        server.stop()
    finally:
        subprocess.run(["userdel", "-f", name], check=False, capture_output=True)
        deleted_under_way(folder)
