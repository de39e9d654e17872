"""The options of a start beside those of what runs: which differ, and which only say the same in other words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from podlab.engines.base import Environment, ServeSpec
from podlab.lab.facts import Facts
from podlab.lab.wish import Wish, differences, meta_of

OWN = Environment("vllm", "0.32.0+cpu", "/home/ann/v/bin/python", ("/home/ann/v/bin/vllm", "serve"), adopted=True)
STARTED = Wish("m", env=("B=2", "A=1 x"), gpus=(1,))
SPEC = ServeSpec("m", model_path="/m", environment=OWN, env=(("RECIPE", "1"), ("B", "2"), ("A", "1 x")), gpus=(1,))


def running(spec: ServeSpec = SPEC, wish: Wish = STARTED) -> Facts:
    """The facts that count here of an endpoint that was started so."""
    facts = object.__new__(Facts)
    for name, value in {"engine": "vllm", "port": 8000, "meta": meta_of(spec, wish, fetched=False)}.items():
        object.__setattr__(facts, name, value)
    return facts


@pytest.mark.parametrize(
    "asked,said",
    [
        (Wish("m", engine="sglang"), "--engine vllm (asked: sglang)"),
        (Wish("m", engine_version="0.31.0"), "--engine-version 0.32.0+cpu (asked: 0.31.0)"),
        (Wish("m", python="/opt/v/bin/python"), "--python /home/ann/v/bin/python (asked: /opt/v/bin/python)"),
        (Wish("m", python="~/w/bin/python"), "--python /home/ann/v/bin/python (asked: ~/w/bin/python)"),
        (Wish("m", env=("A=1 x",)), "--env 'A=1 x' B=2 (asked: 'A=1 x')"),
        (Wish("m", gpus=2), "--gpus 1, (asked: 2)"),
        (Wish("m", gpus=(0,)), "--gpus 1, (asked: 0,)"),
        (Wish("m", gpus=(0, 1)), "--gpus 1, (asked: 0,1)"),
    ],
)
def test_an_option_that_it_does_not_run_with_is_named(asked: Wish, said: str) -> None:
    assert differences(asked, running()) == [said]


@pytest.mark.parametrize(
    "asked",
    [STARTED, Wish("m", engine="vllm"), Wish("m", engine_version="0.32.0"), Wish("m", engine_version="0.32.0+cpu"),
     Wish("m", python="~/v/bin/python"), Wish("m", python="/home/ann/v/bin/python"), Wish("m", gpus=1),
     Wish("m", env=("A=1 x", "B=2")), Wish("m", gpus=(1,)), Wish("m")],
)  # fmt: skip
def test_what_says_the_same_is_no_difference(asked: Wish) -> None:
    assert differences(asked, running()) == []


def test_what_was_left_open_is_told_and_what_was_not_kept_is_not_compared() -> None:
    bare = replace(SPEC, environment=None, gpus=())
    assert differences(Wish("m", engine_version="0.31.0", gpus=1), running(bare, Wish("m"))) == [
        "--engine-version left open (asked: 0.31.0)", "--gpus left open (asked: 1)",
    ]  # fmt: skip
    old = running()
    object.__setattr__(old, "meta", {"options": {"--context": ""}, "fetched": False})
    assert differences(Wish("m", engine_version="0.31.0", gpus=(3,), env=("A=1",)), old) == []
