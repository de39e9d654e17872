"""How many GPUs are free where: the company's stock, and the answer to "what could I have"."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from podlab.sandbox.catalogue import DATA_CENTERS, GPU_KINDS, DataCenter, GpuKind, Level, level, version
from podlab.sandbox.records import Problem, Wanted

NO_CAPACITY = (
    "There are no longer any instances available with the requested specifications. Please refresh and try again."
)
NO_GPU_AT_HOST = "There are not enough free GPUs on the host machine to start this pod."
LEVELS: tuple[Level, ...] = ("NONE", "LOW", "MEDIUM", "HIGH")
COMMUNITY = None
"""The place of community machines: they are in no data centre."""


@dataclass(frozen=True)
class StockQuery:
    """What availability is asked for. Empty: not narrowed."""

    count: int = 1
    cloud: str = "SECURE"
    countries: tuple[str, ...] = ()
    cuda_versions: tuple[str, ...] = ()
    min_cuda: str | None = None


@dataclass(frozen=True)
class Availability:
    """What there is of a GPU type now."""

    level: Level
    places: tuple[tuple[DataCenter, Level], ...]
    cuda: tuple[tuple[str, bool], ...]


class Stock:
    """Free GPUs by type and place. Not safe from several threads: the company's lock is held."""

    def __init__(self, kinds: tuple[GpuKind, ...] = GPU_KINDS, centers: tuple[DataCenter, ...] = DATA_CENTERS) -> None:
        self.kinds = {kind.id: kind for kind in kinds}
        self.centers = {center.id: center for center in centers}
        self.free: dict[tuple[str, str | None], int] = {}
        for kind in kinds:
            self.free.update({(kind.id, place): free for place, free in kind.free})
            if kind.community_free:
                self.free[kind.id, COMMUNITY] = kind.community_free
        self._sold: dict[tuple[str, str | None], int] = {}

    def places(self, kind: GpuKind, cloud: str) -> Iterator[tuple[str | None, int]]:
        """Where machines of a type stand, and how many GPUs are free there."""
        for (gpu_id, place), free in self.free.items():
            if gpu_id == kind.id and (place is COMMUNITY) == (cloud == "COMMUNITY"):
                yield place, free

    def look(self, kind: GpuKind, query: StockQuery) -> Availability:
        """What there is of a type."""
        fits = self._cuda_fits(kind, query.cuda_versions, query.min_cuda)
        found = [
            (place, level(free, query.count))
            for place, free in self.places(kind, query.cloud)
            if fits and query.count <= kind.max_count and self._in(place, query.countries)
        ]
        best: Level = max((lvl for _, lvl in found), key=LEVELS.index, default="NONE")
        named = tuple((self.centers[place], lvl) for place, lvl in found if place is not None)
        narrowed = [one for one in kind.cuda if self._cuda_fits_one(one, query.cuda_versions, query.min_cuda)]
        return Availability(best, named, tuple((one, best != "NONE") for one in narrowed))

    def take(self, wanted: Wanted, *, place: str | None = None, at_host: bool = False) -> tuple[str | None, str | None]:
        """Take GPUs for a pod; where they are and the machine's CUDA version. With `at_host` only from `place`, whose
        machine keeps the pod's disk. Raises Problem: none, or a type nobody knows."""
        kind = self.kinds.get(wanted.gpu_id)
        if kind is None:
            raise Problem(400, f'gpu type "{wanted.gpu_id}" not found')
        if unknown := [one for one in wanted.data_centers if one not in self.centers]:
            raise Problem(400, f'data center "{unknown[0]}" not found')
        if at_host:
            if self.free.get((kind.id, place), 0) < wanted.gpu_count:
                raise Problem(400, NO_GPU_AT_HOST)
            self.free[kind.id, place] -= wanted.gpu_count
            return place, None
        if not self._cuda_fits(kind, wanted.allowed_cuda, wanted.min_cuda):
            raise Problem(400, NO_CAPACITY)
        order = {place: nth for nth, place in enumerate(wanted.data_centers)}
        candidates = [
            (order.get(where or "", 0), -free, where)
            for where, free in self.places(kind, wanted.cloud)
            if free >= wanted.gpu_count and (not order or where in order) and wanted.gpu_count <= kind.max_count
        ]
        if not candidates:
            raise Problem(400, NO_CAPACITY)
        where = min(candidates, key=lambda each: each[:2])[2]
        self.free[kind.id, where] -= wanted.gpu_count
        fitting = [one for one in kind.cuda if self._cuda_fits_one(one, wanted.allowed_cuda, wanted.min_cuda)]
        return where, max(fitting, key=version, default=None)

    def give_back(self, gpu_id: str, count: int, place: str | None) -> None:
        """A pod no longer holds its GPUs."""
        self.free[gpu_id, place] = self.free.get((gpu_id, place), 0) + count

    def sell_out(self) -> None:
        """Somebody else takes all that is free."""
        for place, free in self.free.items():
            self._sold[place] = self._sold.get(place, 0) + free
            self.free[place] = 0

    def restock(self) -> None:
        """What somebody else took is free again."""
        for place, free in self._sold.items():
            self.free[place] += free
        self._sold.clear()

    def _in(self, place: str | None, countries: tuple[str, ...]) -> bool:
        return not countries or (place is not None and self.centers[place].country in countries)

    def _cuda_fits(self, kind: GpuKind, allowed: tuple[str, ...], floor: str | None) -> bool:
        if not allowed and floor is None:
            return True
        return any(self._cuda_fits_one(one, allowed, floor) for one in kind.cuda)

    @staticmethod
    def _cuda_fits_one(one: str, allowed: tuple[str, ...], floor: str | None) -> bool:
        return (not allowed or one in allowed) and (floor is None or version(one) >= version(floor))
