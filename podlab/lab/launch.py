"""From a model's name to an endpoint that answers, on a pod."""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets as random
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, cast

from podlab import secrets
from podlab.catalog import catalog
from podlab.catalog.reading import geometry_of
from podlab.catalog.sources import FileSource, FolderSource, HubRepo, HubSource, PodSource
from podlab.engines import engine_named
from podlab.engines.base import Backend, Cause, Diagnosis, Engine, Loading, LoadStage, SentFile, ServeSpec
from podlab.engines.base import PodFacts as EngineFacts
from podlab.engines.given import check_words
from podlab.errors import (
    AlreadyExists,
    BadArgument,
    BadSecret,
    EngineCrashed,
    EngineNotReady,
    LinkLost,
    PodlabError,
    StateDamaged,
    SupervisorError,
    Unreachable,
)
from podlab.events import Notice, Stage, Work
from podlab.lab import arrivals, endpoints, environments, names, placement, pods
from podlab.lab.facts import Facts, HealthCheck, PodFacts
from podlab.lab.launches import serves
from podlab.lab.patience import Patience, abandon, persistent, repeated
from podlab.lab.supervisor import PodSide, result_of
from podlab.lab.wish import Wish, differences, meta_of, was_fetched
from podlab.ledger import Ledger
from podlab.quoting import shell_line
from podlab.types import ALIVE, Endpoint, EndpointState, Pod, Step

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
LOAD_WORDS = {
    LoadStage.START: "Starting {facts.engine} for {facts.model}",
    LoadStage.WEIGHTS: "Loading the weights of {facts.model}",
    LoadStage.COMPILE: "Compiling {facts.model}",
    LoadStage.WARM_UP: "Warming up {facts.model}",
    LoadStage.READY: "Waiting for the first answer of {facts.model}",
}
FETCH_AGAIN = "Remove the file on the pod and start again: it is then fetched anew."
OWN_FILE = "The file is your own: put a whole one in its place and start again."


@dataclass(frozen=True)
class Prepared:
    """A start that was looked at from all sides and only has to be carried out."""

    entry: catalog.ModelEntry
    engine: Engine
    spec: ServeSpec
    steps: tuple[Step, ...]
    files: tuple[SentFile, ...]
    notes: tuple[str, ...] = ()
    """What a person should hear of it, a sentence each."""
    refused: tuple[str, ...] = ()
    """Other ways to put it on GPUs, and why not those."""


def plan(workspace: Workspace, pod: Pod, wish: Wish) -> Work[tuple[str, ...]]:
    """What `start` would do, without doing any of it: the exact commands, their environment, the GPUs and the port.

    The pod is asked, and nothing on it is changed. Refuses what `start` would refuse.
    """
    entry, options = _asked(wish)
    facts = yield from pods.reach(workspace, pod)
    ready = yield from _prepared(workspace, pod, facts, entry, options, wish, keep=False)
    name = ready.spec.served_name
    sent = arrivals.sending(pod, entry, ready.spec.model_path)
    goes = yield from arrivals.planned(workspace, pod, facts, entry, ready.spec.model_path)
    brings = (
        *([f"delete, once you agree, {goes.said}. {goes.why}"] if goes else []),
        *([f"send {sent.here} to {pod.name}, unless it is there"] if sent else []),
    )
    where = f"on {pod.name}, port {wish.port or 'chosen there'}, reachable only through podlab"
    cards = f", GPU {', '.join(map(str, ready.spec.gpus))}" if ready.spec.gpus else ""
    return (
        *ready.notes, *(f"not {line}" for line in ready.refused), *brings,
        *(f"{step.name}: {_shown(step)}" for step in ready.steps),
        f"have {name} {where}{cards}, and wait until it answers",
    )  # fmt: skip


def _shown(step: Step) -> str:
    """A step as a shell would take it. What it gets of secrets is masked."""
    env = {name: secrets.MASK if "{key}" in value else value for name, value in step.env.items()}
    env |= dict.fromkeys(step.secrets, secrets.MASK)
    words = [f"{name}={shell_line([value])}" for name, value in sorted(env.items())]
    return " ".join([*words, shell_line(step.argv)])


def _prepared(
    workspace: Workspace, pod: Pod, facts: PodFacts, entry: catalog.ModelEntry, options: ServeSpec, wish: Wish, *,
    keep: bool = True,
) -> Work[Prepared]:  # fmt: skip
    """Choose environment, GPUs and arguments. With `keep` what was seen of an environment is put on record."""
    engine = engine_named(wish.engine or entry.engine)
    spec, machine = _located(options, pod, facts, entry), _machine(pod, facts)
    if engine.name in environments.ENGINES:
        environment = yield from environments.chosen(
            workspace, pod, facts, engine.name, version=wish.engine_version, python=wish.python, keep=keep
        )
        spec = replace(spec, environment=environment)
    placed = yield from placement.placed(workspace, pod, facts, entry, wish, spec, engine)
    spec, machine = placed.spec, replace(machine, gpus=placed.gpu_count)
    engine.check(spec, machine)
    notes = (*placed.reasons, *engine.notes(spec))
    return Prepared(
        entry, engine, spec, engine.steps(spec, machine), engine.files(spec, machine), notes, placed.refused
    )


def start(
    workspace: Workspace, pod: Pod, wish: Wish, *, host_key: str | None = None, detach: bool = False
) -> Work[Endpoint]:
    """Start a model and wait until it answers. What runs already under that name is shown, not started again.

    Options that cannot work are refused first, whatever runs, and before the pod is asked where that is possible.
    With `detach` it returns once the pod has taken the request. Interrupted before that, nothing is left running;
    after it, only the watching ends. Killed, the pod goes on by itself, and the next `list` shows it.
    Raises EngineCrashed with the cause, EngineNotReady when it takes too long (it is left running then), and
    EngineUnavailable with the nearest that fits for what cannot fit.
    """
    entry, options = _asked(wish)
    name = options.served_name
    facts = yield from pods.reach(workspace, pod, host_key=host_key)
    running = yield from _running(workspace, pod, name, entry.id, wish)
    if running is not None:
        return running
    ready = yield from _prepared(workspace, pod, facts, entry, options, wish)
    for note in ready.notes:
        yield Notice(note)
    names.refuse_taken(workspace, name, but_on=pod)  # before gigabytes are moved for it
    yield from arrivals.make_room(workspace, pod, facts, entry, ready.spec.model_path)
    yield from arrivals.send(workspace, pod, entry, ready.spec.model_path)
    given = _found({step.name: step.secrets for step in ready.steps})
    yield Stage("start", f"Starting {name} on {pod.name}")
    try:
        last = yield from _begun(workspace, pod, ready, wish, given)
    except AlreadyExists:  # somebody starts the same at this moment, or the port is not free
        running = yield from _running(workspace, pod, name, entry.id, wish)
        if running is None:
            raise
        return running
    if pod.rental_id is not None:
        with contextlib.suppress(StateDamaged):  # told where it matters; the model serves all the same
            serves(Ledger(), pod.id, entry.id)
    if not detach:
        watching = _until_ready(workspace, pod, last.id, ready.engine, given, port_fixed=wish.port != 0)
        last = yield from _watched(workspace, pod, name, watching)
    endpoint = endpoints.endpoint_of(workspace, pod, last)
    endpoints.remember(workspace, pod, endpoint)
    return endpoint


def _begun(
    workspace: Workspace, pod: Pod, ready: Prepared, wish: Wish, given: Mapping[str, Mapping[str, str]]
) -> Work[Facts]:
    """Ask the pod for it, under a name that nobody takes elsewhere meanwhile; what the pod says of it then.

    Raises AlreadyExists where the name went, or the port.
    """
    engine, spec, name = ready.engine, ready.spec, ready.spec.served_name
    side, endpoint_id = workspace.side(pod), uuid.uuid4().hex
    key = f"sk-podlab-{random.token_urlsafe(24)}"
    secrets.remember(key)
    with names.claimed(workspace, name, but_on=pod):
        try:
            repeated(
                lambda: side.start(
                    id=endpoint_id, name=name, steps=ready.steps, port=wish.port, model=ready.entry.id,
                    engine=engine.name, key=key, secrets=given, files={file.name: file.text for file in ready.files},
                    health=HealthCheck(name, engine.health_path, engine.models_path, engine.probe_path),
                    gpus=spec.gpus,
                    meta=meta_of(spec, wish, fetched=spec.hub is not None or spec.hub_repo is not None),
                )
            )  # fmt: skip
            (facts,) = repeated(lambda: side.status([endpoint_id]))
        except KeyboardInterrupt:
            yield from abandon(side, endpoint_id, name)
            raise
        endpoints.remember(workspace, pod, endpoints.endpoint_of(workspace, pod, facts))
    return facts


def wait(workspace: Workspace, pod: Pod, endpoint: Endpoint) -> Work[Endpoint]:
    """Wait until an endpoint that was started without waiting answers. Raises as `start` does."""
    (facts,) = workspace.side(pod).status([endpoint.id])
    given = _found(facts.secrets)
    watching = _until_ready(workspace, pod, endpoint.id, engine_named(endpoint.engine), given, port_fixed=False)
    last = yield from _watched(workspace, pod, endpoint.name, watching)
    ready = endpoints.endpoint_of(workspace, pod, last)
    endpoints.remember(workspace, pod, ready)
    return ready


def name_of(wish: Wish) -> str:
    """What the endpoint would be called. Raises BadArgument or NotFound."""
    return _name(wish, catalog.find(wish.model))


def _watched(workspace: Workspace, pod: Pod, name: str, watching: Work[Facts]) -> Work[Facts]:
    """Watch to the end; an interrupt ends the watching and not the server."""
    try:
        return (yield from watching)
    except KeyboardInterrupt:
        yield Notice(
            f"{name} goes on loading on {pod.name}. Watch it: podlab model logs {name} --follow; "
            f"end it: podlab model stop {name}"
        )
        endpoints.listing(workspace, [pod])
        raise


def restart(workspace: Workspace, pod: Pod, facts: Facts) -> Work[Endpoint]:
    """Stop an endpoint and start it again as it was, on the same port if that is free.

    Raises BadSecret when a secret it was started with is gone; it is not stopped then.
    """
    side = workspace.side(pod)
    engine = engine_named(facts.engine)
    given = _found(facts.secrets)
    missing = [name for step, names in facts.secrets.items() for name in names if name not in given.get(step, ())]
    if missing:
        raise BadSecret(
            f"{facts.name} was started with {', '.join(missing)}, which is not here now. It was left as it is.",
            hint=f"Keep it first: podlab secret set {missing[0]}",
        )
    workspace.forget_reached(facts.id)
    restarting = persistent(lambda: side.restart(facts.id, facts.generation, secrets=given))
    while True:
        try:
            stage = next(restarting)
        except StopIteration:
            break
        yield Stage("stop", endpoints.STOP_WORDS[stage.stage].format(name=facts.name))
    watching = _until_ready(workspace, pod, facts.id, engine, given, port_fixed=False)
    last = yield from _watched(workspace, pod, facts.name, watching)
    endpoints.listing(workspace, [pod])
    return endpoints.endpoint_of(workspace, pod, last)


def _asked(wish: Wish) -> tuple[catalog.ModelEntry, ServeSpec]:
    """The model and the options that are meant, checked as far as that goes without the pod."""
    entry = catalog.find(wish.model)
    wish.check()
    engine = engine_named(wish.engine or entry.engine)
    _refuse_wrong_files(entry, engine)
    spec = ServeSpec(
        served_name=_name(wish, entry), context=_context(entry, engine) if wish.context is None else wish.context,
        slots=_slots(entry, engine) if wish.slots is None else wish.slots,
        gpu_layers=wish.gpu_layers, backend=cast("Backend | None", wish.backend), extra=wish.extra,
        env=wish.variables(), engine_version=wish.engine_version, force=wish.force, memory_ratio=wish.memory_ratio,
        gpus=tuple(range(wish.gpus)) if isinstance(wish.gpus, int) else wish.gpus or (),
    )  # fmt: skip
    if wish.python is not None and engine.name not in environments.ENGINES:
        raise BadArgument(f"{engine.name} is not run with an environment of yours.", hint="Leave --python out.")
    check_words([wish.python] if wish.python else [])
    engine.check_options(spec)
    return entry, spec


def _refuse_wrong_files(entry: catalog.ModelEntry, engine: Engine) -> None:
    """llama.cpp serves GGUF files, and nothing else does."""
    if (entry.format == "gguf") == (engine.name == "llamacpp"):
        return
    if entry.format == "gguf":
        raise BadArgument(
            f"{entry.id} is a GGUF file, and {engine.name} serves folders of safetensors.",
            hint="Name the model's repository OWNER/REPO, or a folder on this computer: folder:/PATH",
        )
    make = f"podlab model download {entry.id}, then podlab model convert {entry.id} --to gguf --quant {entry.convert}"
    raise BadArgument(
        f"{entry.id} is safetensors, and llama.cpp serves GGUF files.",
        hint=f"Make one first: {make}" if entry.convert else "Name a .gguf file of it.",
    )


def _name(wish: Wish, entry: catalog.ModelEntry) -> str:
    name = wish.name or re.sub(r"[^A-Za-z0-9._-]+", "-", entry.id)[:63].strip("-._")
    if not _NAME.fullmatch(name):
        raise BadArgument(f"{name!r} cannot be an endpoint's name.", hint="Use letters, digits, dots and dashes.")
    return name


def _running(workspace: Workspace, pod: Pod, name: str, model: str, wish: Wish) -> Work[Endpoint | None]:
    """The endpoint of that name if it is alive on the pod already. Raises AlreadyExists when it is another model."""
    found, statuses = endpoints.listing(workspace, [pod])
    pods.refuse_silent(statuses)
    endpoint = next((each for each in found if each.name == name and each.state in ALIVE), None)
    if endpoint is None:
        return None
    if endpoint.model != model:
        raise names.name_taken(name, f"is the name of an endpoint on {pod.name} that serves {endpoint.model}.")
    (facts,) = workspace.side(pod).status([endpoint.id])
    if facts.ended:
        return None
    ready = endpoint.state is EndpointState.READY
    how = "runs already" if ready else "is being started already"
    yield Notice(f"{name} {how} on {pod.name}; {'nothing was started' if ready else 'waiting for it'}.")
    if others := differences(wish, facts):
        yield Notice(
            f"{name} runs with {', '.join(others)}. To have it as asked: podlab model stop {name}, then start it.",
            "warning",
        )
    if ready:
        return endpoint
    last = yield from _until_ready(workspace, pod, endpoint.id, engine_named(endpoint.engine), {}, port_fixed=True)
    return endpoints.endpoint_of(workspace, pod, last)


def _machine(pod: Pod, facts: PodFacts) -> EngineFacts:
    version = re.match(r"(\d+)\.(\d+)", facts.python)
    if version is None:
        raise SupervisorError(
            f"Pod {pod.name!r} says that its Python has the version {facts.python[:40]!r}.",
            hint="podlab needs a Python there that tells its version as 3.11.2 does.",
        )
    local = pod.provider == "local"
    major, minor = int(version[1]), int(version[2])
    python = sys.executable if local else "python3"
    return EngineFacts(facts.os, facts.arch, (major, minor), python, local, facts.gpus)


def _located(options: ServeSpec, pod: Pod, facts: PodFacts, entry: catalog.ModelEntry) -> ServeSpec:
    """What is to be served, with the place where the model's file is or will be on the pod."""
    source = catalog.resolve(entry)
    models_dir = "{home}/models" if pod.models_path is None else facts.absolute(pod.models_path)
    spec = replace(options, models_dir=models_dir, hub_token=secrets.find("HF_TOKEN") is not None)
    if isinstance(source, HubSource):
        return replace(spec, hub=source)
    if isinstance(source, HubRepo):
        return replace(spec, hub_repo=source)
    check_words([str(source.path)])
    if isinstance(source, PodSource) or pod.provider == "local" or (isinstance(source, FolderSource) and source.on_pod):
        return replace(spec, model_path=str(source.path))
    if isinstance(source, FolderSource):
        # Two folders of one name are two models.
        told_apart = hashlib.sha256(source.path.encode()).hexdigest()[:8]
        return replace(spec, model_path=f"{models_dir.replace('{home}', facts.home)}/{source.stem}-{told_apart}")
    return replace(spec, model_path=f"{models_dir.replace('{home}', facts.home)}/{source.path.name}")


def _slots(entry: catalog.ModelEntry, engine: Engine) -> int:
    return SMALL_SLOTS if engine.name == "llamacpp" and (entry.parameters or SMALL) < SMALL else 1


def _context(entry: catalog.ModelEntry, engine: Engine) -> int | None:
    """Tokens of a conversation where nobody said how many; None where the planner or the model's own files decide."""
    if engine.name != "llamacpp":
        return None
    made_for = entry.context
    if made_for is None and isinstance(entry.source, FileSource):
        with contextlib.suppress(PodlabError):  # a file that cannot be read is refused where it is put on the pod
            made_for = geometry_of(entry).max_context
    return min(made_for or CONTEXT, CONTEXT)


def _found(wanted: Mapping[str, Sequence[str]]) -> dict[str, dict[str, str]]:
    """The values of the secrets that each step wants, as far as they are here."""
    given: dict[str, dict[str, str]] = {}
    for step, wished in wanted.items():
        values = {name: secrets.find(name) for name in wished}
        given[step] = {name: value.reveal() for name, value in values.items() if value is not None}
    return {step: values for step, values in given.items() if values}


def _until_ready(
    workspace: Workspace, pod: Pod, endpoint_id: str, engine: Engine, given: Mapping[str, Mapping[str, str]], *,
    port_fixed: bool,
) -> Work[Facts]:  # fmt: skip
    """Wait for an endpoint to answer, choosing another port when the first one was lost to somebody else."""
    side = workspace.side(pod)
    for attempt in range(1, PORT_TRIES + 1):
        last, end = yield from _watch(workspace, side, endpoint_id, engine)
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
        found = engine.diagnose(last.lines, status, last.exit.evidence if last.exit else None)
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
            hint=_hint(found, last) or f"See: podlab model logs {last.name}",
        )  # fmt: skip
    raise AssertionError("the last attempt always returns or raises")


def _hint(found: Diagnosis, facts: Facts) -> str:
    """What to do next. Where another copy of the weights may help, that depends on who brought them."""
    if not found.another_copy:
        return found.hint
    return f"{found.hint} {FETCH_AGAIN if was_fetched(facts) else OWN_FILE}"


def _watch(
    workspace: Workspace, side: PodSide, endpoint_id: str, engine: Engine
) -> Work[tuple[Facts, Literal["ready", "ended", "timeout"]]]:
    """Facts as they change, shown as stages; resumed when the link breaks. Preparing and downloading are not timed."""
    last: Facts | None = None
    loading: Loading | None = None
    patience = Patience()
    while True:
        watching = side.watch(endpoint_id, workspace.value("start_deadline_s"))
        try:
            while True:
                last = next(watching)
                patience.heard()
                loading = _loading(engine, last, loading)
                yield _stage_of(last, loading)
        except StopIteration as end:
            if last is not None and not (end.value == "timeout" and last.step in ("prepare", "download")):
                return last, end.value
        except (LinkLost, Unreachable) as error:
            yield Notice(f"The link to {side.transport.pod} broke; connecting again.", "warning")
            patience.wait(error)
        finally:
            watching.close()


def _loading(engine: Engine, facts: Facts, before: Loading | None) -> Loading | None:
    """How far it has come by its last lines. A server's processes write at once, so a line of an earlier stage does not
    lead back."""
    if facts.step != "serve":
        return None
    order = list(LoadStage)
    said = [found for line in facts.lines if (found := engine.stage_of(line))]
    return max([*([before] if before else []), *said], key=lambda each: (order.index(each.stage), each.done or 0),
               default=None)  # fmt: skip


def _stage_of(facts: Facts, loading: Loading | None) -> Stage:
    words = {
        "prepare": f"Preparing {facts.engine}",
        "download": f"Downloading {facts.model}",
        "serve": f"Loading {facts.model}",
    }
    text = words.get(facts.step, f"Starting {facts.name}")
    progress = facts.progress
    if loading is not None:
        return Stage(loading.stage.value, LOAD_WORDS[loading.stage].format(facts=facts), loading.done, loading.total)
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
