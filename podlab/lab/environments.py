"""The Python environments with engines on a pod: which there are, and taking over one that a person has there.

The pod keeps the records (remote/environments.py); nothing of them is kept here.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING, Any

from podlab.engines.base import Environment
from podlab.errors import EngineUnavailable, SupervisorError
from podlab.events import Notice, Stage, Work
from podlab.types import EngineVersions
from podlab.wire import Wire

if TYPE_CHECKING:
    from podlab.lab.facts import PodFacts
    from podlab.lab.workspace import Workspace
    from podlab.types import Pod

ENGINES = ("vllm", "sglang", "tgi", "trtllm")
"""Those that are run with an environment of a pod's; llama.cpp's comes with its first start."""
ADOPT_TIMEOUT_S = 400.0
FLAGS_LIMIT = 5000


def chosen(
    workspace: Workspace, pod: Pod, facts: PodFacts, engine: str, *, version: str | None, python: str | None,
    keep: bool = True,
) -> Work[Environment | None]:  # fmt: skip
    """What an engine is to be run with: the environment of `python`, else the newest one there of `version` (None: of
    any) that works, else None: one has to be made. Without `keep` nothing of what is seen is written down there.

    Raises EngineUnavailable when `python` cannot run the engine."""
    known = _recorded(workspace, pod, facts, engine)
    if python is not None:
        path = facts.absolute(python)
        for each in known:
            if each.environment.adopted and each.environment.python == path and not each.stale:
                return each.environment
        return (yield from adopt(workspace, pod, facts, engine, path, keep=keep))
    for each in known:
        if not _is_of(each.environment, version):
            continue
        try:
            found = yield from _current(workspace, pod, facts, each, keep=keep)
        except EngineUnavailable as error:
            yield Notice(f"{error.message} Looking for another environment.", "warning")
            continue
        if _is_of(found, version):  # a stale one may be of another version by now
            return found
    return None


def _is_of(environment: Environment, version: str | None) -> bool:
    return version in (None, environment.version, environment.version.partition("+")[0])


def _current(workspace: Workspace, pod: Pod, facts: PodFacts, known: _Known, *, keep: bool) -> Work[Environment]:
    """An environment on record as it is now: looked at again where its record is stale or knows no options yet.

    Raises EngineUnavailable when a stale one does not work any more.
    """
    environment = known.environment
    if known.stale:
        return (yield from adopt(workspace, pod, facts, environment.engine, environment.python, keep=keep))
    if not known.unread:
        return environment
    yield Stage("environment", f"Asking {environment.engine} {environment.version} on {pod.name} for its options")
    words = ("read" if keep else "look", environment.engine, environment.python)
    try:
        answer = _ask(workspace, pod, facts, *words, timeout_s=ADOPT_TIMEOUT_S)
    except EngineUnavailable as error:  # then options are not checked beforehand, and the engine itself refuses them
        yield Notice(f"The options of {environment.engine} {environment.version} are not known: {error.message}")
        return environment
    told = _known(Wire(answer.get("environment"), "an environment")).environment
    return replace(environment, flags=told.flags)


def adopt(
    workspace: Workspace, pod: Pod, facts: PodFacts, engine: str, python: str, *, keep: bool = True
) -> Work[Environment]:
    """Look at a person's environment on the pod, and with `keep` put on record what was seen.

    Raises EngineUnavailable saying why it cannot be used.
    """
    yield Stage("environment", f"Looking at {python} on {pod.name}")
    what = "adopt" if keep else "look"
    answer = _ask(workspace, pod, facts, what, engine, python, timeout_s=ADOPT_TIMEOUT_S)
    return _known(Wire(answer.get("environment"), "an environment")).environment


def listed(workspace: Workspace, pod: Pod, facts: PodFacts) -> tuple[Environment, ...]:
    """Every environment on a pod, the newest record first."""
    return tuple(known.environment for known in _recorded(workspace, pod, facts))


@dataclass(frozen=True)
class Prepared:
    """An environment that holds the version of an engine that was asked for. `path` is "" for a person's own."""

    environment: Environment
    path: str
    versions: EngineVersions


def prepared(workspace: Workspace, pod: Pod, facts: PodFacts, engine: str, version: str) -> Prepared | None:
    """The environment with this very version: one that was made for it, else a person's own that is on record."""
    found = [each for each in _records(workspace, pod, facts) if each.text("engine", 64) == engine]
    for wire in sorted(found, key=lambda each: each.flag("adopted")):
        known = _known(wire)
        environment = known.environment
        own = (environment.version, environment.version.partition("+")[0]) if environment.adopted else ()
        if not known.stale and version in (wire.text("label", 64), *own):
            return Prepared(environment, wire.text("path"), versions_from(wire, environment.version))
    return None


def versions_from(wire: Wire, engine: str = "") -> EngineVersions:
    """What an environment's record says of versions; `engine` is known otherwise where it says nothing."""
    told = wire.part("versions") if wire.has("versions") else Wire({}, "versions")
    texts = [told.maybe(name, lambda key: told.text(key, 64)) for name in ("engine", "torch", "cuda", "python")]
    return EngineVersions(texts[0] or engine or None, *texts[1:])


@dataclass(frozen=True)
class _Known:
    """An environment on record. `stale`: its package has changed since; `unread`: its options were never asked for."""

    environment: Environment
    stale: bool
    unread: bool


def _recorded(workspace: Workspace, pod: Pod, facts: PodFacts, engine: str | None = None) -> list[_Known]:
    found = [_known(record) for record in _records(workspace, pod, facts)]
    return [each for each in found if engine in (None, each.environment.engine)]


def _records(workspace: Workspace, pod: Pod, facts: PodFacts) -> list[Wire]:
    """Every record on a pod, the newest first."""
    records = _ask(workspace, pod, facts, "list", timeout_s=30.0).get("environments")
    if not isinstance(records, list):
        raise SupervisorError(f"Pod {pod.name!r} told no environments.")
    return [Wire(record, "an environment") for record in records[:1000]]


def _known(wire: Wire) -> _Known:
    environment = Environment(
        wire.text("engine", 64), wire.text("version", 64), wire.text("python"), wire.texts("program", count=16),
        frozenset(wire.texts("flags", 128, FLAGS_LIMIT)), wire.flag("adopted"),
    )  # fmt: skip
    return _Known(environment, wire.flag("stale"), wire.has("unread") and wire.flag("unread"))


def _ask(workspace: Workspace, pod: Pod, facts: PodFacts, *words: str, timeout_s: float) -> dict[str, Any]:
    program = (resources.files("podlab.remote") / "environments.py").read_bytes()
    python = sys.executable if pod.provider == "local" else facts.python_path
    argv = [python, "-I", "-", facts.home, *words]
    done = workspace.transport(pod).run(argv, stdin=program, timeout_s=timeout_s, check=False)
    try:
        answer = json.loads(done.text.strip().splitlines()[-1])
    except (ValueError, IndexError) as error:
        said = done.stderr.decode(errors="replace").strip()[-300:]
        raise SupervisorError(f"Pod {pod.name!r} did not tell its environments: {said}") from error
    if not isinstance(answer, dict):
        raise SupervisorError(f"Pod {pod.name!r} did not tell its environments.")
    if "error" in answer:
        raise EngineUnavailable(
            f"On {pod.name}, {str(answer['error'])[:600]}.",
            hint="Name a Python there that has the engine: --python /path/to/bin/python",
        )
    return answer
