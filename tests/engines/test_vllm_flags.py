"""Whose flag counts, and what another version of vLLM calls it; judged by the real one's own list of flags too."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from podlab.engines.vllm_flags import GONE, OURS, merged, version_of
from podlab.errors import BadArgument

BASE = (("--port", "1"), ("--tensor-parallel-size", "2"), ("--max-model-len", "4096"), ("--enable-expert-parallel",))


def words(*extra: str, version: str = "0.32.0", known: frozenset[str] = frozenset()) -> tuple[str, ...]:
    return merged(BASE, extra, version, known)[0]


@pytest.mark.parametrize(
    "extra,left",
    [
        (("--max-model-len", "8k"), ("--port", "1", "--tensor-parallel-size", "2", "--enable-expert-parallel")),
        (("--max_model_len=8k",), ("--port", "1", "--tensor-parallel-size", "2", "--enable-expert-parallel")),
        (("-tp", "4"), ("--port", "1", "--max-model-len", "4096", "--enable-expert-parallel")),
        (("--no-enable-expert-parallel",), ("--port", "1", "--tensor-parallel-size", "2", "--max-model-len", "4096")),
    ],
)
def test_a_flag_of_the_person_s_replaces_ours_together_with_its_value(
    extra: tuple[str, ...], left: tuple[str, ...]
) -> None:
    assert words(*extra) == (*left, *extra)


@pytest.mark.parametrize("name", sorted(OURS))
def test_what_is_podlab_s_own_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(BadArgument, match="cannot be given here"):
        words(name, "x")
    with pytest.raises(BadArgument):
        words(f"{name.replace('-', '_').replace('__', '--', 1)}=x")


def test_a_renamed_flag_is_written_as_it_is_called_now() -> None:
    said, notes = merged((), ("--guided-decoding-backend", "xgrammar", "--cuda-graph-sizes=8"), "0.32.0")
    assert said == ("--structured-outputs-config.backend", "xgrammar", "--cudagraph-capture-sizes=8")
    assert len(notes) == 2


def test_a_flag_without_a_meaning_is_left_out_with_its_value() -> None:
    said, notes = merged((), ("--swap-space", "4", "--seed", "1", "--disable-log-requests"), "0.32.0")
    assert said == ("--seed", "1")
    assert "--swap-space" in notes[0]


def test_a_flag_that_would_change_what_is_served_is_refused_with_what_to_write() -> None:
    with pytest.raises(BadArgument, match="--hf-overrides"):
        words("--rope-scaling", "{}")


def test_what_a_version_still_has_passes() -> None:
    assert words("--max-num-partial-prefills", "2", version="0.25.0")[-2:] == ("--max-num-partial-prefills", "2")
    with pytest.raises(BadArgument):
        words("--max-num-partial-prefills", "2", version="0.32.0")
    with pytest.raises(BadArgument):
        words("--max-num-partial-prefills", "2", version="nightly")


def test_where_the_version_s_own_flags_are_known_another_one_is_refused_with_the_nearest() -> None:
    known = frozenset({"--max-num-seqs", "--seed", "--enable-prefix-caching", "--no-enable-prefix-caching"})
    with pytest.raises(BadArgument) as caught:
        words("--max-num-seq", "4", "--seeed", "1", known=known)
    assert "--seed" in caught.value.hint
    assert words("--max-num-seqs", "4", "--enable-prefix-caching", known=known)[-3:] == (
        "--max-num-seqs", "4", "--enable-prefix-caching",
    )  # fmt: skip
    assert words("--unheard-of", "1")[-2:] == ("--unheard-of", "1"), "else an unknown flag passes"


@pytest.mark.parametrize("extra", [("model",), ("4", "--seed"), ("--seed", "1\0")])
def test_words_that_are_no_flags_are_refused(extra: tuple[str, ...]) -> None:
    with pytest.raises(BadArgument):
        words(*extra)


def test_negative_numbers_are_values() -> None:
    assert words("--seed", "-1")[-2:] == ("--seed", "-1")


@pytest.mark.parametrize(
    "text,number", [("0.32.0+cpu", (0, 32, 0)), ("0.26.1rc1.dev457+gc8", (0, 26, 11)), ("nightly", ()), ("", ())]
)
def test_versions_are_read(text: str, number: tuple[int, ...]) -> None:
    assert version_of(text)[:2] == number[:2]


@pytest.mark.timeout(300)
def test_the_real_one_has_none_of_what_is_gone_and_all_that_we_pass(vllm_python: str, tmp_path: Path) -> None:
    program = resources.files("podlab.remote") / "environments.py"
    argv = [sys.executable, "-I", str(program), str(tmp_path), "adopt", "vllm", vllm_python]
    record = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)["environment"]
    flags = set(record["flags"])
    assert record["version"] == "0.32.0"
    assert sorted(set(GONE) & flags) == []
    ours = {"--served-model-name", "--host", "--port", "--tensor-parallel-size", "--data-parallel-size",
            "--enable-expert-parallel", "--max-model-len", "--gpu-memory-utilization", "--max-num-seqs"}  # fmt: skip
    assert ours <= flags
    assert {gone.instead.partition(".")[0] for gone in GONE.values() if gone.instead} <= flags
