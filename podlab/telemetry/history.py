"""What was sampled lately, in a fixed amount of memory: one time axis, one ring of numbers for each GPU and figure."""

from __future__ import annotations

import threading
from array import array
from dataclasses import dataclass
from math import nan

from podlab.types import GpuSample, HostSample, PodSample

GPU_FIGURES = (
    "utilization_percent", "memory_used_bytes", "memory_utilization_percent", "temperature_celsius", "power_w",
    "sm_clock_mhz", "fan_percent",
)  # fmt: skip
"""Fields of GpuSample that are kept."""
HOST_FIGURES = (
    "cpu_percent", "load_1m", "memory_available_bytes", "disk_free_bytes", "received_bytes_per_s", "sent_bytes_per_s",
)  # fmt: skip
"""Fields of HostSample that are kept."""


@dataclass(frozen=True)
class GpuKey:
    """Which GPU of a pod: a card by its index, a MIG instance by its card and its place there."""

    index: int
    parent: int | None = None

    @classmethod
    def of(cls, sample: GpuSample) -> GpuKey:
        """Of the GPU a sample is of."""
        return cls(sample.index, sample.parent)


class History:
    """The last `capacity` samples of one pod. Safe with threads: one adds, others read copies.

    A figure that a sample lacks is NaN, which charts draw as a gap. A GPU that is in none of the samples kept is
    forgotten.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError("a history holds at least one sample")
        self.capacity = capacity
        self._times = self._ring()
        self._host = {name: self._ring() for name in HOST_FIGURES}
        self._gpus: dict[GpuKey, dict[str, array[float]]] = {}
        self._seen: dict[GpuKey, int] = {}
        self._added = 0
        self._latest: PodSample | None = None
        self._lock = threading.Lock()

    def add(self, sample: PodSample) -> None:
        """Keep a sample; the oldest gives way."""
        with self._lock:
            place = self._added % self.capacity
            self._times[place] = sample.at
            for name, ring in self._host.items():
                ring[place] = _number(sample.host, name)
            for rings in self._gpus.values():
                for ring in rings.values():
                    ring[place] = nan
            for gpu in sample.gpus:
                key = GpuKey.of(gpu)
                rings = self._gpus.setdefault(key, {})
                for name in GPU_FIGURES:
                    rings.setdefault(name, self._ring())[place] = _number(gpu, name)
                self._seen[key] = self._added
            self._added += 1
            self._latest = sample
            for key in [key for key, seen in self._seen.items() if seen < self._added - self.capacity]:
                del self._seen[key], self._gpus[key]

    def __len__(self) -> int:
        return min(self._added, self.capacity)

    @property
    def latest(self) -> PodSample | None:
        """The sample that was added last."""
        return self._latest

    def gpus(self) -> tuple[GpuKey, ...]:
        """Every GPU that some kept sample is of: cards by index, each followed by its instances."""
        with self._lock:
            return tuple(sorted(self._gpus, key=_place))

    def times(self) -> array[float]:
        """When the kept samples were taken, oldest first: seconds since the epoch on the pod's clock."""
        with self._lock:
            return self._in_order(self._times)

    def gpu(self, key: GpuKey, figure: str) -> array[float]:
        """One of GPU_FIGURES, as long as `times`; all NaN for a GPU that is not kept."""
        with self._lock:
            return self._in_order(self._gpus.get(key, {}).get(figure) or self._ring())

    def host(self, figure: str) -> array[float]:
        """One of HOST_FIGURES, as long as `times`."""
        with self._lock:
            return self._in_order(self._host[figure])

    def _ring(self) -> array[float]:
        return array("d", [nan]) * self.capacity

    def _in_order(self, ring: array[float]) -> array[float]:
        if self._added <= self.capacity:
            return ring[: self._added]
        first = self._added % self.capacity
        return ring[first:] + ring[:first]


def _place(key: GpuKey) -> tuple[int, int]:
    return (key.index, -1) if key.parent is None else (key.parent, key.index)


def _number(sample: GpuSample | HostSample, name: str) -> float:
    value = getattr(sample, name)
    return nan if value is None else float(value)
