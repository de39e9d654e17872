"""The hub's client and what is read through it, against a hub on this computer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from podlab.catalog import catalog
from podlab.catalog.headers import safetensors_header
from podlab.catalog.hub import Hub
from podlab.catalog.reading import geometry_of, geometry_of_file, geometry_of_folder
from podlab.errors import BadArgument, BadSettings, GatedRepo, HttpError, NotFound
from tests.catalog.fit_runs import DATA, config
from tests.catalog.hub_standin import COMMIT, HubStandIn

TINY = DATA / "tiny"
GGUF = DATA.parents[1] / "podlab" / "catalog" / "data" / "tiny-q8_0.gguf"
TOKEN = "hf_abcdefghijklmnop"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubStandIn]:
    standin = HubStandIn()
    monkeypatch.setenv("HF_ENDPOINT", standin.url)
    monkeypatch.setenv("PODLAB_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield standin
    standin.stop()


def index(names: dict[str, str], total: int | None = None) -> bytes:
    metadata = {} if total is None else {"total_size": total}
    return json.dumps({"metadata": metadata, "weight_map": names}).encode()


def sharded() -> dict[str, bytes]:
    names = {"model.embed_tokens.weight": "model-00001-of-00002.safetensors",
             "lm_head.weight": "model-00002-of-00002.safetensors"}  # fmt: skip
    return {
        "config.json": json.dumps(config("Qwen--Qwen3-8B")).encode(),
        "model.safetensors.index.json": index(names, total=3000),
        "model-00001-of-00002.safetensors": bytes(1000),
        "model-00002-of-00002.safetensors": bytes(2500),
        "consolidated.safetensors": bytes(9000),
    }


def test_a_repository_in_several_files_is_as_large_as_those_its_index_names(hub: HubStandIn) -> None:
    hub.repos["Qwen/Some-8B"] = sharded()
    hub.parameters["Qwen/Some-8B"] = 8_190_735_360

    found = geometry_of(catalog.find("Qwen/Some-8B"))

    assert found.weight_bytes == 3500
    assert found.parameters == 8_190_735_360
    assert (found.layers, found.kv_heads) == (36, 8)
    assert found.source == f"{hub.url}/Qwen/Some-8B/blob/{COMMIT}/config.json"
    assert not [seen for seen in hub.seen if seen.path.endswith(".safetensors")]


def test_a_hub_that_tells_no_sizes_is_taken_at_its_index(hub: HubStandIn) -> None:
    hub.repos["Qwen/Some-8B"] = sharded()
    hub.sizes = False

    assert geometry_of(catalog.find("Qwen/Some-8B")).weight_bytes == 3000


def test_a_single_file_is_known_by_its_header_alone(hub: HubStandIn) -> None:
    weights = (TINY / "model.safetensors").read_bytes()
    hub.repos["me/tiny"] = {"config.json": (TINY / "config.json").read_bytes(), "model.safetensors": weights}
    hub.stored.add("model.safetensors")

    found = geometry_of(catalog.find("me/tiny"))

    assert found.parameters == 3_279_104
    assert found.weight_bytes == geometry_of_folder(TINY).weight_bytes
    assert sum(seen.sent for seen in hub.seen if seen.path.endswith("model.safetensors")) < len(weights) / 10


def test_a_server_without_ranges_is_cut_off_after_the_header(hub: HubStandIn) -> None:
    weights = (TINY / "model.safetensors").read_bytes()
    hub.repos["me/tiny"] = {"config.json": (TINY / "config.json").read_bytes(), "model.safetensors": weights}
    hub.ranges = False

    assert geometry_of(catalog.find("me/tiny")).parameters == 3_279_104


def test_a_gguf_file_and_all_its_parts(hub: HubStandIn) -> None:
    data = GGUF.read_bytes()
    hub.repos["me/tiny-gguf"] = {"tiny-00001-of-00002.gguf": data, "tiny-00002-of-00002.gguf": bytes(500),
                                 "other.gguf": bytes(77)}  # fmt: skip

    found = geometry_of(catalog.find("hf:me/tiny-gguf/tiny-00001-of-00002.gguf"))

    assert found.weight_bytes == len(data) + 500
    assert (found.layers, found.kv_heads, found.head_dim, found.vocab_size) == (4, 2, 64, 2048)
    assert found.max_context == 2048


def test_a_repository_of_gguf_files_says_to_name_one(hub: HubStandIn) -> None:
    hub.repos["me/tiny-gguf"] = {"tiny.gguf": b""}

    with pytest.raises(NotFound) as error:
        geometry_of(catalog.find("me/tiny-gguf"))
    assert error.value.hint == "Name one of its files: hf:me/tiny-gguf/tiny.gguf"

    with pytest.raises(NotFound, match="holds no missing.gguf") as missing:
        geometry_of(catalog.find("hf:me/tiny-gguf/missing.gguf"))
    assert "tiny.gguf" in missing.value.hint


def test_a_gated_repository_names_its_page(hub: HubStandIn) -> None:
    hub.refused["meta/Gated-8B"] = (401, "GatedRepo")

    with pytest.raises(GatedRepo, match="accepted its terms") as error:
        geometry_of(catalog.find("meta/Gated-8B"))
    assert error.value.page == f"{hub.url}/meta/Gated-8B"
    assert "podlab secret set HF_TOKEN" in error.value.hint


def test_a_repository_that_is_not_there(hub: HubStandIn) -> None:
    hub.repos["Qwen/Qwen3-8B"] = {}

    with pytest.raises(NotFound, match="has no Qwen/Qwen3-8C") as error:
        geometry_of(catalog.find("Qwen/Qwen3-8C"))
    assert error.value.hint == "Did you mean Qwen/Qwen3-8B?"


@pytest.mark.parametrize(
    "status, code, kind", [(404, "RevisionNotFound", NotFound), (500, "", HttpError), (403, "", GatedRepo)]
)
def test_other_refusals(hub: HubStandIn, status: int, code: str, kind: type[Exception]) -> None:
    hub.refused["a/b"] = (status, code)

    with pytest.raises(kind):
        Hub().repository("a/b", "v1")


def test_a_second_look_asks_only_which_commit_it_is(hub: HubStandIn) -> None:
    hub.repos["Qwen/Some-8B"] = sharded()
    geometry_of(catalog.find("Qwen/Some-8B"))
    before = len(hub.seen)

    geometry_of(catalog.find("Qwen/Some-8B"))

    assert [seen.path.partition("?")[0] for seen in hub.seen[before:]] == ["/api/models/Qwen/Some-8B/revision/main"]


def test_without_a_network_what_was_seen_last_is_taken(hub: HubStandIn) -> None:
    hub.repos["Qwen/Some-8B"] = sharded()
    first = geometry_of(catalog.find("Qwen/Some-8B"))
    hub.stop()

    assert geometry_of(catalog.find("Qwen/Some-8B")) == first
    with pytest.raises(HttpError, match="cannot be reached") as error:
        geometry_of(catalog.find("Qwen/Other-8B"))
    assert "A local folder and most names of the catalog need none." in error.value.hint


def test_the_token_goes_to_the_hub_and_nowhere_else(hub: HubStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.repos["me/tiny"] = {"config.json": b"{}", "model.safetensors": (TINY / "model.safetensors").read_bytes()}
    hub.stored.add("model.safetensors")

    geometry_of(catalog.find("me/tiny"))

    assert {seen.authorization for seen in hub.seen if seen.role == "hub"} == {f"Bearer {TOKEN}"}
    assert {seen.authorization for seen in hub.seen if seen.role == "store"} == {None}


@pytest.mark.parametrize("endpoint", ["ftp://hub", "not an address"])
def test_an_endpoint_that_is_none(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)

    with pytest.raises(BadSettings, match="HF_ENDPOINT"):
        Hub()


def test_the_token_is_not_sent_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    monkeypatch.setenv("HF_TOKEN", TOKEN)

    with pytest.raises(BadSettings, match="not https"):
        Hub()


@pytest.mark.parametrize("body", [b"[]", b"nonsense", b'{"sha": "../../x", "siblings": []}', b'{"sha": 3}'])
def test_a_hub_that_answers_nonsense(hub: HubStandIn, monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    hub.repos["a/b"] = {}
    monkeypatch.setattr(hub, "_described", lambda repo: (200, {}, body))

    with pytest.raises(HttpError):
        Hub().repository("a/b")


def test_a_header_without_an_end(hub: HubStandIn) -> None:
    hub.repos["a/b"] = {"model.safetensors": b"\xff\xff\xff\x03" + bytes(300_000)}
    client = Hub()

    with pytest.raises(HttpError, match="ends within its header"):
        client.header(client.repository("a/b"), "model.safetensors", safetensors_header)


def test_a_folder_and_what_is_none(tmp_path: Path) -> None:
    found = geometry_of_folder(TINY)
    assert (found.parameters, found.layers, found.max_context) == (3_279_104, 4, 2048)

    with pytest.raises(BadArgument, match="config.json cannot be read"):
        geometry_of_folder(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(BadArgument, match="is not a JSON object"):
        geometry_of_folder(tmp_path)


def test_a_gguf_file_on_this_computer(tmp_path: Path) -> None:
    assert geometry_of_file(GGUF).weight_bytes == GGUF.stat().st_size

    (tmp_path / "half.gguf").write_bytes(GGUF.read_bytes()[:500])
    with pytest.raises(BadArgument, match="ends within its header"):
        geometry_of_file(tmp_path / "half.gguf")


def test_what_only_the_pod_has_cannot_be_read_here() -> None:
    with pytest.raises(BadArgument, match="on the pod only"):
        geometry_of(catalog.find("pod:/models/some.gguf"))
