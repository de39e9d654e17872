"""What a GPU is called, by drivers, companies and people. Names are compared word by word, never by substring.

An A4000 is no A40, an L40S no L4, an H20 no H200. The table is gpus.toml; what its kinds can do is read from the same
file by catalog/gpus.py.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from podlab.errors import StateDamaged

FILE = "gpus.toml"
_NOISE = frozenset(
    {"nvidia", "geforce", "tesla", "quadro", "rtx", "gpu", "graphics", "card", "generation", "tensor", "core",
     "workstation", "server", "edition", "max", "q"}
)  # fmt: skip
"""Words that tell no two kinds of the table apart."""


@dataclass(frozen=True)
class _Kind:
    name: str
    words: frozenset[str]
    also: frozenset[str]


def table_text() -> str:
    """gpus.toml as it is shipped."""
    return (resources.files("podlab") / FILE).read_text(encoding="utf-8")


def tokens_of(name: str) -> frozenset[str]:
    """A name's telling words in lower case: 'NVIDIA A100-SXM4-80GB' -> {a100, sxm4, 80gb}."""
    found = re.findall(r"[a-z0-9]+", re.sub(r"\brtx(?=\w)", "rtx ", name.lower()))
    return frozenset(re.sub(r"^(\d+)g(?:b|ib)?$", r"\1gb", word) for word in found) - _NOISE


def known_name(name: str) -> str | None:
    """What podlab's table calls the kind that a driver or a company names so; None for one that is not in it."""
    given = tokens_of(name)
    found = [kind.name for kind in _kinds() if kind.words <= given <= kind.words | kind.also]
    return found[0] if len(found) == 1 else None


@cache
def _kinds() -> tuple[_Kind, ...]:
    try:
        table = tomllib.loads(table_text())["gpus"]
        return tuple(
            _Kind(name, frozenset(fields["tokens"]), frozenset(fields.get("also", ())))
            for name, fields in table.items()
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateDamaged(f"podlab is not installed whole: {FILE}: {error}", hint="Install it again.") from error
