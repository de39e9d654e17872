"""Why a server failed, from a log that somebody has: read with a limit, and never trusted."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import IO

from podlab.errors import BadArgument, NotFound
from podlab.types import Explanation

HEAD_BYTES = 256 << 10
TAIL_BYTES = 2 << 20
"""What is looked at of a long log: how it began says the engine, how it ended says the cause."""
FEW = 4
"""A text has no zeros, but a log that a crash cut may have a run of them."""
_BINARY = (b"GGUF", b"PK\x03\x04", b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ", b"\x7fELF")
"""Models, archives, compressed files, programs."""


def explain(path: str, engine: str | None) -> Explanation:
    """Read a log (`-`: standard input) and say why the server failed.

    `engine` is a name of engines.NAMES, None to guess it. Raises NotFound, BadArgument.
    """
    from podlab.engines import diagnosis

    found, known = diagnosis.explain(_lines(_read(path), path), engine)
    line = found.lines[-1] if found.lines else ""
    return Explanation(found.cause.value, line, found.lines, found.hint, known, found.verified)


def _read(path: str) -> bytes:
    if path == "-":
        return _standard_input()
    file = Path(path).expanduser()
    try:
        if file.is_dir():
            raise BadArgument(f"{path} is a folder.", hint="Name the log file in it.")
        if file.exists() and not file.is_file():
            raise BadArgument(f"{path} is no file.", hint="Name a log file, or - for standard input.")
        with file.open("rb") as stream:
            return _ends(stream)
    except FileNotFoundError as error:
        raise NotFound(f"There is no file {path}.", hint="An endpoint's own log: podlab model logs NAME") from error
    except (OSError, ValueError) as error:  # ValueError: a path no system can have
        raise BadArgument(f"{path} cannot be read: {error}", hint="Name a log file that you may read.") from error


def _ends(stream: IO[bytes]) -> bytes:
    """All of a file, or its beginning and its end where it is long."""
    size = os.fstat(stream.fileno()).st_size
    if size <= HEAD_BYTES + TAIL_BYTES:
        return stream.read(HEAD_BYTES + TAIL_BYTES)
    head = stream.read(HEAD_BYTES)
    stream.seek(size - TAIL_BYTES)
    return head + b"\n" + stream.read(TAIL_BYTES)


def _standard_input() -> bytes:
    """The same of a stream, whose end is known only when it is there. A notebook has none."""
    source = getattr(sys.stdin, "buffer", None)
    if source is None or sys.stdin.isatty():
        raise BadArgument("There is no log on standard input.", hint="podlab model explain - < server.log")
    head = source.read(HEAD_BYTES)
    tail = b""
    while piece := source.read(1 << 20):
        tail = (tail + piece)[-TAIL_BYTES:]
    return bytes(head + tail)


def _lines(data: bytes, path: str) -> list[str]:
    if not data.strip():
        raise BadArgument(f"{'Standard input' if path == '-' else path} is empty.", hint="Name a log with lines in it.")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):  # what PowerShell's > writes
        text = data.decode("utf-16", errors="replace")
    elif data.startswith(_BINARY) or len(re.findall(rb"\0+", data[:4096])) > FEW:
        raise BadArgument(f"{path} holds no text.", hint="Name a server's log; unpack a packed one.")
    else:
        text = data.decode("utf-8", errors="replace")
    return text.split("\n")
