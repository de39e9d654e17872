"""The ring: the newest samples in order, gaps where there is nothing, and never more memory than at the start."""

from __future__ import annotations

import math
import tracemalloc

import pytest

from podlab.telemetry.history import GPU_FIGURES, GpuKey, History
from podlab.types import GpuSample, HostSample, PodSample


def sample(at: float, *gpus: GpuSample, cpu: float | None = None) -> PodSample:
    return PodSample("lab", at, "nvml", gpus, HostSample(cpu_percent=cpu))


def test_the_newest_samples_stay_in_order() -> None:
    history = History(3)
    assert (len(history), list(history.times()), history.latest) == (0, [], None)
    for at in range(5):
        history.add(sample(at, GpuSample(0, utilization_percent=at * 10), cpu=float(at)))
    assert len(history) == 3
    assert list(history.times()) == [2, 3, 4]
    assert list(history.gpu(GpuKey(0), "utilization_percent")) == [20, 30, 40]
    assert list(history.host("cpu_percent")) == [2, 3, 4]
    assert history.latest is not None
    assert history.latest.at == 4


def test_what_is_missing_is_a_gap() -> None:
    history = History(4)
    history.add(sample(1, GpuSample(0, power_w=70)))
    history.add(sample(2))
    history.add(sample(3, GpuSample(0), GpuSample(1, power_w=5)))
    first, second = history.gpu(GpuKey(0), "power_w"), history.gpu(GpuKey(1), "power_w")
    assert first[0] == 70
    assert all(math.isnan(value) for value in (first[1], first[2], second[0], second[1]))
    assert second[2] == 5
    assert len(first) == len(second) == len(history.times())
    assert all(math.isnan(value) for value in history.gpu(GpuKey(9), "power_w"))


def test_gpus_are_ordered_and_forgotten_when_no_sample_has_them() -> None:
    history = History(2)
    history.add(sample(1, GpuSample(1), GpuSample(0, mig=True, parent=1), GpuSample(0)))
    assert history.gpus() == (GpuKey(0), GpuKey(1), GpuKey(0, 1))
    history.add(sample(2, GpuSample(0)))
    assert history.gpus() == (GpuKey(0), GpuKey(1), GpuKey(0, 1))
    history.add(sample(3, GpuSample(0)))
    assert history.gpus() == (GpuKey(0),)


def test_memory_does_not_grow() -> None:
    history = History(100)

    def fill() -> None:
        for at in range(1000):
            history.add(sample(at, *(GpuSample(at % 7 * 8 + index) for index in range(8))))

    fill()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        fill()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 56 * len(GPU_FIGURES) * 100 * 8  # one set of rings: what is replaced is given back


def test_a_history_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        History(0)
