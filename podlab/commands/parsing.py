"""A verb's declaration as an argparse parser, and words as a call of a verb."""

from __future__ import annotations

import argparse
import difflib
import math
import re
import shlex
import shutil
import textwrap
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from podlab.commands.verb import Option, Verb, options_of
from podlab.errors import BadArgument

MAGICS = ("pod", "model", "chat")
"""The groups that are magics of their own; the others are called through `%podlab`."""


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
        description="\n\n".join(wrapped(text) for text in (verb.summary, verb.detail) if text),
        epilog=_epilog(verb, magic=magic),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    for operand in verb.operands:
        choices = operand.values if isinstance(operand.values, tuple) else None
        count = "*" if operand.count == "..." else operand.count or None
        parser.add_argument(operand.name, nargs=count, help=_literal(operand.help), choices=choices,
                            metavar=operand.name.upper())  # fmt: skip
    for option in options_of(verb):
        _add(parser, option)
    parser.add_argument("-h", "--help", action="store_true", help="show this")
    return parser


def wrapped(text: str, hang: int = 0) -> str:
    """Text in lines that a terminal shows whole; those after the first begin `hang` columns in."""
    width = max(40, shutil.get_terminal_size().columns - 2)  # as argparse does
    return textwrap.fill(text, width, subsequent_indent=" " * hang, break_on_hyphens=False, break_long_words=False)


def called(verb: Verb, *, magic: bool) -> str:
    """How a person calls it: `%pod list`, `%%chat`, `%podlab logs`, or `podlab pod list`."""
    start = "" if magic and verb.group in MAGICS else "podlab "
    return ("%%" if verb.cell == "must" else "%") * magic + start + verb.words


def parse(verb: Verb, words: Sequence[str], *, magic: bool, cell: str | None = None) -> Call:
    """The call that `words` (after the verb's own) make. Raises BadArgument, with a "did you mean" where one is near.

    Options stand before or after the operands; `--` ends them, and what follows is `args.rest`, untouched. Where the
    last operand takes all the rest (`pod run`), the first operand ends our options.
    """
    parser = parser_of(verb, magic=magic)
    if _asks_for_help(verb, words):
        return Call(verb, argparse.Namespace(), help=parser.format_help())
    options, operands, rest = _sorted(verb, words, parser.prog)
    if rest and not verb.rest:
        raise BadArgument(f"{parser.prog} takes nothing after --, got {rest[0]!r}.", hint=f"See {parser.prog} --help")
    if last := _taking_all(verb):
        args = parser.parse_args(options)
        setattr(args, last, operands)
    else:
        # argparse fills optional operands with nothing when an option stands among them, so it gets them together.
        args, unknown = parser.parse_known_args([*options, *(["--", *operands] if operands else [])])
        if unknown := [word for word in unknown if word != "--"]:
            raise BadArgument(f"{parser.prog} has no operand {unknown[0]!r}.", hint=f"See {parser.prog} --help")
    args.rest = rest
    args.cell = cell
    args.stdin = None
    return Call(verb, args)


def _taking_all(verb: Verb) -> str:
    """The operand that takes all the rest as it is, or ""."""
    return next((operand.name for operand in verb.operands if operand.count == "..."), "")


def _options_by_name(verb: Verb) -> dict[str, Option]:
    return {name: option for option in options_of(verb) for name in (option.name, option.short) if name}


def _is_option(word: str) -> bool:
    """Whether a word is meant as an option: no negative number, no sentence that begins with a dash."""
    name = word.partition("=")[0]
    return len(name) > 1 and name.startswith("-") and not re.fullmatch(r"-[0-9.]+|.*\s.*", name, re.DOTALL)


def _asks_for_help(verb: Verb, words: Sequence[str]) -> bool:
    """Whether -h or --help stands where our options stand: before --, and for `pod run` before the command."""
    known = _options_by_name(verb)
    queue = deque(words)
    while queue:
        word = queue.popleft()
        if word in ("-h", "--help"):
            return True
        if word == "--" or (_taking_all(verb) and not _is_option(word)):
            return False
        if word in known and known[word].kind is not bool and queue:
            queue.popleft()
    return False


def _sorted(verb: Verb, words: Sequence[str], prog: str) -> tuple[list[str], list[str], list[str]]:
    """Words as options (each with its value), operands, and what follows `--`. Raises BadArgument for no option."""
    known = _options_by_name(verb)
    options: list[str] = []
    operands: list[str] = []
    queue = deque(words)
    while queue:
        word = queue.popleft()
        if word == "--":
            break
        if not _is_option(word):
            operands.append(word)
            if _taking_all(verb):
                break
            continue
        name, equals, value = word.partition("=")
        option = known.get(name)
        if option is None:
            if word.startswith("--") or word[:2] not in known:
                near = did_you_mean(name, known)
                raise BadArgument(f"{prog} has no option {name!r}.", hint=near or f"See {prog} --help")
            options.append(word)  # -n20, -yv
        elif option.kind is bool:
            if equals:
                raise BadArgument(f"{option.name} takes no value.", hint=f"Write it as {option.name}")
            options.append(option.name)
        elif value == "--" or (not equals and (not queue or queue[0] == "--" or queue[0].partition("=")[0] in known)):
            raise BadArgument(f"{option.name} needs a value.", hint=f"Write it as {option.name} {_shape(option)}.")
        else:
            options.append(f"{option.name}={value if equals else queue.popleft()}")
    if _taking_all(verb):
        return options, [*operands, *queue], []
    return options, operands, list(queue)


def _shape(option: Option) -> str:
    """What stands for an option's value in help."""
    return option.metavar or ("|".join(option.values) if isinstance(option.values, tuple) else "VALUE")


def _literal(text: str) -> str:
    """Help as argparse prints it: it fills in what follows a percent sign."""
    return text.replace("%", "%%")


def _add(parser: argparse.ArgumentParser, option: Option) -> None:
    names = [name for name in (option.short, option.name) if name]
    if option.kind is bool:
        parser.add_argument(*names, action="store_true", help=_literal(option.help))
        return
    choices = option.values if isinstance(option.values, tuple) else None
    parser.add_argument(*names, type=_checked(option, parser.prog), default=option.default, help=_literal(option.help),
                        choices=choices, metavar=option.metavar or None,
                        action="append" if option.many else "store")  # fmt: skip


def _checked(option: Option, prog: str) -> Any:
    """The option's converter, its ValueError turned into a sentence that names the option, the value and the fix."""

    def convert(text: str) -> Any:
        try:
            value = option.kind(text)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError("no finite number")
            if isinstance(option.values, tuple) and value not in option.values:
                raise ValueError("none of those")
        except ValueError as error:
            kinds: dict[Any, str] = {int: "a whole number", float: "a number"}
            known = option.values if isinstance(option.values, tuple) else None
            kind = " or ".join(known) if known else kinds.get(option.kind, str(error))
            raise BadArgument(
                f"{option.name} takes {kind}, got {text!r}.",
                hint=f"Write it as {option.name} {_shape(option)}. See {prog} --help",
            ) from error
        return value

    return convert


def _epilog(verb: Verb, *, magic: bool) -> str:
    lines = [f"After --: {verb.rest}", ""] if verb.rest else []
    if example := example_of(verb, magic=magic):
        lines += ["example:", *("  " + line for line in example.splitlines())]
    return "\n".join(lines)


def example_of(verb: Verb, *, magic: bool) -> str:
    """The verb's example as it works in a notebook, or in a terminal, where a cell's body becomes the last operand."""
    lines: list[str] = []
    calls: list[tuple[str, list[str]]] = []
    for line in verb.example.splitlines():
        if line.startswith(("%", "podlab ")):
            calls.append((line, []))
        elif calls:
            calls[-1][1].append(line)
    for call, body in calls:
        if magic:
            lines += [f"%{call}" if call.startswith("podlab ") else call, *body]
        elif not body:
            lines.append(call if call.startswith("podlab ") else "podlab " + call.removeprefix("%podlab ").lstrip("%"))
        elif verb.operands and verb.operands[-1].count == "*":
            lines.append(f"podlab {call.lstrip('%')} {shlex.quote(chr(10).join(body))}")
    return "\n".join(lines)
