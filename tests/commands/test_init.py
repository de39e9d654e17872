"""`init`: a key that is shown to its company before it is kept, an SSH key, limits; by questions or by options."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from podlab import secrets, settings
from podlab.display.text import text
from podlab.errors import BadArgument, BadSecret, BadSettings, KeyRefused
from podlab.events import Answer, Ask
from podlab.lab import hidden
from podlab.lab.first_setup import QUESTIONS
from podlab.sandbox import control
from podlab.sandbox.serve import Running
from podlab.secrets import Secret
from tests.audiences import Silent
from tests.commands.conftest import Say

CANARY = "rpa_canary0canary0canary0canary0"


class Answering(Silent):
    """Answers each question in turn; None once nothing is left to say."""

    def __init__(self, *answers: Answer) -> None:
        super().__init__()
        self.answers = list(answers)

    def ask(self, ask: Ask) -> Answer:
        super().ask(ask)
        return self.answers.pop(0) if self.answers else None


@pytest.fixture
def runpod(sandbox: Running, monkeypatch: pytest.MonkeyPatch) -> Running:
    """The pretended company under RunPod's name: what differs is the address only."""
    monkeypatch.setenv("RUNPOD_API_BASE_URL", sandbox.url)
    monkeypatch.delenv("RUNPOD_API_KEY", raising=False)
    monkeypatch.delenv("PODLAB_PROVIDER")
    return sandbox


def typed(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """What a person types where it is not shown."""
    monkeypatch.setattr("getpass.getpass", lambda prompt: value)
    monkeypatch.setattr(hidden, "_piped", lambda: False)


@pytest.fixture
def closed() -> Iterator[None]:
    yield
    control.down()


def test_a_wizard_asks_and_what_it_is_told_is_kept(
    say: Say, runpod: Running, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    typed(monkeypatch, runpod.key)
    audience = Answering(0, "L40S, A40", "5", "2h", "20m")
    made = say("init", audience=audience)
    assert [ask.kind for ask in audience.asked] == ["choice", "text", "text", "text", "text"]
    assert [ask.default for ask in audience.asked[1:]] == ["A40, RTX A6000, RTX A5000", "10", "8h", "30m"]
    assert settings.value("rent.gpu_preferences")[0] == "L40S, A40"
    assert (settings.value("rent.budget_usd")[0], settings.value("rent.ttl")[0]) == (5.0, 7200.0)
    kept = secrets.find("RUNPOD_API_KEY")
    assert kept is not None and kept.reveal() == runpod.key
    key = Path(os.environ["PODLAB_HOME"], "ssh", "id_ed25519")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600 and key.with_suffix(".pub").read_text().startswith("ssh-ed25519 ")
    shown = text(made)
    assert runpod.key not in shown and "rent.ttl = 2h" in shown and "podlab pod doctor" in shown


def test_a_key_that_is_refused_is_not_kept(say: Say, runpod: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    typed(monkeypatch, CANARY)
    with pytest.raises(KeyRefused) as caught:
        say("init --provider runpod", audience=Answering())
    assert CANARY not in f"{caught.value.message}{caught.value.hint}"
    assert secrets.find("RUNPOD_API_KEY") is None and not settings.config_path().exists()


def test_it_can_be_repeated_and_asks_for_no_key_that_still_works(
    say: Say, runpod: Running, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    secrets.keep("RUNPOD_API_KEY", Secret(runpod.key))
    typed(monkeypatch, "nobody is asked")
    made = say("init --provider runpod --budget 4", audience=Answering())
    assert "the one that was kept is accepted" in made.checks[0].detail
    assert settings.value("rent.budget_usd")[0] == 4.0
    again = say("init --provider runpod", audience=Answering(None, None, None))
    assert again.settings == made.settings, "nobody to answer changes nothing"
    assert not again.checks[1].detail.startswith("made"), "the SSH key stays"


def test_a_kept_key_that_is_refused_by_now_is_asked_for_anew(
    say: Say, runpod: Running, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    secrets.keep("RUNPOD_API_KEY", Secret(CANARY))
    typed(monkeypatch, runpod.key)
    audience = Answering()
    say("init --provider runpod", audience=audience)
    assert "cannot be used" in audience.notices[0].text and CANARY not in audience.notices[0].text
    assert secrets.find("RUNPOD_API_KEY") == Secret(runpod.key)


def test_a_key_of_the_environment_that_goes_before_a_new_one_is_told(
    say: Say, runpod: Running, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setenv("RUNPOD_API_KEY", CANARY)
    typed(monkeypatch, runpod.key)
    for line in ("init --provider runpod", "secret set RUNPOD_API_KEY"):
        audience = Answering()
        say(line, audience=audience)
        assert "unset it" in audience.notices[-1].text and CANARY not in audience.notices[-1].text


@pytest.mark.usefixtures("closed")
def test_an_answer_that_cannot_be_is_asked_for_again(say: Say) -> None:
    audience = Answering("A40", "lots", "5", "soon", "1h")
    say("init --provider sandbox", audience=audience)
    assert settings.value("rent.budget_usd")[0] == 5.0 and settings.value("rent.ttl")[0] == 3600.0
    assert [notice.level for notice in audience.notices] == ["warning", "warning"]
    with pytest.raises(BadSettings, match="rent.ttl cannot be 'soon'"):
        say("init --provider sandbox", audience=Answering("A40", "5", "soon", "soon", "soon"))


def test_nothing_else_can_be_chosen(say: Say) -> None:
    with pytest.raises(BadArgument, match="Nothing is rented from 'ssh'"):
        say("init --provider ssh")
    assert say("init --dry-run").would[0].startswith("check a key")


def test_without_anybody_to_type_it_says_so(say: Say, runpod: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hidden, "_piped", lambda: True)
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: SIM115
    with pytest.raises(BadSecret, match="Nothing was given for RUNPOD_API_KEY"):
        say("init --provider runpod")


def test_every_question_is_about_a_setting_of_renting() -> None:
    assert all(settings.setting(name).name.startswith("rent.") for name, _ in QUESTIONS)


@pytest.mark.usefixtures("closed")
def test_with_the_sandbox_it_needs_nothing_and_opens_it(say: Say) -> None:
    """No account, no network: afterwards pods can be looked for."""
    made = say("init --provider sandbox --ttl 1h")
    assert made.simulated and made.checks[0].state == "ok"
    assert say("sandbox status").running
    assert settings.value("provider")[0] == "sandbox" and say("pod plan").simulated


@pytest.mark.usefixtures("closed")
def test_the_sandbox_is_opened_disturbed_and_closed(say: Say) -> None:
    assert not say("sandbox status").running
    opened = say("sandbox up --speed 60 --balance 3")
    assert (opened.running, opened.speed, opened.balance_usd) == (True, 60.0, 3.0)
    audience = Silent()
    assert say("sandbox up", audience=audience).pid == opened.pid
    assert "speed 60" in audience.notices[0].text
    assert say("sandbox fault created-500 --times 2").faults == ("created-500, 2 times more",)
    assert say("sandbox fault stock-out --times 0").faults[-1] == "stock-out until it is cleared"
    assert say("sandbox fault --clear").faults == ()
    assert say("sandbox money 2").balance_usd == pytest.approx(5)
    names = {row.name for row in say("sandbox fault").faults}
    assert {"created-500", "stock-out", "vanish"} <= names
    assert "open (simulated)" in text(say("sandbox status"))
    assert say("sandbox down").text == "The sandbox is closed."
    assert say("sandbox down").text == "The sandbox was not open."
    with pytest.raises(BadArgument, match="Leave the name away|clears every fault"):
        say("sandbox fault html --clear")
