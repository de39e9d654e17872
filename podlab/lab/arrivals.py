"""What has to come to a pod for a model to be started there: how much it is, room made for it, sending it.

What comes from the hub the pod fetches by itself, as a step of the start; what is on this computer is sent before it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from podlab.catalog import catalog
from podlab.catalog.catalog import ModelEntry, SendFile
from podlab.catalog.sources import FolderSource, HubRepo, HubSource, source_text
from podlab.errors import NotFound
from podlab.events import Work
from podlab.lab import downloads, files, quota, weights

if TYPE_CHECKING:
    from podlab.lab.facts import PodFacts
    from podlab.lab.quota import Eviction
    from podlab.lab.weights import Shelf
    from podlab.lab.workspace import Workspace
    from podlab.types import Pod, StoredModel


@dataclass(frozen=True)
class Sending:
    """A file or folder of this computer, and where it goes on the pod."""

    here: Path
    there: str
    is_folder: bool = False

    def size_bytes(self) -> int:
        """Of all that is sent."""
        paths = [path for path, _ in files.of_folder(self.here)] if self.is_folder else [self.here]
        return sum(path.stat().st_size for path in paths)


def sending(pod: Pod, entry: ModelEntry, there: str | None) -> Sending | None:
    """What is sent for a start; None where the model is on the pod already or comes from the hub. Raises NotFound for a
    folder of this computer that holds no model."""
    source = catalog.resolve(entry)
    if isinstance(source, FolderSource) and not source.on_pod:
        if not (Path(source.path) / "config.json").is_file():
            raise NotFound(f"There is no model in {source.path}.", hint="Such a folder holds a config.json.")
    elif not isinstance(source, SendFile):
        return None
    if pod.provider == "local" or there is None:
        return None
    return Sending(Path(source.path), there, isinstance(source, FolderSource))


def planned(
    workspace: Workspace, pod: Pod, facts: PodFacts, entry: ModelEntry, there: str | None
) -> Work[Eviction | None]:
    """What has to go from the pod for the model to come, by the quota there; None where nothing has to.

    The pod asks the hub how much would come. Raises Refused where too much of the rest is in use.
    """
    source, sent = catalog.resolve(entry), sending(pod, entry, there)
    if not isinstance(source, HubSource | HubRepo) and sent is None:
        return None
    found = weights.shelf_with_quota(workspace, pod, facts)
    if found is None:
        return None
    if sent is not None:
        return quota.eviction(found, _id(found, sent), max(0, sent.size_bytes() - _there(found, sent)))
    assert isinstance(source, HubSource | HubRepo)
    need = yield from downloads.needed(workspace, pod, facts, source)
    return quota.eviction(found, source_text(source), need)


def make_room(workspace: Workspace, pod: Pod, facts: PodFacts, entry: ModelEntry, there: str | None) -> Work[None]:
    """See that the model has room within the pod's quota: what goes for it is asked about. Raises Refused."""
    evicted = yield from planned(workspace, pod, facts, entry, there)
    yield from quota.make_room(workspace, pod, facts, evicted)


def send(workspace: Workspace, pod: Pod, entry: ModelEntry, there: str | None) -> Work[None]:
    """Send the model's files to where the engine will look for them, if they are here and have to be there."""
    sent = sending(pod, entry, there)
    if sent is None:
        return
    if sent.is_folder:
        yield from files.send_folder(workspace, pod, sent.here, sent.there, what=f"Sending {entry.id}")
    else:
        what = f"Sending {entry.id} to {pod.name}"
        yield from files.send_file(workspace, pod, sent.here, sent.there, what=what)


def _id(found: Shelf, sent: Sending) -> str:
    """What the pod calls what is sent, where some of it is there: that must not go for the rest of it to come."""
    return next((model.id for model in _same(found, sent)), sent.there)


def _there(found: Shelf, sent: Sending) -> int:
    return sum(model.size_bytes for model in _same(found, sent))


def _same(found: Shelf, sent: Sending) -> Iterator[StoredModel]:
    return (model for model in found.models if model.path.rstrip("/") == sent.there.rstrip("/"))
