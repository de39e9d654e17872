"""The first word to a pod that nobody has spoken to: no key counts that its log does not tell, and nobody is asked."""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from podlab.errors import HostKeyChanged, HostKeyUnknown, ProviderUnavailable
from podlab.lab.introduction import AGAIN_S, Introduction
from podlab.lab.launches import Launch
from podlab.ledger import Ledger
from podlab.renting import Rental, RentalLine, RentalState
from podlab.transport.host_keys import HostKey, HostKeys
from tests.lab.company import Clock, Company, market_of
from tests.lab.rentals import launch, state

STARTED_AT = 1000.0


def key(number: int) -> HostKey:
    blob = struct.pack(">I", 11) + b"ssh-ed25519" + struct.pack(">I", 32) + hashlib.sha256(bytes([number])).digest()
    return HostKey("ssh-ed25519", base64.b64encode(blob).decode())


OURS, NEW, THEIRS = key(1), key(2), key(3)


def started_again() -> Launch:
    """A pod that was stopped once, so that its log holds the lines of an earlier start."""
    return launch((10.0, "rent.state", state(RentalState.STOPPED)), (20.0, "rent.state", state(RentalState.RUNNING)))


@dataclass
class Pod:
    """A pod that shows a key, in turn where there are several, behind an address of the company's."""

    shown: list[HostKey]
    launch: Launch = field(default_factory=started_again)
    words: int = 0

    def word(self) -> str:
        """What is said to it, as the SSH client says it: only to a key that is pinned."""
        shown = self.shown[min(self.words, len(self.shown) - 1)]
        self.words += 1
        HostKeys().verify("gpu", self.launch.id, "203.0.113.7", 40000, shown.type, shown.base64)
        return "heard"


class Logging(Company):
    """A company whose pods' logs say these lines, the first at the pod's start."""

    says: tuple[str, ...] = ()

    def logs(
        self, rental_id: str, *, source: str | None = None, tail: int = 100, after: str | None = None,
        since: float | None = None, follow: bool = False,
    ) -> Iterator[RentalLine]:  # fmt: skip
        self._called("logs")
        lines = [RentalLine("0", STARTED_AT - 9, "container", f"podlab: host key {THEIRS.type} {THEIRS.fingerprint}")]
        return iter([*lines, *(RentalLine("1", STARTED_AT + 1, "container", text) for text in self.says)])


@pytest.fixture
def company(clock: Clock) -> Logging:
    return Logging(lambda: clock.true)


@pytest.fixture
def forgotten() -> list[str]:
    return []


@pytest.fixture
def speak(company: Logging, clock: Clock, tmp_path: Path, forgotten: list[str]) -> Callable[[Pod], str]:
    market = market_of(company, clock, Ledger(tmp_path / "ledger.jsonl", now=clock.now))
    introduction = Introduction(market, clock.steady, forgotten.append)
    rental = Rental("r1", "gpu-x1", RentalState.RUNNING, started_at=STARTED_AT)
    return lambda pod: introduction.speak(pod.launch, rental, pod.word)


def told(shown: HostKey) -> str:
    return f"podlab: host key {shown.type} {shown.fingerprint}"


def test_a_key_that_the_log_tells_is_pinned(speak: Callable[[Pod], str], company: Logging) -> None:
    company.says = (told(OURS),)
    pod = Pod([OURS])

    assert speak(pod) == "heard"
    assert HostKeys().pinned(pod.launch.id) == OURS


@pytest.mark.parametrize("says", [(), ("podlab: host key ssh-ed25519 SHA256:short",), (told(OURS), told(THEIRS))])
def test_a_key_that_the_log_does_not_tell_is_not_trusted(
    speak: Callable[[Pod], str], company: Logging, says: tuple[str, ...]
) -> None:
    """It may stand in the lines of a start before, or further on, where whoever is in the container writes."""
    company.says = says
    pod = Pod([THEIRS])

    with pytest.raises(HostKeyUnknown):
        speak(pod)

    assert HostKeys().pinned(pod.launch.id) is None


def test_by_another_clock_the_first_words_of_a_pod_may_be_older_than_its_start(speak: Callable[[Pod], str]) -> None:
    """One that never was stopped has no lines of an earlier start: what its log says first counts."""
    pod = Pod([THEIRS], launch())

    assert speak(pod) == "heard"
    assert HostKeys().pinned(pod.launch.id) == THEIRS


def test_a_key_that_was_made_anew_at_a_start_counts_when_the_log_tells_it(
    speak: Callable[[Pod], str], company: Logging, forgotten: list[str]
) -> None:
    company.says = (told(NEW),)
    pod = Pod([NEW])
    HostKeys().pin(pod.launch.id, OURS.type, OURS.base64)

    assert speak(pod) == "heard"
    assert HostKeys().pinned(pod.launch.id) == NEW
    assert pod.launch.id in forgotten, "what was open to it was opened with the key of before"


@pytest.mark.parametrize("says", [(), (told(OURS),)])
def test_another_key_than_the_pinned_one_is_not_trusted_without_the_log(
    speak: Callable[[Pod], str], company: Logging, says: tuple[str, ...], forgotten: list[str]
) -> None:
    company.says = says
    pod = Pod([THEIRS])
    HostKeys().pin(pod.launch.id, OURS.type, OURS.base64)

    with pytest.raises(HostKeyChanged):
        speak(pod)

    assert HostKeys().pinned(pod.launch.id) == OURS
    assert (pod.words, forgotten) == (1, []), "nothing is opened to it anew"


def test_a_key_that_changes_between_two_looks_is_not_the_one_the_log_told(
    speak: Callable[[Pod], str], company: Logging
) -> None:
    """The address leads to another machine the next moment: what was pinned before stays."""
    company.says = (told(NEW),)
    pod = Pod([NEW, THEIRS])
    HostKeys().pin(pod.launch.id, OURS.type, OURS.base64)

    with pytest.raises(HostKeyChanged):
        speak(pod)

    assert HostKeys().pinned(pod.launch.id) == OURS


def test_a_log_is_not_asked_for_in_every_round(speak: Callable[[Pod], str], company: Logging, clock: Clock) -> None:
    pod = Pod([OURS])
    for _ in range(3):
        with pytest.raises(HostKeyUnknown):
            speak(pod)
    assert company.calls.count("logs") == 1

    company.says = (told(OURS),)
    clock.pause(AGAIN_S + 1)
    assert speak(pod) == "heard"


def test_a_company_that_does_not_show_the_log_vouches_for_nothing(
    speak: Callable[[Pod], str], company: Logging
) -> None:
    def unavailable(call: str) -> None:
        raise ProviderUnavailable("no answer")

    company.fault = unavailable
    pod = Pod([THEIRS])

    with pytest.raises(ProviderUnavailable):
        speak(pod)

    assert HostKeys().pinned(pod.launch.id) is None
