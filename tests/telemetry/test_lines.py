"""The probe's lines: what is due is kept, what is not is refused, and no text can harm a terminal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podlab.errors import SupervisorError
from podlab.telemetry.lines import MOST_GPUS, TEXT_CUT, sample_from
from podlab.types import GpuProcess, GpuSample, HostSample, PodSample

LEAST: dict[str, Any] = {"v": 1, "at": 5.0, "source": "none"}


def test_the_least_there_is() -> None:
    assert sample_from(LEAST, "lab") == PodSample("lab", 5.0, "none")


def test_everything_there_is() -> None:
    gpu = {
        "index": 1, "name": "L4", "uuid": "GPU-1", "utilization_percent": 5, "memory_total_bytes": 10,
        "memory_used_bytes": 4, "memory_free_bytes": 6, "throttle_reasons": ["power_cap"], "mig": True, "parent": 0,
        "processes": [{"pid": 7, "memory_bytes": 3, "name": "python", "owner": "e"}], "later": "ignored",
    }  # fmt: skip
    host = {"cpu_percent": 12.5, "cpus": 4}
    found = sample_from({**LEAST, "source": "nvml", "driver": "570", "cuda": "12.8", "gpus": [gpu], "host": host}, "x")
    assert found.gpus == (
        GpuSample(
            1, "L4", "GPU-1", utilization_percent=5.0, memory_total_bytes=10, memory_used_bytes=4, memory_free_bytes=6,
            throttle_reasons=("power_cap",), mig=True, parent=0, processes=(GpuProcess(7, 3, "python", "e"),),
        ),
    )  # fmt: skip
    assert found.host == HostSample(cpu_percent=12.5, cpus=4)
    assert (found.driver, found.cuda) == ("570", "12.8")


@pytest.mark.parametrize(
    "change,message",
    [
        ({"at": None}, "at = null in sample"),
        ({"at": float("nan")}, "at = NaN"),
        ({"source": "rocm"}, "a source 'rocm' nobody knows"),
        ({"gpus": {}}, "gpus = "),
        ({"gpus": [1]}, "sent 1 where gpus of sample was due"),
        ({"gpus": [{"name": "x"}]}, "index = null in gpus of sample"),
        ({"gpus": [{"index": True}]}, "index = true"),
        ({"gpus": [{"index": -1}]}, "a GPU with the number -1"),
        ({"gpus": [{"index": 0, "power_w": "70"}]}, 'power_w = "70"'),
        ({"gpus": [{"index": 0, "memory_used_bytes": 10**30}]}, "memory_used_bytes = 1000"),
        ({"gpus": [{"index": 0, "name": "x" * 5000}]}, "name = "),
        ({"gpus": [{"index": 0, "processes": [{}]}]}, "pid = null"),
        ({"gpus": [{"index": 0}] * (MOST_GPUS + 1)}, "gpus = "),
        ({"host": 3}, "sent 3 where host of sample was due"),
    ],
)
def test_what_is_not_a_sample_is_refused_naming_the_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SupervisorError) as caught:
        sample_from({**LEAST, **change}, "lab")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "sizes, said",
    [
        ({"memory_total_bytes": 0}, "0 bytes total"),
        ({"memory_total_bytes": 10, "memory_free_bytes": -5}, "-5 bytes free"),
        ({"memory_total_bytes": -1, "memory_used_bytes": -2}, "-1 bytes total and -2 bytes used"),
    ],
)
def test_memory_that_no_card_can_have_is_not_believed(sizes: dict[str, int], said: str) -> None:
    (found,) = sample_from({**LEAST, "gpus": [{"index": 0, "name": "L4", "error": "odd", **sizes}]}, "lab").gpus
    assert found.error == f"odd; its driver tells of {said}"
    assert (found.memory_total_bytes, found.memory_used_bytes, found.memory_free_bytes) == (None, None, None)


def test_text_from_a_pod_is_printable_and_short() -> None:
    evil = "\x1b]0;owned\x07a\u202eb\nc" + "x" * 1000
    found = sample_from({**LEAST, "detail": evil, "gpus": [{"index": 0, "name": evil, "error": evil}]}, "lab")
    for text in (found.detail, found.gpus[0].name, found.gpus[0].error):
        assert text.startswith("]0;ownedabcx")
        assert len(text) == TEXT_CUT


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(["at", "source", "gpus", "host", "driver", "cuda", "detail", "index", "processes", "pid"])


@given(st.dictionaries(FIELDS, JSON, max_size=8) | JSON)
def test_nothing_but_the_tree_is_raised(value: object) -> None:
    try:
        found = sample_from(value, "lab")
    except SupervisorError:
        return
    assert json.dumps(found.at)
