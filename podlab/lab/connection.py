"""How a program of the user's own reaches an endpoint."""

from __future__ import annotations

from functools import cache

from podlab.lab import endpoints
from podlab.lab.workspace import Workspace


@cache
def _workspace() -> Workspace:
    """One for the process: without a keeper it holds the connections."""
    return Workspace.open()


def connection(name: str | None = None, *, on: str | None = None) -> dict[str, str]:
    """What an OpenAI client needs to speak with an endpoint: `OpenAI(**podlab.connection("tiny"))`.

    Returns `base_url` (ending in /v1) and `api_key`. `name` None means the only endpoint that runs, `on` names its
    pod. The address of an endpoint on another machine keeps working after this process has ended, while the keeper
    runs. Raises NotFound, Unreachable or EngineNotReady.
    """
    reached = endpoints.reach(_workspace(), name, on)
    return {"base_url": reached.base_url, "api_key": reached.key.reveal() if reached.key else "none"}
