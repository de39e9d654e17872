"""Who vouches for the host key of a rented pod: its own log, a person in advance, or a yes of its own, not `--yes`."""

from __future__ import annotations

import base64

import pytest

from podlab.commands.drive import drive
from podlab.errors import HostKeyChanged, HostKeyUnknown, Refused
from podlab.events import Answer
from podlab.lab.crew import Here
from podlab.lab.market import Market
from podlab.lab.workspace import Workspace
from tests.audiences import Silent

OWN, OTHER = "SHA256:" + "A" * 43, "SHA256:" + "B" * 43
KEY = base64.b64encode(b"\0\0\0\x0bssh-ed25519" + b"\0\0\0\x20" + b"k" * 32).decode()
SHOWN = HostKeyUnknown("lab", "203.0.113.7", "ssh-ed25519", KEY, OWN)


def confirmed(
    workspace: Workspace, told: tuple[str, ...], *, given: str | None = None, answer: Answer = None, yes: bool = True
) -> tuple[str, Silent]:
    audience = Silent(answer)
    crew = Here(workspace, Market.of(workspace), host_key=given)
    return drive(crew._confirmed(SHOWN, told), audience, yes=yes), audience


def test_the_key_that_the_pods_own_log_tells_needs_no_question(workspace: Workspace) -> None:
    how, audience = confirmed(workspace, (OTHER, OWN))

    assert (how, audience.asked) == ("log", [])


def test_another_key_than_the_log_tells_is_refused_and_nothing_is_sent(workspace: Workspace) -> None:
    """It is looked at again for a while: a public port may lead to another machine just after a start."""
    with pytest.raises(HostKeyChanged, match="Nothing was sent") as changed:
        confirmed(workspace, (OTHER,))

    assert (changed.value.expected, changed.value.shown) == (OTHER, OWN)


def test_a_fingerprint_given_in_advance_decides_whatever_the_log_says(workspace: Workspace) -> None:
    assert confirmed(workspace, (), given=OWN)[0] == "given"
    with pytest.raises(Refused, match="shows the host key"):
        confirmed(workspace, (OWN,), given=OTHER)


def test_without_either_a_person_is_asked_and_yes_does_not_answer_for_them(workspace: Workspace) -> None:
    how, audience = confirmed(workspace, (), answer=True)

    assert how == "person"
    assert [asked.kind for asked in audience.asked] == ["host_key"]
    assert OWN in audience.asked[0].question
    with pytest.raises(Refused):
        confirmed(workspace, (), answer=False)
    with pytest.raises(HostKeyUnknown):
        confirmed(workspace, (), answer=None)
