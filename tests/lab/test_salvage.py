"""What is made of a damaged ledger: what finds and ends pods is believed more readily than what lets them be."""

from __future__ import annotations

from podlab.lab.launches import Launch, Phase
from podlab.lab.salvage import as_listed, salvage
from podlab.ledger import Entry, Salvaged, Trust
from podlab.renting import Policy, Rental, RentalState
from tests.lab.rentals import ask, launch

Line = tuple[str, dict[str, str], Trust]
ASK: Line = ("rent.ask", ask(1.0, Policy(deadline_at=1000.0)), Trust.PROVEN)
LIVE: Line = ("rent.live", {"rental": "r1"}, Trust.PROVEN)


def lines(*told: Line, id: str = "l1", first: int = 1) -> list[Salvaged]:
    return [
        Salvaged(Entry(first + number, 100.0 + number, verb, id, detail), trust)
        for number, (verb, detail, trust) in enumerate(told)
    ]


def only(*told: Line, known: tuple[Entry, ...] = ()) -> Launch | None:
    found = salvage(known, lines(*told, first=len(known) + 1))
    assert len(found) < 2
    return found[0] if found else None


def trust(line: Line, how: Trust) -> Line:
    return (line[0], line[1], how)


def test_a_proven_row_is_what_it_says() -> None:
    row = only(ASK, LIVE)
    assert row is not None
    assert (row.phase, row.ids, row.policy.deadline_at) == (Phase.LIVE, ("r1",), 1000.0)


def test_an_id_in_a_line_that_was_changed_is_nobodys_to_end() -> None:
    """It may be another pod's by now."""
    row = only(ASK, ("rent.live", {"rental": "theirs"}, Trust.WRONG), ("rent.extra", {"rental": "x"}, Trust.WRONG))
    assert row is not None
    assert (row.phase, row.ids) == (Phase.ASKED, ())


def test_an_intent_that_was_changed_counts_only_for_a_pod_that_is_certainly_ours() -> None:
    changed = trust(ASK, Trust.WRONG)
    assert only(changed) is None
    assert only(changed, trust(LIVE, Trust.ALONE)) is None
    row = only(changed, LIVE)
    assert row is not None and (row.phase, row.ids) == (Phase.LIVE, ("r1",))


def test_no_pod_is_taken_for_gone_or_kept_longer_by_a_line_that_is_not_proven() -> None:
    for how in (Trust.ALONE, Trust.WRONG):
        row = only(
            ASK, LIVE, ("rent.refused", {}, how), ("rent.absent", {}, how), ("rent.policy", {"lease_s": "60.0"}, how)
        )
        assert row is not None
        assert (row.phase, row.absent, row.policy.deadline_at) == (Phase.LIVE, (), 1000.0)


def test_a_line_whose_line_before_is_lost_helps_to_find_and_to_end() -> None:
    row = only(trust(ASK, Trust.ALONE), trust(LIVE, Trust.ALONE), ("rent.ending", {"why": "x"}, Trust.ALONE))
    assert row is not None and (row.phase, row.ids) == (Phase.ENDING, ("r1",))
    again = only(ASK, LIVE, trust(ASK, Trust.ALONE))
    assert again is not None and again.phase is Phase.LIVE, "an intent that is told twice begins nothing anew"


def test_what_was_read_while_the_file_was_whole_stays_known() -> None:
    known = tuple(line.entry for line in lines(ASK, LIVE))
    assert only(known=known) is not None
    row = only(("rent.extra", {"rental": "r2"}, Trust.PROVEN), known=known)
    assert row is not None and row.ids == ("r1", "r2")
    (row,) = salvage(known, lines(("rent.ask", {"name": "other"}, Trust.ALONE), ("rent.ended", {}, Trust.WRONG)))
    assert (row.name, row.phase) == ("gpu", Phase.LIVE)


def test_a_pod_that_is_listed_by_its_unique_name_is_known_by_it() -> None:
    row = launch(live=False)
    rentals = [Rental("r9", "gpu-x2", RentalState.RUNNING), Rental("r1", "gpu-x1", RentalState.RUNNING)]
    assert as_listed(row, rentals[:1]) == row
    assert as_listed(row, [Rental("r1", "gpu-x1", RentalState.TERMINATED)]) == row
    seen = as_listed(row, rentals)
    assert (seen.phase, seen.ids, seen.spans[0].begins_at) == (Phase.LIVE, ("r1",), row.asked_at)
    assert as_listed(seen, []) == seen
