"""`podlab chat` in a terminal: whom its words are for, and a conversation with lines that begin with a slash."""

from __future__ import annotations

import difflib
import re
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from podlab.errors import BadArgument, PodlabError, StreamBroken

if TYPE_CHECKING:
    from podlab.commands.parsing import Call

GREETING = "/help lists what else can be written. An empty line or Ctrl-D ends; Ctrl-C stops an answer.\n"
_SLASHES = {
    "/show": "show the conversation so far",
    "/reset": "forget it, and begin anew",
    "/save FILE": "save it to a file",
    "/load FILE": "go on with a saved one",
    "/help": "show this",
}
"""What can be written instead of something to say. All but the last are the verbs of that name that a notebook has."""
_NEAR = 0.7
"""How alike a word and an endpoint's name are (difflib's ratio) where the word is taken for a slip."""


def check(name: str | None, prompt: Sequence[str], names: Sequence[str]) -> None:
    """Refuse a mistyped endpoint, which would be sent to a model as the first word of a prompt. Raises BadArgument.

    `podlab chat NAME PROMPT` and `podlab chat PROMPT` differ by the name alone. Two words are a name and a prompt; one
    word or several are a prompt, unless the first is nearly one of `names`.
    """
    if name is None or name in names or any(letter.isspace() for letter in name):
        return
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5 if len(prompt) == 1 else _NEAR)
    if near or len(prompt) == 1:
        meant = f"Did you mean {near[0]}?" if near else "See: podlab model list."
        said = " ".join([name, *prompt])
        raise BadArgument(
            f"There is no endpoint {name!r}.",
            hint=f"{meant} To say it all, name the endpoint first: podlab chat NAME {shlex.quote(said)}",
        )


def hold(call: Call, carry_out: Callable[[Call], int], complain: Callable[[PodlabError], object]) -> int:
    """Ask and answer until the end of input or an empty line; returns the exit code. `call` is that of `podlab chat`.

    `carry_out` drives a call and shows what it returned, `complain` shows an error; neither ends the conversation.
    """
    sys.stderr.write(GREETING)
    while True:
        try:
            said = input("you: ")
        except EOFError:
            sys.stdout.write("\n")
            return 0
        if not said.strip():
            return 0
        try:
            if _is_slash(said):
                _obey(said, call, carry_out)
                continue
            call.args.cell = said
            carry_out(call)
        except KeyboardInterrupt:
            sys.stderr.write("\n(stopped)\n")
        except PodlabError as error:
            complain(error)
            if not (isinstance(error, StreamBroken) and error.partial):  # no conversation has begun by this
                continue
        call.args.new, call.args.system = False, None


def _is_slash(said: str) -> bool:
    """Whether a line is meant for podlab. A path (/etc/hosts) is something said."""
    return re.fullmatch(r"/[a-z]+(\s.*)?", said.rstrip()) is not None


def _obey(said: str, call: Call, carry_out: Callable[[Call], int]) -> None:
    """Do what a line that begins with a slash says. Raises BadArgument where it cannot be understood."""
    from podlab.commands.parsing import Call, did_you_mean
    from podlab.commands.table import find

    try:
        word, *operands = shlex.split(said)
    except ValueError as error:
        raise BadArgument(
            f"The line cannot be split into words: {str(error).lower()}.", hint="Close the quote."
        ) from error
    forms = {form.split()[0]: form for form in _SLASHES}
    if word not in forms:
        raise BadArgument(f"There is no {word}.", hint=did_you_mean(word, forms) or "See: /help")
    if len(operands) != len(forms[word].split()) - 1:
        raise BadArgument(f"That is not how {word} is written.", hint=f"Write it as {forms[word]}")
    if word == "/help":
        wide = max(map(len, _SLASHES))
        sys.stderr.write("".join(f"  {form.ljust(wide)}  {about}\n" for form, about in _SLASHES.items()))
        return
    verb, _ = find(["chat", word[1:]])
    given = {"file": operands[0]} if operands else {}
    carry_out(Call(verb, Namespace(name=call.args.name, json=call.args.json, yes=False, **given)))
