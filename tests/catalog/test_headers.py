"""Headers of weight files, from bytes."""

from __future__ import annotations

import json
import struct

import pytest

from podlab.catalog.headers import TooShort, gguf_header, safetensors_header
from podlab.errors import BadArgument
from tests.catalog.fit_runs import DATA

TINY = DATA / "tiny" / "model.safetensors"
GGUF = DATA.parents[1] / "podlab" / "catalog" / "data" / "tiny-q8_0.gguf"


def test_a_safetensors_header_says_how_much_it_needs_and_then_all() -> None:
    data = TINY.read_bytes()
    with pytest.raises(TooShort) as short:
        safetensors_header(data[:100], "it")

    listed = safetensors_header(data[: short.value.needed], "it")
    assert listed.total_bytes == len(data) - short.value.needed
    assert listed.parameters == 3_279_104
    assert "model.embed_tokens.weight" in listed.names


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("<Q", 2**40) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 4) + b"{nop",
        struct.pack("<Q", 18) + json.dumps({"a": {"shape": 3}}).encode().ljust(18),
    ],
    ids=["endless", "no object", "no JSON", "no tensor"],
)
def test_what_is_no_safetensors_file(data: bytes) -> None:
    with pytest.raises(BadArgument, match="it is not a safetensors file"):
        safetensors_header(data, "it")


def test_a_gguf_header() -> None:
    header = gguf_header(GGUF.read_bytes()[: 2**20], "it")

    assert header.number("block_count") == 4
    assert header.number("attention.head_count_kv") == 2
    assert header.lengths["tokenizer.ggml.tokens"] == 2048
    assert header.number("no such key") is None


def test_a_gguf_header_goes_on_until_its_end() -> None:
    data = GGUF.read_bytes()

    for length in (0, 23, 30, 1000):
        with pytest.raises(TooShort):
            gguf_header(data[:length], "it")


@pytest.mark.parametrize(
    "data",
    [
        b"NOPE" + bytes(40),
        struct.pack("<4sIQQ", b"GGUF", 1, 0, 0),
        struct.pack("<4sIQQ", b"GGUF", 3, 0, 2**30),
        struct.pack("<4sIQQQ", b"GGUF", 3, 0, 1, 2**62),
        struct.pack("<4sIQQQ1sI", b"GGUF", 3, 0, 1, 1, b"k", 99) + bytes(16),
    ],
    ids=["other magic", "old version", "too many keys", "endless name", "unknown type"],
)
def test_what_is_no_gguf_file(data: bytes) -> None:
    with pytest.raises(BadArgument, match="it is"):
        gguf_header(data, "it")
