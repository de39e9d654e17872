"""Who holds the memory of a pod's GPUs: strangers in a list, and an endpoint that is being stopped.

Only a pod that is known to have GPUs is asked, and nobody waits long for it: a driver may take as long as it likes.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

from podlab.lab import gpus
from podlab.types import ForeignProcess, FreedMemory, GpuProcess, GpuSample, Pod, PodSample
from podlab.units import memory_text

if TYPE_CHECKING:
    from podlab.lab.facts import Facts
    from podlab.lab.workspace import Workspace

LIST_WAIT_S = 3.0
"""How much longer a list may take because a driver is slow."""
STOP_WAIT_S = 5.0
BACK_S = 10.0
"""How long memory may take to come back after the last process has ended."""
STEADY_S = 3.0
"""The same where only the cards tell: what was never taken does not come back."""
LOOK_S = 0.2


class Looks:
    """Readings of the cards of several pods, taken at the same time, each pod's once."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._looks: dict[str, tuple[Pod, Future[PodSample]]] = {}
        self._lock = threading.Lock()

    def begin(self, pod: Pod) -> None:
        """Look at a pod's cards in a thread of its own, unless that was begun already."""
        with self._lock:
            if pod.id in self._looks:
                return
            future: Future[PodSample] = Future()
            self._looks[pod.id] = (pod, future)
        threading.Thread(target=self._look, args=(pod, future), daemon=True).start()

    def taken(self, wait_s: float) -> list[tuple[Pod, PodSample]]:
        """What was read within `wait_s` from now. A pod that did not tell is left out."""
        with self._lock:
            looks = list(self._looks.values())
        wait([future for _, future in looks], wait_s)
        return [(pod, future.result()) for pod, future in looks if future.done() and future.exception() is None]

    def _look(self, pod: Pod, future: Future[PodSample]) -> None:
        try:
            future.set_result(gpus.cards(self._workspace, pod))
        except BaseException as error:  # noqa: BLE001  # it is the answer
            future.set_exception(error)


def foreign(looks: Looks, sharing: Collection[str]) -> tuple[ForeignProcess, ...]:
    """The processes that are not podlab's, once for each card, from looks that were begun.

    `sharing` are names of pods where endpoints of ours run: what a container's driver counts under a number that the
    container does not know may be one of them there, and is left out.
    """
    found: dict[tuple[str, int], ForeignProcess] = {}
    for pod, sample in looks.taken(LIST_WAIT_S):
        for gpu in sample.gpus:
            for process in gpu.processes or ():
                if not process.owner and (process.name or pod.name not in sharing):
                    where = gpu.uuid or f"{pod.id} {_card(gpu)}"  # two pods may be one machine
                    told = ForeignProcess(pod.name, _card(gpu), process.pid, process.memory_bytes, process.name)
                    found.setdefault((where, process.pid), told)
    return tuple(found.values())


@dataclass(frozen=True)
class Holding:
    """GPU memory of an endpoint before it is stopped: by (card, pid), or what its cards have in use."""

    processes: dict[tuple[int, int], int]
    cards: dict[int, int]

    @property
    def held_bytes(self) -> int:
        """All of it."""
        return sum(self.processes.values() or self.cards.values())


def holding(workspace: Workspace, pod: Pod, facts: Facts) -> Holding | None:
    """What an endpoint holds now; None where there are no GPUs, nobody tells, or it holds nothing."""
    runs = not facts.ended or facts.strays
    if not runs or not (facts.gpus or workspace.store.gpus_of(pod.id)):
        return None
    sample = _look(workspace, pod)
    if sample is None:
        return None
    processes = {
        (gpu, process.pid): process.memory_bytes
        for gpu, process in _processes(sample)
        if process.owner == facts.id and process.memory_bytes
    }
    cards = {} if _tells_processes(sample, facts.gpus) else _in_use(sample, facts.gpus)
    return Holding(processes, cards) if processes or cards else None


def freed(workspace: Workspace, pod: Pod, held: Holding) -> FreedMemory | None:
    """What has come back since, once all has or it took too long; None when the pod's driver does not tell any more."""
    told = None
    deadline = time.monotonic() + (BACK_S if held.processes else STEADY_S)
    while (sample := _look(workspace, pod)) is not None:
        before, told = told, _by_processes(sample, held) if held.processes else _by_cards(sample, held)
        over = not told.left if held.processes else told.freed_bytes > 0 and told == before
        if over or time.monotonic() > deadline:
            break
        time.sleep(LOOK_S)
    return told


def _by_processes(sample: PodSample, held: Holding) -> FreedMemory:
    there = {(gpu, process.pid): process for gpu, process in _processes(sample)}
    left = [process for key, process in there.items() if key in held.processes]
    kept = sum(process.memory_bytes or 0 for process in left)
    cards = tuple(sorted({gpu for gpu, _ in held.processes}))
    freed_bytes = max(0, held.held_bytes - kept)
    said = f"{memory_text(freed_bytes)} came back on GPU {_list(cards)}"
    if left:
        pids = dict.fromkeys(f"pid {process.pid} {process.name}".strip() for process in left)
        said += f"; {memory_text(kept)} are still held by {', '.join(pids)}"
    return FreedMemory(cards, held.held_bytes, freed_bytes, tuple(left), text=said)


def _by_cards(sample: PodSample, held: Holding) -> FreedMemory:
    now = Counter(_in_use(sample, held.cards))
    freed_bytes = sum(max(0, before - now[gpu]) for gpu, before in held.cards.items() if gpu in now)
    cards = tuple(sorted(held.cards))
    said = f"{memory_text(freed_bytes)} came back of {memory_text(held.held_bytes)} in use on GPU {_list(cards)}"
    return FreedMemory(cards, held.held_bytes, freed_bytes, measured="cards", text=said)


def _look(workspace: Workspace, pod: Pod) -> PodSample | None:
    looks = Looks(workspace)
    looks.begin(pod)
    return next((sample for _, sample in looks.taken(STOP_WAIT_S)), None)


def _processes(sample: PodSample) -> Iterator[tuple[int, GpuProcess]]:
    """(card, process) of all; of a MIG instance the card it is cut from."""
    for gpu in sample.gpus:
        for process in gpu.processes or ():
            yield _card(gpu), process


def _tells_processes(sample: PodSample, wanted: Collection[int]) -> bool:
    """Whether a driver names all processes on these cards. In a container it may name none, or by strange numbers."""
    listed = [gpu.processes for gpu in sample.gpus if _card(gpu) in wanted]
    return all(processes and all(process.name for process in processes) for processes in listed)


def _in_use(sample: PodSample, wanted: Collection[int]) -> dict[int, int]:
    return {
        gpu.index: gpu.memory_used_bytes
        for gpu in sample.gpus
        if not gpu.mig and gpu.index in wanted and gpu.memory_used_bytes is not None
    }


def _list(cards: tuple[int, ...]) -> str:
    return ", ".join(map(str, cards))


def _card(gpu: GpuSample) -> int:
    return gpu.index if gpu.parent is None else gpu.parent
