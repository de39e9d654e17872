"""What a verb is. Magics, the terminal, completion, --help, --json and the reference page all derive from these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # the terminal's --help must not pay for what it does not use
    from argparse import Namespace

    from podlab.commands.results import Outcome
    from podlab.events import Work
    from podlab.lab.workspace import Workspace

Values = Literal[
    "pods", "endpoints", "models", "jobs", "settings", "secrets", "files", "engines", "providers", "gpus",
    "datacenters", "rentals", "faults", "volumes", "templates", "registries",
]  # fmt: skip
"""What a completion offers for an argument; answered from what is known already, never by asking a pod."""


@dataclass(frozen=True)
class Operand:
    """A positional argument. `count` is as in argparse: "" one, "?" zero or one, "*" any, "..." all the rest as is."""

    name: str
    help: str
    count: Literal["", "?", "*", "..."] = ""
    values: Values | tuple[str, ...] | None = None


@dataclass(frozen=True)
class Option:
    """A named argument. `kind` bool makes it a switch; `kind` is called with the text otherwise."""

    name: str
    help: str
    kind: Callable[[str], Any] = str
    metavar: str = ""
    default: Any = None
    values: Values | tuple[str, ...] | None = None
    short: str = ""
    many: bool = False
    """It may be given several times; its value is then a list, None when it was not given."""


@dataclass(frozen=True)
class Verb:
    """One thing podlab can do."""

    group: str
    """"pod", "model", "chat", "config", "secret", "tunnel"; "" for a verb that stands alone (`podlab logs`)."""
    name: str
    """The verb's name; "" for what a group does when no verb is given (`%chat`, `podlab chat`)."""
    summary: str
    does: str
    """Its handler, as module.function below commands/handlers. By name, so that --help need not load what it does."""
    operands: tuple[Operand, ...] = ()
    options: tuple[Option, ...] = ()
    example: str = ""
    """As a magic where there is one; the terminal shows it with `podlab ` for the percent sign."""
    detail: str = ""
    changes: bool = False
    """It changes the world: it gets --dry-run and --yes."""
    on_pod: bool = False
    """A pod is meant: it gets --on POD."""
    rest: str = ""
    """What the words after `--` are, for help; "" when there are none."""
    cell: Literal["no", "may", "must"] = "no"
    """Whether it has a cell form (`%%pod run`)."""
    despite_config: bool = False
    """It goes on although config.toml holds what it may not: it mends that, or it ends what costs money."""
    in_terminal: str = ""
    """What to do instead in a terminal, for a verb on what only a notebook keeps; "" where it works there too."""

    def handler(self, workspace: Workspace, args: Namespace) -> Work[Outcome]:
        """Begin to carry it out: a generator of events that returns an Outcome.

        `args` has one attribute per operand and option (dashes become underscores), `rest` (the words after `--`),
        `cell` (the cell's body, or None) and `stdin` (what was piped into the terminal's command, to be read, or None).
        Raises BadSettings when config.toml holds what it may not, before anything is done.
        """
        from importlib import import_module

        if not self.despite_config:
            from podlab import settings

            settings.check()
        module, _, function = self.does.partition(".")
        begin: Callable[[Workspace, Namespace], Work[Outcome]] = getattr(
            import_module(f"podlab.commands.handlers.{module}"), function
        )
        return begin(workspace, args)

    @property
    def words(self) -> str:
        """How it is called after the percent sign or `podlab `: "pod list", "logs"."""
        return " ".join(word for word in (self.group, self.name) if word)


ON = Option("--on", "the pod that is meant (default: the pod in use)", metavar="POD", values="pods")
ENDED_LIMIT = Option(
    "--limit", "so many of those that are over at most (default: 50 in a table, all in --json)", kind=int, metavar="N"
)  # fmt: skip
JSON = Option("--json", "one JSON document instead of text", kind=bool)
DRY_RUN = Option("--dry-run", "say what would be done, and do nothing", kind=bool)
YES = Option("--yes", "answer yes to a deletion, a price or a command (never to a host key)", kind=bool, short="-y")
VERBOSE = Option("--verbose", "log in detail, and show whole tracebacks", kind=bool, short="-v")


def options_of(verb: Verb) -> tuple[Option, ...]:
    """A verb's own options, and those that its nature gives it."""
    given = (*((ON,) if verb.on_pod else ()), *((DRY_RUN, YES) if verb.changes else ()))
    return (*verb.options, *given, JSON, VERBOSE)
