"""Renting a pod: the plan, the question of its price, and the walk down the candidates.

plan(market, wish)               what would be tried and what it would cost; nothing is asked but reads
create(workspace, market, wish)  the same, asked about, and then rented
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from podlab.catalog import catalog
from podlab.catalog.fit import Wish as FitWish
from podlab.catalog.geometry import Geometry, GpuRoom
from podlab.catalog.gpus import type_of
from podlab.catalog.reading import geometry_of
from podlab.errors import OutOfStock
from podlab.events import Stage, Work
from podlab.lab import fit
from podlab.lab.candidates import Candidate, Need, accepted, rank
from podlab.lab.market import Market
from podlab.lab.rent_wish import RentWish
from podlab.renting import Offer, Policy

COUNTS = (1, 2, 4, 8)
"""Numbers of GPUs that are tried for a model where nobody says how many."""
SPARE_S = 900.0
"""For how long a pod may cost money beyond its limit when one thing fails: the computer, the network, the provider."""


@dataclass(frozen=True)
class RentPlan:
    """What a create would do. Dollars an hour are for the machine and its disk together."""

    wish: RentWish
    candidates: tuple[Candidate, ...]
    """To be tried in this order, one after the other."""
    refused: tuple[Candidate, ...]
    """What was offered and will not be tried, each with its reason."""
    policy: Policy
    """What ends the pod; its deadline is counted from now."""
    at: float
    """When the prices were read."""

    @property
    def usd_per_hour(self) -> float:
        """The most that any of the candidates costs."""
        return max((each.usd_per_hour for each in self.candidates), default=0.0)

    @property
    def simulated(self) -> bool:
        """Whether all of it is pretended."""
        return any(each.offer.simulated for each in (*self.candidates, *self.refused))

    @property
    def limit_usd(self) -> float | None:
        """What it costs at most while everything works; None: nothing limits it but a person."""
        limits = [] if self.policy.budget_usd is None else [self.policy.budget_usd]
        if self.policy.deadline_at is not None:
            limits.append((self.policy.deadline_at - self.at) / 3600 * self.usd_per_hour)
        return min(limits, default=None)

    @property
    def worst_usd(self) -> float | None:
        """What it costs at most when one thing fails."""
        return None if self.limit_usd is None else self.limit_usd + SPARE_S / 3600 * self.usd_per_hour

    @property
    def left_alone_usd(self) -> float:
        """What it costs from the moment on when this computer is gone for good."""
        return (self.policy.lease_s + SPARE_S) / 3600 * self.usd_per_hour


def plan(market: Market, wish: RentWish) -> Work[RentPlan]:
    """What would be tried, and what it would cost. Nothing is changed, and nothing written.

    Raises BadArgument for a wish that cannot be, NotFound for a model, and ProviderError as reading offers does.
    """
    wish.check()
    provider = market.provider(wish.provider)
    need = None if wish.for_model is None else (yield from _need(wish.for_model))
    counts = COUNTS if need is not None and wish.count is None else (wish.count or 1,)
    yield Stage("offers", f"Reading what {provider.name} offers")
    at = market.now()
    offers = [offer for count in counts for offer in provider.offers(wish.query(count))]
    ranked = rank(offers, wish, need=need)
    deadline_at = None if wish.ttl_s is None else at + wish.ttl_s
    return RentPlan(
        wish, accepted(ranked), tuple(each for each in ranked if each.refused),
        Policy(deadline_at, wish.budget_usd, wish.idle_s, wish.lease_s), at,
    )  # fmt: skip


def refuse_empty(found: RentPlan) -> None:
    """Raise OutOfStock, saying why each preferred machine is not to be had, when there is nothing to try."""
    if found.candidates:
        return
    told = [each for each in found.refused if not each.refused.startswith("not a")][:3]
    why = "; ".join(f"{each.title}: {each.refused}" for each in told) or "it offers nothing of the kind"
    raise OutOfStock(
        f"{found.wish.provider} has no machine for this: {why}.", provider=found.wish.provider,
        hint="See what there is: podlab pod offers. Wait for one: --wait 1h --max-price PRICE",
    )  # fmt: skip


def _need(model: str) -> Work[Need]:
    """What a model asks of a machine, by the same arithmetic that judges a start."""
    entry = catalog.find(model)
    yield Stage("shape", f"Reading the shape of {entry.id}")
    geometry = geometry_of(entry)
    return Need(entry.id, lambda offer: _too_small(entry, geometry, offer))


def _too_small(entry: catalog.ModelEntry, geometry: Geometry, offer: Offer) -> str:
    kind = type_of(offer.gpu_id) or type_of(offer.gpu)
    memory_bytes = kind.memory_bytes if kind else offer.memory_bytes
    if memory_bytes is None:
        return "how much memory it has is not known"
    name = kind.name if kind else offer.gpu
    rooms = tuple(GpuRoom(index, name, memory_bytes, memory_bytes) for index in range(offer.gpu_count))
    verdict = fit.verdict(entry, geometry, rooms, FitWish())
    return "" if verdict.fits else f"{entry.id} does not fit: {verdict.reason}"


def at_price(found: RentPlan, usd_per_hour: float) -> RentPlan:
    """The plan without what costs more."""
    kept = tuple(each for each in found.candidates if each.usd_per_hour <= usd_per_hour + 1e-9)
    return replace(found, candidates=kept)
