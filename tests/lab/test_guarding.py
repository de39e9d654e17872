"""How sure it is that a pod ends by itself, from what a round of tending has written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from podlab.lab.brakes import Watched
from podlab.lab.guarding import guard
from podlab.lab.launches import Launch, Phase, Span
from podlab.lab.tending_file import Notes, Owner, PodNote, ProviderNote, TendingFile
from podlab.renting import Armed, Protection, RentalState

NOW = 10_000.0
RUNNING = Span(RentalState.RUNNING, 0.4, NOW - 600)
POD = Launch(
    "launch-1", "box", "box-1", "runpod", NOW - 600, Phase.LIVE, usd_per_hour=0.4, live_at=NOW - 590,
    armed_at=NOW - 580, spans=(RUNNING,),
)  # fmt: skip


def tended(home: Path, *, heard_s: float = 10.0) -> TendingFile:
    """What a keeper wrote that heard the pod's switch `heard_s` ago."""
    file = TendingFile(home / "tending.json", lambda: NOW, lambda: NOW, "boot-1")
    note = PodNote(POD.id, Watched(0.0, 600.0, NOW, "boot-1"), "boot-1", Armed(True, lease_left_s=590.0), NOW - heard_s)
    assert file.write(Owner.here("keeper"), Notes(NOW, None, (note,), (ProviderNote("runpod", NOW),)))
    return file


def test_a_pod_whose_switch_was_heard_within_its_lease_is_protected(tmp_path: Path) -> None:
    found = guard(POD, tended(tmp_path))

    assert found.protection is Protection.PROTECTED
    assert found.why == "its switch is armed, and the keeper tends it"


def test_a_switch_that_was_not_heard_for_its_lease_protects_nothing(tmp_path: Path) -> None:
    assert guard(POD, tended(tmp_path, heard_s=700)).protection is Protection.PARTLY


def test_what_a_switch_said_a_while_ago_is_told_with_its_age(tmp_path: Path) -> None:
    """Its lease still ends it, so it is protected; nobody has heard it just now, so nobody says that it is armed."""
    found = guard(POD, tended(tmp_path, heard_s=200))

    assert found.protection is Protection.PROTECTED
    assert found.why.startswith("its switch was armed when it was last heard, 3 min 20 s ago")


def test_a_stopped_pod_has_no_switch_whatever_it_said_before(tmp_path: Path) -> None:
    stopped = replace(POD, spans=(replace(RUNNING, ends_at=NOW - 5), Span(RentalState.STOPPED, 0.01, NOW - 5)))

    found = guard(stopped, tended(tmp_path))

    assert found.protection is Protection.PARTLY
    assert found.why == "it is stopped and its switch with it, and the keeper tends it"
    assert found.armed is None


def test_a_pod_that_its_company_calls_broken_is_not_protected_by_what_its_switch_said_before(tmp_path: Path) -> None:
    broken = replace(POD, spans=(replace(RUNNING, ends_at=NOW - 5), Span(RentalState.ERROR, 0.4, NOW - 5)))

    found = guard(broken, tended(tmp_path))

    assert found.protection is Protection.PARTLY
    assert found.why == "its provider says that it is broken, and so its switch may be; the keeper tends it"


def test_what_a_switch_said_before_a_restart_counts_no_more(tmp_path: Path) -> None:
    again = Span(RentalState.RUNNING, 0.4, NOW - 2)
    stopped = Span(RentalState.STOPPED, 0.01, NOW - 5, NOW - 2)
    started = replace(POD, spans=(replace(RUNNING, ends_at=NOW - 5), stopped, again))

    file = tended(tmp_path)

    assert guard(started, file).protection is Protection.PARTLY
    assert guard(replace(started, armed_at=NOW - 1), file).protection is Protection.PROTECTED


def test_a_pod_that_nobody_tends_and_whose_switch_is_silent_is_unprotected(tmp_path: Path) -> None:
    nobody = TendingFile(tmp_path / "tending.json", lambda: NOW, lambda: NOW, "boot-1")

    assert guard(POD, nobody).protection is Protection.UNPROTECTED


def test_a_pod_that_was_only_asked_for_is_said_to_be_looked_for_with_what_it_costs_at_worst(tmp_path: Path) -> None:
    asked = replace(POD, phase=Phase.ASKED, live_at=None, armed_at=None, spans=(), asked_at=NOW - 60)

    found = guard(asked, tended(tmp_path))
    alone = guard(asked, TendingFile(tmp_path / "nobody.json", lambda: NOW, lambda: NOW, "boot-1"))

    assert found.protection is Protection.PARTLY
    assert found.why == "nothing of it was seen yet, and the keeper looks for it"
    assert alone.why == "nothing of it was seen yet, and nobody here tends it"
    assert alone.worst.usd is not None
    assert alone.worst.why.startswith("nothing of it was seen yet; if it came, its switch ends it")


def test_one_who_has_another_key_than_the_pod_was_rented_with_is_nobody_who_could_end_it(tmp_path: Path) -> None:
    file, pod = tended(tmp_path), replace(POD, keys=("of-then",))
    notes = file.notes()
    for identity, protection in (("of-then", Protection.PROTECTED), ("of-now", Protection.PARTLY)):
        providers = (replace(notes.providers[0], identity=identity),)
        assert notes.held is not None and file.write(notes.held.owner, replace(notes, providers=providers))
        assert guard(pod, file).protection is protection

    assert "has another key of runpod" in guard(pod, file).why
