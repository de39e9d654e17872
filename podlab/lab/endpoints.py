"""Endpoints that exist: which there are and in what state, their logs, their addresses, their end."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import time
from collections.abc import Iterator, Sequence

from podlab.engines import engine_named
from podlab.errors import EngineNotReady, NotFound, PodlabError
from podlab.events import Stage, Work
from podlab.lab import pods, states
from podlab.lab.facts import Facts, Piece, Tail
from podlab.lab.fanout import ask_all
from podlab.lab.patience import persistent
from podlab.lab.workspace import Reached, Workspace
from podlab.types import ALIVE, Endpoint, EndpointState, LogLines, Pod, PodStatus

STOP_WORDS = {
    "intent": "Stopping {name}",
    "term": "Asked {name} to end",
    "waiting": "Waiting for {name} to end",
    "kill": "Killing {name}",
    "proof": "Looking for processes of {name}",
    "start": "Starting {name}",
}


def endpoint_of(workspace: Workspace, pod: Pod, facts: Facts) -> Endpoint:
    """Facts as an endpoint with its state. Opens the way to its port when it is ready, so that `url` works."""
    state, cause, detail = judge(facts)
    url = None
    if state is EndpointState.READY and facts.port is not None:
        url = f"http://127.0.0.1:{workspace.local_port(pod, facts.port)}/v1"
    status = facts.exit.status if facts.exit else None
    if facts.exit and facts.exit.signal is not None:
        status = 128 + facts.exit.signal
    return Endpoint(
        facts.id, facts.name, pod.name, facts.model, facts.engine, state, cause, detail,
        facts.pid if facts.alive or state is EndpointState.ORPHAN else None, facts.port, facts.gpus, url,
        facts.started_at, status, facts.generation,
    )  # fmt: skip


def judge(facts: Facts) -> tuple[EndpointState, str | None, str]:
    """The state that facts mean, its cause and one line about it."""
    return states.classify(facts, _diagnose(facts.engine))


def listing(workspace: Workspace, asked: Sequence[Pod]) -> tuple[list[Endpoint], list[PodStatus]]:
    """The endpoints of these pods, all asked at the same time, and how each pod answered.

    A pod that does not answer within the deadline contributes what was last seen of it, as unreachable.
    """

    def question(pod: Pod) -> list[Endpoint]:
        return [endpoint_of(workspace, pod, facts) for facts in _newest(workspace.side(pod).list())]

    answers = ask_all(list(asked), question, deadline_s=workspace.value("deadline_s"))
    found: list[Endpoint] = []
    statuses = [pods.status_of(workspace, pod, answer) for pod, answer in zip(asked, answers, strict=True)]
    for pod, answer in zip(asked, answers, strict=True):
        if isinstance(answer, PodlabError):
            remembered = workspace.store.endpoints_of(pod.id)
            found += [_unreachable(endpoint, answer) for endpoint in remembered if endpoint.state in ALIVE]
        else:
            workspace.store.saw_endpoints(pod.id, answer, time.time())
            found += answer
    return found, statuses


def find(workspace: Workspace, name: str | None, on: str | None = None) -> tuple[Pod, Facts]:
    """The endpoint of that name, checked now; None means the only one there is.

    Pods that had it when they were last asked are asked first. Raises NotFound, or Unreachable when a pod that may
    have it does not answer.
    """
    asked = [pods.find(on)] if on else pods.all_pods()
    if name is not None and on is None:
        likely = [pod for pod in asked if any(e.name == name for e in workspace.store.endpoints_of(pod.id))]
        hit, _ = _search(workspace, likely, name)
        if hit is not None and not hit[1].ended:  # one that has ended may live on a pod that was not asked yet
            return hit
    hit, statuses = _search(workspace, asked, name)
    if hit is not None:
        return hit
    pods.refuse_silent(statuses)
    raise NotFound(
        f"There is no endpoint {name!r}." if name else "No endpoint is running.",
        hint="See: podlab model list --all" if name else "Start one: podlab model start tiny",
    )


def stop(workspace: Workspace, name: str, on: str | None = None) -> Work[Endpoint]:
    """End an endpoint and see that none of its processes is left. One that has ended is left as it is."""
    pod, facts = find(workspace, name, on)
    stopping = persistent(lambda: workspace.side(pod).stop(facts.id))
    while True:
        try:
            stage = next(stopping)
        except StopIteration as end:
            stopped = end.value
            break
        yield Stage("stop", STOP_WORDS[stage.stage].format(name=facts.name or facts.id))
    workspace.forget_reached(facts.id)
    if pod.provider != "local" and facts.port is not None:
        with contextlib.suppress(PodlabError):  # it is stopped all the same; the keeper forgets unused forwards
            workspace.close_forward(pod, facts.port)
    endpoint = endpoint_of(workspace, pod, stopped.facts)
    listing(workspace, [pod])
    return endpoint


def log(workspace: Workspace, pod: Pod, facts: Facts, *, lines: int, since_s: float | None) -> LogLines:
    """The end of an endpoint's log: the last `lines` lines, or what was added within `since_s` seconds."""
    tail = _tail(workspace, pod, facts, lines, since_s)
    text = tail.piece.data.decode(errors="replace")
    return LogLines(tuple(text.splitlines()), tail.piece.generation, tail.piece.next_offset)


def follow_log(
    workspace: Workspace, pod: Pod, facts: Facts, *, lines: int, since_s: float | None
) -> Iterator[tuple[LogLines, str]]:
    """The end of the log, then each piece that is added, with the position after it. Ends when the endpoint has.

    No byte is lost or repeated over a broken link: the position is a generation and a byte.
    """
    tail = _tail(workspace, pod, facts, lines, since_s)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    position = LogLines((), tail.piece.generation, tail.piece.next_offset)
    yield position, decoder.decode(tail.piece.data)
    side = workspace.side(pod)
    for piece in side.follow_through(facts.id, "log", position.generation, position.offset):
        if text := decoder.decode(piece.data):
            yield LogLines((), piece.generation, piece.next_offset), text


def reach(workspace: Workspace, name: str | None, on: str | None = None) -> Reached:
    """The way to an endpoint that is ready. Raises EngineNotReady saying its state, NotFound or Unreachable."""
    pod, facts = find(workspace, name, on)
    endpoint = endpoint_of(workspace, pod, facts)
    if endpoint.url is None:
        why = f" ({endpoint.cause})" if endpoint.cause else ""
        raise EngineNotReady(
            f"{endpoint.name} on {pod.name} is {endpoint.state}{why}{': ' if endpoint.detail else ''}{endpoint.detail}",
            hint=f"See: podlab model logs {endpoint.name}",
        )
    key = workspace.endpoint_key(pod, facts.id)
    reached = Reached(endpoint, endpoint.url, key, facts.served_name or facts.name)
    workspace.keep_reached(reached)
    return reached


def _diagnose(engine: str) -> states.Diagnose:
    try:
        return engine_named(engine).diagnose
    except NotFound:  # started by another version of podlab
        from podlab.engines.diagnosis import diagnose

        return diagnose


def _tail(workspace: Workspace, pod: Pod, facts: Facts, lines: int, since_s: float | None) -> Tail:
    side = workspace.side(pod)
    if facts.orphan or facts.damaged:
        return Tail(Piece(1, 0, b""), 0)
    if since_s is not None:
        return side.tail(facts.id, since=facts.now - since_s)
    return side.tail(facts.id, lines=lines)


def _search(
    workspace: Workspace, asked: Sequence[Pod], name: str | None
) -> tuple[tuple[Pod, Facts] | None, list[PodStatus]]:
    """The endpoint among what these pods tell now, and how each answered. A living one wins over an ended."""
    answers = ask_all(
        list(asked), lambda pod: _newest(workspace.side(pod).list()), deadline_s=workspace.value("deadline_s")
    )
    hits: list[tuple[Pod, Facts]] = []
    for pod, answer in zip(asked, answers, strict=True):
        if not isinstance(answer, PodlabError):
            hits += [(pod, facts) for facts in answer if name in (None, facts.name, facts.id)]
    living = [hit for hit in hits if not hit[1].ended]
    if name is None:
        hits = []  # what has ended is never meant without its name
    if len(living) > 1:
        where = ", ".join(f"{facts.name} on {pod.name}" for pod, facts in living)
        raise NotFound(f"Several endpoints are running: {where}.", hint="Say which one, with --on POD if need be.")
    statuses = [pods.status_of(workspace, pod, answer) for pod, answer in zip(asked, answers, strict=True)]
    return next(iter([*living, *hits]), None), statuses


def _newest(found: Sequence[Facts]) -> list[Facts]:
    """Without what has ended and been replaced by a later endpoint of the same name. Newest first, as it came."""
    kept: list[Facts] = []
    names: set[str] = set()
    for facts in sorted(found, key=lambda f: (f.ended, -(f.created_at or 0.0))):
        if not facts.ended or facts.name not in names or facts.orphan:
            kept.append(facts)
        names.add(facts.name)
    return kept


def _unreachable(endpoint: Endpoint, problem: PodlabError) -> Endpoint:
    return dataclasses.replace(
        endpoint, state=EndpointState.UNREACHABLE, cause=None, detail=problem.message, pid=None, url=None
    )
