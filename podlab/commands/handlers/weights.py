"""`model search`, `download`, `files` and the others that are about a model's files."""

from __future__ import annotations

import time
from argparse import Namespace
from dataclasses import replace
from typing import TYPE_CHECKING

from podlab.commands.results import (
    CacheQuota,
    DiskUsage,
    Done,
    DownloadDetail,
    DownloadList,
    FileList,
    HubModelList,
    Outcome,
    Plan,
    VerifyReport,
)
from podlab.errors import BadArgument, PodlabError, Refused
from podlab.events import Ask, Notice, Stage, Work
from podlab.types import HubModel, Pod
from podlab.units import bytes_text, parse_bytes

if TYPE_CHECKING:
    from podlab.lab.facts import PodFacts
    from podlab.lab.weights import Shelf
    from podlab.lab.workspace import Workspace

NEXT_SHOWN = 5
LEAST_QUOTA_BYTES = 1_000_000
"""Below it somebody forgot the unit."""


def search(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.catalog import search as hub_search

    yield Stage("search", f"Searching the hub for {args.text}")
    found = hub_search.search(args.text, format=args.format, limit=args.limit)
    pod, room_bytes = yield from _room(workspace, args)
    if room_bytes is not None:
        found = [_judged(model, room_bytes, hub_search.weight_bytes(model)) for model in found]
    return Outcome(HubModelList(tuple(found), pod))


def _room(workspace: Workspace, args: Namespace) -> Work[tuple[str, int | None]]:
    """The pod in use and the memory that weights could have there; None where that is not known."""
    from podlab.lab import gpus, pods

    try:
        pod = pods.meant(workspace, args.on)
        sample = gpus.sample(workspace, pod)
        cards = sum(room.free_bytes for room in gpus.rooms_from(sample, ()))
        return pod.name, cards or sample.host.memory_available_bytes
    except PodlabError as error:
        if args.on:
            raise
        yield Notice(f"What would fit is not known: {error.message}")
        return "", None


def _judged(model: HubModel, room_bytes: int, weights_bytes: int | None) -> HubModel:
    return replace(model, fits=None if weights_bytes is None else weights_bytes <= room_bytes)


def download(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import downloads, pods

    pod = pods.meant(workspace, args.on)
    wish = downloads.DownloadWish(
        args.model, args.revision, tuple(args.include or ()), tuple(args.exclude or ()), args.force
    )
    if args.dry_run:
        return Outcome(Plan(downloads.plan(pod, wish)))
    fetched = yield from downloads.download(workspace, pod, wish, detach=args.detach)
    return Outcome(DownloadDetail(fetched.row, fetched.model))


def downloads(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import downloads as lab
    from podlab.lab import pods

    asked = [pods.meant(workspace, args.on)] if args.on else pods.all_pods()
    rows, statuses = (yield from lab.live(workspace, asked)) if args.live else lab.listing(workspace, asked)
    return Outcome(DownloadList(tuple(rows), tuple(statuses)))


def files(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import weights

    pod, _, found = yield from _shelf(workspace, args)
    text = getattr(args, "model", None)
    if text:
        return Outcome(FileList((weights.named(text, found),), pod.name, one=True))
    return Outcome(FileList(found.models, pod.name))


def verify(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import weights

    pod, facts, found = yield from _shelf(workspace, args)
    model = weights.named(args.model, found)
    began = time.monotonic()
    checked = yield from weights.verify(workspace, pod, facts, model)
    took_s = time.monotonic() - began
    bad = [file for file in checked if file.state in ("damaged", "missing", "unreadable")]
    on = "" if pod.name == workspace.value("pod") else f" --on {pod.name}"
    mend = f"podlab model download {model.id}{on}" if bad and model.id.startswith("hf:") else ""
    total = sum(file.size_bytes for file in model.files)
    return Outcome(VerifyReport(model.id, pod.name, not bad, checked, total, took_s, mend), 1 if bad else 0)


def delete(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import weights

    pod, facts, found = yield from _shelf(workspace, args)
    model = weights.named(args.model, found)
    weights.refuse_used(model)
    if args.dry_run:
        return Outcome(Plan((f"delete {model.path} on {pod.name}, {bytes_text(model.size_bytes)}",)))
    answer = yield Ask(
        f"Delete {model.id} on {pod.name}, {bytes_text(model.size_bytes)}?", "delete", model.path, yes="Delete"
    )
    if not answer:
        raise Refused(f"{model.id} was not deleted.", hint="Repeat with --yes to delete it without a question.")
    freed = weights.delete(workspace, pod, facts, [model.id])
    return Outcome(Done(f"Deleted {model.id} on {pod.name}: {bytes_text(freed)} are free again.", {"model": model.id}))


def usage(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    _, _, found = yield from _shelf(workspace, args, others=True)
    return Outcome(DiskUsage(found.disk, found.models, found.others))


def cache(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import pods, weights

    quota = None if args.quota in (None, "none") else parse_bytes(args.quota)
    if quota is not None and quota < LEAST_QUOTA_BYTES:
        raise BadArgument(
            f"A quota of {bytes_text(quota)} has room for no model.", hint="Give a size such as 200GB, or none."
        )
    if args.dry_run and args.quota is not None:
        said = "as much as there is room" if quota is None else bytes_text(quota)
        return Outcome(Plan((f"say on {pods.meant(workspace, args.on).name} that its models may take {said}",)))
    pod, facts, found = yield from _shelf(workspace, args)
    if args.quota is not None:
        weights.set_quota(workspace, pod, facts, quota)
        found = replace(found, disk=replace(found.disk, quota_bytes=quota))
    free = [model for model in found.models if not model.used_by]
    oldest = sorted(free, key=lambda model: model.last_used)[:NEXT_SHOWN]
    return Outcome(CacheQuota(found.disk, tuple(model.id for model in oldest)))


def convert(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import conversion, weights

    pod, facts, found = yield from _shelf(workspace, args)
    model = weights.named(args.model, found)
    target = conversion.target(found, model, args.quant)
    if args.dry_run:
        return Outcome(Plan((f"prepare the converter on {pod.name}, unless it is there", f"write {target}")))
    made = yield from conversion.convert(workspace, pod, facts, model, args.quant, target, force=args.force)
    return Outcome(FileList((made,), pod.name, one=True))


def _shelf(workspace: Workspace, args: Namespace, *, others: bool = False) -> Work[tuple[Pod, PodFacts, Shelf]]:
    """The pod that is meant, and what it has."""
    from podlab.lab import pods, weights

    pod = pods.meant(workspace, args.on)
    facts = yield from pods.reach(workspace, pod)
    yield Stage("files", f"Looking at the models on {pod.name}")
    return pod, facts, weights.shelf(workspace, pod, facts, others=others)
