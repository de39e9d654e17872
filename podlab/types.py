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
    provider: str
    """"local", "ssh", or the company it is rented from: "runpod", "sandbox"."""
    address: SshAddress | None = None
    """None for this computer, and for a rented pod whose sshd nobody has an address of yet."""
    models_path: str | None = None
    rental_id: str | None = None
    """What its provider calls it; None for what is not rented. A rented pod's `id` is its launch's, in the ledger."""


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
    """A running (or ended) model server on a pod. Times are seconds since the epoch, by this computer's clock."""

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
    dropped_bytes: int = 0
    """What came right before it and is gone: the log had come to its cap, see the setting `log_cap_bytes`."""


@dataclass(frozen=True)
class Explanation:
    """Why a server failed, as its log tells it. Text of the log is cut and free of control characters."""

    cause: str
    """A value of engines.base.Cause; `none` where the log shows no failure, `other` where no rule knows it."""
    line: str
    """The most telling line; "" where there is none."""
    lines: tuple[str, ...]
    """The telling lines, that one last."""
    suggestion: str
    engine: str | None
    """What wrote the log; None where nothing tells."""
    verified: bool
    """A real failure was made that says this; else the rule follows what others reported."""


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
class Check:
    """One thing that was looked at or tried: `detail` says what was seen, `fix` what to do about a failure."""

    name: str
    state: Literal["ok", "warning", "failed", "skipped"]
    detail: str = ""
    fix: str = ""
    took_s: float | None = None


@dataclass(frozen=True)
class EngineVersions:
    """What an engine's environment holds. None: it is not there, or nobody looked."""

    engine: str | None = None
    torch: str | None = None
    cuda: str | None = None
    """What torch was built with."""
    python: str | None = None


@dataclass(frozen=True)
class SetupReport:
    """What a machine has, and what was done to bring an engine to serve on it.

    `ready`: models can be started. `installed`: an environment was made just now; it is false where one was there
    already, and where only checks were asked for.
    """

    pod: str
    engine: str
    version: str
    ready: bool
    installed: bool
    environment: str | None
    """Its folder on the pod, or the Python of a person's own; null where there is none, or none is needed."""
    models_path: str
    checks: tuple[Check, ...]
    stages: tuple[Check, ...]
    """What was done, in order, each with the seconds it took."""
    versions: EngineVersions = field(default_factory=EngineVersions)
    verified: bool = True
    """Whether a test of podlab runs this engine."""


@dataclass(frozen=True)
class Tried:
    """A model on an engine and a backend, tried.

    `state`: "works" (every check ok or skipped), "partly" (it answers, and some check failed), "fails" (it did not
    start). Figures are None where it did not come so far.
    """

    model: str
    engine: str
    backend: str | None
    state: Literal["works", "partly", "fails"]
    pod: str = ""
    ready_s: float | None = None
    tokens_per_s: float | None = None
    first_token_s: float | None = None
    checks: tuple[Check, ...] = ()
    cause: str | None = None
    detail: str = ""


@dataclass(frozen=True)
class GpuProcess:
    """A process that holds memory of a GPU. `memory_bytes` is None where the driver does not say (in a container).

    `pid` is as the driver counts: in a container it may be the machine's number, and `name` is then empty or another's.
    """

    pid: int
    memory_bytes: int | None = None
    name: str = ""
    owner: str = ""
    """The endpoint or job of ours it belongs to: its name, or its id where no record tells the name."""


@dataclass(frozen=True)
class ForeignProcess:
    """A process that is not podlab's and holds memory of a pod's GPU. See GpuProcess about its fields."""

    pod: str
    gpu: int
    pid: int
    memory_bytes: int | None = None
    name: str = ""


@dataclass(frozen=True)
class FreedMemory:
    """What came back of a pod's GPU memory when an endpoint ended."""

    gpus: tuple[int, ...]
    """Those it held memory of."""
    held_bytes: int
    freed_bytes: int
    left: tuple[GpuProcess, ...] = ()
    """Its processes that the driver still counts."""
    measured: Literal["processes", "cards"] = "processes"
    """"cards": the driver does not tell which process holds what (in a container), so what the cards have in use was
    compared, which others on them change too."""
    text: str = ""
    """All of it in a sentence."""


@dataclass(frozen=True)
class GpuSample:
    """One reading of one GPU. None: the card or its driver does not give that figure."""

    index: int
    """As CUDA_VISIBLE_DEVICES counts with CUDA_DEVICE_ORDER=PCI_BUS_ID. Of a MIG instance: its place on its card."""
    name: str = ""
    uuid: str = ""
    lost: bool = False
    """The driver lost the card: every figure is None, and only a reboot of the machine helps."""
    error: str = ""
    """Why figures are missing that the card has: it is lost, or its driver does not answer; else empty."""
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
    simulated: bool = False
    """Whether the GPUs are pretended: the pod is of the sandbox."""


@dataclass(frozen=True)
class WeightFile:
    """A file of a model on a pod. `partial_bytes` have come of it in a download that was cut."""

    name: str
    path: str
    size_bytes: int
    partial_bytes: int = 0
    digest: str = ""
    """What it was checked against when it came, "sha256:HEX" or "git:HEX"; empty for what podlab did not fetch."""
    checked: bool = False
    """It has not changed since it was checked, by its size and time; `model verify` hashes it."""


@dataclass(frozen=True)
class StoredModel:
    """A model whose files are on a pod. `id` is what `model start` takes."""

    id: str
    pod: str
    path: str
    format: Literal["gguf", "safetensors"]
    state: Literal["whole", "selected", "partial"]
    """"selected": of a repository only what was asked for; "partial": a download was cut."""
    size_bytes: int
    last_used: float
    used_by: tuple[str, ...] = ()
    """Endpoints, jobs and processes that have it open or name it."""
    commit: str = ""
    files: tuple[WeightFile, ...] = ()


@dataclass(frozen=True)
class CachedModel:
    """A model in the standard cache of huggingface_hub on a pod, which podlab only looks at."""

    id: str
    pod: str
    path: str
    size_bytes: int
    last_used: float


@dataclass(frozen=True)
class ModelDisk:
    """Where a pod keeps models, and the room there. `quota_bytes` None: as much as there is room."""

    pod: str
    path: str
    used_bytes: int
    free_bytes: int
    total_bytes: int
    quota_bytes: int | None = None


@dataclass(frozen=True)
class DownloadFile:
    """How far a file is. `total_bytes` None: not known yet."""

    name: str
    done_bytes: int
    total_bytes: int | None = None


@dataclass(frozen=True)
class DownloadRow:
    """A download on a pod, under way or ended. `left_s` is estimated from its rate so far."""

    id: str
    pod: str
    model: str
    state: str
    """"downloading", "done", "failed", "cancelled", "lost" or "unknown"."""
    done_bytes: int | None = None
    total_bytes: int | None = None
    rate_bytes_per_s: int | None = None
    left_s: float | None = None
    detail: str = ""
    started_at: float | None = None
    files: tuple[DownloadFile, ...] = ()


@dataclass(frozen=True)
class VerifiedFile:
    """A file that was hashed on its pod. `digest` is what it has, `expected` what it should have; "" where unknown."""

    name: str
    path: str
    state: Literal["ok", "damaged", "missing", "unreadable", "unknown"]
    """"unknown": there is nothing to hold it against."""
    digest: str = ""
    expected: str = ""


@dataclass(frozen=True)
class HubModel:
    """A model that a search of the hub found. None: the hub does not say."""

    id: str
    downloads: int
    """In the last 30 days, as the hub counts."""
    parameters: int | None = None
    format: Literal["safetensors", "gguf", "other"] = "other"
    dtype: str = ""
    """What most weights are kept in, or how they are quantised: BF16, FP8, AWQ, GGUF ..."""
    licence: str | None = None
    gated: bool = False
    fits: bool | None = None
    """Whether the weights fit the pod that was asked, roughly; null where nobody could tell."""
