"""`%load_ext podlab` and `%unload_ext podlab`: what is registered with IPython, and how it goes away again."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from IPython.core.magic import no_var_expand

from podlab.notebook.session import Session

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


@dataclass(frozen=True)
class Magic:
    """A magic and the group of commands it calls; "" is every command."""

    name: str
    group: str
    about: str


MAGICS = (
    Magic("pod", "pod", "Machines: add them, run commands on them, move files."),
    Magic("model", "model", "Models: start, watch and stop them."),
    Magic("chat", "chat", "Speak with a model."),
    Magic("podlab", "", "Every command of podlab."),
)


_QUESTION = re.compile(r"((?:[^\W\d]\w*\s*=\s*)?)%chat\s+(\S.*\?)")


@dataclass(frozen=True)
class _Loaded:
    session: Session
    matcher: Callable[[Any], Any]


_loaded: WeakKeyDictionary[InteractiveShell, _Loaded] = WeakKeyDictionary()


def load(shell: InteractiveShell) -> None:
    """Register magics, completion and `%config Podlab`. A second time changes nothing."""
    if shell in _loaded:
        return
    session = Session(shell)
    register: Any = shell.register_magic_function
    for magic in MAGICS:
        for kind in ("line", "cell"):
            register(_function(session, magic), kind, magic.name)
    matcher = _matcher(session)
    shell.Completer.custom_matchers.append(matcher)
    shell.input_transformers_cleanup.append(questions)
    _configurables(shell).append(session.config)
    _loaded[shell] = _Loaded(session, matcher)
    _see_to_what_is_rented(session)


def _see_to_what_is_rented(session: Session) -> None:
    """Pods that another kernel rented, or that were left alone by a reboot, are told and tended again; nobody waits for
    that. Where nothing was ever rented, nothing is loaded."""
    import os
    from pathlib import Path

    home = Path(os.environ.get("PODLAB_HOME") or "~/.podlab")  # which is not made: the first magic does that
    try:
        ledger = home.expanduser().absolute() / "ledger.jsonl"
    except RuntimeError:  # this user has no home folder, and so no pods
        return
    if ledger.exists():
        from podlab.lab.open_rentals import adopt, told

        adopt(ledger.parent)
        if text := told(ledger.parent):
            _tell(session, text)


def _tell(session: Session, text: str) -> None:
    from podlab.events import Notice
    from podlab.notebook.cell import CellAudience
    from podlab.notebook.terminal import TerminalAudience

    audience = CellAudience(session.shell) if session.in_kernel else TerminalAudience()
    audience.notice(Notice(text, "warning"))
    audience.close()


def unload(shell: InteractiveShell) -> None:
    """Take away what `load` registered, and close the connections of this process."""
    loaded = _loaded.pop(shell, None)
    if loaded is None:
        return
    for magic in MAGICS:
        for kind in ("line", "cell"):
            shell.magics_manager.magics[kind].pop(magic.name, None)
        if hasattr(shell.magics_manager.user_magics, magic.name):
            delattr(shell.magics_manager.user_magics, magic.name)
    shell.Completer.custom_matchers.remove(loaded.matcher)
    shell.input_transformers_cleanup.remove(questions)
    _configurables(shell).remove(loaded.session.config)
    loaded.session.close()


def questions(lines: list[str]) -> list[str]:
    """`%chat Who are you?` is asked, not looked up: to IPython a line that ends in ? asks for help on its last word.

    Only for a cell of that one line: further in, such a line may stand in a string or in a script.
    """
    said = [line for line in lines if line.strip()]
    found = _QUESTION.fullmatch(said[0].rstrip()) if len(said) == 1 else None
    if found is None:
        return lines
    return [f"{found[1]}get_ipython().run_line_magic('chat', {found[2]!r})\n"]


def _function(session: Session, magic: Magic) -> Callable[..., Any]:
    """The function IPython calls. What does the work is imported at the first call, not when the extension loads."""

    @no_var_expand
    def call(line: str, cell: str | None = None) -> Any:
        from podlab.notebook import magics

        return magics.run(session, magic.group, line, cell)

    def getdoc() -> str:
        from podlab.commands import table

        return table.group_help(magic.group, magic=True) if magic.group else table.main_help(magic=True)

    call.__name__ = call.__qualname__ = magic.name
    call.__doc__ = f"{magic.about} See %{magic.name} --help"
    call.getdoc = getdoc  # type: ignore[attr-defined]  # IPython asks for it when a person writes %pod?
    return call


def _matcher(session: Session) -> Callable[[Any], Any]:
    from IPython.core.completer import context_matcher

    def podlab_matcher(context: Any) -> Any:
        from podlab.notebook import completion

        return completion.match(session, context)

    marked: Callable[[Any], Any] = context_matcher(identifier="podlab", priority=100)(podlab_matcher)
    return marked


def _configurables(shell: InteractiveShell) -> list[Any]:
    """What `%config` lists."""
    return shell.configurables
