"""What the pod's own side tells about itself, its endpoints and its jobs: raw, checked on arrival, not judged.

`states.classify` judges. Everything here came from a pod and is untrusted: each `*_from` reads one wire object, keeps
what has the right shape within a size limit, and raises SupervisorError naming the field that has not. Times are
seconds since the epoch of the pod's clock, sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from podlab.engines.base import MachineEvidence
from podlab.errors import SupervisorError
from podlab.wire import Wire

Kind = Literal["endpoint", "job"]
LogStream = Literal["log", "stdout", "stderr"]
"""An endpoint has one stream, `log`; a job has `stdout` and `stderr`."""
FILES_LIMIT = 1000
NOT_ASKED = MachineEvidence()
STEPS = ("prepare", "download", "serve", "run")
STREAMS: Mapping[Kind, tuple[LogStream, ...]] = {"endpoint": ("log",), "job": ("stdout", "stderr")}


@dataclass(frozen=True)
class PodFacts:
    """The machine, as `hello` saw it. `boot` changes when the machine or its container is started anew.

    `os` and `arch` are as uname says them ("Linux", "x86_64"); `python` is "3.11.7" and runs the pod's side.
    """

    protocol: int
    python: str
    python_path: str
    machine_id: str
    boot: str
    hostname: str
    os: str
    arch: str
    home: str
    user_home: str
    uid: int
    cpus: int
    memory_bytes: int | None
    free_bytes: int
    now: float
    gpus: int = 0
    """NVIDIA GPUs, counted by their device files; what they are and hold is the probe's to tell."""

    def absolute(self, path: str) -> str:
        """A path on the pod as a person wrote it, made absolute: relative ones and `~` mean the user's home."""
        return path if path.startswith("/") else f"{self.user_home}/{path.removeprefix('~').lstrip('/')}"


@dataclass(frozen=True)
class HealthCheck:
    """How an endpoint says it is ready: 200 on `path`, and `served_name` among the ids of `models_path`.

    Where a `probe` path (of OpenAI's completions) is given, it has to answer a prompt with a token there once, too.
    """

    served_name: str
    path: str = "/health"
    models_path: str = "/v1/models"
    probe: str = ""


@dataclass(frozen=True)
class HealthFacts:
    """What 127.0.0.1:port answered just now. `status` None: no HTTP answer, `error` says why."""

    status: int | None
    error: str = ""
    models: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExitFacts:
    """How it ended. Status and signal both None: it is gone, and nobody saw how."""

    status: int | None
    signal: int | None
    at: float | None
    step: str = ""
    error: str = ""
    """Why a step could not even be started, else empty."""
    evidence: MachineEvidence = NOT_ASKED
    """What the machine said of it, asked for at once."""


@dataclass(frozen=True)
class FileProgress:
    """How far a file is: bytes that are there, and in all (None: not known)."""

    name: str
    done: int
    total: int | None = None


@dataclass(frozen=True)
class Progress:
    """What a prepare or download step says about itself. `total` is None while unknown."""

    text: str
    done: int | None = None
    total: int | None = None
    unit: str = ""
    rate_bytes_per_s: int | None = None
    files: tuple[FileProgress, ...] = ()
    """Of a download: each file that was missing when it began."""


@dataclass(frozen=True)
class Facts:
    """One endpoint or job, checked on the pod a moment ago."""

    id: str
    name: str
    kind: Kind
    now: float
    generation: int = 1
    model: str = ""
    engine: str = ""
    gpus: tuple[int, ...] = ()
    port: int | None = None
    served_name: str = ""
    meta: Mapping[str, object] = field(default_factory=dict)
    """What the client gave with `start`, unread by the pod."""
    secrets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of the secrets that each step was given; a restart has to give them again."""
    argv: tuple[str, ...] = ()
    """Of the step in progress or the last one, placeholders filled in. Holds no secret."""
    step: str = ""
    created_at: float | None = None
    """Of the first generation."""
    started_at: float | None = None
    """Of this generation."""
    pid: int | None = None
    alive: bool = False
    """The process `pid` is the very one that was started: same start time, same boot, not a zombie."""
    monitor_alive: bool = False
    boot_changed: bool = False
    exit: ExitFacts | None = None
    stop_at: float | None = None
    """When somebody asked this generation to stop."""
    ready_at: float | None = None
    """When this generation was first seen ready."""
    health: HealthFacts | None = None
    socket_ours: bool | None = None
    """Whether its port is listened on by a process of its own; None: nobody listens, or it cannot be known."""
    socket_owner: str = ""
    """Who listens instead, as "name (pid 7)", when that is known."""
    log_bytes: Mapping[str, int] = field(default_factory=dict)
    """Size of each stream's file of this generation."""
    lines: tuple[str, ...] = ()
    """The last lines of the log (of stderr for a job), without their ends; few or none while it is ready."""
    progress: Progress | None = None
    strays: tuple[int, ...] = ()
    """Processes of it that outlived its own process, or, for an orphan, all of them."""
    orphan: bool = False
    """Processes carry its mark and no readable record owns them."""
    place: str = ""
    """The machine and the home it was found in, told by `list`: two pods may be the same machine."""
    damaged: str = ""
    """Why its record cannot be read, else empty."""

    @property
    def ended(self) -> bool:
        """Nothing of this generation's own process runs, and nothing is about to start it."""
        return not self.alive and (self.exit is not None or not self.monitor_alive)


@dataclass(frozen=True)
class Listed:
    """What is on a pod. `gpus` counts its NVIDIA GPUs by their device files, so a driver that hangs is not asked."""

    facts: tuple[Facts, ...]
    gpus: int = 0


@dataclass(frozen=True)
class Started:
    """The answer to `start` and `restart`. `existed`: it was there already, and nothing was started."""

    facts: Facts
    existed: bool


@dataclass(frozen=True)
class StopStage:
    """A step of a stop. `pids` are the processes it concerns."""

    stage: Literal["intent", "term", "waiting", "kill", "proof", "start"]
    pids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Stopped:
    """No process of it is left: looked for by session, group, parent and mark.

    `killed` are those TERM was not enough for.
    """

    facts: Facts
    was_running: bool
    killed: tuple[int, ...] = ()


@dataclass(frozen=True)
class Piece:
    """Bytes `[offset, offset + len(data))` of a stream of one generation."""

    generation: int
    offset: int
    data: bytes
    dropped: int = 0
    """Bytes before `offset` that were due and are not on the pod any more: the stream had come to its cap."""

    @property
    def next_offset(self) -> int:
        return self.offset + len(self.data)


@dataclass(frozen=True)
class Tail:
    """The end of a stream. `size` is the whole file's; following goes on from `piece.next_offset`."""

    piece: Piece
    size: int


def pod_facts_from(value: object) -> PodFacts:
    """The answer to `hello`."""
    wire = Wire(value, "hello")
    return PodFacts(
        protocol=wire.whole("protocol"), python=wire.text("python"), python_path=wire.text("python_path"),
        machine_id=wire.text("machine_id"), boot=wire.text("boot"), hostname=wire.text("hostname"),
        os=wire.text("os"), arch=wire.text("arch"),
        home=wire.text("home"), user_home=wire.text("user_home"), uid=wire.whole("uid"), cpus=wire.whole("cpus"),
        memory_bytes=wire.maybe("memory_bytes", wire.whole), free_bytes=wire.whole("free_bytes"),
        now=wire.number("now"), gpus=wire.whole("gpus") if wire.has("gpus") else 0,
    )  # fmt: skip


def exit_from(value: object) -> ExitFacts:
    """How something ended, as the monitor recorded it."""
    wire = Wire(value, "exit")
    return ExitFacts(
        status=wire.maybe("status", wire.whole), signal=wire.maybe("signal", wire.whole),
        at=wire.maybe("at", wire.number), step=wire.text("step"), error=wire.text("error"),
        evidence=_evidence_from(wire.part("evidence")) if wire.has("evidence") else NOT_ASKED,
    )  # fmt: skip


def _evidence_from(wire: Wire) -> MachineEvidence:
    return MachineEvidence(
        oom_kills=wire.maybe("oom_kills", wire.whole), kernel_lines=wire.texts("kernel_lines", count=64),
        disk_free_bytes=wire.maybe("disk_free_bytes", wire.whole), driver_error=wire.text("driver_error"),
    )  # fmt: skip


def _health_from(wire: Wire) -> HealthFacts:
    return HealthFacts(wire.maybe("status", wire.whole), wire.text("error"), wire.texts("models"))


def _progress_from(wire: Wire) -> Progress:
    done, total = wire.maybe("done", wire.whole), wire.maybe("total", wire.whole)
    files = tuple(
        FileProgress(each.text("name"), each.whole("done"), each.maybe("total", each.whole))
        for each in wire.parts("files", FILES_LIMIT)
    )
    return Progress(wire.text("text"), done, total, wire.text("unit", 16), wire.maybe("rate", wire.whole), files)


def facts_from(value: object) -> Facts:
    """One endpoint or job."""
    wire = Wire(value, "facts")
    kind: Kind
    if (said := wire.text("kind")) == "endpoint":
        kind = "endpoint"
    elif said == "job":
        kind = "job"
    else:
        raise SupervisorError(f"The pod's side speaks of a {said[:40]!r}, neither an endpoint nor a job.")
    sizes = Wire(wire.mapping("log_bytes"), "log_bytes")
    secrets = Wire(wire.mapping("secrets"), "secrets")
    return Facts(
        id=wire.text("id", 64), name=wire.text("name", 64), kind=kind, now=wire.number("now"),
        generation=wire.whole("generation"), model=wire.text("model"), engine=wire.text("engine"),
        gpus=wire.wholes("gpus"), port=wire.maybe("port", wire.whole), served_name=wire.text("served_name"),
        meta=wire.mapping("meta"), secrets={step: secrets.texts(step, 128) for step in STEPS if secrets.has(step)},
        argv=wire.texts("argv", 2**17), step=wire.text("step", 16),
        created_at=wire.maybe("created_at", wire.number), started_at=wire.maybe("started_at", wire.number),
        pid=wire.maybe("pid", wire.whole), alive=wire.flag("alive"), monitor_alive=wire.flag("monitor_alive"),
        boot_changed=wire.flag("boot_changed"),
        exit=exit_from(wire.any("exit")) if wire.has("exit") else None,
        stop_at=wire.maybe("stop_at", wire.number), ready_at=wire.maybe("ready_at", wire.number),
        health=_health_from(wire.part("health")) if wire.has("health") else None,
        socket_ours=wire.maybe("socket_ours", wire.flag), socket_owner=wire.text("socket_owner"),
        log_bytes={stream: sizes.whole(stream) for stream in STREAMS[kind] if sizes.has(stream)},
        lines=wire.texts("lines", count=1000),
        progress=_progress_from(wire.part("progress")) if wire.has("progress") else None,
        strays=wire.wholes("strays"), orphan=wire.flag("orphan"), damaged=wire.text("damaged"),
        place=wire.text("place"),
    )  # fmt: skip
