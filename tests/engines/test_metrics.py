"""A server's Prometheus page as figures, whatever the page holds."""

from __future__ import annotations

import random

import pytest

from podlab.engines import metrics
from podlab.engines.base import ServerMetrics

VLLM_PAGE = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 2.0
vllm:num_requests_running{engine="1",model_name="ti}ny \\" x"} 1.0
vllm:num_requests_waiting{engine="0",model_name="tiny"} 0.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="tiny",reason="capacity"} 7.0
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="tiny"} 0.5
vllm:prompt_tokens_total{engine="0",model_name="tiny"} 1.2e+03 1795472838000
vllm:prompt_tokens_created{engine="0",model_name="tiny"} 1.7954728385280607e+09
vllm:generation_tokens_total{engine="0",model_name="tiny"} 34.0
"""
LLAMACPP_PAGE = """\
llamacpp:prompt_tokens_total 21
llamacpp:tokens_predicted_total 40
llamacpp:requests_processing 1
llamacpp:requests_deferred 3
"""


def test_vllm_s_engines_are_added_up_and_the_fullest_cache_counts() -> None:
    assert metrics.read(VLLM_PAGE, metrics.VLLM) == ServerMetrics(3, 0, 0.5, 1200, 34)


def test_llama_cpp_s_page_is_read_and_what_it_lacks_is_none() -> None:
    assert metrics.read(LLAMACPP_PAGE, metrics.LLAMACPP) == ServerMetrics(1, 3, None, 21, 40)


def test_the_old_name_of_vllm_s_cache_is_known() -> None:
    assert metrics.read("vllm:gpu_cache_usage_perc 0.125", metrics.VLLM).kv_used_ratio == 0.125


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-1", "1e400", "0x10", "", "1 2 3", "{}", "9" * 400])
def test_a_figure_that_cannot_be_is_left_out(value: str) -> None:
    assert metrics.read(f"vllm:num_requests_running {value}", metrics.VLLM).running is None


def test_a_ratio_above_one_is_none() -> None:
    assert metrics.read("vllm:kv_cache_usage_perc 87.0", metrics.VLLM).kv_used_ratio is None


def test_no_page_breaks_the_reader() -> None:
    shuffled = random.Random(3)
    letters = 'vllm:num_requests_running{} "=\\\n\t0123456789.e+-#\0\x1bé'
    for _ in range(300):
        page = "".join(shuffled.choices(letters, k=400))
        metrics.read(page, metrics.VLLM)
    metrics.read("vllm:num_requests_running{" + "{" * 100_000, metrics.VLLM)
    metrics.read('a{b="' + "}" * 4000 + '"} x\n' * 50, metrics.VLLM)


def test_rates_come_from_two_readings() -> None:
    assert metrics.rate_per_s(10, 40, 2.0) == 15.0
    assert metrics.rate_per_s(40, 10, 2.0) is None, "the server was started anew"
    assert metrics.rate_per_s(None, 10, 2.0) is None
    assert metrics.rate_per_s(1, 2, 0.0) is None
