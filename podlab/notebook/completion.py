"""What may be written next on a `%pod` line: verbs, options, their values, and names podlab knows.

Here a line of a cell becomes the words before the cursor; commands/completion.py knows what may follow them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from IPython.core.completer import CompletionContext, SimpleCompletion

from podlab.commands.completion import Candidate, Here, candidates

if TYPE_CHECKING:
    from podlab.notebook.session import Session

_MAGIC = re.compile(r"\s*(?:[^\W\d][\w.,\[\]'\" ]*=\s*)?(%{1,2})(pod|model|chat|podlab)(?=\s)")
_WORD = re.compile(r"""(?:\\(?:.|$)|[^\s"'\\]|"[^"]*(?:"|$)|'[^']*(?:'|$))+""")


def match(session: Session, context: CompletionContext) -> dict[str, Any]:
    """IPython's matcher (API 2): our candidates, alone, where the line is one of our magics; else none."""
    here = _located(context)
    found: list[Candidate] = []
    fragment = ""
    if here is not None:
        fragment = here.piece
        if fragment.startswith("--") and "=" in fragment:
            fragment = fragment.partition("=")[2]
        found = [candidate for candidate in candidates(session.workspace, here) if candidate.text.startswith(fragment)]
    return {
        "completions": [SimpleCompletion(candidate.text, type=candidate.kind) for candidate in found],
        "matched_fragment": fragment,
        "ordered": True,
        "suppress": bool(found),
    }


def _located(context: CompletionContext) -> Here | None:
    line = context.line_with_cursor
    found = _MAGIC.match(line)
    cursor = context.cursor_position
    if found is None or cursor <= found.end():
        return None
    if context.cursor_line > 0 and (found[1] == "%%" or re.match(r"\s*%%(pod|model|chat|podlab)\b", context.full_text)):
        return None  # the body of one of our cells is a script or something said
    typed = line[found.end() : cursor]
    words = [word[0] for word in _WORD.finditer(typed)]
    piece = "" if typed[-1].isspace() else words.pop()
    group = [] if found[2] == "podlab" else [found[2]]
    # The rest of the word the cursor stands in is not a word of its own.
    rest = re.sub(r"^\S+", "", line[cursor:]) if piece else line[cursor:]
    return Here([*group, *(word.strip("\"'") for word in words)], piece, [word[0] for word in _WORD.finditer(rest)])
