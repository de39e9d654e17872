"""This computer as a pod. It always exists, has no address and costs nothing."""

from __future__ import annotations

from podlab.errors import BadArgument
from podlab.types import Pod

LOCAL = Pod(name="local", id="local", provider="local")


class LocalProvider:
    """Gives the one pod `local`."""

    name = "local"
    rents = False
    simulated = False

    def adopt(self, name: str, address: str, *, models_path: str | None = None) -> Pod:
        raise BadArgument("The pod local exists already.", hint="Use it as it is: %pod use local")
