"""The model files on a pod: which there are and who uses them, whether they are whole, deleting them.

The pod looks by itself (remote/weights.py) and nothing of it is kept here. What it says is untrusted: each answer is
read field by field.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from podlab.catalog import catalog
from podlab.catalog.hub import Hub
from podlab.catalog.sources import BuiltinSource, source_text
from podlab.errors import BadSettings, GatedRepo, HttpError, NotFound, PodlabError, Refused, SupervisorError
from podlab.events import Notice, Stage, Work
from podlab.lab.supervisor import SILENCE_S
from podlab.lab.talk import PROTOCOL, Talk, begin, program
from podlab.types import CachedModel, ModelDisk, Pod, StoredModel, VerifiedFile, WeightFile
from podlab.wire import Wire

if TYPE_CHECKING:
    from podlab.lab.facts import PodFacts
    from podlab.lab.workspace import Workspace

FILES_LIMIT = 5000
ROOMS = ("machine", "streams", "records", "hashing")
"""What remote/weights.py stands on, in the order of their needs."""
T = TypeVar("T", bound=str)


@dataclass(frozen=True)
class Shelf:
    """What a pod has: models that podlab keeps, the disk they are on, and models of others, only looked at."""

    models: tuple[StoredModel, ...]
    disk: ModelDisk
    others: tuple[CachedModel, ...] = ()
    now: float = 0.0


def models_folder(pod: Pod, facts: PodFacts) -> str:
    """Where a pod keeps models, absolute: its --models-path, else a folder of podlab's home there."""
    return f"{facts.home}/models" if pod.models_path is None else facts.absolute(pod.models_path)


def shelf(workspace: Workspace, pod: Pod, facts: PodFacts, *, others: bool = False) -> Shelf:
    """Every model on a pod, the largest first. With `others` also what huggingface_hub's own cache holds."""
    found = _shelf(workspace, pod, facts, {"others": others})
    if found is None:
        raise SupervisorError(f"Pod {pod.name!r} did not say how full its disk is.")
    return found


def shelf_with_quota(workspace: Workspace, pod: Pod, facts: PodFacts) -> Shelf | None:
    """Every model on a pod that has a quota; None, without a look at the models, where it has none."""
    found = _shelf(workspace, pod, facts, {"if_quota": True})
    return found if found is not None and found.disk.quota_bytes is not None else None


def _shelf(workspace: Workspace, pod: Pod, facts: PodFacts, asked: Mapping[str, bool]) -> Shelf | None:
    models: list[StoredModel] = []
    cached: list[CachedModel] = []
    disk: Wire | None = None
    for answer in _ask(workspace, pod, facts, "list", asked):
        if "model" in answer:
            models.append(_model_from(Wire(answer["model"], "a model"), pod.name))
        elif "other" in answer:
            wire = Wire(answer["other"], "a model of another cache")
            cached.append(CachedModel(wire.text("id"), pod.name, wire.text("path"), wire.whole("bytes"),
                                      wire.number("last_used")))  # fmt: skip
        elif "disk" in answer:
            disk = Wire(answer["disk"], "the disk")
    if disk is None:
        return None
    used = sum(model.size_bytes for model in models)
    room = ModelDisk(pod.name, disk.text("models"), used, disk.whole("free_bytes"), disk.whole("total_bytes"),
                     disk.maybe("quota_bytes", disk.whole))  # fmt: skip
    models.sort(key=lambda model: -model.size_bytes)
    return Shelf(tuple(models), room, tuple(cached), facts.now)


def named(text: str, found: Shelf) -> StoredModel:
    """The model on a pod that `text` means: what `model start` takes, a name of the catalog, or a path there.

    Raises NotFound with what could have been meant.
    """
    wanted = {text, f"hf:{text}", f"pod:{text}", f"pod:{text}/"}
    ships = False
    try:
        source = catalog.find(text).source
        wanted.add(source_text(source))
        ships = isinstance(source, BuiltinSource)
    except PodlabError:
        pass  # no name of the catalog; it may be one of the pod all the same
    for model in found.models:
        if wanted & {model.id, model.path}:
            return model
    if ships:
        raise NotFound(
            f"{text} ships with podlab; {found.disk.pod} keeps no files of it.",
            hint=f"It serves without any: podlab model start {text}",
        )
    ids = [model.id for model in found.models]
    near = difflib.get_close_matches(text, ids, n=2, cutoff=0.4) or [
        each for each in ids if text.lower() in each.lower()
    ]
    raise NotFound(
        f"{text} is not on {found.disk.pod}.",
        hint=f"Did you mean {' or '.join(near[:2])}?" if near else "See: podlab model files",
    )


def set_quota(workspace: Workspace, pod: Pod, facts: PodFacts, quota_bytes: int | None) -> None:
    """Say on the pod how much its models may take; None: as much as there is room."""
    for _ in _ask(workspace, pod, facts, "quota", {"quota_bytes": quota_bytes}):
        pass


def delete(workspace: Workspace, pod: Pod, facts: PodFacts, ids: Sequence[str]) -> int:
    """Delete models by their ids, all or none; the bytes that this freed. Raises SupervisorError for one in use."""
    freed = 0
    for answer in _ask(workspace, pod, facts, "delete", {"ids": list(ids)}):
        if "deleted" in answer:
            freed += Wire(answer["deleted"], "what was deleted").whole("bytes")
    return freed


def refuse_used(model: StoredModel) -> None:
    """Raise Refused for a model that something uses."""
    if model.used_by:
        who = ", ".join(model.used_by[:3])
        raise Refused(
            f"{model.id} on {model.pod} is used by {who}. It was not deleted.",
            hint=f"Stop it first: podlab model stop {model.used_by[0]}",
        )


def verify(workspace: Workspace, pod: Pod, facts: PodFacts, model: StoredModel) -> Work[tuple[VerifiedFile, ...]]:
    """Hash every file of a model on its pod, and hold it against the hub's sums, or where the hub cannot be asked
    against those that it was checked by when it came."""
    expected = yield from _expected(model)
    total = sum(file.size_bytes for file in model.files)
    files = {file.path: file for file in model.files}
    asked = [{"path": path, "digest": expected.get(file.name) or file.digest} for path, file in files.items()]
    found: list[VerifiedFile] = []
    text = f"Hashing {model.id} on {pod.name}"
    for answer in _ask(workspace, pod, facts, "verify", {"files": asked}):
        if "hashed" in answer:
            yield Stage("verify", text, Wire(answer, "verify").whole("hashed"), total, "bytes")
        elif "file" in answer:
            wire = Wire(answer["file"], "a hashed file")
            file = files[_known(wire.text("path"), files)]
            found.append(
                VerifiedFile(file.name, file.path,
                             _one_of(wire.text("state", 16), ("ok", "damaged", "missing", "unreadable", "unknown")),
                             wire.text("digest", 200), expected.get(file.name) or file.digest)
            )  # fmt: skip
    return tuple(found)


def _expected(model: StoredModel) -> Generator[Notice, None, Mapping[str, str]]:
    """The hub's sums of a model's files at the commit it is of; none where the hub cannot tell."""
    if not model.id.startswith("hf:") or not model.commit:
        return {}
    repo = "/".join(model.id.removeprefix("hf:").partition("@")[0].split("/")[:2])
    try:
        repository = Hub().repository(repo, model.commit)
    except (HttpError, NotFound, GatedRepo, BadSettings) as error:
        yield Notice(f"The hub was not asked for its sums ({error.message}); those from the download are used.")
        return {}
    return {file.name: file.digest for file in repository.files if file.digest}


def _ask(
    workspace: Workspace, pod: Pod, facts: PodFacts, op: str, body: Mapping[str, object]
) -> Generator[dict[str, Any], None, None]:
    """The answers of the pod's side to one request."""
    side = workspace.side(pod)
    request = {"v": PROTOCOL, "op": op, "home": facts.home, "models": models_folder(pod, facts), **body}
    source = program("weights", *ROOMS)
    process = begin(side.transport, source, json.dumps(request).encode() + b"\n", side.python)
    with Talk(process, side.transport.pod, SILENCE_S) as talk:
        for answer in talk:
            if "done" in answer:
                return
            yield answer
    raise talk.broken_off()


def _model_from(wire: Wire, pod: str) -> StoredModel:
    return StoredModel(
        wire.text("id"), pod, wire.text("path"), _one_of(wire.text("format", 16), ("gguf", "safetensors")),
        _one_of(wire.text("state", 16), ("whole", "selected", "partial")), wire.whole("bytes"),
        wire.number("last_used"), wire.texts("used_by", 200, 20), wire.text("commit", 64),
        tuple(_file_from(each) for each in wire.parts("files", FILES_LIMIT)),
    )  # fmt: skip


def _file_from(wire: Wire) -> WeightFile:
    return WeightFile(
        wire.text("name"), wire.text("path"), wire.whole("bytes"), wire.whole("part_bytes"), wire.text("digest", 80),
        wire.flag("checked"),
    )  # fmt: skip


def _one_of(text: str, known: tuple[T, ...]) -> T:
    for each in known:
        if text == each:
            return each
    raise SupervisorError(f"The pod's side says {text[:40]!r}, which nobody knows.")


def _known(path: str, files: Mapping[str, WeightFile]) -> str:
    if path not in files:
        raise SupervisorError(f"The pod's side speaks of a file nobody asked about: {path[:80]!r}")
    return path
