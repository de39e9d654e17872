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
from podlab.transport.host_keys import HostKey, HostKeys
from podlab.types import Pod, SshAddress
from tests.audiences import Silent
from tests.lab.rentals import launch

OWN, OTHER = "SHA256:" + "A" * 43, "SHA256:" + "B" * 43
KEY = base64.b64encode(b"\0\0\0\x0bssh-ed25519" + b"\0\0\0\x20" + b"k" * 32).decode()
LAUNCH = launch()
POD = Pod("lab", LAUNCH.id, "sandbox", SshAddress("203.0.113.7", "root", 40000))
BEFORE, NEW = (
    HostKey("ssh-ed25519", base64.b64encode(b"\0\0\0\x0bssh-ed25519" + b"\0\0\0\x20" + each * 32).decode())
    for each in (b"b", b"n")
)
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


class Side:
    """A pod that shows these keys, one after the other; behind it is the real store of pins."""

    def __init__(self, *shown: HostKey) -> None:
        self.shown = list(shown)

    def side(self, pod: Pod) -> Side:
        return self

    def hello(self) -> None:
        key = self.shown.pop(0) if len(self.shown) > 1 else self.shown[0]
        HostKeys().verify(pod=POD.name, pod_id=POD.id, host="203.0.113.7", port=40000, key_type=key.type,
                          key_base64=key.base64)  # fmt: skip


def knocked(workspace: Workspace, side: Side, told: tuple[str, ...]) -> str:
    """What a first word to a pod comes to that was rented, stopped and started again."""
    crew = Here(side, Market.of(workspace))  # type: ignore[arg-type]
    return drive(crew.knock(LAUNCH, told), Silent(True), yes=True)


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("podlab.lab.rented.pod_of", lambda launch: POD)
    HostKeys().pin(POD.id, BEFORE.type, BEFORE.base64)


@pytest.mark.usefixtures("pinned")
def test_after_a_start_the_key_of_before_is_enough(workspace: Workspace) -> None:
    assert knocked(workspace, Side(BEFORE), ()) == "pinned"


@pytest.mark.usefixtures("pinned")
def test_after_a_start_a_new_key_counts_where_the_log_tells_it(workspace: Workspace) -> None:
    assert knocked(workspace, Side(NEW), (NEW.fingerprint,)) == "log"
    assert HostKeys().pinned(POD.id) == NEW


@pytest.mark.usefixtures("pinned")
@pytest.mark.parametrize("told", [(), (OTHER,), ("before",)])
def test_after_a_start_a_new_key_that_no_log_tells_is_refused_and_no_yes_helps(
    workspace: Workspace, told: tuple[str, ...]
) -> None:
    told = tuple(BEFORE.fingerprint if each == "before" else each for each in told)

    with pytest.raises(HostKeyChanged) as changed:
        knocked(workspace, Side(NEW), told)

    assert (changed.value.expected, changed.value.shown) == (BEFORE.fingerprint, NEW.fingerprint)
    assert HostKeys().pinned(POD.id) == BEFORE
