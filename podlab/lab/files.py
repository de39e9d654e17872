"""Files and folders to and from a pod, each verified by its SHA-256, with progress."""

from __future__ import annotations

import contextlib
import os
import stat
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

NAMES_SHOWN = 5


@dataclass(frozen=True)
class Moved:
    """What arrived. Names are relative to the folder that was sent or fetched; `sent_bytes` went over the link.

    `left_out` are names of what is no regular file: symbolic links, which lead elsewhere, sockets, pipes, devices.
    """

    files: tuple[str, ...]
    total_bytes: int
    sent_bytes: int
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Local:
    """A file of this computer that is to be sent: where it is, and its name below what is sent."""

    path: Path
    name: str
    size_bytes: int


def push(workspace: Workspace, pod: Pod, source: str, target: str | None) -> Work[Moved]:
    """Send a file or folder. A target that is a folder, or ends in a slash, gets it under its own name."""
    here = _here(source)
    found, left_out = _to_send(here, source)
    if left_out:
        yield _left_out(left_out)
    yield from pods.reach(workspace, pod)
    transport = workspace.transport(pod)
    there = target or "~/"
    if there.endswith("/") or there == "~" or files.kind(transport, there) == "folder":
        there = f"{there.rstrip('/')}/{here.resolve().name}"
    total = sum(file.size_bytes for file in found)
    arrived = sent = 0
    for file in found:
        remote = there if file.path == here else f"{there}/{file.name}"
        went = yield from _moving(
            partial(files.send_file, transport, file.path, remote), f"Sending {file.name}", arrived, total
        )
        arrived, sent = arrived + file.size_bytes, sent + went
    return Moved(tuple(file.name for file in found), total, sent, left_out)


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
    left_out: tuple[str, ...] = ()
    if what == "file":
        plan, total = [(source, here, name)], None
    else:
        listed = files.list_tree(transport, source)
        left_out = files.list_others(transport, source)
        if left_out:
            yield _left_out(left_out)
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
    return Moved(tuple(shown for _, _, shown in plan), arrived, sent, left_out)


def send_file(workspace: Workspace, pod: Pod, here: Path, there: str, *, what: str) -> Work[int]:
    """Send one file unless the same is there already; returns the bytes that went over the link."""
    transport = workspace.transport(pod)
    size = here.stat().st_size
    return (yield from _moving(partial(files.send_file, transport, here, there), what, 0, size))


def send_folder(workspace: Workspace, pod: Pod, here: Path, there: str, *, what: str) -> Work[None]:
    """Send a model's folder, each file unless the same is there already. Links to files are followed: a folder of the
    Hub's cache holds nothing else. Hidden files stay here."""
    wanted = of_folder(here)
    total, done = sum(path.stat().st_size for path, _ in wanted), 0
    transport = workspace.transport(pod)
    for path, name in wanted:
        yield from _moving(partial(files.send_file, transport, path, f"{there}/{name}"), f"{what}: {name}", done, total)
        done += path.stat().st_size


def of_folder(here: Path) -> list[tuple[Path, str]]:
    """The files of a model's folder that are sent, each with its name there."""
    found = [(path, path.relative_to(here)) for path in sorted(here.rglob("*")) if path.is_file()]
    return [(path, name.as_posix()) for path, name in found if not any(part.startswith(".") for part in name.parts)]


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


def _left_out(names: tuple[str, ...]) -> Notice:
    shown = ", ".join(names[:NAMES_SHOWN]) + (f" and {len(names) - NAMES_SHOWN} more" * (len(names) > NAMES_SHOWN))
    return Notice(f"Left out, as only regular files are copied (no links, sockets or pipes): {shown}", "warning")


def _to_send(here: Path, source: str) -> tuple[list[_Local], tuple[str, ...]]:
    """The file itself or the regular files below a folder, sorted; and what is left out. Raises NotFound, BadArgument
    or TransferFailed."""
    with _looked_at(here, source):
        if not here.exists():
            raise NotFound(f"There is no file or folder {source!r} here.", hint="Check the spelling.")
        if here.is_file():
            return [_Local(here, here.name, here.stat().st_size)], ()
        if not here.is_dir():
            raise BadArgument(f"{source!r} is neither a file nor a folder.", hint="Only files can be sent.")
        found, left_out = _below(here)
    if not found:
        raise BadArgument(f"There is no file in {source!r}.", hint="Choose a folder that holds some.")
    return found, left_out


def _below(top: Path) -> tuple[list[_Local], tuple[str, ...]]:
    found: list[_Local] = []
    left_out: list[str] = []

    def refuse(error: OSError) -> None:
        raise error  # os.walk itself would go on as if the folder were empty

    for base, folders, names in os.walk(top, onerror=refuse):
        folders.sort()
        left_out += [str((Path(base) / name).relative_to(top)) for name in folders if (Path(base) / name).is_symlink()]
        for name in sorted(names):
            path = Path(base) / name
            info = path.lstat()
            shown = path.relative_to(top).as_posix()
            if stat.S_ISREG(info.st_mode):
                found.append(_Local(path, shown, info.st_size))
            else:
                left_out.append(shown)
    return found, tuple(sorted(left_out))


@contextlib.contextmanager
def _looked_at(here: Path, source: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TransferFailed(
            f"{error.filename or here} cannot be read: {error.strerror}. Nothing was sent.",
            hint=f"See that you may read all of {source!r}, and that nobody changes it meanwhile.",
        ) from error
