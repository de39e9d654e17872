"""docs/reference.md, made from the declarations of the verbs and from the public names."""

from __future__ import annotations

import inspect
import itertools

import podlab
from podlab.commands.parsing import called
from podlab.commands.table import VERBS
from podlab.commands.verb import JSON, VERBOSE, Operand, Option, Verb, options_of

INTRODUCTION = """\
# Reference

Written by `scripts/docs` from the declarations in `podlab/commands/`; do not edit it by hand.

A verb is a magic in a notebook (`%pod list`) and a command in a terminal (`podlab pod list`), and does the same in both.
`pod`, `model` and `chat` are magics of their own; every command is one with `%podlab` before it (`%podlab config show`).
Options stand before or after the operands; for `pod run` they stand before the command.
Those that belong to every verb may stand before the verb, too.

These options belong to every verb:

| option | meaning |
| --- | --- |
| `-h`, `--help` | show what is written here |
| `--json` | one JSON document instead of text; [json.md](json.md) describes the documents |
| `-v`, `--verbose` | log in detail, and show whole tracebacks |

In a terminal the exit code is 0, 1 when it failed, 2 when the command line cannot be carried out as written, 130 when it was interrupted, and 141 when nobody reads its output any more; `pod run` ends with the command's own.
"""
MAGICS = {"pod", "model", "chat"}
GROUPS = {
    "pod": "Machines: this computer, and those reached by SSH.",
    "model": "Models of the catalog, and the servers (endpoints) that run them.",
    "chat": "Conversations with an endpoint.",
    "sandbox": "A pretended company to rent from, for trying and for tests.",
    "config": "podlab's settings.",
    "secret": "Keys that podlab keeps; their values are shown nowhere.",
    "": "Verbs that stand alone.",
}


def usage(verb: Verb) -> str:
    parts = [called(verb, magic=bool(verb.in_terminal)), "[options]"]
    for operand in verb.operands:
        name = operand.name.upper()
        parts.append({"": name, "?": f"[{name}]", "*": f"[{name} ...]", "...": f"[{name} ...]"}[operand.count])
    return " ".join([*parts, *(["[-- ...]"] if verb.rest else [])])


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def option_row(option: Option) -> str:
    names = ", ".join(f"`{name}`" for name in (option.short, option.name) if name)
    value = f" {option.metavar or 'VALUE'}" if option.kind is not bool else ""
    default = f" (default: {option.default})" if option.default not in (None, False, "") else ""
    return f"| {names}{value} | {cell(option.help)}{default} |"


def operand_row(operand: Operand) -> str:
    return f"| {operand.name.upper()} | {cell(operand.help)} |"


def section(verb: Verb) -> list[str]:
    lines = [f"### {called(verb, magic=verb.group in MAGICS)}", "", verb.summary, ""]
    if verb.detail:
        lines += [verb.detail, ""]
    if verb.in_terminal:
        lines += [f"Only in a notebook. In a terminal: {verb.in_terminal[0].lower()}{verb.in_terminal[1:]}", ""]
    lines += ["```text", usage(verb), "```", ""]
    own = [option for option in options_of(verb) if option not in (JSON, VERBOSE)]
    if rows := [*map(operand_row, verb.operands), *map(option_row, own)]:
        lines += ["| argument | meaning |", "| --- | --- |", *rows, ""]
    if verb.rest:
        lines += [f"After `--`: {verb.rest}", ""]
    if verb.example:
        lines += ["```text", *verb.example.strip("\n").splitlines(), "```", ""]
    return lines


def public_names() -> list[str]:
    """The section on what `import podlab` offers: each name with the first sentence of its documentation."""
    rows = []
    for name in podlab.__all__:
        thing = getattr(podlab, name)
        said = "the version" if name == "__version__" else (inspect.getdoc(thing) or "").splitlines()[0]
        rows.append(f"| `podlab.{name}` | {cell(said)} |")
    return ["## In Python", "", "| name | what it is |", "| --- | --- |", *rows, ""]


def reference() -> str:
    lines = [INTRODUCTION]
    order = list(GROUPS)
    verbs = sorted(VERBS, key=lambda verb: order.index(verb.group) if verb.group in order else len(order))
    for group, members in itertools.groupby(verbs, key=lambda verb: verb.group):
        lines += [f"## {group or 'others'}", "", GROUPS.get(group, ""), ""]
        for verb in members:
            lines += section(verb)
    lines += public_names()
    return "\n".join(lines).rstrip("\n") + "\n"
