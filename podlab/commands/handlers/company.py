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
from podlab.errors import BadArgument, Refused
from podlab.events import Ask, Stage, Work
from podlab.lab.belongings import N, Named, named
from podlab.units import usd_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from podlab.commands.verb import Values
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
    found = _seen(workspace, "volumes", kept.volumes())
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
    answer = yield Ask(
        f"{said[0].upper()}{said[1:]} from {name}{pretended}?", "price", detail, yes=f"Rent for {usd} a month"
    )
    if not answer:
        raise Refused("No volume was rented.", hint="Repeat with --yes")
    made = kept.create_volume(args.name, size_gb=args.size, data_center=args.where, tier=args.tier or "")
    _seen(workspace, "volumes", (made,), more=True)
    note_rented(Ledger(), name, made, usd_per_month=_usd_per_month((made,)), simulated=simulated)
    return Outcome(VolumeList((made,), name, simulated, _usd_per_month((made,))))


def volume_delete(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab.volume_costs import note_deleted
    from podlab.ledger import Ledger

    name, simulated, kept = _asked(workspace, args)
    volume = named(_seen(workspace, "volumes", kept.volumes()), args.volume, "volume", name)
    pretended = " (simulated)" if simulated else ""
    if args.dry_run:
        return Outcome(Plan((f"delete the volume {volume.name} ({volume.id}) and all that is on it",)))
    detail = f"{volume.size_gb} GB in {volume.data_center}. All that is on it is gone for good."
    answer = yield Ask(
        f"Delete the volume {volume.name} ({volume.id}) at {name}{pretended}?", "delete", detail, yes="Delete"
    )
    if not answer:
        raise Refused(f"{volume.name} was not deleted, and is billed on.", hint="Repeat with --yes")
    kept.delete_volume(volume.id)
    note_deleted(Ledger(), volume.id)
    return Outcome(Done(f"The volume {volume.name} is deleted{pretended}.", {"volume": volume.id}))


def _seen(workspace: Workspace, sort: Values, found: tuple[N, ...], *, more: bool = False) -> tuple[N, ...]:
    """What the company said just now, whose names completion offers from now on; `more`: beside what it knew."""
    before = workspace.store.words(sort) if more else []
    workspace.store.saw_words(sort, [*before, *(each.name or each.id for each in found)])
    return found


def _usd_per_month(volumes: Sequence[Volume]) -> float:
    return sum(volume.size_gb for volume in volumes) * VOLUME_USD_PER_GB_MONTH


def templates(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    yield from ()
    name, simulated, kept = _asked(workspace, args)
    found = kept.templates(public=args.public)
    return Outcome(TemplateList(_seen(workspace, "templates", found, more=args.public), name, simulated))


def template_create(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab.rent_wish import check_ports, check_variables
    from podlab.renting import TemplateDraft

    name, simulated, kept = _asked(workspace, args)
    if not args.image:
        raise BadArgument("A template needs an image.", hint="Name it: --image runpod/pytorch:TAG")
    ports, pairs = tuple(args.port or ()), tuple(args.env or ())
    check_ports(ports)
    check_variables(pairs)
    login = named(kept.registries(), args.registry, "registry", name).id if args.registry else None
    draft = TemplateDraft(
        args.name, args.image, args.disk, args.persistent, args.mount, ports,
        dict(pair.split("=", 1) for pair in pairs), login,
    )  # fmt: skip
    if args.dry_run:
        return Outcome(Plan((f"keep the template {draft.name} of {draft.image} at {name}",)))
    yield Stage("template", f"Keeping the template {draft.name} at {name}")
    made = kept.create_template(draft)
    return Outcome(TemplateList(_seen(workspace, "templates", (made,), more=True), name, simulated))


def template_delete(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    name, simulated, kept = _asked(workspace, args)
    template = named(_seen(workspace, "templates", kept.templates()), args.template, "template", name)
    return (yield from _deleted(args, template, "template", "template", _where(name, simulated), kept.delete_template))


def _where(company: str, simulated: bool) -> str:
    return f"{company} (simulated)" if simulated else company


def _deleted(
    args: Namespace, thing: Named, kind: str, called: str, where: str, delete: Callable[[str], None]
) -> Work[Outcome]:  # fmt: skip
    """Have the company forget something that costs nothing, after a yes. Raises Refused for a no."""
    what = f"the {called} {thing.name} ({thing.id}) at {where}"
    if args.dry_run:
        return Outcome(Plan((f"delete {what}",)))
    if not (yield Ask(f"Delete {what}?", "delete", yes="Delete")):
        raise Refused(f"Nothing was deleted at {where}.", hint="Repeat with --yes")
    delete(thing.id)
    return Outcome(Done(f"The {called} {thing.name} at {where} is deleted.", {kind: thing.id}))


def registries(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    yield from ()
    name, simulated, kept = _asked(workspace, args)
    return Outcome(RegistryList(_seen(workspace, "registries", kept.registries()), name, simulated))


def registry_add(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import hidden

    name, simulated, kept = _asked(workspace, args)
    if not args.user:
        raise BadArgument("A login needs a user.", hint="Name it: --user NAME")
    if args.dry_run:
        return Outcome(Plan((f"keep a login of {args.user} as {args.name} at {name}",)))
    password = hidden.read(f"the password or token of {args.user}")
    yield Stage("registry", f"Keeping the login {args.name} at {name}")
    made = kept.add_registry(args.name, user=args.user, password=password)
    return Outcome(RegistryList(_seen(workspace, "registries", (made,), more=True), name, simulated))


def registry_delete(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    name, simulated, kept = _asked(workspace, args)
    registry = named(_seen(workspace, "registries", kept.registries()), args.registry, "registry", name)
    return (yield from _deleted(args, registry, "registry", "login", _where(name, simulated), kept.delete_registry))


def key_add(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from pathlib import Path

    from podlab.lab.rented import public_key

    name, simulated, kept = _asked(workspace, args)
    path = Path(args.file).expanduser() if args.file else None
    try:
        text = public_key() if path is None else path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadArgument(
            f"{path} cannot be read as a public key.", hint="Name a file such as ~/.ssh/id_ed25519.pub."
        ) from error
    if args.dry_run:
        return Outcome(Plan((f"add the key {text[:60]}... to those of {name}",)))
    yield Stage("key", f"Adding a key at {name}")
    return Outcome(AccountKeyList(kept.add_account_key(text), name, simulated))


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
