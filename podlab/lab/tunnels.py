"""Tunnels a person opened: ports of this computer that lead to a pod."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podlab.errors import AlreadyExists, BadArgument, NotFound
from podlab.lab import pods
from podlab.transport.kept_place import KEPT_S
from podlab.types import Pod, TunnelRow

if TYPE_CHECKING:
    from podlab.lab.workspace import Workspace


def port(text: str) -> int:
    """A port as a person wrote it. Raises BadArgument."""
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise BadArgument(f"{text!r} is not a port.", hint="A port is a number from 1 to 65535.")
    return int(text)


def open_port(workspace: Workspace, pod: Pod, remote_port: int, local_port: int | None) -> TunnelRow:
    """Lead a port of this computer to one of the pod; one that is open already is shown, not opened again.

    Raises AlreadyExists when it is open at another port than the wished one.
    """
    row = TunnelRow(pod.name, workspace.local_port(pod, remote_port, wished=local_port or 0), remote_port)
    if local_port and row.local_port != local_port:
        raise AlreadyExists(
            f"Port {remote_port} of {pod.name} is led to already, from {row.local_port}.",
            hint=f"Use that, or close it first: podlab pod tunnel close {remote_port}",
        )
    return row


def listing(workspace: Workspace) -> tuple[TunnelRow, ...]:
    """The tunnels that are open now, those to endpoints included."""
    names = {pod.id: pod.name for pod in pods.all_pods()}
    return tuple(
        TunnelRow(names.get(pod_id, pod_id), local_port, remote_port)
        for pod_id, local_port, remote_port in workspace.forwards()
    )


def lasting(workspace: Workspace, pod: Pod) -> str:
    """How long an address of this computer leads to that pod, as a clause for a person."""
    if pod.provider == "local":
        return "as long as it runs"
    if not workspace.keeps_forwards(pod):
        return "until this process ends: a command at once, a notebook with its kernel (there is no keeper)"
    return f"as long as it runs; unused for {KEPT_S / 3600:g} hours it is closed, and asking again opens it"


def close(workspace: Workspace, pod: Pod, remote_port: int) -> None:
    """Close a tunnel. Raises NotFound when there is none."""
    if not workspace.close_forward(pod, remote_port):
        raise NotFound(f"No tunnel leads to port {remote_port} of {pod.name}.", hint="See: podlab pod tunnel list")
