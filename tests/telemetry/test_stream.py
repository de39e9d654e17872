"""A stream over links that break: it goes on, it gives up after its patience, and it can be closed at any time."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from podlab.errors import LinkLost, PodlabError, SupervisorError, Unreachable
from podlab.telemetry.stream import Stream


class Scripted:
    """A probe that gives `lines`, then raises `end`, waits to be closed (None), or ends by itself ("")."""

    def __init__(self, lines: list[float], end: PodlabError | str | None = None) -> None:
        self._lines, self._end = lines, end
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[object]:
        for at in self._lines:
            yield {"v": 1, "at": at, "source": "none"}
        if isinstance(self._end, PodlabError):
            raise self._end
        if self._end is None:
            self.closed.wait(20)

    def close(self) -> None:
        self.closed.set()

    def broken_off(self) -> PodlabError:
        return SupervisorError("it ended early")


LOST = LinkLost("the link broke", pod="lab")


def test_it_goes_on_after_a_loss_and_tells_of_it() -> None:
    probes = iter([Scripted([1, 2], LOST), Scripted([], LOST), Scripted([3])])
    begun: list[Scripted] = []
    lost: list[PodlabError] = []

    def begin() -> Scripted:
        begun.append(next(probes))
        return begun[-1]

    stream = Stream(begin, "lab", on_lost=lost.append)
    seen = []
    for sample in stream:
        seen.append(sample.at)
        if sample.at == 3:
            stream.close()
    assert seen == [1, 2, 3]
    assert lost == [LOST, LOST]
    assert all(probe.closed.is_set() for probe in begun)


def test_it_gives_up_after_its_patience() -> None:
    def begin() -> Scripted:
        raise Unreachable("nobody is there", pod="lab")

    clock = iter(range(0, 1000, 50))
    with pytest.raises(Unreachable):
        next(iter(Stream(begin, "lab", patience_s=100, clock=lambda: float(next(clock)))))
    assert next(clock) == 150


@pytest.mark.parametrize("end", [SupervisorError("garbage"), ""])
def test_what_no_waiting_mends_is_raised_at_once(end: PodlabError | str) -> None:
    samples = iter(Stream(lambda: Scripted([1], end), "lab"))
    assert next(samples).at == 1
    with pytest.raises(SupervisorError):
        next(samples)


def test_closing_from_another_thread_ends_a_wait() -> None:
    probe = Scripted([1])
    stream = Stream(lambda: probe, "lab")
    samples = iter(stream)
    next(samples)
    threading.Timer(0.05, stream.close).start()
    assert list(samples) == []
    assert probe.closed.is_set()
    stream.close()
    assert list(stream) == []


def test_leaving_the_loop_closes_the_probe() -> None:
    probe = Scripted([1, 2])
    samples = iter(Stream(lambda: probe, "lab"))
    next(samples)
    samples.close()  # type: ignore[attr-defined]
    assert probe.closed.is_set()
