"""What a model server's command line is, and how its log and its HTTP say ready or why not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from podlab.engines.base import Engine


def engine_named(name: str) -> Engine:
    """The engine of that name. Raises NotFound."""
    from podlab.engines.llamacpp import LlamaCpp
    from podlab.errors import NotFound

    if name == LlamaCpp.name:
        return LlamaCpp()
    raise NotFound(f"There is no engine {name!r}.", hint=f"Engines: {LlamaCpp.name}.")
