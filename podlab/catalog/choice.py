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

Cut = Callable[[int], tuple[int, int, int]]
"""How many GPUs -> (tensor parallel, data parallel, pipeline parallel)."""


@dataclass(frozen=True)
class Candidate:
    """GPUs that a model could be put on, and how it would be cut; with the recipe that says so, if one does."""

    rooms: tuple[GpuRoom, ...]
    tensor_parallel: int = 1
    data_parallel: int = 1
    pipeline_parallel: int = 1
    recipe: Recipe | None = None

    @property
    def shared(self) -> tuple[int, ...]:
        """Those of the GPUs to which an endpoint of ours is pinned already. One that still loads has taken little of
        the memory it will take, so what is free there promises nothing."""
        return tuple(sorted(room.index for room in self.rooms if room.endpoints))

    @property
    def title(self) -> str:
        """'2x NVIDIA H200'."""
        return ", ".join(f"{count}x {name}" for name, count in counted(self.rooms).items())


def candidates(
    recipes: Sequence[Recipe], rooms: Sequence[GpuRoom], gpus: int | tuple[int, ...] | None, cut: Cut, *, step: int = 1
) -> tuple[Candidate, ...]:
    """Every way worth judging: first those on GPUs without an endpoint of ours, and of either by recipe, then without
    one; each the fewest, freest and smallest GPUs first.

    `gpus` is how many or which were asked for, `step` what their number has to be a multiple of. Raises BadArgument
    where the pod has not got them.
    """
    groups = [_named(rooms, gpus)] if isinstance(gpus, tuple) else _groups(rooms)
    if not isinstance(gpus, tuple):
        _check_there(rooms, step if gpus is None else gpus)
    by_recipe = [
        Candidate(group[: recipe.gpus], recipe.tensor_parallel, recipe.data_parallel, recipe=recipe)
        for recipe in recipes for group in groups
        if len(group) >= recipe.gpus and all(suits(recipe, room) for room in group)
    ]  # fmt: skip
    without = [
        Candidate(group[:count], *cut(count)) for group in groups for count in _counts(len(group), gpus, step)
    ]  # fmt: skip
    found = dict.fromkeys((*sorted(by_recipe, key=_rank), *sorted(without, key=_rank)))
    return tuple(sorted(found, key=lambda candidate: bool(candidate.shared)))


def _check_there(rooms: Sequence[GpuRoom], count: int) -> None:
    """Raise BadArgument where the pod has not got so many GPUs of one kind."""
    if count <= max(counted(rooms).values()):
        return
    if count > len(rooms):
        raise BadArgument(f"{count} GPUs are asked for, and this pod has {len(rooms)}.", hint="See: podlab pod gpu")
    there = ", ".join(f"{each}x {name}" for name, each in counted(rooms).items())
    raise BadArgument(
        f"{count} GPUs of one kind are asked for, and this pod has {there}.",
        hint="Name them if they are to work together all the same, such as --gpus 0,1.",
    )


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


def shared(candidate: Candidate, named: int | tuple[int, ...] | None) -> Iterator[str]:
    """A word about GPUs that an endpoint of ours is pinned to already, and why they are taken all the same."""
    why = "they were asked for" if isinstance(named, tuple) else "no others that suffice are without one"
    for index in candidate.shared:
        yield f"GPU {index} is shared with an endpoint of ours, which may still be loading: {why}."


def freest_first(rooms: Sequence[GpuRoom]) -> tuple[GpuRoom, ...]:
    """By live free memory, then by how many endpoints are there, then by index."""
    return tuple(sorted(rooms, key=lambda room: (-_freedom(room), room.endpoints, room.index)))


def unshared_first(rooms: Sequence[GpuRoom]) -> tuple[GpuRoom, ...]:
    """Those without an endpoint of ours before the others, each the freest first."""
    return tuple(sorted(freest_first(rooms), key=lambda room: bool(room.endpoints)))


def _freedom(room: GpuRoom) -> int:
    return room.free_bytes * SAME // max(1, room.total_bytes)


def _groups(rooms: Sequence[GpuRoom]) -> list[tuple[GpuRoom, ...]]:
    """GPUs of one kind, in each order from whose beginning they could be taken."""
    return [
        order([room for room in rooms if room.name == name])
        for name in sorted(counted(rooms)) for order in (unshared_first, freest_first)
    ]  # fmt: skip


def _named(rooms: Sequence[GpuRoom], gpus: tuple[int, ...]) -> tuple[GpuRoom, ...]:
    there = {room.index: room for room in rooms}
    for index in gpus:
        if index not in there:
            raise BadArgument(
                f"This pod has no usable GPU {index}.", hint=f"It has {', '.join(map(str, sorted(there)))}."
            )
    return tuple(there[index] for index in gpus)


def _counts(there: int, gpus: int | tuple[int, ...] | None, step: int) -> Iterator[int]:
    """How many of a group are worth trying: as asked, else `step` times powers of two."""
    if isinstance(gpus, tuple):
        yield there
    elif gpus is not None:
        yield from [gpus] if gpus <= there else []
    else:
        yield from (step * 2**power for power in range(there.bit_length()) if step * 2**power <= there)


def _rank(candidate: Candidate) -> tuple[int, int, bool, int, int]:
    """The fewest GPUs, those nobody uses, the smallest; the same ones in the order of their index."""
    rooms = candidate.rooms
    used = any(_freedom(room) < SAME - 2 for room in rooms)
    total, first = sum(room.total_bytes for room in rooms), min(room.index for room in rooms)
    return len(rooms), len(candidate.shared), used, total, first
