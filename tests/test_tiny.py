"""The built-in model: is it there, is it what it says, and did it never see its exam?"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

import pytest

ROOT = Path(__file__).resolve().parents[1]
GGUF = ROOT / "podlab" / "catalog" / "data" / "tiny-q8_0.gguf"
SAFETENSORS = ROOT / "tests" / "data" / "tiny"
for folder in ("scripts/tiny", "benchmarks"):
    sys.path.insert(0, str(ROOT / folder))

import corpus  # noqa: E402
import tiny_quality  # noqa: E402
from grammar import expand, gerund, third_person  # noqa: E402

# GGUF's types of metadata that have a fixed size, by number (github.com/ggml-org/ggml/blob/master/docs/gguf.md).
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9


def _scalar(file: BinaryIO, form: str) -> Any:
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == STRING:
        return file.read(_scalar(file, "<Q")).decode()
    if kind == ARRAY:
        item, count = _scalar(file, "<I"), _scalar(file, "<Q")
        return [_value(file, item) for _ in range(count)]
    return _scalar(file, SCALARS[kind])


@pytest.fixture(scope="module")
def metadata() -> dict[str, Any]:
    """The header of the GGUF file, read by hand: the test needs no package."""
    with GGUF.open("rb") as file:
        assert file.read(4) == b"GGUF"
        version, _, pairs = _scalar(file, "<I"), _scalar(file, "<Q"), _scalar(file, "<Q")
        assert version == 3
        return {_value(file, STRING): _value(file, _scalar(file, "<I")) for _ in range(pairs)}


def test_it_is_small_enough_to_ship() -> None:
    assert 3_000_000 < GGUF.stat().st_size < 4_200_000


def test_its_metadata(metadata: dict[str, Any]) -> None:
    assert metadata["general.architecture"] == "llama"
    assert metadata["general.name"] == "podlab tiny"
    assert metadata["general.license"] == "apache-2.0"
    assert metadata["llama.context_length"] == 2048
    assert metadata["llama.block_count"] == 4
    assert len(metadata["tokenizer.ggml.tokens"]) == 2048
    assert metadata["tokenizer.ggml.tokens"][metadata["tokenizer.ggml.eos_token_id"]] == "<|im_end|>"


def test_it_carries_the_chat_template(metadata: dict[str, Any]) -> None:
    template = (ROOT / "scripts" / "tiny" / "chat_template.jinja").read_text(encoding="utf-8")
    assert metadata["tokenizer.chat_template"] == template
    assert "<tool_call>" in template


def test_the_safetensors_form_is_the_same_model(metadata: dict[str, Any]) -> None:
    config = json.loads((SAFETENSORS / "config.json").read_text(encoding="utf-8"))
    vocabulary = json.loads((SAFETENSORS / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    settings = json.loads((SAFETENSORS / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["num_hidden_layers"] == metadata["llama.block_count"]
    assert [token for token, _ in sorted(vocabulary.items(), key=lambda item: item[1])] == metadata[
        "tokenizer.ggml.tokens"
    ]
    assert settings["chat_template"] == metadata["tokenizer.chat_template"]
    assert (SAFETENSORS / "model.safetensors").stat().st_size < 7_000_000
    assert (SAFETENSORS / "generation_config.json").exists()


def test_there_are_fifty_questions_all_different() -> None:
    questions = tiny_quality.load_questions()
    assert len(questions) == 50
    assert len({corpus.normalise(" ".join(question.turns)) for question in questions}) == 50
    assert all(question.all or question.any or question.none for question in questions)


def test_the_questions_are_not_in_the_corpus() -> None:
    """A part of it, to be quick; `benchmarks/tiny_quality.py --self-check` looks at all of it."""
    texts = (message["content"] for chat in corpus.generate(1, 2000) for message in chat["messages"])
    assert corpus.leaks(texts, corpus.held_out()) == []


def test_a_leak_would_be_found() -> None:
    held_out = corpus.held_out()
    assert corpus.leaks(iter(["Well... WHAT is pod-lab?!"]), held_out) == ["whatispodlab"]
    assert corpus.Writer(1, held_out).is_banned("please SAY  hello")


def test_the_corpus_depends_on_nothing_but_its_seed() -> None:
    assert list(corpus.generate(7, 50)) == list(corpus.generate(7, 50))
    assert list(corpus.generate(7, 50)) != list(corpus.generate(8, 50))


def test_every_pattern_expands() -> None:
    knowledge = corpus.Knowledge()
    rng = corpus.random.Random(1)
    for intent in knowledge.intents:
        for pattern in [*intent.ask, *intent.do, *intent.then]:
            for _ in range(5):
                assert not set("()[]<>{}|") & set(expand(pattern, rng, knowledge.macros))


@pytest.mark.parametrize(
    "phrase, third, ing",
    [
        ("stop the model", "stops the model", "stopping the model"),
        ("copy files", "copies files", "copying files"),
        ("erase it", "erases it", "erasing it"),
        ("push it", "pushes it", "pushing it"),
        ("see it", "sees it", "seeing it"),
    ],
)
def test_inflection(phrase: str, third: str, ing: str) -> None:
    assert (third_person(phrase), gerund(phrase)) == (third, ing)


def test_the_judge_is_strict() -> None:
    question = tiny_quality.Question(turns=["?"], all=["%model stop"], none=["sorry"], min_words=3)
    assert question.accepts("Use `%model stop tiny`.")
    assert not question.accepts("Use `%model start tiny`.")
    assert not question.accepts("%model stop")
    assert not question.accepts("Sorry, use `%model stop tiny`.")
    assert not question.accepts("Use `%model stop tiny` now. Use `%model stop tiny` now. ")


def test_score_counts_what_is_right_and_keeps_what_is_not() -> None:
    questions = [tiny_quality.Question(turns=["a", "b"], all=["yes"]), tiny_quality.Question(turns=["c"], all=["no"])]
    passed, failures = tiny_quality.score(questions, lambda messages: "yes" if len(messages) == 3 else "maybe")
    assert passed == 1
    assert [(failure.question.turns, failure.answer) for failure in failures] == [(["c"], "maybe")]


def test_score() -> None:
    """The model that ships answers its held-out questions: 46 of 50 when it was trained, with room for another CPU."""
    pytest.importorskip("xllamacpp", reason="install the engine: pip install 'podlab[local]'")
    questions = tiny_quality.load_questions()
    with tiny_quality.running(GGUF) as ask:
        passed, failures = tiny_quality.score(questions, ask)
    assert passed >= 42, failures
