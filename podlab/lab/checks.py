"""Whether an engine can be brought to serve on a machine: what was measured there, judged, each with what to do.

`look` asks the pod (remote/checks.py and the probe, at the same time); `judged` is pure. "failed" means that serving is
impossible as it is; "warning" that it works worse, or only for some models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from podlab.engines.base import Environment
from podlab.engines.builds import MIN_DRIVERS, Build
from podlab.errors import PodlabError, SupervisorError
from podlab.lab import gpus
from podlab.lab.facts import PodFacts
from podlab.lab.fanout import ask_all
from podlab.lab.supervisor import SILENCE_S
from podlab.lab.talk import PROTOCOL, Talk, begin, program
from podlab.types import Check, Pod, PodSample
from podlab.units import bytes_text, duration_text, memory_text
from podlab.wire import Wire

if TYPE_CHECKING:
    from podlab.lab.workspace import Workspace

DEADLINE_S = 40.0
MODEL_BYTES = 5 * 2**30
"""Free space for models below which a warning is given: a small model in 16 bits."""
SLOW_BYTES_PER_S = 1_000_000
WITHOUT_INDEX = "podlab resolves and downloads the wheels here, and sends them"
APT = "apt-get install"


@dataclass(frozen=True)
class Place:
    """A folder on the pod, which may not be there yet; the disk is that of the nearest folder that is."""

    path: str
    there: bool
    mounted: bool
    writable: bool
    existing: str
    free_bytes: int


@dataclass(frozen=True)
class Reached:
    """What a server said. `error` is "" when it answered; `bytes_per_s` None when nothing was measured."""

    address: str
    error: str
    took_s: float | None
    bytes_per_s: float | None = None


@dataclass(frozen=True)
class FoundPython:
    """A Python on the pod. `pip`: it can make environments with pip in them."""

    path: str
    version: tuple[int, int]
    pip: bool


@dataclass(frozen=True)
class Measured:
    """What was measured on a pod. None: it was not, or no answer came in time."""

    system: str = ""
    glibc: tuple[int, int] | None = None
    cpu_flags: frozenset[str] | None = None
    memory_bytes: int | None = None
    shared_memory_bytes: int | None = None
    administrator: str = ""
    """"root", "perhaps" or "no"."""
    pythons: tuple[FoundPython, ...] | None = None
    uv: str = ""
    index: Reached | None = None
    hub: Reached | None = None
    free_ports: int | None = None
    places: dict[str, Place] = field(default_factory=dict)
    """"environments", and "models" and "mount" where they are known."""
    sample: PodSample | None = None
    """Of the GPUs; None when they could not be read, and then `sample_error` says why."""
    sample_error: str = ""


def look(
    workspace: Workspace, pod: Pod, build: Build, home: str, places: Mapping[str, str], *, to_install: bool
) -> Measured:  # fmt: skip
    """Measure a pod, all at once. `places` are paths by their use. What only an installation needs (Pythons, networks)
    is left out where there is none. Raises as the pod's transport does."""
    request: dict[str, object] = {
        "op": "look", "package": build.package.partition("==")[0], "version": build.version, "places": dict(places),
        "home": home, "to_install": to_install,
        "min_python": build.min_python, "max_python": build.max_python or (3, 99),
    }  # fmt: skip
    questions: list[Callable[[], object]] = [
        lambda: ask(workspace, pod, request), lambda: gpus.sample(workspace, pod),
    ]  # fmt: skip
    found, sample = ask_all(questions, lambda question: question(), deadline_s=DEADLINE_S)
    if isinstance(found, PodlabError):
        raise found
    assert isinstance(found, Wire)
    if isinstance(sample, PodSample):
        return _measured(found, sample, "")
    return _measured(found, None, sample.message if isinstance(sample, PodlabError) else "")


def ask(workspace: Workspace, pod: Pod, request: dict[str, object]) -> Wire:
    """One answer of remote/checks.py. Raises SupervisorError, and as the pod's transport does."""
    side = workspace.side(pod)
    rooms = ("machine", "host", "package_index", "pythons", *(("setup",) if request["op"] == "plan" else ()))
    given = json.dumps({"v": PROTOCOL, **request}).encode() + b"\n"
    with Talk(begin(side.transport, program("checks", *rooms), given, side.python), pod.name, SILENCE_S) as talk:
        for answer in talk:
            return Wire(answer, "a check")
    raise talk.broken_off()


def judged(
    seen: Measured, build: Build, facts: PodFacts, there: Environment | None, *, to_install: bool
) -> tuple[Check, ...]:
    """Every check, in the order in which a person would mend things. `there` is the environment that is there."""
    if there is not None and there.adopted:
        looks = tuple(_own(name, there) for name in ("GPUs", "driver", "C library", "processor"))
    else:
        looks = (_gpus(seen, build), _driver(seen, build), _glibc(seen, build), _cpu(seen, build))
    always = (*looks, _memory(seen, build), _shared_memory(seen, build), _models(seen), _ports(seen))
    if not to_install:
        return (*always, Check("Python", "ok", f"{facts.python} for podlab" + (f"; {there.python}" if there else "")))
    return (
        *always, _python(seen, build, facts), _environment_disk(seen, build), _index(seen), _speed(seen, build),
        _hub(seen), _administrator(seen),
    )  # fmt: skip


def place_from(wire: Wire) -> Place:
    """A place as the pod told it."""
    return Place(
        wire.text("path"), wire.flag("there"), wire.flag("mounted"), wire.flag("writable"), wire.text("existing"),
        wire.whole("free_bytes"),
    )  # fmt: skip


def _own(name: str, there: Environment) -> Check:
    return Check(name, "skipped", f"the environment of {there.python} is your own: what it needs is not known")


def _gpus(seen: Measured, build: Build) -> Check:
    if seen.sample is None:
        return Check("GPUs", "failed" if build.min_cuda else "warning", f"not readable: {seen.sample_error}",
                     "See what the driver says there: podlab pod run nvidia-smi")  # fmt: skip
    cards = [gpu for gpu in seen.sample.gpus if not gpu.mig]
    lost = [gpu for gpu in cards if gpu.lost or gpu.error]
    names = ", ".join(sorted({gpu.name for gpu in cards if gpu.name}))
    if lost:
        return Check("GPUs", "warning", f"GPU {lost[0].index}: {lost[0].error or 'it is lost'}",
                     "A lost card comes back when the machine is started anew.")  # fmt: skip
    if cards:
        total = sum(gpu.memory_total_bytes or 0 for gpu in cards)
        pretended = " (simulated)" if seen.sample.simulated else ""
        return Check("GPUs", "ok", f"{len(cards)}, {names}, {memory_text(total)} in all{pretended}")
    if build.min_cuda is None:
        return Check("GPUs", "ok", f"none; {build.engine} computes on the processor")
    why = f": {seen.sample.detail}" if seen.sample.detail else ""
    return Check(
        "GPUs", "failed", f"none{why}",
        f"{build.engine} needs an NVIDIA GPU. Without one: --engine llamacpp. A container sees them with --gpus all.",
    )  # fmt: skip


def _driver(seen: Measured, build: Build) -> Check:
    if build.min_cuda is None:
        return Check("driver", "skipped", f"{build.engine} needs none")
    if seen.sample is None or not seen.sample.gpus:
        return Check("driver", "skipped", "there is no GPU to drive")
    level = _version(seen.sample.cuda or "")
    said = f"{seen.sample.driver or 'of unknown version'}, which runs CUDA {seen.sample.cuda or 'of unknown version'}"
    wants = ".".join(map(str, build.min_cuda))
    if level is None:
        return Check("driver", "warning", f"{said}; the build was made with CUDA {wants}")
    if level[0] < build.min_cuda[0]:
        driver = MIN_DRIVERS.get(build.min_cuda[0])
        newer = f"a driver {driver} or newer" if driver else "a newer driver"
        return Check(
            "driver", "failed", f"{said}; {build.title} was built with CUDA {wants}",
            f"Install {newer} (Ubuntu, as root: ubuntu-drivers install)"
            + (f", or take {build.otherwise}." if build.otherwise else "."),
        )  # fmt: skip
    if level < build.min_cuda:
        return Check("driver", "warning", f"{said}; CUDA {wants} runs on it, without what only a newer driver can")
    return Check("driver", "ok", said)


def _glibc(seen: Measured, build: Build) -> Check:
    wants = ".".join(map(str, build.min_glibc))
    if seen.glibc is None:
        return Check("C library", "warning", f"no glibc was found; the wheels need {wants} or newer",
                     "On Alpine and other systems with musl they cannot be installed.")  # fmt: skip
    said = "glibc " + ".".join(map(str, seen.glibc))
    if seen.glibc < build.min_glibc:
        return Check("C library", "failed", f"{said}; the wheels of {build.title} need {wants} or newer",
                     "Take a machine or an image with a newer system, such as Ubuntu 22.04 or newer.")  # fmt: skip
    return Check("C library", "ok", f"{said} ({seen.system})" if seen.system else said)


def _cpu(seen: Measured, build: Build) -> Check:
    if not build.cpu_flags or seen.cpu_flags is None:
        return Check("processor", "skipped", "nothing special is needed of it")
    missing = [flag for flag in build.cpu_flags if flag not in seen.cpu_flags]
    if missing:
        return Check("processor", "failed", f"it lacks {', '.join(missing)}, which the build of {build.engine} uses",
                     "Take a machine with a newer processor: here it would end with SIGILL.")  # fmt: skip
    return Check("processor", "ok", f"it has {', '.join(build.cpu_flags)}")


def _memory(seen: Measured, build: Build) -> Check:
    if seen.memory_bytes is None:
        return Check("memory", "skipped", "not known")
    if seen.memory_bytes < build.memory_bytes:
        return Check("memory", "warning",
                     f"{bytes_text(seen.memory_bytes)}; {build.engine} wants {bytes_text(build.memory_bytes)} or more",
                     "Serve small models only, or take a machine or a container with more memory.")  # fmt: skip
    return Check("memory", "ok", memory_text(seen.memory_bytes))


def _shared_memory(seen: Measured, build: Build) -> Check:
    several = seen.sample is not None and len(seen.sample.gpus) > 1
    if not build.shared_memory_bytes or seen.shared_memory_bytes is None or not several:
        return Check("shared memory", "skipped", "it matters where several GPUs serve one model")
    if seen.shared_memory_bytes < build.shared_memory_bytes:
        return Check("shared memory", "warning", f"/dev/shm holds {bytes_text(seen.shared_memory_bytes)}",
                     "Start the container with --ipc=host or --shm-size 8g for models on several GPUs.")  # fmt: skip
    return Check("shared memory", "ok", f"/dev/shm holds {bytes_text(seen.shared_memory_bytes)}")


def _python(seen: Measured, build: Build, facts: PodFacts) -> Check:
    ours = f"{facts.python} for podlab"
    if seen.pythons is None:
        return Check("Python", "warning", f"{ours}; which others there are was not found out in time")
    wants = _span(build)
    chosen = next((python for python in seen.pythons if python.pip), None)
    if chosen is not None:
        return Check("Python", "ok", f"{ours}; {chosen.path} for {build.engine}")
    lack = f"none with venv and pip of version {wants}"
    if seen.uv or (seen.index is not None and not seen.index.error):
        return Check("Python", "ok", f"{ours}; {lack}, so uv brings what is missing")
    if seen.pythons:
        return Check("Python", "ok", f"{ours}; {lack}, so uv is sent along")
    return Check("Python", "failed", f"{lack}, and no index to bring one from", _as_root(seen, f"{APT} python3-venv"))


def _environment_disk(seen: Measured, build: Build) -> Check:
    name, place = "disk for environments", seen.places.get("environments")
    if place is None:
        return Check(name, "warning", "it did not answer in time")
    said = f"{bytes_text(place.free_bytes)} free at {place.path}"
    if not place.writable:
        return Check(name, "failed", f"{place.existing} cannot be written",
                     "Set PODLAB_POD_HOME on the pod to a folder of yours.")  # fmt: skip
    if place.free_bytes < build.need_bytes:
        return Check(name, "failed", f"{said}; {build.title} takes {bytes_text(build.need_bytes)}",
                     "Make room, or set PODLAB_POD_HOME on the pod to a folder on a larger disk.")  # fmt: skip
    return Check(name, "ok", said)


def _models(seen: Measured) -> Check:
    name, place = "disk for models", seen.places.get("models")
    if place is None:
        return Check(name, "warning", "it did not answer in time", "A dead file server hangs whoever looks at it.")
    said = f"{bytes_text(place.free_bytes)} free at {place.path}"
    if not place.writable:
        mounted = seen.places.get("mount")
        if mounted is not None and not mounted.mounted:
            return Check(name, "skipped", f"{place.path} is to be mounted first")
        return Check(name, "failed", f"{place.existing} cannot be written",
                     "Name another folder with --models-path, or have somebody with root make it yours.")  # fmt: skip
    if place.free_bytes < MODEL_BYTES:
        return Check(name, "warning", said, "Name a folder on a larger disk with --models-path.")
    return Check(name, "ok", said)


def _index(seen: Measured) -> Check:
    name, index = "package index", seen.index
    if index is None:
        return Check(name, "warning", "it did not answer in time", f"None is needed: {WITHOUT_INDEX}.")
    if index.error:
        return Check(name, "warning", f"{index.address}: {index.error}", f"None is needed: {WITHOUT_INDEX}.",
                     index.took_s)  # fmt: skip
    return Check(name, "ok", index.address, took_s=index.took_s)


def _speed(seen: Measured, build: Build) -> Check:
    rate = seen.index.bytes_per_s if seen.index else None
    if rate is None:
        return Check("bandwidth", "skipped", "nothing could be fetched to measure it")
    takes = duration_text(build.need_bytes / rate)
    said = f"{bytes_text(round(rate))}/s: about {takes} for {bytes_text(build.need_bytes)}"
    if rate < SLOW_BYTES_PER_S:
        return Check("bandwidth", "warning", said, "Models come over the same line: choose small ones.")
    return Check("bandwidth", "ok", said)


def _hub(seen: Measured) -> Check:
    if seen.hub is None:
        return Check("model hub", "warning", "it did not answer in time", "Models can be sent from here.")
    if seen.hub.error:
        return Check("model hub", "warning", f"{seen.hub.address}: {seen.hub.error}",
                     "Models can be sent from here: podlab model start PATH. HF_ENDPOINT names a mirror.",
                     seen.hub.took_s)  # fmt: skip
    return Check("model hub", "ok", seen.hub.address, took_s=seen.hub.took_s)


def _ports(seen: Measured) -> Check:
    if seen.free_ports is None:
        return Check("ports", "skipped", "not tried")
    if seen.free_ports == 0:
        return Check("ports", "failed", "no port of 127.0.0.1 can be listened on",
                     "See that the loopback interface is up: ip link set lo up (as root).")  # fmt: skip
    return Check("ports", "ok", "ports of 127.0.0.1 are free; no other is needed")


def _administrator(seen: Measured) -> Check:
    words = {"root": "you are root", "perhaps": "you may be allowed to use sudo", "no": "neither root nor sudo"}
    return Check("administrator", "ok", f"{words.get(seen.administrator, 'not known')}; podlab needs none")


def _as_root(seen: Measured, command: str) -> str:
    prefix = "" if seen.administrator == "root" else "sudo "
    who = " (somebody with root has to)" if seen.administrator == "no" else ""
    return f"Run on the pod{who}: {prefix}{command}"


def _span(build: Build) -> str:
    least = ".".join(map(str, build.min_python))
    return f"{least} or newer" if build.max_python is None else f"{least} to {'.'.join(map(str, build.max_python))}"


def _version(text: str) -> tuple[int, int] | None:
    found = re.match(r"(\d{1,4})\.(\d{1,4})", text)
    return (int(found[1]), int(found[2])) if found else None


def _measured(wire: Wire, sample: PodSample | None, sample_error: str) -> Measured:
    system = _part(wire, "system")
    found = _part(wire, "pythons")
    parts = {name: _part(wire, f"place {name}") for name in ("environments", "models", "mount")}
    free_ports = wire.any("free_ports")
    return Measured(
        system=system.text("system", 200) if system else "",
        glibc=_version(system.text("glibc", 40)) if system else None,
        cpu_flags=frozenset(system.texts("cpu_flags", 32, 64)) if system and system.has("cpu_flags") else None,
        memory_bytes=system.maybe("memory_total_bytes", system.whole) if system else None,
        shared_memory_bytes=system.maybe("shared_memory_bytes", system.whole) if system else None,
        administrator=system.text("administrator", 16) if system else "",
        pythons=None if found is None else tuple(map(_python_from, found.parts("pythons", 16))),
        uv="" if found is None else found.text("uv"),
        index=_reached(_part(wire, "index")), hub=_reached(_part(wire, "hub")),
        free_ports=free_ports if isinstance(free_ports, int) else None,
        places={name: place_from(part) for name, part in parts.items() if part is not None},
        sample=sample, sample_error=sample_error,
    )  # fmt: skip


def _part(wire: Wire, key: str) -> Wire | None:
    """A part of the answer; None where it did not come in time, or its measuring failed."""
    if not wire.has(key):
        return None
    part = wire.part(key)
    return None if part.has("failed") else part


def _python_from(wire: Wire) -> FoundPython:
    version = wire.wholes("version")
    if len(version) != 2:
        raise SupervisorError("The pod's side told a Python without a version.")
    return FoundPython(wire.text("path"), (version[0], version[1]), wire.flag("pip"))


def _reached(wire: Wire | None) -> Reached | None:
    if wire is None:
        return None
    rate = wire.maybe("bytes_per_s", wire.number)
    return Reached(wire.text("address"), wire.text("error", 400), wire.maybe("took_s", wire.number), rate)
