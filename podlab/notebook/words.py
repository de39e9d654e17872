"""A magic's line as words: split as a shell would, and `{identifier}` replaced by a variable of the notebook.

IPython's own expansion is off (`no_var_expand`): it evaluates any expression, and one that fails switches off all of
them silently. Here only the name of an existing variable between single braces counts, inside a word, after
splitting: a value with spaces stays one word, and JSON, templates (`{{name}}`) and code stay what they are.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from podlab.errors import BadArgument

_NAMED = re.compile(r"(?<!\{)\{([A-Za-z_][A-Za-z0-9_]*)\}(?!\})")
_PROSE = re.compile(r"""(?:--[\w-]+=)?(?:"[^"]*"|'[^']*')(?=\s|$)|\S+""")


def split(line: str) -> list[str]:
    """The words of a line, quotes understood. Raises BadArgument when a quote is not closed."""
    try:
        return shlex.split(line)
    except ValueError as error:
        raise BadArgument(
            f"The line cannot be split into words: {str(error).lower()}.", hint="Close the quote, or put \\ before it."
        ) from error


def split_prose(line: str) -> list[str]:
    """The words of a line that is mostly something said: a quote inside a word is an apostrophe.

    Only a quoted value of an option, and a prompt that is quoted as a whole, lose their quotes.
    """
    found = [word[0] for word in _PROSE.finditer(line)]
    plain: list[str] = []
    for index, word in enumerate(found):
        name, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        follows_option = index > 0 and found[index - 1].startswith("--") and "=" not in found[index - 1]
        if value[:1] in ("'", '"') and value[-1:] == value[:1] and len(value) > 1:
            whole_prompt = index == len(found) - 1 and index <= 1
            if equals or follows_option or whole_prompt:
                value = value[1:-1]
        plain.append(name + equals + value)
    return plain


def expand(word: str, variables: Mapping[str, Any]) -> str:
    """A word with each `{identifier}` of an existing variable replaced by the variable's text."""

    def value(found: re.Match[str]) -> str:
        return str(variables[found[1]]) if found[1] in variables else found[0]

    return _NAMED.sub(value, word)


def silenced(line: str) -> tuple[str, bool]:
    r"""The line without the semicolon that ends it, and whether there was one. `\;` and `';'` are the command's own.

    IPython's `output_can_be_silenced` tokenizes the line as Python for this and fails on a lone quote or bracket.
    """
    stripped = line.rstrip()
    if stripped.endswith(";") and not stripped.endswith("\\;"):
        return stripped[:-1], True
    return line, False
