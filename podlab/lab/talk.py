"""A program of ours on a pod: several files of remote/ joined into one, started by whatever Python is there, and spoken
to in versioned JSON lines over its own standard streams. Nothing of it touches the pod's disk or an argv.
"""

from __future__ import annotations

import ast
import io
import json
import threading
import tokenize
from collections.abc import Generator, Iterator
from functools import cache
from importlib import resources
from typing import Any, Self

from podlab.errors import (
    AlreadyExists,
    BadArgument,
    EngineUnavailable,
    LinkLost,
    NotFound,
    PodlabError,
    SupervisorError,
)
from podlab.transport.base import Process, Transport
from podlab.wire import Wire

PROTOCOL = 1
LINE_LIMIT_BYTES = 4 * 2**20
BANNER_LIMIT_BYTES = 64 * 2**10
"""What a login shell may say before our first line."""

BOOT = (
    "import sys\n"
    "if sys.version_info<(3,8):sys.exit(97)\n"
    "exec(compile(sys.stdin.buffer.read(int(sys.argv[1])),'podlab','exec'))"
)
# A Python that is too old (97), does not know -I (2), or is a shim of pyenv's with nothing behind it (127) has not
# read its input: the next one may.
FIND_PYTHON = (
    "for p in python3 python3.13 python3.12 python3.11 python3.10 python3.9 python3.8 python; do "
    'command -v "$p" >/dev/null 2>&1 || continue; "$p" -I -S -u -c "$1" "$2"; s=$?; '
    "case $s in 2|97|126|127) ;; *) exit $s;; esac; done; "
    'echo \'{"v":1,"error":{"kind":"no_python","message":"no Python 3.8 or newer was found"}}\''
)


@cache
def program(main: str, *rooms: str, bare: bool = False) -> str:
    """One Python text that needs nothing but itself: the files `rooms` of podlab/remote as modules, then `main`.

    `bare`: what is there for readers only is left out, line by line, where every byte counts.
    """
    source = _bare_source if bare else _remote_source
    lines = [
        "import sys",
        "def room(name, text):",
        "    sys.modules[name] = module = type(sys)(name)",
        "    exec(compile(text, name, 'exec'), module.__dict__)",
    ]
    lines += [f"room('podlab.remote.{name}', {source(name)!r})" for name in rooms]
    lines.append(f"exec(compile({source(main)!r}, 'podlab.remote.{main}', 'exec'))")
    return "\n".join(lines) + "\n"


def _remote_source(name: str) -> str:
    # Read, never imported: what runs on the pod must not come to depend on what runs here.
    return resources.files("podlab.remote").joinpath(f"{name}.py").read_text(encoding="utf-8")


def _bare_source(name: str) -> str:
    text = _remote_source(name)
    lines, dropped = text.splitlines(), set[int]()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and len(node.body) > 1:
            for said in node.body:
                if isinstance(said, ast.Expr) and isinstance(said.value, ast.Constant):
                    dropped.update(range(said.lineno, (said.end_lineno or said.lineno) + 1))
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and lines[token.start[0] - 1].lstrip().startswith("#"):
            dropped.add(token.start[0])
    return "\n".join("" if number in dropped else line for number, line in enumerate(lines, 1)) + "\n"


def begin(
    transport: Transport, source: str, given: bytes, python: str | None = None, *, stay_linked: bool = False
) -> Process:
    """Start `source` on a pod, with `given` waiting on its standard input.

    `python` is the interpreter to use; None means the first fitting one on the pod's PATH. With `stay_linked` its
    input stays open, and the end of it tells the program that nobody is there any more. Raises as Transport.start.
    """
    sent = source.encode()
    words = [BOOT, str(len(sent))]
    if python:
        argv = [python, "-I", "-S", "-u", "-c", *words]
    else:
        argv = ["sh", "-c", FIND_PYTHON, "podlab", *words]
    process = transport.start(argv)
    try:
        process.write(sent + given)
        if not stay_linked:
            process.close_stdin()
    except BrokenPipeError:
        pass  # it ended without reading; what it said tells why
    except BaseException:
        process.close()
        raise
    return process


class Talk:
    """One request under way: iterate over its answers (heartbeats left out), and close it."""

    def __init__(self, process: Process, pod: str, silence_s: float) -> None:
        self._process = process
        self._pod = pod
        self._silence_s = silence_s
        self._stderr = bytearray()
        self._skipped = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it, from any thread; who iterates over it comes to an end."""
        self._process.close()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.until(None)

    def until(self, stopped: threading.Event | None) -> Generator[dict[str, Any], None, None]:
        """The answers until their end, or until the first sign of life (there is one every 3 s) after `stopped`."""
        begun = False
        for line in self._lines():
            answer = _answer_from(line)
            if answer is None:  # a login banner, if nothing of ours has come yet
                self._skipped += line + b"\n"
                if begun or len(self._skipped) > BANNER_LIMIT_BYTES:
                    raise self._garbled(line)
                continue
            begun = True
            if answer["v"] != PROTOCOL:
                raise SupervisorError(f"Pod {self._pod!r} speaks protocol {answer['v']!r:.40}, not {PROTOCOL}.")
            if "error" in answer:
                raise _error_from(answer["error"], self._pod)
            if stopped is not None and stopped.is_set():
                return
            if "beat" not in answer:
                yield answer

    def _lines(self) -> Generator[bytes, None, None]:
        pending = bytearray()
        while True:
            try:
                said = self._process.read(self._silence_s)
            except TimeoutError as error:
                raise LinkLost(
                    f"Pod {self._pod!r} has said nothing for {self._silence_s:g} s.", pod=self._pod
                ) from error
            if said is None:
                break
            stream, data = said
            if stream == "stderr":
                self._stderr = (self._stderr + data)[-4096:]
                continue
            *whole, rest = data.split(b"\n")
            for part in whole:
                yield bytes(pending + part)
                pending.clear()
            pending += rest
            if len(pending) > LINE_LIMIT_BYTES:
                raise self._garbled(bytes(pending))
        if pending:
            yield bytes(pending)

    def _garbled(self, line: bytes) -> SupervisorError:
        shown = repr(line[:120].decode(errors="replace"))
        return SupervisorError(
            f"Pod {self._pod!r} said {shown} instead of an answer.",
            hint="A login script that prints may be in between: have it print only in interactive shells.",
        )

    def broken_off(self) -> PodlabError:
        """The error for an answer that ended too early."""
        try:
            status: int | None = self._process.wait(1.0)
        except (TimeoutError, LinkLost):
            status = None
        if status == 97:  # of BOOT: the interpreter we were given is too old
            return _no_python(self._pod)
        said = (bytes(self._stderr) or bytes(self._skipped)).decode(errors="replace").strip().splitlines()
        evidence = said[-1][:300] if said else "it said nothing"
        return SupervisorError(f"The pod's side on {self._pod!r} ended early with status {status}: {evidence}")


def _no_python(pod: str) -> EngineUnavailable:
    return EngineUnavailable(
        f"Pod {pod!r} has no Python 3.8 or newer.", hint="Install one there, for example: apt-get install python3"
    )


def _answer_from(line: bytes) -> dict[str, Any] | None:
    if not line.startswith(b'{"v"'):
        return None
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and isinstance(value.get("v"), int) else None


def _error_from(value: object, pod: str) -> PodlabError:
    wire = Wire(value, "error")
    kind, message = wire.text("kind", 40), wire.text("message")[:600]
    if kind == "no_python":
        return _no_python(pod)
    if kind == "unknown_id":
        return NotFound(f"Pod {pod!r}: {message}")
    if kind in ("name_taken", "port_busy"):
        hint = "Stop it first, or choose another name." if kind == "name_taken" else "Choose another port, or none."
        return AlreadyExists(f"Pod {pod!r}: {message}", hint=hint)
    if kind == "bad_request":
        return BadArgument(f"Pod {pod!r}: {message}")
    hint = "Stop it first." if kind == "alive" else ""
    return SupervisorError(f"Pod {pod!r}: {message}", hint=hint)
