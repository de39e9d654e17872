"""What counts as busy, judged from figures."""

from __future__ import annotations

from typing import Any

import pytest

from podlab.engines import metrics
from podlab.remote.activity import COUNTERS, UNDER_WAY, Judge, sum_of


def seen(**more: Any) -> dict[str, Any]:
    return {"commands": [], "downloads": [], "loading": [], "engines": {}, "terminals": {}, "copied": {},
            "by_ssh": {}, **more}  # fmt: skip


def engine(**more: Any) -> dict[str, Any]:
    return {"tokens": None, "under_way": 0.0, "connections": [], "cpu": {}, **more}


def judge() -> Judge:
    return Judge(gpu_percent=5.0, quiet_s=100.0)


@pytest.mark.parametrize("names", [metrics.VLLM, metrics.LLAMACPP, metrics.SGLANG, metrics.TGI])
def test_the_counters_are_those_that_podlab_reads_elsewhere(names: metrics.Names) -> None:
    for name in (*names.prompt_tokens, *names.generation_tokens):
        assert sum_of(COUNTERS, f'# HELP {name} x\n{name}{{model="a b",n="1"}} 41.0\n'.encode()) == 41.0
    for name in (*names.running, *names.waiting):
        assert sum_of(UNDER_WAY, f"{name} 2\n".encode()) == 2.0


def test_figures_of_several_engines_behind_one_server_are_added_and_others_left_out() -> None:
    page = b'vllm:prompt_tokens_total{e="0"} 1\nvllm:prompt_tokens_total{e="1"} 2\nvllm:prompt_tokens_totals 9\n'

    assert sum_of(COUNTERS, page) == 3.0
    assert sum_of(COUNTERS, b"vllm:prompt_tokens_total ..\nother 3\n") is None


def test_tokens_are_those_since_the_look_before() -> None:
    made = judge()

    assert made.busy(seen(engines={"a.1": engine(tokens=500.0)}), 10.0) == []
    assert made.busy(seen(engines={"a.1": engine(tokens=501.0)}), 20.0) == ["tokens"]
    assert made.busy(seen(engines={"a.1": engine(tokens=501.0)}), 30.0) == []
    assert made.busy(seen(engines={"a.1": engine(tokens=3.0)}), 40.0) == ["tokens"]
    assert made.busy(seen(engines={"a.1": engine(tokens=3.0, under_way=1.0)}), 50.0) == ["tokens"]


def test_cpu_says_something_of_an_engine_without_counters_only() -> None:
    made = judge()
    with_counters = engine(tokens=5.0, cpu={"7.1": 0.0})  # vLLM spins on a CPU while it waits
    made.busy(seen(engines={"a.1": with_counters, "b.1": engine(cpu={"8.1": 0.0})}), 0.0)

    after = {"a.1": dict(with_counters, cpu={"7.1": 10.0}), "b.1": engine(cpu={"8.1": 1.0})}
    assert made.busy(seen(engines=after), 10.0) == []
    assert made.busy(seen(engines={"b.1": engine(cpu={"8.1": 4.0})}), 20.0) == ["engine"]


def test_a_connection_counts_when_it_is_there_twice() -> None:
    made = judge()
    assert made.busy(seen(engines={"a.1": engine(connections=["x:1"])}), 0.0) == []
    assert made.busy(seen(engines={"a.1": engine(connections=["x:2"])}), 10.0) == []
    assert made.busy(seen(engines={"a.1": engine(connections=["x:2"])}), 20.0) == ["engine"]


@pytest.mark.parametrize("jump_s", [86400.0, -86400.0])
def test_a_terminal_is_in_use_while_something_happens_on_it_whatever_the_time_of_day_is(jump_s: float) -> None:
    made = judge()
    assert made.busy(seen(terminals={"0": [1000.0, 1000.0]}), 0.0) == ["shell"]
    assert made.busy(seen(terminals={"0": [1000.0, 1000.0]}), 99.0) == ["shell"]
    assert made.busy(seen(terminals={"0": [1000.0, 1000.0]}), 101.0) == []
    assert made.busy(seen(terminals={"0": [1000.0 + jump_s, 1000.0]}), 110.0) == ["shell"]
    assert made.busy(seen(), 120.0) == []


def test_copies_count_from_a_size_on_and_those_before_the_first_look_do_not() -> None:
    made = judge()
    assert made.busy(seen(copied={"5.1": 10**9}), 0.0) == []
    assert made.busy(seen(copied={"5.1": 10**9 + 1000}), 10.0) == []
    assert made.busy(seen(copied={"5.1": 10**9 + 1000, "6.1": 2**20}), 20.0) == ["download"]


def test_what_was_begun_over_ssh_is_a_command_while_it_uses_a_cpu() -> None:
    """Whose it is does not matter; one that only waits, such as podlab's own reading of GPUs, is none."""
    made = judge()
    made.busy(seen(by_ssh={"7.1": 100.0}), 0.0)

    assert made.busy(seen(by_ssh={"7.1": 101.0}), 10.0) == []
    assert made.busy(seen(by_ssh={"7.1": 103.5}), 20.0) == ["command"]
    assert made.busy(seen(by_ssh={"7.1": 103.5, "8.1": 4.0}), 30.0) == ["command"]


def test_a_card_that_tells_nothing_is_not_busy_and_a_look_that_failed_is_no_idleness() -> None:
    made = judge()
    made.gpus({"failed": "it did not end in time"})
    assert made.busy(seen(), 0.0) == []
    made.gpus({"percent": [0.0, 4.0]})
    assert made.busy(seen(), 10.0) == []
    made.gpus({"percent": [0.0, 5.0]})
    assert made.busy(seen(), 20.0) == ["gpu"]
    assert made.busy({"failed": "OSError: too many files"}, 30.0) == ["unknown"]
