"""`model catalog`, `model register`, `model unregister`: the models podlab knows by name."""

from __future__ import annotations

import dataclasses
import re
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from podlab.commands.results import Done, ModelDetail, ModelList, ModelRow, Outcome, Plan, RecipeRow
from podlab.errors import BadArgument, NotFound, PodlabError
from podlab.events import Notice, Stage, Work

if TYPE_CHECKING:
    from podlab.catalog.catalog import ModelEntry
    from podlab.catalog.geometry import GpuRoom
    from podlab.catalog.recipes import Recipe
    from podlab.lab.workspace import Workspace

_COUNTS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}


def catalog(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.catalog import catalog as models

    lists = args.all or args.engine  # what a list is asked with: then even a model's own name is a word to look for
    if args.text and not lists and any(args.text in (entry.id, *entry.aliases) for entry in models.entries()):
        entry = models.find(args.text)
        pod, rooms, host_bytes = yield from _pod(workspace, args)
        return Outcome(_detail(_row(entry, models.recipes_of(entry), pod, rooms, host_bytes), entry))
    entries = [entry for entry in models.entries() if _matches(entry, args.text, args.engine)]
    if args.text and not entries:
        models.find(args.text)  # says what was meant
        raise NotFound(f"No model of the catalog is called {args.text!r}.", hint=f"Try: podlab model fit {args.text}")
    pod, rooms, host_bytes = yield from _pod(workspace, args)
    rows = [_row(entry, models.recipes_of(entry), pod, rooms, host_bytes) for entry in entries]
    fitting = [row for row in rows if row.fits is not False]
    shown = rows if args.all or not fitting else fitting
    if len(shown) < len(rows):
        yield Notice(f"{len(rows) - len(shown)} more do not fit {pod}. With --all they are shown, and why.")
    return Outcome(ModelList(tuple(sorted(shown, key=_place)), pod))


def register(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.catalog import own
    from podlab.units import parse_tokens

    yield from ()
    if not args.source:
        raise BadArgument("Where is it? --source is missing.", hint="Add --source hf:OWNER/REPO or another source.")
    said = {
        "source": args.source, "summary": args.summary, "engine": args.engine,
        "parameters": None if args.parameters is None else parse_count(args.parameters),
        "context": None if args.context is None else parse_tokens(args.context),
        "licence": args.licence, "gated": args.gated or None, "tool_parser": args.tool_parser,
        "reasoning_parser": args.reasoning_parser,
    }  # fmt: skip
    fields = {name: value for name, value in said.items() if value is not None}
    if args.dry_run:
        return Outcome(Plan((f"add {args.name} to models.toml: {args.source}",)))
    entry = own.register(args.name, fields)
    return Outcome(Done(f"{entry.id} is registered: {args.source}", {"model": entry.id}))


def unregister(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.catalog import own

    yield from ()
    if args.dry_run:
        return Outcome(Plan((f"take {args.name} out of models.toml",)))
    own.unregister(args.name)
    return Outcome(Done(f"{args.name} is taken out of models.toml; its files stay.", {"model": args.name}))


def parse_count(text: str) -> int:
    """'8B', '494M', '32.8B', '4_000_000_000' -> how many. Raises BadArgument."""
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)([KMBT]?)", text.strip().upper().replace("_", ""))
    found = round(float(match[1]) * _COUNTS[match[2]]) if match else 0
    if not 0 < found < 10**15:
        raise BadArgument(f"{text!r} is no number of parameters.", hint="Write it as 8B, 494M or 4_000_000_000.")
    return found


def _pod(workspace: Workspace, args: Namespace) -> Work[tuple[str, Sequence[GpuRoom], int | None]]:
    """The pod in use, its GPUs and its free memory; nothing of it where it does not answer, which is no failure."""
    from podlab.lab import gpus, pods

    pod = pods.meant(workspace, args.on)
    yield Stage("gpus", f"Asking {pod.name} for its GPUs")
    try:
        sample = gpus.sample(workspace, pod)
        return pod.name, gpus.rooms_from(sample, workspace.side(pod).list()), sample.host.memory_available_bytes
    except PodlabError as error:
        if args.on:
            raise
        yield Notice(f"What fits {pod.name} is not known: {error.message}", "warning")
        return "", (), None


def _matches(entry: ModelEntry, text: str | None, engine: str | None) -> bool:
    said = " ".join((entry.id, entry.summary, entry.licence, *entry.aliases)).lower()
    return all(word in said for word in (text or "").lower().split()) and engine in (None, entry.engine)


def _row(
    entry: ModelEntry, recipes: Sequence[Recipe], pod: str, rooms: Sequence[GpuRoom], host_bytes: int | None
) -> ModelRow:
    from podlab.catalog.screen import Screened, file_bytes, screen
    from podlab.catalog.sources import source_text

    found = screen(entry, recipes, rooms, host_bytes) if pod else Screened(None, "")
    size = entry.geometry.weight_bytes if entry.geometry else file_bytes(entry)
    return ModelRow(
        entry.id, entry.summary, entry.engine, source_text(entry.source), entry.parameters, size, entry.context,
        entry.licence or None, entry.active_parameters, entry.gated, found.fits, found.how,
    )  # fmt: skip


def _place(row: ModelRow) -> tuple[int, str]:
    """What fits first, then by engine; within that the order of the catalog, which keeps families together."""
    return (0 if row.fits else 1 if row.fits is None else 2), row.engine


def _detail(row: ModelRow, entry: ModelEntry) -> ModelDetail:
    from podlab.catalog import catalog as models

    shape: dict[str, Any] = dataclasses.asdict(entry.geometry) if entry.geometry else {}
    recipes = tuple(
        RecipeRow(
            recipe.gpus, recipe.types, recipe.engine, recipe.tensor_parallel, recipe.data_parallel, recipe.context,
            recipe.args, dict(recipe.env), recipe.nodes == 1, recipe.corrects or recipe.notes, recipe.source,
        )
        for recipe in models.recipes_of(entry)
    )  # fmt: skip
    known = {name: value for name, value in shape.items() if value not in (None, 0, "") and name != "source"}
    return ModelDetail(
        row, entry.aliases, entry.format, entry.tool_parser, entry.reasoning_parser, entry.min_version, known, recipes,
        dict(entry.source_of),
    )  # fmt: skip
