"""The table of verbs: each is declared whole, and found by its words."""

from __future__ import annotations

import importlib
import inspect

import pytest

from podlab.commands import table
from podlab.commands.table import VERBS, find
from podlab.commands.verb import Verb, options_of
from podlab.errors import BadArgument

VERB_IDS = [verb.words for verb in VERBS]


@pytest.mark.parametrize("verb", VERBS, ids=VERB_IDS)
def test_every_verb_is_declared_whole(verb: Verb) -> None:
    """It has a summary that is a sentence, an example, and a handler that takes a workspace and arguments."""
    assert verb.summary[0].isupper()
    assert verb.summary.endswith(".")
    assert verb.example
    module, _, function = verb.does.partition(".")
    handler = getattr(importlib.import_module(f"podlab.commands.handlers.{module}"), function)
    assert inspect.isgeneratorfunction(handler)
    assert list(inspect.signature(handler).parameters) == ["workspace", "args"]


@pytest.mark.parametrize("verb", VERBS, ids=VERB_IDS)
def test_names_do_not_collide(verb: Verb) -> None:
    """No two operands or options of a verb share a name, each has help, and only the last operand takes many words."""
    names = [operand.name for operand in verb.operands] + [
        name
        for option in options_of(verb)
        for name in (option.name.lstrip("-").replace("-", "_"), option.short)
        if name
    ]
    assert len(names) == len(set(names))
    assert not {"rest", "cell", "help", "-h"} & set(names)
    assert all([operand.help for operand in verb.operands] + [option.help for option in options_of(verb)])
    assert all(operand.count in ("", "?") for operand in verb.operands[:-1])


@pytest.mark.parametrize("verb", VERBS, ids=VERB_IDS)
def test_what_changes_the_world_can_be_tried(verb: Verb) -> None:
    """A verb that changes something has --dry-run and --yes, one that does not has neither; every verb has --json."""
    names = {option.name for option in options_of(verb)}
    assert ({"--dry-run", "--yes"} <= names) is verb.changes
    assert {"--json", "--verbose"} <= names


def test_words_are_unique() -> None:
    """Each verb has words of its own, and its group is one that help knows."""
    assert len(set(VERB_IDS)) == len(VERBS)
    assert {verb.group for verb in VERBS} == {"", *table.groups()}


@pytest.mark.parametrize("verb", VERBS, ids=VERB_IDS)
def test_each_is_found(verb: Verb) -> None:
    """Its words lead to it, and what follows them is left as it is."""
    found, rest = find([*verb.words.split(), "--x", "y"])
    assert found is verb
    assert rest == ["--x", "y"]


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        (["pod", "lst"], "pod has no verb 'lst'.", "Did you mean list?"),
        (["model", "strat"], "'strat'", "Did you mean start?"),
        (["pod"], "pod needs a verb.", "Verbs: add, "),
        (["pod", "tunnel"], "pod tunnel needs a verb.", "open, list, close"),
        (["pod", "tunnel", "opne"], "pod tunnel has no verb 'opne'.", "Did you mean open?"),
        (["pods"], "'pods'", "Did you mean pod?"),
        (["xyzzy"], "no command 'xyzzy'", "See: podlab --help"), (["logz"], "'logz'", "Did you mean logs?"),
        ([], "''", "podlab --help"), (["pod", "--json"], "pod needs a verb.", "Verbs: "),
        (["--on", "lab", "pod", "list"], "--on stands before any command.", "podlab pod list --json"),
    ],
)  # fmt: skip
def test_what_is_not_found(words: list[str], said: str, hint: str) -> None:
    """A word that is none says which, and the nearest one or all of them."""
    with pytest.raises(BadArgument) as caught:
        find(words)
    assert said in str(caught.value)
    assert hint in caught.value.hint


@pytest.mark.parametrize("group", table.groups())
def test_group_help(group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group's help lists each of its verbs with its summary, called as it is called there, as wide as a terminal."""
    monkeypatch.setenv("COLUMNS", "80")
    for magic in (True, False):
        text = table.group_help(group, magic=magic)
        assert all(verb.summary in " ".join(text.split()) for verb in table.verbs_of(group))
        assert max(map(len, text.splitlines())) <= 80
        assert ("%" in text) is magic
    start = f"%{group} " if group in ("pod", "model", "chat") else f"%podlab {group} "
    assert table.group_help(group, magic=True).startswith(f"usage: {start}")


def test_main_help() -> None:
    """The main help lists every group and every verb that stands alone."""
    text = table.main_help()
    assert all(f"  {name} " in text for name in table.groups())
    assert all(verb.summary in " ".join(text.split()) for verb in VERBS if not verb.group)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-v pod list", "pod list -v"), ("--json pod list", "pod list --json"),
        ("pod --verbose list", "pod list --verbose"),
        ("--json pod -v tunnel open 8000", "pod tunnel open --json -v 8000"), ("pod list --json", "pod list --json"),
        ("-v pod run ls -v", "pod run -v ls -v"), ("pod run help", "pod run help"), ("chat help me", "chat help me"),
        ("help", "--help"), ("help pod", "pod --help"), ("pod help", "pod --help"),
        ("pod help list", "pod list --help"),
        ("help pod run", "pod run --help"), ("help nonsense", "nonsense --help"), ("pod lst -v", "pod lst -v"),
        ("--on lab pod list", "--on lab pod list"), ("", ""), ("-v", "-v"),
    ],
)  # fmt: skip
def test_switches_may_stand_before_the_verb(line: str, expected: str) -> None:
    """What every verb takes is put behind the verb; nothing that belongs to the verb or to its command is touched."""
    assert table.ordered(line.split()) == expected.split()


@pytest.mark.parametrize(
    ("line", "begins"),
    [
        ("help", "usage: podlab COMMAND"), ("pod help", "usage: podlab pod VERB"),
        ("help config", "usage: podlab config"),
        ("pod tunnel help", "usage: podlab pod tunnel VERB"), ("chat help", "usage: podlab chat "),
    ],
)  # fmt: skip
def test_help_is_a_word_too(line: str, begins: str) -> None:
    """A person who asks for help gets it, not another verb that is spelt nearly so."""
    said = table.help_for(table.ordered(line.split()), magic=False)
    assert said is not None
    assert said.startswith(begins)


@pytest.mark.parametrize("line", ["pod list --help", "pod lst --help", "pod", "chat help me", "pod list"])
def test_other_help_is_the_verbs_own(line: str) -> None:
    """The help of a verb comes from its parser, and a word that is no verb stays an error."""
    assert table.help_for(table.ordered(line.split()), magic=False) is None
