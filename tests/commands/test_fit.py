"""`podlab model fit` as a person runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.test_cli import podlab

TINY = str(Path(__file__).parents[1] / "data" / "tiny")


def test_a_folder_on_named_gpus() -> None:
    done = podlab("model", "fit", TINY, "--gpus", "2x RTX 4090", "--context", "1k")

    assert "tiny: fits" in done.stdout
    assert "0: RTX 4090" in done.stdout


def test_the_document_and_what_would_fit() -> None:
    asked = ("Qwen/Qwen3-32B", "--gpus", "RTX 4090", "--context", "16k", "--json")
    found = json.loads(podlab("model", "fit", *asked).stdout)

    assert found["fits"] is False
    assert found["nearest"] == ['--gpus "4xRTX 4090"']
    assert found["gpus"][0]["weights_bytes"] > 60 * 10**9
    assert found["context"] == 16384


@pytest.mark.parametrize(
    "words, said",
    [
        (("--gpus", "RTX 4090", "--context", "lots"), "'lots' is no number of tokens"),
        (("--gpus", "RTX 4090", "--memory", "200%"), "'200%' is no share"),
        (("--gpus", "no such card"), "no such card"),
        (("--gpus", "RTX 4090", "--on", "local"), "--gpus and --on say different things"),
        (("--gpus", "RTX 4090", "--concurrency", "0"), "--concurrency 0 is no number of requests"),
    ],
)
def test_what_cannot_be_meant(words: tuple[str, ...], said: str) -> None:
    done = podlab("model", "fit", TINY, *words, check=False)

    assert done.returncode != 0
    assert said in done.stderr


def test_without_a_network_a_model_of_the_hub_is_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    done = podlab("model", "fit", "nobody/Nothing-7B", "--gpus", "RTX 4090", check=False)

    assert done.returncode == 1
    assert "The hub cannot be reached" in done.stderr
    assert "A local folder and most names of the catalog need none." in done.stderr
