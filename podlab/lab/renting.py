"""Renting a pod: the plan, the question of its price, and the walk down the candidates.

plan(market, wish)               what would be tried and what it would cost; nothing is asked but reads
create(workspace, market, wish)  the same, asked about, and then rented
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from podlab.catalog import catalog
from podlab.catalog.reading import geometry_of
from podlab.errors import (
    AlreadyExists,
    BadArgument,
    BadOrder,
    NotAllowed,
    OutOfStock,
    ProviderUnavailable,
    RateLimited,
    Refused,
)
from podlab.events import Ask, Notice, Stage, Work
from podlab.lab.attempts import PRICE_SLACK_USD, Agreed, BadDraw, Crew, NothingCame, attempt
from podlab.lab.belongings import named
from podlab.lab.candidates import Candidate, Need, accepted, lies_in, matching, rank, told, without
from podlab.lab.launches import Launch, all_launches
from podlab.lab.market import Market
from podlab.lab.money import WorstCase, check_order, most_usd, policy_facts, worst_case_of_order
from podlab.lab.offers import judge_of
from podlab.lab.reconcile import reconcile
from podlab.lab.rent_wish import RentWish
from podlab.providers.base import Belongings, Provider
from podlab.renting import Offer, Policy

COUNTS = (1, 2, 4, 8)
"""Numbers of GPUs that are tried for a model where nobody says how many."""
SPARE_S = 900.0
"""For how long a pod may cost money beyond its limit when one thing fails."""
FRESH_S = 20.0
"""Prices older than this are read again before a pod is rented by them."""
OWN_START = "if its image has an entry point of its own, no switch starts, and only this computer ends it"
WAIT_S = 30.0
TRIES = 3
"""Of one candidate: with another machine, or where the provider only did not answer."""
DRAWS = 3
"""Bad machines in all before a person has to look."""


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
        """The most that any of the candidates costs; what one to be waited for may cost."""
        if self.wish.wait_s is not None and self.wish.max_usd_per_hour is not None:
            return self.wish.max_usd_per_hour
        return max((each.usd_per_hour for each in self.candidates), default=0.0)

    @property
    def simulated(self) -> bool:
        """Whether all of it is pretended."""
        return any(each.offer.simulated for each in (*self.candidates, *self.refused))

    @property
    def limit_usd(self) -> float | None:
        """What it costs at most when its limits are kept; None: nothing limits it but a person."""
        return most_usd(self.policy, self.usd_per_hour, self.at)

    @property
    def worst_usd(self) -> float | None:
        """What it costs at most when one thing fails: the computer, the network, the provider."""
        return None if self.limit_usd is None else self.limit_usd + SPARE_S / 3600 * self.usd_per_hour

    @property
    def left_alone(self) -> WorstCase:
        """What it costs when this computer is gone for good right after it was rented."""
        worst = worst_case_of_order(self.policy, self.usd_per_hour, self.at)
        return worst if self.wish.starts_switch else replace(worst, why=f"{worst.why}; {OWN_START}")

    @property
    def left_alone_usd(self) -> float:
        """That in dollars."""
        return self.left_alone.usd or 0.0


def plan(market: Market, wish: RentWish) -> Work[RentPlan]:
    """What would be tried, and what it would cost. Nothing is changed, and nothing written.

    Raises BadArgument for a wish that cannot be, NotFound for a model, and ProviderError as reading offers does.
    """
    wish.check()
    provider = market.provider(wish.provider)
    if not provider.rents:
        raise BadArgument(
            f"{provider.name} rents nothing: its machines are there already.",
            hint="Rent from a company: --provider runpod, or --provider sandbox, which is pretended.",
        )
    wish = resolved(provider, wish)
    need = None if wish.for_model is None else (yield from _need(wish.for_model))
    counts = COUNTS if need is not None and wish.count is None else (wish.count or 1,)
    yield Stage("offers", f"Reading what {provider.name} offers")
    at = market.now()
    offers = [offer for count in counts for offer in provider.offers(wish.query(count))]
    wish = replace(wish, gpus=(yield from _meant(wish.gpus, offers)))
    ranked = rank(offers, wish, need=need)
    deadline_at = None if wish.ttl_s is None else at + wish.ttl_s
    return RentPlan(
        wish, accepted(ranked), tuple(each for each in ranked if each.refused),
        Policy(deadline_at, wish.budget_usd, wish.idle_s, wish.lease_s), at,
    )  # fmt: skip


def _meant(names: tuple[str, ...], offers: Sequence[Offer]) -> Work[tuple[str, ...]]:
    """The GPUs that these names mean; which of several, a person is asked. One that nobody answers for stays."""
    found = []
    for name in names:
        several = sorted(matching(name, [offer.gpu_id for offer in offers]), key=lambda each: told(each, offers))
        if len(several) > 1:
            choices = tuple(told(each, offers) for each in several)
            answer = yield Ask(f"Which GPU is meant by {name!r}?", "choice", choices=choices)
            name = several[answer] if isinstance(answer, int) and not isinstance(answer, bool) else name
        found.append(name)
    return tuple(found)


def resolved(provider: Provider, wish: RentWish) -> RentWish:
    """The wish with the ids of the volume, template and registry that it names, and in the volume's data center.

    Raises NotFound for a name that the account has not, BadArgument for one of several or in another place.
    """
    if wish.volume is None and wish.template is None and wish.registry is None:
        return wish
    if not isinstance(provider, Belongings):
        raise BadArgument(f"{provider.name} keeps no volumes, templates or registries.", hint="Leave them away.")
    if wish.registry is not None:
        wish = replace(wish, registry=named(provider.registries(), wish.registry, "registry", provider.name).id)
    if wish.template is not None:
        templates = (*provider.templates(), *provider.templates(public=True))
        wish = replace(wish, template=named(templates, wish.template, "template", provider.name).id)
    if wish.volume is not None:
        volume = named(provider.volumes(), wish.volume, "volume", provider.name)
        if wish.regions and not any(lies_in(volume.data_center, region) for region in wish.regions):
            raise BadArgument(
                f"The volume {volume.name} is in {volume.data_center}, and --region says {', '.join(wish.regions)}.",
                hint="Leave --region away.",
            )
        wish = replace(wish, volume=volume.id, regions=(volume.data_center,))
    return wish


def refuse_empty(found: RentPlan) -> None:
    """Raise OutOfStock, saying why each preferred machine is not to be had, when there is nothing to try."""
    if found.candidates:
        return
    told_of = [each for each in found.refused if not each.refused.startswith("not a")][:3]
    why = "; ".join(f"{each.title}: {each.refused}" for each in told_of) or "it offers nothing of the kind"
    if not told_of and not found.wish.gpus and found.wish.for_model is None:
        why = f"it offers none of {', '.join(found.wish.preferences)} (the setting rent.gpu_preferences)"
    raise OutOfStock(
        f"{found.wish.provider} has no machine for this: {why}.", provider=found.wish.provider,
        hint=_places_hint(found) or "See what there is: podlab pod offers. Wait for one: --wait 1h --max-price PRICE",
    )  # fmt: skip


def _places_hint(found: RentPlan) -> str:
    """What a region can be, where nothing at all is in those that were asked for."""
    places = sorted({place for each in found.refused for place in each.offer.data_centers})
    if not places or any(lies_in(place, region) for place in places for region in found.wish.regions or places):
        return ""
    return f"--region takes a data centre or the beginning of its name: {', '.join(places)}."


def _need(model: str) -> Work[Need]:
    """What a model asks of a machine, by the same arithmetic that judges a start."""
    entry = catalog.find(model)
    yield Stage("shape", f"Reading the shape of {entry.id}")
    judge = judge_of(entry, geometry_of(entry))

    def refusal(offer: Offer) -> str:
        verdict = judge(offer)
        return "" if verdict.fits else f"{entry.id} does not fit: {verdict.reason}"

    return Need(entry.id, refusal)


def at_price(found: RentPlan, usd_per_hour: float) -> RentPlan:
    """The plan without what costs more."""
    kept = tuple(each for each in found.candidates if each.usd_per_hour <= usd_per_hour + 1e-9)
    return replace(found, candidates=kept)


def create(market: Market, wish: RentWish, crew: Crew) -> Work[Launch]:
    """Rent a pod: what would be tried is shown with its price and asked about, then tried one after the other.

    Raises as `plan` does; Refused where the answer is no, a cap does not allow it, or a price has risen since it was
    quoted; OutOfStock with what was tried; RentalFailed with the ids of a pod that is not what it should be.
    """
    wish.check()
    if wish.name is not None and wish.name in crew.taken():
        raise AlreadyExists(f"There is a pod {wish.name!r} already.", hint="Choose another name.")
    yield from _reconciled(market, wish)
    found = yield from plan(market, wish)
    waits = wish.wait_s is not None
    if not waits:
        refuse_empty(found)
    most = found.usd_per_hour
    notes = check_order(
        all_launches(market.ledger), most, crew.caps(), market.now(), simulated=found.simulated
    )  # fmt: skip
    answer = yield Ask(question(found), "price", detail="\n".join(notes), facts=facts(found), yes=_yes(found))
    if not answer:
        why = "Nobody could be asked" if answer is None else "The answer was no"
        raise Refused(f"{why}, so nothing was rented.", hint="Say it in advance with --yes.")
    if problem := crew.watched():
        said = f"Nobody on this computer watches what is rented: {problem.rstrip('.')}. The switch on the pod does."
        yield Notice(said, "warning")
    walk = _Walk(market, found, crew, most)
    return (yield from (_waited(walk) if waits else walk.once((yield from _requoted(market, found)))))


def question(found: RentPlan) -> str:
    """The price as a question."""
    pretended = " (simulated)" if found.simulated else ""
    dearest = f"${found.usd_per_hour:.3f}/h"
    if not found.candidates:
        return f"Wait for a machine up to {dearest} and rent it?{pretended}"
    first, *others = found.candidates
    more = (
        f", or wait for another one up to {dearest}" if found.wish.wait_s is not None
        else f", or one of {len(others)} others up to {dearest}" if others
        else ""
    )  # fmt: skip
    return f"Rent {first.title} for ${first.usd_per_hour:.3f}/h{more}?{pretended}"


def facts(found: RentPlan) -> tuple[tuple[str, str], ...]:
    """What a yes means: the price, what the pod can cost, what ends it, and what it costs if this computer died."""
    dearest = f"${found.usd_per_hour:.3f}/h"
    first = f"${found.candidates[0].usd_per_hour:.3f}/h" if found.candidates else dearest
    price = first if first == dearest else f"{first}, and {dearest} at most if that one is taken"
    cap = (
        "none: nothing limits what it costs"
        if found.limit_usd is None
        else f"${found.limit_usd:.2f} at most, and ${found.worst_usd:.2f} if one thing fails at the end; minutes of a "
        "machine that does not work, and is replaced, are billed besides"
    )
    alone = found.left_alone
    died = "if this computer died right after"
    worst = f"no bound {died}: {alone.why}" if alone.usd is None else f"${alone.usd:.2f} {died}: {alone.why}"
    return ("price", price), ("cap", cap), *policy_facts(found.policy, found.at), ("worst case", worst)


def _yes(found: RentPlan) -> str:
    """What a button says that agrees to the price, which is the most that may be paid for it."""
    verb = "Rent" if found.candidates and found.wish.wait_s is None else "Wait and rent"
    most = "" if len(found.candidates) == 1 and found.wish.wait_s is None else "up to "
    return f"{verb} for {most}${found.usd_per_hour:.3f}/h"


def _reconciled(market: Market, wish: RentWish) -> Work[None]:
    """What is known to have gone wrong is told, and mended, before more is rented."""
    yield Stage("reconcile", "Comparing the ledger with what the provider lists")
    seen = reconcile(market, providers=(wish.provider,))
    for problem in seen.problems:
        yield Notice(problem, "warning")
    for _, rental in seen.duplicates:
        yield Notice(f"{rental.name} ({rental.id}) came twice of one order; its end was asked for.", "warning")


def _requoted(market: Market, quoted: RentPlan) -> Work[RentPlan]:
    """The plan as it is now that a person has said yes. Raises Refused when a price has risen meanwhile."""
    if 0 <= market.now() - quoted.at <= FRESH_S:
        return quoted
    now = yield from plan(market, quoted.wish)
    agreed = {_machine(each): each.usd_per_hour for each in quoted.candidates}
    for each in now.candidates:
        before = agreed.get(_machine(each))
        if before is not None and each.usd_per_hour > before + PRICE_SLACK_USD:
            raise Refused(
                f"{each.title} costs ${each.usd_per_hour:.3f}/h by now, and ${before:.3f}/h was agreed. Nothing was "
                "rented.",
                hint="Ask again to see the new prices.",
            )  # fmt: skip
    kept = tuple(each for each in now.candidates if _machine(each) in agreed)
    again = replace(now, candidates=kept)
    refuse_empty(again)
    return again


def _machine(candidate: Candidate) -> tuple[str, int, str]:
    return candidate.offer.gpu_id, candidate.offer.gpu_count, candidate.offer.cloud


def _waited(walk: _Walk) -> Work[Launch]:
    """Look again and again for a machine within the price, until one works or the time to wait is over."""
    market, wish = walk.market, walk.quoted.wish
    begun_at = market.ticks()
    found = walk.quoted
    while True:
        try:
            refuse_empty(found)
            return (yield from walk.once(found))
        except (OutOfStock, ProviderUnavailable, RateLimited) as error:
            waited_s = market.ticks() - begun_at
            if waited_s >= (wish.wait_s or 0.0):
                raise
            pause_s = max(WAIT_S, error.retry_after_s if isinstance(error, RateLimited) else 0.0)
            said = error.message
        try:
            yield Stage("stock", f"Waiting for a machine, asked again in {pause_s:.0f} s: {said}")
            market.pause(pause_s)
        except KeyboardInterrupt:
            yield Notice("It is waited for no longer, and nothing was rented.")
            raise
        try:
            found = yield from plan(market, wish)
        except (ProviderUnavailable, RateLimited) as error:
            yield Notice(error.message, "warning")


class _Walk:
    """The way down the candidates: one after the other, and never two at once."""

    def __init__(self, market: Market, quoted: RentPlan, crew: Crew, most_usd_per_hour: float) -> None:
        self.market = market
        self.quoted = quoted
        self.crew = crew
        self.most_usd_per_hour = most_usd_per_hour
        self.trail: list[str] = []
        self.draws = 0
        self.refusals: list[BadOrder] = []
        self.bad: set[str] = set()
        """Data centers that gave a machine that was no good."""

    def once(self, found: RentPlan) -> Work[Launch]:
        """Try every candidate. Raises OutOfStock with the trail when none came, BadOrder where none was accepted."""
        self.trail, self.refusals = [], []
        for candidate in at_price(found, self.most_usd_per_hour).candidates:
            launch = yield from self._tried(candidate, found.wish)
            if launch is not None:
                return launch
            if self.trail:
                yield Notice(self.trail[-1])
        if self.refusals and len(self.refusals) == len(self.trail):
            raise self.refusals[-1]
        raise OutOfStock(
            f"None of {len(found.candidates)} came: {'; '.join(self.trail)}", provider=found.wish.provider,
            hint="It may be the stock, or a list of places that is too narrow. Wait for one: --wait 1h --max-price "
            f"{self.most_usd_per_hour:.2f}",
        )  # fmt: skip

    def _tried(self, candidate: Candidate, wish: RentWish) -> Work[Launch | None]:
        """One candidate, again where that may help. None: the next one's turn."""
        for again in range(TRIES):
            place = without(candidate, frozenset(self.bad))
            if place is None:
                self.trail.append(f"{candidate.title}: only where machines were bad ({', '.join(sorted(self.bad))})")
                return None
            try:
                agreed = Agreed(wish, self.quoted.policy)
                return (yield from attempt(self.market, agreed, place, self.crew))
            except (OutOfStock, NotAllowed) as error:
                self.trail.append(f"{candidate.title}: {error.message}")
                return None
            except BadOrder as error:
                # 400 is also what a provider says to an order for what is not free, in words that change.
                if error.status != 400:
                    raise
                self.trail.append(f"{candidate.title}: {error.message}")
                self.refusals.append(error)
                return None
            except BadDraw as draw:
                self.trail.append(f"{candidate.title}: {draw.message}")
                self.draws += 1
                if self.draws >= DRAWS:
                    raise
                if draw.data_center is None:
                    return None
                self.bad.add(draw.data_center)
            except (NothingCame, ProviderUnavailable, RateLimited) as error:
                if again == TRIES - 1:
                    raise
                pause_s = error.retry_after_s if isinstance(error, RateLimited) else 2.0**again
                yield Stage("again", f"{error.message} Trying again in {pause_s:.0f} s")
                self.market.pause(pause_s)
        return None
