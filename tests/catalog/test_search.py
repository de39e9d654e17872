"""What a search of the hub finds, and how it is refused: a hub on this computer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podlab import secrets
from podlab.catalog.search import search, weight_bytes
from podlab.errors import BadArgument, HttpError
from podlab.types import HubModel
from tests.standin import Repo, StandIn, standing_in

FACTS: dict[str, dict[str, Any]] = {
    "org/Plain-7B": {
        "downloads": 10, "tags": ["safetensors", "license:apache-2.0"],
        "safetensors": {"parameters": {"F32": 5, "BF16": 7_000_000_000}, "total": 7_000_000_005},
    },
    "org/Plain-7B-FP8": {
        "downloads": 70, "tags": ["safetensors", "license:mit"],
        "config": {"quantization_config": {"quant_method": "fp8"}},
        "safetensors": {"parameters": {"F8_E4M3": 7_000_000_000}, "total": 7_000_000_000},
    },
    "org/Plain-7B-AWQ": {"downloads": 5, "tags": ["safetensors"], "safetensors": {"total": 7_000_000_000}},
    "org/Plain-7B-GGUF": {"downloads": 99, "tags": ["gguf", "license:mit"], "gguf": {"total": 7_000_000_000}},
    "org/Plain-bad": {"downloads": None, "tags": None, "safetensors": "?", "config": 3, "gguf": []},
}  # fmt: skip


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with standing_in() as made:
        for name, facts in FACTS.items():
            made.repos[name] = Repo(tmp_path, facts=facts)
        made.repos["org/Plain-7B"].gated = True
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        yield made


def test_the_most_downloaded_first_with_what_decides_between_them(hub: StandIn) -> None:
    found = search("plain")
    assert [(m.id.removeprefix("org/Plain-"), m.format, m.dtype, m.gated, m.licence) for m in found] == [
        ("7B-GGUF", "gguf", "GGUF", False, "mit"),
        ("7B-FP8", "safetensors", "FP8", False, "mit"),
        ("7B", "safetensors", "BF16", True, "apache-2.0"),
        ("7B-AWQ", "safetensors", "AWQ", False, None),
        ("bad", "other", "", False, None),
    ]
    assert [m.parameters for m in found] == [7_000_000_000, 7_000_000_000, 7_000_000_005, 7_000_000_000, None]


def test_one_format_and_a_limit(hub: StandIn) -> None:
    assert [m.id for m in search("plain", format="gguf")] == ["org/Plain-7B-GGUF"]
    assert len(search("plain", limit=2)) == 2
    assert "filter=text-generation" in hub.seen[-1].path and "expand=safetensors" in hub.seen[-1].path
    with pytest.raises(BadArgument, match="--limit 0"):
        search("plain", limit=0)


@pytest.mark.parametrize(
    "model, expected",
    [
        (HubModel("a", 0, 10, "safetensors", "BF16"), 20),
        (HubModel("a", 0, 10, "safetensors", "FP8"), 10),
        (HubModel("a", 0, 80, "safetensors", "AWQ"), 45),
        (HubModel("a", 0, None), None),
    ],
)
def test_what_the_weights_take(model: HubModel, expected: int | None) -> None:
    assert weight_bytes(model) == expected


def test_a_token_that_is_refused_a_hub_that_is_asked_too_often_and_no_hub(
    hub: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets.keep("HF_TOKEN", secrets.Secret("hf_wrong"))
    hub.says("hub", "GET", 401, path="/api/models")
    with pytest.raises(HttpError, match="does not accept the token") as refused:
        search("plain")
    assert "secret set HF_TOKEN" in refused.value.hint and "hf_wrong" not in str(refused.value)
    hub.says("hub", "GET", 429, path="/api/models", Retry_After="17")
    with pytest.raises(HttpError, match="too often") as busy:
        search("plain")
    assert "after 17 s" in busy.value.hint
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(HttpError, match="cannot be reached"):
        search("plain")
