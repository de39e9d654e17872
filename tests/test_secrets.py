"""Secrets: they do not show themselves, are kept privately, and are taken out of every text."""

from __future__ import annotations

import base64
import copy
import json
import os
import pickle
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podlab import durable, errors, secrets
from podlab.errors import BadSecret, NotFound, PodlabError, StateDamaged
from podlab.secrets import MASK, Secret
from podlab.settings import home

VALUE = "canary-3f9a2c-Ünïcode\"\\and'quotes/+="


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test's values are redacted from another test's output."""
    monkeypatch.setattr(secrets, "_known", set())


def key_file(name: str = "HF_TOKEN", content: bytes = b"canary-from-a-file", mode: int = 0o600) -> Path:
    path = durable.private_folder(home() / "keys") / name
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_it_shows_nothing() -> None:
    """repr, str, format, containers, %-formatting and f-strings show asterisks."""
    secret = Secret(VALUE)
    shown = [repr(secret), str(secret), f"{secret}", f"{secret!r:>60}", f"{secret:>60}", repr([secret]),
    repr({secret: secret}),
             "%s %r" % (secret, secret), ascii(secret), repr(dir(secret))]  # noqa: UP031  # fmt: skip
    assert "canary" not in "".join(shown)
    assert MASK in shown[0]
    assert secret.reveal() == VALUE


def test_it_does_not_leave_the_process() -> None:
    """No protocol of pickle, no copy and no JSON takes it."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError):
            pickle.dumps(Secret(VALUE), protocol)
    for use in (copy.copy, copy.deepcopy, json.dumps):
        with pytest.raises(TypeError):
            use(Secret(VALUE))
    with pytest.raises(TypeError):
        vars(Secret(VALUE))


def test_a_traceback_holds_none() -> None:
    """A traceback through code that holds one, and with its locals, does not show it."""

    def fails(secret: Secret) -> None:
        raise RuntimeError(f"with {secret} and {secret!r}")

    secret = Secret(VALUE)
    try:
        fails(secret)
    except RuntimeError as error:
        text = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "canary" not in text
    assert MASK in text


def test_equality_is_by_value() -> None:
    """Two secrets of one value are equal, a secret and its text are not."""
    assert Secret(VALUE) == Secret(VALUE)
    assert hash(Secret(VALUE)) == hash(Secret(VALUE))
    assert Secret(VALUE) != VALUE


@pytest.mark.parametrize("value", ["", "a\nb", "a\x00b", "a\x7fb", "a\x85b", "half\ud83d"])
def test_what_no_secret_can_be(value: str) -> None:
    """Nothing, control characters and half characters are refused, and the error does not repeat the value."""
    with pytest.raises(BadSecret) as caught:
        Secret(value)
    assert not value or value not in str(caught.value)


def test_the_environment_beats_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable of that name wins; an empty one counts as none."""
    key_file()
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert secrets.find("HF_TOKEN") == Secret("canary-from-a-file")
    monkeypatch.setenv("HF_TOKEN", " canary-from-env \n")
    assert secrets.find("HF_TOKEN") == Secret("canary-from-env")
    monkeypatch.setenv("HF_TOKEN", "")
    assert secrets.find("HF_TOKEN") == Secret("canary-from-a-file")


def test_keep_find_list_forget() -> None:
    """What is kept is found and listed by name; forgotten, it is gone; its file is 0600 in a folder of 0700."""
    before = os.umask(0)
    try:
        secrets.keep("MY_KEY", Secret(VALUE))
    finally:
        os.umask(before)
    path = home() / "keys" / "MY_KEY"
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert secrets.find("MY_KEY") == Secret(VALUE)
    assert secrets.names() == ["MY_KEY"]
    secrets.forget("MY_KEY")
    assert secrets.find("MY_KEY") is None
    assert secrets.names() == []
    with pytest.raises(NotFound):
        secrets.forget("MY_KEY")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_file_others_can_read_is_refused(mode: int) -> None:
    """A key file with wider modes is not used; the error names the file and the fix, not the value."""
    path = key_file(mode=mode)
    with pytest.raises(BadSecret) as caught:
        secrets.find("HF_TOKEN")
    assert str(path) in str(caught.value)
    assert "podlab secret set HF_TOKEN" in caught.value.hint
    assert "canary" not in str(caught.value)


def test_a_link_and_a_pipe_are_refused(tmp_path: Path) -> None:
    """A symlink (dangling, too), a FIFO without a writer and a folder are refused at once."""
    key_file("REAL")
    folder = home() / "keys"
    (folder / "LINK").symlink_to(folder / "REAL")
    (folder / "DANGLING").symlink_to(tmp_path / "nothing")
    os.mkfifo(folder / "PIPE", 0o600)
    (folder / "FOLDER").mkdir(mode=0o700)
    for name in ("LINK", "DANGLING", "PIPE", "FOLDER"):
        with pytest.raises(BadSecret, match="not a private file"):
            secrets.find(name)


@pytest.mark.parametrize("content", [b"", b" \n", b"canary\x00x", b"canary\xff\xfe", b"two\nlines"])
def test_a_damaged_file_is_named(content: bytes) -> None:
    """An empty or binary key file gives an error that names the file and holds none of its bytes, nor do its causes."""
    path = key_file(content=content)
    with pytest.raises(BadSecret) as caught:
        secrets.find("HF_TOKEN")
    assert str(path) in str(caught.value)
    assert "canary" not in "".join(traceback.format_exception(caught.value))


def test_a_damaged_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that holds no secret is named, its value is not."""
    monkeypatch.setenv("HF_TOKEN", "canary\x01")
    with pytest.raises(BadSecret, match="variable HF_TOKEN holds no secret") as caught:
        secrets.find("HF_TOKEN")
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-x", ".hidden", "a b", "é", "A" * 65, "a\n"])
def test_names_cannot_leave_the_folder(name: str) -> None:
    """What is no plain name is refused by every function."""
    for use in (secrets.find, secrets.forget, lambda name: secrets.keep(name, Secret(VALUE))):
        with pytest.raises(BadSecret, match="cannot be a secret's name"):
            use(name)


def test_keeping_over_a_link_replaces_it() -> None:
    """Where somebody planted a symlink the secret is written beside it, not through it."""
    victim = home() / "victim"
    victim.write_text("untouched")
    durable.private_folder(home() / "keys")
    (home() / "keys" / "MY_KEY").symlink_to(victim)
    secrets.keep("MY_KEY", Secret(VALUE))
    assert victim.read_text() == "untouched"
    assert secrets.find("MY_KEY") == Secret(VALUE)


@pytest.mark.parametrize(
    "form",
    [str, json.dumps, repr, lambda v: quote(v, safe=""), lambda v: f"Authorization: Bearer {v}\r\n", lambda v: v * 3],
)  # fmt: skip
def test_redact_finds_the_forms_of_a_value(form: Callable[[str], str]) -> None:
    """A value is taken out of a text as it is, and as JSON, repr and a URL write it."""
    Secret(VALUE)
    text = secrets.redact(f"before {form(VALUE)} after")
    assert "canary" not in text
    assert text.startswith("before ")
    assert text.endswith(" after")


def test_redact_takes_the_longest_first() -> None:
    """A secret that holds another one goes as a whole; a short value stays, as it would take ordinary words along."""
    Secret("abcdefgh")
    Secret("abcdefgh-and-more")
    Secret("the")
    assert secrets.redact("the abcdefgh-and-more abcdefgh") == f"the {MASK} {MASK}"


@given(st.text(st.characters(blacklist_categories=["Cc", "Cs"]), min_size=8), st.text(), st.text())
def test_redact_leaves_nothing(value: str, before: str, after: str) -> None:
    """Whatever stands around it, a value that was read is not in the text afterwards."""
    secrets.remember(value)
    assert value not in secrets.redact(before + value + after) or set(value) == {"*"}


def test_a_process_that_fails_shows_none(tmp_path: Path) -> None:
    """A program that reads a secret and dies of it, uncaught, leaves none in its output."""
    key_file(content=VALUE.encode())
    body = textwrap.dedent("""
        from podlab import secrets
        from podlab.errors import PodlabError
        secret = secrets.find("HF_TOKEN")
        raise PodlabError(f"{secret} did not work", hint=repr([secret])) from ValueError(secret)
    """)
    done = subprocess.run([sys.executable, "-c", body], capture_output=True)
    assert done.returncode == 1
    assert b"did not work" in done.stderr
    assert b"canary" not in done.stdout + done.stderr


def test_a_missing_secret_is_none() -> None:
    """Nothing kept and nothing set: None, no error."""
    assert secrets.find("NO_SUCH_SECRET") is None
    assert issubclass(BadSecret, PodlabError)


def test_a_folder_that_is_none() -> None:
    """What the disk refuses is an error of ours, whichever verb meets it."""
    keys = home() / "keys"
    keys.mkdir()
    (keys / "HF_TOKEN").mkdir()
    with pytest.raises(StateDamaged, match="HF_TOKEN"):
        secrets.forget("HF_TOKEN")
    (keys / "HF_TOKEN").rmdir()
    keys.rmdir()
    keys.write_text("")
    assert secrets.names() == []
    with pytest.raises(NotFound):
        secrets.forget("HF_TOKEN")


def test_errors_redact_once_secrets_can_be_read() -> None:
    """A traceback that was asked for quotes the causes of an error; no secret in them is shown."""
    secrets.remember("hf_canary0123456789")
    try:
        raise PodlabError("It failed with hf_canary0123456789.") from OSError("no: hf_canary0123456789")
    except PodlabError as error:
        assert "canary" not in "".join(error._render_traceback_())
        errors.show_tracebacks(True)
        shown = "\n".join(error._render_traceback_())
        errors.show_tracebacks(False)
    assert "OSError: no: ********" in shown and "canary" not in shown


@pytest.mark.parametrize(
    "text",
    [
        "MODEL_SOURCE=hf_abcdefghijklmnopqrstuvwx", "X=sk-proj-abcdefghijklmnopqrst", "A=b rpa_ABCDEFGHIJKLMNOPQRSTUV",
        "https://x:ghp_abcdefghijklmnopqrstuvwxyz@host", "K=-----BEGIN OPENSSH PRIVATE KEY-----",
        "K=AKIAABCDEFGHIJKLMNOP", "T=eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.sig",
    ],
)  # fmt: skip
def test_what_looks_like_a_token_is_told(text: str) -> None:
    assert secrets.what_it_holds(text) == "what looks like a token or a key"


@pytest.mark.parametrize(
    "text", ["", "MODE=fast", "MODEL=hf_models/tiny", "PATH=/usr/bin", "RISK=sk-1", "NAME=hfx_abcdefghijklmnopqrstu"]
)
def test_ordinary_words_are_none(text: str) -> None:
    assert secrets.what_it_holds(text) == ""


def test_a_known_secret_is_found_by_its_value_in_every_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is called there: as it is, quoted for a URL, in base64; the words hold nothing of it."""
    monkeypatch.setenv("RUNPOD_API_KEY", "canary/one+42=")
    secrets.keep("MY_OWN", Secret("another canary 4711"))
    for text, name in [
        ("X=canary/one+42=", "RUNPOD_API_KEY"), ("X=a%20b&k=canary%2Fone%2B42%3D", "RUNPOD_API_KEY"),
        (f"X={base64.b64encode(b'another canary 4711').decode()}", "MY_OWN"),
    ]:  # fmt: skip
        held = secrets.what_it_holds(text)
        assert held == f"the value of {name}" and "canary" not in held
