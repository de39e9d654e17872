"""Which engine serves what, and what is refused before a pod is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from podlab import settings
from podlab.catalog import catalog
from podlab.commands.drive import drive
from podlab.errors import BadArgument, EngineUnavailable, NotFound
from podlab.lab import launch, pods
from podlab.lab.wish import Wish
from podlab.lab.workspace import Workspace
from tests import vllm_cpu
from tests.audiences import Silent
from tests.nvml import MISMATCH, UNKNOWN, Gpu, SimulatedGpus

LOCAL = pods.find("local")
FOLDER = str(vllm_cpu.MODEL)
CARD = "NVIDIA GeForce RTX 4090"


def test_what_the_catalog_names_is_in_the_form_its_engine_serves() -> None:
    for entry in catalog.entries():
        launch._asked(Wish(entry.id))  # refuses files of the wrong kind


def test_a_model_whose_file_is_made_first_says_how() -> None:
    own = settings.home() / "models.toml"
    own.write_text('[models.mine]\nsource = "hf:OWNER/REPO"\nengine = "llamacpp"\nconvert = "q8_0"\n')
    with pytest.raises(BadArgument, match="llama.cpp serves GGUF") as refused:
        launch._asked(Wish("mine"))
    assert "podlab model convert mine --to gguf --quant q8_0" in refused.value.hint


@pytest.mark.parametrize(
    "wish,said,hint",
    [
        (Wish("tiny", engine="vllm"), "is a GGUF file", "folder:/PATH"),
        (Wish(FOLDER, engine="llamacpp"), "is safetensors", ".gguf"),
        (Wish("tiny", python="/v/bin/python"), "not run with an environment", "--python"),
        (Wish(FOLDER, gpu_layers=3), "has no --gpu-layers", "llamacpp"),
        (Wish(FOLDER, extra=("--api-key", "x")), "--api-key cannot be given", "Leave it out."),
        (Wish(FOLDER, env=("A B=1",)), "is no NAME=VALUE", "NAME=VALUE"),
        (Wish(FOLDER, env=("NOTHING",)), "is no NAME=VALUE", "NAME=VALUE"),
        (Wish(FOLDER, env=("HF_TOKEN=hf_x",)), "looks like a secret", "makes one"),
        (Wish(FOLDER, env=("CUDA_VISIBLE_DEVICES=1",)), "podlab sets it", "Leave it out."),
        (Wish(FOLDER, env=("CUDA_DEVICE_ORDER=FASTEST_FIRST",)), "podlab sets it", "Leave it out."),
        (Wish(FOLDER, extra=("--hf-overrides", '{"x":"{home} {port}"}')), "which the pod would fill in", "Reword it."),
        (Wish(FOLDER, python="/{home}/bin/python"), "which the pod would fill in", "Reword it."),
        (Wish("pod:/data/{dir}/m.gguf"), "which the pod would fill in", "Reword it."),
        (Wish("tiny", engine_version="9.9"), "no other version", "--engine-version"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_work_is_refused_without_a_pod(wish: Wish, said: str, hint: str, workspace: Workspace) -> None:
    with pytest.raises(BadArgument, match=said) as caught:
        drive(launch.plan(workspace, LOCAL, wish), Silent())
    assert hint in caught.value.hint


@pytest.fixture
def cards(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimulatedGpus:
    """Two RTX 4090 in this computer, the first of them busy, as the real bindings see them."""
    made = SimulatedGpus(tmp_path / "cards", [Gpu(CARD, 24_564, 20_000), Gpu(CARD, 24_564, 500)])
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    return made


def planned(workspace: Workspace, wish: Wish) -> tuple[str, ...]:
    return drive(launch.plan(workspace, LOCAL, wish), Silent())


def test_a_dry_run_shows_the_very_command_its_environment_and_the_free_gpu(
    workspace: Workspace, cards: SimulatedGpus
) -> None:
    shown = planned(workspace, Wish("Qwen/Qwen3-8B", extra=("--override-generation-config", '{"a": [1, "b c"]}')))
    (serve,) = [line for line in shown if line.startswith("serve: ")]
    assert "CUDA_VISIBLE_DEVICES=1 " in serve
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in serve
    assert "VLLM_API_KEY='********'" in serve
    assert "--tensor-parallel-size 1 " in serve
    assert """--override-generation-config '{"a": [1, "b c"]}'""" in serve
    assert any(line.startswith("prepare: ") for line in shown)
    assert any(line.startswith("download: ") and "Qwen/Qwen3-8B" in line for line in shown)
    assert any("GPU 1" in line for line in shown)


def test_what_cannot_fit_is_refused_with_the_nearest_that_does_and_forced_if_wanted(
    workspace: Workspace, cards: SimulatedGpus
) -> None:
    with pytest.raises(EngineUnavailable, match="does not fit") as caught:
        planned(workspace, Wish("Qwen/Qwen3-32B", gpus=(1,)))
    assert "--force" in caught.value.hint
    assert any("Forced" in line for line in planned(workspace, Wish("Qwen/Qwen3-32B", gpus=(1,), force=True)))


@pytest.mark.parametrize(
    "card, init, said",
    [
        (Gpu(lost=True), 0, r"GPU 0 is lost \(.+\)"),
        (Gpu(mig=2), 0, "GPU 0 is cut into MIG instances, which podlab cannot choose yet"),
        (Gpu(error=UNKNOWN), 0, "GPU 0 cannot be read"),
        (Gpu(), MISMATCH, "the NVIDIA driver was exchanged while it ran"),
    ],
    ids=["lost", "mig", "unreadable", "driver"],
)
def test_a_pod_whose_gpus_cannot_be_used_is_not_taken_for_a_cpu(
    card: Gpu, init: int, said: str, workspace: Workspace, cards: SimulatedGpus
) -> None:
    cards.change([card], init=init)
    for wish in (Wish("Qwen/Qwen3-8B"), Wish("Qwen/Qwen3-8B", force=True), Wish("Qwen/Qwen3-8B", gpus=(0,))):
        with pytest.raises(EngineUnavailable, match=said):
            planned(workspace, wish)


def test_why_not_fewer_gpus_is_told(workspace: Workspace, cards: SimulatedGpus) -> None:
    cards.change([Gpu(CARD, 24_564, 500)] * 2)
    shown = planned(workspace, Wish("Qwen/Qwen3-32B-FP8"))
    assert any("CUDA_VISIBLE_DEVICES=0,1 " in line for line in shown)
    assert [line for line in shown if line.startswith("not 1x")] == ["not 1x 48GB: the pod has 2x " + CARD + "."]


def test_stages_get_a_gpu_each(workspace: Workspace, cards: SimulatedGpus) -> None:
    cards.change([Gpu(CARD, 24_564, 500)] * 2)
    shown = planned(workspace, Wish("Qwen/Qwen3-8B", extra=("--pipeline-parallel-size", "2")))
    (serve,) = [line for line in shown if line.startswith("serve: ")]
    assert "CUDA_VISIBLE_DEVICES=0,1 " in serve
    assert "--tensor-parallel-size 1 " in serve and "--pipeline-parallel-size 2" in serve


def test_slots_have_to_fit_with_the_context(workspace: Workspace, cards: SimulatedGpus) -> None:
    with pytest.raises(EngineUnavailable, match="at the same time, not 64"):
        planned(workspace, Wish("Qwen/Qwen3-0.6B", context=32768, slots=64, gpus=(1,)))


def test_the_engines_own_context_wins_over_podlabs_and_that_is_said(workspace: Workspace, cards: SimulatedGpus) -> None:
    shown = planned(workspace, Wish("Qwen/Qwen3-0.6B", context=4096, extra=("--max-model-len", "8192")))
    assert any(line.startswith("--max-model-len 8192 wins over --context 4096") for line in shown)
    (serve,) = [line for line in shown if line.startswith("serve: ")]
    assert "--max-model-len 8192" in serve and "4096" not in serve


def test_gpus_that_are_not_there_are_refused(workspace: Workspace, cards: SimulatedGpus) -> None:
    with pytest.raises((BadArgument, EngineUnavailable)):
        planned(workspace, Wish("Qwen/Qwen3-8B", gpus=(7,)))
    with pytest.raises(BadArgument, match=r"llama\.cpp"):
        planned(workspace, Wish("tiny", gpus=(0,)))
    with pytest.raises(BadArgument, match=r"llama\.cpp"):
        planned(workspace, Wish("tiny", memory_ratio=0.5))


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this computer has a GPU")
def test_without_a_gpu_and_an_environment_nothing_is_downloaded(workspace: Workspace) -> None:
    with pytest.raises(EngineUnavailable, match="no GPU") as caught:
        drive(launch.start(workspace, LOCAL, Wish(FOLDER)), Silent())
    assert "--python" in caught.value.hint


def test_a_folder_that_holds_no_model_is_told(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises((NotFound, EngineUnavailable)):
        drive(launch.start(workspace, LOCAL, Wish(f"folder:{tmp_path}")), Silent())
