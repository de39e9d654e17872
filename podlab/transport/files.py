"""Files on a pod, over any transport: small ones whole, large ones resumable and verified, trees listed.

Built on `Transport.start` and `run` and a POSIX shell on the pod. Every script below is a constant; paths and numbers
reach it as "$1", "$2", ... A path may start with `~/`, and a relative one is relative to the user's home. What a pod
says (names, sizes, sums) is untrusted: it is parsed strictly and capped.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, NoReturn

from podlab.errors import BadArgument, CommandTimeout, NotFound, TransferFailed
from podlab.transport.base import OUTPUT_LIMIT_BYTES, Completed, Process, Transport

CHUNK_BYTES = 256 * 1024
RESUME_BYTES = 2**20
"""A file that was cut is sent on from a multiple of this."""
READ_LIMIT_BYTES = 16 * 2**20
LIST_LIMIT = 100_000
LIST_LIMIT_BYTES = 32 * 2**20
SLOWEST_DISK_BYTES_PER_S = 10 * 2**20
"""A pod that reads a file more slowly than this while summing it is taken for stuck."""

Kind = Literal["file", "folder", "other"]
_KINDS: tuple[Kind, ...] = ("file", "folder", "other")

# Scripts end with one of these. They are far from 1, 2, 126, 127 and 128 + N, which shells and tools use themselves.
_MISSING, _NOT_A_FILE, _UNREADABLE, _SHORT, _NO_SUM, _UNWRITABLE = 80, 81, 82, 83, 84, 85

# Sets p to the path in "$1". The patterns are quoted: an unquoted ~ would be expanded inside them.
_PATH = """
umask 077
case $1 in "~") p=$HOME ;; "~/"*) p=$HOME/${1#"~/"} ;; /*) p=$1 ;; *) p=$HOME/$1 ;; esac
d=${p%/*}; [ -n "$d" ] || d=/
"""
_READABLE = (
    _PATH
    + f"""
[ -e "$p" ] || exit {_MISSING}
[ -f "$p" ] || exit {_NOT_A_FILE}
[ -r "$p" ] || exit {_UNREADABLE}
"""
)
_SUM = f"""
sum() {{
  if command -v sha256sum >/dev/null 2>&1; then sha256sum <"$1"
  elif command -v shasum >/dev/null 2>&1; then shasum -a 256 <"$1"
  elif command -v python3 >/dev/null 2>&1; then python3 -c '
import hashlib, sys
sums = hashlib.sha256()
for piece in iter(lambda: sys.stdin.buffer.read(1 << 20), b""):
    sums.update(piece)
print(sums.hexdigest())' <"$1"
  else return {_NO_SUM}; fi
}}
"""
_READ = _READABLE + 'tail -c "+$2" <"$p" | head -c "$3"'
_WRITE = (
    _PATH
    + f"""
[ -d "$p" ] && exit {_NOT_A_FILE}
mkdir -p "$d" || exit {_UNWRITABLE}
t=$d/.podlab-$2.part
trap 'rm -f "$t"' EXIT
trap 'exit 1' HUP INT TERM
cat >"$t" || exit {_UNWRITABLE}
[ "$(wc -c <"$t")" -eq "$3" ] || exit {_SHORT}
chmod "$4" "$t" && mv -f "$t" "$p" || exit {_UNWRITABLE}
"""
)
_KIND = _PATH + '[ -f "$p" ] && echo file || { [ -d "$p" ] && echo folder || { [ -e "$p" ] && echo other || :; }; }'
_FACTS = _READABLE + _SUM + 'wc -c <"$p" && ls -ldnL "$p" && sum "$p"'
# "same" when the file is there already, else how much of it an earlier attempt left.
_BEGIN_SENDING = (
    _PATH
    + _SUM
    + f"""
[ -d "$p" ] && exit {_NOT_A_FILE}
mkdir -p "$d" || exit {_UNWRITABLE}
if [ -f "$p" ] && [ "$(wc -c <"$p")" -eq "$3" ]; then
  s=$(sum "$p") || exit
  [ "${{s%% *}}" = "$2" ] && chmod "$4" "$p" && echo same && exit
fi
t=$d/.podlab-$2.part
[ -f "$t" ] && [ ! -L "$t" ] || {{ rm -f "$t"; true >"$t"; }} || exit {_UNWRITABLE}
wc -c <"$t"
"""
)
# Every attempt writes each byte to its own place, so an earlier one that still empties its pipe does no harm.
_FILL = _PATH + 'exec dd of="$d/.podlab-$2.part" ibs=65536 obs="$4" seek="$3" conv=notrunc'
_RESTART = _PATH + ': >"$d/.podlab-$2.part"'
_FINISH_SENDING = (
    _PATH
    + _SUM
    + f"""
t=$d/.podlab-$2.part
s=$(sum "$t") || exit
[ "${{s%% *}}" = "$2" ] || {{ rm -f "$t"; exit {_SHORT}; }}
chmod "$3" "$t" && mv -f "$t" "$p" || exit {_UNWRITABLE}
"""
)
# GNU find prints it all at once; elsewhere one `ls` a file gives mode and size in a form that POSIX fixes.
_LIST = (
    _PATH
    + f"""
[ -e "$p" ] || exit {_MISSING}
cd "$p/" || exit {_NOT_A_FILE}
if find . -prune -printf '' 2>/dev/null; then find . -type f -printf '%m %s %P\\0'
else find . -type f -exec sh -c 'set -f; for f do
  set -- $(ls -ldn "$f" | head -n 1); printf "%s %s %s\\0" "$1" "$5" "${{f#./}}"
done' sh {{}} +
fi
"""
)
_LIST_OTHERS = (
    _PATH
    + """
cd "$p/" && find . ! -type f ! -type d -exec sh -c 'for f do printf "%s\\0" "${f#./}"; done' sh {} +
"""
)


@dataclass(frozen=True)
class RemoteFile:
    """A regular file below the folder that was listed. `path` is relative to it, without `..`."""

    path: str
    size_bytes: int
    mode: int


def read_file(t: Transport, path: str, *, offset: int = 0, limit_bytes: int = READ_LIMIT_BYTES) -> bytes:
    """Up to `limit_bytes` of a file from byte `offset` on; b"" past its end. Raises NotFound or TransferFailed."""
    if offset < 0 or not 0 <= limit_bytes <= OUTPUT_LIMIT_BYTES:
        raise BadArgument(f"From byte {offset}, {limit_bytes} bytes: that cannot be read at once.")
    done = _sh(t, _READ, path, str(offset + 1), str(limit_bytes))
    _check(t, done, path)
    return done.stdout[:limit_bytes]


def write_file(t: Transport, path: str, data: bytes, *, mode: int = 0o600) -> None:
    """Put `data` at `path`, whole or not at all; a link lost midway leaves the old file. Makes missing folders (0700).

    Raises TransferFailed.
    """
    done = _sh(t, _WRITE, path, uuid.uuid4().hex, str(len(data)), _octal(mode), stdin=data)
    _check(t, done, path)


def kind(t: Transport, path: str) -> Kind | None:
    """What is at `path`, symbolic links followed; None: nothing."""
    done = _sh(t, _KIND, path)
    _check(t, done, path)
    found = done.text.strip()
    for name in _KINDS:
        if found == name:
            return name
    return None


def exists(t: Transport, path: str) -> bool:
    """Whether there is anything at `path`."""
    return kind(t, path) is not None


def send_file(t: Transport, local: Path, remote: str) -> Iterator[int]:
    """Send a file and yield how many bytes of it are there so far; the last value is its size.

    What arrived of an earlier attempt is not sent again, nor is a file that is there already. It is summed on the pod
    (sha256) before it takes its place; its mode is kept. Raises NotFound, TransferFailed, LinkLost.
    """
    size, mode, digest = _local_facts(local)
    begun = _sh(t, _BEGIN_SENDING, remote, digest, str(size), _octal(mode), timeout_s=_time_to_sum(size))
    _check(t, begun, remote)
    if begun.text.strip() == "same":
        yield size
        return
    have = _number(t, begun.text.strip(), remote)
    if have > size:
        _check(t, _sh(t, _RESTART, remote, digest), remote)
        have = 0
    blocks = have // RESUME_BYTES
    have = have if have == size else blocks * RESUME_BYTES
    yield have
    if have < size:
        fill = ["sh", "-c", _FILL, "sh", remote, digest, str(blocks), str(RESUME_BYTES)]
        with local.open("rb") as file, t.start(fill) as process:
            file.seek(have)
            yield from _pour(t, file, process, have, remote)
    finished = _sh(t, _FINISH_SENDING, remote, digest, _octal(mode), timeout_s=_time_to_sum(size))
    _check(t, finished, remote)


def fetch_file(t: Transport, remote: str, local: Path) -> Iterator[int]:
    """Fetch a file and yield how many bytes of it are here so far; the last value is its size.

    Resumes as `send_file` does, and the file takes its place at `local` only when its sha256 is what the pod said.
    Raises NotFound, TransferFailed, LinkLost.
    """
    size, mode, digest = _remote_facts(t, remote)
    if local.is_dir():
        raise TransferFailed(f"{local} is a folder.", pod=t.pod, hint="Name the file itself.")
    if local.is_file() and _local_facts(local)[2] == digest:
        yield size
        return
    part = local.with_name(f".podlab-{digest}.part")
    with _writing(local):
        local.parent.mkdir(parents=True, exist_ok=True)
        yield from _fill(t, remote, part, size, digest)
        part.chmod(mode & 0o777)
        part.replace(local)


def _fill(t: Transport, remote: str, part: Path, size: int, digest: str) -> Iterator[int]:
    """Fetch what `part` lacks. Afterwards it is whole, or TransferFailed was raised."""
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        if os.fstat(file.fileno()).st_size > size:
            file.truncate(0)
        sums = hashlib.file_digest(file, "sha256")
        have = file.seek(0, os.SEEK_END)
        yield have
        if have < size:
            with t.start(["sh", "-c", _READ, "sh", remote, str(have + 1), str(size - have)]) as process:
                for piece in _stdout(t, process, remote):
                    have += len(piece)
                    if have > size:
                        break
                    file.write(piece)
                    sums.update(piece)
                    yield have
        file.flush()
        os.fsync(file.fileno())
    if have == size and sums.hexdigest() == digest:
        return
    if have >= size:
        part.unlink()  # it is damaged; a short one is only unfinished
    raise TransferFailed(
        f"{remote} of pod {t.pod!r} did not arrive whole: {have} of {size} bytes, or not the ones it has now.",
        pod=t.pod,
        hint="Repeat it. If the file is being written on the pod, wait until it is done.",
    )


@contextlib.contextmanager
def _writing(local: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TransferFailed(
            f"{local} cannot be written: {error.strerror}.", hint="Is the disk full, or the folder not yours?"
        ) from error


def list_tree(t: Transport, path: str, *, limit: int = LIST_LIMIT) -> tuple[RemoteFile, ...]:
    """The regular files below a folder, sorted by path. Symbolic links are neither followed nor listed.

    Raises NotFound, and TransferFailed for more than `limit` files or a name that leads out of the folder.
    """
    files = [_listed(t, entry, path) for entry in _entries(t, _LIST, path, limit)]
    return tuple(sorted(files, key=lambda file: file.path))


def list_others(t: Transport, path: str, *, limit: int = LIST_LIMIT) -> tuple[str, ...]:
    """What `list_tree` leaves out below a folder, sorted: links, sockets, pipes, devices. Raises as it does."""
    return tuple(sorted(entry.decode(errors="replace") for entry in _entries(t, _LIST_OTHERS, path, limit)))


def _entries(t: Transport, script: str, path: str, limit: int) -> list[bytes]:
    output, count = bytearray(), 0
    with t.start(["sh", "-c", script, "sh", path]) as process:
        for piece in _stdout(t, process, path):
            output += piece
            count += piece.count(b"\0")
            if len(output) > LIST_LIMIT_BYTES or count > limit:
                raise TransferFailed(f"{path} of pod {t.pod!r} holds more than {limit} files.", pod=t.pod)
    return bytes(output).split(b"\0")[:-1]


def _listed(t: Transport, entry: bytes, path: str) -> RemoteFile:
    text = entry.decode("utf-8", "surrogateescape")
    found = re.fullmatch(r"([0-7]{1,4}|-[-rwxsStT]{9}\S?) (\d{1,18}) (.+)", text, re.DOTALL)
    if found is None:
        raise TransferFailed(f"Pod {t.pod!r} lists {path} in a form nobody can read: {text[:80]!r}", pod=t.pod)
    name = found[3]
    if name.startswith("/") or any(part in ("", ".", "..") for part in name.split("/")):
        raise TransferFailed(f"Pod {t.pod!r} lists a name that leads out of {path}: {name[:80]!r}", pod=t.pod)
    return RemoteFile(name, int(found[2]), _mode(found[1]))


def _mode(text: str) -> int:
    """644 or -rw-r--r-- as a number."""
    if not text.startswith("-"):
        return int(text, 8) & 0o777
    bits = "".join("1" if letter in "rwxst" else "0" for letter in text[1:10])
    return int(bits, 2)


def _local_facts(path: Path) -> tuple[int, int, str]:
    """Size, mode and sha256 of a file here."""
    try:
        with path.open("rb") as file:
            info = os.fstat(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise NotFound(f"There is no {path} on this computer.", hint="Check the spelling.") from error
        raise TransferFailed(f"{path} cannot be read: {error.strerror}.", hint="Only files can be sent.") from error
    return info.st_size, stat.S_IMODE(info.st_mode) & 0o777, digest


def _remote_facts(t: Transport, path: str) -> tuple[int, int, str]:
    """Size, mode and sha256 of a file on the pod, as the pod says."""
    # How long summing takes depends on the size, which is not known yet: an hour is 36 GB at the slowest.
    done = _sh(t, _FACTS, path, timeout_s=3600.0)
    _check(t, done, path)
    first, _, rest = done.text.partition("\n")
    modes = re.match(r"-[-rwxsStT]{9}", rest)
    digest = re.search(r"^([0-9a-f]{64})\b[^\n]*\n?\Z", rest, re.MULTILINE)
    if modes is None or digest is None:
        _unreadable(t, done.text, path)
    return _number(t, first.strip(), path), _mode(modes[0]), digest[1]


def _pour(t: Transport, file: IO[bytes], process: Process, have: int, path: str) -> Iterator[int]:
    try:
        while piece := _piece(file):
            process.write(piece)
            have += len(piece)
            yield have
        process.close_stdin()
    except BrokenPipeError:
        pass  # its status says why it stopped taking
    for _ in _stdout(t, process, path):
        pass


def _piece(file: IO[bytes]) -> bytes:
    try:
        return file.read(CHUNK_BYTES)
    except OSError as error:
        raise TransferFailed(f"{file.name} cannot be read: {error.strerror}.", hint="Is its disk in order?") from error


def _stdout(t: Transport, process: Process, path: str) -> Iterator[bytes]:
    """What a script prints, piece by piece. Raises as `_check` does when it ends badly."""
    errors = bytearray()
    while (piece := process.read()) is not None:
        stream, data = piece
        if stream == "stdout":
            yield data
        elif len(errors) < CHUNK_BYTES:
            errors += data
    _check(t, Completed(("sh",), process.wait(), b"", bytes(errors)), path)


def _sh(t: Transport, script: str, path: str, *values: str, stdin: bytes = b"", timeout_s: float = 60.0) -> Completed:
    if not path:
        raise BadArgument("A path on a pod cannot be empty.")
    try:
        return t.run(["sh", "-c", script, "sh", path, *values], stdin=stdin, timeout_s=timeout_s, check=False)
    except CommandTimeout as error:
        raise TransferFailed(
            f"Pod {t.pod!r} did not deal with {path} within {timeout_s:g} s.", pod=t.pod, hint="Is its disk slow?"
        ) from error


def _check(t: Transport, done: Completed, path: str) -> None:
    if done.status == 0:
        return
    where = f"{path} on pod {t.pod!r}"
    if done.status == _MISSING:
        raise NotFound(f"There is no {where}.", hint="Check the spelling.")
    said = (done.stderr.decode(errors="replace").strip().splitlines() or [f"status {done.status}"])[0]
    reason = said.rpartition(": ")[2][:300]  # which program and which part of ours it was says a person nothing
    what, hint = {
        _UNWRITABLE: (f"{where} cannot be written: {reason}.", "Choose a folder where this user may write, with room."),
        _NOT_A_FILE: (f"{where} is not a file.", "Name the file itself, not its folder."),
        _UNREADABLE: (f"{where} may not be read by this user.", "Look at its owner and mode."),
        _SHORT: (f"{where} did not arrive whole, and the old file is still there.", "Repeat it."),
        _NO_SUM: (f"{where} cannot be verified.", "The pod has neither sha256sum, shasum nor python3; install one."),
    }.get(done.status, (f"{where} could not be dealt with: {reason}.", "Is the pod's disk full?"))
    raise TransferFailed(what, pod=t.pod, hint=hint)


def _number(t: Transport, text: str, path: str) -> int:
    if not re.fullmatch(r"\d{1,18}", text):
        _unreadable(t, text, path)
    return int(text)


def _unreadable(t: Transport, text: str, path: str) -> NoReturn:
    raise TransferFailed(
        f"Pod {t.pod!r} answered about {path} what nobody can read: {text[:80]!r}", pod=t.pod,
        hint="Does its ~/.bashrc print something? It must be silent when no terminal is there.",
    )  # fmt: skip


def _time_to_sum(size_bytes: int) -> float:
    return 60.0 + size_bytes / SLOWEST_DISK_BYTES_PER_S


def _octal(mode: int) -> str:
    return f"{mode & 0o777:o}"
