"""What whoever tends the rented pods has found, said before the next command: a ledger that cannot be read, a pod that
does not end, a limit that is near. Once in a process, however near it comes.
"""

from __future__ import annotations

import time
from typing import TypeVar

from podlab.events import Notice, Work

FRESH_S = 600.0
"""What was found longer ago may be over."""
T = TypeVar("T")
_said: set[str] = set()


def first(work: Work[T]) -> Work[T]:
    """A verb's work, after what has to be said before it."""
    for text in unsaid():
        yield Notice(text, "warning")
    return (yield from work)


def unsaid() -> list[str]:
    """What was found lately and not said yet in this process; it counts as said then. [] where nobody ever tended."""
    from podlab.errors import PodlabError
    from podlab.settings import home

    try:
        path = home() / "tending.json"
        age_s = time.time() - path.stat().st_mtime
    except (PodlabError, OSError):
        return []
    if not abs(age_s) < FRESH_S:
        return []
    from podlab.lab.tending_file import TendingFile
    from podlab.lab.tending_words import without_figures

    notes = TendingFile(path).notes()
    found = []
    for text in (*notes.alarms, *notes.warnings):
        if (key := without_figures(text)) not in _said:
            _said.add(key)
            found.append(text)
    return found
