"""Commands on a pod: both streams, the status, attaching again, ending."""

from __future__ import annotations

import hashlib
import io
import sys
import threading
from pathlib import Path
from types import FrameType

import pytest

from podlab.commands.drive import drive
from podlab.errors import BadArgument, NotFound
from podlab.events import Chunk
from podlab.lab import jobs, pods
from podlab.lab.workspace import Workspace
from podlab.types import JobRow, Pod
from tests import processes
from tests.audiences import Silent


@pytest.fixture(params=["local", "box"])
def pod(request: pytest.FixtureRequest) -> Pod:
    """This computer, and a machine reached by SSH."""
    if request.param == "local":
        return pods.find("local")
    found = request.getfixturevalue("box")
    assert isinstance(found, Pod)
    return found


def run(workspace: Workspace, pod: Pod, *argv: str, script: str | None = None) -> tuple[JobRow, str, str]:
    """Run to the end: the job, its stdout and its stderr."""
    audience = Silent()
    job = drive(jobs.start(workspace, pod, argv, script), audience)
    done = drive(jobs.follow(workspace, pod, job.id, stop_on_interrupt=True), audience)
    said = {name: "".join(c.text for c in audience.chunks if c.stream == name) for name in ("stdout", "stderr")}
    return done, said["stdout"], said["stderr"]


def test_streams_and_status(workspace: Workspace, pod: Pod) -> None:
    """Both streams arrive apart and whole, and the exit status is the command's."""
    done, out, err = run(workspace, pod, "sh", "-c", "echo out; echo err >&2; exit 4")
    assert (done.state, done.status, out, err) == ("failed", 4, "out\n", "err\n")


def test_words_arrive_as_they_are(workspace: Workspace, pod: Pod) -> None:
    """No shell reads the words of a command."""
    words = ("$(touch hacked)", "`id`", "a b", "", "*", "ä\n'\"")
    done, out, _ = run(workspace, pod, "python3", "-c", "import sys; print(ascii(sys.argv[1:]))", *words)
    assert (done.status, out.strip()) == (0, ascii(list(words)))


@pytest.mark.parametrize(
    ("language", "script", "said"),
    [("bash", "x=1\necho $((x+1)) ${BASH_VERSION:+bash}", "2 bash\n"), ("python", "print(sum(range(5)))", "10\n")],
)
def test_scripts(workspace: Workspace, pod: Pod, language: str, script: str, said: str) -> None:
    """A cell's body runs as a script of its language."""
    done, out, _ = run(workspace, pod, *jobs.interpreter(language), script=script)
    assert (done.status, out) == (0, said)


def test_much_output(workspace: Workspace, pod: Pod) -> None:
    """A few megabytes arrive whole and in order."""
    done, out, _ = run(workspace, pod, "sh", "-c", "seq 1 400000")
    assert done.status == 0
    assert out == "".join(f"{number}\n" for number in range(1, 400001))


def test_detached_and_attached_again(workspace: Workspace, pod: Pod) -> None:
    """A job goes on unwatched, is listed, and tells everything to whoever attaches."""
    job = drive(jobs.start(workspace, pod, ("sh", "-c", "echo a; sleep 0.3; echo b")), Silent())
    assert job.id in [row.id for row in jobs.listing(workspace, [pod])[0]]
    assert jobs.find(workspace, job.id, None) == (pod, job.id)
    audience = Silent()
    done = drive(jobs.follow(workspace, pod, job.id, stop_on_interrupt=False), audience)
    assert done.state == "succeeded"
    assert "".join(chunk.text for chunk in audience.chunks) == "a\nb\n"


def test_cancelled(workspace: Workspace, pod: Pod) -> None:
    """Ending a job ends what it started, children that left its group too."""
    with processes.silent_command() as line:
        job = drive(jobs.start(workspace, pod, ("sh", "-c", f"setsid {line} & {line}")), Silent())
        processes.wait_until(lambda: len(processes.running(line)) == 2, timeout_s=60, why="they run")
        ended = drive(jobs.cancel(workspace, pod, job.id), Silent())
        assert ended.state == "cancelled"
        assert processes.running(line) == []


def test_missing_program(workspace: Workspace, pod: Pod) -> None:
    """A program that is not there is a failure with a reason, as in a shell: 127."""
    done, _, err = run(workspace, pod, "no-such-program-here")
    assert done.status == 127 and "no-such-program-here" in err


def test_unknown(workspace: Workspace) -> None:
    """Unknown jobs and languages are refused with what to do."""
    with pytest.raises(NotFound, match="j-nope"):
        jobs.find(workspace, "j-nope", None)
    with pytest.raises(BadArgument, match="cobol"):
        jobs.interpreter("cobol")


def test_interrupted_watching_leaves_no_thread(workspace: Workspace) -> None:
    """An interrupt of `pod attach` lets go of its threads within some seconds; the job goes on."""
    local = pods.find("local")
    job = drive(jobs.start(workspace, local, ("sh", "-c", "echo a; sleep 6543")), Silent())
    before = threading.active_count()
    watching = jobs.follow(workspace, local, job.id, stop_on_interrupt=False)
    assert next(watching)
    with pytest.raises(KeyboardInterrupt):
        event = watching.throw(KeyboardInterrupt)
        while event:
            event = next(watching)
    processes.wait_until(lambda: threading.active_count() <= before, timeout_s=15, why="its threads have ended")
    (row,) = jobs.listing(workspace, [local])[0]
    assert row.state == "running"
    drive(jobs.cancel(workspace, local, job.id), Silent())


@pytest.mark.parametrize("data", [b"", bytes(range(256)) * 5000], ids=["nothing", "a megabyte"])
def test_input(workspace: Workspace, pod: Pod, data: bytes) -> None:
    """A job reads what it is given, byte by byte and then the end; nothing of that stays on the pod."""
    audience = Silent()
    read = "import sys, hashlib; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"
    job = drive(jobs.run(workspace, pod, ("python3", "-c", read), stdin=data), audience)
    assert job.status == 0
    assert "".join(chunk.text for chunk in audience.chunks).strip() == hashlib.sha256(data).hexdigest()
    home = Path(workspace.side(pod).hello().home)  # every pod of these tests is on this computer
    assert not (home / "jobs" / job.id / "stdin").exists()


def test_too_much_input_is_refused() -> None:
    """More than is sent along is refused before anything starts, with what to do instead."""
    with pytest.raises(BadArgument, match="16 MiB") as caught:
        drive(jobs.read_input(io.BytesIO(bytes(jobs.INPUT_LIMIT_BYTES + 1))), Silent())
    assert "podlab pod push" in caught.value.hint
    assert drive(jobs.read_input(io.BytesIO(b"x")), Silent()) == b"x"


def test_a_line_for_a_shell_in_one_word(workspace: Workspace) -> None:
    """One quoted word that is no program says how to have a shell read it; a misspelt program does not."""
    for word, is_line in (("echo hi; exit 3", True), ("no-such-program-here", False)):
        audience = Silent()
        job = drive(jobs.run(workspace, pods.find("local"), (word,)), audience)
        assert job.status == 127
        assert ["sh -c 'echo hi; exit 3'" in notice.text for notice in audience.notices] == [True] * is_line


class InterruptAt:
    """Raises KeyboardInterrupt at the `moment`-th line of jobs.py that this thread carries out, as a signal may."""

    def __init__(self, moment: int) -> None:
        self.left = moment

    def __call__(self, frame: FrameType, event: str, arg: object) -> InterruptAt | None:
        if frame.f_code.co_filename != jobs.__file__:
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self


class Enough(Silent):
    """Has heard enough at the first output."""

    def chunk(self, chunk: Chunk) -> None:
        super().chunk(chunk)
        raise KeyboardInterrupt


@pytest.mark.parametrize("share", range(4))
def test_an_interrupt_at_any_line_leaves_nothing_that_runs(workspace: Workspace, share: int) -> None:
    """Also between the answer that the job has begun and the following of it. Each share takes every fourth line."""
    local = pods.find("local")
    moment = share - 3
    enough = Enough()
    while not enough.chunks:
        moment += 4
        enough = Enough()
        before = sys.gettrace()
        sys.settrace(InterruptAt(moment))
        try:
            with pytest.raises(KeyboardInterrupt):
                drive(jobs.run(workspace, local, ("sh", "-c", "echo began; exec sleep 7653")), enough)
        finally:
            sys.settrace(before)
        left = [row for row in jobs.listing(workspace, [local])[0] if row.state == "running"]
        assert left == [], f"interrupted at line {moment}"
    assert moment > 20, "it was tried before anything began, while it began and while it ran"
