"""Model servers that run on a pod without a record there: orphans of ours, and what somebody else started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podlab import secrets
from podlab.errors import AlreadyExists, BadArgument, BadSecret
from podlab.lab import endpoints, pods
from podlab.types import Pod

if TYPE_CHECKING:
    from podlab.lab.facts import Facts
    from podlab.lab.workspace import Workspace


def wanted(workspace: Workspace, orphan: str | None, pid: int | None, on: str | None) -> tuple[Pod, Facts | None]:
    """The pod, and the orphan's facts, None for a process that is not ours.

    Raises BadArgument when neither or both are named, AlreadyExists for what is on record, and as `endpoints.find`.
    """
    if (orphan is None) == (pid is None):
        raise BadArgument("Say which: model adopt ID, or model adopt --pid N.", hint="See: podlab model list")
    if orphan is None:
        return pods.meant(workspace, on), None
    pod, facts = endpoints.find(workspace, orphan, on)
    if not facts.orphan:
        raise AlreadyExists(f"{orphan} on {pod.name} is on record already.", hint=f"See: podlab model show {orphan}")
    return pod, facts


def adopt(
    workspace: Workspace, pod: Pod, orphan: Facts | None, pid: int | None, name: str | None, key_name: str | None
) -> Facts:
    """Put it on record on its pod. Raises BadSecret when its key is gone, and as PodSide.adopt."""
    key = None
    if key_name is not None:
        key = secrets.find(key_name)
        if key is None:
            raise BadSecret(f"There is no secret {key_name!r}.", hint=f"Keep it: podlab secret set {key_name}")
    side = workspace.side(pod)
    facts = side.adopt(
        id=orphan.id if orphan else None, pid=pid, name=name or (orphan.name or None if orphan else None),
        key=key.reveal() if key else None,
    )  # fmt: skip
    endpoints.listing(workspace, [pod])
    return side.status([facts.id])[0]
