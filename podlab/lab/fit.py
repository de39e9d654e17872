"""Does a model fit on a pod, or on GPUs that nobody has yet? The arithmetic's answer, and the way out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from podlab.catalog import advice as wording
from podlab.catalog import catalog, gpus
from podlab.catalog.catalog import ModelEntry
from podlab.catalog.fit import FitResult, Wish, default_wish, fit
from podlab.catalog.fit_file import HostRoom, fit_file
from podlab.catalog.geometry import Geometry, GpuRoom
from podlab.catalog.reading import geometry_of
from podlab.errors import BadArgument
from podlab.events import Stage, Work
from podlab.lab import gpus as live
from podlab.lab.workspace import Workspace
from podlab.types import Pod


@dataclass(frozen=True)
class Judged:
    """A model, where it was judged, and the verdict. `pod` is "" where GPUs were named instead."""

    model: str
    engine: str
    pod: str
    geometry: Geometry
    result: FitResult


def judge(workspace: Workspace, text: str, *, pod: Pod | None, gpus_text: str | None, wish: Wish) -> Work[Judged]:
    """Whether the model that `text` names fits on a pod's GPUs as they are now, or on GPUs of the kinds named.

    Raises NotFound, BadArgument, GatedRepo and HttpError as finding the model and reading its shape do, and as asking
    the pod does.
    """
    entry = catalog.find(text)
    named = None if gpus_text is None else gpus.parse_gpus(gpus_text)  # a slip is told before anything is asked
    yield Stage("shape", f"Reading the shape of {entry.id}")
    geometry = geometry_of(entry)
    if named is not None:
        return Judged(entry.id, entry.engine, "", geometry, verdict(entry, geometry, named, wish))
    assert pod is not None
    yield Stage("gpus", f"Asking {pod.name} for its GPUs")
    sample = live.sample(workspace, pod)
    rooms = live.rooms_from(sample, workspace.side(pod).list())
    if rooms:
        return Judged(entry.id, entry.engine, pod.name, geometry, verdict(entry, geometry, rooms, wish))
    host = sample.host
    if entry.format == "gguf" and host.memory_total_bytes and host.memory_available_bytes:
        room = HostRoom(host.memory_total_bytes, host.memory_available_bytes)
        return Judged(entry.id, entry.engine, pod.name, geometry, fit_file(geometry, room, wish))
    why = f": {sample.detail}" if sample.detail else ""
    raise BadArgument(
        f"Pod {pod.name} shows no GPU{why}",
        hint='Name GPUs to judge by: --gpus "2x RTX 4090", or another pod: --on POD',
    )


def verdict(entry: ModelEntry, geometry: Geometry, rooms: Sequence[GpuRoom], wish: Wish) -> FitResult:
    """The verdict on these GPUs: the fewest of them on which it fits.

    Where it fits on none: the most of them on which a smaller wish would, or else all.
    """
    if entry.format == "gguf":
        return fit_file(geometry, rooms, wish)
    emptiest = sorted(rooms, key=lambda room: -room.free_bytes)
    counts = [count for count in (1, 2, 4, 8, 16) if count < len(rooms)]
    results = []
    for count in (*counts, len(rooms)):
        chosen = sorted(emptiest[:count], key=lambda room: room.index)
        results.append(fit(geometry, chosen, default_wish(geometry, chosen, wish)))
        if results[-1].fits is not False:
            return results[-1]
    return next((each for each in reversed(results) if _could(each)), results[-1])


def _could(result: FitResult) -> bool:
    """Whether a smaller wish would fit on the very GPUs that were judged."""
    return any(way.gpus == len(result.gpus) for way in result.nearest)


def advice(result: FitResult) -> str:
    """What to do about a start of llama.cpp that was refused, in a sentence."""
    ways = wording.ways(result.nearest, "llamacpp", len(result.gpus), most=3)
    if not ways:
        return "A smaller or more quantised variant may; --force starts it all the same."
    return f"It fits with {ways}. --force starts it all the same."


def wish_of(
    *, context: str | None, concurrency: int, memory: str | None, cache: str | None, expert_parallel: bool
) -> Wish:
    """What `model fit` was asked, from its options. Raises BadArgument naming the option, the value and the fix."""
    from podlab.units import parse_share, parse_tokens

    if concurrency < 1:
        raise BadArgument(f"--concurrency {concurrency} is no number of requests.", hint="Give a number from 1.")
    wish = Wish(
        context=None if context is None else parse_tokens(context),
        concurrency=concurrency,
        cache_dtype="fp8" if cache == "fp8" else "auto",
        expert_parallel=expert_parallel,
    )
    return wish if memory is None else replace(wish, memory_ratio=parse_share(memory))
