"""What an account keeps at a company beside pods: volumes, templates, logins to registries, keys; its balance."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from podlab.commands.rent_results import (
    AccountDetail,
    AccountKeyList,
    RegistryList,
    TemplateList,
    VolumeList,
)
from podlab.commands.results import Done, Outcome, Plan
from podlab.errors import BadArgument, NotFound, Refused
from podlab.events import Ask, Work
from podlab.units import usd_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podlab.lab.workspace import Workspace
    from podlab.providers.base import Belongings
    from podlab.renting import Volume

VOLUME_USD_PER_GB_MONTH = 0.07
"""Of a network volume below 1 TB: https://docs.runpod.io/pods/pricing, 2026-08-20. Larger ones cost less a GB."""
SMALLEST_GB, LARGEST_GB = 10, 4096


def _asked(workspace: Workspace, args: Namespace) -> tuple[str, bool, Belongings]:
    """The company that is meant, whether it is pretended, and what it keeps."""
    from podlab.providers import companies

    name = args.provider or workspace.value("provider")
    return name, companies.company(name).simulated, companies.belongings(name)


def volumes(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    yield from ()
    name, simulated, kept = _asked(workspace, args)
    found = kept.volumes()
    return Outcome(VolumeList(found, name, simulated, _usd_per_month(found)))


def volume_create(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab.volume_costs import note_rented
    from podlab.ledger import Ledger

    name, simulated, kept = _asked(workspace, args)
    if not SMALLEST_GB <= args.size <= LARGEST_GB:
        raise BadArgument(
            f"--size {args.size} is no size of a volume.", hint=f"Give GB, {SMALLEST_GB} to {LARGEST_GB}."
        )
    said = f"rent a network volume of {args.size} GB in {args.where}"
    if args.dry_run:
        return Outcome(Plan((said,)))
    usd = usd_text(args.size * VOLUME_USD_PER_GB_MONTH)
    pretended = " (simulated)" if simulated else ""
    detail = f"About {usd} a month until it is deleted, whether a pod uses it or not. No budget of podlab ends it."
    answer = yield Ask(f"{said[0].upper()}{said[1:]} from {name}{pretended}?", "price", detail)
    if not answer:
        raise Refused("No volume was rented.", hint="Repeat with --yes")
    made = kept.create_volume(args.name, size_gb=args.size, data_center=args.where, tier=args.tier or "")
    note_rented(Ledger(), name, made, usd_per_month=_usd_per_month((made,)), simulated=simulated)
    return Outcome(VolumeList((made,), name, simulated, _usd_per_month((made,))))


def volume_delete(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab.volume_costs import note_deleted
    from podlab.ledger import Ledger

    name, simulated, kept = _asked(workspace, args)
    volume = _volume(kept.volumes(), args.volume, name)
    pretended = " (simulated)" if simulated else ""
    if args.dry_run:
        return Outcome(Plan((f"delete the volume {volume.name} ({volume.id}) and all that is on it",)))
    detail = f"{volume.size_gb} GB in {volume.data_center}. All that is on it is gone for good."
    answer = yield Ask(f"Delete the volume {volume.name} ({volume.id}) at {name}{pretended}?", "delete", detail)
    if not answer:
        raise Refused(f"{volume.name} was not deleted, and is billed on.", hint="Repeat with --yes")
    kept.delete_volume(volume.id)
    note_deleted(Ledger(), volume.id)
    return Outcome(Done(f"The volume {volume.name} is deleted{pretended}.", {"volume": volume.id}))


def _volume(volumes: Sequence[Volume], text: str, company: str) -> Volume:
    """The volume of that id, or the one of that name. Raises NotFound, and BadArgument where several have it."""
    found = [each for each in volumes if each.id == text] or [each for each in volumes if each.name == text]
    if not found:
        known = ", ".join(each.name for each in volumes) or "none"
        raise NotFound(f"{company} has no volume {text!r}.", hint=f"It has: {known}. See: podlab pod volumes")
    if len(found) > 1:
        ids = " or ".join(each.id for each in found)
        raise BadArgument(f"{len(found)} volumes are called {text!r}.", hint=f"Name it by its id: {ids}.")
    return found[0]


def _usd_per_month(volumes: Sequence[Volume]) -> float:
    return sum(volume.size_gb for volume in volumes) * VOLUME_USD_PER_GB_MONTH


def templates(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    yield from ()
    name, simulated, kept = _asked(workspace, args)
    return Outcome(TemplateList(kept.templates(public=args.public), name, simulated))


def registries(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    yield from ()
    name, simulated, kept = _asked(workspace, args)
    return Outcome(RegistryList(kept.registries(), name, simulated))


def keys(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    yield from ()
    name, simulated, kept = _asked(workspace, args)
    return Outcome(AccountKeyList(kept.account_keys(), name, simulated))


def account(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.providers import companies

    yield from ()
    company = companies.company(args.provider or workspace.value("provider"))
    if not company.rents:
        raise BadArgument(
            f"{company.name} has no account: nothing is rented there.", hint="Name one: --provider runpod"
        )
    found = company.account()
    spent, balance = found.spend_usd_per_hour, found.balance_usd
    lasts_s = balance / spent * 3600 if balance is not None and spent else None
    return Outcome(AccountDetail(found, company.simulated, lasts_s))
