"""One failure: a server started so that it fails, watched to its end, and its log as a small file without names."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "tests" / "data" / "tiny"
HEAD_LINES, TAIL_LINES, LINE_LIMIT = 12, 30, 400
RAISED = re.compile(
    r"(?:^|[ .])[A-Z]\w*(?:Error|Exception)\b|\bERROR\b.*\b(?:failed|died)\b|startup complete|Loading weights took|signal="
)
"""A line that says what was raised, who died, or that it was ready: each is kept with what stands around it."""
LIMIT_S = 150


class Unmakeable(Exception):
    """This machine cannot make that failure; the text says what is missing."""


@dataclass
class Start:
    """What is to be run. `shown` is the command as a person would write it. `limits` runs in the child."""

    argv: list[str]
    shown: list[str]
    env: dict[str, str] = field(default_factory=dict)
    limits: Callable[[], None] | None = None


@dataclass
class Scene:
    """Where a failure happens: a folder, a free port, and the running server once it was started."""

    folder: Path
    vllm_python: str | None
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    closing: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def running(self) -> subprocess.Popen[bytes]:
        assert self.process is not None
        return self.process

    def model(self, name: str = "tiny") -> Path:
        """A copy of the tiny model that may be spoiled."""
        target = self.folder / "models" / name
        shutil.copytree(TINY, target)
        return target

    def said(self, words: str, limit_s: float = LIMIT_S) -> None:
        """Wait until the log holds these words."""
        deadline = time.monotonic() + limit_s
        while words not in self.log.read_text(errors="replace"):
            if self.running.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"it never said {words!r}:\n{self.log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.05)

    def child(self, title: str, limit_s: float = LIMIT_S) -> int:
        """Wait for a process below the server whose command line holds `title`; its pid."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline and self.running.poll() is None:
            for pid in descendants(self.running.pid):
                with contextlib.suppress(OSError):
                    if title in Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace"):
                        return pid
            time.sleep(0.02)
        raise AssertionError(f"there was never a process {title}")

    def end(self, limit_s: float = LIMIT_S) -> int:
        """Wait for the end; the status as a shell tells it, 128 + N for signal N."""
        status = self.running.wait(limit_s)
        return status if status >= 0 else 128 - status

    def tidy(self) -> None:
        if self.process is not None:
            for pid in [*descendants(self.process.pid), self.process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):  # what the server left behind is in its group
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.closing.close()


@dataclass(frozen=True)
class Case:
    """A failure to be made. `prepare` spoils what has to be spoiled; `drive` does the rest, None when it was cut while it ran."""

    engine: str
    name: str
    cause: str
    words: str
    """What the most telling line is to hold; "" where the log tells nothing."""
    prepare: Callable[[Scene], Start]
    drive: Callable[[Scene], int | None] = Scene.end
    held_out: bool = False
    """Made only after the rules stood, to see what they do with a log they were not written for."""
    evidence: str = ""
    """What the machine says of it, as a line of TOML; see MachineEvidence."""


def descendants(pid: int) -> list[int]:
    """Every process below that one."""
    parents: dict[int, list[int]] = {}
    for each in Path("/proc").iterdir():
        if each.name.isdecimal():
            with contextlib.suppress(OSError):
                parent = int((each / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(each.name))
    found, todo = [], [pid]
    while todo:
        below = parents.get(todo.pop(), [])
        found += below
        todo += below
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def scene(vllm_python: str | None) -> Iterator[Scene]:
    folder = Path(tempfile.mkdtemp(prefix="failure-"))
    made = Scene(folder, vllm_python, free_port())
    try:
        yield made
    finally:
        made.tidy()
        shutil.rmtree(folder, ignore_errors=True)


def run(case: Case, vllm_python: str | None, versions: str) -> str:
    """Make that failure, and return the text of its file. Raises Unmakeable, and AssertionError when it did not fail so."""
    with scene(vllm_python) as here:
        start = case.prepare(here)
        with here.log.open("wb") as log:
            here.process = subprocess.Popen(
                start.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=here.folder, start_new_session=True,
                env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200", **start.env},
                preexec_fn=start.limits,  # noqa: PLW1509 - no thread runs here
            )  # fmt: skip
        try:
            status = case.drive(here)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"it did not end:\n{here.log.read_text(errors='replace')[-3000:]}") from error
        time.sleep(0.5)  # the last lines of those who still write
        text = here.log.read_text(errors="replace")
        if case.words not in text:
            raise AssertionError(f"status {status}, but nothing says {case.words!r}:\n{text[-6000:]}")
        lines = trimmed(neutral(text, here).splitlines(), case.words)
        shown = [neutral(word, here) for word in start.shown]
    return header(case, shown, status, versions) + "\n".join(lines) + "\n"


def header(case: Case, shown: list[str], status: int | None, versions: str) -> str:
    """What is known of a log, as TOML between two lines of plus signs."""
    words = ", ".join(quoted(word) for word in shown)
    lines = [
        "+++",
        f"engine = {quoted(case.engine)}",
        'provenance = "produced"',
        f"versions = {quoted(versions)}",
        f"command = [{words}]",
        *([f"status = {status}"] if status is not None else []),
        f"cause = {quoted(case.cause)}",
        f"words = {quoted(case.words)}",
        *(["held_out = true"] if case.held_out else []),
        *([case.evidence] if case.evidence else []),
        "+++",
    ]
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """A TOML string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def neutral(text: str, here: Scene) -> str:
    """The text with this machine's paths, addresses and names replaced by ones that are nobody's, always the same."""
    environment = str(Path(here.vllm_python).parents[1]) if here.vllm_python else "/nowhere"
    for path, name in (
        (str(here.folder), "/home/user/work"),
        (environment, "/home/user/vllm"),
        (str(ROOT / ".venv"), "/home/user/podlab/.venv"),
        (str(ROOT), "/home/user/podlab"),
        (str(Path.home()), "/home/user"),
        ("/root", "/home/user"),
    ):
        text = text.replace(path, name)
    text = text.replace("/home/user/work/models", "/home/user/models")
    text = re.sub(rf"\b{re.escape(socket.gethostname())}\b", "pod", text).replace(own_address(), "192.0.2.2")
    return re.sub(r"/home/user/\.pyenv/versions/[^/]+", "/home/user/python", text)


def own_address() -> str:
    """What this machine is called by others: no packet is sent to find it out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def trimmed(lines: list[str], words: str) -> list[str]:
    """The head, what surrounds the decisive words and each exception, and the tail; nobody reads the routes of a server."""
    lines = [line[:LINE_LIMIT].rstrip() for line in lines if "Route: /" not in line]
    keep = set(range(HEAD_LINES)) | set(range(len(lines) - TAIL_LINES, len(lines)))
    for number, line in enumerate(lines):
        if (words and words in line) or RAISED.search(line):
            keep |= set(range(number - 6, number + 5))
    kept: list[str] = []
    last = -1
    for number in sorted(number for number in keep if 0 <= number < len(lines)):
        if number != last + 1:
            kept.append(f"[{number - last - 1} lines left out]")
        kept.append(lines[number])
        last = number
    return kept
