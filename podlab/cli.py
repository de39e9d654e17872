"""`podlab` in a terminal: the same verbs, progress on stderr, results on stdout, honest exit codes."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from podlab.commands.parsing import Call
    from podlab.commands.results import Outcome
    from podlab.lab.workspace import Workspace

INTERRUPTED = 130
NOBODY_READS = 141
_CANNOT_BE_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def main() -> NoReturn:
    """The console script. Exit codes: 0 done, 1 failed, 2 not understood, 130 interrupted, 141 nobody reads the output
    any more; `pod run` gives its own."""
    _open_closed_streams()
    _write_any_text()
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        import signal

        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is done: pressed once more, it would only take the exit code
        sys.stderr.write("\n")
        code = INTERRUPTED
    except BrokenPipeError:  # `podlab ... | head` has had enough
        code = _written_no_more(NOBODY_READS)
    except OSError as error:
        if error.errno not in _CANNOT_BE_WRITTEN or error.filename is not None:
            raise
        with contextlib.suppress(OSError):  # standard error may be what is full
            sys.stderr.write(f"podlab: The output cannot be written: {error.strerror}.\n")
        code = _written_no_more(1)
    sys.exit(code)


def _open_closed_streams() -> None:
    """A standard stream that was closed leads nowhere: the next file that is opened must not become standard output."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, number)
            if nowhere != number:
                os.close(nowhere)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115  # for good


def _write_any_text() -> None:
    """What the terminal's encoding has no sign for, or a file's name that is no text, is written as its code: a model
    or a command may say anything, and it must not end in a traceback."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # both are text over a descriptor


def _json_text(fields: object) -> str:
    """A JSON document that standard output can hold whatever its encoding: else with every sign as its code."""
    import json

    text = json.dumps(fields, ensure_ascii=False, indent=2)
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return json.dumps(fields, indent=2)
    return text


def _written_no_more(code: int) -> int:
    """Let what is still buffered go nowhere, so that Python does not complain of it at its end. Gives back `code`."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    return code


def run(words: Sequence[str]) -> int:
    """Carry out a command line and return the exit code."""
    if list(words[:1]) in (["--version"], ["-V"]):
        from podlab import __version__

        print(f"podlab {__version__}")
        return 0
    if list(words[:1]) == ["--complete"]:
        return _complete(words[1:])
    from podlab.commands import table

    asked = table.ordered(words)
    if (said := table.help_for(asked or ["--help"], magic=False)) is not None:
        print(said, end="")
        return 0 if asked else 2
    from podlab.commands.parsing import called, parse
    from podlab.errors import BadArgument, PodlabError

    as_json = "--json" in words
    try:
        verb, rest = table.find(asked)
        if verb.in_terminal:
            raise BadArgument(f"{called(verb, magic=False)} has nothing to work on here.", hint=verb.in_terminal)
        call = parse(verb, rest, magic=False)
        as_json = bool(getattr(call.args, "json", False))
        if call.help is not None:
            print(call.help, end="")
            return 0
        return _carry_out(call)
    except PodlabError as error:
        return _complain(error, as_json=as_json)


def _complete(words: Sequence[str]) -> int:
    """What the script of `podlab completion` asks at a Tab."""
    from podlab.commands.shell_completion import answer
    from podlab.lab.workspace import Workspace

    workspace = Workspace.open()
    try:
        print("".join(f"{candidate}\n" for candidate in answer(workspace, words)), end="")
    finally:
        workspace.close()
    return 0


def _carry_out(call: Call) -> int:
    from podlab.errors import show_tracebacks
    from podlab.lab.workspace import Workspace
    from podlab.logs import start_logging

    start_logging(verbose=call.args.verbose)
    workspace = Workspace.open()
    _wake(workspace)
    show_tracebacks(bool(call.args.verbose or _wants_tracebacks(workspace, call)))
    try:
        if call.verb.words == "chat":
            return _chat(workspace, call)
        if call.verb.words == "pod run":
            call.args.stdin = _piped()
        return _finish(workspace, call)
    finally:
        workspace.close()


def _wake(workspace: Workspace) -> None:
    """Have somebody tend what is rented: the computer may have been started anew since."""
    from podlab.errors import PodlabError
    from podlab.lab.open_rentals import wake

    with contextlib.suppress(PodlabError):  # the command itself says what is wrong with the settings
        wake(workspace)


def _piped() -> IO[bytes] | None:
    """Standard input where it is a file or a pipe; None for a terminal, /dev/null, or where there is none."""
    import stat

    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return None
    kinds = (stat.S_ISREG, stat.S_ISFIFO, stat.S_ISSOCK)
    return sys.stdin.buffer if sys.stdin is not None and any(is_kind(mode) for is_kind in kinds) else None


def _wants_tracebacks(workspace: Workspace, call: Call) -> bool:
    from podlab.errors import BadSettings

    try:
        return bool(workspace.value("tracebacks"))
    except BadSettings:
        if call.verb.despite_config:  # what mends the settings, or ends a pod, must not need them
            return False
        raise


def _finish(workspace: Workspace, call: Call) -> int:
    """Drive one call before the terminal and show what it returned."""
    outcome = _drive(workspace, call)
    _show(outcome, call)
    return outcome.exit_code


def _drive(workspace: Workspace, call: Call) -> Outcome:
    from podlab.commands.alarms import first
    from podlab.commands.drive import drive
    from podlab.commands.record import recorded
    from podlab.terminal import Terminal

    with Terminal(quiet=call.args.json) as terminal, recorded(call.verb, terminal) as audience:
        return drive(first(call.verb.handler(workspace, call.args)), audience, yes=getattr(call.args, "yes", False))


def _show(outcome: Outcome, call: Call) -> None:
    """Show what a verb returned, unless it was its output that a person asked for."""
    import subprocess

    from podlab.commands.results import Reply, document
    from podlab.types import Interactive, JobRow

    value = outcome.value
    if call.args.json:
        print(_json_text(document(value)))
    elif isinstance(value, Interactive) and sys.stdin.isatty():
        raise SystemExit(subprocess.call(value.argv))
    elif isinstance(value, Reply):
        from podlab.display.sheets import figures

        sys.stderr.write(figures(value) + "\n")
    elif isinstance(value, JobRow) and call.verb.name in ("run", "attach") and not getattr(call.args, "detach", False):
        return
    else:
        _print(value)


def _print(value: object) -> None:
    """A value for a person's terminal, which has a width and colours, or whole lines for a pipe."""
    from podlab.display.text import renderable, text

    if not sys.stdout.isatty():
        print(text(value))
        return
    from rich.console import Console

    Console().print(renderable(value))


def _chat(workspace: Workspace, call: Call) -> int:
    """One answer when there is a prompt or a pipe, else a conversation until end of input."""
    from podlab import dialogue
    from podlab.lab import known

    args = call.args
    names = known.names(workspace, "endpoints")
    dialogue.check(args.name, args.prompt, names)
    if args.prompt or (args.name is not None and args.name not in names):
        return _finish(workspace, call)
    if sys.stdin.isatty():
        return dialogue.hold(call, lambda call: _finish(workspace, call), lambda error: _complain(error, as_json=False))
    args.cell = sys.stdin.buffer.read().decode(errors="replace")
    return _finish(workspace, call)


def _complain(error: Exception, *, as_json: bool) -> int:
    """Show an error of ours: what happened, and what to do next. With --json it is a document on stdout, too."""
    from podlab.display.sanitize import line as safe
    from podlab.errors import PodlabError, tracebacks_shown
    from podlab.secrets import redact
    from podlab.terminal import fitted

    assert isinstance(error, PodlabError)
    if tracebacks_shown():
        import traceback

        sys.stderr.write(redact("".join(traceback.format_exception(error))))
    if as_json:
        fields = {"kind": type(error).__name__, "message": redact(error.message), "hint": redact(error.hint)}
        print(_json_text({"error": fields}))
    else:
        first, *more = [safe(redact(text)) for text in error.lines()]
        told = [f"podlab: {first}", *(f"  {text}" for text in more)]
        sys.stderr.write("".join(f"{fitted(text, hang='  ')}\n" for text in told))
    return error.exit_code
