"""On which GPUs of a pod a model is put: the planner's answer to what the pod's cards are at this moment."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from podlab.catalog import catalog, planner
from podlab.catalog.catalog import ModelEntry
from podlab.catalog.fit import Wish as FitWish
from podlab.catalog.fit_file import HostRoom, fit_file
from podlab.catalog.geometry import Geometry
from podlab.catalog.reading import geometry_of
from podlab.catalog.sources import BuiltinSource, FileSource
from podlab.catalog.wishes import ServeWish
from podlab.engines.base import Engine, ServeSpec
from podlab.errors import EngineUnavailable, PodlabError
from podlab.events import Notice, Stage, Work
from podlab.lab import gpus
from podlab.lab.fit import advice

if TYPE_CHECKING:
    from podlab.lab.facts import PodFacts
    from podlab.lab.wish import Wish
    from podlab.lab.workspace import Workspace
    from podlab.types import Pod, PodSample

_OWN_ENV = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
"""What the engine makes of `ServeSpec.gpus` by itself."""

_CPU_SPACE = "VLLM_CPU_KVCACHE_SPACE"
_NO_DRIVER = "no NVIDIA driver was found"
"""How the detail of remote/probe.py begins where NVIDIA's library is not there."""


@dataclass(frozen=True)
class Placed:
    """A spec with its GPUs, and why these: a sentence each. `gpu_count` is how many the pod has."""

    spec: ServeSpec
    gpu_count: int = 0
    reasons: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    """Which other ways were looked at, and why not those."""


def placed(
    workspace: Workspace, pod: Pod, facts: PodFacts, entry: ModelEntry, wish: Wish, spec: ServeSpec, engine: Engine
) -> Work[Placed]:
    """Choose GPUs, cut, context and arguments for a start, or refuse what cannot fit (not with --force).

    Raises EngineUnavailable with the nearest that fits or why no GPU of the pod can be used, BadArgument for GPUs that
    are not there, and as the probe does.
    """
    if engine.name == "llamacpp":
        _refuse_beyond_memory(entry, facts, wish, spec)
        return Placed(spec)
    yield Stage("gpus", f"Looking at the GPUs of {pod.name}")
    sample = gpus.sample(workspace, pod)
    rooms = gpus.rooms_from(sample, workspace.side(pod).list())
    if not rooms:
        _refuse_unusable(pod, sample)
    geometry = yield from _shape(entry) if rooms else _nothing()
    asked = ServeWish(
        gpus=wish.gpus, context=wish.context, memory_ratio=wish.memory_ratio, concurrency=wish.slots or 1,
        extra=spec.extra, force=wish.force,
    )  # fmt: skip
    environment = spec.environment
    version = environment.version if environment is not None else spec.engine_version
    plan = planner.plan(
        entry, geometry, catalog.recipes_of(entry), rooms, asked, engine=engine.name, version=version or None,
        host=_host(sample, spec),
    )  # fmt: skip
    recipe_env = tuple((name, value) for name, value in plan.env if name not in _OWN_ENV)
    return Placed(
        replace(
            spec, gpus=plan.gpus, tensor_parallel=plan.tensor_parallel, data_parallel=plan.data_parallel,
            expert_parallel=plan.expert_parallel, memory_ratio=plan.memory_ratio, extra=plan.args,
            context=plan.context or spec.context,
            env=tuple((dict(recipe_env) | dict(spec.env)).items()),
        ),
        len(rooms), plan.reasons, plan.refused,
    )  # fmt: skip


def _host(sample: PodSample, spec: ServeSpec) -> HostRoom | None:
    """The pod's own memory; None where it is not known, or a person has said by vLLM's variable how much to take."""
    host = sample.host
    known = host.memory_total_bytes is not None and host.memory_available_bytes is not None
    if not known or _CPU_SPACE in dict(spec.env):
        return None
    return HostRoom(host.memory_total_bytes or 0, host.memory_available_bytes or 0)


def _refuse_unusable(pod: Pod, sample: PodSample) -> None:
    """A pod without a usable GPU is a CPU only where it has no cards and its driver is in no trouble: a start that
    names no GPU would take whichever the engine finds. Raises EngineUnavailable with what is wrong with each card."""
    why = "; ".join(_unusable(sample)) or ("" if _has_no_driver(sample) else sample.detail)
    if why:
        raise EngineUnavailable(
            f"No GPU of {pod.name} can be used: {why}.",
            hint=f"See: podlab pod gpu {pod.name}. Or use another pod with --on POD.",
        )


def _unusable(sample: PodSample) -> Iterator[str]:
    """What is wrong with each card, a phrase each."""
    cut = {gpu.parent for gpu in sample.gpus if gpu.mig and gpu.parent is not None}
    for gpu in sample.gpus:
        if gpu.lost:
            yield f"GPU {gpu.index} is lost ({gpu.error or 'its driver no longer reaches it'})"
        elif not gpu.mig and gpu.index not in cut:
            yield f"GPU {gpu.index} cannot be read ({gpu.error or 'it does not tell its memory'})"
    yield from (f"GPU {index} is cut into MIG instances, which podlab cannot choose yet" for index in sorted(cut))


def _has_no_driver(sample: PodSample) -> bool:
    """Whether the pod has neither NVIDIA's library nor its program, or a driver that found no card. What its program
    says follows a semicolon."""
    return not sample.detail or (sample.detail.startswith(_NO_DRIVER) and ";" not in sample.detail)


def _shape(entry: ModelEntry) -> Work[Geometry | None]:
    """The model's shape, from the catalog or from where it is; None, and a word about it, where it cannot be had."""
    try:
        return geometry_of(entry)
    except PodlabError as error:
        yield Notice(f"Whether {entry.id} fits is not known: {error.message}", "warning")
        return None


def _nothing() -> Work[None]:
    yield from ()


def _refuse_beyond_memory(entry: ModelEntry, facts: PodFacts, wish: Wish, spec: ServeSpec) -> None:
    """llama.cpp on a CPU: what is larger than the machine's memory is refused, and a file that is no model is, too;
    the rest its own log tells. Raises EngineUnavailable, BadArgument."""
    if wish.force:
        return
    known = entry.geometry
    if known is None and isinstance(entry.source, BuiltinSource | FileSource):
        known = geometry_of(entry)
    if known is None or facts.memory_bytes is None or spec.gpu_layers or spec.backend == "cuda":
        return
    room = HostRoom(facts.memory_bytes, facts.memory_bytes)
    verdict = fit_file(known, room, FitWish(context=spec.context, concurrency=spec.slots))
    if verdict.fits is False:
        raise EngineUnavailable(f"{entry.id} does not fit: {verdict.reason}", hint=advice(verdict))
