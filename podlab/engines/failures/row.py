"""A row of the failure tables."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from podlab.engines.base import Cause


class Weight(IntEnum):
    """How much a line says about the end. Of several lines the heaviest counts, of equals the one nearest the end."""

    HINT = 0
    """It may have been survived: an exception that no row knows, or a signal, says more."""
    SYMPTOM = 1
    """It follows from something: a worker died, a neighbour hung up."""
    ROOT = 2
    """It is why."""


@dataclass(frozen=True)
class Row:
    """A line in which `pattern` is found means `cause`.

    Patterns are linear: no repetition stands inside another one. `hint` says what to do, with the pattern's named
    groups in braces; "" takes what suits the cause and the engine.
    """

    pattern: str
    cause: Cause
    hint: str = ""
    source: str = ""
    """Where the words come from; "" means that a log made by scripts/make-failure-logs shows them."""
    weight: Weight = Weight.ROOT
    loaded: Cause | None = None
    """The cause where the weights were in memory already."""
    quiet: bool = False
    """It counts on a line of the level INFO or WARNING too."""
    below: int = 0
    """How many of the lines below it belong to it."""
    another_copy: bool = False
    """See Diagnosis."""
