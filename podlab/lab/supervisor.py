"""The client of the pod's own side: typed requests over a Transport, answered by remote/supervisor.py.

Each request starts one short-lived Python on the pod, sends it the program and the request on standard input (nothing
on the pod's disk, nothing secret in an argv) and reads JSON lines. `PodSide` may be used from several threads; every
method blocks, and every one raises

- SupervisorError when the pod's side answers with an error or not in its protocol,
- EngineUnavailable when the pod has no Python it accepts,
- LinkLost when the pod says nothing for `silence_s`; Unreachable and the other TransportErrors as Transport.start does.
  What became of a `start`, `stop` or `restart` is then unknown: repeat it, each is idempotent.
"""

from __future__ import annotations

import base64
import binascii
import json
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, Literal, Self, TypeVar

from podlab.errors import (
    AlreadyExists,
    BadArgument,
    EngineUnavailable,
    LinkLost,
    NotFound,
    PodlabError,
    SupervisorError,
    Unreachable,
)
from podlab.lab.facts import (
    ExitFacts,
    Facts,
    HealthCheck,
    Kind,
    LogStream,
    Piece,
    PodFacts,
    Started,
    Stopped,
    StopStage,
    Tail,
    Wire,
    exit_from,
    facts_from,
    pod_facts_from,
)
from podlab.transport.base import Process, Transport
from podlab.types import Step

PROTOCOL = 1
SILENCE_S = 15.0
"""The pod's side says something at least every 3 s; after this long without a word the link counts as lost."""
LINE_LIMIT_BYTES = 4 * 2**20
BANNER_LIMIT_BYTES = 64 * 2**10
"""What a login shell may say before our first line."""
T = TypeVar("T")

BOOT = (
    "import sys\n"
    "if sys.version_info<(3,8):sys.exit(97)\n"
    "exec(compile(sys.stdin.buffer.read(int(sys.argv[1])),'supervisor','exec'))"
)
# A Python that is too old (97), does not know -I (2), or is a shim of pyenv's with nothing behind it (127) has not
# read its input: the next one may.
FIND_PYTHON = (
    "for p in python3 python3.13 python3.12 python3.11 python3.10 python3.9 python3.8 python; do "
    'command -v "$p" >/dev/null 2>&1 || continue; "$p" -I -S -u -c "$1" "$2"; s=$?; '
    "case $s in 2|97|126|127) ;; *) exit $s;; esac; done; "
    'echo \'{"v":1,"error":{"kind":"no_python","message":"no Python 3.8 or newer was found"}}\''
)


CHANGING = frozenset({"start", "stop", "restart", "remove"})


@cache
def program(main: str, *rooms: str) -> str:
    """One Python text that needs nothing but itself: the files `rooms` of podlab/remote as modules, then `main`."""
    lines = [
        "import sys",
        "def room(name, text):",
        "    sys.modules[name] = module = type(sys)(name)",
        "    exec(compile(text, name, 'exec'), module.__dict__)",
    ]
    lines += [f"room('podlab.remote.{name}', {_remote_source(name)!r})" for name in rooms]
    lines.append(f"exec(compile({_remote_source(main)!r}, 'podlab.remote.{main}', 'exec'))")
    return "\n".join(lines) + "\n"


def _remote_source(name: str) -> str:
    # Read, never imported: what runs on the pod must not come to depend on what runs here.
    return resources.files("podlab.remote").joinpath(f"{name}.py").read_text(encoding="utf-8")


def result_of(work: Generator[object, None, T]) -> T:
    """Run `work` to its end, ignore what it yields, and give back what it returns."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


class PodSide:
    """podlab's own side of one pod.

    `home` is its folder on the pod; None means $PODLAB_POD_HOME there, else ~/.podlab/pod/<machine id>. `python` is
    the interpreter to use; None means the first fitting one on the pod's PATH.
    """

    def __init__(
        self, transport: Transport, home: str | None = None, python: str | None = None, *,
        silence_s: float = SILENCE_S,
    ) -> None:  # fmt: skip
        self.transport = transport
        self._home = home
        self._python = python
        self._silence_s = silence_s

    @classmethod
    def local(cls, transport: Transport, home: str) -> PodSide:
        """For this computer: the interpreter we run on."""
        return cls(transport, home, sys.executable)

    def hello(self) -> PodFacts:
        """The machine, its Python and podlab's folder there. Writes nothing on the pod."""
        return pod_facts_from(self._ask("hello"))

    def start(
        self,
        *,
        id: str,
        name: str,
        steps: Sequence[Step],
        kind: Kind = "endpoint",
        cwd: str | None = None,
        port: int = 0,
        model: str = "",
        engine: str = "",
        gpus: Sequence[int] = (),
        key: str | None = None,
        secrets: Mapping[str, Mapping[str, str]] | None = None,
        files: Mapping[str, str] | None = None,
        health: HealthCheck | None = None,
        meta: Mapping[str, object] | None = None,
    ) -> Started:
        """Start an endpoint or a job and answer once its first step runs. Doing it again with the same `id` starts
        nothing and answers with what is there.

        `id` is chosen by the caller before the first try. `port` 0 means any free one on 127.0.0.1. In the steps'
        argv and env values the words `{port}`, `{dir}` (the endpoint's folder) and `{home}` are filled in, and
        `{key}` in env values. `key` is the endpoint's own API key; it is kept in the folder's file `key` (0600).
        `secrets` maps a step's name to the variables only that step gets; they are never on the pod's disk. `files`
        (name -> text) are written to the folder before the first step. A job's `cwd` is relative to the user's home.

        Raises AlreadyExists when the name is in use by a living endpoint, or the wished port by some process.
        """
        body = {
            "id": id, "name": name, "kind": kind, "cwd": cwd, "port": port, "model": model, "engine": engine,
            "steps": [{"name": step.name, "argv": list(step.argv), "env": dict(step.env)} for step in steps],
            "gpus": list(gpus), "key": key, "files": dict(files or {}), "meta": dict(meta or {}),
            "secrets": {step: dict(values) for step, values in (secrets or {}).items()},
            "health": health and {"path": health.path, "models_path": health.models_path,
                                  "served_name": health.served_name},
            "monitor": program("monitor", "machine"),
        }  # fmt: skip
        return _started_from(self._ask("start", body))

    def list(self) -> tuple[Facts, ...]:
        """Every endpoint with facts checked now, orphans included; newest first."""
        return self._ask_facts("list")

    def jobs(self) -> tuple[Facts, ...]:
        """Every job with facts checked now; newest first."""
        return self._ask_facts("jobs")

    def status(self, ids: Iterable[str]) -> tuple[Facts, ...]:
        """These endpoints or jobs, in this order. Raises NotFound for an id the pod knows nothing of."""
        return self._ask_facts("status", {"ids": list(ids)})

    def watch(
        self, id: str, timeout_s: float, until: Literal["ready", "ended"] = "ready"
    ) -> Generator[Facts, None, Literal["ready", "ended", "timeout"]]:
        """Facts now and whenever they change, until it is ready (or, with `until="ended"`, no sooner than its end).

        Returns why it stopped looking; the last facts carry the last log lines if it has ended.
        """
        reasons: dict[str, Literal["ready", "ended", "timeout"]] = {
            "ready": "ready", "ended": "ended", "timeout": "timeout",
        }  # fmt: skip
        with self._talk("watch", {"id": id, "timeout_s": timeout_s, "until": until}) as talk:
            for answer in talk:
                yield facts_from(answer.get("facts"))
                if "end" in answer:
                    return reasons[Wire(answer, "watch").text("end")]
        raise talk.broken_off()

    def follow(
        self,
        id: str,
        stream: LogStream = "log",
        generation: int = 1,
        offset: int = 0,
        *,
        until_exit: bool = True,
        stopped: threading.Event | None = None,
    ) -> Generator[Piece, None, ExitFacts]:
        """The bytes of a stream from a position on, as they come, without gap or repetition; goes on with the next
        generation after a restart. Returns how it ended.

        With `until_exit=False` it waits for a next generation after an end, and ends only when it is closed.
        `stopped` ends it from another thread within some seconds, also while nothing comes.
        LinkLost in between: follow again from the last piece's generation and `next_offset`, as `follow_through` does.
        """
        body = {"id": id, "stream": stream, "generation": generation, "offset": offset, "until_exit": until_exit}
        with self._talk("follow", body) as talk:
            for answer in talk.until(stopped):
                if "end" in answer:
                    return exit_from(answer["end"])
                piece = _piece_from(answer)
                if (piece.generation, piece.offset) != (generation, offset) and (
                    piece.generation <= generation or piece.offset != 0
                ):
                    raise SupervisorError(
                        f"The pod's side sent byte {piece.offset} of generation {piece.generation} "
                        f"where byte {offset} of generation {generation} was due."
                    )
                generation, offset = piece.generation, piece.next_offset
                if piece.data:
                    yield piece
            if stopped is not None and stopped.is_set():
                return ExitFacts(None, None, None)
        raise talk.broken_off()

    def follow_through(
        self, id: str, stream: LogStream = "log", generation: int = 1, offset: int = 0, *, until_exit: bool = True,
        patience_s: float = 120.0, on_lost: Callable[[PodlabError], None] | None = None,
        stopped: threading.Event | None = None,
        sleep: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic,
    ) -> Generator[Piece, None, ExitFacts]:  # fmt: skip
        """As `follow`, but resumes by itself when the link is lost, for up to `patience_s` without a byte or word from
        the pod; then the last LinkLost or Unreachable is raised. `on_lost` hears of each loss."""
        lost_since: float | None = None
        pause_s = 0.2
        while True:
            pieces = self.follow(id, stream, generation, offset, until_exit=until_exit, stopped=stopped)
            began = clock()
            try:
                while True:
                    try:
                        piece = next(pieces)
                    except StopIteration as end:
                        return end.value  # type: ignore[no-any-return]
                    lost_since, pause_s = None, 0.2
                    generation, offset = piece.generation, piece.next_offset
                    yield piece
            except (LinkLost, Unreachable) as error:
                now = clock()
                if lost_since is None or now - began > self._silence_s * 2:
                    lost_since = now  # a quiet log on a link that held for a while is not a series of failures
                if now - lost_since >= patience_s:
                    raise
                if on_lost is not None:
                    on_lost(error)
                sleep(pause_s)
                pause_s = min(pause_s * 2, 5.0)
            finally:
                pieces.close()

    def tail(
        self, id: str, stream: LogStream = "log", *, generation: int | None = None, lines: int | None = None,
        since: float | None = None, offset: int | None = None,
    ) -> Tail:  # fmt: skip
        """The last `lines` lines (default 200), or what was written since a time (of the pod's clock, to within some
        seconds, never too little), or from a byte on; at most 1 MiB, of the newest generation unless one is named."""
        if sum(choice is not None for choice in (lines, since, offset)) > 1:
            raise BadArgument("Ask for the last lines, a time or a position, not for several at once.")
        body = {"id": id, "stream": stream, "generation": generation, "lines": lines, "since": since, "offset": offset}
        answer = self._ask("tail", body)
        return Tail(_piece_from(answer), Wire(answer, "tail").whole("size"))

    def stop(self, id: str, grace_s: float = 10.0) -> Generator[StopStage, None, Stopped]:
        """End it and every process it left anywhere: TERM, after `grace_s` KILL, then proof that none is left.

        Goes on by itself on the pod when the link is lost. What has ended already is left as it is, unless strays of
        it run. Works for orphans. Raises SupervisorError when processes survive a KILL. See `result_of`.
        """
        with self._talk("stop", {"id": id, "grace_s": grace_s}) as talk:
            for answer in talk:
                if "stage" in answer:
                    yield _stage_from(answer)
                    continue
                wire = Wire(answer, "stop")
                return Stopped(facts_from(answer.get("facts")), wire.flag("was_running"), wire.wholes("killed"))
        raise talk.broken_off()

    def restart(
        self, id: str, generation: int, *, secrets: Mapping[str, Mapping[str, str]] | None = None,
        grace_s: float = 10.0, same_port: bool = True,
    ) -> Generator[StopStage, None, Started]:  # fmt: skip
        """Stop it if it runs, and start its next generation as it was asked for at first.

        `generation` is the one being replaced: when a newer one is there already, nothing is done (`existed`). With
        `same_port` the old port is kept if it is free. Secrets were never kept and are given again.
        """
        body = {
            "id": id, "generation": generation, "grace_s": grace_s, "same_port": same_port,
            "secrets": {step: dict(values) for step, values in (secrets or {}).items()},
            "monitor": program("monitor", "machine"),
        }  # fmt: skip
        with self._talk("restart", body) as talk:
            for answer in talk:
                if "stage" in answer:
                    yield _stage_from(answer)
                    continue
                return _started_from(answer)
        raise talk.broken_off()

    def remove(self, id: str) -> None:
        """Delete the folder of an ended endpoint or job, logs included. Raises SupervisorError while it runs."""
        self._ask("remove", {"id": id})

    def _talk(self, op: str, body: Mapping[str, object] | None = None) -> Talk:
        request = {"v": PROTOCOL, "op": op, "home": self._home, **(body or {})}
        rooms = ("machine", "records", "changes") if op in CHANGING else ("machine", "records")
        source = program("supervisor", *rooms).encode()
        words = [BOOT, str(len(source))]
        if self._python:
            argv = [self._python, "-I", "-S", "-u", "-c", *words]
        else:
            argv = ["sh", "-c", FIND_PYTHON, "podlab", *words]
        process = self.transport.start(argv)
        try:
            process.write(source + json.dumps(request).encode() + b"\n")
            process.close_stdin()
        except BrokenPipeError:
            pass  # it ended without reading; what it said tells why
        except BaseException:
            process.close()
            raise
        return Talk(process, self.transport.pod, self._silence_s)

    def _ask(self, op: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        with self._talk(op, body) as talk:
            for answer in talk:
                return answer
        raise talk.broken_off()

    def _ask_facts(self, op: str, body: Mapping[str, object] | None = None) -> tuple[Facts, ...]:
        found: list[Facts] = []
        with self._talk(op, body) as talk:
            for answer in talk:
                if "done" in answer:
                    return tuple(found)
                found.append(facts_from(answer.get("facts")))
        raise talk.broken_off()


class Talk:
    """One request under way: iterate over its answers (heartbeats left out), and close it."""

    def __init__(self, process: Process, pod: str, silence_s: float) -> None:
        self._process = process
        self._pod = pod
        self._silence_s = silence_s
        self._stderr = bytearray()
        self._skipped = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.close()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.until(None)

    def until(self, stopped: threading.Event | None) -> Generator[dict[str, Any], None, None]:
        """The answers until their end, or until the first sign of life (there is one every 3 s) after `stopped`."""
        begun = False
        for line in self._lines():
            answer = _answer_from(line)
            if answer is None:  # a login banner, if nothing of ours has come yet
                self._skipped += line + b"\n"
                if begun or len(self._skipped) > BANNER_LIMIT_BYTES:
                    raise self._garbled(line)
                continue
            begun = True
            if answer["v"] != PROTOCOL:
                raise SupervisorError(f"Pod {self._pod!r} speaks protocol {answer['v']!r:.40}, not {PROTOCOL}.")
            if "error" in answer:
                raise _error_from(answer["error"], self._pod)
            if stopped is not None and stopped.is_set():
                return
            if "beat" not in answer:
                yield answer

    def _lines(self) -> Generator[bytes, None, None]:
        pending = bytearray()
        while True:
            try:
                said = self._process.read(self._silence_s)
            except TimeoutError as error:
                raise LinkLost(
                    f"Pod {self._pod!r} has said nothing for {self._silence_s:g} s.", pod=self._pod
                ) from error
            if said is None:
                break
            stream, data = said
            if stream == "stderr":
                self._stderr = (self._stderr + data)[-4096:]
                continue
            *whole, rest = data.split(b"\n")
            for part in whole:
                yield bytes(pending + part)
                pending.clear()
            pending += rest
            if len(pending) > LINE_LIMIT_BYTES:
                raise self._garbled(bytes(pending))
        if pending:
            yield bytes(pending)

    def _garbled(self, line: bytes) -> SupervisorError:
        shown = repr(line[:120].decode(errors="replace"))
        return SupervisorError(
            f"Pod {self._pod!r} said {shown} instead of an answer.",
            hint="A login script that prints may be in between: have it print only in interactive shells.",
        )

    def broken_off(self) -> PodlabError:
        """The error for an answer that ended too early."""
        try:
            status: int | None = self._process.wait(1.0)
        except (TimeoutError, LinkLost):
            status = None
        if status == 97:  # of BOOT: the interpreter we were given is too old
            return _no_python(self._pod)
        said = (bytes(self._stderr) or bytes(self._skipped)).decode(errors="replace").strip().splitlines()
        evidence = said[-1][:300] if said else "it said nothing"
        return SupervisorError(f"The pod's side on {self._pod!r} ended early with status {status}: {evidence}")


def _no_python(pod: str) -> EngineUnavailable:
    return EngineUnavailable(
        f"Pod {pod!r} has no Python 3.8 or newer.", hint="Install one there, for example: apt-get install python3"
    )


def _answer_from(line: bytes) -> dict[str, Any] | None:
    if not line.startswith(b'{"v"'):
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and isinstance(value.get("v"), int) else None


def _error_from(value: object, pod: str) -> PodlabError:
    wire = Wire(value, "error")
    kind, message = wire.text("kind", 40), wire.text("message")[:600]
    if kind == "no_python":
        return _no_python(pod)
    if kind == "unknown_id":
        return NotFound(f"Pod {pod!r}: {message}")
    if kind in ("name_taken", "port_busy"):
        hint = "Stop it first, or choose another name." if kind == "name_taken" else "Choose another port, or none."
        return AlreadyExists(f"Pod {pod!r}: {message}", hint=hint)
    if kind == "bad_request":
        return BadArgument(f"Pod {pod!r}: {message}")
    hint = "Stop it first." if kind == "alive" else ""
    return SupervisorError(f"Pod {pod!r}: {message}", hint=hint)


def _piece_from(answer: dict[str, Any]) -> Piece:
    wire = Wire(answer, "follow")
    try:
        data = base64.b64decode(wire.text("d", LINE_LIMIT_BYTES), validate=True)
    except binascii.Error as error:
        raise SupervisorError("The pod's side sent a piece of a log that is not base64.") from error
    return Piece(wire.whole("g"), wire.whole("o"), data)


def _stage_from(answer: dict[str, Any]) -> StopStage:
    wire = Wire(answer, "stop")
    stage = wire.text("stage", 16)
    for known in ("intent", "term", "waiting", "kill", "proof", "start"):
        if stage == known:
            return StopStage(known, wire.wholes("pids"))
    raise SupervisorError(f"The pod's side speaks of a stage {stage!r} nobody knows.")


def _started_from(answer: dict[str, Any]) -> Started:
    return Started(facts_from(answer.get("facts")), Wire(answer, "start").flag("existed"))
