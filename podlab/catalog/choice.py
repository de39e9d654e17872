"""Which GPUs of a pod a model could be put on: candidates, the smallest and freest first. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from podlab.catalog.geometry import GpuRoom
from podlab.catalog.gpus import type_of
from podlab.catalog.recipes import Recipe
from podlab.errors import BadArgument
from podlab.units import memory_text

SAME = 32
"""GPUs whose free memory differs by less than this part of it count as equally free: a desktop, a driver's own use."""

Cut = Callable[[int], tuple[int, int]]
"""How many GPUs -> (tensor parallel, data parallel)."""


@dataclass(frozen=True)
class Candidate:
    """GPUs that a model could be put on, and how it would be cut; with the recipe that says so, if one does."""

    rooms: tuple[GpuRoom, ...]
    tensor_parallel: int = 1
    data_parallel: int = 1
    recipe: Recipe | None = None

    @property
    def title(self) -> str:
        """'2x NVIDIA H200'."""
        return ", ".join(f"{count}x {name}" for name, count in counted(self.rooms).items())


def candidates(
    recipes: Sequence[Recipe], rooms: Sequence[GpuRoom], gpus: int | tuple[int, ...] | None, cut: Cut
) -> tuple[Candidate, ...]:
    """Every way worth judging: by recipe, then without one; each the fewest, freest and smallest GPUs first.

    `gpus` is how many or which were asked for. Raises BadArgument where the pod has not got them.
    """
    groups = _groups(rooms)
    if isinstance(gpus, tuple):
        groups = [_named(rooms, gpus)]
    elif gpus is not None and gpus > max(map(len, groups)):
        if gpus > len(rooms):
            raise BadArgument(f"{gpus} GPUs are asked for, and this pod has {len(rooms)}.", hint="See: podlab pod gpu")
        there = ", ".join(f"{count}x {name}" for name, count in counted(rooms).items())
        raise BadArgument(
            f"{gpus} GPUs of one kind are asked for, and this pod has {there}.",
            hint="Name them if they are to work together all the same, such as --gpus 0,1.",
        )
    by_recipe = [
        Candidate(group[: recipe.gpus], recipe.tensor_parallel, recipe.data_parallel, recipe)
        for recipe in recipes for group in groups
        if len(group) >= recipe.gpus and all(suits(recipe, room) for room in group)
    ]  # fmt: skip
    without = [
        Candidate(group[:count], *cut(count)) for group in groups for count in _counts(len(group), gpus)
    ]  # fmt: skip
    return (*sorted(by_recipe, key=_rank), *sorted(without, key=_rank))


def suits(recipe: Recipe, room: GpuRoom) -> bool:
    """Whether a recipe is for that kind of GPU."""
    kind = type_of(room.name)
    return not recipe.types or (kind is not None and kind.is_one_of(recipe.types))


def holds(recipe: Recipe, rooms: Sequence[GpuRoom]) -> bool:
    """Whether the pod has as many GPUs of one kind as a recipe wants."""
    return any(len(group) >= recipe.gpus and suits(recipe, group[0]) for group in _groups(rooms))


def counted(rooms: Sequence[GpuRoom]) -> Counter[str]:
    """How many there are of each name."""
    return Counter(room.name for room in rooms)


def reason(room: GpuRoom) -> str:
    """Why a GPU could be chosen: what is free on it, and what is there already."""
    others = {0: "no endpoint of ours", 1: "one endpoint of ours"}.get(
        room.endpoints, f"{room.endpoints} endpoints of ours"
    )
    free = f"{memory_text(room.free_bytes)} of {memory_text(room.total_bytes)} free"
    return f"GPU {room.index} ({room.name}): {free}, {others}."


def mixed(rooms: Sequence[GpuRoom]) -> tuple[str, ...]:
    """A warning where GPUs of several kinds are to work together."""
    if len(counted(rooms)) < 2:
        return ()
    return ("These GPUs are of several kinds: the slowest sets the pace, the smallest the memory.",)


def freest_first(rooms: Sequence[GpuRoom]) -> tuple[GpuRoom, ...]:
    """By live free memory, then by how many endpoints are there, then by index."""
    return tuple(sorted(rooms, key=lambda room: (-_freedom(room), room.endpoints, room.index)))


def _freedom(room: GpuRoom) -> int:
    return room.free_bytes * SAME // max(1, room.total_bytes)


def _groups(rooms: Sequence[GpuRoom]) -> list[tuple[GpuRoom, ...]]:
    """GPUs of one kind, the freest first."""
    return [freest_first([room for room in rooms if room.name == name]) for name in sorted(counted(rooms))]


def _named(rooms: Sequence[GpuRoom], gpus: tuple[int, ...]) -> tuple[GpuRoom, ...]:
    there = {room.index: room for room in rooms}
    for index in gpus:
        if index not in there:
            raise BadArgument(
                f"This pod has no usable GPU {index}.", hint=f"It has {', '.join(map(str, sorted(there)))}."
            )
    return tuple(there[index] for index in gpus)


def _counts(there: int, gpus: int | tuple[int, ...] | None) -> Iterator[int]:
    """How many of a group are worth trying: as asked, else powers of two."""
    if isinstance(gpus, tuple):
        yield there
    elif gpus is not None:
        yield from [gpus] if gpus <= there else []
    else:
        yield from (2**power for power in range(there.bit_length()) if 2**power <= there)


def _rank(candidate: Candidate) -> tuple[int, bool, int, int]:
    """The fewest GPUs, those nobody uses, the smallest; the same ones in the order of their index."""
    rooms = candidate.rooms
    used = any(room.endpoints or _freedom(room) < SAME - 2 for room in rooms)
    return len(rooms), used, sum(room.total_bytes for room in rooms), min(room.index for room in rooms)
