"""`pod import`: machines that another tool knows."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from podlab.commands.results import ImportList, ImportRow, Outcome, Plan
from podlab.errors import NotFound
from podlab.events import Notice, Work

if TYPE_CHECKING:
    from podlab.lab.imports import Findings, Machine
    from podlab.lab.workspace import Workspace


def take_over(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab import secrets
    from podlab.lab import imports, pods

    found = imports.read(args.tool, Path(args.file).expanduser() if args.file else None)
    judged = imports.judge(_chosen(found, args.names))
    new = [outcome.pod for outcome in judged if outcome.state == "new" and outcome.pod is not None]
    refused = any(outcome.state == "refused" for outcome in judged)
    if args.dry_run:
        words = {"new": "add {}", "there": "leave {}, which is there", "refused": "refuse {}"}
        would = [
            words[outcome.state].format(f"{outcome.machine.name} ({outcome.machine.address})")
            + (f": {outcome.detail}" if outcome.state == "refused" else "")
            for outcome in judged
        ]
        would += ["keep its API key as the secret RUNPOD_API_KEY"] if found.key and args.with_keys else []
        return Outcome(Plan(tuple(would) or (f"nothing: {found.path} knows no machine",)), 1 if refused else 0)
    pods.adopt_all(new)
    if found.key is not None and args.with_keys:
        secrets.keep("RUNPOD_API_KEY", found.key)
    elif found.key is not None:
        yield Notice(f"{found.path} holds an API key; it was left there. To keep it as RUNPOD_API_KEY: --with-keys")
    if found.in_use in [pod.name for pod in new] and workspace.value("pod") == "local":
        yield Notice(f"{args.tool} was using {found.in_use}. To do so here: podlab pod use {found.in_use}")
    rows = tuple(
        ImportRow(outcome.machine.name, outcome.machine.address,
                  "added" if outcome.state == "new" else outcome.state,
                  "; ".join(filter(None, (outcome.detail, *outcome.machine.notes))))
        for outcome in judged
    )  # fmt: skip
    return Outcome(ImportList(rows, args.tool, str(found.path), found.notes), 1 if refused else 0)


def _chosen(found: Findings, names: list[str]) -> tuple[Machine, ...]:
    known = [machine.name for machine in found.machines]
    for name in names:
        if name not in known:
            raise NotFound(f"{found.path} knows no machine {name!r}.", hint=f"It knows: {', '.join(known) or 'none'}.")
    return tuple(machine for machine in found.machines if not names or machine.name in names)
