"""Tab completion for a terminal's shell: the script each shell runs, and the answer it asks podlab for.

The script calls `podlab --complete WORD... PIECE`: the words after `podlab` up to the cursor, the last one the piece of
a word the cursor touches ("" between words). The answer is one candidate a line, written as the shell would quote it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from podlab.commands.completion import Here, candidates

if TYPE_CHECKING:
    from podlab.lab.workspace import Workspace

SCRIPTS = {
    "bash": """\
_podlab() {
    local line
    COMPREPLY=()
    while IFS= read -r line; do COMPREPLY+=("$line"); done < <(
        podlab --complete "${COMP_WORDS[@]:1:COMP_CWORD-1}" "${COMP_WORDS[COMP_CWORD]}" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == */ ]]; then compopt -o nospace; fi
}
complete -F _podlab podlab
""",
    "zsh": """\
#compdef podlab
_podlab() {
    local -a found
    found=("${(@f)$(podlab --complete "${(@)words[2,CURRENT-1]}" "${words[CURRENT]}" 2>/dev/null)}")
    compadd -Q -- ${found:#*/}
    compadd -Q -S '' -- ${(M)found:#*/}
}
compdef _podlab podlab
""",
    "fish": """\
complete -c podlab -f -a \
'(podlab --complete (commandline -opc)[2..] (commandline -ct | string collect) 2>/dev/null | string unescape)'
""",
}
INSTALL = {
    "bash": "echo 'eval \"$(podlab completion bash)\"' >> ~/.bashrc",
    "zsh": "echo 'eval \"$(podlab completion zsh)\"' >> ~/.zshrc",
    "fish": "podlab completion fish > ~/.config/fish/completions/podlab.fish",
}


def answer(workspace: Workspace, words: Sequence[str]) -> list[str]:
    """What may stand at the cursor, most fitting first. `words` end with the piece that is typed already."""
    before, piece = list(words[:-1]), words[-1] if words else ""
    before, piece = _joined(before, piece)
    typed = piece.partition("=")[2] if piece.startswith("--") and "=" in piece else piece
    found = candidates(workspace, Here(before, piece, []))
    return [entry.text for entry in found if entry.text.startswith(typed) and entry.text.isprintable()]


def _joined(before: list[str], piece: str) -> tuple[list[str], str]:
    """bash takes `--name=value` for three words: put together again where the cursor is in the value."""
    if piece == "=" and before and before[-1].startswith("--"):
        return before[:-1], before[-1] + "="
    if before[-1:] == ["="] and len(before) > 1 and before[-2].startswith("--"):
        return before[:-2], f"{before[-2]}={piece}"
    return before, piece
