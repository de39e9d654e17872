"""The faults that have a name, for tests, for notebooks and for `podlab sandbox fault NAME`.

Each is something that was seen of the real company or of another like it, or that its document allows.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from podlab.sandbox import documents
from podlab.sandbox.asking import Answer, Request, problem
from podlab.sandbox.catalogue import GPU_KINDS
from podlab.sandbox.company import Company
from podlab.sandbox.faults import (
    HTML,
    POD_PATH,
    Effect,
    Fault,
    Go,
    asked_pod,
    cut_stream,
    delivered,
    done_then,
    instead,
    paged,
    refused,
    with_body,
    with_pods,
)
from podlab.sandbox.records import PodRecord, Problem, Wanted
from podlab.sandbox.stock import NO_CAPACITY, NO_GPU_AT_HOST

PODS = r"/v2/pods"
ANY_PODS = r"/v2/pods(/[^/]+(/action)?)?"
ACTION_PATH = POD_PATH + "/action"
LOGS = POD_PATH + "/logs"
HUGE_BYTES = 10 * 2**20
DRIVER_NOT_LOADED = 9
OPAQUE = "Something went wrong. Please try again later or contact support."


@dataclass(frozen=True)
class Ask:
    """What can be said with a fault's name. Not every fault uses all of it."""

    times: int | None = 1
    after: int = 0
    seconds: float = 30.0
    count: int = 1
    pod: str = ""
    """An id; empty: every pod."""
    method: str | None = None
    path: str = ""
    """A regular expression, for the faults that strike any request."""


@dataclass(frozen=True)
class Named:
    """A fault's name: what it does, and how. Either an effect on requests, or something that happens at once."""

    help: str
    effect: Callable[[Ask], Effect] | None = None
    method: str | None = None
    path: str = ""
    happen: Callable[[Company, Ask], None] | None = None


def set_fault(company: Company, name: str, ask: Ask) -> Fault | None:
    """Make a named fault; None for one that has happened by now. Raises Problem 404 for a name that is none."""
    named = NAMES.get(name)
    if named is None:
        raise Problem(404, f'no fault is called "{name}"')
    if named.happen is not None:
        named.happen(company, ask)
    if named.effect is None:
        return None
    return Fault(
        named.effect(ask), name, ask.method or named.method, ask.path or named.path or r".*", ask.times, ask.after
    )


# Effects that need more than a line


def _created(change: Callable[[Company, PodRecord], None]) -> Effect:
    """A pod is created, and is not what it should be."""

    def effect(company: Company, _request: Request, go: Go) -> Answer:
        said = go()
        if said.status == 201:
            with company.lock:
                pod = company.pods[said.json["id"]]
                change(company, pod)
                return replace(said, body=json.dumps(documents.pod(pod, company.now())).encode())
        return said

    return effect


def _dearer(_company: Company, pod: PodRecord) -> None:
    pod.usd_per_hour = round(pod.usd_per_hour * 1.5, 4)


def _other_gpu(_company: Company, pod: PodRecord) -> None:
    other = next(kind.id for kind in GPU_KINDS if kind.id != pod.wanted.gpu_id)
    pod.wanted = replace(pod.wanted, gpu_id=other)


def _stuck(_company: Company, pod: PodRecord) -> None:
    pod.stuck = True


def _deaf(_company: Company, pod: PodRecord) -> None:
    pod.deaf = True


def _no_driver(_company: Company, pod: PodRecord) -> None:
    pod.gpu_error = DRIVER_NOT_LOADED


def _elsewhere(cluster: str | None) -> Callable[[Company, Ask], None]:
    """Somebody else makes a pod, in the console of the company."""

    def happen(company: Company, ask: Ask) -> None:
        for _ in range(ask.count):
            company.create(Wanted("somebody-elses", "their/image", "NVIDIA RTX A4000", cluster=cluster))

    return happen


def _refused_then_back(seconds: float) -> Effect:
    """A DELETE finds no such pod, nothing else does for a while, and then it is there again: it ran all along."""

    def effect(company: Company, request: Request, _go: Go) -> Answer:
        with company.lock:
            pod = company.pods.get(asked_pod(request))
            if pod is not None:
                pod.hidden_until = pod.unlisted_until = company.advance() + seconds
        raise Problem(404, "pod not found")

    return effect


def _zero_gpus(pod: dict[str, Any]) -> None:
    pod["gpu"]["count"] = 0


def _unknown_status(pod: dict[str, Any]) -> None:
    pod["status"] = "HIBERNATING"
    pod["actions"] = ["thaw"]


def _unknown_fields(pod: dict[str, Any]) -> None:
    pod.update({"futureField": {"nested": [1, None]}, "tenancy": "SHARED"})
    if pod["runtime"]:
        pod["runtime"]["temperature"] = "warm"


def _ports_missing(pod: dict[str, Any]) -> None:
    pod["runtime"] = None
    pod["ssh"]["direct"] = None


def _cost_while_stopped(pod: dict[str, Any]) -> None:
    if pod["status"] in ("EXITED", "TERMINATED"):
        pod["cost"] = 0.72


def _stale_list() -> Effect:
    """A list answers for ever what it answered first."""
    first: list[Answer] = []

    def effect(_company: Company, _request: Request, go: Go) -> Answer:
        if not first:
            first.append(go())
        return first[0]

    return effect


def _half_list(said: bytes) -> bytes:
    found = json.loads(said)
    found["pods"] = found["pods"][: len(found["pods"]) // 2]
    return json.dumps(found).encode()


def _huge(said: bytes) -> bytes:
    return b'{"pods": [], "padding": "' + b"x" * HUGE_BYTES + b'"}'


def _each(act: Callable[[Company, PodRecord], None]) -> Callable[[Company, Ask], None]:
    """Something that happens at once to the pod that is named, or to all."""

    def happen(company: Company, ask: Ask) -> None:
        with company.lock:
            if ask.pod and ask.pod not in company.pods:
                raise Problem(404, "pod not found")
            for pod in [company.pods[ask.pod]] if ask.pod else list(company.pods.values()):
                if pod.terminated_at is None:
                    act(company, pod)

    return happen


def _lock(_company: Company, pod: PodRecord) -> None:
    pod.locked = True


def _unlock(_company: Company, pod: PodRecord) -> None:
    pod.locked = False


def _new_port(company: Company, pod: PodRecord) -> None:
    if pod.came_up:
        company.move_ports(pod.id)


def _pace(**field: str) -> Callable[[Company, Ask], None]:
    def happen(company: Company, ask: Ask) -> None:
        with company.lock:
            company.pace = replace(company.pace, **{name: getattr(ask, source) for name, source in field.items()})

    return happen


def _broke(company: Company, _ask: Ask) -> None:
    with company.lock:
        company.advance()
        company.balance_usd = 0.0
        company.foreclose()


def _sold_out(company: Company, _ask: Ask) -> None:
    with company.lock:
        company.stock.sell_out()


def _always(effect: Effect) -> Callable[[Ask], Effect]:
    return lambda _ask: effect


NAMES: dict[str, Named] = {
    # A create
    "stock-out": Named("no machine is free", _always(refused(400, NO_CAPACITY)), "POST", PODS),
    "sold-out": Named("no GPU is free anywhere, from now on", happen=_sold_out),
    "created-500": Named("a pod is created, then 500 is answered", _always(done_then(problem(Problem(500, OPAQUE)))),
                         "POST", PODS),
    "created-html": Named("a pod is created, then a gateway's page comes", _always(done_then(HTML)), "POST", PODS),
    "created-reset": Named("a pod is created, then the connection is reset",
                           _always(delivered("reset", only_done=True)), "POST", PODS),
    "created-silence": Named("a pod is created, and no answer ever comes",
                             _always(delivered("silence", only_done=True)), "POST", PODS),
    "created-cut": Named("a pod is created, and half of the answer comes",
                         _always(delivered("cut", only_done=True)), "POST", PODS),
    "create-500": Named("500, and no pod is created", _always(refused(500, OPAQUE)), "POST", PODS),
    "wrong-price": Named("the pod costs half as much again as was quoted", _always(_created(_dearer)), "POST", PODS),
    "wrong-gpu": Named("the pod has another GPU than was asked for", _always(_created(_other_gpu)), "POST", PODS),
    "never-up": Named("the pod says RUNNING and its container never runs", _always(_created(_stuck)), "POST", PODS),
    "no-sshd": Named("no SSH server ever listens in the pod", _always(_created(_deaf)), "POST", PODS),
    "no-cuda": Named("the pod's GPU driver does not work", _always(_created(_no_driver)), "POST", PODS),
    "slow-image": Named("images take --seconds to be there", happen=_pace(start_s="seconds")),
    "no-balance": Named("402: no money", _always(refused(402, "insufficient account balance")), "POST", ANY_PODS),
    # Reads
    "read-404": Named("a pod is not found by its id", _always(refused(404, "pod not found")), "GET", POD_PATH),
    "listing-lag": Named("new pods are listed --seconds late", happen=_pace(listing_lag_s="seconds")),
    "read-lag": Named("new pods are not found by their id for --seconds", happen=_pace(read_lag_s="seconds")),
    "gone-lag": Named("ended pods are listed for --seconds more", happen=_pace(gone_lag_s="seconds")),
    "ports-late": Named("containers run --seconds after the status says so", happen=_pace(runtime_s="seconds")),
    "no-ports": Named("RUNNING, without a runtime and a port", _always(with_pods(_ports_missing)), "GET", ANY_PODS),
    "stale-list": Named("the list stays as it is", lambda _ask: _stale_list(), "GET", PODS),
    "half-list": Named("half of the list is missing", _always(with_body(_half_list)), "GET", PODS),
    "pages": Named("lists come in pages of --count", lambda ask: paged(ask.count), "GET", r"/v2/[a-z-]+"),
    "unknown-status": Named("a status nobody knows", _always(with_pods(_unknown_status)), None, ANY_PODS),
    "unknown-fields": Named("fields nobody knows", _always(with_pods(_unknown_fields)), None, ANY_PODS),
    "exited-cost": Named("a stopped pod keeps its price", _always(with_pods(_cost_while_stopped)), None, ANY_PODS),
    # Start, stop, terminate
    "no-gpu-at-host": Named("no GPU is free where a stopped pod is", _always(refused(400, NO_GPU_AT_HOST)), "POST",
                            ACTION_PATH),
    "zero-gpus": Named("pods are described with no GPU", _always(with_pods(_zero_gpus)), None, ANY_PODS),
    "action-500": Named("500, and nothing is done", _always(refused(500, OPAQUE)), "POST", ACTION_PATH),
    "delete-500": Named("500, and the pod lives", _always(refused(500, OPAQUE)), "DELETE", POD_PATH),
    "delete-done-500": Named("the pod is ended, then 500 is answered", _always(done_then(HTML)), "DELETE", POD_PATH),
    "delete-reset": Named("the connection is reset, and the pod lives",
                          _always(instead(Answer(204, delivery="reset"))), "DELETE", POD_PATH),
    "delete-silence": Named("no answer ever comes, and the pod lives",
                            _always(instead(Answer(204, delivery="silence"))), "DELETE", POD_PATH),
    "delete-ignored": Named("204, and the pod lives", _always(instead(Answer(204))), "DELETE", POD_PATH),
    "delete-404-back": Named("404, and the pod is back after --seconds", lambda ask: _refused_then_back(ask.seconds),
                             "DELETE", POD_PATH),
    "delete-409": Named("409, and the pod lives",
                        _always(refused(409, "pod cannot be terminated in its current state")), "DELETE", POD_PATH),
    "locked": Named("pods are locked against stopping and ending", happen=_each(_lock)),
    "unlocked": Named("pods are locked no longer", happen=_each(_unlock)),
    # What becomes of pods
    "foreign-pod": Named("somebody else makes --count pods", happen=_elsewhere(None)),
    "cluster-pod": Named("somebody else makes a cluster of --count pods", happen=_elsewhere("a-cluster")),
    "vanish": Named("somebody else ends pods", happen=_each(lambda company, pod: company.vanish(pod.id))),
    "exited": Named("somebody else stops pods", happen=_each(lambda company, pod: company.exit(pod.id))),
    "error": Named("pods break", happen=_each(lambda company, pod: company.fail(pod.id, "host lost"))),
    "new-port": Named("public ports change", happen=_each(_new_port)),
    "balance-zero": Named("the account has no money left", happen=_broke),
    "key-revoked": Named("pods' own keys are accepted no longer",
                         happen=_each(lambda company, pod: company.revoke(pod.key))),
    # Any request: --method and --path narrow it
    "unauthorized": Named("401", _always(refused(401, "invalid bearer token"))),
    "forbidden": Named("403", _always(refused(403, "access denied"))),
    "conflict": Named("409", _always(refused(409, "action is not valid for the current status"))),
    "retired": Named("410: this interface is gone", _always(refused(410, "This API version has been retired."))),
    "invalid": Named("422", _always(refused(422, "Request validation failed.", errors=("name: is required",)))),
    "rate-limited": Named("429, come again in --seconds",
                          lambda ask: refused(429, "rate limit exceeded for the minute window",
                                              retry_after_s=int(ask.seconds))),
    "error-500": Named("500", _always(refused(500, OPAQUE))),
    "unavailable": Named("503", _always(refused(503, OPAQUE))),
    "bad-gateway": Named("502 with HTML", _always(instead(HTML))),
    "html": Named("HTML under status 200", _always(instead(replace(HTML, status=200)))),
    "empty": Named("nothing under the right status", _always(with_body(lambda _body: b""))),
    "not-json": Named("half of the JSON, whole by its length", _always(with_body(lambda body: body[: len(body) // 2]))),
    "cut": Named("the connection ends in the middle of the body", _always(delivered("cut"))),
    "huge": Named("ten megabytes of JSON", _always(with_body(_huge))),
    "drip": Named("a byte now and then", _always(delivered("drip"))),
    "reset": Named("the connection is reset, and nothing is done", _always(instead(Answer(200, delivery="reset")))),
    "silence": Named("no answer ever comes, and nothing is done", _always(instead(Answer(200, delivery="silence")))),
    # Logs
    "log-drop": Named("a log stream breaks off after --count lines", lambda ask: cut_stream(ask.count), "GET", LOGS),
    "log-500": Named("no log stream can be had", _always(refused(500, OPAQUE)), "GET", LOGS),
}  # fmt: skip
"""Every named fault."""
