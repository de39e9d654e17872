"""podlab's own things: `config`, `secret`, `logs`."""

from __future__ import annotations

import os
from argparse import Namespace
from typing import TYPE_CHECKING

from podlab.commands.results import (
    Done,
    Outcome,
    Plan,
    SecretList,
    SecretRow,
    SettingList,
    SettingRow,
)
from podlab.durable import translated
from podlab.errors import BadArgument, BadSettings, NotFound, Refused
from podlab.events import Ask, Notice, Work
from podlab.types import LogLines

if TYPE_CHECKING:
    from podlab.lab.workspace import Workspace


def config_show(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab import settings

    try:
        settings.check()
    except BadSettings as error:  # what is in force is shown all the same
        yield Notice(f"{error.message} {error.hint}", "warning")
    shown = [settings.setting(args.name)] if args.name else settings.SETTINGS
    rows = [SettingRow(s.name, *workspace.value_and_source(s.name), s.help) for s in shown]
    return Outcome(SettingList(tuple(rows)))


def config_set(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab import settings

    yield from ()
    declared = settings.setting(args.name)
    try:
        value = settings.parse(args.name, args.value)
    except BadSettings as error:  # here it is the command line that is wrong, and not a file
        raise BadArgument(error.message, hint=error.hint) from error
    if args.dry_run:
        return Outcome(Plan((f"write {args.name} = {declared.text(value)} to {settings.config_path()}",)))
    if args.name == "pod":
        from podlab.lab import pods

        pods.find(args.value)
    value = settings.store(args.name, args.value)
    workspace.override(args.name, None)
    return Outcome(Done(f"{args.name} is {declared.shown(value)} from now on.", {"setting": args.name}))


def config_edit(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab import settings
    from podlab.lab import shells

    yield from ()
    path = settings.config_path()
    with translated(path):
        path.touch(mode=0o600)
    return Outcome(shells.editor_of(path))


def config_path(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab import settings

    yield from ()
    return Outcome(Done(str(settings.config_path())))


def secret_set(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab import secrets
    from podlab.lab import guarding, hidden

    yield from ()
    if args.dry_run:
        return Outcome(Plan((f"keep {args.name} in a private file",)))
    value = hidden.read(args.name)
    secrets.keep(args.name, value)
    if os.environ.get(args.name, "").strip() not in ("", value.reveal()):
        yield Notice(secrets.shadowed(args.name), "warning")
    guarding.hand_over(workspace, args.name, value)
    return Outcome(Done(f"{args.name} is kept.", {"secret": args.name}))


def secret_list(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab import secrets

    yield from ()
    kept = secrets.names()
    usual = [name for name in secrets.USUAL if name not in kept]
    rows = [SecretRow(name, "environment" if os.environ.get(name) else "file") for name in kept]
    rows += [SecretRow(name, "environment") for name in usual if os.environ.get(name)]
    return Outcome(SecretList(tuple(rows)))


def secret_remove(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab import secrets

    if args.dry_run:
        return Outcome(Plan((f"remove the file of {args.name}",)))
    if args.name not in secrets.names():
        raise NotFound(f"No secret {args.name!r} is kept.", hint="See: podlab secret list")
    answer = yield Ask(f"Remove the secret {args.name}?", "delete", yes="Remove")
    if not answer:
        raise Refused(f"{args.name} was not removed.", hint="Repeat with --yes")
    secrets.forget(args.name)
    return Outcome(Done(f"{args.name} is removed.", {"secret": args.name}))


def own_logs(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.logs import log_path

    yield from ()
    if args.lines < 1:
        raise BadArgument(f"--lines {args.lines} shows nothing.", hint="Give a number from 1.")
    path = log_path()
    with translated(path):
        text = path.read_text("utf-8", errors="replace") if path.exists() else ""
    return Outcome(LogLines(tuple(text.splitlines()[-args.lines :]), 1, len(text.encode())))
