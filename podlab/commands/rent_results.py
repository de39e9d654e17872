"""What the verbs of renting return, as `results.py` says it of the others: each a frozen dataclass, its JSON document.

Everything about a pretended company is marked `simulated`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from podlab.renting import Account, AccountKey, Cloud, Registry, RentalLine, Stock, Template, Volume
from podlab.types import Check


@dataclass(frozen=True)
class OfferRow:
    """A kind of machine that could be rented now. Prices are for all its GPUs together, without the disk."""

    gpu: str
    """As podlab names the kind, else as the company does."""
    gpu_id: str
    """As the company names it."""
    gpu_count: int
    cloud: Cloud
    usd_per_hour: float | None
    memory_bytes: int | None
    """Of one GPU, as the company says."""
    stock: Stock
    data_centers: tuple[str, ...] = ()
    """Where there is stock; empty where the company does not say."""
    fits: bool | None = None
    """Whether the model that was asked about fits; null where none was, or nobody could tell."""
    how: str = ""
    """On what it fits, or why it does not."""


@dataclass(frozen=True)
class OfferList:
    """What a company rents out now. `model` is what it was held against, "" for none."""

    offers: tuple[OfferRow, ...]
    provider: str
    simulated: bool
    model: str = ""


@dataclass(frozen=True)
class CandidateRow:
    """A machine that a create would try, or why it would not. Prices include the disk."""

    gpu: str
    gpu_id: str
    gpu_count: int
    cloud: Cloud
    usd_per_hour: float | None
    stock: Stock
    data_centers: tuple[str, ...] = ()
    refused: str = ""
    """Why it is not tried; "" for one that is."""


@dataclass(frozen=True)
class PodPlan:
    """What a create would do: the machines in the order they are tried, and what it could cost. Nothing is rented.

    Prices and the worst case are those of the first machine. `cap_usd` null: nothing limits it. `worst_usd` is what the
    pod costs if this computer is gone right after asking for it.
    """

    name: str
    provider: str
    simulated: bool
    candidates: tuple[CandidateRow, ...]
    usd_per_hour: float | None = None
    disk_usd_per_hour: float | None = None
    """The disk's part of that."""
    stopped_usd_per_hour: float | None = None
    budget_usd: float | None = None
    ttl_s: float | None = None
    idle_s: float | None = None
    lease_s: float | None = None
    cap_usd: float | None = None
    """The most it can cost in its life, by its budget or its deadline."""
    worst_usd: float | None = None
    worst: str = ""
    """Why it ends then."""
    image: str = ""
    notes: tuple[str, ...] = ()
    """What a person should know before saying yes, in sentences."""


@dataclass(frozen=True)
class RentalDetail:
    """A rented pod: what it is, what it costs, what ends it. Times are seconds since the epoch.

    `spent_usd` is our own figure until the company's bill says more. `worst_usd` is what it has cost in the end if this
    computer is gone from now on; null: there is no bound.
    """

    name: str
    id: str
    """Of its launch, in the ledger."""
    provider: str
    simulated: bool
    state: str
    """As the company says now: "running", "stopped" ..., or how far the launch is: "asked", "ending", "ended"."""
    order_name: str = ""
    """Its name at the company."""
    rental_id: str | None = None
    gpu: str = ""
    gpu_count: int = 1
    cloud: str = ""
    data_center: str | None = None
    usd_per_hour: float = 0.0
    """What it costs now; 0 when nothing of it is billed."""
    spent_usd: float = 0.0
    billed_usd: float | None = None
    budget_usd: float | None = None
    deadline_at: float | None = None
    idle_s: float | None = None
    """How long it may be idle."""
    lease_s: float | None = None
    asked_at: float | None = None
    uptime_s: float | None = None
    protection: str = ""
    """"protected", "partly" or "unprotected"; "" where nothing has to be protected any more."""
    protection_detail: str = ""
    worst_usd: float | None = None
    worst_until: float | None = None
    worst: str = ""
    """What ends it then, in words."""
    ended_at: float | None = None
    why: str = ""
    """Why it was refused or had to end, and who saw to it."""
    model: str = ""
    notebook: str = ""
    public_urls: tuple[str, ...] = ()
    """Where the company leads anybody who asks to an HTTP port of it: no login stands before it."""


@dataclass(frozen=True)
class RentalList:
    """Rented pods, the newest first."""

    rentals: tuple[RentalDetail, ...]


@dataclass(frozen=True)
class RentalPanel:
    """The pods that may be billed, the newest first, after the ledger was held against what each company lists."""

    rentals: tuple[RentalDetail, ...]
    asked: tuple[str, ...] = ()
    """The companies that answered."""
    foreign: int = 0
    """Pods there that were not rented from here; they are never touched."""
    problems: tuple[str, ...] = ()
    """Companies that could not be asked, a sentence each."""


@dataclass(frozen=True)
class CostRow:
    """What a pod, a model or a notebook has cost. `difference_usd` is the bill less our figure for the same time."""

    of: str
    """Its name; "" for pods without a model or a notebook."""
    today_usd: float
    month_usd: float
    total_usd: float
    usd_per_hour: float
    """Now: 0 when nothing of it is billed any more."""
    billed_usd: float | None = None
    difference_usd: float | None = None
    pods: int = 1
    open_pods: int = 0
    simulated: bool = False


@dataclass(frozen=True)
class CostList:
    """What rented pods cost, the dearest first. Pretended money is in `simulated`, and never added to real money."""

    costs: tuple[CostRow, ...]
    by: Literal["pod", "model", "notebook"]
    total: CostRow
    simulated: CostRow | None = None
    """All pretended pods together; null where there are none."""
    per_day_usd: float | None = None
    """The limits on all pods together; null: none."""
    total_limit_usd: float | None = None
    notes: tuple[str, ...] = ()
    limit: int | None = None
    """As many rows at most of what is not billed any more, by --limit; null: all, of which a table shows the first."""
    left_out: int = 0
    """How many rows are not in `costs` because of that."""


@dataclass(frozen=True)
class OrphanRow:
    """A pod that a company lists, or should. `owner` is "ours" or "foreign"; `found` says what is odd, in words."""

    name: str
    provider: str
    simulated: bool
    owner: str
    state: str
    found: str
    usd_per_hour: float | None = None
    rental_id: str | None = None
    launch: str = ""
    created_at: float | None = None
    fix: str = ""
    """What to do about it; "" where podlab does it by itself, or nothing is to be done."""


@dataclass(frozen=True)
class OrphanList:
    """The ledger held against what each company lists. `problems` are companies that could not be asked."""

    orphans: tuple[OrphanRow, ...]
    asked: tuple[str, ...]
    open_pods: int = 0
    """Pods of ours that the ledger and the company agree on."""
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class RentalLog:
    """Lines that a company logs of a rented pod, oldest first."""

    pod: str
    provider: str
    simulated: bool
    lines: tuple[RentalLine, ...]


@dataclass(frozen=True)
class VolumeList:
    """Network volumes of the account, billed until they are deleted. `usd_per_month` is all of them, by list price."""

    volumes: tuple[Volume, ...]
    provider: str
    simulated: bool
    usd_per_month: float | None = None


@dataclass(frozen=True)
class TemplateList:
    """Named images of the account."""

    templates: tuple[Template, ...]
    provider: str
    simulated: bool


@dataclass(frozen=True)
class RegistryList:
    """Logins to container registries that the company keeps; no password is read."""

    registries: tuple[Registry, ...]
    provider: str
    simulated: bool


@dataclass(frozen=True)
class AccountKeyList:
    """SSH public keys that the company puts into pods. podlab sends its own with each pod and changes none of these."""

    keys: tuple[AccountKey, ...]
    provider: str
    simulated: bool


@dataclass(frozen=True)
class AccountDetail:
    """The account behind the key, and how long its balance lasts at what is spent now."""

    account: Account
    simulated: bool
    lasts_s: float | None = None


@dataclass(frozen=True)
class DoctorReport:
    """Whether pods can be rented safely from here: a check a row, each failure with its fix."""

    ok: bool
    provider: str
    simulated: bool
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class InitReport:
    """What `podlab init` found and wrote; `next` are commands to go on with."""

    provider: str
    simulated: bool
    checks: tuple[Check, ...]
    settings: tuple[str, ...]
    """"name = value", as they stand in config.toml now."""
    next: tuple[str, ...]


@dataclass(frozen=True)
class SandboxDetail:
    """The pretended company: whether it is open, and what it has. Its money is none."""

    running: bool
    url: str | None = None
    pid: int | None = None
    speed: float | None = None
    """How many times as fast as time its bill runs."""
    pods: int = 0
    running_pods: int = 0
    balance_usd: float | None = None
    spend_usd_per_hour: float | None = None
    faults: tuple[str, ...] = ()
    """What goes wrong on purpose."""


@dataclass(frozen=True)
class FaultRow:
    """Something that can go wrong in the sandbox on order."""

    name: str
    help: str


@dataclass(frozen=True)
class FaultList:
    """All that can go wrong in the sandbox on order."""

    faults: tuple[FaultRow, ...]


def log_text(line: RentalLine) -> str:
    """'02:03:11 system    pulling image': a line of a company's log. Its clock, UTC."""
    clock = " " * 8 if line.at is None else datetime.fromtimestamp(line.at, UTC).strftime("%H:%M:%S")
    return f"{clock} {line.source:<9} {line.text}"


ROWS: dict[type, str] = {
    OfferList: "offers", RentalList: "rentals", RentalPanel: "rentals", CostList: "costs",
    OrphanList: "orphans", VolumeList: "volumes",
    TemplateList: "templates", RegistryList: "registries", AccountKeyList: "keys",
    FaultList: "faults",
}  # fmt: skip
"""The tables, and which field holds their rows."""
