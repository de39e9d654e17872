"""A pod's GPUs, asked now: one sample, a stream of them, and the room that is left on each card."""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

from podlab import settings
from podlab.catalog.geometry import GpuRoom
from podlab.errors import BadArgument, EngineUnavailable, PodlabError
from podlab.lab.supervisor import SILENCE_S, PodSide
from podlab.lab.talk import PROTOCOL, Talk, begin, program
from podlab.telemetry.lines import sample_from
from podlab.telemetry.stream import Stream
from podlab.types import GpuProcess, Pod, PodSample

if TYPE_CHECKING:
    from podlab.lab.facts import Facts
    from podlab.lab.workspace import Workspace

SHORTEST_S, LONGEST_S = 0.25, 60.0
"""Between two samples. Drivers average over longer than a quarter of a second, so more would be the same figures."""
EVERY_S = 1.0


def sample(workspace: Workspace, pod: Pod) -> PodSample:
    """One reading of a pod, now. Raises as its transport does, and SupervisorError or EngineUnavailable."""
    return _once(workspace, pod)


def cards(workspace: Workspace, pod: Pod) -> PodSample:
    """One reading of a pod's cards without the machine, which is quicker. Raises as `sample` does."""
    return _once(workspace, pod, cards_only=True)


def _once(workspace: Workspace, pod: Pod, *, cards_only: bool = False) -> PodSample:
    with _probe(workspace, pod, 0.0, cards_only=cards_only) as probe:
        for line in probe:
            found = sample_from(line, pod.name)
            workspace.store.saw_gpus(pod.id, len(found.gpus))
            return dataclasses.replace(found, simulated=pod.provider == "sandbox")
    raise probe.broken_off()


def stream(
    workspace: Workspace, pod: Pod, interval_s: float = EVERY_S, *,
    on_lost: Callable[[PodlabError], None] | None = None,
) -> Stream:  # fmt: skip
    """Readings every `interval_s`, each as soon as it is taken; nothing is started before the first is asked for.

    Another rate is another stream. `on_lost` hears of each loss of the link. Raises BadArgument for a rate no probe
    keeps.
    """
    if not SHORTEST_S <= interval_s <= LONGEST_S:
        raise BadArgument(
            f"{interval_s:g} s is no interval for samples of a pod.",
            hint=f"Choose between {SHORTEST_S:g} s and {LONGEST_S:g} s.",
        )
    return Stream(lambda: _probe(workspace, pod, interval_s), pod.name, on_lost=on_lost)


def rooms_from(found: PodSample, endpoints: Sequence[Facts]) -> tuple[GpuRoom, ...]:
    """The cards of a pod that an endpoint can be put on, with the memory that was free at the sample.

    `endpoints` are all that the pod has on record; the living ones count.

    Left out: a card that is lost, silent or does not tell its memory, for nothing can be promised of it; and a card
    that is cut into MIG instances, which are chosen by their UUID and not by a number.
    """
    pinned = Counter(gpu for facts in endpoints if not facts.ended for gpu in set(facts.gpus))
    cut = {gpu.parent for gpu in found.gpus if gpu.mig}
    return tuple(
        GpuRoom(gpu.index, gpu.name, gpu.memory_total_bytes, gpu.memory_free_bytes, pinned[gpu.index])
        for gpu in found.gpus
        if not gpu.mig and not gpu.lost and gpu.index not in cut
        and gpu.memory_total_bytes is not None and gpu.memory_free_bytes is not None
    )  # fmt: skip


def with_owners(workspace: Workspace, pod: Pod, found: PodSample) -> PodSample:
    """A sample whose processes carry the names of the endpoints and jobs they belong to, instead of ids.

    The pod is asked for the names, if any process is ours at all.
    """
    if not any(process.owner for gpu in found.gpus for process in gpu.processes or ()):
        return found
    side = workspace.side(pod)
    names = {facts.id: facts.name for facts in (*side.list(), *side.jobs())}

    def named(process: GpuProcess) -> GpuProcess:
        return dataclasses.replace(process, owner=names.get(process.owner) or process.owner)

    gpus = tuple(
        gpu if gpu.processes is None else dataclasses.replace(gpu, processes=tuple(map(named, gpu.processes)))
        for gpu in found.gpus
    )
    return dataclasses.replace(found, gpus=gpus)


def has_silent(found: PodSample) -> bool:
    """Whether a card is lost, or its driver does not give the figures it should."""
    return any(gpu.lost or gpu.error for gpu in found.gpus)


def start(side: PodSide, interval_s: float, home: str | None = None, *, cards_only: bool = False) -> Talk:
    """Start a probe; 0 is for one line. `home` is the folder whose disk counts, None the user's home on the pod.

    Its input stays open: when this process or the link goes away, the pod sees it end, and so does the probe.
    """
    packed = _pynvml()
    request = {
        "v": PROTOCOL, "interval_s": interval_s, "home": home, "pynvml_bytes": len(packed), "cards_only": cards_only,
    }  # fmt: skip
    given = json.dumps(request).encode() + b"\n" + packed
    source = program("probe", "machine", "host", "nvml", "nvidia_smi")
    process = begin(side.transport, source, given, side.python, stay_linked=True)
    return Talk(process, side.transport.pod, interval_s + SILENCE_S)


def _probe(workspace: Workspace, pod: Pod, interval_s: float, *, cards_only: bool = False) -> Talk:
    home = str(settings.home()) if pod.provider == "local" else None
    return start(workspace.side(pod), interval_s, home, cards_only=cards_only)


@cache
def _pynvml() -> bytes:
    """The text of pynvml.py, packed for the way. It is read and never imported here: loading it takes long."""
    spec = util.find_spec("pynvml")
    if spec is None or not spec.origin:
        raise EngineUnavailable(
            "The package nvidia-ml-py is missing here.", hint="Install it: pip install nvidia-ml-py"
        )
    try:
        return zlib.compress(Path(spec.origin).read_bytes(), 9)
    except OSError as error:
        raise PodlabError(f"{spec.origin} cannot be read: {error.strerror}") from error
