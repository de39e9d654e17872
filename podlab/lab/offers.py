"""What a company rents out now: found by name, narrowed, sorted, and held against a model. All but `listing` is pure.

GPU names are compared token by token, never by substring: an A4000 is no A40, an L40S no L4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from podlab.catalog import catalog, gpus
from podlab.catalog.catalog import ModelEntry
from podlab.catalog.fit import FitResult, Wish
from podlab.catalog.geometry import Geometry, GpuRoom
from podlab.catalog.reading import geometry_of
from podlab.errors import NotFound
from podlab.events import Stage, Work
from podlab.lab import fit as fitting
from podlab.lab.candidates import lies_in, matching
from podlab.lab.market import Market
from podlab.renting import Cloud, Offer, OfferQuery, Stock
from podlab.units import memory_text

Order = Literal["price", "memory", "stock"]
_STOCK: tuple[Stock, ...] = ("high", "medium", "low", "unknown", "none")
_COUNTS = (1, 2, 4, 8)
"""How many GPUs are tried for a model where nobody says: what vLLM can cut most models into."""


@dataclass(frozen=True)
class Wanted:
    """What a person asks of `pod offers`. Empty fields and None do not narrow."""

    gpus: tuple[str, ...] = ()
    """Names of GPUs as a person writes them."""
    model: str | None = None
    count: int | None = None
    cloud: Cloud | None = None
    regions: tuple[str, ...] = ()
    """Data centres, or the beginnings of their names: "EU", "US-TX-3"."""
    max_usd_per_hour: float | None = None
    min_memory_bytes: int | None = None
    """Of one GPU."""
    sort: Order = "price"


@dataclass(frozen=True)
class Found:
    """An offer, and whether the model that was asked about fits on it; None where none was, or nobody could tell."""

    offer: Offer
    fits: bool | None = None
    how: str = ""


def listing(market: Market, provider: str, wanted: Wanted) -> Work[tuple[Found, ...]]:
    """The offers of a company, narrowed and sorted; with a model, for each kind of GPU the fewest that it fits on.

    Raises what the provider and the model's shape raise, and NotFound for a GPU that it does not rent out.
    """
    judge: Judge | None = None
    if wanted.model is not None:
        entry = catalog.find(wanted.model)
        yield Stage("shape", f"Reading the shape of {entry.id}")
        judge = judge_of(entry, geometry_of(entry))
    yield Stage("offers", f"Asking {provider} what it has")
    company = market.provider(provider)
    counts = (wanted.count,) if wanted.count is not None else _COUNTS if judge is not None else (1,)
    offers: list[Offer] = []
    for count in counts:
        offers += company.offers(OfferQuery(gpu_count=count, cloud=wanted.cloud))
    return sifted(offers, wanted, judge)


def sifted(offers: Sequence[Offer], wanted: Wanted, judge: Judge | None = None) -> tuple[Found, ...]:
    """The offers that are wanted, in the order that is. What cannot be rented in that number is none."""
    kept = of_gpus(offers, wanted.gpus) if wanted.gpus else offers
    rooms = (offer for offer in kept if offer.max_count is None or offer.gpu_count <= offer.max_count)
    found = [judged(offer, judge) for offer in rooms if not refusal(offer, wanted)]
    return tuple(sorted(_fewest(found) if judge is not None else found, key=_place(wanted.sort)))


def refusal(offer: Offer, wanted: Wanted) -> str:
    """Why an offer is not what is wanted, in a few words; "" when it is."""
    if wanted.cloud is not None and offer.cloud != wanted.cloud:
        return f"it is {offer.cloud}, not {wanted.cloud}"
    if wanted.max_usd_per_hour is not None:
        if offer.usd_per_hour is None:
            return "its price is not known"
        if offer.usd_per_hour > wanted.max_usd_per_hour:
            return f"${offer.usd_per_hour:.2f}/h is more than ${wanted.max_usd_per_hour:.2f}/h"
    if wanted.min_memory_bytes is not None and (offer.memory_bytes or 0) < wanted.min_memory_bytes:
        has = "an unknown amount" if offer.memory_bytes is None else memory_text(offer.memory_bytes)
        return f"it has {has}, less than {memory_text(wanted.min_memory_bytes)}"
    if wanted.regions and not in_regions(offer.data_centers, wanted.regions):
        return f"no stock in {', '.join(wanted.regions)}" if offer.data_centers else "it does not say where it is"
    return ""


def in_regions(data_centers: Iterable[str], regions: Sequence[str]) -> tuple[str, ...]:
    """Those of the data centres that a person means: "EU" means EU-RO-1 and EU-SE-1, and not EUR-IS-1."""
    return tuple(center for center in data_centers if any(lies_in(center, region) for region in regions))


def of_gpus(offers: Sequence[Offer], names: Iterable[str]) -> list[Offer]:
    """The offers of the GPUs that a person names, in the order of the offers; a name of several kinds means them all.

    Raises NotFound for a name that none has.
    """
    offered = [offer.gpu_id for offer in offers]
    ids: set[str] = set()
    for name in names:
        # "A40 L4" without a comma between is no GPU, and then each of its words is one.
        meant = matching(name, offered) or tuple(each for word in name.split() for each in _named(word, offers))
        ids.update(meant)
    return [offer for offer in offers if offer.gpu_id in ids]


def _named(name: str, offers: Sequence[Offer]) -> tuple[str, ...]:
    if found := matching(name, [offer.gpu_id for offer in offers]):
        return found
    kinds = sorted({offer.gpu for offer in offers})
    near = get_close_matches(name.lower(), [kind.lower() for kind in kinds], n=1, cutoff=0.6)
    meant = next((kind for kind in kinds if [kind.lower()] == near), "")
    hint = f"Did you mean {meant}?" if meant else f"It has: {', '.join(kinds)}." if kinds else "It offers nothing now."
    raise NotFound(f"The company rents out no GPU called {name!r}.", hint=hint)


Judge = Callable[[Offer], FitResult]
"""Whether a model fits on all GPUs of an offer together."""


def judge_of(entry: ModelEntry, geometry: Geometry, wish: Wish | None = None) -> Judge:
    """What holds offers against a model, as `model fit` does."""

    def judge(offer: Offer) -> FitResult:
        kind = gpus.type_of(offer.gpu_id) or gpus.type_of(offer.gpu)
        memory_bytes = kind.memory_bytes if kind is not None else offer.memory_bytes
        if memory_bytes is None:
            return FitResult(None, "How much memory it has is not known.", wish or Wish())
        rooms = tuple(GpuRoom(index, offer.gpu, memory_bytes, memory_bytes) for index in range(offer.gpu_count))
        return fitting.verdict(entry, geometry, rooms, wish or Wish())

    return judge


def judged(offer: Offer, judge: Judge | None) -> Found:
    """An offer with the verdict on it."""
    if judge is None:
        return Found(offer)
    result = judge(offer)
    return Found(offer, result.fits, result.reason)


def _fewest(found: list[Found]) -> list[Found]:
    """Of each kind the smallest number that the model fits on; of those it fits on in none, the largest."""
    kinds: dict[tuple[str, str], Found] = {}
    for each in sorted(found, key=lambda each: each.offer.gpu_count):
        key = (each.offer.gpu_id, each.offer.cloud)
        if key not in kinds or kinds[key].fits is False:
            kinds[key] = each
    return list(kinds.values())


def _place(order: Order) -> Callable[[Found], tuple[object, ...]]:
    """Where a row stands: what does not fit and what has no stock come last whatever the order."""

    def place(found: Found) -> tuple[object, ...]:
        offer = found.offer
        price = offer.usd_per_hour if offer.usd_per_hour is not None else float("inf")
        stock = _STOCK.index(offer.stock)
        memory = -(offer.memory_bytes or 0) * offer.gpu_count
        last = (found.fits is False, offer.stock == "none")
        orders = {"price": (price, stock), "memory": (memory, price), "stock": (stock, price)}
        return (*last, *orders[order], offer.gpu, offer.cloud)

    return place
