"""A provider by its name: where its key comes from, and where it may be sent."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import pytest

from podlab import secrets
from podlab.errors import BadArgument, BadSecret, BadSettings, NotFound, StateDamaged
from podlab.lab.market import Market
from podlab.lab.workspace import Workspace
from podlab.providers.base import Belongings
from podlab.providers.companies import belongings, company, identity
from podlab.providers.runpod import RunpodProvider
from podlab.renting import OfferQuery, Order
from podlab.secrets import Secret
from podlab.settings import home

KEY = "rpa_CANARY0123456789"


def test_a_key_from_a_file_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNPOD_API_KEY", raising=False)
    with pytest.raises(BadSecret, match="API key") as missing:
        company("runpod")
    assert "podlab secret set RUNPOD_API_KEY" in missing.value.hint and "podlab init" in missing.value.hint

    secrets.keep("RUNPOD_API_KEY", Secret(KEY))
    found = company("runpod")

    assert isinstance(found, RunpodProvider) and KEY not in repr(found) + repr(vars(found))
    assert "https://api.runpod.io" in repr(found)


@pytest.mark.parametrize("text", ["", "  ", "\t\n", "a\x00b", "k\xe9y-0123456789"])
def test_a_key_that_is_none_is_refused_before_anybody_is_asked(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "\0" in text:
        (home() / "keys").mkdir(mode=0o700)
        (home() / "keys" / "RUNPOD_API_KEY").touch(mode=0o600)
        (home() / "keys" / "RUNPOD_API_KEY").write_text(text)
        monkeypatch.delenv("RUNPOD_API_KEY", raising=False)
    else:
        monkeypatch.setenv("RUNPOD_API_KEY", text)
    with pytest.raises(BadSecret) as refused:
        company("runpod")
    assert refused.value.hint


def test_one_key_and_address_is_one_provider_and_another_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", KEY)
    first = company("runpod")
    assert company("runpod") is first

    monkeypatch.setenv("RUNPOD_API_BASE_URL", "https://api.example.com/")
    assert company("runpod") is not first
    monkeypatch.delenv("RUNPOD_API_BASE_URL")
    monkeypatch.setenv("RUNPOD_API_KEY", KEY + "x")
    assert company("runpod") is not first


def test_another_way_to_the_company_is_gone_by_a_client_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy is looked for when a client is made, and never again."""
    monkeypatch.setenv("RUNPOD_API_KEY", KEY)
    first = company("runpod")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    assert company("runpod") is not first


def test_whose_account_a_key_is_of_is_said_as_ledgers_have_it_and_never_by_a_server_that_only_pretends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", KEY)
    monkeypatch.delenv("RUNPOD_API_BASE_URL", raising=False)
    real = company("runpod").identity
    assert real == hashlib.sha256(f"podlab {KEY}".encode()).hexdigest()[:16] == identity(Secret(KEY), "")
    monkeypatch.setenv("RUNPOD_API_BASE_URL", "https://api.runpod.io/")
    assert company("runpod").identity == real
    monkeypatch.setenv("RUNPOD_API_BASE_URL", "http://127.0.0.1:9")
    assert company("runpod").identity == identity(Secret(KEY), "http://127.0.0.1:9/") != real


@pytest.mark.parametrize("url", ["http://api.runpod.io", "http://10.0.0.1:8080", "HTTP://evil.example"])
def test_a_key_is_not_sent_unencrypted_to_another_computer(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", KEY)
    monkeypatch.setenv("RUNPOD_API_BASE_URL", url)
    with pytest.raises(BadSettings, match="unencrypted") as refused:
        company("runpod")
    assert "https" in refused.value.hint


@pytest.mark.parametrize("url", ["ftp://x", "api.runpod.io", "https://user:password@x", "https://x/?a=b"])
def test_what_is_no_address_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", KEY)
    monkeypatch.setenv("RUNPOD_API_BASE_URL", url)
    with pytest.raises(BadArgument) as refused:
        company("runpod")
    assert "password" not in str(refused.value)


def test_an_unknown_name_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(NotFound) as near:
        company("runpods")
    with pytest.raises(NotFound) as far:
        company("aws")

    assert "runpod" in near.value.hint and "local, ssh, runpod, sandbox" in far.value.hint


def test_a_sandbox_that_is_not_open_says_how_to_open_it() -> None:
    with pytest.raises(NotFound) as closed:
        company("sandbox").account()
    assert "podlab sandbox up" in closed.value.hint
    with pytest.raises(NotFound, match="not open"):
        belongings("sandbox")


def test_a_sandbox_that_is_not_open_has_no_pods() -> None:
    """They ended with it: what was rented from it can be proven gone."""
    closed = company("sandbox")
    assert closed.list() == () and closed.get("any") is None and closed.bills(since=0, until=1) == ()
    closed.terminate("any")
    for ask in (lambda: closed.offers(OfferQuery()), lambda: closed.start("any"), lambda: closed.stop("any"),
                lambda: closed.logs("any"), lambda: closed.create(Order("a", "A40", 1, "secure"))):  # fmt: skip
        with pytest.raises(NotFound, match="not open"):
            ask()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"url": "http://127.0.0.1:1"}', '{"url": 1, "key": ""}', "null"]
)
def test_a_sandbox_file_that_says_nothing_usable_is_named(content: str) -> None:
    (home() / "sandbox.json").write_text(content)
    with pytest.raises(StateDamaged, match=r"sandbox\.json"):
        company("sandbox")


def test_a_sandbox_is_on_this_computer() -> None:
    said = {"url": "http://203.0.113.7:80", "key": KEY, "pid": 1}
    (home() / "sandbox.json").write_text(json.dumps(said))
    with pytest.raises(BadSettings):
        company("sandbox")


def test_what_rents_keeps_things_and_what_does_not_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", KEY)
    assert isinstance(belongings("runpod"), Belongings)
    with pytest.raises(NotFound, match="keeps no volumes") as refused:
        belongings("local")
    assert "--provider" in refused.value.hint


def test_a_market_has_the_companies_and_the_clock_of_this_computer(tmp_path: Path) -> None:
    market = Market.of(Workspace.open())

    assert market.provider("local").name == "local"
    assert abs(market.now() - time.time()) < 60
