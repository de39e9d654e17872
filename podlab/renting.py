"""The nouns of renting: what a company offers, what is ordered, what it then has, who pays for how long.

Every provider hands out these values and no other; `types.py` holds the nouns that need no money. A figure a provider
does not give is None. Dollars are US dollars before tax; times are seconds since the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

Cloud = Literal["secure", "community"]
"""Whose machines: the company's own data centres, or other people's."""
Stock = Literal["none", "low", "medium", "high", "unknown"]


class RentalState(StrEnum):
    """What the provider says of a rented pod. Whether it works is a question to the pod itself."""

    PROVISIONING = "provisioning"
    STARTING = "starting"
    RUNNING = "running"
    STOPPED = "stopped"
    """Its GPU is given back; its disk is kept and billed."""
    ERROR = "error"
    TERMINATED = "terminated"
    """Named by the provider as gone: nothing of it is billed any more."""
    UNKNOWN = "unknown"
    """A word podlab does not know: neither running nor gone is claimed, and it counts as billing."""


BILLING = frozenset(set(RentalState) - {RentalState.TERMINATED})
"""The states that may cost money; a stopped pod's disk does."""


@dataclass(frozen=True)
class OfferQuery:
    """What a person looks for. Empty fields do not narrow it. `data_centers` and `countries` are the provider's ids."""

    gpu_count: int = 1
    cloud: Cloud | None = None
    data_centers: tuple[str, ...] = ()
    countries: tuple[str, ...] = ()
    min_cuda: str | None = None


@dataclass(frozen=True)
class Offer:
    """A kind of machine that could be rented now. Prices are for all its GPUs together, the disk not included."""

    provider: str
    gpu_id: str
    """As the provider names it: "NVIDIA GeForce RTX 4090"."""
    gpu: str
    """As podlab's table of GPUs names it, else the provider's name."""
    gpu_count: int
    cloud: Cloud
    usd_per_hour: float | None
    memory_bytes: int | None = None
    """Of one GPU."""
    stock: Stock = "unknown"
    data_centers: tuple[str, ...] = ()
    """Where there is stock; empty where the provider does not say (community machines)."""
    cuda_versions: tuple[str, ...] = ()
    max_count: int | None = None
    simulated: bool = False


@dataclass(frozen=True)
class Order:
    """What is asked of a provider, whole: the same order sent twice would be two pods.

    `name` is unique (NAME-nonce), so that a pod whose creation was never answered can be found. `env` holds no secret:
    providers repeat it in every listing.
    """

    name: str
    gpu_id: str
    gpu_count: int
    cloud: Cloud
    image: str = ""
    """Empty with a `template_id`, which names one."""
    template_id: str | None = None
    data_centers: tuple[str, ...] = ()
    disk_gb: int = 20
    """The container's own disk, gone at a stop."""
    persistent_gb: int | None = None
    """A disk that lives as long as the pod, at `mount_path`; not together with a volume."""
    volume_id: str | None = None
    """A network volume, which outlives the pod, at `mount_path`."""
    mount_path: str = "/workspace"
    ports: tuple[str, ...] = ("22/tcp",)
    env: dict[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    """The container's start command as an argv; the provider's file turns it into what its wire takes."""
    min_cuda: str | None = None
    registry_id: str | None = None


@dataclass(frozen=True)
class Rental:
    """A pod as its provider describes it now."""

    id: str
    name: str
    state: RentalState
    said: str = ""
    """The provider's own word for the state."""
    usd_per_hour: float | None = None
    gpu_id: str = ""
    gpu_count: int | None = None
    cloud: Cloud | None = None
    data_center: str | None = None
    ssh_host: str | None = None
    """Where its sshd answers from outside; None until it is known, and another one after each start."""
    ssh_port: int | None = None
    proxy_urls: tuple[tuple[int, str], ...] = ()
    """Port of the pod to the public address of the provider's HTTP proxy for it."""
    created_at: float | None = None
    started_at: float | None = None
    uptime_s: float | None = None
    image: str = ""
    volume_id: str | None = None
    persistent_gb: int | None = None
    disk_gb: int | None = None
    actions: tuple[str, ...] = ()
    """What the provider allows now: "start", "stop", "restart", "terminate"."""
    locked: bool = False
    cuda: str | None = None
    has_runtime: bool = False
    """Whether a container runs: a pod may be called running long before."""


@dataclass(frozen=True)
class RentalLine:
    """A line of a pod's log at its provider. `id` resumes the stream behind it; `at` is the provider's clock."""

    id: str
    at: float | None
    source: Literal["container", "system"]
    text: str


@dataclass(frozen=True)
class Bill:
    """What the provider billed for a pod in a span of time."""

    rental_id: str
    begins_at: float
    ends_at: float
    usd: float
    gpu_usd: float | None = None
    disk_usd: float | None = None


@dataclass(frozen=True)
class Account:
    """The account behind a key. None: the provider does not say, or not to this key."""

    provider: str
    email: str = ""
    balance_usd: float | None = None
    spend_usd_per_hour: float | None = None
    spend_limit_usd_per_hour: float | None = None
    scopes: tuple[str, ...] = ()
    detail: str = ""
    """What could not be read, and why."""


@dataclass(frozen=True)
class Volume:
    """A network volume: it outlives pods, belongs to one data centre, and is billed until it is deleted."""

    id: str
    name: str
    size_gb: int
    data_center: str
    tier: str = ""


@dataclass(frozen=True)
class Template:
    """A named image with its settings at the provider."""

    id: str
    name: str
    image: str
    public: bool = False


@dataclass(frozen=True)
class TemplateDraft:
    """A template as somebody wants it. What is None or empty is left to the provider."""

    name: str
    image: str
    disk_gb: int | None = None
    persistent_gb: int | None = None
    mount_path: str = "/workspace"
    """Where that disk is."""
    ports: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    registry_id: str | None = None


@dataclass(frozen=True)
class Registry:
    """A login to a container registry that the provider keeps. Its password is never read."""

    id: str
    name: str


@dataclass(frozen=True)
class AccountKey:
    """An SSH public key that the provider puts into every pod."""

    type: str
    fingerprint: str
    comment: str = ""
    text: str = ""


@dataclass(frozen=True)
class Policy:
    """When a pod has to end, whoever is still there to end it. None: that rule is off.

    `deadline_at` is by the clock of whoever reads it; the pod itself gets the seconds that are left.
    """

    deadline_at: float | None = None
    budget_usd: float | None = None
    """For the whole life of the pod, its disk included."""
    idle_s: float | None = None
    lease_s: float = 600.0
    """How long the pod lives without word from this computer."""


class Protection(StrEnum):
    """How sure it is that a pod ends by itself. Each is the outcome of a check."""

    PROTECTED = "protected"
    """The switch on the pod said it is armed, and was heard within its lease; and a keeper tends it from here, which
    outlives kernels."""
    PARTLY = "partly"
    """One of the two: only this computer would end it, or only its switch."""
    UNPROTECTED = "unprotected"
    """Nothing would: nobody watches it from here, and the pod has no armed switch."""


@dataclass(frozen=True)
class Armed:
    """What the switch on a pod says of itself. Times are seconds; `left` ones count from when it was asked."""

    armed: bool
    detail: str = ""
    """Why it is not armed, or what it last tried."""
    lease_left_s: float | None = None
    deadline_left_s: float | None = None
    idle_for_s: float | None = None
    idle_s: float | None = None
    busy: tuple[str, ...] = ()
    """What keeps it from being idle: "tokens", "engine" (one that counts no tokens works), "loading", "command",
    "shell", "download", "gpu", or "unknown" when it could not be looked."""
    up_s: float | None = None
    policy_serial: int = 0
    """-1: it has only heard what its start command said."""
    has_switch: bool = True
    """False: nothing on the pod answered as a switch, and all else here is empty."""
    ending: bool = False
    """It is ending the pod right now; `detail` says why, and what it last tried."""
    lease_s: float | None = None
    budget_usd: float | None = None
    spent_usd: float | None = None
    """As the switch counts it, by its own clock."""
    money_left_s: float | None = None
    """How long the budget lasts at the present price."""
