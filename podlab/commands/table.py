"""All verbs, and the way from words to one of them."""

from __future__ import annotations

from collections.abc import Sequence

from podlab.commands import chat, model, own, pod, rent, sandbox, weights
from podlab.commands.parsing import MAGICS, did_you_mean, parser_of, wrapped
from podlab.commands.verb import JSON, VERBOSE, Verb
from podlab.errors import BadArgument

VERBS: tuple[Verb, ...] = (
    *pod.VERBS,
    *rent.VERBS,
    *model.VERBS,
    *weights.VERBS,
    *chat.VERBS,
    *sandbox.VERBS,
    *own.VERBS,
)
_GROUPS = {
    "pod": "machines: add them, run commands, move files, open tunnels",
    "model": "models: find, download, start, watch, stop",
    "chat": "speak with a model",
    "sandbox": "a pretended company to rent from: no account, no money",
    "config": "settings",
    "secret": "keys and tokens",
}


_HELP = ("-h", "--help")
_SWITCHES = (JSON.name, VERBOSE.name, VERBOSE.short, *_HELP)
"""What every verb takes, and so may stand before the verb too."""


def groups() -> dict[str, str]:
    """Each group and what it is about, in the order help shows them."""
    return dict(_GROUPS)


def verbs_of(group: str) -> tuple[Verb, ...]:
    """A group's verbs, in the order help shows them."""
    return tuple(verb for verb in VERBS if verb.group == group)


def ordered(words: Sequence[str]) -> list[str]:
    """`words` with the switches that stand before or among a verb's own words behind those: -v pod list, pod -v list.

    The word help is such a switch where no verb is complete yet: pod help, help pod list.
    """
    path: list[str] = []
    switches: list[str] = []
    rest = list(words)
    while rest:
        word = rest[0]
        if word in _SWITCHES or (word == "help" and not _is_verb(path)):
            switches.append("--help" if word == "help" else word)
        elif _leads_on([*path, word]):
            path.append(word)
        else:
            break
        del rest[0]
    return [*path, *switches, *rest] if _is_verb(path) else [*path, *rest, *switches]


def help_for(words: Sequence[str], *, magic: bool) -> str | None:
    """Help on all commands or on a group, where `words` (as `ordered` gives them) ask for it; a verb's is its own."""
    path = [word for word in words if word not in _SWITCHES]
    if len(path) == 2 and path[0] in _GROUPS and path[1] == "help":  # %chat help: a person, lost, and no question
        return parser_of(find(path[:1])[0], magic=magic).format_help()
    if not set(words) & set(_HELP) or _is_verb(path) or not _leads_on(path):
        return None
    return group_help(" ".join(path), magic=magic) if path else main_help(magic=magic)


def _leads_on(path: list[str]) -> bool:
    return any(verb.words.split()[: len(path)] == path for verb in VERBS)


def _is_verb(path: list[str]) -> bool:
    return any(verb.words.split() == path for verb in VERBS)


def find(words: Sequence[str]) -> tuple[Verb, list[str]]:
    """The verb that `words` begin with, and the words after it. Raises BadArgument with a "did you mean"."""
    for length in (3, 2, 1):
        for verb in VERBS:
            if verb.words.split() == list(words[:length]):
                return verb, list(words[length:])
    first = words[0] if words else ""
    if first in _GROUPS:
        prefix = [first, "tunnel"] if list(words[:2]) == ["pod", "tunnel"] else [first]
        calls = [verb.words.split() for verb in VERBS]
        names = [" ".join(call[len(prefix) :]) for call in calls if call[: len(prefix)] == prefix]
        given = next((word for word in words[len(prefix) :] if word not in _SWITCHES), "")
        said = f"{' '.join(prefix)} has no verb {given!r}." if given else f"{' '.join(prefix)} needs a verb."
        raise BadArgument(said, hint=did_you_mean(given, names) or f"Verbs: {', '.join(n for n in names if n)}")
    if first.startswith("-"):
        raise BadArgument(f"{first} stands before any command.", hint="Write options after it: podlab pod list --json")
    known = [*_GROUPS, *(verb.name for verb in VERBS if not verb.group)]
    raise BadArgument(f"There is no command {first!r}.", hint=did_you_mean(first, known) or "See: podlab --help")


def group_help(group: str, *, magic: bool) -> str:
    """What a group, or a part of one such as `pod tunnel`, can do, a line a verb."""
    first, _, part = group.partition(" ")
    start = ("%" if magic else "") + ("" if magic and first in MAGICS else "podlab ") + group
    verbs = [verb for verb in verbs_of(first) if not part or verb.name.startswith(f"{part} ")]
    names = [verb.words.removeprefix(group).strip() for verb in verbs]
    width = max(map(len, names)) + 2
    lines = [f"usage: {start} VERB ...", "", *([] if part else [f"{group}: {_GROUPS[group]}", ""])]
    lines += [wrapped(f"  {name:<{width}}{verb.summary}", width + 2) for name, verb in zip(names, verbs, strict=True)]
    return "\n".join([*lines, "", f"{start} VERB --help explains one.", ""])


def main_help(*, magic: bool = False) -> str:
    """What `podlab --help` shows, or `%podlab`."""
    start = "%podlab" if magic else "podlab"
    version = "" if magic else " podlab --version shows the version."
    alone = [verb for verb in VERBS if not verb.group]
    width = max(len(name) for name in (*_GROUPS, *(verb.name for verb in alone))) + 2
    lines = [f"usage: {start} COMMAND ...", "", "Serve open models on any machine with a GPU, or on this one.", ""]
    commands = [*_GROUPS.items(), *((verb.name, verb.summary) for verb in alone)]
    lines += [wrapped(f"  {name:<{width}}{about}", width + 2) for name, about in commands]
    return "\n".join([*lines, "", f"{start} COMMAND --help explains one.{version}", ""])
