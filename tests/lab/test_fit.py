"""Judging a model on a pod and on GPUs by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from podlab.catalog import catalog
from podlab.catalog.fit import Wish
from podlab.catalog.geometry import GpuRoom
from podlab.commands.drive import drive
from podlab.errors import BadArgument, NotFound
from podlab.lab import fit, pods
from podlab.lab.fit import Judged
from podlab.lab.workspace import Workspace
from tests.audiences import Silent

TINY = Path(__file__).parents[1] / "data" / "tiny"
GIB = 2**30


def judge(workspace: Workspace, model: str, *, gpus: str | None = None, wish: Wish | None = None) -> Judged:
    pod = None if gpus else pods.find("local")
    work = fit.judge(workspace, model, pod=pod, gpus_text=gpus, wish=wish or Wish())
    found: Judged = drive(work, Silent())
    return found


def card(free_gib: float = 24) -> GpuRoom:
    return GpuRoom(0, "RTX 4090", 24 * GIB, round(free_gib * GIB))


def test_a_folder_on_gpus_that_need_not_be_there(workspace: Workspace) -> None:
    found = judge(workspace, str(TINY), gpus="2x RTX 4090")

    assert found.result.fits
    assert found.engine == "vllm"
    assert found.pod == ""
    assert len(found.result.gpus) == 1  # it needs no second one
    assert found.geometry.source == str(TINY / "config.json")


def test_the_model_that_ships_in_this_computers_memory(workspace: Workspace) -> None:
    found = judge(workspace, "tiny")

    assert found.pod == "local"
    if found.result.gpus[0].name == "memory":  # a computer without a GPU
        assert found.result.gpus[0].free_bytes < found.result.gpus[0].total_bytes
    assert found.result.fits


def test_the_fewest_gpus_on_which_it_fits(workspace: Workspace) -> None:
    entry = catalog.find("Qwen/Qwen3-32B")
    assert entry.geometry
    four = [GpuRoom(index, "H100", 81559 * 2**20, 81559 * 2**20) for index in range(4)]

    result = fit.verdict(entry, entry.geometry, four, Wish(context=32768))

    assert result.fits
    assert result.wish.tensor_parallel == len(result.gpus)
    assert len(result.gpus) < 4


def test_where_none_fits_the_verdict_is_of_those_that_a_smaller_wish_would_fit_on() -> None:
    """A second card that others fill does not hide what the free one could do."""
    entry = catalog.find("Qwen/Qwen3-8B")
    assert entry.geometry
    rooms = [card(), GpuRoom(1, "RTX 4090", 24 * GIB, 0)]

    result = fit.verdict(entry, entry.geometry, rooms, Wish())

    assert result.fits is False
    assert [part.index for part in result.gpus] == [0]
    assert result.nearest[0].text.startswith("--context ")


def test_a_slip_in_the_gpus_is_told_before_the_hub_is_asked(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(NotFound, match="'FOO' is no GPU"):
        judge(workspace, "nobody/Nothing-7B", gpus="3xFOO")


@pytest.mark.parametrize(
    "options, word",
    [
        ({"context": "lots"}, "'lots' is no number of tokens"),
        ({"memory": "150%"}, "'150%' is no share"),
        ({"concurrency": 0}, "--concurrency 0"),
    ],
)
def test_options_that_say_nothing(options: dict[str, object], word: str) -> None:
    usual: dict[str, object] = {
        "context": None, "concurrency": 1, "memory": None, "cache": None, "expert_parallel": False,
    }  # fmt: skip

    with pytest.raises(BadArgument, match=word):
        fit.wish_of(**(usual | options))  # type: ignore[arg-type]


def test_options_as_they_are_written() -> None:
    wish = fit.wish_of(context="128k", concurrency=4, memory="90%", cache="fp8", expert_parallel=True)

    assert wish == Wish(context=131072, concurrency=4, memory_ratio=0.9, cache_dtype="fp8", expert_parallel=True)
