"""This computer as a pod. It always exists, has no address and costs nothing."""

from __future__ import annotations

from podlab.errors import BadArgument
from podlab.providers.owned import RentsNothing
from podlab.types import Pod

LOCAL = Pod(name="local", id="local", provider="local")


class LocalProvider(RentsNothing):
    """Gives the one pod `local`."""

    name = "local"

    def adopt(self, name: str, address: str, *, models_path: str | None = None) -> Pod:
        raise BadArgument("The pod local exists already.", hint="Use it as it is: %pod use local")
