"""The quota of a pod's models: what has to go for another to come. The least recently used goes first, nothing in use.

`eviction` only reckons; `make_room` asks and deletes. The pod refuses to delete what somebody began to use meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from podlab.errors import Refused
from podlab.events import Ask, Notice, Work
from podlab.lab import weights
from podlab.units import age_text, bytes_text

if TYPE_CHECKING:
    from podlab.lab.facts import PodFacts
    from podlab.lab.weights import Shelf
    from podlab.lab.workspace import Workspace
    from podlab.types import Pod, StoredModel


@dataclass(frozen=True)
class Eviction:
    """What has to go from a pod for `need_bytes` more of `model` to be within its quota."""

    model: str
    need_bytes: int
    going: tuple[StoredModel, ...]
    found: Shelf

    @property
    def said(self) -> str:
        """What goes, each with its size and its age."""
        return ", ".join(
            f"{each.id} ({bytes_text(each.size_bytes)}, last used {age_text(each.last_used, self.found.now)})"
            for each in self.going
        )

    @property
    def why(self) -> str:
        """A sentence."""
        quota = bytes_text(self.found.disk.quota_bytes or 0)
        return f"The quota on {self.found.disk.pod} is {quota}, and {self.model} needs {bytes_text(self.need_bytes)}."


def eviction(found: Shelf, model: str, need_bytes: int) -> Eviction | None:
    """What has to go for `need_bytes` more of `model`; None when nothing comes, or it has room. Pure.

    Raises Refused when not enough can go: what is in use, and what is there of `model` itself, stays.
    """
    quota = found.disk.quota_bytes
    if quota is None or need_bytes <= 0 or found.disk.used_bytes + need_bytes <= quota:
        return None
    going = to_evict(found, model, need_bytes)
    left = found.disk.used_bytes + need_bytes - sum(each.size_bytes for each in going)
    if left > quota:
        raise Refused(
            f"{model} needs {bytes_text(need_bytes)} more, for which the quota of {bytes_text(quota)} on "
            f"{found.disk.pod} has no room: the rest is in use.",
            hint=f"Raise it: podlab model cache --quota {bytes_text(left).replace(' ', '')} --on {found.disk.pod}",
        )
    return Eviction(model, need_bytes, going, found)


def to_evict(found: Shelf, model: str, need_bytes: int) -> tuple[StoredModel, ...]:
    """What has to go for `need_bytes` more to be within the quota: least recently used first, nothing in use. Pure."""
    over = found.disk.used_bytes + need_bytes - (found.disk.quota_bytes or 0)
    if found.disk.quota_bytes is None or over <= 0:
        return ()
    going: list[StoredModel] = []
    for each in sorted(found.models, key=lambda each: each.last_used):
        if over > 0 and not each.used_by and each.id != model:
            going.append(each)
            over -= each.size_bytes
    return tuple(going)


def make_room(workspace: Workspace, pod: Pod, facts: PodFacts, planned: Eviction | None) -> Work[None]:
    """Delete what has to go, once that is agreed to. Raises Refused when the answer is no, or nobody gives one."""
    if planned is None:
        return
    answer = yield Ask(f"Delete {planned.said}?", "delete", planned.why, yes="Delete")
    if not answer:
        raise Refused(
            f"The quota on {pod.name} has no room for {planned.model}, and {planned.said} was to stay. "
            "Nothing was fetched.",
            hint="Repeat with --yes to delete that, or raise the quota: podlab model cache --quota SIZE",
        )
    freed = weights.delete(workspace, pod, facts, [each.id for each in planned.going])
    yield Notice(f"Deleted {', '.join(each.id for each in planned.going)}: {bytes_text(freed)} are free again.")
