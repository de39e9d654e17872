"""Which of what an account keeps at a company a person means: a volume, a template, a login to a registry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from podlab.errors import BadArgument, NotFound

MOST_NAMES = 8
LISTS = {"registry": "registries"}
"""What lists them (`pod registries`), where that is not their name with an s."""


class Named(Protocol):
    """What the company knows by an id, and a person by a name."""

    @property
    def id(self) -> str:
        """The company's."""
        ...

    @property
    def name(self) -> str:
        """The person's."""
        ...


N = TypeVar("N", bound=Named)


def named(kept: Sequence[N], text: str, what: str, company: str) -> N:
    """The one of that id, else the one of that name. Raises NotFound, and BadArgument where several have it."""
    found = [each for each in kept if each.id == text] or [each for each in kept if each.name == text]
    if not found:
        known = ", ".join(each.name for each in kept[:MOST_NAMES]) or "none"
        verb = f"podlab pod {LISTS.get(what, what + 's')}"
        raise NotFound(f"{company} has no {what} {text!r}.", hint=f"It has: {known}. See: {verb}")
    if len(found) > 1:
        ids = " or ".join(each.id for each in found)
        raise BadArgument(f"There are {len(found)} by the name {text!r}.", hint=f"Name it by its id: {ids}.")
    return found[0]
