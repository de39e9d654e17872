"""Which of the keys that clients bring the keeper reaches a company with: the one that open pods were rented with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from podlab import secrets
from podlab.keeper.access import FROM_CLIENTS, REFUSED_S, Access, Answers
from podlab.ledger import Ledger
from podlab.providers.companies import identity
from podlab.secrets import Secret
from podlab.settings import home

OURS, OTHERS, NEW = "rpa_ours_0123456789", "rpa_others_0123456789", "rpa_new_0123456789"
LACKS = dict.fromkeys(FROM_CLIENTS, "")


class Keeper:
    """One that has what it has, and a company that answers it as the test says."""

    def __init__(self) -> None:
        self.answers: Answers = "ok"
        self.now = 1000.0
        self.access = Access(Ledger(), lambda: self.answers, lambda: self.now)

    def gets(self, key: str = "", **more: str) -> str:
        """The key that it uses after a client brought that."""
        self.access.bring(LACKS | {"RUNPOD_API_KEY": key} | more)
        return self.uses()

    def uses(self) -> str:
        self.access.choose()
        return os.environ.get("RUNPOD_API_KEY", "")


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch) -> Keeper:
    for name in FROM_CLIENTS:
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
    return Keeper()


def rented_with(key: str, id: str = "pod-1", url: str = "") -> None:
    whose = identity(Secret(key), url)
    Ledger().append("rent.ask", id, name="lab", order=f"order-{id}", provider="runpod", usd_per_hour="1", key=whose)


def test_while_nothing_is_rented_the_newest_counts(keeper: Keeper) -> None:
    assert keeper.gets(OTHERS) == OTHERS
    assert keeper.gets(OURS) == OURS
    assert keeper.gets("") == OURS, "which has none"
    secrets.keep("RUNPOD_API_KEY", Secret(NEW))
    assert keeper.gets("") == "", "which has the kept one"


def test_the_key_of_an_open_pod_gives_way_to_no_other_that_is_accepted(keeper: Keeper) -> None:
    keeper.gets(OURS)
    rented_with(OURS)
    assert keeper.gets(OTHERS) == OURS
    keeper.answers = "failed"  # a network that is down is no reason
    assert keeper.uses() == keeper.gets(OTHERS) == OURS


def test_it_comes_back_with_the_first_client_that_has_it(keeper: Keeper) -> None:
    rented_with(OURS)
    assert keeper.gets(OTHERS) == OTHERS, "it had none"
    assert keeper.gets(OURS) == OURS
    assert keeper.gets(OTHERS) == OURS


def test_the_same_key_at_another_address_is_another(keeper: Keeper) -> None:
    keeper.gets(OURS)
    rented_with(OURS)
    keeper.gets(OURS, RUNPOD_API_BASE_URL="https://elsewhere.example")
    assert "RUNPOD_API_BASE_URL" not in os.environ


def test_an_address_that_a_shell_has_set_goes_with_its_key(keeper: Keeper) -> None:
    keeper.gets(OTHERS, RUNPOD_API_BASE_URL="https://elsewhere.example")
    rented_with(OURS)
    assert keeper.gets(OURS) == OURS
    assert "RUNPOD_API_BASE_URL" not in os.environ


def test_a_key_that_is_refused_gives_way_to_one_that_was_set_anew_whenever_it_was_brought(keeper: Keeper) -> None:
    keeper.gets(OURS)
    rented_with(OURS)
    keeper.access.bring({"RUNPOD_API_KEY": NEW})
    assert keeper.uses() == OURS
    keeper.answers = "refused"
    assert keeper.uses() == NEW
    keeper.answers = "ok"
    assert keeper.gets(OURS) == NEW, "a shell that still has the revoked one"
    Ledger().append("rent.key", "pod-1", key=identity(Secret(NEW), ""))  # its pod was seen with it
    keeper.now += REFUSED_S + 1
    assert keeper.gets(OURS) == NEW


def test_one_that_was_refused_by_mistake_is_tried_again(keeper: Keeper) -> None:
    keeper.gets(OURS)
    rented_with(OURS)
    keeper.gets(OTHERS)
    keeper.answers = "refused"
    assert keeper.uses() == OTHERS
    keeper.answers = "ok"
    keeper.now += REFUSED_S + 1
    assert keeper.uses() == OURS


def test_another_way_to_the_company_is_taken_where_the_one_that_is_known_leads_nowhere(keeper: Keeper) -> None:
    keeper.gets(OURS)
    rented_with(OURS)
    keeper.gets(OURS, HTTPS_PROXY="http://proxy.example:3128")
    assert "HTTPS_PROXY" not in os.environ
    keeper.answers = "failed"
    keeper.gets(OURS, HTTPS_PROXY="http://proxy.example:3128")
    assert os.environ["HTTPS_PROXY"] == "http://proxy.example:3128"
    assert "https_proxy" not in os.environ, "an empty one would switch the other off"


def test_a_ledger_that_cannot_be_read_changes_no_key(keeper: Keeper) -> None:
    keeper.gets(OURS)
    rented_with(OURS)
    (home() / "ledger.jsonl").write_bytes(b"garbage\nmore\n")
    assert keeper.gets(OTHERS) == OURS


def test_no_key_is_written_down(keeper: Keeper) -> None:
    for key in (OURS, OTHERS):
        keeper.gets(key, HTTPS_PROXY="http://me:canary-of-a-proxy@proxy.example")
    rented_with(OTHERS)
    keeper.gets(OURS)
    for path in Path(os.environ["PODLAB_HOME"]).rglob("*"):
        if path.is_file():
            assert not any(text in path.read_bytes() for text in (OURS.encode(), OTHERS.encode(), b"canary-of"))
