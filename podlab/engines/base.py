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
    """Why an endpoint's process is gone. The value is what `Endpoint.cause` and `EngineCrashed.cause` hold."""

    OUT_OF_MEMORY_WEIGHTS = "out_of_memory_weights"
    PORT_IN_USE = "port_in_use"
    MODEL_NOT_FOUND = "model_not_found"
    CORRUPT_WEIGHTS = "corrupt_weights"
    BAD_FLAG = "bad_flag"
    DRIVER_OR_DEVICE = "driver_or_device"
    NO_ENVIRONMENT = "no_environment"
    """The engine's own environment could not be made or does not import."""
    NO_NETWORK = "no_network"
    GATED_OR_UNAUTHORIZED = "gated_or_unauthorized"
    """The hub wants a token, or a licence accepted on the model's page."""
    KILLED = "killed"
    """A signal ended it that we did not send; SIGKILL is often the kernel's out-of-memory killer."""
    DISK_FULL = "disk_full"
    EXITED = "exited"
    """It ended with status 0 by itself: for a server that is a crash too."""
    REBOOTED = "rebooted"
    """The pod's boot id changed, so no process of then is alive. Found by the monitor's record, not by the log."""
    OTHER = "other"


@dataclass(frozen=True)
class Diagnosis:
    """A classified end. `lines` are the decisive log lines, the most telling one last; `hint` may be empty."""

    cause: Cause
    lines: tuple[str, ...] = ()
    hint: str = ""


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
class ServeSpec:
    """One model to be served. Exactly one of `model_path` and `hub` says where its file is.

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

    def diagnose(self, log_lines: Sequence[str], status: int | None) -> Diagnosis:
        """Why it ended. `status` is the exit status, 128 + N for signal N, None when nobody saw it end."""
        ...
