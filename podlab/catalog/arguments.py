"""An engine's own arguments as a person wrote them: found and replaced, never rewritten.

A flag may be followed by its value or carry it (`--flag value`, `--flag=value`), be written with underscores, be
short, or be the opposite of another (`--no-flag`). What is not replaced keeps its bytes and its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_FLAG = re.compile(r"--?[A-Za-z][A-Za-z0-9_.-]*(?:=|$)")
_SHORT = {"-tp": "tensor-parallel-size", "-dp": "data-parallel-size", "-ep": "enable-expert-parallel",
          "-pp": "pipeline-parallel-size", "-q": "quantization"}  # fmt: skip


@dataclass(frozen=True)
class Given:
    """A flag with the words after it. `name` is without dashes in front, with dashes inside: "max-model-len"."""

    name: str
    words: tuple[str, ...]
    """As they were written, the flag's own word first."""

    @property
    def value(self) -> str | None:
        """What it is set to: after the equals sign, or the next word; None for a switch."""
        _, equals, rest = self.words[0].partition("=")
        return rest if equals else self.words[1] if len(self.words) > 1 else None

    @property
    def subject(self) -> str:
        """What it is about: `--no-x` and `--x.y` are about x."""
        return self.name.removeprefix("no-").partition(".")[0]


def split(args: Sequence[str]) -> tuple[Given, ...]:
    """Arguments as flags with their words. Words before the first flag stand under the name ""."""
    return tuple(_split(args))


def merged(ours: Sequence[str], theirs: Sequence[str]) -> tuple[str, ...]:
    """`ours` without any flag, value included, that `theirs` sets as well, and then `theirs` byte for byte."""
    replaced = {given.subject for given in split(theirs)}
    kept = (word for given in split(ours) if given.subject not in replaced for word in given.words)
    return (*kept, *theirs)


def value_of(args: Sequence[str], name: str) -> str | None:
    """What the last flag of that name sets; "" for a switch, None where it is not given."""
    found = [given for given in split(args) if given.name == name]
    return (found[-1].value or "") if found else None


def switched(args: Sequence[str], name: str) -> bool | None:
    """Whether the last of `--name` and `--no-name` turns it on; None where neither is given."""
    found = [given.name for given in split(args) if given.name in (name, f"no-{name}")]
    return found[-1] == name if found else None


def _split(args: Sequence[str]) -> Iterator[Given]:
    name, words = "", list[str]()
    for word in args:
        if _FLAG.match(word):
            if words:
                yield Given(name, tuple(words))
            name, words = _canonical(word), [word]
        else:
            words.append(word)
    if words:
        yield Given(name, tuple(words))


def _canonical(word: str) -> str:
    flag = word.partition("=")[0]
    return _SHORT.get(flag) or flag.lstrip("-").replace("_", "-")
