"""`pod panel`: what is rented now, after a look at every company."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from podlab.commands.rent_results import RentalPanel
from podlab.commands.results import Outcome
from podlab.events import Stage, Work

if TYPE_CHECKING:
    from podlab.lab.workspace import Workspace


def panel(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.commands.handlers.money import companies
    from podlab.commands.handlers.rentals import all_of, drop_ended
    from podlab.lab.market import Market
    from podlab.lab.reconcile import reconcile

    market = Market.of(workspace)
    asked = companies(workspace, market, args.provider)
    yield Stage("reconcile", f"Holding the ledger against {', '.join(asked) or 'no company'}")
    found = reconcile(market, providers=asked)
    drop_ended(workspace)
    return Outcome(RentalPanel(all_of(workspace, ended=False), found.looked_at, len(found.foreign), found.problems))
