"""A verb's declaration as an argparse parser, and words as a call of a verb."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from podlab.commands.verb import Option, Verb, options_of
from podlab.errors import BadArgument


@dataclass(frozen=True)
class Call:
    """A verb and its arguments, ready to be driven; or the help text that was asked for instead."""

    verb: Verb
    args: argparse.Namespace
    help: str | None = None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """'Did you mean list?' for the nearest of `known`, or ''."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"Did you mean {near[0]}?" if near else ""


class _Parser(argparse.ArgumentParser):
    """argparse that raises BadArgument instead of printing and exiting."""

    def error(self, message: str) -> NoReturn:
        raise BadArgument(f"{self.prog}: {message}", hint=f"See {self.prog} --help")


def parser_of(verb: Verb, *, magic: bool) -> argparse.ArgumentParser:
    """The parser of one verb; `magic` decides whether help speaks of `%pod list` or of `podlab pod list`."""
    parser = _Parser(
        prog=called(verb, magic=magic),
        description=verb.summary + (f"\n\n{verb.detail}" if verb.detail else ""),
        epilog=_epilog(verb, magic=magic),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    for operand in verb.operands:
        if operand.count == "...":
            parser.add_argument(operand.name, nargs=argparse.REMAINDER, help=operand.help, metavar=operand.name.upper())
        else:
            choices = operand.values if isinstance(operand.values, tuple) else None
            parser.add_argument(operand.name, nargs=operand.count or None, help=operand.help, choices=choices,
                                metavar=operand.name.upper())  # fmt: skip
    for option in options_of(verb):
        _add(parser, option)
    parser.add_argument("-h", "--help", action="store_true", help="show this")
    return parser


def called(verb: Verb, *, magic: bool) -> str:
    """How a person calls it: `%pod list`, `%%chat`, or `podlab pod list`."""
    if not magic:
        return f"podlab {verb.words}"
    return ("%%" if verb.cell == "must" else "%") + verb.words


def parse(verb: Verb, words: Sequence[str], *, magic: bool, cell: str | None = None) -> Call:
    """The call that `words` (after the verb's own) make. Raises BadArgument, with a "did you mean" where one is near.

    Options stand before or after the operands; `--` ends them, and what follows is `args.rest`, untouched. Where the
    last operand takes all the rest (`pod run`), the first operand ends our options.
    """
    parser = parser_of(verb, magic=magic)
    ours, rest = list(words), []
    takes_all = any(operand.count == "..." for operand in verb.operands)
    if "--" in ours and not takes_all:
        cut = ours.index("--")
        ours, rest = ours[:cut], ours[cut + 1 :]
        if rest and not verb.rest:
            raise BadArgument(f"{parser.prog} takes nothing after --, got {rest[0]!r}.", hint=f"See {parser.prog} --help")
    if _asks_for_help(verb, ours):
        return Call(verb, argparse.Namespace(), help=parser.format_help())
    args, unknown = parser.parse_known_args(ours)
    if unknown:
        names = [name for option in options_of(verb) for name in (option.name, option.short) if name]
        near = did_you_mean(unknown[0].partition("=")[0], names) if unknown[0].startswith("-") else ""
        what = "option" if unknown[0].startswith("-") else "operand"
        raise BadArgument(
            f"{parser.prog} has no {what} {unknown[0]!r}.", hint=near or f"See {parser.prog} --help"
        )
    args.rest = rest
    args.cell = cell
    return Call(verb, args)


def _asks_for_help(verb: Verb, words: Sequence[str]) -> bool:
    """Whether -h or --help stands where our options stand: for `pod run`, only before the command."""
    takes_value = {n for o in options_of(verb) if o.kind is not bool for n in (o.name, o.short) if n}
    takes_all = any(operand.count == "..." for operand in verb.operands)
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in ("-h", "--help"):
            return True
        elif word in takes_value:
            skip = True
        elif takes_all and not word.startswith("-"):
            return False
    return False


def _add(parser: argparse.ArgumentParser, option: Option) -> None:
    names = [name for name in (option.short, option.name) if name]
    if option.kind is bool:
        parser.add_argument(*names, action="store_true", help=option.help)
        return
    choices = option.values if isinstance(option.values, tuple) else None
    parser.add_argument(*names, type=_checked(option), default=option.default, help=option.help, choices=choices,
                        metavar=option.metavar or None)  # fmt: skip


def _checked(option: Option) -> Any:
    """The option's converter, its ValueError turned into a sentence that names the option, the value and the fix."""

    def convert(text: str) -> Any:
        try:
            return option.kind(text)
        except ValueError as error:
            kind = {int: "a whole number", float: "a number"}.get(option.kind, option.metavar or "a value")  # type: ignore[call-overload]
            raise BadArgument(f"{option.name} takes {kind}, got {text!r}.", hint=f"Write it as {option.name} {option.metavar or 'VALUE'}.") from error  # noqa: E501

    return convert


def _epilog(verb: Verb, *, magic: bool) -> str:
    lines = [f"After --: {verb.rest}", ""] if verb.rest else []
    if verb.example:
        example = verb.example if magic else verb.example.replace("%%", "podlab ").replace("%", "podlab ")
        lines += ["example:", *("  " + line for line in example.splitlines())]
    return "\n".join(lines)
