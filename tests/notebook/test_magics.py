"""Magics in a real IPython without a kernel: words in, values out, errors that are errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import ExecutionResult, InteractiveShell

from podlab import errors, secrets, settings
from podlab.errors import BadArgument, BadSettings, ChatError, CommandFailed, PodlabError, Refused
from podlab.notebook.values import HelpText, JsonDocument, Rows, Value
from tests.notebook import standin


def ran(shell: InteractiveShell, code: str) -> ExecutionResult:
    return shell.run_cell(code, store_history=True)


def value(shell: InteractiveShell, code: str) -> Any:
    result = ran(shell, code)
    assert result.error_in_exec is None
    return result.result


@pytest.mark.parametrize(
    "line", ["%pod", "%pod --help", "%pod -h", "%model", "%podlab", "%chat --help", "%model start --help"]
)
def test_help_is_a_value(shell: InteractiveShell, line: str) -> None:
    shown = value(shell, line)
    assert isinstance(shown, HelpText)
    assert repr(shown).startswith("usage: %")


def test_the_question_mark_shows_the_verbs(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    ran(shell, "%pod?")
    assert "List the pods" in capsys.readouterr().out


def test_a_table_can_be_gone_through(shell: InteractiveShell) -> None:
    rows = value(shell, "%model catalog")
    assert isinstance(rows, Rows)
    assert len(rows) == len(list(rows)) == len(rows.models)
    assert rows[0].id == rows.models[0].id
    assert rows[:2] == list(rows)[:2]
    assert len(rows.to_pandas()) == len(rows)
    assert rows.to_dict()["models"][0]["id"] == rows[0].id
    assert "models" in dir(rows)


def test_assignment_gets_the_value_and_shows_nothing(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    ran(shell, "x = %podlab config show")
    assert shell.user_ns["x"][0].name == "pod"
    assert capsys.readouterr().out == ""


def test_a_semicolon_silences(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    assert value(shell, "%pod echo a ;") is None
    assert value(shell, "%pod answer ;") is None
    assert value(shell, "%pod output ;") is None
    assert capsys.readouterr().out == ""


def test_json_is_the_document(shell: InteractiveShell) -> None:
    shown = value(shell, "%pod echo a --text b --json")
    assert isinstance(shown, JsonDocument)
    assert str(shown) == '{\n  "text": "a",\n  "changed": {\n    "text": "b"\n  }\n}'


def test_variables_go_in_by_name_word_by_word(shell: InteractiveShell) -> None:
    ran(shell, "name = 'a b'; n = 3")
    ran(shell, """%pod echo {name} {n} {n+1} {{n}} '{"n": 1}' $n --text={name}""")
    assert standin.seen[-1].words == ["a b", "3", "{n+1}", "{{n}}", '{"n": 1}', "$n"]
    assert standin.seen[-1].text == "a b"


def test_a_cells_body_arrives_untouched(shell: InteractiveShell) -> None:
    ran(shell, "n = 3")
    body = '{"n": {n}, "m": "{{n}}"}\nx = $n; it\'s ("\n'
    ran(shell, "%%pod echo --text {n}\n" + body)
    assert standin.seen[-1].cell == body
    assert standin.seen[-1].text == "3"
    ran(shell, "%pod echo a")
    assert standin.seen[-1].cell is None


@pytest.mark.parametrize(
    "code, said",
    [
        ("%pod lst", "Did you mean list?"),
        ("%pod list --jsn", "Did you mean --json?"),
        ("%pod echo --mode quick", "--mode fast|slow"),
        ("%pod echo 'a", "Close the quote"),
        ("%%pod list\nx", "Write it with one percent sign."),
        ("%podlab pot list", "Did you mean pod?"),
    ],
)
def test_a_line_that_cannot_be_carried_out_says_what_to_write(shell: InteractiveShell, code: str, said: str) -> None:
    error = ran(shell, code).error_in_exec
    assert isinstance(error, BadArgument)
    assert said in "\n".join(error.lines())


def test_an_error_is_one_to_three_clean_lines(shell: InteractiveShell) -> None:
    error = ran(shell, "%pod boom").error_in_exec
    assert isinstance(error, PodlabError)
    assert error._render_traceback_() == ["PodlabError: It did not work at all.", "Try the other."]
    assert str(error) == "It did not work at all."


def test_a_defect_shows_as_a_defect(shell: InteractiveShell) -> None:
    assert isinstance(ran(shell, "%pod boom --defect").error_in_exec, ZeroDivisionError)


def test_verbose_and_config_bring_tracebacks_back(shell: InteractiveShell) -> None:
    error = ran(shell, "%pod boom -v").error_in_exec
    assert isinstance(error, PodlabError)
    assert "Traceback" in "".join(error._render_traceback_())
    ran(shell, "%pod boom")
    assert not errors.tracebacks_shown()
    ran(shell, "%config Podlab.tracebacks = True\n%pod boom")
    assert errors.tracebacks_shown()
    ran(shell, "%config Podlab.tracebacks = False\n%pod boom")
    assert not errors.tracebacks_shown()


def test_a_command_that_ends_badly_fails_its_cell(shell: InteractiveShell) -> None:
    error = ran(shell, "%pod output --status 3").error_in_exec
    assert isinstance(error, CommandFailed)
    assert error.status == 3
    assert str(error) == "make on pod 'local' ended with status 3: three"
    quiet = ran(shell, "%pod output --status 3 --json").error_in_exec
    assert str(quiet) == str(error)


def test_what_a_verb_found_is_shown_although_its_cell_fails(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """A check that failed, and what to do about it, are what the verb was called for; an error alone tells neither."""
    error = ran(shell, "x = %pod found").error_in_exec
    assert isinstance(error, PodlabError) and "ended with status 1" in str(error) and "above" in error.hint
    assert "the disk is full" in capsys.readouterr().out
    ran(shell, "%pod found --json")
    assert '"failed": "disk"' in capsys.readouterr().out
    error = ran(shell, "%pod found ;").error_in_exec
    assert isinstance(error, PodlabError) and "semicolon" in error.hint
    assert "the disk is full" not in capsys.readouterr().out


def test_output_keeps_its_lines_and_loses_its_escapes(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    ran(shell, "_ = %pod output")
    said = capsys.readouterr()
    assert said.out == "one\ntwo\nthree"
    assert said.err == "bad\n"


def test_an_answer_shows_once_in_a_terminal(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    shown = value(shell, "%pod answer --text 'Hello, you.'")
    assert isinstance(shown, Value)
    assert capsys.readouterr().out.count("Hello, you.") == 1
    assert shown.text == "Hello, you."
    assert shown.usage.completion_tokens == 40
    ran(shell, "_1 if '_1' in globals() else _")
    ran(shell, "r = %pod answer --text 'Hello, you.'")
    capsys.readouterr()
    ran(shell, "r")
    assert "Hello, you." in capsys.readouterr().out


def test_a_broken_answer_fails_the_cell(shell: InteractiveShell) -> None:
    error = ran(shell, "%pod answer --fail").error_in_exec
    assert isinstance(error, ChatError)
    assert error.lines() == ["The answer broke off. Here.", "Ask again."]


def test_nobody_to_ask_is_no_consent(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    error = ran(shell, "%pod question").error_in_exec
    assert isinstance(error, Refused)
    assert error.message == "The answer was None."
    assert "Warning: Look here." in capsys.readouterr().err
    assert value(shell, "%pod question --yes").text == "Yes."
    assert isinstance(ran(shell, "%pod question --yes --key").error_in_exec, Refused)


def test_a_missing_pandas_is_said(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(PodlabError, match="pandas is not installed") as caught:
        value(shell, "%model catalog").to_pandas()
    assert caught.value.hint == "Install it: pip install pandas"


def test_a_field_that_is_not_there_names_those_that_are(shell: InteractiveShell) -> None:
    with pytest.raises(AttributeError, match="Done has no 'txt'; it has text, changed"):
        _ = value(shell, "%pod echo a").txt


def test_settings_of_the_notebook_win_and_can_be_taken_back(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PODLAB_CHAT_TEMPERATURE", "0.9")

    def shown() -> tuple[Any, str]:
        row = value(shell, "%podlab config show chat.temperature")[0]
        return row.value, row.source

    assert shown() == (0.9, "environment")
    ran(shell, "%config Podlab.temperature = 0.1")
    assert shown() == (0.1, "flag")
    ran(shell, "%config Podlab.temperature = None")
    assert shown() == (0.9, "environment")


def test_config_lists_every_setting_with_help(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    ran(shell, "%config Podlab")
    said = capsys.readouterr().out
    for name in ("pod", "temperature", "max_tokens", "system", "tracebacks", "stages"):
        assert f"Podlab.{name}=" in said
    assert "The longest answer" in said


def test_no_magic_writes_outside_its_home(shell: InteractiveShell, own_home: Path) -> None:
    ran(shell, "%podlab config show")
    assert list(own_home.iterdir()) in ([], [own_home / ".ipython"])


@pytest.mark.parametrize(
    ("line", "begins"),
    [("%pod help", "usage: %pod VERB"), ("%podlab help", "usage: %podlab COMMAND"),
     ("%pod help list", "usage: %pod list"),
     ("%chat help", "usage: %chat "), ("%pod tunnel --help", "usage: %pod tunnel VERB")],
)  # fmt: skip
def test_help_is_a_word_too(shell: InteractiveShell, line: str, begins: str) -> None:
    shown = value(shell, line)
    assert isinstance(shown, HelpText)
    assert repr(shown).startswith(begins)


def test_switches_may_stand_before_the_verb(shell: InteractiveShell) -> None:
    assert isinstance(value(shell, "%pod --json list"), JsonDocument)
    assert isinstance(value(shell, "%podlab --json pod list"), JsonDocument)


def test_config_shows_what_holds_where_nothing_is_set(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, own_home: Path
) -> None:
    monkeypatch.setenv("PODLAB_CHAT_TEMPERATURE", "0.9")
    ran(shell, "%podlab config set deadline_s 3\n%config Podlab.pod = 'lab'")
    capsys.readouterr()
    ran(shell, "%config Podlab")
    said = capsys.readouterr().out
    for shown in (
        "Current: 512 (default)",
        "Current: 0.9 (environment)",
        "Current: 3.0 (config.toml)",
        "Current: 'lab'",
    ):
        assert shown in said
    assert "Current: None" not in said
    monkeypatch.setenv("PODLAB_CHAT_TEMPERATURE", "hot")
    ran(shell, "%config Podlab")
    assert "Current: not known (chat.temperature cannot be 'hot'" in capsys.readouterr().out


def test_nothing_that_an_error_shows_holds_a_secret(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_known", set())
    canary = "hf_canary0123456789"
    secrets.remember(canary)
    error = ran(shell, f"%pod boom -v --cause 'denied: {canary} \x1b[31m'").error_in_exec
    assert error is not None
    shown = "\n".join(error._render_traceback_())
    assert "denied: ********" in shown
    assert canary not in shown and "\x1b" not in shown
    defect = ran(shell, f"%pod boom --defect --cause 'denied: {canary}'").error_in_exec
    assert isinstance(defect, ZeroDivisionError)
    drawn = "\n".join(defect._render_traceback_())  # type: ignore[attr-defined]
    assert "ZeroDivisionError" in drawn and "denied: ********" in drawn and canary not in drawn
    assert canary not in str(defect)


def test_broken_settings_keep_no_pod_from_being_ended(shell: InteractiveShell) -> None:
    settings.config_path().write_text("broken = [")
    assert isinstance(ran(shell, "%pod answer").error_in_exec, BadSettings)
    assert value(shell, "%podlab config path").text == str(settings.config_path())
