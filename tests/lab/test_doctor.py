"""What the doctor makes of headers, balances and ports: no company is asked."""

from __future__ import annotations

import socket
import threading
import time
from email.utils import formatdate
from pathlib import Path

import pytest

from podlab.lab import doctor
from podlab.lab.doctor import Word
from podlab.lab.market import Market
from podlab.ledger import Ledger
from podlab.providers.companies import company
from podlab.renting import Account

NOW = 1_780_000_000.0


def word(*, date_at: float | None = NOW, took_s: float = 0.2, **headers: str) -> Word:
    given = {} if date_at is None else {"date": formatdate(date_at, usegmt=True)}
    return Word(given | headers, NOW, NOW + took_s)


@pytest.mark.parametrize(
    ("behind_s", "state"), [(0, "ok"), (1, "ok"), (-10, "ok"), (60, "warning"), (-60, "warning"), (3600, "failed")]
)
def test_a_clock_is_held_against_the_date_of_an_answer(behind_s: float, state: str) -> None:
    """Deadlines are by this computer's clock, so that it matters which way and how far it is off."""
    check = doctor.clock(word(date_at=NOW - behind_s))
    assert check.state == state
    if state != "ok":
        assert ("ahead of" if behind_s > 0 else "behind") in check.detail and "Set the clock" in check.fix


def test_a_slow_answer_makes_no_wrong_clock() -> None:
    """The date was written somewhere between the question and the answer."""
    assert doctor.clock(Word({"date": formatdate(NOW, usegmt=True)}, NOW, NOW + 25)).state == "ok"


def test_an_answer_without_a_date_says_nothing_of_the_clock() -> None:
    for date in ({}, {"date": "yesterday"}):
        assert doctor.clock(Word(date, NOW, NOW)).state == "skipped"


@pytest.mark.parametrize(
    ("headers", "state", "said"),
    [
        ({}, "ok", "no end of it is announced"), ({"deprecation": "@1700000000"}, "warning", "deprecated"),
        ({"sunset": formatdate(NOW + 400 * 86400, usegmt=True)}, "ok", "until 20"),
        ({"sunset": formatdate(NOW + 20 * 86400, usegmt=True)}, "warning", "until 20"),
        ({"sunset": formatdate(NOW - 86400, usegmt=True)}, "failed", "ended on"),
        ({"sunset": "soon"}, "ok", "no end of it is announced"),
    ],
)  # fmt: skip
def test_the_end_of_an_interface_is_told_in_time(headers: dict[str, str], state: str, said: str) -> None:
    check = doctor.sunset(headers, NOW)
    assert (check.state, said in check.detail) == (state, True)
    assert bool(check.fix) is (state != "ok")


@pytest.mark.parametrize(
    ("balance", "state"), [(None, "warning"), (0.1, "failed"), (1.0, "warning"), (25.0, "ok"), (0.0, "failed")]
)
def test_a_balance_is_held_against_an_hour(balance: float | None, state: str) -> None:
    check = doctor.funds(Account("runpod", balance_usd=balance), 0.44)[0]
    assert check.state == state and bool(check.fix) is (state != "ok")


def test_a_spending_limit_that_is_near_is_told() -> None:
    account = Account("runpod", balance_usd=50, spend_usd_per_hour=70, spend_limit_usd_per_hour=80)
    assert doctor.funds(account, None)[1].state == "warning"
    assert doctor.funds(Account("runpod", balance_usd=50), None)[1].state == "skipped"


def test_a_key_says_what_it_may_or_that_nobody_knows() -> None:
    assert doctor.scope(Account("runpod", scopes=("pods:write",))).detail == "pods:write"
    assert doctor.scope(Account("runpod")).state == "warning"


def test_with_nothing_rented_the_way_out_is_tried_at_the_companys_gate(tmp_path: Path) -> None:
    market = Market(Ledger(tmp_path / "ledger.jsonl"), company, time.time, time.sleep)
    asked: list[tuple[str, int]] = []

    def reach(host: str, port: int) -> str:
        asked.append((host, port))
        return "" if len(asked) == 1 else "timed out"

    assert doctor.egress(market, reach, doctor.SSH_GATE).state == "ok"
    blocked = doctor.egress(market, reach, doctor.SSH_GATE)
    assert blocked.state == "warning" and "timed out" in blocked.detail and blocked.fix
    assert asked == [("ssh.runpod.io", 22)] * 2
    assert doctor.egress(market, reach, None).state == "skipped"


def test_a_port_is_open_when_an_ssh_server_greets() -> None:
    """Something that answers in another way is none, and neither is a closed port."""

    def serve(listener: socket.socket, greeting: bytes) -> None:
        link, _ = listener.accept()
        with link:
            link.sendall(greeting)

    for greeting, problem in ((b"SSH-2.0-test\r\n", ""), (b"HTTP/1.1 400\r\n", "something else than SSH answers")):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=serve, args=(listener, greeting))
            thread.start()
            assert doctor.reach(*listener.getsockname()) == problem
            thread.join()
            closed = listener.getsockname()
    assert doctor.reach(*closed)
