"""One name means one endpoint, over all pods and what is attached: whether a name is free."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from podlab.durable import locked, private_folder
from podlab.errors import AlreadyExists
from podlab.lab import attached, endpoints, pods
from podlab.settings import home
from podlab.types import ALIVE, EndpointState

if TYPE_CHECKING:
    from podlab.lab.workspace import Workspace
    from podlab.types import Pod


def refuse_taken(workspace: Workspace, name: str, *, but_on: Pod | None = None) -> None:
    """Raise AlreadyExists when an attached server or an endpoint has that name, on any pod `but_on` that one.

    The pods that an endpoint of that name was last seen on are asked now; one that does not answer counts as having it.
    """

    def seen_on(pod: Pod) -> bool:
        return any(each.name == name and each.pid is not None for each in workspace.store.endpoints_of(pod.id))

    if (theirs := attached.named(name)) is not None:
        raise AlreadyExists(
            f"{name} is the name of an attached server, {theirs.url}.",
            hint=f"Choose another name with --name, or podlab model detach {name}",
        )
    asked = [pod for pod in pods.all_pods() if (but_on is None or pod.id != but_on.id) and seen_on(pod)]
    found, _ = endpoints.listing(workspace, asked)
    for endpoint in found:
        if endpoint.name == name and endpoint.state in ALIVE:
            raise name_taken(name, f"is the name of an endpoint on {endpoint.pod} that serves {endpoint.model}.")
        if endpoint.name == name and endpoint.state is EndpointState.UNREACHABLE:
            raise name_taken(
                name, f"was last seen on {endpoint.pod}, which does not answer now: it may still run there."
            )


@contextlib.contextmanager
def claimed(workspace: Workspace, name: str, *, but_on: Pod | None = None) -> Iterator[None]:
    """Hold a name while an endpoint of it is made: who wants it on another pod waits so long, and finds it taken then.

    Raises AlreadyExists as `refuse_taken` does, and StateDamaged when another process holds it and does not go on.
    """
    with locked(private_folder(home() / "names") / f"{name}.lock"):
        refuse_taken(workspace, name, but_on=but_on)
        yield


def name_taken(name: str, why: str) -> AlreadyExists:
    """The error for a name that an endpoint has."""
    return AlreadyExists(f"{name} {why}", hint=f"Choose another name with --name, or stop it: podlab model stop {name}")
