"""The contract of a provider: where pods come from. `lab/pods.py` is its only caller; a call may block.

What exists already (this computer, a machine somebody owns) is *adopted*: nothing is created and nothing can be
billed. A provider that rents pods adds creating and ending to this contract.
"""

from __future__ import annotations

from typing import Protocol

from podlab.types import Pod


class Provider(Protocol):
    """A source of pods."""

    @property
    def name(self) -> str:
        """As it stands in `Pod.provider`."""
        ...

    def adopt(self, name: str, address: str, *, models_path: str | None = None) -> Pod:
        """A pod for the machine that `address` names, as a person wrote it. Touches no network and no file.

        Raises BadArgument naming what in the address cannot be understood.
        """
        ...
