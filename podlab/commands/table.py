"""All verbs, and the way from words to one of them."""

from __future__ import annotations

from collections.abc import Sequence

from podlab.commands import chat, model, own, pod
from podlab.commands.parsing import MAGICS, did_you_mean
from podlab.commands.verb import Verb
from podlab.errors import BadArgument

VERBS: tuple[Verb, ...] = (*pod.VERBS, *model.VERBS, *chat.VERBS, *own.VERBS)
_GROUPS = {
    "pod": "machines: add them, run commands, move files, open tunnels",
    "model": "models: start, watch, stop",
    "chat": "speak with a model",
    "config": "settings",
    "secret": "keys and tokens",
}


def groups() -> dict[str, str]:
    """Each group and what it is about, in the order help shows them."""
    return dict(_GROUPS)


def verbs_of(group: str) -> tuple[Verb, ...]:
    """A group's verbs, in the order help shows them."""
    return tuple(verb for verb in VERBS if verb.group == group)


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
        given = words[len(prefix)] if len(words) > len(prefix) else ""
        said = f"{' '.join(prefix)} has no verb {given!r}." if given else f"{' '.join(prefix)} needs a verb."
        raise BadArgument(said, hint=did_you_mean(given, names) or f"Verbs: {', '.join(n for n in names if n)}")
    known = [*_GROUPS, *(verb.name for verb in VERBS if not verb.group)]
    raise BadArgument(f"There is no command {first!r}.", hint=did_you_mean(first, known) or "See: podlab --help")


def group_help(group: str, *, magic: bool) -> str:
    """What a group can do, a line a verb."""
    start = ("%" if magic else "") + ("" if magic and group in MAGICS else "podlab ") + group
    width = max(len(verb.name) for verb in verbs_of(group)) + 2
    lines = [f"usage: {start} VERB ...", "", f"{group}: {_GROUPS[group]}", ""]
    lines += [f"  {verb.name:<{width}}{verb.summary}" for verb in verbs_of(group)]
    return "\n".join([*lines, "", f"{start} VERB --help explains one.", ""])


def main_help() -> str:
    """What `podlab --help` shows."""
    width = max(len(name) for name in _GROUPS) + 3
    alone = [verb for verb in VERBS if not verb.group]
    lines = ["usage: podlab COMMAND ...", "", "Serve open models on any machine with a GPU, or on this one.", ""]
    lines += [f"  {name:<{width}}{about}" for name, about in _GROUPS.items()]
    lines += [f"  {verb.name:<{width}}{verb.summary}" for verb in alone]
    return "\n".join([*lines, "", "podlab COMMAND --help explains one. podlab --version shows the version.", ""])
