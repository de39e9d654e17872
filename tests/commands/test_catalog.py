"""`model catalog`, `register` and `unregister`, as a terminal gets them, on simulated cards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from podlab.commands.handlers.catalog import parse_count
from podlab.errors import BadArgument
from podlab.settings import home
from tests.nvml import Gpu, SimulatedGpus


def podlab(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from podlab.cli import main; main()", *words]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | env)


def document(*words: str, **env: str) -> Any:
    done = podlab(*words, "--json", **env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_fits_the_pod_is_listed_and_the_rest_is_counted(tmp_path: Path) -> None:
    cards = SimulatedGpus(tmp_path, [Gpu()]).environment()
    done = podlab("model", "catalog", "--engine", "vllm", "--json", **cards)
    found = {row["id"]: row for row in json.loads(done.stdout)["models"]}
    assert found["Qwen/Qwen3-32B-FP8"]["fits"] is True
    assert found["Qwen/Qwen3-32B-FP8"]["how"].startswith("GPU 0, ")
    assert found["google/gemma-4-12B-it"]["fits"] is None, "its shape is read when it is asked about"
    assert "zai-org/GLM-4.5-Air" not in found
    assert "more do not fit local" in done.stderr


def test_all_says_why_the_others_do_not(tmp_path: Path) -> None:
    cards = SimulatedGpus(tmp_path, [Gpu()]).environment()
    rows = document("model", "catalog", "--all", **cards)["models"]
    assert [row["fits"] for row in rows] == sorted((row["fits"] for row in rows), key=[True, None, False].index)
    (air,) = [row for row in rows if row["id"] == "zai-org/GLM-4.5-Air"]
    assert air["fits"] is False
    assert "weights" in air["how"]
    assert all(row["how"] for row in rows)


def test_a_used_card_fits_less(tmp_path: Path) -> None:
    cards = SimulatedGpus(tmp_path, [Gpu(used_mib=60000)]).environment()
    (row,) = document("model", "catalog", "qwen3-32b-fp8", "--all", **cards)["models"]
    assert row["fits"] is False


def test_without_a_gpu_files_are_for_the_cpu(tmp_path: Path) -> None:
    rows = document("model", "catalog", **SimulatedGpus(tmp_path, init=9).environment())["models"]
    assert rows[0]["id"] == "tiny"
    assert rows[0]["how"].startswith("CPU")
    assert {row["engine"] for row in rows} == {"llamacpp"}


def test_words_are_looked_for_and_what_only_does_not_fit_is_shown_all_the_same(tmp_path: Path) -> None:
    cards = SimulatedGpus(tmp_path, init=9).environment()
    rows = document("model", "catalog", "kimi agents", **cards)["models"]
    assert rows
    assert all(row["fits"] is False and row["how"] == "needs a GPU" for row in rows)
    missing = podlab("model", "catalog", "zzzz", **cards)
    assert missing.returncode == 1
    assert "zzzz" in missing.stderr


def test_a_family_s_name_lists_it_when_a_list_is_asked_for(tmp_path: Path) -> None:
    """`qwen3` is an alias of one model, and with --all or --engine a word to look for."""
    cards = SimulatedGpus(tmp_path, init=9).environment()
    assert document("model", "catalog", "qwen3", **cards)["model"]["id"] == "qwen3-4b"
    assert len(document("model", "catalog", "qwen3", "--all", **cards)["models"]) > 5
    assert len(document("model", "catalog", "qwen3", "--engine", "llamacpp", **cards)["models"]) > 2


def test_one_model_shows_everything_with_its_sources(tmp_path: Path) -> None:
    cards = SimulatedGpus(tmp_path, [Gpu()] * 4).environment()
    found = document("model", "catalog", "glm-4.5-air", **cards)
    assert found["model"]["id"] == "zai-org/GLM-4.5-Air"
    assert found["model"]["how"] == "GPUs 0, 1, 2, 3, 128k tokens"
    assert found["geometry"]["layers"] == 46
    assert found["sources"].keys() == {"geometry", "parameters", "context", "parsers", "licence"}
    assert {recipe["gpus"] for recipe in found["recipes"]} == {2, 4}
    shown = podlab("model", "catalog", "glm-4.5-air", **cards).stdout
    assert "https://huggingface.co/zai-org/GLM-4.5-Air" in shown
    assert "4x H100" in shown


def test_a_model_is_registered_found_and_taken_out_again(tmp_path: Path) -> None:
    cards = SimulatedGpus(tmp_path, init=9).environment()
    planned = document("model", "register", "mine", "--source", "hf:a/b", "--dry-run")
    assert "mine" in planned["would"][0]
    assert not (home() / "models.toml").exists()

    podlab("model", "register", "mine", "--source", "hf:a/b", "--parameters", "8B", "--context", "32k", "--gated")
    model = document("model", "catalog", "mine", **cards)["model"]
    assert (model["source"], model["parameters"], model["context"], model["gated"]) == (
        "hf:a/b",
        8 * 10**9,
        32768,
        True,
    )
    again = podlab("model", "register", "mine", "--source", "hf:a/b")
    assert again.returncode == 1
    assert "unregister mine" in again.stderr

    assert podlab("model", "unregister", "mine").returncode == 0
    assert not (home() / "models.toml").exists()


def test_what_cannot_be_registered_says_what_is_missing() -> None:
    assert "--source" in podlab("model", "register", "mine").stderr
    wrong = podlab("model", "register", "mine", "--source", "hf:a")
    assert wrong.returncode == 2
    assert "hf:OWNER/REPO" in wrong.stderr
    assert "hf:Qwen/Qwen3-8B" in podlab("model", "register", "mine", "--source", "Qwen/Qwen3-8B").stderr


@pytest.mark.parametrize("text, count", [("8B", 8 * 10**9), ("494m", 494 * 10**6), ("32.8B", 32_800_000_000),
                                         ("4_000_000_000", 4 * 10**9)])  # fmt: skip
def test_a_number_of_parameters(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "B", "-1", "1e9", "0", "99999999T"])
def test_what_is_no_number_of_parameters(text: str) -> None:
    with pytest.raises(BadArgument) as caught:
        parse_count(text)
    assert "8B" in caught.value.hint
