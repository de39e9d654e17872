"""The one place where an argv becomes a shell string.

Everything podlab runs is an argv list. SSH has no argv: it hands one string to the user's login shell. `shell_line`
makes that string so that any POSIX shell (dash, bash, zsh, busybox) gives the very same argv back.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from podlab.errors import BadArgument


def shell_line(argv: Sequence[str]) -> str:
    """`argv` as one line for a POSIX shell. NUL cannot travel in an argv and is refused."""
    if not argv:
        raise BadArgument("An empty command cannot be run.", hint="Give at least the program's name.")
    for word in argv:
        if "\0" in word:
            raise BadArgument(f"An argument holds a NUL character: {word[:40]!r}.", hint="Remove it.")
    return " ".join(_quoted(word) for word in argv)


def _quoted(word: str) -> str:
    # zsh reads an unquoted =ls as the path of ls, and shlex knows only what POSIX shells do.
    return f"'{word}'" if word.startswith("=") and shlex.quote(word) == word else shlex.quote(word)
