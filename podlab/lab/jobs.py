"""Commands on a pod that outlive the link and the kernel: started detached, logged there, attached to again."""

from __future__ import annotations

import codecs
import queue
import re
import secrets as random
import shlex
import threading
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING

from podlab.errors import BadArgument, LinkLost, NotFound, PodlabError, SupervisorError, Unreachable
from podlab.events import Chunk, Notice, Stage, Work
from podlab.lab import pods
from podlab.lab.facts import Facts
from podlab.lab.fanout import ask_all
from podlab.lab.patience import abandon, persistent, repeated
from podlab.lab.supervisor import PodSide, result_of
from podlab.types import JobRow, Pod, PodStatus, Step
from podlab.units import bytes_text

if TYPE_CHECKING:
    from podlab.lab.workspace import Workspace

STREAMS = ("stdout", "stderr")
SCRIPT = "script"
INPUT_LIMIT_BYTES = 16 * 2**20
_SHELL_WORDS = re.compile(r"[\s;|&<>$]")
"""What a program's name has only where a person meant a line for a shell."""


def interpreter(language: str) -> tuple[str, ...]:
    """What runs a cell's script on the pod. Raises BadArgument for a language nobody knows."""
    argv = {"bash": ("bash", f"{{dir}}/{SCRIPT}"), "python": ("python3", "-u", f"{{dir}}/{SCRIPT}")}
    try:
        return argv[language]
    except KeyError:
        raise BadArgument(f"{language!r} cannot be run.", hint="Use --lang bash or --lang python.") from None


def read_input(source: IO[bytes]) -> Work[bytes]:
    """All of what a command is to read. Raises BadArgument for more than INPUT_LIMIT_BYTES.

    It is read to its end before the command starts: a job outlives the link and this process, and one whose input
    ended where a link broke would take half of it for all.
    """
    yield Stage("input", "Reading standard input to its end")
    try:
        data = source.read(INPUT_LIMIT_BYTES + 1)
    except OSError as error:
        raise BadArgument(f"Standard input cannot be read: {error.strerror}.", hint="Give a file or a pipe.") from error
    if len(data) > INPUT_LIMIT_BYTES:
        raise BadArgument(
            f"Standard input is longer than {INPUT_LIMIT_BYTES // 2**20} MiB, too long to be sent along.",
            hint="Push it as a file (podlab pod push FILE), and read that: podlab pod run sh -c 'command <FILE'",
        )
    return data


def start(
    workspace: Workspace, pod: Pod, argv: Sequence[str], script: str | None = None, stdin: bytes = b""
) -> Work[JobRow]:
    """Start a command on a pod, in the user's home there. `script` is put beside it as a file; it reads `stdin`.

    An interrupt ends it, until what is returned has been handed over.
    """
    yield from pods.reach(workspace, pod)
    job_id = _new_id()
    try:
        return _begun(workspace, pod, job_id, argv, script, stdin)
    except KeyboardInterrupt:
        yield from abandon(workspace.side(pod), job_id, job_id)
        raise


def _new_id() -> str:
    return f"j-{random.token_hex(4)}"


def _begun(
    workspace: Workspace, pod: Pod, job_id: str, argv: Sequence[str], script: str | None, stdin: bytes
) -> JobRow:
    shown = shlex.join(argv) if script is None else (script.strip().splitlines() or [""])[0]
    files = {} if script is None else {SCRIPT: script if script.endswith("\n") else script + "\n"}
    side = workspace.side(pod)
    step, meta = Step("run", tuple(argv)), {"command": shown[:500]}
    started = repeated(
        lambda: side.start(id=job_id, name=job_id, kind="job", steps=(step,), files=files, stdin=stdin, meta=meta)
    )
    return row(pod, started.facts)


def follow(workspace: Workspace, pod: Pod, job_id: str, *, stop_on_interrupt: bool) -> Work[JobRow]:
    """What a job says, from its first byte to its end; resumed when the link breaks, and never started again.

    An interrupt ends the job with `stop_on_interrupt`, else only the watching.
    """
    side = workspace.side(pod)
    yield from _outputs(side, job_id, stop_on_interrupt=stop_on_interrupt)
    (facts,) = repeated(lambda: side.status([job_id]))
    if facts.exit is not None and facts.exit.error:
        yield Chunk(facts.exit.error + "\n", "stderr")
        if len(facts.argv) == 1 and _SHELL_WORDS.search(facts.argv[0]):
            line = shlex.quote(facts.argv[0])
            yield Notice(f"No shell reads the command. For one: podlab pod run sh -c {line}", "warning")
    return row(pod, facts)


def run(
    workspace: Workspace, pod: Pod, argv: Sequence[str], script: str | None = None, stdin: bytes = b""
) -> Work[JobRow]:
    """Start a command and follow it to its end. An interrupt at any moment ends it on the pod too.

    So does output that nobody takes any more (`| head`, a full disk here): it would run on and fill the pod's disk.
    """
    yield from pods.reach(workspace, pod)
    job_id = _new_id()
    try:  # around both: an interrupt between them would leave a job that nobody follows
        _begun(workspace, pod, job_id, argv, script, stdin)
        return (yield from follow(workspace, pod, job_id, stop_on_interrupt=True))
    except KeyboardInterrupt:
        yield from abandon(workspace.side(pod), job_id, job_id)
        raise
    except OSError:
        for _ in abandon(workspace.side(pod), job_id, job_id):
            pass  # there is nobody to tell
        raise


def listing(workspace: Workspace, asked: Sequence[Pod]) -> tuple[list[JobRow], list[PodStatus]]:
    """The jobs of these pods, newest first on each, and how each pod answered."""
    answers = ask_all(list(asked), lambda pod: workspace.side(pod).jobs(), deadline_s=workspace.value("deadline_s"))
    rows: list[JobRow] = []
    for pod, answer in zip(asked, answers, strict=True):
        if not isinstance(answer, PodlabError):
            rows += [row(pod, facts) for facts in answer]
    return rows, [pods.status_of(workspace, pod, answer) for pod, answer in zip(asked, answers, strict=True)]


def find(workspace: Workspace, job_id: str, on: str | None) -> tuple[Pod, str]:
    """Which pod a job is on. Raises NotFound, or Unreachable when a pod that may have it does not answer."""
    asked = [pods.find(on)] if on else pods.all_pods()
    rows, statuses = listing(workspace, asked)
    for job in rows:
        if job.id == job_id:
            return pods.find(job.pod), job.id
    pods.refuse_silent(statuses)
    raise NotFound(f"There is no job {job_id!r}.", hint="See: podlab pod jobs")


def cancel(workspace: Workspace, pod: Pod, job_id: str) -> Work[JobRow]:
    """End a job and every process it left."""
    yield Stage("stop", f"Ending {job_id}")
    return row(pod, result_of(persistent(lambda: workspace.side(pod).stop(job_id, grace_s=5.0))).facts)


def row(pod: Pod, facts: Facts) -> JobRow:
    """A job as a person sees it."""
    status = None
    if facts.exit is not None:
        status = 128 + facts.exit.signal if facts.exit.signal is not None else facts.exit.status
    if not facts.ended:
        state = "running"
    elif facts.stop_at is not None:
        state = "cancelled"
    else:
        state = "unknown" if status is None else "succeeded" if status == 0 else "failed"
    return JobRow(facts.id, pod.name, state, str(facts.meta.get("command", "")), facts.started_at, status)


def _outputs(side: PodSide, job_id: str, *, stop_on_interrupt: bool) -> Work[None]:
    """Both streams as they come, each read by a thread of its own."""
    heard: queue.Queue[Chunk | Notice | BaseException | None] = queue.Queue(maxsize=256)
    given_up = threading.Event()

    def put(item: Chunk | Notice | BaseException | None) -> None:
        while not given_up.is_set():
            try:
                return heard.put(item, timeout=0.2)
            except queue.Full:
                continue

    def listen(stream: str) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        assert stream in ("stdout", "stderr")
        lost = Notice(f"The link broke; {job_id} runs on. Connecting again.", "warning")
        try:
            for piece in side.follow_through(job_id, stream, on_lost=lambda _: put(lost), stopped=given_up):  # type: ignore[arg-type]
                if given_up.is_set():
                    return
                if piece.dropped:
                    said = f"{bytes_text(piece.dropped)} of {stream} are missing here: the pod has dropped them."
                    put(Notice(said, "warning"))
                if text := decoder.decode(piece.data):
                    put(Chunk(text, stream))  # type: ignore[arg-type]
            put(None)
        except BaseException as error:  # noqa: BLE001  # it belongs to the thread that follows
            put(error)

    try:
        for stream in STREAMS:
            threading.Thread(target=listen, args=(stream,), daemon=True).start()
        yield from _heard(heard, side, job_id)
    except KeyboardInterrupt:
        if not stop_on_interrupt:
            yield Notice(f"{job_id} goes on. Watch it again: podlab pod attach {job_id}")
        raise
    finally:
        given_up.set()


def _heard(heard: queue.Queue[Chunk | Notice | BaseException | None], side: PodSide, job_id: str) -> Work[None]:
    open_streams = len(STREAMS)
    while open_streams:
        item = heard.get()
        if item is None:
            open_streams -= 1
        elif isinstance(item, LinkLost | Unreachable):
            raise LinkLost(
                f"The link to {side.transport.pod} is lost: what became of {job_id} is unknown, it is still running "
                "unless it ended by itself.",
                pod=side.transport.pod,
                hint=f"It was not started twice. Watch it again: podlab pod attach {job_id}",
            ) from item
        elif isinstance(item, PodlabError):
            raise item
        elif isinstance(item, BaseException):
            raise SupervisorError(f"Following {job_id} failed: {item}") from item
        else:
            yield item
