"""Requests to a pod over a link that may break, and begun work that nobody wants any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from podlab.errors import LinkLost, NotFound, PodlabError
from podlab.events import Notice, Stage, Work
from podlab.lab.supervisor import PodSide, result_of

LINK_TRIES = 4
T = TypeVar("T")


def repeated(request: Callable[[], T]) -> T:
    """Repeat a request that is idempotent while the link breaks. Raises the last LinkLost."""
    for _ in range(LINK_TRIES - 1):
        try:
            return request()
        except LinkLost:
            continue
    return request()


def abandon(side: PodSide, id: str, name: str) -> Work[None]:
    """Stop what an interrupted command had begun; it may not have been started at all."""
    yield Stage("stop", f"Interrupted: stopping {name}")
    try:
        result_of(side.stop(id, grace_s=3.0))
    except NotFound:
        return
    except PodlabError as error:
        yield Notice(f"{name} may still be running: {error.message}", "warning")
