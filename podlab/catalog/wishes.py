"""What a person asks of a start, and how a choice of GPUs is written."""

from __future__ import annotations

import re
from dataclasses import dataclass

from podlab.errors import BadArgument


@dataclass(frozen=True)
class ServeWish:
    """What is asked of a start. None leaves it to the planner."""

    gpus: int | tuple[int, ...] | None = None
    """How many, or which, as the driver numbers them."""
    context: int | None = None
    memory_ratio: float | None = None
    """The share of each GPU's memory the engine may take, 0 to 1."""
    concurrency: int = 1
    """Requests of the whole context that have to fit at the same time."""
    extra: tuple[str, ...] = ()
    """Arguments of the engine itself; they come before everything."""
    force: bool = False
    """Go on where a check says that it cannot work."""


def parse_gpu_choice(text: str) -> int | tuple[int, ...]:
    """'2' -> any two; '0,3' -> these; '0,' -> that one. Raises BadArgument."""
    if re.fullmatch(r"\s*[0-9]{1,3}\s*", text) and int(text) > 0:
        return int(text)
    if re.fullmatch(r"\s*[0-9]{1,3}\s*(,\s*[0-9]{1,3}\s*)*,?\s*", text) and "," in text:
        chosen = tuple(int(part) for part in text.split(",") if part.strip())
        if len(set(chosen)) == len(chosen):
            return chosen
    raise BadArgument(
        f"{text!r} is no choice of GPUs.", hint='Write how many, as 2, or which, as 0,1; one by its number as "0,".'
    )
