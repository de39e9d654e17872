"""What a person is told of rented pods when podlab is loaded."""

from __future__ import annotations

from pathlib import Path

from podlab.lab.open_rentals import told
from podlab.ledger import Ledger
from podlab.renting import Policy
from tests.lab.rentals import ask


def rented(path: Path, name: str, *verbs: str) -> None:
    ledger = Ledger(path)
    ledger.append("rent.ask", name, **ask(0.5, Policy(), simulated="yes") | {"name": name})
    for verb in verbs:
        detail = {"rental": f"r-{name}"} if verb == "rent.live" else {"why": "a test"}
        ledger.append(verb, name, **detail)


def test_nothing_is_told_where_nothing_may_be_billed(tmp_path: Path) -> None:
    assert told(tmp_path) == ""
    rented(tmp_path / "ledger.jsonl", "a", "rent.refused")
    assert told(tmp_path) == ""


def test_each_pod_is_told_with_how_far_it_is_and_what_it_costs(tmp_path: Path) -> None:
    for name, verbs in (("a", ()), ("b", ("rent.live",)), ("c", ("rent.live", "rent.ending"))):
        rented(tmp_path / "ledger.jsonl", name, *verbs)

    said = told(tmp_path)

    assert said.startswith("3 rented pods may be billed: a (A40 of sandbox, simulated) was asked for and not seen yet")
    assert "; b (A40 of sandbox, simulated) is running: $0.50/h, $0.0" in said
    assert "c (A40 of sandbox, simulated) has to end and is not proven gone: " in said
    assert said.endswith("They are looked after from here on. See: %pod list --all")


def test_a_ledger_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """Also where it is the line of the intent that is spoilt."""
    rented(tmp_path / "ledger.jsonl", "a", "rent.live")
    lines = (tmp_path / "ledger.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "ledger.jsonl").write_text("".join(["spoilt\n", *lines[1:]]))

    assert "line 1 is damaged" in told(tmp_path)


def test_a_file_that_is_no_ledger_may_have_held_anything(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").write_bytes(b"\0\0\0\0\n")

    assert "line 1 is damaged" in told(tmp_path)
