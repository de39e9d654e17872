"""The verbs about a model's files, as a terminal gets them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.standin import Repo, StandIn, standing_in

TINY = Path(__file__).parents[1] / "data" / "tiny"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    folder = tmp_path / "repo"
    shutil.copytree(TINY, folder)
    with standing_in() as made:
        facts = {"downloads": 3, "tags": ["safetensors"], "safetensors": {"total": 3_279_104}}
        made.repos["org/tiny"] = Repo(folder, facts=facts)
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        yield made


def podlab(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from podlab.cli import main; main()", *words]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ)


def document(*words: str, status: int = 0) -> Any:
    done = podlab(*words, "--json")
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


def test_from_a_search_to_a_deletion(hub: StandIn) -> None:
    (found,) = document("model", "search", "tiny")["models"]
    assert (found["id"], found["fits"]) == ("org/tiny", True)
    assert document("model", "download", "org/tiny", "--dry-run")["would"][0].startswith("download hf:org/tiny")
    assert document("model", "files")["models"] == []
    fetched = document("model", "download", "org/tiny")
    assert fetched["download"]["state"] == "done" and fetched["model"]["state"] == "whole"
    assert document("model", "downloads")["downloads"][0]["model"] == "hf:org/tiny"
    by_list, by_files = document("model", "list", "--files"), document("model", "files")
    assert [m["id"] for m in by_list["models"]] == [m["id"] for m in by_files["models"]] == ["hf:org/tiny"]
    assert len(document("model", "files", "org/tiny")["models"][0]["files"]) == 5
    assert document("model", "verify", "org/tiny")["ok"] is True
    usage = document("model", "usage")
    assert usage["disk"]["used_bytes"] == usage["models"][0]["size_bytes"]
    document("model", "cache", "--quota", "5GB", "--dry-run")
    assert document("model", "cache")["disk"]["quota_bytes"] is None
    quota = document("model", "cache", "--quota", "5GB")
    assert quota["disk"]["quota_bytes"] == 5_000_000_000 and quota["next"] == ["hf:org/tiny"]
    assert document("model", "cache", "--quota", "none")["disk"]["quota_bytes"] is None
    refused = podlab("model", "delete", "org/tiny")
    assert refused.returncode == 1 and "--yes" in refused.stderr
    assert document("model", "delete", "org/tiny", "--yes")["changed"] == {"model": "hf:org/tiny"}
    assert document("model", "files")["models"] == []


def test_a_damaged_model_is_told_with_the_command_that_mends_it(hub: StandIn) -> None:
    model = document("model", "download", "org/tiny")["model"]
    path = Path(model["path"]) / "model.safetensors"
    path.write_bytes(b"x" * path.stat().st_size)
    done = podlab("model", "verify", "org/tiny")
    assert done.returncode == 1
    assert "damaged" in done.stdout and "podlab model download hf:org/tiny" in done.stdout
    assert podlab("model", "download", "hf:org/tiny").returncode == 0
    assert podlab("model", "verify", "org/tiny").returncode == 0


def test_what_is_not_there_is_said_with_what_is(hub: StandIn) -> None:
    assert podlab("model", "download", "org/tiny").returncode == 0
    done = podlab("model", "delete", "org/tinny", "--yes")
    assert done.returncode == 1 and "Did you mean hf:org/tiny?" in done.stderr
    assert podlab("model", "cache", "--quota", "much").returncode == 2
    assert podlab("model", "cache", "--quota", "5").returncode == 2, "somebody forgot the unit"
