"""What a verb returns: an Outcome holding one value, a frozen dataclass whose fields are its JSON document.

The documents are a promise: fields are added, never renamed. `document` makes them; secrets are masked in it.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

from podlab.types import Endpoint, JobRow, Message, PodStatus, TunnelRow, Usage


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


@dataclass(frozen=True)
class EndpointList:
    """Endpoints of every pod asked, and how each pod answered."""

    endpoints: tuple[Endpoint, ...]
    pods: tuple[PodStatus, ...]


@dataclass(frozen=True)
class EndpointDetail:
    """One endpoint; `log` is its last lines when they explain the state."""

    endpoint: Endpoint
    command: tuple[str, ...] = ()
    log: tuple[str, ...] = ()


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


@dataclass(frozen=True)
class ModelList:
    """The catalog."""

    models: tuple[ModelRow, ...]


@dataclass(frozen=True)
class UrlDetail:
    """How a program reaches an endpoint. `key` is masked; `exports` fetch it when a shell runs them."""

    name: str
    base_url: str
    key: Any
    model: str
    exports: tuple[str, ...]
    snippet: str


@dataclass(frozen=True)
class JobList:
    """Jobs of the pods asked, and how each pod answered."""

    jobs: tuple[JobRow, ...]
    pods: tuple[PodStatus, ...]


@dataclass(frozen=True)
class Transfer:
    """Files that arrived and were verified by their SHA-256. `sent_bytes` leaves out what was there already."""

    files: tuple[str, ...]
    total_bytes: int
    sent_bytes: int
    seconds: float


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
    SettingList: "settings", SecretList: "secrets",
}  # fmt: skip
"""The tables, and which field holds their rows."""
