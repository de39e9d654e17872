"""What may be written next on a line of ours: verbs, options, their values, and names podlab knows.

All of it from the declarations and from files of this computer, for a notebook and for a shell. It is asked at every
keystroke: nothing here may ask a pod, open a connection, or raise.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from podlab.commands import table
from podlab.commands.verb import Option, Verb, options_of

if TYPE_CHECKING:
    from podlab.lab.workspace import Workspace

_KINDS = {
    "pods": "pod", "endpoints": "endpoint", "models": "model", "jobs": "job", "settings": "setting",
    "secrets": "secret", "files": "path", "engines": "engine", "providers": "provider",
    "gpus": "GPU", "datacenters": "data centre", "rentals": "rented pod", "faults": "fault",
    "volumes": "volume", "templates": "template", "registries": "registry",
}  # fmt: skip
_MOST_FILES = 200
_UNSAFE = re.compile(r"[^\w@%+=:,./~-]|(?<!^)~")
"""What a shell could take for something else than itself; a ~ at the beginning is a person's own home."""
_UNESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True)
class Candidate:
    """Something that could stand here, and what sort of thing it is."""

    text: str
    kind: str


@dataclass(frozen=True)
class Here:
    """Where the cursor is: the whole words before it, the piece of a word it touches, the words after it."""

    before: list[str]
    piece: str
    after: list[str]


def candidates(workspace: Workspace, here: Here) -> Iterator[Candidate]:
    """All that could stand at the cursor, whatever is typed of it already."""
    verb, depth = _verb(here.before)
    if not any(word.startswith("-") for word in here.before):
        yield from _next_words(here.before)
    if verb is None:
        return
    options = options_of(verb)
    pending, operands = _read(verb, options, here.before[depth:])
    if operands is None:  # the rest belongs to the command that is run, or to the engine
        return
    if pending is not None:
        yield from _values(workspace, pending.values, here.piece)
        return
    if here.piece.startswith("--") and "=" in here.piece:
        name, _, typed = here.piece.partition("=")
        for option in options:
            if option.name == name:
                yield from _values(workspace, option.values, typed)
        return
    if not here.piece.startswith("-") and operands < len(verb.operands):
        yield from _values(workspace, verb.operands[operands].values, here.piece)
    given = {word.partition("=")[0] for word in (*here.before, *here.after)}
    for option in options:
        if option.name not in given and option.short not in given:
            yield Candidate(option.name, "option")


def _verb(words: list[str]) -> tuple[Verb | None, int]:
    """The longest verb the words begin with, and how many words it has."""
    best: tuple[Verb | None, int] = (None, 0)
    for verb in table.VERBS:
        path = verb.words.split()
        if words[: len(path)] == path and len(path) > best[1]:
            best = verb, len(path)
    return best


def _next_words(words: list[str]) -> Iterator[Candidate]:
    """Words that lead on to a verb."""
    seen = set()
    for verb in table.VERBS:
        path = verb.words.split()
        if len(path) > len(words) and path[: len(words)] == words and path[len(words)] not in seen:
            seen.add(path[len(words)])
            yield Candidate(path[len(words)], "verb")


def _read(verb: Verb, options: tuple[Option, ...], words: list[str]) -> tuple[Option | None, int | None]:
    """The option that waits for its value, and how many operands there are; None operands once nothing is ours."""
    valued = {name: option for option in options if option.kind is not bool for name in (option.name, option.short)}
    pending: Option | None = None
    operands = 0
    for word in words:
        if pending is not None:
            pending = None
        elif word == "--":
            return None, None
        elif word.startswith("-") and len(word) > 1:
            pending = valued.get(word)
        elif operands < len(verb.operands):
            count = verb.operands[operands].count
            if count == "...":
                return None, None
            operands += count != "*"
    return pending, operands


def _values(workspace: Workspace, values: Any, typed: str) -> Iterator[Candidate]:
    if isinstance(values, tuple):
        for value in values:
            yield Candidate(value, "value")
    elif values == "files":
        yield from _files(typed)
    elif values == "faults":
        from podlab.sandbox.fault_names import NAMES

        for name in NAMES:
            yield Candidate(name, _KINDS[values])
    elif values is not None:
        from podlab.lab import known

        try:
            names = known.names(workspace, values)
        except Exception:  # noqa: BLE001  # a damaged file is reported by the next verb, not at a keystroke
            names = []
        for name in names:
            yield Candidate(name, _KINDS[values])


def _files(typed: str) -> Iterator[Candidate]:
    """Files and folders of this computer that continue what is typed, escaped as a shell needs it."""
    folder, _, start = _UNESCAPED.sub(r"\1", typed).rpartition("/")
    shown = f"{folder}/" if folder or typed.startswith("/") else ""
    try:
        with os.scandir(os.path.expanduser(shown) or ".") as entries:
            found = sorted((entry.name, entry.is_dir()) for entry in entries)
    except (OSError, ValueError):
        return
    visible = [(name, is_dir) for name, is_dir in found if start.startswith(".") or not name.startswith(".")]
    for name, is_dir in [entry for entry in visible if entry[0].startswith(start)][:_MOST_FILES]:
        whole = _UNSAFE.sub(r"\\\g<0>", shown + name)
        yield Candidate(whole + ("/" if is_dir else ""), "folder" if is_dir else "path")
