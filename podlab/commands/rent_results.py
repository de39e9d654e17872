"""What the verbs of renting return, as `results.py` says it of the others: each a frozen dataclass, its JSON document.

Everything about a pretended company is marked `simulated`.
"""

from __future__ import annotations

from dataclasses import dataclass

from podlab.renting import Cloud, Stock


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


ROWS: dict[type, str] = {OfferList: "offers"}
"""The tables, and which field holds their rows."""
