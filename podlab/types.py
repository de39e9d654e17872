"""The nouns of podlab as frozen values. No room hands a dict to another one."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal


class PodState(StrEnum):
    """What the last check of a pod found."""

    REACHABLE = "reachable"
    UNREACHABLE = "unreachable"
    UNKNOWN = "unknown"
    """Never asked."""


class EndpointState(StrEnum):
    """What the last check of an endpoint found. Each is the outcome of a check, none is assumed."""

    DOWNLOADING = "downloading"
    """The pod is preparing: an environment, or the model's files."""
    LOADING = "loading"
    """The engine's process is there and has not answered as ready yet."""
    READY = "ready"
    """Process, health and the model's own name all answered."""
    UNHEALTHY = "unhealthy"
    """It was ready, its process is there, and it does not answer as ready now."""
    CRASHED = "crashed"
    """It ended without having been asked to, with status 0 too."""
    STOPPED = "stopped"
    """It ended because it was asked to."""
    UNREACHABLE = "unreachable"
    """The pod did not answer: neither alive nor gone is claimed."""
    ORPHAN = "orphan"
    """Its processes run on the pod, and no record there owns them."""


ALIVE = frozenset({EndpointState.DOWNLOADING, EndpointState.LOADING, EndpointState.READY, EndpointState.UNHEALTHY})
"""The states in which an endpoint has a process."""


@dataclass(frozen=True)
class SshAddress:
    """Where a machine answers to SSH, and with which keys. `alias` is the name in ~/.ssh/config it came from."""

    host: str
    user: str | None = None
    port: int | None = None
    identity_files: tuple[str, ...] = ()
    alias: str | None = None
    proxy_jump: str | None = None


@dataclass(frozen=True)
class Pod:
    """A machine with zero or more GPUs. `id` never changes, `name` is what a person calls it."""

    name: str
    id: str
    provider: Literal["local", "ssh"]
    address: SshAddress | None = None
    models_path: str | None = None


@dataclass(frozen=True)
class PodStatus:
    """A pod and what the last check found. `last_seen` is seconds since the epoch, None when it never answered."""

    pod: Pod
    state: PodState
    last_seen: float | None = None
    detail: str = ""
    in_use: bool = False
    """Whether it is the pod that commands without --on mean."""


@dataclass(frozen=True)
class Step:
    """One thing the monitor runs on the pod, in order, each in the endpoint's own process group."""

    name: Literal["prepare", "download", "serve", "run"]
    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    """Names of environment variables whose values go to the pod by stdin and into this step's environment only."""


@dataclass(frozen=True)
class Endpoint:
    """A running (or ended) model server on a pod. Times are seconds since the epoch, of the pod's clock."""

    id: str
    name: str
    pod: str
    model: str
    engine: str
    state: EndpointState
    cause: str | None = None
    detail: str = ""
    """One line a person reads: progress while it loads, the decisive log line after a crash."""
    pid: int | None = None
    port: int | None = None
    gpus: tuple[int, ...] = ()
    url: str | None = None
    """Base URL on this computer, ending in /v1; None unless it can be reached."""
    started_at: float | None = None
    exit_status: int | None = None
    generation: int = 1
    """Counts the starts of this endpoint; each has a log of its own."""
    last_seen: float | None = None


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str
    reasoning: str = ""


@dataclass(frozen=True)
class Usage:
    """Tokens as the server counted them."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True)
class LogLines:
    """A piece of a log. `generation` and `offset` (bytes) are where it ends."""

    lines: tuple[str, ...]
    generation: int = 1
    offset: int = 0


@dataclass(frozen=True)
class JobRow:
    """A command on a pod. `status` is its exit status (128 + N for signal N), None while it runs or is not known."""

    id: str
    pod: str
    state: str
    command: str
    started_at: float | None = None
    status: int | None = None


@dataclass(frozen=True)
class TunnelRow:
    """A port of this computer that leads to a port of a pod."""

    pod: str
    local_port: int
    remote_port: int


@dataclass(frozen=True)
class Interactive:
    """A program that needs a person's terminal: `argv`, and `how` to open it from one."""

    argv: tuple[str, ...]
    how: str


@dataclass(frozen=True)
class GpuProcess:
    """A process that holds memory of a GPU. `memory_bytes` is None where the driver does not say (in a container)."""

    pid: int
    memory_bytes: int | None = None
    name: str = ""


@dataclass(frozen=True)
class GpuSample:
    """One reading of one GPU. None: the card or its driver does not give that figure."""

    index: int
    name: str = ""
    uuid: str = ""
    lost: bool = False
    """The driver lost the card: every figure is None, and only a reboot of the machine helps."""
    error: str = ""
    """Why there are no figures, in one line; empty when there are."""
    utilization_percent: float | None = None
    memory_utilization_percent: float | None = None
    memory_total_bytes: int | None = None
    memory_used_bytes: int | None = None
    memory_free_bytes: int | None = None
    temperature_celsius: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    energy_j: float | None = None
    sm_clock_mhz: float | None = None
    memory_clock_mhz: float | None = None
    fan_percent: float | None = None
    ecc_errors: int | None = None
    throttle_reasons: tuple[str, ...] = ()
    mig: bool = False
    parent: int | None = None
    """Of a MIG instance: the index of the card it is a slice of."""
    processes: tuple[GpuProcess, ...] | None = None


@dataclass(frozen=True)
class HostSample:
    """One reading of the machine itself."""

    cpu_percent: float | None = None
    load_1m: float | None = None
    cpus: int | None = None
    memory_total_bytes: int | None = None
    memory_available_bytes: int | None = None
    disk_total_bytes: int | None = None
    disk_free_bytes: int | None = None
    received_bytes_per_s: float | None = None
    sent_bytes_per_s: float | None = None


@dataclass(frozen=True)
class PodSample:
    """One tick of the probe. `at` is seconds since the epoch on the pod's clock; `source` says who gave the figures."""

    pod: str
    at: float
    source: Literal["nvml", "nvidia-smi", "none"]
    gpus: tuple[GpuSample, ...] = ()
    host: HostSample = field(default_factory=HostSample)
    driver: str | None = None
    cuda: str | None = None
    """The newest CUDA the driver can run, such as "12.8"."""
    detail: str = ""
    """Why there are no GPUs, or why NVML was not used; empty when it was."""
