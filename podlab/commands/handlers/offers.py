"""`pod offers`: what a company rents out."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from podlab.commands.rent_results import OfferList, OfferRow
from podlab.commands.results import Outcome
from podlab.errors import BadArgument
from podlab.events import Notice, Work
from podlab.units import parse_bytes, parse_usd

if TYPE_CHECKING:
    from podlab.lab.market import Market
    from podlab.lab.offers import Found, Wanted
    from podlab.lab.workspace import Workspace


def offers(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab.market import Market

    market = Market.of(workspace)
    outcome = yield from listed(market, args.provider or workspace.value("provider"), args)
    found: OfferList = outcome.value
    workspace.store.saw_words("gpus", [row.gpu for row in found.offers])
    workspace.store.saw_words("datacenters", sorted({place for row in found.offers for place in row.data_centers}))
    return outcome


def listed(market: Market, provider: str, args: Namespace) -> Work[Outcome]:
    """The offers of a company as the arguments want them."""
    from podlab.lab import offers as offering

    found = yield from offering.listing(market, provider, wanted(args))
    shown = found if args.all else tuple(each for each in found if each.fits is not False and _rentable(each))
    if left_out := len(found) - len(shown):
        why = f"have no stock or do not fit {vars(args)['for']}" if vars(args)["for"] else "have no stock"
        yield Notice(f"{left_out} more {why}. With --all they are shown.")
    company = market.provider(provider)
    return Outcome(OfferList(tuple(map(row, shown)), company.name, company.simulated, vars(args)["for"] or ""))


def wanted(args: Namespace) -> Wanted:
    """What was asked for, from the options. Raises BadArgument naming the option, the value and the fix."""
    from podlab.lab.offers import Wanted

    if args.count is not None and not 1 <= args.count <= 16:
        raise BadArgument(f"--count {args.count} is no number of GPUs in one machine.", hint="Give 1 to 16.")
    gpus = tuple(part.strip() for part in " ".join(args.gpus).split(",") if part.strip())
    return Wanted(
        gpus, vars(args)["for"], args.count, None if args.cloud in (None, "any") else args.cloud,
        regions=tuple(args.region or ()),
        max_usd_per_hour=None if args.max_price is None else parse_usd(args.max_price),
        min_memory_bytes=None if args.min_memory is None else parse_bytes(args.min_memory), sort=args.sort,
    )  # fmt: skip


def row(found: Found) -> OfferRow:
    """An offer as a row."""
    offer = found.offer
    return OfferRow(
        offer.gpu, offer.gpu_id, offer.gpu_count, offer.cloud, offer.usd_per_hour, offer.memory_bytes, offer.stock,
        offer.data_centers, found.fits, found.how,
    )  # fmt: skip


def _rentable(found: Found) -> bool:
    return found.offer.stock != "none" and found.offer.usd_per_hour is not None
