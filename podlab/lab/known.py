"""Names that completion offers. From files of this computer only: completing never asks a pod."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podlab import secrets, settings
from podlab.lab import attached, pods

if TYPE_CHECKING:
    from podlab.lab.workspace import Workspace


def names(workspace: Workspace, values: str) -> list[str]:
    """What an argument of that sort may be, in the order to be offered; [] for a sort nobody knows by name."""
    match values:
        case "pods":
            return [pod.name for pod in pods.all_pods()]
        case "endpoints":
            return [*workspace.store.endpoint_names(), *(each.name for each in attached.all_attached())]
        case "models":
            from podlab.catalog import catalog

            return [entry.id for entry in catalog.entries()]
        case "providers":
            return ["runpod", "sandbox", "ssh", "local"]
        case "gpus":
            from podlab.catalog import gpus

            return sorted({*(kind.name for kind in gpus.gpu_types()), *workspace.store.words("gpus")})
        case "datacenters" | "volumes" | "templates" | "registries":
            return workspace.store.words(values)
        case "rentals":
            from podlab.lab.rented_names import rental_names
            from podlab.ledger import Ledger

            return rental_names(Ledger())
        case "settings":
            return [setting.name for setting in settings.SETTINGS]
        case "secrets":
            return secrets.names()
        case _:
            return []
