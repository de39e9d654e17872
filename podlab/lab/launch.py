"""From a model's name to an endpoint that answers, on a pod."""

from __future__ import annotations

import re
import secrets as random
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, cast

from podlab import secrets
from podlab.catalog import catalog
from podlab.catalog.catalog import SendFile
from podlab.catalog.sources import HubSource, PodSource
from podlab.engines import engine_named
from podlab.engines.base import Backend, Cause, Engine, ServeSpec
from podlab.engines.base import PodFacts as EngineFacts
from podlab.errors import (
    AlreadyExists,
    BadArgument,
    EngineCrashed,
    EngineNotReady,
    LinkLost,
    Unreachable,
)
from podlab.events import Notice, Stage, Work
from podlab.lab import endpoints, files, pods
from podlab.lab.facts import Facts, HealthCheck, PodFacts
from podlab.lab.patience import Patience, abandon, persistent, repeated
from podlab.lab.supervisor import PodSide, result_of
from podlab.types import Endpoint, EndpointState, Pod, Step

if TYPE_CHECKING:
    from podlab.lab.workspace import Workspace

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
CONTEXT = 8192
"""Tokens a conversation may hold unless --context says otherwise. All that a model was trained with can take more
memory than the model itself."""
SMALL, SMALL_SLOTS = 100_000_000, 4
"""Below this many parameters several requests at once cost next to no memory."""
PORT_TRIES = 3
"""A free port can be lost between being chosen and being bound; then another one is chosen."""


@dataclass(frozen=True)
class Wish:
    """What a person asked to be started. None leaves a choice to the engine or the model."""

    model: str
    name: str | None = None
    port: int = 0
    context: int | None = None
    slots: int | None = None
    gpu_layers: int | None = None
    backend: str | None = None
    extra: tuple[str, ...] = ()


def plan(workspace: Workspace, pod: Pod, wish: Wish) -> tuple[str, ...]:
    """What `start` would do, without doing any of it."""
    entry = catalog.find(wish.model)
    source = catalog.resolve(entry)
    brings = (
        f"download {source.repo}/{source.file} on {pod.name}" if isinstance(source, HubSource)
        else f"use {source.path} of {pod.name}" if isinstance(source, PodSource)
        else f"use {source.path}" if pod.provider == "local"
        else f"send {source.path} to {pod.name}, unless it is there"
    )  # fmt: skip
    return (
        f"prepare {entry.engine} on {pod.name}, unless it is there",
        brings,
        f"start {_name(wish, entry)} on {pod.name}, port {wish.port or 'chosen there'}, reachable only through podlab",
        "wait until it answers",
    )


def start(workspace: Workspace, pod: Pod, wish: Wish, *, host_key: str | None = None) -> Work[Endpoint]:
    """Start a model and wait until it answers. What runs already under that name is shown, not started again.

    Interrupted, it stops what it had begun. Killed, the pod goes on by itself, and the next `list` shows it.
    Raises EngineCrashed with the cause, EngineNotReady when it takes too long (it is left running then).
    """
    entry = catalog.find(wish.model)
    name = _name(wish, entry)
    facts = yield from pods.reach(workspace, pod, host_key=host_key)
    running = yield from _running(workspace, pod, name, entry.id)
    if running is not None:
        return running
    engine = engine_named(entry.engine)
    machine = _machine(pod, facts)
    spec = _spec(pod, facts, wish, name, entry)
    engine.check(spec, machine)
    yield from _send_model(workspace, pod, entry, spec)
    endpoint_id = uuid.uuid4().hex
    side = workspace.side(pod)
    key = f"sk-podlab-{random.token_urlsafe(24)}"
    secrets.remember(key)
    steps = engine.steps(spec, machine)
    step_secrets = _step_secrets(steps)
    try:
        yield Stage("start", f"Starting {name} on {pod.name}")
        repeated(
            lambda: side.start(
                id=endpoint_id, name=name, steps=steps, port=wish.port, model=entry.id, engine=engine.name, key=key,
                secrets=step_secrets, files={file.name: file.text for file in engine.files(spec, machine)},
                health=HealthCheck(spec.served_name, engine.health_path, engine.models_path),
            )
        )  # fmt: skip
        last = yield from _until_ready(workspace, pod, endpoint_id, engine, step_secrets, port_fixed=wish.port != 0)
    except KeyboardInterrupt:
        yield from abandon(side, endpoint_id, name)
        raise
    except AlreadyExists:  # somebody starts the same at this moment, or the port is not free
        running = yield from _running(workspace, pod, name, entry.id)
        if running is None:
            raise
        return running
    endpoints.listing(workspace, [pod])
    return endpoints.endpoint_of(workspace, pod, last)


def restart(workspace: Workspace, pod: Pod, facts: Facts) -> Work[Endpoint]:
    """Stop an endpoint and start it again as it was, on the same port if that is free."""
    side = workspace.side(pod)
    engine = engine_named(facts.engine)
    workspace.forget_reached(facts.id)
    token = secrets.find("HF_TOKEN")
    given = {"download": {"HF_TOKEN": token.reveal()}} if token else {}
    restarting = persistent(lambda: side.restart(facts.id, facts.generation, secrets=given))
    while True:
        try:
            stage = next(restarting)
        except StopIteration:
            break
        yield Stage("stop", endpoints.STOP_WORDS[stage.stage].format(name=facts.name))
    last = yield from _until_ready(workspace, pod, facts.id, engine, given, port_fixed=False)
    endpoints.listing(workspace, [pod])
    return endpoints.endpoint_of(workspace, pod, last)


def _name(wish: Wish, entry: catalog.ModelEntry) -> str:
    name = wish.name or re.sub(r"[^A-Za-z0-9._-]+", "-", entry.id)[:63].strip("-._")
    if not _NAME.fullmatch(name):
        raise BadArgument(f"{name!r} cannot be an endpoint's name.", hint="Use letters, digits, dots and dashes.")
    return name


def _running(workspace: Workspace, pod: Pod, name: str, model: str) -> Work[Endpoint | None]:
    """The endpoint of that name if it is alive already. Raises AlreadyExists when it is another model or elsewhere."""
    found, statuses = endpoints.listing(workspace, [pod])
    pods.refuse_silent(statuses)
    elsewhere = [
        endpoint for other in pods.all_pods() if other.id != pod.id
        for endpoint in workspace.store.endpoints_of(other.id) if endpoint.pid is not None
    ]  # fmt: skip
    for endpoint in [*found, *elsewhere]:
        if endpoint.name != name or endpoint.pid is None or endpoint.state is EndpointState.ORPHAN:
            continue
        if endpoint.pod != pod.name or endpoint.model != model:
            raise AlreadyExists(
                f"{name} is the name of an endpoint on {endpoint.pod} that serves {endpoint.model}.",
                hint=f"Choose another one with --name, or stop it: podlab model stop {name}",
            )
        if endpoint.state is EndpointState.READY:
            yield Notice(f"{name} runs already on {pod.name}; nothing was started.")
            return endpoint
        side, engine = workspace.side(pod), engine_named(endpoint.engine)
        (facts,) = side.status([endpoint.id])
        if not facts.ended:
            yield Notice(f"{name} is being started already on {pod.name}; waiting for it.")
            last = yield from _until_ready(workspace, pod, endpoint.id, engine, {}, port_fixed=True)
            return endpoints.endpoint_of(workspace, pod, last)
    return None


def _machine(pod: Pod, facts: PodFacts) -> EngineFacts:
    major, minor, *_ = (int(part) for part in re.findall(r"\d+", facts.python))
    local = pod.provider == "local"
    return EngineFacts(facts.os, facts.arch, (major, minor), sys.executable if local else "python3", local)


def _spec(pod: Pod, facts: PodFacts, wish: Wish, name: str, entry: catalog.ModelEntry) -> ServeSpec:
    """What is to be served, with the place where the model's file is or will be on the pod."""
    source = catalog.resolve(entry)
    models_dir = "{home}/models" if pod.models_path is None else _in_home(pod.models_path, facts.user_home)
    spec = ServeSpec(
        served_name=name, context=min(entry.context or CONTEXT, CONTEXT) if wish.context is None else wish.context,
        slots=_slots(entry) if wish.slots is None else wish.slots, gpu_layers=wish.gpu_layers,
        backend=cast("Backend | None", wish.backend), extra=wish.extra, models_dir=models_dir,
        hub_token=secrets.find("HF_TOKEN") is not None,
    )  # fmt: skip
    if isinstance(source, HubSource):
        return replace(spec, hub=source)
    if isinstance(source, PodSource) or pod.provider == "local":
        return replace(spec, model_path=str(source.path))
    return replace(spec, model_path=f"{models_dir.replace('{home}', facts.home)}/{source.path.name}")


def _slots(entry: catalog.ModelEntry) -> int:
    return SMALL_SLOTS if (entry.parameters or SMALL) < SMALL else 1


def _in_home(path: str, user_home: str) -> str:
    """A path on a pod as a person wrote it, made absolute: engines know nothing of `~`."""
    return path if path.startswith("/") else f"{user_home}/{path.removeprefix('~').lstrip('/')}"


def _send_model(workspace: Workspace, pod: Pod, entry: catalog.ModelEntry, spec: ServeSpec) -> Work[None]:
    """Send the model's file to where the engine will look for it, if it is here and has to be there."""
    source = catalog.resolve(entry)
    if isinstance(source, SendFile) and pod.provider != "local":
        assert spec.model_path is not None
        what = f"Sending {entry.id} to {pod.name}"
        yield from files.send_file(workspace, pod, source.path, spec.model_path, what=what)


def _step_secrets(steps: Sequence[Step]) -> dict[str, dict[str, str]]:
    given: dict[str, dict[str, str]] = {}
    for step in steps:
        values = {name: secrets.find(name) for name in step.secrets}
        given[step.name] = {name: value.reveal() for name, value in values.items() if value is not None}
    return {step: values for step, values in given.items() if values}


def _until_ready(
    workspace: Workspace, pod: Pod, endpoint_id: str, engine: Engine, given: Mapping[str, Mapping[str, str]], *,
    port_fixed: bool,
) -> Work[Facts]:  # fmt: skip
    """Wait for an endpoint to answer, choosing another port when the first one was lost to somebody else."""
    side = workspace.side(pod)
    for attempt in range(1, PORT_TRIES + 1):
        last, end = yield from _watch(workspace, side, endpoint_id)
        if end == "ready":
            return last
        if end == "timeout":
            raise EngineNotReady(
                f"{last.name} on {pod.name} is not ready after {workspace.value('start_deadline_s'):g} s.",
                hint=f"It goes on loading. See: podlab model logs {last.name}, or podlab model stop {last.name}",
            )
        if last.stop_at is not None:
            raise EngineNotReady(
                f"{last.name} on {pod.name} was stopped by somebody while it was starting.",
                hint="See: podlab model list",
            )
        status = _status(last)
        found = engine.diagnose(last.lines, status)
        if found.cause is Cause.PORT_IN_USE and not port_fixed and attempt < PORT_TRIES:
            yield Notice(f"Port {last.port} of {pod.name} was taken by something else; choosing another.")
            result_of(side.restart(endpoint_id, last.generation, secrets=given, same_port=False))
            continue
        state, cause, detail = endpoints.judge(last)
        endpoints.listing(workspace, [pod])
        raise EngineCrashed(
            f"{last.name} on {pod.name} is {state} ({cause}, {_ended(status)})"
            + ("" if found.lines or not detail else f": {detail}"),
            cause=str(cause), status=status, log=found.lines,
            hint=found.hint or f"See: podlab model logs {last.name}",
        )  # fmt: skip
    raise AssertionError("the last attempt always returns or raises")


def _watch(
    workspace: Workspace, side: PodSide, endpoint_id: str
) -> Work[tuple[Facts, Literal["ready", "ended", "timeout"]]]:
    """Facts as they change, shown as stages; resumed when the link breaks. Preparing and downloading are not timed."""
    last: Facts | None = None
    patience = Patience()
    while True:
        watching = side.watch(endpoint_id, workspace.value("start_deadline_s"))
        try:
            while True:
                last = next(watching)
                patience.heard()
                yield _stage_of(last)
        except StopIteration as end:
            if last is not None and not (end.value == "timeout" and last.step in ("prepare", "download")):
                return last, end.value
        except (LinkLost, Unreachable) as error:
            yield Notice(f"The link to {side.transport.pod} broke; connecting again.", "warning")
            patience.wait(error)
        finally:
            watching.close()


def _stage_of(facts: Facts) -> Stage:
    words = {
        "prepare": f"Preparing {facts.engine}",
        "download": f"Downloading {facts.model}",
        "serve": f"Loading {facts.model}",
    }
    text = words.get(facts.step, f"Starting {facts.name}")
    progress = facts.progress
    if progress is None or facts.step == "serve":
        return Stage(facts.step or "start", text)
    unit: Literal["", "bytes"] = "bytes" if progress.unit == "bytes" else ""
    return Stage(facts.step, f"{text}: {progress.text}", progress.done, progress.total, unit)


def _status(facts: Facts) -> int | None:
    if facts.exit is None:
        return None
    return 128 + facts.exit.signal if facts.exit.signal is not None else facts.exit.status


def _ended(status: int | None) -> str:
    return "exit status unknown" if status is None else f"exit status {status}"
