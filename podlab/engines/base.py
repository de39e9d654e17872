"""What podlab knows of a kind of model server: how it is prepared, started, found ready, and why it failed.

An engine is knowledge without state: it builds argv lists and reads log lines, it never runs anything and never
blocks. `lab/endpoints.py` asks it for steps and files and hands both to the pod's monitor; whoever looks at an
endpoint later asks it for the paths to probe and, when the process is gone, for a diagnosis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol

from podlab.types import Step

Backend = Literal["cpu", "cuda", "metal"]


class Cause(StrEnum):
    """Why a server failed. The value is what `Endpoint.cause` and `EngineCrashed.cause` hold.

    A log can show each of them but the last two.
    """

    BAD_FLAG = "bad_flag"
    BAD_CONFIG = "bad_config"
    """The model's own config.json is missing or makes no sense."""
    MODEL_NOT_FOUND = "model_not_found"
    GATED_OR_UNAUTHORIZED = "gated_or_unauthorized"
    """The hub wants a token, or a licence accepted on the model's page."""
    NO_NETWORK = "no_network"
    UNSUPPORTED_ARCHITECTURE = "unsupported_architecture"
    CORRUPT_WEIGHTS = "corrupt_weights"
    """Damaged, incomplete or missing."""
    MISSING_TOKENIZER = "missing_tokenizer"
    """Missing, damaged, or of a kind that the engine does not know."""
    TEMPLATE_ERROR = "template_error"
    PORT_IN_USE = "port_in_use"
    CONTEXT_TOO_LONG = "context_too_long"
    """Longer than the model was made for."""
    TP_MISMATCH = "tp_mismatch"
    """The model or the machine cannot be divided into that many parts."""
    OUT_OF_MEMORY_WEIGHTS = "out_of_memory_weights"
    OUT_OF_MEMORY_KV = "out_of_memory_kv"
    """The weights fitted; what was left did not suffice for the context."""
    DISK_FULL = "disk_full"
    DRIVER_OR_DEVICE = "driver_or_device"
    NO_ENVIRONMENT = "no_environment"
    """The engine's own environment could not be made or does not import."""
    KILLED = "killed"
    """A signal ended it that we did not send; SIGKILL is often the kernel's out-of-memory killer."""
    WORKER_DIED = "worker_died"
    """One of the server's processes ended while it served."""
    HANG = "hang"
    """It neither became ready nor ended."""
    OTHER = "other"
    NONE = "none"
    """Nothing failed: it became ready, and the log shows no end."""
    EXITED = "exited"
    """It ended with status 0 by itself: for a server that is a crash too."""
    REBOOTED = "rebooted"
    """The pod's boot id changed, so no process of then is alive. Found by the monitor's record, not by the log."""


@dataclass(frozen=True)
class Diagnosis:
    """A classified end. `lines` are the decisive log lines, the most telling one last; `hint` may be empty."""

    cause: Cause
    lines: tuple[str, ...] = ()
    hint: str = ""
    another_copy: bool = False
    """The file of weights is no good, and another copy of it may be; `hint` then says only what is wrong."""
    verified: bool = False
    """A real failure of that kind was made and seen to say this; else it follows what others reported."""


@dataclass(frozen=True)
class MachineEvidence:
    """What the machine itself says of an end. None and () mean that it was not asked."""

    oom_kills: int | None = None
    """Processes of the server that the kernel killed for memory: `oom_kill` of the cgroup's memory.events, or lines of
    dmesg that name one of its pids."""
    kernel_lines: tuple[str, ...] = ()
    """Lines of dmesg since the start, of the server's own processes or of its GPUs."""
    disk_free_bytes: int | None = None
    """On the disk that holds the models."""
    driver_error: str = ""
    """What NVML or nvidia-smi says instead of an answer."""
    alive: bool | None = None
    """Whether the server's process is there still."""


class HubFile(Protocol):
    """A file of a model repository on the Hugging Face Hub. `catalog.HubSource` is one."""

    @property
    def repo(self) -> str: ...
    @property
    def file(self) -> str: ...
    @property
    def revision(self) -> str: ...
    @property
    def sha256(self) -> str | None: ...
    @property
    def size_bytes(self) -> int | None: ...


class HubRepository(Protocol):
    """A whole repository of the Hub. `catalog.HubRepo` is one."""

    @property
    def repo(self) -> str: ...
    @property
    def revision(self) -> str: ...


@dataclass(frozen=True)
class Environment:
    """A Python environment on a pod that holds an engine: one that podlab made there, or one that it was shown.

    `program` is how the engine's server is begun, `flags` the options that very version has (empty: not known).
    """

    engine: str
    version: str
    python: str
    program: tuple[str, ...]
    flags: frozenset[str] = frozenset()
    adopted: bool = False
    """It belongs to a person: podlab uses it and never changes it."""


class LoadStage(StrEnum):
    """What a server does between its start and its first answer, in that order. Not every engine does all of it."""

    START = "start"
    WEIGHTS = "weights"
    COMPILE = "compile"
    WARM_UP = "warm-up"
    READY = "ready"


@dataclass(frozen=True)
class Loading:
    """What a log line says about loading. `done` of `total` shards or graphs, where it says so."""

    stage: LoadStage
    done: int | None = None
    total: int | None = None


@dataclass(frozen=True)
class ServerMetrics:
    """One reading of a server's own metrics. None: the server does not give that figure.

    `prompt_tokens` and `generation_tokens` count from the server's start; two readings make a rate.
    """

    running: int | None = None
    waiting: int | None = None
    kv_used_ratio: float | None = None
    """Of the memory for the KV cache, 0 to 1."""
    prompt_tokens: int | None = None
    generation_tokens: int | None = None


@dataclass(frozen=True)
class ServeSpec:
    """One model to be served. Exactly one of `model_path`, `hub` and `hub_repo` says where its files are.

    `model_path` is a path on the pod and may begin with `{dir}` or `{home}`. `context` is in tokens and is what each
    of the `slots` (requests served at once) gets; None means what the model was trained with. `gpu_layers` None
    means as many as fit. `threads` None means as many as the pod has cores. `extra` are further flags of the engine,
    as its users know them.
    """

    served_name: str
    model_path: str | None = None
    hub: HubFile | None = None
    context: int | None = None
    slots: int = 1
    gpu_layers: int | None = None
    backend: Backend | None = None
    threads: int | None = None
    extra: tuple[str, ...] = ()
    models_dir: str = "{home}/models"
    """Where downloaded models are kept on the pod."""
    port: str = "{port}"
    """A number, or the token for the port the monitor picks."""
    hub_token: bool = False
    """Whether a HF_TOKEN is there to be handed to the download step, and to no other."""
    hub_repo: HubRepository | None = None
    """A whole repository to be downloaded and served; then `model_path` and `hub` are None."""
    gpus: tuple[int, ...] = ()
    """The GPUs it may use, as the driver numbers them; CUDA_VISIBLE_DEVICES holds them, always."""
    tensor_parallel: int = 1
    data_parallel: int = 1
    expert_parallel: bool = False
    memory_ratio: float | None = None
    """The share of each GPU's memory the engine may take, 0 to 1."""
    env: tuple[tuple[str, str], ...] = ()
    """Further variables of the engine's environment, such as a recipe asks for."""
    environment: Environment | None = None
    """What to run it with; None means one that the first step makes, of `engine_version`."""
    engine_version: str | None = None
    """None means the version podlab is tested with."""
    force: bool = False
    """Start although a check says that it cannot work."""


@dataclass(frozen=True)
class PodFacts:
    """What an engine must know of the machine. Taken from the supervisor's first answer."""

    os: str
    """As platform.system(): "Linux" or "Darwin"."""
    arch: str
    """As platform.machine(): "x86_64", "aarch64", "arm64"."""
    python: tuple[int, int]
    """Version of the Python that runs podlab's own programs there."""
    python_path: str = "python3"
    local: bool = False
    """Whether the pod is this very computer."""
    gpus: int = 0


@dataclass(frozen=True)
class SentFile:
    """A small text file the steps need, to be written to `{dir}/<name>` (0600) before the first of them runs."""

    name: str
    text: str


class Engine(Protocol):
    """One kind of model server. Callers are threads of `lab`; no method blocks, does I/O on the pod or keeps state.

    A step whose work is done already (environment there, model there) is still returned: it finds that out on the
    pod in a fraction of a second. A step that cannot be needed at all is left out.
    """

    @property
    def name(self) -> str: ...

    @property
    def health_path(self) -> str:
        """Answers 200 without a key once the model is loaded."""
        ...

    @property
    def models_path(self) -> str:
        """Lists the served name, with the endpoint's key: the proof that the port is ours and not a stranger's."""
        ...

    @property
    def metrics_path(self) -> str | None: ...

    @property
    def probe_path(self) -> str:
        """Where OpenAI's completions are, for a first token; "" when it is not to be asked for one."""
        ...

    @property
    def verified(self) -> bool:
        """Whether a test of this project runs it; else it follows its documentation, and is shown as unverified."""
        ...

    def check_options(self, spec: ServeSpec) -> None:
        """Refuse options that are wrong on any machine, before a pod is asked: `spec` has no place of a model yet.

        Raises BadArgument.
        """
        ...

    def check(self, spec: ServeSpec, facts: PodFacts) -> None:
        """Refuse what cannot work before anything is sent.

        Raises BadArgument for a wrong option, EngineUnavailable when the engine does not exist for that machine.
        """
        ...

    def steps(self, spec: ServeSpec, facts: PodFacts) -> tuple[Step, ...]:
        """What the monitor runs, in order; the last one is `serve`. Checks first, and raises as `check` does."""
        ...

    def files(self, spec: ServeSpec, facts: PodFacts) -> tuple[SentFile, ...]:
        """The programs that `steps` name."""
        ...

    def diagnose(
        self, log_lines: Sequence[str], status: int | None, evidence: MachineEvidence | None = None
    ) -> Diagnosis:
        """Why it ended. `status` is the exit status, 128 + N for signal N, None when nobody saw it end."""
        ...

    def notes(self, spec: ServeSpec) -> tuple[str, ...]:
        """What a person should know before it starts, such as an option that had to be changed; a sentence each."""
        ...

    def stage_of(self, line: str) -> Loading | None:
        """What a line of its log says about loading; None for a line that says nothing of it."""
        ...

    def metrics(self, text: str) -> ServerMetrics:
        """What `metrics_path` answered. The text is untrusted: what makes no sense in it is left out."""
        ...
