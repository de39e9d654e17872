"""What is offered after a magic: from the declarations and from this computer's files, never from a pod."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.completer import CompletionContext
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from podlab.catalog import catalog
from podlab.commands import completion as offering
from podlab.commands import table
from podlab.commands.verb import Values, options_of
from podlab.lab import known as known_names
from podlab.notebook import completion
from podlab.notebook.session import Session
from podlab.settings import config_path
from tests.notebook import standin


def offered(shell: InteractiveShell, text: str, cursor: int | None = None) -> list[str]:
    """Texts IPython would show, in their order, whatever other matchers add."""
    return [completion.text for completion in completions(shell, text, cursor)]


def completions(shell: InteractiveShell, text: str, cursor: int | None = None) -> list[object]:
    from IPython.core.completer import provisionalcompleter

    with provisionalcompleter():
        return list(shell.Completer.completions(text, len(text) if cursor is None else cursor))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **named: object) -> None:
        raise AssertionError("completion opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {
        "pods": ["local", "lab", "gpu 1"], "endpoints": ["tiny", "helper"], "models": ["tiny", "qwen"], "jobs": ["j-1"],
    }  # fmt: skip
    monkeypatch.setattr(known_names, "names", lambda workspace, values: names.get(values, []))


def test_verbs_in_their_declared_order_and_nothing_else(shell: InteractiveShell) -> None:
    standin.remove()
    expected = list(dict.fromkeys(verb.name.split()[0] for verb in table.verbs_of("pod")))
    assert offered(shell, "%pod ") == expected
    assert offered(shell, "x = %pod ") == expected
    assert offered(shell, "%%pod ") == expected
    assert offered(shell, "%pod ren") == ["rename"]
    assert offered(shell, "%pod tunnel ") == ["open", "list", "close"]


def test_every_verb_offers_every_option_once(shell: InteractiveShell) -> None:
    for verb in table.VERBS:
        assert offered(shell, f"%podlab {verb.words} -") == [option.name for option in options_of(verb)], verb.words


def test_types_are_named(shell: InteractiveShell, known: None) -> None:
    kinds = {entry.text: entry.type for entry in completions(shell, "%pod show ")}  # type: ignore[attr-defined]
    assert kinds["lab"] == "pod"
    assert kinds["--on"] == "option"
    assert {entry.type for entry in completions(shell, "%pod ")} == {"verb"}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("%pod show l", ["local", "lab"]),
        ("%pod run --on ", ["local", "lab", "gpu 1"]),
        ("%pod run --on=la", ["lab"]),
        ("%%pod run --lang ", ["bash", "python"]),
        ("%%pod run --lang=p", ["python"]),
        ("%model start q", ["qwen"]),
        ("%model stop h", ["helper"]),
        ("%chat h", ["helper"]),
        ("%%chat t", ["tiny"]),
        ("%pod attach ", None),
        ("y.z = %model show t", ["tiny"]),
        ("%pod list --js", ["--json"]),
        ("%pod list --json --", ["--all", "--limit", "--verbose"]),
        ("%pod list --json --json", []),
        ("%pod list -v --", ["--all", "--limit", "--json"]),
        ("%podlab con", ["config"]),
        ("%podlab config s", ["show", "set"]),
        ("%podlab config show t", []),
    ],
)
def test_values_of_operands_and_options(
    shell: InteractiveShell, known: None, text: str, expected: list[str] | None
) -> None:
    found = offered(shell, text)
    if expected is None:
        assert found[0] == "j-1"
    elif expected:
        assert found == expected
    else:
        assert not any(name.startswith("--") for name in found)


def test_the_cursor_in_the_middle(shell: InteractiveShell, known: None) -> None:
    text = "%pod run --on l --json ls"
    assert offered(shell, text, len("%pod run --on l")) == ["local", "lab"]
    assert "--json" not in offered(shell, "%pod list -- --json", len("%pod list --"))
    assert "run" in offered(shell, "%pod  --help", len("%pod "))


def test_what_belongs_to_the_command_is_not_ours(shell: InteractiveShell, known: None) -> None:
    for text in ("%pod run ls --", "%model start tiny -- --"):
        assert not {"--json", "--on"} & set(offered(shell, text))


def test_a_cells_body_is_not_ours(shell: InteractiveShell, known: None) -> None:
    assert "local" not in offered(shell, "%%pod run\n%pod show l")
    assert offered(shell, "a = 1\n%pod show la") == ["lab"]


def test_files_for_what_takes_files(shell: InteractiveShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data dir").mkdir()
    (tmp_path / "data dir" / "a.txt").touch()
    (tmp_path / "dog.txt").touch()
    (tmp_path / ".hidden").touch()
    monkeypatch.chdir(tmp_path)
    assert offered(shell, "%pod push d") == ["data\\ dir/", "dog.txt"]
    assert offered(shell, "%pod push data\\ dir/") == ["data\\ dir/a.txt"]
    assert offered(shell, f"%pod push {tmp_path}/do") == [f"{tmp_path}/dog.txt"]
    assert offered(shell, "%chat load do") == ["dog.txt"]


def test_names_of_renting(shell: InteractiveShell) -> None:
    """GPUs, providers, faults, places that were seen, and pods that the ledger says may be billed: nobody is asked."""
    from podlab.ledger import Ledger
    from podlab.renting import Policy
    from podlab.store import Store
    from tests.lab.rentals import ask

    Ledger().append("rent.ask", "l1", **ask(0.5, Policy(), name="rented"))
    Store().saw_words("datacenters", ["EU-RO-1", "US-TX-3"])
    Store().saw_words("gpus", ["GPU of tomorrow"])
    for sort in ("volumes", "templates", "registries"):
        Store().saw_words(sort, [f"my-{sort}"])
    assert offered(shell, "%pod create --volume my") == offered(shell, "%pod volumes delete m") == ["my-volumes"]
    assert offered(shell, "%pod create --template my") == ["my-templates"]
    assert offered(shell, "%pod templates create lab --registry my") == ["my-registries"]
    assert offered(shell, "%pod create --gpu A4") == ["A40"]
    assert offered(shell, "%pod plan --gpu GPU")[0].strip("'\"").startswith("GPU")
    assert offered(shell, "%pod offers --provider sa") == ["sandbox"]
    assert offered(shell, "%pod offers --region EU") == ["EU-RO-1"]
    assert offered(shell, "%pod terminate re") == ["rented"]
    assert offered(shell, "%pod cost re") == ["rented"]
    assert offered(shell, "%podlab sandbox fault created-5") == ["created-500"]
    assert offered(shell, "%podlab sandbox ") == ["up", "down", "status", "fault", "money"]


def test_every_sort_of_value_has_a_name() -> None:
    """What has none is a KeyError at a keystroke, which nobody sees."""
    assert set(get_args(Values)) == set(offering._KINDS)


def test_names_from_this_computers_files(shell: InteractiveShell) -> None:
    assert offered(shell, "%model start ")[: len(catalog.entries())] == [entry.id for entry in catalog.entries()]
    assert offered(shell, "%pod use l") == ["local"]
    assert "chat.max_tokens" in offered(shell, "%podlab config set ch")


def test_a_damaged_file_does_not_break_typing(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> None:
    config_path().write_text("[pods\n")
    assert offered(shell, "%pod show --j") == ["--json"]
    assert "--on" in offered(shell, "%pod show ")


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["%pod ", "x = %model ", "%%chat ", "%podlab "]),
    st.lists(st.sampled_from(["run", "tunnel", "--on", "--on=", "--", *"-'\"\\ =\t", "{x}", "a b"])),
    st.integers(0, 40),
)
def test_no_line_is_too_odd(start: str, parts: list[str], cursor: int) -> None:
    text = start + "".join(parts)
    context = CompletionContext("", text, min(cursor, len(text)), 0, None)
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"hist_file": ":memory:"}}))
    found = completion.match(Session(shell), context)
    assert all(entry.text.startswith(found["matched_fragment"]) for entry in found["completions"])


def test_other_lines_are_left_alone(shell: InteractiveShell) -> None:
    assert "print" in offered(shell, "pri")
    assert "list" not in offered(shell, "%podd ")
