"""Files and folders to and from a pod, each verified by its SHA-256, with progress."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from podlab.errors import BadArgument, LinkLost, NotFound, TransferFailed, Unreachable
from podlab.events import Notice, Stage, Work
from podlab.lab import pods
from podlab.lab.patience import Patience
from podlab.transport import files
from podlab.types import Pod

if TYPE_CHECKING:
    from podlab.lab.workspace import Workspace


@dataclass(frozen=True)
class Moved:
    """What arrived. Names are relative to the folder that was sent or fetched; `sent_bytes` went over the link."""

    files: tuple[str, ...]
    total_bytes: int
    sent_bytes: int


def push(workspace: Workspace, pod: Pod, source: str, target: str | None) -> Work[Moved]:
    """Send a file or folder. A target that is a folder, or ends in a slash, gets it under its own name."""
    here = _here(source)
    if not here.exists():
        raise NotFound(f"There is no file or folder {source!r} here.", hint="Check the spelling.")
    yield from pods.reach(workspace, pod)
    transport = workspace.transport(pod)
    there = target or "~/"
    if there.endswith("/") or there == "~" or files.kind(transport, there) == "folder":
        there = f"{there.rstrip('/')}/{here.resolve().name}"
    if here.is_file():
        plan = [(here, there, here.name)]
    else:
        plan = [(path, f"{there}/{name}", name) for path, name in _files_below(here)]
    total = sum(path.stat().st_size for path, _, _ in plan)
    arrived = sent = 0
    for path, remote, name in plan:
        size = path.stat().st_size
        went = yield from _moving(partial(files.send_file, transport, path, remote), f"Sending {name}", arrived, total)
        arrived, sent = arrived + size, sent + went
    return Moved(tuple(name for _, _, name in plan), total, sent)


def pull(workspace: Workspace, pod: Pod, source: str, target: str | None) -> Work[Moved]:
    """Fetch a file or folder. Names that would leave the target folder are refused: a pod is not trusted."""
    yield from pods.reach(workspace, pod)
    transport = workspace.transport(pod)
    what = files.kind(transport, source)
    if what is None:
        raise NotFound(f"There is no file or folder {source!r} on {pod.name}.", hint="Check the spelling.")
    here = _here(target or ".")
    name = PurePosixPath(source).name
    if name in ("", ".", "..", "~"):
        name = "home" if source.rstrip("/") == "~" else pod.name  # no name of a file here: it could lead elsewhere
    if here.is_dir():
        here = here / name
    if what == "file":
        plan, total = [(source, here, name)], None
    else:
        listed = files.list_tree(transport, source)
        plan = [(f"{source.rstrip('/')}/{file.path}", here / file.path, file.path) for file in listed]
        total = sum(file.size_bytes for file in listed)
    arrived = sent = 0
    for remote, path, shown in plan:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TransferFailed(f"There is no room for {shown} at {path}: {error.strerror}.") from error
        went = yield from _moving(
            partial(files.fetch_file, transport, remote, path), f"Fetching {shown}", arrived, total
        )
        arrived, sent = arrived + path.stat().st_size, sent + went
    return Moved(tuple(shown for _, _, shown in plan), arrived, sent)


def send_file(workspace: Workspace, pod: Pod, here: Path, there: str, *, what: str) -> Work[int]:
    """Send one file unless the same is there already; returns the bytes that went over the link."""
    transport = workspace.transport(pod)
    size = here.stat().st_size
    return (yield from _moving(partial(files.send_file, transport, here, there), what, 0, size))


def _moving(begin: Callable[[], Iterator[int]], text: str, before: int, total: int | None) -> Work[int]:
    """Run a transfer to its end, taking it up again when the link breaks; returns the bytes that went over the link."""
    first: int | None = None
    done = 0
    patience = Patience()
    while True:
        try:
            for done in begin():
                first = done if first is None else min(first, done)
                patience.heard()
                yield Stage("transfer", text, before + done, total, "bytes")
            return done - (first or 0)
        except (LinkLost, Unreachable) as error:
            yield Notice("The link broke; going on from what has arrived.", "warning")
            patience.wait(error)


def _here(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise NotFound(f"There is no user for {text!r} here.", hint="Write the whole path.") from error


def _files_below(folder: Path) -> list[tuple[Path, str]]:
    """Regular files below a folder with their names relative to it, sorted. Links are left out: they lead elsewhere."""
    found: list[tuple[Path, str]] = []
    for base, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(base) / name
            if path.is_file() and not path.is_symlink():
                found.append((path, path.relative_to(folder).as_posix()))
    if not found:
        raise BadArgument(f"There is no file in {str(folder)!r}.", hint="Choose a folder that holds some.")
    return found
