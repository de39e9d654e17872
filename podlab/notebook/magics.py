"""A magic: words in, a verb driven before the cell, a value out. No rule of podlab is here."""

from __future__ import annotations

from typing import Any

from IPython.display import display

from podlab import errors
from podlab.commands import table
from podlab.commands.alarms import first
from podlab.commands.drive import drive
from podlab.commands.parsing import Call, called, parse
from podlab.commands.record import recorded
from podlab.commands.rent_results import RentalPanel
from podlab.commands.results import Outcome
from podlab.commands.verb import Verb
from podlab.display.sanitize import line as clean_line
from podlab.errors import BadArgument, CommandFailed, PodlabError
from podlab.logs import start_logging
from podlab.notebook import words
from podlab.notebook.cell import CellAudience
from podlab.notebook.quiet import QuietAudience
from podlab.notebook.session import Session
from podlab.notebook.terminal import TerminalAudience
from podlab.notebook.values import HelpText, JsonDocument, wrapped
from podlab.secrets import redact
from podlab.types import JobRow

Audience = CellAudience | TerminalAudience | QuietAudience


class Interrupted(KeyboardInterrupt):
    """The verb was interrupted and has cleaned up after itself."""

    def _render_traceback_(self) -> list[str]:
        return ["Interrupted."]


def run(session: Session, group: str, line: str, cell: str | None = None) -> Any:
    """Carry out one magic of `group` ("" for `%podlab`, which takes every command). Returns its value, None if `;`."""
    try:
        line, silent = words.silenced(line)
        first = line.split(maxsplit=1)[:1]
        is_prose = group == "chat" and cell is None and first not in ([verb.name] for verb in table.verbs_of("chat"))
        split = words.split_prose if is_prose else words.split
        given = [words.expand(word, session.shell.user_ns) for word in split(line)]
        call = help_or_call([group, *given] if group else given, cell)
        if isinstance(call, HelpText):
            return call
        value = _perform(session, call, silent=silent)
    except PodlabError as error:
        raise _harmless(error) from error.__cause__
    except Exception as defect:  # noqa: BLE001  # it is raised again
        raise _without_secrets(session, defect)
    return None if silent else value


def help_or_call(given: list[str], cell: str | None) -> Call | HelpText:
    """What the words ask for. Raises BadArgument."""
    given = table.ordered(given)
    if cell is None:
        alone = not given or (len(given) == 1 and given[0] in table.groups())
        if (said := table.help_for([*given, "--help"] if alone else given, magic=True)) is not None:
            return HelpText(said)
    verb, rest = table.find(given)
    if cell is not None and verb.cell == "no":
        raise BadArgument(f"{called(verb, magic=True)} takes no cell body.", hint="Write it with one percent sign.")
    if cell is None and verb.cell == "must":
        raise BadArgument(f"{called(verb, magic=True)} needs a cell body.", hint="Write it below, in the same cell.")
    call = parse(verb, rest, magic=True, cell=cell)
    return call if call.help is None else HelpText(call.help)


def _perform(session: Session, call: Call, *, silent: bool) -> Any:
    verb, args = call.verb, call.args
    start_logging(verbose=args.verbose)
    workspace = session.workspace
    errors.show_tracebacks(args.verbose or _wants_tracebacks(session, verb))
    audience = _audience(session, quiet=silent or args.json)
    problem = "failed"
    outcome: Outcome | None = None
    try:
        with recorded(verb, audience) as heard:
            outcome = drive(first(verb.handler(workspace, args)), heard, yes=getattr(args, "yes", False))
    except KeyboardInterrupt as interrupt:
        problem = "interrupted"
        raise Interrupted from interrupt
    finally:
        audience.close(outcome.value, "") if outcome is not None else audience.close(None, problem)
    if outcome.exit_code:
        raise _ended_badly(call, outcome, audience, silent=silent)
    if args.json:
        return JsonDocument(outcome.value)
    if isinstance(outcome.value, RentalPanel) and session.in_kernel and not silent:
        return session.panel(outcome.value)
    value = wrapped(outcome.value)
    if _watched(call, outcome.value) or audience.shows(outcome.value):
        count = session.shell.execution_count
        value._on_screen = lambda: session.shell.execution_count == count
    return value


def _wants_tracebacks(session: Session, verb: Verb) -> bool:
    try:
        return bool(session.workspace.value("tracebacks"))
    except errors.BadSettings:
        if verb.despite_config:  # what mends the settings, or ends a pod, must not need them
            return False
        raise


def _watched(call: Call, value: Any) -> bool:
    """Whether a command's output was the result, and the row about its job would say nothing new."""
    return isinstance(value, JobRow) and call.verb.name in ("run", "attach") and not getattr(call.args, "detach", False)


def _audience(session: Session, *, quiet: bool) -> Audience:
    audience: CellAudience | TerminalAudience
    if session.in_kernel:
        audience = CellAudience(session.shell, stages=session.config.stages, buttons=session.config.buttons)
    else:
        audience = TerminalAudience(stages=session.config.stages)
    return QuietAudience(audience) if quiet else audience


def _ended_badly(call: Call, outcome: Outcome, audience: Audience, *, silent: bool) -> PodlabError:
    """A verb that ended with another exit code than 0 makes its cell fail, as it makes a shell script fail.

    An exception has no value, so what the verb found is shown here: which check failed, and what to do about it.
    """
    value = outcome.value
    if isinstance(value, JobRow):
        script = getattr(call.args, "cell", None) is not None
        named = "The script" if script else (value.command.split() or ["The command"])[0]
        last_line = audience.streams.last_line.encode(errors="replace")
        return CommandFailed(value.pod, (named,), outcome.exit_code, stderr=last_line)
    if not silent and not audience.shows(value):
        display(JsonDocument(value) if call.args.json else wrapped(value))  # type: ignore[no-untyped-call]
    hint = "Without the semicolon the cell shows what was found." if silent else "What was found is shown above."
    return PodlabError(f"{call.verb.words} ended with status {outcome.exit_code}.", hint=hint)


def _without_secrets(session: Session, defect: Exception) -> Exception:
    """A defect of podlab, shown as IPython shows any: with the whole traceback, and without the secrets in it."""
    shell = session.shell

    def render() -> list[str]:
        drawn = shell.InteractiveTB.structured_traceback(type(defect), defect, defect.__traceback__)
        return [redact(part) for part in drawn]

    defect.args = tuple(redact(said) if isinstance(said, str) else said for said in defect.args)
    defect._render_traceback_ = render  # type: ignore[attr-defined]  # IPython looks for it on any exception
    return defect


def _harmless(error: PodlabError) -> PodlabError:
    """The error with every text in it on one line, without escapes or secrets: pods and servers write parts of them."""
    error.message, error.hint = clean_line(redact(error.message)), clean_line(redact(error.hint))
    error.args = (error.message, *error.args[1:])
    if isinstance(error, errors.EngineCrashed):
        error.log = tuple(clean_line(redact(entry)) for entry in error.log)
    return error
