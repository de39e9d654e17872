"""What a verb returns: an Outcome holding one value, a frozen dataclass whose fields are its JSON document.

The documents are a promise: fields are added, never renamed. `document` makes them; secrets are masked in it.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

from podlab.catalog.fit import GpuParts
from podlab.commands.rent_results import ROWS as RENT_ROWS
from podlab.commands.rent_results import RentalDetail
from podlab.loadtest import Level
from podlab.types import (
    CachedModel,
    Check,
    DownloadRow,
    Endpoint,
    ForeignProcess,
    FreedMemory,
    GpuSample,
    HubModel,
    JobRow,
    Message,
    ModelDisk,
    PodStatus,
    StoredModel,
    Tried,
    TunnelRow,
    Usage,
    VerifiedFile,
)


@dataclass(frozen=True)
class Outcome:
    """A verb's value and the exit code a terminal should end with (a command's own status, for `pod run`)."""

    value: Any
    exit_code: int = 0


@dataclass(frozen=True)
class Done:
    """Something was done. `text` says it in a sentence; `changed` names what, kind to name."""

    text: str
    changed: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What --dry-run says would be done, in order."""

    would: tuple[str, ...]


@dataclass(frozen=True)
class PodList:
    """Pods, each with what a check just found."""

    pods: tuple[PodStatus, ...]
    rentals: tuple[RentalDetail, ...] = ()
    """Those that are rented, also where they are in no list; with --all those that have ended, too."""
    limit: int | None = None
    """As many ended ones at most, by --limit; null: all of them, of which a table shows the newest."""
    left_out: int = 0
    """How many of the ended ones are not in `rentals` because of that."""
    unread: str = ""
    """Why the list of pods could not be read; then `pods` has none of it."""


@dataclass(frozen=True)
class ImportRow:
    """A machine another tool knows. `state` is "added", "there" (known already) or "refused", `detail` why."""

    name: str
    address: str
    state: str
    detail: str = ""


@dataclass(frozen=True)
class ImportList:
    """What was taken over from another tool's file, and what else it holds, in sentences."""

    machines: tuple[ImportRow, ...]
    tool: str
    path: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PodDetail:
    """One pod, its machine and its disk. Machine fields are None when it did not answer."""

    pod: PodStatus
    hostname: str | None = None
    system: str | None = None
    python: str | None = None
    cpu_count: int | None = None
    memory_bytes: int | None = None
    free_disk_bytes: int | None = None
    home: str | None = None
    gpus: tuple[GpuSample, ...] | None = None
    """Its GPUs as sampled now; null when they were not asked for or could not be read."""
    driver: str | None = None
    cuda: str | None = None
    """The newest CUDA the driver can run, such as "12.8"."""
    rental: RentalDetail | None = None
    """What it costs and what ends it; null for a pod that is not rented."""


@dataclass(frozen=True)
class EndpointList:
    """Endpoints of every pod asked, and how each pod answered."""

    endpoints: tuple[Endpoint, ...]
    pods: tuple[PodStatus, ...]
    foreign: tuple[ForeignProcess, ...] = ()
    """Processes that hold memory of a GPU and are not podlab's, of the pods that are known to have GPUs."""


@dataclass(frozen=True)
class EndpointDetail:
    """One endpoint; `log` is its last lines when they explain the state."""

    endpoint: Endpoint
    command: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    freed: FreedMemory | None = None
    """After a stop on a pod with GPUs: what came back of their memory."""


@dataclass(frozen=True)
class ModelRow:
    """A model of the catalog. Sizes in bytes; context in tokens; None where no source gives it."""

    id: str
    summary: str
    engine: str
    source: str
    parameters: int | None = None
    size_bytes: int | None = None
    context: int | None = None
    licence: str | None = None
    active_parameters: int | None = None
    gated: bool = False
    """Whether the hub wants its terms accepted, and a token."""
    fits: bool | None = None
    """Whether the pod that was asked can serve it as it is now; null where nobody could tell."""
    how: str = ""
    """On what it fits, or why it does not."""


@dataclass(frozen=True)
class ModelList:
    """Models of the catalog, those that fit first; `pod` is the one they were held against, "" for none."""

    models: tuple[ModelRow, ...]
    pod: str = ""


@dataclass(frozen=True)
class RecipeRow:
    """A way to serve a model that is written down. `gpus` counts them; `startable` is false across machines."""

    gpus: int
    types: tuple[str, ...]
    engine: str
    tensor_parallel: int
    data_parallel: int
    context: int | None
    arguments: tuple[str, ...]
    env: dict[str, str]
    startable: bool
    notes: str
    source: str


@dataclass(frozen=True)
class ModelDetail:
    """All that is known of a model. `geometry` is its shape, `sources` where each number is from."""

    model: ModelRow
    aliases: tuple[str, ...]
    format: str
    tool_parser: str | None
    reasoning_parser: str | None
    min_version: str | None
    geometry: dict[str, Any]
    recipes: tuple[RecipeRow, ...]
    sources: dict[str, str]


@dataclass(frozen=True)
class FitReport:
    """Whether a model fits: on which GPUs, what takes their memory, how much context is left room for.

    `fits` is None where the model's shape is not known well enough: `missing` names what lacks. `pod` is "" where GPUs
    were named instead. Sizes in bytes, each of one GPU; `context` and `cache_tokens` in tokens. `nearest` are options
    with which it would fit. `source` says where the shape was read.
    """

    model: str
    engine: str
    pod: str
    fits: bool | None
    reason: str
    context: int | None
    concurrency: int
    tensor_parallel: int
    data_parallel: int
    memory_ratio: float
    cache_dtype: str
    gpus: tuple[GpuParts, ...]
    cache_bytes_per_token: float | None
    cache_tokens: int | None
    largest_context: int | None
    largest_concurrency: int | None
    nearest: tuple[str, ...]
    missing: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class UrlDetail:
    """How a program reaches an endpoint. `key` is masked; `exports` fetch it when a shell runs them.

    `works` says how long the base URL leads there.
    """

    name: str
    base_url: str
    key: Any
    model: str
    exports: tuple[str, ...]
    snippet: str
    works: str = ""


@dataclass(frozen=True)
class JobList:
    """Jobs of the pods asked, and how each pod answered."""

    jobs: tuple[JobRow, ...]
    pods: tuple[PodStatus, ...]


@dataclass(frozen=True)
class Transfer:
    """Files that arrived and were verified by their SHA-256. `sent_bytes` leaves out what was there already.

    `left_out` are the names of what is no regular file (links, sockets, pipes), which was not copied.
    """

    files: tuple[str, ...]
    total_bytes: int
    sent_bytes: int
    seconds: float
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class TunnelList:
    """Open tunnels."""

    tunnels: tuple[TunnelRow, ...]


@dataclass(frozen=True)
class Reply:
    """A model's answer. Times in seconds; `tokens_per_second` counts from the first token; None when not known."""

    text: str
    endpoint: str
    model: str
    stop_reason: str
    reasoning: str = ""
    usage: Usage | None = None
    first_token_s: float | None = None
    total_s: float | None = None
    tokens_per_second: float | None = None


@dataclass(frozen=True)
class BenchReport:
    """How fast an endpoint answered, a level a load, in the order they were sent."""

    endpoint: str
    model: str
    engine: str
    pod: str
    input_tokens: int
    """What was asked for; each level says what the server counted."""
    output_tokens: int
    levels: tuple[Level, ...]
    ttft_limit_s: float | None = None
    """The limits of goodput; None where none was given."""
    tpot_limit_s: float | None = None
    e2e_limit_s: float | None = None


@dataclass(frozen=True)
class MetricsReport:
    """What an endpoint's server counts about itself, read twice. A figure that it does not tell is None."""

    endpoint: str
    model: str
    engine: str
    pod: str
    running: int | None
    """Requests under way."""
    waiting: int | None
    """Requests that wait for their turn."""
    kv_used_ratio: float | None
    """Of the memory for the KV cache, 0 to 1."""
    prompt_tokens: int | None
    """Since the server's start."""
    generation_tokens: int | None
    prompt_tokens_per_s: float | None
    """How fast it grew between the two readings, which are `seconds` apart."""
    generation_tokens_per_s: float | None
    seconds: float


@dataclass(frozen=True)
class SmokeReport:
    """What an endpoint was tried for, and whether all of it went well."""

    endpoint: str
    model: str
    engine: str
    pod: str
    ok: bool
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class MatrixList:
    """Which models run on which engines and backends of a pod, a row for each that was tried."""

    rows: tuple[Tried, ...]
    pod: str
    machine: str
    podlab: str
    """The version that tried them."""
    saved: str | None = None
    """The file the table was written to."""


@dataclass(frozen=True)
class HubModelList:
    """Models that a search of the hub found, the most downloaded first; `pod` is what they were held against."""

    models: tuple[HubModel, ...]
    pod: str = ""


@dataclass(frozen=True)
class DownloadDetail:
    """A download, and the model it brought; null while it goes on."""

    download: DownloadRow
    model: StoredModel | None = None


@dataclass(frozen=True)
class DownloadList:
    """Downloads on the pods asked, newest first on each, and how each pod answered."""

    downloads: tuple[DownloadRow, ...]
    pods: tuple[PodStatus, ...]


@dataclass(frozen=True)
class FileList:
    """Models whose files are on a pod, the largest first. With a model's name only that one, its files shown."""

    models: tuple[StoredModel, ...]
    pod: str
    one: bool = False


@dataclass(frozen=True)
class VerifyReport:
    """Whether a model's files are what they should be. `mend` is the command that fetches what is not."""

    model: str
    pod: str
    ok: bool
    files: tuple[VerifiedFile, ...]
    total_bytes: int
    seconds: float
    mend: str = ""


@dataclass(frozen=True)
class DiskUsage:
    """What takes the room for models on a pod. `others` is huggingface_hub's own cache, which is only looked at."""

    disk: ModelDisk
    models: tuple[StoredModel, ...]
    others: tuple[CachedModel, ...] = ()


@dataclass(frozen=True)
class CacheQuota:
    """How much a pod's models may take; `next` would be deleted first, the least recently used at the beginning."""

    disk: ModelDisk
    next: tuple[str, ...] = ()


@dataclass(frozen=True)
class ShellScript:
    """A script for a shell, and the command that installs it."""

    shell: str
    text: str
    install: str


@dataclass(frozen=True)
class ConversationDetail:
    """A conversation as it stands."""

    endpoint: str
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class SettingRow:
    """A setting, its value now, and where that came from ("flag", "environment", "file", "default")."""

    name: str
    value: Any
    source: str
    help: str


@dataclass(frozen=True)
class SettingList:
    """All settings."""

    settings: tuple[SettingRow, ...]


@dataclass(frozen=True)
class SecretRow:
    """A secret by name; its value is shown nowhere. `source` is "environment" or "file"."""

    name: str
    source: str


@dataclass(frozen=True)
class SecretList:
    """Secrets podlab would use."""

    secrets: tuple[SecretRow, ...]


def document(value: Any) -> Any:
    """A value as what `json.dumps` takes: dataclasses become objects, enums their value, unknown objects their str.

    A pod's status is one flat object: its name, state and last_seen stand side by side.
    """
    if isinstance(value, PodStatus):
        fields = {field.name: document(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return {**fields.pop("pod"), **fields}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: document(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {str(key): document(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [document(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no word for it
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return str(value)


def rows(value: Any) -> list[Any] | None:
    """The rows of a value that is a table, else None."""
    name = _ROWS.get(type(value))
    return None if name is None else list(getattr(value, name))


_ROWS = {
    PodList: "pods", EndpointList: "endpoints", ModelList: "models", JobList: "jobs", TunnelList: "tunnels",
    SettingList: "settings", SecretList: "secrets", ImportList: "machines", MatrixList: "rows",
    HubModelList: "models", DownloadList: "downloads", FileList: "models", **RENT_ROWS,
}  # fmt: skip
"""The tables, and which field holds their rows."""
