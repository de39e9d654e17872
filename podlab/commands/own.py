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
from podlab.commands.verb import Operand, Option, Verb
from podlab.errors import BadArgument, Refused
from podlab.events import Ask, Work
from podlab.types import LogLines

if TYPE_CHECKING:
    from podlab.lab.workspace import Workspace

SETTING = Operand("name", "the setting", values="settings")
SECRET = Operand("name", "the secret, as its environment variable is called", values="secrets")


def config_show(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab import settings

    yield from ()
    shown = [settings.setting(args.name)] if args.name else settings.SETTINGS
    rows = [SettingRow(s.name, *workspace.value_and_source(s.name), s.help) for s in shown]
    return Outcome(SettingList(tuple(rows)))


def config_set(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab import settings

    yield from ()
    if args.dry_run:
        value = settings.parse(args.name, args.value)
        return Outcome(Plan((f"write {args.name} = {value!r} to {settings.config_path()}",)))
    if args.name == "pod":
        from podlab.lab import pods

        pods.find(args.value)
    value = settings.store(args.name, args.value)
    workspace.override(args.name, None)
    return Outcome(Done(f"{args.name} is {value} from now on.", {"setting": args.name}))


def config_edit(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab import settings
    from podlab.lab import shells

    yield from ()
    settings.config_path().touch(mode=0o600)
    return Outcome(shells.editor_of(settings.config_path()))


def config_path(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab import settings

    yield from ()
    return Outcome(Done(str(settings.config_path())))


def secret_set(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab import secrets
    from podlab.lab import hidden

    yield from ()
    if args.dry_run:
        return Outcome(Plan((f"keep {args.name} in a private file",)))
    secrets.keep(args.name, hidden.read(args.name))
    return Outcome(Done(f"{args.name} is kept.", {"secret": args.name}))


def secret_list(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab import secrets

    yield from ()
    kept = secrets.names()
    usual = [name for name in ("HF_TOKEN", "RUNPOD_API_KEY") if name not in kept]
    rows = [SecretRow(name, "environment" if os.environ.get(name) else "file") for name in kept]
    rows += [SecretRow(name, "environment") for name in usual if os.environ.get(name)]
    return Outcome(SecretList(tuple(rows)))


def secret_remove(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab import secrets

    if args.dry_run:
        return Outcome(Plan((f"remove the file of {args.name}",)))
    answer = yield Ask(f"Remove the secret {args.name}?", "delete")
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
    text = path.read_text("utf-8", errors="replace") if path.exists() else ""
    return Outcome(LogLines(tuple(text.splitlines()[-args.lines :]), 1, len(text.encode())))


VERBS = (
    Verb(
        "config", "show", "Show the settings, and where each comes from.", config_show,
        operands=(Operand("name", "one setting", "?", values="settings"),), example="podlab config show",
    ),
    Verb(
        "config", "set", "Write a setting to config.toml.", config_set,
        operands=(SETTING, Operand("value", "its value")), example="podlab config set chat.max_tokens 1024",
        changes=True,
    ),
    Verb("config", "edit", "Open config.toml in your editor.", config_edit, example="podlab config edit"),
    Verb("config", "path", "Show where config.toml is.", config_path, example="podlab config path"),
    Verb(
        "secret", "set", "Keep a secret. Its value is typed hidden, or comes from standard input.", secret_set,
        operands=(SECRET,), example="podlab secret set HF_TOKEN", changes=True,
    ),
    Verb("secret", "list", "List the secrets by name.", secret_list, example="podlab secret list"),
    Verb(
        "secret", "remove", "Remove a secret's file.", secret_remove,
        operands=(SECRET,), example="podlab secret remove HF_TOKEN", changes=True,
    ),
    Verb(
        "", "logs", "Show the end of podlab's own log.", own_logs,
        options=(Option("--lines", "how many lines", kind=int, metavar="N", default=50, short="-n"),),
        example="podlab logs -n 20",
    ),
)  # fmt: skip
