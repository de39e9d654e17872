"""How a program of the user's own reaches an endpoint."""

from __future__ import annotations

from functools import cache

from podlab import secrets
from podlab.lab import endpoints
from podlab.lab.workspace import Workspace


@cache
def _workspace() -> Workspace:
    """One for the process: without a keeper it holds the connections."""
    return Workspace.open()


class Connection(dict[str, str]):
    """`base_url` and `api_key`. Shown, it hides the key: a cell that ends in it is saved with its notebook."""

    def __repr__(self) -> str:
        return repr({**self, "api_key": secrets.MASK})


def connection(name: str | None = None, *, on: str | None = None) -> Connection:
    """What an OpenAI client needs to speak with an endpoint: `OpenAI(**podlab.connection("tiny"))`.

    Returns a dictionary of `base_url` (ending in /v1) and `api_key`. `name` None means the only endpoint that runs,
    `on` names its pod. The address of an endpoint on another machine keeps working after this process has ended, while
    the keeper runs. Raises NotFound, Unreachable or EngineNotReady.
    """
    reached = endpoints.reach(_workspace(), name, on)
    return Connection(base_url=reached.base_url, api_key=reached.key.reveal() if reached.key else "none")
