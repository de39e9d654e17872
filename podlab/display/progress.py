"""A stage of long work as text: how far, of how much, for how long."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

from podlab.display import sanitize
from podlab.events import Stage
from podlab.units import bytes_text, duration_text

_BAR_LETTERS = 20
_NAME_LETTERS = 44
_SHORTEST = 0.03
"""Of all the time: what took less is not named afterwards."""


def amount_text(stage: Stage) -> str:
    """'3.1 of 12.0 MB, 26 %', '3 of 7, 43 %', '3.1 MB', or '' where nothing is counted."""
    if stage.done is None:
        return ""
    done, total = (_count(count, stage.unit) for count in (stage.done, stage.total))
    if stage.total is None:
        return done
    if done.partition(" ")[2] == total.partition(" ")[2]:
        done = done.partition(" ")[0]
    percent = f", {min(100, 100 * stage.done // stage.total)} %" if stage.total > 0 else ""
    return f"{done} of {total}{percent}"


def stage_lines(stage: Stage, elapsed_s: float | None = None) -> str:
    """The same, and below it a line for each of its parts: '  [#####-----] model.gguf: 3.1 of 6.2 MB, 50 %'."""
    return "\n".join([stage_text(stage, elapsed_s), *(f"  {_bar(part)} {stage_text(part)}" for part in stage.parts)])


def stage_text(stage: Stage, elapsed_s: float | None = None) -> str:
    """'Downloading tiny: 3.1 of 12.0 MB, 26 % (4.2 s)'. The time shows from the first second on: the step's own, or
    that of the whole where it says so."""
    elapsed_s = elapsed_s if stage.clock_s is None else stage.clock_s
    amount = amount_text(stage)
    said = sanitize.line(stage.text).rstrip(".") + (f": {amount}" if amount else "")
    if elapsed_s is None or elapsed_s < 1:
        return said
    return f"{said} ({duration_text(float(int(elapsed_s)) if elapsed_s >= 10 else elapsed_s)})"


def spent_text(spent: Iterable[tuple[str, float]], took_s: float) -> str:
    """What work spent its time with: 'Reaching lab 1.9 s, looking at its GPUs 1.2 s'. `spent`: each stage's text with
    its seconds; `took_s`: the seconds of all of it. What took no time to speak of is left out."""
    together: dict[str, float] = {}
    for text, seconds in spent:
        together[_name(text)] = together.get(_name(text), 0.0) + seconds
    least_s = max(0.1, _SHORTEST * took_s)
    return ", ".join(f"{name} {duration_text(seconds)}" for name, seconds in together.items() if seconds >= least_s)


def _name(text: str) -> str:
    """What a stage was about: without the pod it speaks of at its front, a time and details at its end."""
    said = re.sub(r"\s\([^()]*\)$", "", sanitize.line(text).rstrip("."))
    head, _, rest = said.partition(": ")
    name = rest.partition(": ")[0] if rest and not head[:1].isupper() else head
    return textwrap.shorten(name, _NAME_LETTERS, placeholder=" …", break_on_hyphens=False)


def _bar(stage: Stage) -> str:
    filled = min(_BAR_LETTERS, _BAR_LETTERS * (stage.done or 0) // stage.total) if stage.total else 0
    return f"[{'#' * filled}{'-' * (_BAR_LETTERS - filled)}]"


def _count(count: int | None, unit: str) -> str:
    if count is None:
        return ""
    return bytes_text(count) if unit == "bytes" else str(count)
