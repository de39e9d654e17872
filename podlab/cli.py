"""`podlab` in a terminal: the same verbs, progress on stderr, results on stdout, honest exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from podlab.commands.parsing import Call
    from podlab.commands.results import Outcome
    from podlab.lab.workspace import Workspace

INTERRUPTED = 130


def main() -> NoReturn:
    """The console script. Exit codes: 0 done, 1 failed, 2 not understood, 130 interrupted; `pod run` gives its own."""
    try:
        code = run(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        code = INTERRUPTED
    except BrokenPipeError:  # `podlab ... | head` has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)


def run(words: Sequence[str]) -> int:
    """Carry out a command line and return the exit code."""
    if list(words[:1]) in (["--version"], ["-V"]):
        from podlab import __version__

        print(f"podlab {__version__}")
        return 0
    from podlab.commands import table

    if not words or words[0] in ("-h", "--help", "help"):
        print(table.main_help(), end="")
        return 0 if words else 2
    if words[0] in table.groups() and words[0] != "chat" and len(words) == 2 and words[1] in ("-h", "--help"):
        print(table.group_help(words[0], magic=False), end="")
        return 0
    from podlab.commands.parsing import parse
    from podlab.errors import PodlabError

    as_json = "--json" in words
    try:
        verb, rest = table.find(words)
        call = parse(verb, rest, magic=False)
        as_json = bool(getattr(call.args, "json", False))
        if call.help is not None:
            print(call.help, end="")
            return 0
        return _carry_out(call)
    except PodlabError as error:
        return _complain(error, as_json=as_json)


def _carry_out(call: Call) -> int:
    from podlab.errors import show_tracebacks
    from podlab.lab.workspace import Workspace
    from podlab.logs import start_logging

    start_logging(verbose=call.args.verbose)
    workspace = Workspace.open()
    show_tracebacks(bool(call.args.verbose or _wants_tracebacks(workspace, call)))
    try:
        if call.verb.words == "chat":
            return _chat(workspace, call)
        return _finish(workspace, call)
    finally:
        workspace.close()


def _wants_tracebacks(workspace: Workspace, call: Call) -> bool:
    from podlab.errors import BadSettings

    try:
        return bool(workspace.value("tracebacks"))
    except BadSettings:
        if call.verb.group == "config":  # what mends the settings must not need them
            return False
        raise


def _finish(workspace: Workspace, call: Call) -> int:
    """Drive one call before the terminal and show what it returned."""
    outcome = _drive(workspace, call)
    _show(outcome, call)
    return outcome.exit_code


def _drive(workspace: Workspace, call: Call) -> Outcome:
    from podlab.commands.drive import drive
    from podlab.terminal import Terminal

    with Terminal(quiet=call.args.json) as terminal:
        return drive(call.verb.handler(workspace, call.args), terminal, yes=getattr(call.args, "yes", False))


def _show(outcome: Outcome, call: Call) -> None:
    """Show what a verb returned, unless it was its output that a person asked for."""
    import json
    import subprocess

    from podlab.commands.results import Reply, document
    from podlab.types import Interactive, JobRow

    value = outcome.value
    if call.args.json:
        print(json.dumps(document(value), ensure_ascii=False, indent=2))
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
    from podlab.lab import known

    args = call.args
    if args.prompt or (args.name is not None and args.name not in known.names(workspace, "endpoints")):
        return _finish(workspace, call)
    if sys.stdin.isatty():
        return _converse(workspace, call)
    args.cell = sys.stdin.buffer.read().decode(errors="replace")
    return _finish(workspace, call)


def _converse(workspace: Workspace, call: Call) -> int:
    from podlab.errors import PodlabError

    sys.stderr.write("An empty line or Ctrl-D ends the conversation; Ctrl-C stops an answer.\n")
    while True:
        try:
            said = input("you: ")
        except EOFError:
            print()
            return 0
        if not said.strip():
            return 0
        call.args.cell = said
        try:
            _finish(workspace, call)
        except KeyboardInterrupt:
            sys.stderr.write("\n(stopped)\n")
        except PodlabError as error:
            _complain(error, as_json=False)
        call.args.new, call.args.system = False, None


def _complain(error: Exception, *, as_json: bool) -> int:
    """Show an error of ours: what happened, and what to do next. With --json it is a document on stdout, too."""
    import json

    from podlab.display.sanitize import line as safe
    from podlab.errors import PodlabError, tracebacks_shown
    from podlab.secrets import redact

    assert isinstance(error, PodlabError)
    if tracebacks_shown():
        import traceback

        sys.stderr.write(redact("".join(traceback.format_exception(error))))
    if as_json:
        fields = {"kind": type(error).__name__, "message": redact(error.message), "hint": redact(error.hint)}
        print(json.dumps({"error": fields}, ensure_ascii=False, indent=2))
    else:
        first, *more = [safe(redact(text)) for text in error.lines()]
        sys.stderr.write(f"podlab: {first}\n" + "".join(f"  {text}\n" for text in more))
    return error.exit_code
