"""Kinds of GPU: which one a name means, how much memory it has, what it can compute with.

How names are compared is in gpu_names.py, which reads the same table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Any

from podlab.catalog import schema
from podlab.catalog.geometry import GpuRoom
from podlab.catalog.schema import Field
from podlab.errors import BadArgument, BadSettings, NotFound, StateDamaged
from podlab.gpu_names import FILE, table_text, tokens_of

MOST = 64
"""Of one kind in what a person writes; more is a slip."""
_SCHEMA: dict[str, Field] = {
    "tokens": schema.words('the words that make its name, such as ["h100", "nvl"]'),
    "also": schema.words('words its name may have as well, such as ["sxm5"]'),
    "memory_mib": schema.count("the MiB its driver reports, such as 81559"),
    "capability": schema.number("its compute capability, such as 8.9", most=99),
    "fp8": Field(bool, "true or false"),
    "classes": schema.words('groups that recipes name, such as ["24GB"]'),
    "source": Field(str, "the address where the number is from"),
}


@dataclass(frozen=True)
class GpuType:
    """A kind of GPU. `memory_bytes` is what its driver reports, less than what is sold; `capability` is CUDA's."""

    name: str
    tokens: frozenset[str]
    also: frozenset[str]
    memory_bytes: int
    capability: float
    fp8: bool
    """Whether it computes in FP8; others only keep weights in it."""
    classes: tuple[str, ...] = ()
    source: str = ""

    def is_one_of(self, names: tuple[str, ...]) -> bool:
        """Whether a recipe that names these kinds and classes means it."""
        return self.name in names or any(group in names for group in self.classes)


@cache
def gpu_types() -> tuple[GpuType, ...]:
    """Every known kind, in the order of the file."""
    where = f"podlab's own {FILE}"
    try:
        found = schema.document(table_text(), where, {"gpus": dict}, "Each kind is a table: [gpus.NAME]")
        return tuple(_type(name, fields, where) for name, fields in found["gpus"].items())
    except BadSettings as error:
        raise StateDamaged(f"podlab is not installed whole: {error.message}", hint="Install it again.") from error


def _type(name: str, fields: Any, where: str) -> GpuType:
    given = schema.checked(fields, _SCHEMA, f"{where}, [gpus.{name!r}]", needed=("tokens", "memory_mib", "capability"))
    return GpuType(
        name, frozenset(given["tokens"]), frozenset(given.get("also", ())), given["memory_mib"] * 2**20,
        float(given["capability"]), given.get("fp8", False), tuple(given.get("classes", ())), given.get("source", ""),
    )  # fmt: skip


def type_of(name: str) -> GpuType | None:
    """The kind a driver's name means ("NVIDIA GeForce RTX 4090"); None for one that is not in the table."""
    found = _exact(tokens_of(name))
    return found[0] if len(found) == 1 else None


def find_type(name: str) -> GpuType:
    """The kind that a person means. Raises BadArgument where several could be meant, NotFound where none."""
    tokens = tokens_of(name)
    found = _exact(tokens)
    if len(found) == 1:
        return found[0]
    near = found or [
        kind for kind in gpu_types()
        if tokens & kind.tokens and (tokens <= kind.tokens | kind.also or kind.tokens <= tokens)
    ]  # fmt: skip
    if near:
        raise BadArgument(f"{name!r} could be several GPUs.", hint=f"Write {' or '.join(kind.name for kind in near)}.")
    known = ", ".join(kind.name for kind in gpu_types())
    raise NotFound(f"{name!r} is no GPU that podlab knows.", hint=f"Known: {known}.")


def parse_gpus(text: str) -> tuple[GpuRoom, ...]:
    """'2xRTX 4090', 'H100:2', '8x H200', 'L4, 2x A40' -> that many GPUs, all their memory free.

    Raises BadArgument or NotFound with what could have been meant.
    """
    kinds: list[GpuType] = []
    for part in text.split(","):
        number, name = _counted(part.strip())
        kinds += [find_type(name)] * number
    return tuple(
        GpuRoom(index, kind.name, kind.memory_bytes, kind.memory_bytes) for index, kind in enumerate(kinds)
    )  # fmt: skip


def _counted(part: str) -> tuple[int, str]:
    """'2x RTX 4090' -> (2, 'RTX 4090'). A number alone before a word counts, one within a name does not."""
    match = (
        re.fullmatch(r"(?P<n>\d{1,4})\s*[xX×*]\s*(?P<name>\S.*)", part)
        or re.fullmatch(r"(?P<n>\d{1,2})\s+(?P<name>[A-Za-z].*)", part)
        or re.fullmatch(r"(?P<name>.*\S)\s*(?::|\s[xX×*])\s*(?P<n>\d{1,4})", part)
    )
    if match is None:
        if not part:
            raise BadArgument("A GPU is missing.", hint='Write it as "2x RTX 4090", "H100:2" or "L40S".')
        return 1, part
    number = int(match["n"])
    if not 1 <= number <= MOST:
        raise BadArgument(f"{part!r} is {number} GPUs.", hint=f"Give 1 to {MOST}.")
    return number, match["name"]


def _exact(tokens: frozenset[str]) -> list[GpuType]:
    """Kinds whose whole name is in the tokens, and beside which nothing unknown stands."""
    return [kind for kind in gpu_types() if kind.tokens <= tokens <= kind.tokens | kind.also]
