"""Settings: who wins, what is kept, and what a bad value says."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from podlab import settings
from podlab.errors import BadSettings, PodlabError, StateDamaged
from podlab.lab.workspace import Workspace


def write(text: str | bytes) -> Path:
    path = settings.config_path()
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_who_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """An override of this process beats the environment, which beats the file, which beats the default."""
    workspace = Workspace.open()
    name = "chat.max_tokens"
    assert workspace.value_and_source(name) == (512, "default")
    settings.store(name, "1")
    assert workspace.value_and_source(name) == (1, "file")
    monkeypatch.setenv("PODLAB_CHAT_MAX_TOKENS", "2")
    assert workspace.value_and_source(name) == (2, "environment")
    workspace.override(name, 3)
    assert workspace.value_and_source(name) == (3, "flag")
    workspace.override(name, None)
    assert workspace.value_and_source(name) == (2, "environment")


def test_every_setting_is_well_declared() -> None:
    """Each has help, a variable of its own, and a default that its own reading accepts."""
    assert len({declared.variable for declared in settings.SETTINGS}) == len(settings.SETTINGS)
    for declared in settings.SETTINGS:
        assert declared.help
        assert settings.parse(declared.name, declared.text(declared.default)) == declared.default


GOOD: list[tuple[str, str, Any]] = [
    ("pod", "lab", "lab"), ("chat.system", "Be \"brief\".\nAlways.", "Be \"brief\".\nAlways."), ("chat.system", "", ""),
    ("chat.temperature", "0", 0.0), ("chat.max_tokens", "1024", 1024), ("keeper", "off", False),
    ("keeper", "YES", True),
    ("deadline_s", "2.5", 2.5), ("start_deadline_s", "60", 60.0), ("tracebacks", "1", True),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "expected"), GOOD)
def test_store_and_read(name: str, text: str, expected: Any) -> None:
    """What is stored is what is read, and the file is TOML that another reader understands."""
    assert settings.store(name, text) == expected
    assert settings.value(name) == (expected, "file")
    tomllib.loads(settings.config_path().read_text())


BAD = [
    ("pod", ""), ("pod", "a\nb"), ("chat.temperature", "hot"), ("chat.temperature", "2.1"), ("chat.temperature", "nan"),
    ("chat.temperature", ""), ("chat.max_tokens", "0"), ("chat.max_tokens", "-1"), ("chat.max_tokens", "1.5"),
    ("chat.max_tokens", "9" * 5000), ("chat.max_tokens", "²"), ("keeper", "maybe"), ("keeper", ""), ("deadline_s", "0"),
    ("deadline_s", "inf"), ("deadline_s", "-inf"), ("deadline_s", "8s"), ("start_deadline_s", "1e9"),
    ("tracebacks", "2"), ("chat.system", "half a character: \ud83d"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text"), BAD)
def test_a_bad_value_says_which_what_and_how(name: str, text: str) -> None:
    """The error names the setting, the value and what it takes in our words; nothing is written."""
    with pytest.raises(BadSettings) as caught:
        settings.store(name, text)
    assert caught.value.message.startswith(f"{name} cannot be {text[:40]!r}"[:-1])
    assert caught.value.hint.startswith("It takes ")
    assert "could not convert" not in caught.value.hint
    assert "invalid literal" not in caught.value.hint
    assert not settings.config_path().exists()


def test_a_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad value of the environment says which variable to mend."""
    monkeypatch.setenv("PODLAB_DEADLINE_S", "soon")
    with pytest.raises(BadSettings, match=r"deadline_s cannot be 'soon', as PODLAB_DEADLINE_S says\."):
        settings.value("deadline_s")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('chat.max_tokens = "many"', "chat.max_tokens"), ("chat.max_tokens = 1.5", "chat.max_tokens"),
        ("chat = 5", "chat.max_tokens"),
        ("chat.max_tokens = [1]", "chat.max_tokens"), ("pod = {a = 1}", "pod"), ("keeper = 2026-01-01", "keeper"),
        ("[keeper]", "keeper"), ("chat.max_tokens = true", "chat.max_tokens"), ("deadline_s = nan", "deadline_s"),
    ],
)  # fmt: skip
def test_a_bad_value_in_the_file_is_named(text: str, name: str) -> None:
    """A value of the wrong type in config.toml names the setting and the file, and is no default in disguise."""
    write(text)
    with pytest.raises(BadSettings) as caught:
        settings.value(name)
    assert name in caught.value.message
    assert "config.toml" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    "text",
    ["pod =", "[a", 'pod = "a"\npod = "b"', b"\xff\xfe", b"\x00\x01\x02", "a = " + "[" * 100_000, "pod = 'x\ny'"],
)
def test_a_damaged_file_says_so_and_stays(text: str | bytes) -> None:
    """What is no TOML is refused with the file's name by reading and by writing, and is never written over."""
    path = write(text)
    before = path.read_bytes()
    with pytest.raises(BadSettings, match=r"config\.toml cannot be read"):
        settings.value("pod")
    with pytest.raises(BadSettings, match=r"config\.toml cannot be read"):
        settings.store("pod", "lab")
    assert path.read_bytes() == before


def test_a_folder_in_its_place() -> None:
    """Where config.toml cannot be opened the error is ours and gives the system's reason."""
    settings.config_path().mkdir()
    with pytest.raises(BadSettings, match="Is a directory"):
        settings.value("pod")


def test_a_byte_order_mark_is_no_damage() -> None:
    """A file saved by an editor that puts a byte order mark first is read and changed."""
    write(b"\xef\xbb\xbfpod = 'lab'\r\n")
    assert settings.value("pod") == ("lab", "file")
    settings.store("deadline_s", "3")
    assert settings.value("pod") == ("lab", "file")


def test_a_table_that_is_none_is_not_written_over() -> None:
    """`chat = 5` leaves no place for chat.max_tokens: an error, and the file stays."""
    path = write("chat = 5\n")
    with pytest.raises(BadSettings, match="not a table"):
        settings.store("chat.max_tokens", "7")
    assert path.read_text() == "chat = 5\n"


def test_comments_and_order_are_kept() -> None:
    """Storing changes one value and leaves everything else, to the letter."""
    text = "# mine\nkeeper = true  # always\n\n[chat]\n# short\nmax_tokens = 5\n\n[pods.lab]\nid = 'x'\n"
    path = write(text)
    settings.store("chat.max_tokens", "6")
    assert path.read_text() == text.replace("max_tokens = 5", "max_tokens = 6")
    settings.store("pod", "lab")
    settings.store("deadline_s", "3")
    assert "# mine\nkeeper = true  # always\n" in path.read_text()
    assert tomllib.loads(path.read_text()) == {
        "keeper": True, "pod": "lab", "deadline_s": 3.0, "chat": {"max_tokens": 6}, "pods": {"lab": {"id": "x"}},
    }  # fmt: skip


@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(GOOD), max_size=6),
    st.sampled_from(["", "[chat]\n", "[pods.a]\nid='1'\n", "chat.seed = 1\n"]),
)
def test_any_order_of_changes(changes: list[tuple[str, str, Any]], start: str) -> None:
    """Whatever is stored in whatever order, the file stays TOML and each setting has its last value."""
    write(start)
    for name, text, _ in changes:
        settings.store(name, text)
    for name, expected in {name: expected for name, _, expected in changes}.items():
        assert settings.value(name) == (expected, "file")


@pytest.mark.parametrize(
    ("name", "text", "value", "written", "shown"),
    [
        ("rent.ttl", "120m", 7200.0, '"2h"', "2h"), ("rent.ttl", "off", None, '"off"', "off"),
        ("rent.idle", "90s", 90.0, '"90.0s"', "90.0s"), ("rent.idle", "90m", 5400.0, '"90m"', "90m"),
        ("rent.budget_usd", "$2.5", 2.5, "2.5", "$2.50"), ("rent.budget_usd", "5", 5.0, "5.0", "$5"),
        ("money.per_day_usd", "off", None, '"off"', "off"), ("keeper", "no", False, "false", "off"),
        ("log_cap_bytes", "512MiB", 2**29, '"512MiB"', "512MiB"), ("rent.max_pods", "2", 2, "2", "2"),
        ("rent.lease", "10m", 600.0, '"10m"', "10m"),
    ],
)  # fmt: skip
def test_values_are_written_as_people_write_them(name: str, text: str, value: Any, written: str, shown: str) -> None:
    """A time, an amount or a size stands in the file as a person would put it there, and is read back the same."""
    assert settings.store(name, text) == value
    assert settings.value(name) == (value, "file")
    assert settings.setting(name).shown(value) == shown
    assert f"{name.rpartition('.')[2]} = {written}\n" in settings.config_path().read_text()
    settings.check()


@pytest.mark.parametrize("text", ["off", "0", "2d", "30s", "soon"])
def test_a_pod_always_has_a_lease(text: str) -> None:
    """Without one nothing on the pod would end it."""
    with pytest.raises(BadSettings, match=r"rent\.lease cannot be"):
        settings.parse("rent.lease", text)


@pytest.mark.parametrize(
    ("text", "key", "hint"),
    [
        ("[rent]\nttll = '2h'", "rent.ttll", "Did you mean rent.ttl?"),
        ("[rent]\nbudget = 5", "rent.budget", "Did you mean rent.budget_usd?"),
        ("povider = 'sandbox'", "povider", "Did you mean provider?"),
        ("[rentt]\nttl = '2h'", "rentt", "Did you mean rent?"),
        ("[pods.lab]\nid = 'x'\nhst = 'y'", "pods.lab.hst", "Did you mean pods.lab.host?"),
        ("[attached.a]\nurl = 'x'\nzzzz = 1", "attached.a.zzzz", "podlab config edit"),
        ("qqqq = 1", "qqqq", "podlab config edit"),
    ],
)  # fmt: skip
def test_a_key_that_is_none_is_refused_with_what_was_meant(text: str, key: str, hint: str) -> None:
    """The check names the file, the key and the fix; reading another setting goes on."""
    write(text)
    with pytest.raises(BadSettings) as caught:
        settings.check()
    assert str(settings.config_path()) in caught.value.message and caught.value.message.endswith(f": {key}.")
    assert hint in caught.value.hint and "podlab config edit" in caught.value.hint
    assert settings.value("chat.max_tokens") == (512, "default")


@pytest.mark.parametrize("text", ["[rent]\nttl = 'soon'", "rent = 5", "[rent.ttl]", "[money]\nper_day_usd = -1"])
def test_the_check_looks_at_values_too(text: str) -> None:
    write(text)
    with pytest.raises(BadSettings):
        settings.check()


def test_concurrent_changes_are_all_kept() -> None:
    """6 processes that change the file at the same time lose none of each other's values."""
    body = textwrap.dedent("""
        import sys
        from podlab import settings
        for number in range(10):
            def change(document):
                document[f"x{sys.argv[1]}_{number}"] = number
            settings.update_config(change)
    """)
    workers = [subprocess.Popen([sys.executable, "-c", body, str(number)]) for number in range(6)]
    assert [worker.wait() for worker in workers] == [0] * 6
    assert len(settings.read_config()) == 60


def test_no_such_setting() -> None:
    """A name that is no setting is refused wherever it is used."""
    for use in (settings.setting, settings.value, lambda name: settings.store(name, "1")):
        with pytest.raises(BadSettings, match="no setting 'chat.tokens'"):
            use("chat.tokens")


def test_a_setting_that_was_meant_is_named() -> None:
    with pytest.raises(BadSettings) as caught:
        settings.setting("xyzzy")
    assert caught.value.hint == "See: podlab config show"
    with pytest.raises(BadSettings) as caught:
        settings.setting("rent.bugdet_usd")
    assert caught.value.hint == "Did you mean rent.budget_usd?"


@given(st.sampled_from([declared.name for declared in settings.SETTINGS]), st.text())
def test_parsing_raises_nothing_else(name: str, text: str) -> None:
    """Any text is a value or a BadSettings."""
    try:
        settings.parse(name, text)
    except BadSettings:
        pass


def test_where_home_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PODLAB_HOME may begin with ~, is absolute from then on, and defaults to ~/.podlab."""
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("PODLAB_HOME", "~/lab")
    assert settings.home() == tmp_path / "me" / "lab"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PODLAB_HOME", "here")
    assert settings.home() == tmp_path / "here"
    monkeypatch.setenv("PODLAB_HOME", "")
    assert settings.home() == tmp_path / "me" / ".podlab"
    assert (tmp_path / "me" / ".podlab").stat().st_mode & 0o777 == 0o700


def test_a_home_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in its place and a name no system has give errors of ours."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PODLAB_HOME", str(tmp_path / "file"))
    with pytest.raises(StateDamaged, match="file cannot be used"):
        settings.home()
    monkeypatch.setenv("PODLAB_HOME", "~nobody-of-that-name/x")
    with pytest.raises(PodlabError, match="cannot be a folder"):
        settings.home()


def test_config_is_private() -> None:
    """config.toml is 0600 whatever the umask."""
    before = os.umask(0)
    try:
        settings.store("pod", "lab")
    finally:
        os.umask(before)
    assert settings.config_path().stat().st_mode & 0o777 == 0o600
