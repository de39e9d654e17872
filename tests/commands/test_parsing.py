"""Words into a call of a verb: where options may stand, what errors say, and what help shows."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from podlab.commands.parsing import called, did_you_mean, example_of, parse, parser_of
from podlab.commands.table import VERBS, find
from podlab.commands.verb import Operand, Option, Verb, options_of
from podlab.errors import BadArgument

VERB_IDS = [verb.words for verb in VERBS]
PLAIN = Verb(
    "pod", "plain", "Do something.", "pod.plain",
    operands=(Operand("name", "a name"), Operand("more", "more words", "*")),
    options=(
        Option("--count", "how many", kind=int, metavar="N", default=3, short="-n"),
        Option("--share", "how much", kind=float, metavar="X"),
        Option("--kind", "which", values=("red", "green")),
        Option("--text", "any text"),
        Option("--loud", "loudly", kind=bool, short="-l"),
    ),
    example="%pod plain a", on_pod=True, changes=True,
)  # fmt: skip
ALL = Verb("pod", "all", "Run something.", "pod.all", operands=(Operand("command", "the command", "..."),), on_pod=True)
REST = Verb(
    "model", "rest", "Start.", "model.rest", operands=(Operand("model", "a model", "?"),), rest="engine options"
)


def args(verb: Verb, line: str, **more: Any) -> dict[str, Any]:
    call = parse(verb, shlex.split(line), magic=False, **more)
    assert call.help is None
    return vars(call.args)


def refused(verb: Verb, line: str) -> BadArgument:
    with pytest.raises(BadArgument) as caught:
        parse(verb, shlex.split(line), magic=False)
    assert caught.value.exit_code == 2
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    "line",
    [
        "a b c --count 5 -l --on lab", "--count 5 -l --on lab a b c", "a --count 5 b -l c --on=lab",
        "--count=5 a -l b --on lab c",
        "a -n 5 b c -l --on lab", "-n5 a b -l --on lab c", "a b --on lab -ln5 c",
    ],
)  # fmt: skip
def test_options_stand_anywhere(line: str) -> None:
    """Before, between or after the operands, with = or a space, long or short: the same call."""
    found = args(PLAIN, line)
    assert (found["name"], found["more"]) == ("a", ["b", "c"])
    assert (found["count"], found["loud"], found["on"]) == (5, True, "lab")


@hypothesis_settings(deadline=None, max_examples=60)
@given(st.permutations([("a",), ("b",), ("c",), ("--count", "5"), ("--text", "-x y"), ("--loud",), ("--json",)]))
def test_any_order_is_one_call(parts: list[tuple[str, ...]]) -> None:
    """However options and operands are mixed, each lands where it belongs."""
    call = parse(PLAIN, [word for part in parts for word in part], magic=True)
    found = vars(call.args)
    operands = [part[0] for part in parts if part[0] in ("a", "b", "c")]
    assert [found["name"], *found["more"]] == operands
    assert (found["count"], found["text"], found["loud"], found["json"], found["yes"]) == (5, "-x y", True, True, False)


def test_everything_has_a_value() -> None:
    """Every operand and option is an attribute, whether or not it was given, and so are rest, cell and stdin."""
    assert args(PLAIN, "a") == {
        "name": "a", "more": [], "count": 3, "share": None, "kind": None, "text": None, "loud": False, "on": None,
        "dry_run": False, "yes": False, "json": False, "verbose": False, "help": False, "rest": [], "cell": None,
        "stdin": None,
    }  # fmt: skip
    assert args(PLAIN, "a", cell="body\n")["cell"] == "body\n"


@pytest.mark.parametrize(
    ("line", "expected"),
    [("a -5 - -", ["-5", "-", "-"]), ("a '- a list item'", ["- a list item"]), ("a ''", [""]), ("a b=c", ["b=c"])],
)
def test_words_that_only_look_like_options(line: str, expected: list[str]) -> None:
    """Negative numbers, single dashes, sentences that begin with a dash and empty words are operands."""
    assert args(PLAIN, line)["more"] == expected


@pytest.mark.parametrize("value", ["-x", "-1", "", "a=b", "--unknown", "- x"])
def test_values_that_look_like_options(value: str) -> None:
    """With = any value can be given, and without it any that is no option of the verb."""
    assert parse(PLAIN, ["a", f"--text={value}"], magic=False).args.text == value
    assert parse(PLAIN, ["a", "--text", value], magic=False).args.text == value


@pytest.mark.parametrize(
    ("line", "command", "on"),
    [
        ("--on lab ls -la --json", ["ls", "-la", "--json"], "lab"),
        ("ls --on lab --help", ["ls", "--on", "lab", "--help"], None),
        ("--on lab -- --odd -- x", ["--odd", "--", "x"], "lab"), ("ls -- -x", ["ls", "--", "-x"], None), ("", [], None),
        ("--on=lab", [], "lab"), ("sh -c 'echo $HOME'", ["sh", "-c", "echo $HOME"], None),
    ],
)  # fmt: skip
def test_the_first_operand_ends_our_options(line: str, command: list[str], on: str | None) -> None:
    """Where a command is given, everything from its first word on is its own, and a -- before it is ours."""
    found = args(ALL, line)
    assert (found["command"], found["on"], found["json"], found["rest"]) == (command, on, False, [])


def test_the_rest_is_untouched() -> None:
    """What follows -- is handed on word by word, options of ours and another -- included."""
    found = args(REST, "tiny --json -- --threads 2 --json --help -- x")
    assert (found["model"], found["json"]) == ("tiny", True)
    assert found["rest"] == ["--threads", "2", "--json", "--help", "--", "x"]
    assert args(REST, "-- --threads 2")["model"] is None
    assert args(REST, "tiny --")["rest"] == []
    assert args(PLAIN, "a --")["more"] == []
    assert "takes nothing after --, got 'x'" in str(refused(PLAIN, "a -- x"))


@pytest.mark.parametrize(
    ("verb", "line", "helps"),
    [
        (PLAIN, "--help", True), (PLAIN, "-h", True), (PLAIN, "a b --help", True), (PLAIN, "--nonsense --help", True),
        (PLAIN, "a --count x -h", True), (PLAIN, "a --text --help", False), (PLAIN, "a --text=--help", False),
        (ALL, "--help", True), (ALL, "--on lab -h", True), (ALL, "ls --help", False), (ALL, "-- ls --help", False),
        (REST, "tiny --help", True), (REST, "tiny -- --help", False),
    ],
)  # fmt: skip
def test_where_help_counts(verb: Verb, line: str, helps: bool) -> None:
    """--help is answered wherever our options may stand, and left alone where the word is somebody else's."""
    call = None
    try:
        call = parse(verb, shlex.split(line), magic=False)
    except BadArgument:
        assert not helps
    assert (call is not None and call.help is not None) is helps


@pytest.mark.parametrize(
    ("line", "said", "hint"),
    [
        ("a --cuont 5", "no option '--cuont'", "Did you mean --count?"),
        ("a --lod", "no option '--lod'", "Did you mean --loud?"),
        ("--cuont=5", "no option '--cuont'", "--count"), ("a -z", "no option '-z'", ""),
        ("a --coun 5", "no option '--coun'", "--count"),
        ("a --count x", "--count takes a whole number, got 'x'.", "--count N"),
        ("a -n 1.5", "--count takes a whole number, got '1.5'.", "N"),
        ("a --share much", "--share takes a number, got 'much'.", "--share X"),
        ("a --share nan", "--share takes a number", "--share X"),
        ("a --share inf", "got 'inf'", "--share X"),
        ("a --kind blue", "--kind takes red or green, got 'blue'.", "--kind red|green"),
        ("a --text=--", "--text needs a value.", "--text VALUE"),
        ("a --count", "--count needs a value.", "--count N"),
        ("a --text --loud", "--text needs a value.", "--text VALUE"),
        ("a --count -- x", "--count needs a value.", "--count N"), ("a --json=yes", "--json takes no value.", "--json"),
        ("", "NAME", "--help"), ("--loud", "NAME", "--help"),
    ],
)  # fmt: skip
def test_what_errors_say(line: str, said: str, hint: str) -> None:
    """A wrong line names the option and the value, and how to write it."""
    error = refused(PLAIN, line)
    assert said in str(error)
    assert hint in error.hint


def test_too_many_operands() -> None:
    """A word too many is named."""
    assert "podlab model rest has no operand 'b'." in str(refused(REST, "a b"))


def test_unknown_option_comes_before_a_missing_operand() -> None:
    """A misspelt option is what the error is about, not the operand that is missing, too."""
    assert refused(PLAIN, "--cuont 5").hint == "Did you mean --count?"


@given(
    st.lists(
        st.text(max_size=6) | st.sampled_from(["--", "-h", "--count", "--on", "-n", "-l", "--kind=red", "a"]),
        max_size=6,
    )
)
def test_parsing_raises_nothing_else(words: list[str]) -> None:
    """Any words are a call or a BadArgument, and nothing is printed or exited from."""
    for verb in (PLAIN, ALL, REST):
        try:
            parse(verb, words, magic=True)
        except BadArgument:
            pass


def test_did_you_mean() -> None:
    """The nearest word that is known, and nothing when none is near."""
    assert did_you_mean("lst", ["list", "run"]) == "Did you mean list?"
    assert did_you_mean("xyz", ["list", "run"]) == ""


# --- every verb there is


@pytest.mark.parametrize("verb", VERBS, ids=VERB_IDS)
def test_help_of_every_verb(verb: Verb, monkeypatch: pytest.MonkeyPatch) -> None:
    """In both forms help has the summary, every operand and option with its text, and an example of that form; as wide
    as a terminal, but for the example, which is to be copied."""
    monkeypatch.setenv("COLUMNS", "80")
    for magic in (True, False):
        text = parser_of(verb, magic=magic).format_help()
        flat = " ".join(text.split())
        assert flat.startswith(f"usage: {called(verb, magic=magic)} ")
        assert " ".join(verb.summary.split()) in flat
        assert max(map(len, text.partition("\nexample:")[0].splitlines())) <= 80
        for about in [operand.help for operand in verb.operands] + [option.help for option in options_of(verb)]:
            assert " ".join(about.split()) in flat
        assert parse(verb, ["--help"], magic=magic).help == text


@pytest.mark.parametrize("verb", VERBS, ids=VERB_IDS)
def test_terminal_help_speaks_of_the_terminal(verb: Verb) -> None:
    """Terminal help has no percent sign, and each line of its example is a command that parses."""
    assert "%" not in parser_of(verb, magic=False).format_help().replace("%%chat", "")
    lines = example_of(verb, magic=False).splitlines()
    assert lines
    for line in lines:
        program, *words = shlex.split(line)
        assert program == "podlab"
        found, rest = find(words)
        assert found is verb
        assert parse(found, rest, magic=False).help is None


@pytest.mark.parametrize("verb", VERBS, ids=VERB_IDS)
def test_magic_help_speaks_of_the_notebook(verb: Verb) -> None:
    """Each call in a notebook's example begins with a magic there is, and parses; only a cell magic has a body."""
    calls = [line for line in example_of(verb, magic=True).splitlines() if line.startswith("%")]
    assert calls
    assert example_of(verb, magic=True).startswith("%")
    for line in calls:
        name, *words = shlex.split(line.lstrip("%"))
        assert name in ("pod", "model", "chat", "podlab")
        found, rest = find(words if name == "podlab" else [name, *words])
        assert found is verb
        assert parse(found, rest, magic=True, cell="x" if line.startswith("%%") else None).help is None
        assert verb.cell != "no" or not line.startswith("%%")


def test_a_cell_in_the_terminal() -> None:
    """A cell's body becomes the last operand where that takes words, and a cell that is a script is left out."""
    chat, _ = find(["chat"])
    assert example_of(chat, magic=False) == "podlab chat tiny 'Say hello.'"
    assert example_of(chat, magic=True) == "%%chat tiny\nSay hello."
    run, _ = find(["pod", "run"])
    assert example_of(run, magic=False) == "podlab pod run --on lab nvidia-smi"
    assert "%%pod run --lang python" in example_of(run, magic=True)
    assert "[COMMAND ...]" in parser_of(run, magic=False).format_usage()


@pytest.mark.parametrize(
    ("words", "magic", "expected"),
    [
        (["pod", "list"], True, "%pod list"), (["pod", "list"], False, "podlab pod list"), (["chat"], True, "%chat"),
        (["config", "show"], True, "%podlab config show"), (["logs"], True, "%podlab logs"),
        (["logs"], False, "podlab logs"),
    ],
)  # fmt: skip
def test_how_a_verb_is_called(words: list[str], magic: bool, expected: str) -> None:
    """Groups without a magic of their own go through %podlab (%config is IPython's)."""
    assert called(find(words)[0], magic=magic) == expected


def test_a_percent_sign_in_help_is_printed_as_it_is() -> None:
    """argparse would fill in what follows it."""
    verb = Verb("model", "try", "Try.", "x.y", options=(Option("--share", "90% or 0.9", metavar="SHARE"),))
    assert "90% or 0.9" in parser_of(verb, magic=False).format_help()
