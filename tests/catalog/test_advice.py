"""What a refused start proposes can be typed after `model start`: `model fit` has options that it has not."""

from __future__ import annotations

import pytest

from podlab.catalog.advice import ways
from podlab.catalog.fit import Nearest, Wish
from podlab.commands.table import find

CHANGES = [
    ("--context 4096", 1, "--context 4096"),
    ("--concurrency 3", 1, "--slots 3"),
    ("--memory 90% --context 8192", 1, "--memory 90% --context 8192"),
    ("--cache fp8", 1, "-- --kv-cache-dtype fp8"),
    ("--expert-parallel", 1, "-- --enable-expert-parallel"),
    ('--gpus "2xH100"', 2, "--gpus 2"),
    ('--gpus "8xH100"', 8, '"8xH100" on another pod'),
]


@pytest.mark.parametrize(("text", "gpus", "said"), CHANGES)
def test_a_change_is_said_as_start_takes_it(text: str, gpus: int, said: str) -> None:
    assert ways([Nearest(text, Wish(), gpus)], "vllm", 2, most=2) == said


def test_every_option_that_is_proposed_is_one() -> None:
    verb, _ = find(["model", "start"])
    known = {option.name for option in verb.options}
    for _, _, said in CHANGES:
        ours = said.partition("-- ")[0] if said.startswith("-- ") else said
        assert {word for word in ours.split() if word.startswith("--") and len(word) > 2} <= known


def test_what_an_engine_has_no_word_for_is_left_out() -> None:
    changes = [Nearest("--cache fp8", Wish(), 1), Nearest("--concurrency 3", Wish(), 1)]
    assert ways(changes, "llamacpp", 0, most=3) == "--slots 3"
    assert ways(changes[:1], "sglang", 1, most=2) == ""
    assert ways(changes, "vllm", 1, most=1) == "-- --kv-cache-dtype fp8"
