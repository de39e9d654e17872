"""One simulated pod as a real thing on this computer: its folder, its container, its SSH server, its GPUs."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from podlab.quoting import shell_line
from podlab.sandbox.catalogue import GpuKind
from podlab.sandbox.container import Container, Job
from podlab.sandbox.gpus import GpuUse, write_state
from podlab.sandbox.logbook import Source
from podlab.sandbox.processes import ProcessFacts
from podlab.sandbox.public_port import PublicPort
from podlab.sandbox.records import PodRecord
from podlab.sandbox.ssh_server import PodSshd

SMI = Path(__file__).with_name("smi.py")
LINE_BYTES = 16_384
RESTART_S, LONGEST_RESTART_S = 1.0, 30.0
FOREVER = "2147483647"
SSHD = """#!/bin/sh
# Asks the simulated company to let this pod's SSH server listen; with -D it stays, as the real one does.
stay=""
for word; do
    case $word in
    -t | -T | -V) exit 0 ;;
    -D) stay=1 ;;
    esac
done
: >{flag}
[ -z "$stay" ] || exec sleep {forever}
"""
SERVICE = """#!/bin/sh
[ "$1" != ssh ] && [ "$1" != sshd ] || : >{flag}
"""
START = """#!/bin/sh
# What a pod without a start command runs, as the start.sh of RunPod's images does: a key, an SSH server, and nothing.
mkdir -p "$HOME/.ssh" && chmod 700 "$HOME/.ssh"
[ -z "$PUBLIC_KEY" ] || printf '%s\\n' "$PUBLIC_KEY" >>"$HOME/.ssh/authorized_keys"
sshd
echo "Start script(s) finished, pod is ready to use."
exec sleep {forever}
"""


class Machine:
    """A pod between its boot and its halt. `say` writes a line of its log: source, text."""

    def __init__(
        self, folder: Path, pod: PodRecord, kind: GpuKind, *, url: str, library: Path | None, workspace: Path,
        say: Callable[[Source, str], None],
    ) -> None:  # fmt: skip
        self.folder, self.pod_id = folder, pod.id
        self._say = say
        self._flag = folder / "run" / "sshd"
        self._state = folder / "gpus.state"
        self._is_over = threading.Event()
        self._restart_at: float | None = None
        self._failures = 0
        self._job: Job | None = None
        self._lay_out(workspace)
        self.gpus = GpuUse(kind, pod.wanted.gpu_count, pod.id, pod.cuda, error=pod.gpu_error)
        self._is_deaf = pod.deaf
        write_state(self._state, self.gpus.look([], time.monotonic()))
        session = {
            "PATH": f"{folder / 'bin'}:{os.environ.get('PATH', '/usr/bin:/bin')}", "PODLAB_SIMULATED": "1",
            "PODLAB_ETC_SSH": str(folder / "etc_ssh"), "PODLAB_NVML_STATE": str(self._state),
            "PODLAB_WORKSPACE": str(workspace), "TMPDIR": str(folder / "tmp"), "RUNPOD_POD_ID": pod.id,
        }  # fmt: skip
        if library is not None:
            session["LD_LIBRARY_PATH"] = str(library)
        self.container = Container(folder / "root", session)
        self._public_key = pod.env.get("PUBLIC_KEY", "")
        self.sshd: PodSshd | None = None
        if "22/tcp" in pod.ports:
            self.sshd = PodSshd(self.container, folder / "etc_ssh" / "ssh_host_ed25519_key", self._authorized)
        self._asked = pod.ports
        self._ports: dict[str, PublicPort] = {}
        self._open_ports()
        self._argv = shlex.split(pod.args) or [str(folder / "bin" / "start")]
        self._first_env = {
            **pod.env, "RUNPOD_API_KEY": pod.key, "RUNPOD_API_BASE_URL": url, "RUNPOD_POD_ID": pod.id,
            "RUNPOD_GPU_COUNT": str(pod.wanted.gpu_count), "RUNPOD_CPU_COUNT": str(os.cpu_count() or 1),
            "RUNPOD_DC_ID": pod.data_center or "", "RUNPOD_POD_HOSTNAME": f"{pod.id}-{pod.host}",
            "RUNPOD_PUBLIC_IP": "127.0.0.1", **session,
        }  # fmt: skip
        if self.sshd is not None:
            self._first_env["RUNPOD_TCP_PORT_22"] = str(self.sshd.port)
        self._run_first()

    @property
    def public_ports(self) -> dict[str, int]:
        """Each port that was asked for, and the one outside that leads to it."""
        found = {asked: each.port for asked, each in self._ports.items()}
        return found | ({"22/tcp": self.sshd.port} if self.sshd else {})

    def move_ports(self) -> None:
        """Other ports outside; connections that are open over SSH stay."""
        if self.sshd is not None:
            self.sshd.move()
        self._open_ports()

    def look(self, now: float) -> None:
        """Do what is due: let the SSH server listen, start the first process anew, measure the GPUs."""
        if self.sshd is not None and not self._is_deaf and self._flag.exists():
            self.sshd.open()
        if self._restart_at is not None and now >= self._restart_at:
            self._restart_at = None
            self._run_first()

    def measure(self, now: float, seen: list[ProcessFacts]) -> None:
        """Look at what its processes use, among all that were seen, and tell it where GPUs are read."""
        write_state(self._state, self.gpus.look(self.container.processes(seen), now))

    def end(self) -> None:
        """Kill all that runs in it and take its ports away."""
        self._is_over.set()
        if self.sshd is not None:
            self.sshd.close()
        for each in self._ports.values():
            each.close()
        self.container.end()

    def _open_ports(self) -> None:
        for each in self._ports.values():
            each.close()
        insides = {asked: asked.partition("/")[::2] for asked in self._asked if asked != "22/tcp"}
        self._ports = {
            asked: PublicPort(self.container, int(inside)) for asked, (inside, kind) in insides.items() if kind != "udp"
        }

    def _lay_out(self, workspace: Path) -> None:
        """A fresh container: what the one before wrote is gone, as on the real machines; the workspace is not."""
        for name in ("root", "tmp", "run", "bin", "etc_ssh"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir(parents=True, mode=0o700)
        workspace.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.folder / "root" / "workspace").symlink_to(workspace)
        new_host_key(self.folder / "etc_ssh" / "ssh_host_ed25519_key")
        flag = shell_line([str(self._flag)])
        smi = shell_line([sys.executable, "-I", "-S", str(SMI), str(self._state)])
        programs = {
            "sshd": SSHD.format(flag=flag, forever=FOREVER), "service": SERVICE.format(flag=flag),
            "start": START.format(forever=FOREVER), "nvidia-smi": f'#!/bin/sh\nexec {smi} "$@"\n',
        }  # fmt: skip
        for name, text in programs.items():
            path = self.folder / "bin" / name
            path.write_text(text)
            path.chmod(0o700)

    def _authorized(self) -> str:
        try:
            return f"{self._public_key}\n{(self.folder / 'root' / '.ssh' / 'authorized_keys').read_text()}"
        except (OSError, ValueError):
            return self._public_key

    def _run_first(self) -> None:
        """Start the container's first process; what it writes is the container's log."""
        out, child_out = os.pipe()
        nothing = os.open(os.devnull, os.O_RDONLY)
        try:
            self._job = self.container.start(
                self._argv, (nothing, child_out, child_out), env=self._first_env, on_end=self._first_ended
            )
        except OSError:
            os.close(out)
            return
        finally:
            os.close(nothing)
            os.close(child_out)
        threading.Thread(target=self._read_log, args=(out,), name="sandbox log", daemon=True).start()

    def _read_log(self, descriptor: int) -> None:
        with os.fdopen(descriptor, "rb") as lines:
            while line := lines.readline(LINE_BYTES):
                self._say("container", line.decode(errors="replace").rstrip("\r\n"))

    def _first_ended(self) -> None:
        """The provider starts a container's first process again when it ends; that does not end the bill."""
        if self._is_over.is_set() or self._job is None:
            return
        self._say("system", f"container exited with status {self._job.status}, starting it again")
        self._failures += 1
        self._restart_at = time.monotonic() + min(LONGEST_RESTART_S, RESTART_S * 2 ** min(self._failures - 1, 8))


def new_host_key(path: Path) -> None:
    """Make an Ed25519 host key and its public half."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = Ed25519PrivateKey.generate()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    path.with_name(path.name + ".pub").write_bytes(public + b"\n")
