"""Bring a model from the hub to a pod, on the pod itself: a job that outlives the link and this process.

It goes to where `model start` looks for it, with the same programs, so a later start downloads nothing. A model that is
being downloaded is not downloaded twice: the second who asks watches the first.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets as random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from typing import TYPE_CHECKING

from podlab import secrets
from podlab.catalog import catalog
from podlab.catalog.sources import HubRepo, HubSource, parse_source, source_text
from podlab.engines.base import Cause
from podlab.engines.llamacpp import hub_path
from podlab.engines.repository import DOWNLOADER, REPOSITORY_DOWNLOADER, repository_path
from podlab.errors import (
    AlreadyExists,
    BadArgument,
    GatedRepo,
    HttpError,
    LinkLost,
    NotFound,
    PodlabError,
    SupervisorError,
    TransferFailed,
    Unreachable,
)
from podlab.events import Notice, Stage, Work
from podlab.lab import jobs, pods, quota, weights
from podlab.lab.facts import Facts, Progress
from podlab.lab.fanout import ask_all
from podlab.lab.patience import Patience, repeated
from podlab.types import DownloadFile, DownloadRow, Pod, PodStatus, Step, StoredModel
from podlab.units import bytes_text, duration_text

if TYPE_CHECKING:
    from podlab.lab.facts import PodFacts
    from podlab.lab.workspace import Workspace

LOOK_S = 0.5
"""Between two looks at all pods while they are watched."""
WATCH_S = 3600.0
_FAILED = re.compile(r"podlab: ([a-z_]+): (.*)")
_STATES = {"running": "downloading", "succeeded": "done"}
_ENDED = frozenset({"done", "failed", "cancelled", "lost", "unknown", "crashed"})


@dataclass(frozen=True)
class DownloadWish:
    """What a person asked to be downloaded. `include` and `exclude` are globs over names of a repository's files."""

    model: str
    revision: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    force: bool = False

    def source(self) -> HubSource | HubRepo:
        """Where it is on the hub. Raises NotFound and BadArgument as finding the model does, and for what is no model
        of the hub."""
        entry = catalog.find(self.model)
        found = catalog.resolve(entry)
        if not isinstance(found, HubSource | HubRepo):
            raise BadArgument(
                f"{self.model} is not on the hub: there is nothing to download.", hint="Start it: podlab model start"
            )
        if self.revision is not None:
            parse_source(f"hf:{found.repo}@{self.revision}")  # refuses what cannot be one
            changed = self.revision != found.revision
            found = replace(found, revision=self.revision)
            if isinstance(found, HubSource) and changed:
                found = replace(found, sha256=None, size_bytes=None)  # they are those of the other revision
        if isinstance(found, HubSource) and (self.include or self.exclude):
            raise BadArgument(
                f"{self.model} is one file, of which nothing can be chosen.",
                hint=f"Name its repository: podlab model download {found.repo} --include '{found.file}'",
            )
        return found


@dataclass(frozen=True)
class Fetched:
    """A download that was begun, and the model it brought; None while it goes on."""

    row: DownloadRow
    model: StoredModel | None


def plan(pod: Pod, wish: DownloadWish) -> tuple[str, ...]:
    """What `download` would do, without asking anybody."""
    source = wish.source()
    what = source_text(source) + (f", only {', '.join(wish.include)}" if wish.include else "")
    return (
        f"download {what} on {pod.name}, what is there already left out" if not wish.force
        else f"download {what} on {pod.name} anew",
        "check it against the hub's SHA-256",
    )  # fmt: skip


def download(
    workspace: Workspace, pod: Pod, wish: DownloadWish, *, detach: bool = False, host_key: str | None = None
) -> Work[Fetched]:
    """Bring a model to a pod. Interrupted, it goes on there; with `detach` it is not watched at all.

    Raises GatedRepo, NotFound, HttpError (no network) or TransferFailed (no room, damaged on the way twice).
    """
    source = wish.source()
    model = source_text(source)
    facts = yield from pods.reach(workspace, pod, host_key=host_key)
    found = weights.shelf_with_quota(workspace, pod, facts)
    if found is not None:
        need = yield from needed(workspace, pod, facts, source, wish)
        yield from quota.make_room(workspace, pod, facts, quota.eviction(found, model, need))
    started = yield from _started(workspace, pod, facts, source, wish)
    if detach:
        return Fetched(row(pod, started), None)
    last = yield from follow(workspace, pod, started.id, model)
    if last.exit is None or last.exit.status != 0:
        raise _failure(last, model, pod)
    there = weights.shelf(workspace, pod, facts)
    return Fetched(row(pod, last), next((each for each in there.models if each.id == model), None))


def follow(workspace: Workspace, pod: Pod, job_id: str, model: str) -> Work[Facts]:
    """A download's progress until its end, over breaks of the link. An interrupt ends only the watching."""
    side = workspace.side(pod)
    last: Facts | None = None
    patience = Patience()
    try:
        while True:
            watching = side.watch(job_id, WATCH_S, "ended")
            try:
                while True:
                    last = next(watching)
                    patience.heard()
                    yield _stage(f"Downloading {model} on {pod.name}", last.progress)
            except StopIteration as end:
                if last is not None and end.value == "ended":
                    return last
            except (LinkLost, Unreachable) as error:
                yield Notice(f"The link to {pod.name} broke; the download goes on there. Connecting again.", "warning")
                patience.wait(error)
            finally:
                watching.close()
    except KeyboardInterrupt:
        yield Notice(
            f"The download goes on, on {pod.name}. Watch it: podlab model downloads --live. "
            f"End it: podlab pod cancel {job_id} --on {pod.name}"
        )
        raise


def listing(workspace: Workspace, asked: Sequence[Pod]) -> tuple[list[DownloadRow], list[PodStatus]]:
    """The downloads of these pods, those of a `model start` included, and how each pod answered."""

    def look(pod: Pod) -> list[DownloadRow]:
        side = workspace.side(pod)
        started = [facts for facts in side.list() if facts.step == "download" and not facts.ended]
        return [row(pod, facts) for facts in (*started, *(each for each in side.jobs() if "download" in each.meta))]

    answers = ask_all(list(asked), look, deadline_s=workspace.value("deadline_s"))
    rows = [found for answer in answers if not isinstance(answer, PodlabError) for found in answer]
    return rows, [
        pods.status_of(workspace, pod, answer if isinstance(answer, PodlabError) else None)
        for pod, answer in zip(asked, answers, strict=True)
    ]


def live(
    workspace: Workspace, asked: Sequence[Pod], *, sleep: Callable[[float], None] = time.sleep
) -> Work[tuple[list[DownloadRow], list[PodStatus]]]:
    """Watch all downloads, a bar for each file under way, until none is left. An interrupt ends only the watching."""
    try:
        while True:
            rows, statuses = listing(workspace, asked)
            going = [each for each in rows if each.state not in _ENDED]
            if not going:
                return rows, statuses
            yield _overview(going)
            sleep(LOOK_S)
    except KeyboardInterrupt:
        yield Notice("The downloads go on. Watch them again: podlab model downloads --live")
        return listing(workspace, asked)


def row(pod: Pod, facts: Facts) -> DownloadRow:
    """A download as a person sees it."""
    progress = facts.progress or Progress("")
    if facts.kind == "endpoint":
        state, detail = "downloading", f"for {facts.name}"
    else:
        said = jobs.row(pod, facts).state
        state = _STATES.get(said, said)
        detail = last_words(facts)[1] if state == "failed" else progress.text if state == "downloading" else ""
    done, total = (progress.done, progress.total) if progress.unit == "bytes" else (progress.done, None)
    rate = progress.rate_bytes_per_s if state == "downloading" else None
    left_s = (total - done) / rate if rate and total is not None and done is not None else None
    files = tuple(DownloadFile(file.name, file.done, file.total) for file in progress.files)
    return DownloadRow(
        facts.id, pod.name, str(facts.meta.get("download") or facts.model), state, done, total, rate, left_s, detail,
        facts.started_at, files,
    )  # fmt: skip


def _started(
    workspace: Workspace, pod: Pod, facts: PodFacts, source: HubSource | HubRepo, wish: DownloadWish
) -> Work[Facts]:
    """A job that downloads it: a new one, or the one that does so already."""
    model = source_text(source)
    side = workspace.side(pod)
    meta = {"command": f"model download {model}", "download": model}
    argv, name = _argv(pod, facts, source, wish), _job_name(source, wish)
    for _ in range(2):
        job_id = f"d-{random.token_hex(4)}"
        try:
            return repeated(
                lambda job_id=job_id: side.start(  # type: ignore[misc]
                    id=job_id, name=name, kind="job", steps=(Step("download", argv),), files=_programs(source),
                    secrets=_token(), model=model, meta=meta,
                )
            ).facts  # fmt: skip
        except AlreadyExists:
            running = next((each for each in side.jobs() if each.name == name and not each.ended), None)
        if running is not None:
            yield Notice(f"{model} is being downloaded on {pod.name} already; nothing was started.")
            return running
    raise SupervisorError(f"Pod {pod.name!r} neither downloads {model} nor lets it be started.", hint="Try again.")


def needed(
    workspace: Workspace, pod: Pod, facts: PodFacts, source: HubSource | HubRepo, wish: DownloadWish | None = None
) -> Work[int]:
    """How many bytes would come, asked of the hub by the pod. Without a wish: for a start."""
    model = source_text(source)
    wish = wish or DownloadWish(model)
    yield Stage("plan", f"Asking how large {model} is")
    side = workspace.side(pod)
    job_id = f"d-{random.token_hex(4)}"
    argv = (*_argv(pod, facts, source, wish), "--plan")
    repeated(
        lambda: side.start(
            id=job_id, name=job_id, kind="job", steps=(Step("download", argv),), files=_programs(source),
            secrets=_token(), model=model, meta={"command": f"model download {model} --plan"},
        )
    )  # fmt: skip
    last = yield from follow(workspace, pod, job_id, model)
    if last.exit is None or last.exit.status != 0:
        raise _failure(last, model, pod)
    said = side.tail(job_id, "stdout", lines=1).piece.data
    side.remove(job_id)
    try:
        return int(json.loads(said)["need"])
    except (ValueError, KeyError, TypeError) as error:
        raise SupervisorError(f"Pod {pod.name!r} did not say how large {model} is.") from error


def _argv(pod: Pod, facts: PodFacts, source: HubSource | HubRepo, wish: DownloadWish) -> tuple[str, ...]:
    folder = weights.models_folder(pod, facts)
    common = ("--dir", "{dir}", "--repo", source.repo, "--revision", source.revision)
    force = ("--force",) if wish.force else ()
    if isinstance(source, HubSource):
        known = (*(("--sha256", source.sha256) if source.sha256 else ()),
                 *(("--size", str(source.size_bytes)) if source.size_bytes else ()))  # fmt: skip
        return (facts.python_path, "-u", "{dir}/download.py", *common, "--file", source.file,
                "--to", hub_path(folder, source), *known, *force)  # fmt: skip
    chosen = (*(f"--include={glob}" for glob in wish.include), *(f"--exclude={glob}" for glob in wish.exclude))
    return (facts.python_path, "-u", "{dir}/snapshot.py", *common, "--to", repository_path(folder, source),
            *chosen, *force)  # fmt: skip


def _programs(source: HubSource | HubRepo) -> dict[str, str]:
    names = DOWNLOADER if isinstance(source, HubSource) else REPOSITORY_DOWNLOADER
    folder = resources.files("podlab.remote")
    return {name: (folder / name).read_text(encoding="utf-8") for name in names}


def _token() -> dict[str, dict[str, str]]:
    token = secrets.find("HF_TOKEN")
    return {"download": {"HF_TOKEN": token.reveal()}} if token else {}


def _job_name(source: HubSource | HubRepo, wish: DownloadWish) -> str:
    """The same for the same download, so that the pod refuses a second one while the first runs."""
    what = json.dumps([source_text(source), sorted(wish.include), sorted(wish.exclude)])
    return f"download-{hashlib.sha256(what.encode()).hexdigest()[:16]}"


def _stage(text: str, progress: Progress | None) -> Stage:
    if progress is None:
        return Stage("download", text)
    told = progress.text.partition(" (")[0] + _speed(progress.rate_bytes_per_s, progress.done, progress.total)
    return Stage("download", f"{text}, {told}", progress.done, progress.total,
                 "bytes" if progress.unit == "bytes" else "", _bars(progress))  # fmt: skip


def _speed(rate: int | None, done: int | None, total: int | None) -> str:
    """' (112 MB/s, 12 s left)', or nothing while it is not known."""
    if not rate or done is None or total is None:
        return ""
    return f" ({bytes_text(rate)}/s, {duration_text((total - done) / rate)} left)"


def _bars(progress: Progress) -> tuple[Stage, ...]:
    """A line for each file where there are several."""
    if len(progress.files) < 2:
        return ()
    return tuple(Stage(file.name, file.name, file.done, file.total, "bytes") for file in progress.files)


def _overview(going: Sequence[DownloadRow]) -> Stage:
    done = sum(each.done_bytes or 0 for each in going)
    total = None if any(each.total_bytes is None for each in going) else sum(each.total_bytes or 0 for each in going)
    rate = sum(each.rate_bytes_per_s or 0 for each in going)
    parts: list[Stage] = []
    for each in going:
        speed = _speed(each.rate_bytes_per_s, each.done_bytes, each.total_bytes)
        parts.append(Stage(each.id, f"{each.model} on {each.pod}{speed}", each.done_bytes, each.total_bytes, "bytes"))
        if len(each.files) > 1:
            parts += [Stage(f.name, f"  {f.name}", f.done_bytes, f.total_bytes, "bytes") for f in each.files]
    count = f"{len(going)} download{'' if len(going) == 1 else 's'}"
    return Stage("downloads", f"{count}, {bytes_text(rate)}/s" if rate else count, done, total, "bytes", tuple(parts))


def last_words(facts: Facts) -> tuple[str, str]:
    """(cause, reason) of a failed download, from its last words."""
    for line in reversed(facts.lines):
        if match := _FAILED.match(line):
            return match[1], match[2]
    ended = facts.exit.error if facts.exit else ""
    return "", ended or (facts.lines[-1] if facts.lines else "nobody saw how it ended")


def _failure(facts: Facts, model: str, pod: Pod) -> PodlabError:
    """What a download that ended without success means."""
    cause, reason = last_words(facts)
    if facts.stop_at is not None:
        return TransferFailed(f"The download of {model} on {pod.name} was cancelled.", pod=pod.name,
                              hint="What has come is kept; the same command goes on from there.")  # fmt: skip
    said = f"{model} could not be downloaded on {pod.name}: {reason}."
    if cause == Cause.GATED_OR_UNAUTHORIZED:
        page = reason.rpartition("see ")[2]
        return GatedRepo(said, page=page, hint="Accept its terms on that page, then keep your token: podlab secret set "
                         "HF_TOKEN")  # fmt: skip
    if cause == Cause.MODEL_NOT_FOUND:
        return NotFound(said, hint="Look for it: podlab model search WORDS. A private one needs HF_TOKEN.")
    if cause == Cause.DISK_FULL:
        return TransferFailed(
            said, pod=pod.name, hint="See what takes room: podlab model usage, and podlab model delete"
        )
    if cause == Cause.NO_NETWORK:
        return HttpError(said, hint="What has come is kept; the same command goes on from there.")
    return TransferFailed(said, pod=pod.name, hint=f"See: podlab pod attach {facts.id} --on {pod.name}")
