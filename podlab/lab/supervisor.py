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
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from podlab.errors import (
    BadArgument,
    LinkLost,
    PodlabError,
    SupervisorError,
    Unreachable,
)
from podlab.lab.facts import (
    ExitFacts,
    Facts,
    HealthCheck,
    Kind,
    Listed,
    LogStream,
    Piece,
    PodFacts,
    Started,
    Stopped,
    StopStage,
    Tail,
    exit_from,
    facts_from,
    pod_facts_from,
)
from podlab.lab.talk import LINE_LIMIT_BYTES, PROTOCOL, Talk, begin, program
from podlab.transport.base import Transport
from podlab.types import Step
from podlab.wire import Wire

SILENCE_S = 15.0
"""The pod's side says something at least every 3 s; after this long without a word the link counts as lost."""
T = TypeVar("T")

CHANGING = frozenset({"start", "stop", "restart", "remove", "adopt"})


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
    the interpreter to use; None means the first fitting one on the pod's PATH. What is started keeps about
    `log_cap_bytes()` of each of its streams at most, the newest; None keeps all.
    """

    def __init__(
        self, transport: Transport, home: str | None = None, python: str | None = None, *,
        silence_s: float = SILENCE_S, log_cap_bytes: Callable[[], int | None] = lambda: None,
    ) -> None:  # fmt: skip
        self.transport = transport
        self._log_cap_bytes = log_cap_bytes
        self._home = home
        self.python = python
        self._silence_s = silence_s

    @classmethod
    def local(
        cls, transport: Transport, home: str, *, log_cap_bytes: Callable[[], int | None] = lambda: None
    ) -> PodSide:
        """For this computer: the interpreter we run on."""
        return cls(transport, home, sys.executable, log_cap_bytes=log_cap_bytes)

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
        stdin: bytes = b"",
        health: HealthCheck | None = None,
        meta: Mapping[str, object] | None = None,
    ) -> Started:
        """Start an endpoint or a job and answer once its first step runs. Doing it again with the same `id` starts
        nothing and answers with what is there.

        `id` is chosen by the caller before the first try. `port` 0 means any free one on 127.0.0.1. In the steps'
        argv and env values the words `{port}`, `{dir}` (the endpoint's folder) and `{home}` are filled in, and
        `{key}` in env values. `key` is the endpoint's own API key; it is kept in the folder's file `key` (0600).
        `secrets` maps a step's name to the variables only that step gets; they are never on the pod's disk. `files`
        (name -> text) are written to the folder before the first step. A job's `cwd` is relative to the user's home,
        and `stdin` is what it reads; it is on the pod's disk (0600) until the job has begun.

        Raises AlreadyExists when the name is in use by a living endpoint, or the wished port by some process.
        """
        body = {
            "id": id, "name": name, "kind": kind, "cwd": cwd, "port": port, "model": model, "engine": engine,
            "steps": [{"name": step.name, "argv": list(step.argv), "env": dict(step.env)} for step in steps],
            "gpus": list(gpus), "key": key, "files": dict(files or {}), "meta": dict(meta or {}),
            "stdin": base64.b64encode(stdin).decode(),
            "secrets": {step: dict(values) for step, values in (secrets or {}).items()},
            "health": health and {"path": health.path, "models_path": health.models_path,
                                  "served_name": health.served_name, "probe": health.probe},
            "monitor": _monitor(), "log_cap_bytes": self._log_cap_bytes(),
        }  # fmt: skip
        return _started_from(self._ask("start", body))

    def list(self) -> tuple[Facts, ...]:
        """Every endpoint with facts checked now, orphans included; newest first."""
        return self.look().facts

    def look(self) -> Listed:
        """As `list`, and how many GPUs the pod seems to have."""
        return self._ask_listed("list")

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
                begins = piece.offset - piece.dropped
                if (piece.generation, begins) != (generation, offset) and (piece.generation <= generation or begins):
                    raise SupervisorError(
                        f"The pod's side sent byte {begins} of generation {piece.generation} "
                        f"where byte {offset} of generation {generation} was due."
                    )
                generation, offset = piece.generation, piece.next_offset
                if piece.data or piece.dropped:
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

    def stop(self, id: str, grace_s: float = 10.0, *, cancel: bool = False) -> Generator[StopStage, None, Stopped]:
        """End it and every process it left anywhere: TERM, after `grace_s` KILL, then proof that none is left.

        Goes on by itself on the pod when the link is lost. What has ended already is left as it is, unless strays of
        it run. Works for orphans. Raises SupervisorError when processes survive a KILL. See `result_of`.

        With `cancel` an id the pod knows nothing of is no error: a request to start it that comes later is refused.
        """
        with self._talk("stop", {"id": id, "grace_s": grace_s, "cancel": cancel}) as talk:
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
            "monitor": _monitor(),
        }  # fmt: skip
        with self._talk("restart", body) as talk:
            for answer in talk:
                if "stage" in answer:
                    yield _stage_from(answer)
                    continue
                return _started_from(answer)
        raise talk.broken_off()

    def adopt(
        self, *, id: str | None = None, pid: int | None = None, name: str | None = None, key: str | None = None
    ) -> Facts:
        """Put a server on record that has none: an orphan by its `id`, or a process that somebody else started.

        It has to answer as a model server, with `key` if it asks for one; `name` is its model's unless one is given.
        Raises AlreadyExists when it is on record or the name in use, NotFound, and BadArgument saying why not.
        """
        answer = self._ask("adopt", {"id": id, "pid": pid, "name": name, "key": key})
        return facts_from(answer.get("facts"))

    def remove(self, id: str) -> None:
        """Delete the folder of an ended endpoint or job, logs included. Raises SupervisorError while it runs."""
        self._ask("remove", {"id": id})

    def _talk(self, op: str, body: Mapping[str, object] | None = None) -> Talk:
        request = {"v": PROTOCOL, "op": op, "home": self._home, **(body or {})}
        rooms = ("machine", "streams", "records", *(("changes",) if op in CHANGING else ()))
        rooms = (*rooms, "adoption") if op == "adopt" else rooms
        given = json.dumps(request).encode() + b"\n"
        process = begin(self.transport, program("supervisor", *rooms), given, self.python)
        return Talk(process, self.transport.pod, self._silence_s)

    def _ask(self, op: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        with self._talk(op, body) as talk:
            for answer in talk:
                return answer
        raise talk.broken_off()

    def _ask_facts(self, op: str, body: Mapping[str, object] | None = None) -> tuple[Facts, ...]:
        return self._ask_listed(op, body).facts

    def _ask_listed(self, op: str, body: Mapping[str, object] | None = None) -> Listed:
        found: list[Facts] = []
        with self._talk(op, body) as talk:
            for answer in talk:
                if "done" in answer:
                    return Listed(tuple(found), Wire(answer, op).maybe("gpus", Wire(answer, op).whole) or 0)
                found.append(facts_from(answer.get("facts")))
        raise talk.broken_off()


def _monitor() -> str:
    return program("monitor", "machine", "streams", "evidence")


def _piece_from(answer: dict[str, Any]) -> Piece:
    wire = Wire(answer, "follow")
    try:
        data = base64.b64decode(wire.text("d", LINE_LIMIT_BYTES), validate=True)
    except binascii.Error as error:
        raise SupervisorError("The pod's side sent a piece of a log that is not base64.") from error
    return Piece(wire.whole("g"), wire.whole("o"), data, wire.maybe("dropped", wire.whole) or 0)


def _stage_from(answer: dict[str, Any]) -> StopStage:
    wire = Wire(answer, "stop")
    stage = wire.text("stage", 16)
    for known in ("intent", "term", "waiting", "kill", "proof", "start"):
        if stage == known:
            return StopStage(known, wire.wholes("pids"))
    raise SupervisorError(f"The pod's side speaks of a stage {stage!r} nobody knows.")


def _started_from(answer: dict[str, Any]) -> Started:
    return Started(facts_from(answer.get("facts")), Wire(answer, "start").flag("existed"))
