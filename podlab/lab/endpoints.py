"""Endpoints that exist: which there are and in what state, their logs, their addresses, their end."""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import time
from collections.abc import Callable, Generator, Sequence
from typing import TypeVar

from podlab.engines import engine_named
from podlab.engines.base import ServerMetrics
from podlab.errors import EngineNotReady, NotFound, PodlabError
from podlab.events import Stage, Work
from podlab.http import Http
from podlab.lab import attached, holders, pods, states
from podlab.lab.facts import Facts, Piece, Tail
from podlab.lab.fanout import ask_all
from podlab.lab.holders import Looks
from podlab.lab.patience import persistent
from podlab.lab.workspace import Reached, Workspace
from podlab.types import ALIVE, Endpoint, EndpointState, FreedMemory, LogLines, Pod, PodStatus
from podlab.units import bytes_text

CLOCK_SLACK_S = 5.0
T = TypeVar("T")
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
        _our_time(facts, facts.started_at), status, facts.generation,
    )  # fmt: skip


def _our_time(facts: Facts, at: float | None) -> float | None:
    """A time of the pod's clock by ours. Clocks that agree but for the way of an answer are taken to be the same."""
    ahead_s = facts.now - time.time()
    return at if at is None or abs(ahead_s) < CLOCK_SLACK_S else at - ahead_s


def judge(facts: Facts) -> tuple[EndpointState, str | None, str]:
    """The state that facts mean, its cause and one line about it."""
    return states.classify(facts, _diagnose(facts.engine))


def listing(
    workspace: Workspace, asked: Sequence[Pod], looks: Looks | None = None
) -> tuple[list[Endpoint], list[PodStatus]]:
    """The endpoints of these pods, all asked at the same time, and how each pod answered.

    A pod that does not answer within the deadline contributes what was last seen of it, as unreachable. What several
    pods tell of, because they are one machine, is there once: under the pod in use, else under the first of them.
    With `looks` the cards of the pods that have any are looked at meanwhile.
    """

    def question(pod: Pod) -> list[tuple[str, Endpoint]]:
        if looks is not None and workspace.store.gpus_of(pod.id):
            looks.begin(pod)
        listed = workspace.side(pod).look()
        if looks is not None and listed.gpus:
            looks.begin(pod)
        newest = _newest(listed.facts)
        return [(facts.place, endpoint_of(workspace, pod, facts)) for facts in newest]

    answers = ask_all(list(asked), question, deadline_s=workspace.value("deadline_s"))
    statuses = [pods.status_of(workspace, pod, answer, noted=True) for pod, answer in zip(asked, answers, strict=True)]
    seen_now: dict[str, list[Endpoint]] = {}
    told: list[tuple[str, Endpoint]] = []
    remembered: list[Endpoint] = []
    for pod, answer in zip(asked, answers, strict=True):
        if isinstance(answer, PodlabError):
            seen = workspace.store.endpoints_of(pod.id)
            remembered += [_unreachable(endpoint, pod, answer) for endpoint in seen if endpoint.state in ALIVE]
        else:
            seen_now[pod.id] = [endpoint for _, endpoint in answer]
            told += answer
    workspace.store.saw(seen_now, time.time())
    in_use = workspace.value("pod")
    found = _once(told, lambda each: (each[0], each[1].id), lambda each: each[1].pod == in_use)
    known = {endpoint.id for _, endpoint in found}
    return [endpoint for _, endpoint in found] + [each for each in remembered if each.id not in known], statuses


def remember(workspace: Workspace, pod: Pod, endpoint: Endpoint) -> None:
    """Note an endpoint as it was just seen, without asking its pod about all others again."""
    others = [each for each in workspace.store.endpoints_of(pod.id) if endpoint.name != each.name]
    workspace.store.saw_endpoints(pod.id, [endpoint, *others], time.time())


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
    return (yield from stop_and_look(workspace, name, on))[0]


def stop_and_look(workspace: Workspace, name: str, on: str | None = None) -> Work[tuple[Endpoint, FreedMemory | None]]:
    """As `stop`, and where the pod has GPUs, see what came back of the memory that it held there."""
    pod, facts = find(workspace, name, on)
    held = holders.holding(workspace, pod, facts)
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
    freed = None
    if held is not None:
        yield Stage("memory", f"Looking whether the GPU memory of {facts.name or facts.id} came back")
        freed = holders.freed(workspace, pod, held)
    endpoint = endpoint_of(workspace, pod, stopped.facts)
    listing(workspace, [pod])
    return endpoint, freed


def log(workspace: Workspace, pod: Pod, facts: Facts, *, lines: int | None, since_s: float | None) -> LogLines:
    """The end of an endpoint's log: the last `lines` lines of it, or of what was added within `since_s` seconds."""
    tail = _tail(workspace, pod, facts, lines, since_s)
    text = tail.piece.data.decode(errors="replace")
    piece = tail.piece
    return LogLines(tuple(text.splitlines()), piece.generation, piece.next_offset, piece.dropped)


def follow_log(
    workspace: Workspace, pod: Pod, facts: Facts, *, lines: int | None, since_s: float | None
) -> Generator[tuple[LogLines, str], None, None]:
    """The end of the log, then each piece that is added, with the position after it. Ends when the endpoint has.

    No byte is lost or repeated over a broken link: the position is a generation and a byte. Where the pod has dropped
    some, because the log came to its cap faster than it was read, a line of ours says how many.
    """
    tail = _tail(workspace, pod, facts, lines, since_s)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    position = LogLines((), tail.piece.generation, tail.piece.next_offset)
    yield position, decoder.decode(tail.piece.data)
    side = workspace.side(pod)
    for piece in side.follow_through(facts.id, "log", position.generation, position.offset):
        missing = f"\n[podlab: {bytes_text(piece.dropped)} of this log were dropped]\n" if piece.dropped else ""
        if text := missing + decoder.decode(piece.data):
            yield LogLines((), piece.generation, piece.next_offset, piece.dropped), text


def reach(workspace: Workspace, name: str | None, on: str | None = None) -> Reached:
    """The way to an endpoint that is ready. Raises EngineNotReady saying its state, NotFound or Unreachable."""
    if on is None and (theirs := attached.named(name)) is not None:
        return attached.reach(workspace, theirs)
    pod, facts = find(workspace, name, on)
    endpoint = endpoint_of(workspace, pod, facts)
    if endpoint.url is None:
        why = f" ({endpoint.cause})" if endpoint.cause else ""
        raise EngineNotReady(
            f"{endpoint.name} on {pod.name} is {endpoint.state}{why}{': ' if endpoint.detail else ''}{endpoint.detail}",
            hint=f"Start it again: podlab model restart {endpoint.name}"
            if endpoint.state is EndpointState.STOPPED
            else f"See: podlab model logs {endpoint.name}",
        )
    key = workspace.endpoint_key(pod, facts.id)
    reached = Reached(endpoint, endpoint.url, key, facts.served_name or facts.name)
    workspace.keep_reached(reached)
    return reached


def metrics_over(
    reached: Reached, over_s: float, *, sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[ServerMetrics, ServerMetrics, float]:  # fmt: skip
    """Two readings of what a server counts about itself, and how many seconds lie between them: about `over_s`."""
    before, began = metrics(reached), clock()
    sleep(over_s)
    return before, metrics(reached), clock() - began


def metrics(reached: Reached) -> ServerMetrics:
    """What an endpoint's server counts about itself. What it does not tell is None."""
    engine = engine_named(reached.endpoint.engine)
    if engine.metrics_path is None:
        return ServerMetrics()
    http = Http(reached.base_url.removesuffix("/v1"), key=reached.key)
    try:
        answer = http.get_bytes(engine.metrics_path)
    finally:
        http.close()
    return engine.metrics(answer.content.decode(errors="replace")) if answer.status == 200 else ServerMetrics()


def _diagnose(engine: str) -> states.Diagnose:
    try:
        return engine_named(engine).diagnose
    except NotFound:  # started by another version of podlab
        from podlab.engines.diagnosis import diagnose

        return diagnose


def _tail(workspace: Workspace, pod: Pod, facts: Facts, lines: int | None, since_s: float | None) -> Tail:
    side = workspace.side(pod)
    if facts.orphan or facts.damaged:
        return Tail(Piece(1, 0, b""), 0)
    if since_s is None:
        return side.tail(facts.id, lines=lines)
    tail = side.tail(facts.id, since=facts.now - since_s)
    if lines is None:
        return tail
    data = b"".join(tail.piece.data.splitlines(keepends=True)[-lines:])
    dropped = tail.piece.dropped if data == tail.piece.data else 0
    return Tail(Piece(tail.piece.generation, tail.piece.next_offset - len(data), data, dropped), tail.size)


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
    in_use = workspace.value("pod")
    hits = _once(hits, lambda hit: (hit[1].place, hit[1].id), lambda hit: hit[0].name == in_use)
    living = [hit for hit in hits if not hit[1].ended]
    if name is None:
        hits = []  # what has ended is never meant without its name
    if len(living) > 1:
        where = ", ".join(f"{facts.name} on {pod.name}" for pod, facts in living)
        raise NotFound(f"Several endpoints are running: {where}.", hint="Say which one, with --on POD if need be.")
    statuses = [pods.status_of(workspace, pod, answer) for pod, answer in zip(asked, answers, strict=True)]
    return next(iter([*living, *hits]), None), statuses


def _once(found: Sequence[T], key: Callable[[T], object], better: Callable[[T], bool]) -> list[T]:
    """One of each key, the better one or else the first, where the first of them stood."""
    kept: dict[object, T] = {}
    for each in found:
        if key(each) not in kept or better(each):
            kept[key(each)] = each
    return list(kept.values())


def _newest(found: Sequence[Facts]) -> list[Facts]:
    """Without what has ended and been replaced by a later endpoint of the same name. Newest first, as it came."""
    kept: list[Facts] = []
    names: set[str] = set()
    for facts in sorted(found, key=lambda f: (f.ended, -(f.created_at or 0.0))):
        if not facts.ended or facts.name not in names or facts.orphan:
            kept.append(facts)
        names.add(facts.name)
    return kept


def _unreachable(endpoint: Endpoint, pod: Pod, problem: PodlabError) -> Endpoint:
    # The pod's name is the one of now: it may have been renamed since the endpoint was seen.
    return dataclasses.replace(
        endpoint, pod=pod.name, state=EndpointState.UNREACHABLE, cause=None, detail=pods.reason(pod, problem),
        pid=None, url=None,
    )  # fmt: skip
