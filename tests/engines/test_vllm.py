"""What the vLLM engine asks a pod to run, what it refuses before anything is sent, and what it reads in a log."""

from __future__ import annotations

from dataclasses import replace

import pytest

from podlab.catalog.sources import HubRepo, HubSource
from podlab.engines import engine_named
from podlab.engines.base import Environment, Loading, LoadStage, PodFacts, ServeSpec
from podlab.engines.repository import INSTALLER, REPOSITORY_DOWNLOADER
from podlab.engines.vllm import VERSION, Vllm
from podlab.errors import BadArgument, EngineUnavailable

GPU_POD = PodFacts("Linux", "x86_64", (3, 11), "/usr/bin/python3", gpus=2)
CPU_POD = replace(GPU_POD, gpus=0)
OWN = Environment("vllm", "0.32.0+cpu", "/v/bin/python", ("/v/bin/vllm", "serve"), adopted=True)
SPEC = ServeSpec("tiny", model_path="/models/tiny", environment=OWN)


def serve(spec: ServeSpec, facts: PodFacts = GPU_POD) -> tuple[str, ...]:
    return Vllm().steps(spec, facts)[-1].argv


def test_an_environment_that_is_there_is_served_from_without_another_step() -> None:
    (step,) = Vllm().steps(replace(SPEC, context=2048, memory_ratio=0.9, tensor_parallel=2), CPU_POD)
    assert step.argv == (
        "/v/bin/vllm", "serve", "/models/tiny", "--served-model-name", "tiny", "--host", "127.0.0.1", "--port",
        "{port}", "--tensor-parallel-size", "2", "--max-model-len", "2048", "--gpu-memory-utilization", "0.9",
    )  # fmt: skip
    assert Vllm().files(SPEC, CPU_POD) == ()


def test_a_bare_pod_with_gpus_prepares_downloads_and_serves() -> None:
    spec = ServeSpec("qwen3", hub_repo=HubRepo("Qwen/Qwen3-4B", "abc"), hub_token=True)
    prepare, download, step = Vllm().steps(spec, GPU_POD)
    assert f"vllm=={VERSION}" in prepare.argv
    assert step.argv[:3] == ("{dir}/env/bin/vllm", "serve", "{home}/models/Qwen/Qwen3-4B/abc")
    assert download.argv[download.argv.index("--to") + 1] == step.argv[2]
    assert [each.secrets for each in (prepare, download, step)] == [(), ("HF_TOKEN",), ()], "only the download"
    assert [file.name for file in Vllm().files(spec, GPU_POD)] == [*INSTALLER, *REPOSITORY_DOWNLOADER]


def test_the_key_is_in_the_environment_and_in_no_argv() -> None:
    (step,) = Vllm().steps(SPEC, CPU_POD)
    assert step.env["VLLM_API_KEY"] == "{key}"
    assert "{key}" not in " ".join(step.argv)
    assert "--api-key" not in step.argv


def test_it_is_kept_from_the_network_and_from_telling_about_itself() -> None:
    (step,) = Vllm().steps(SPEC, CPU_POD)
    assert {name: step.env[name] for name in ("HF_HUB_OFFLINE", "VLLM_NO_USAGE_STATS", "DO_NOT_TRACK")} == {
        "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1",
    }  # fmt: skip


@pytest.mark.parametrize("gpus,visible", [((3,), "3"), ((2, 0), "2,0")])
def test_chosen_gpus_are_the_only_ones_it_sees_numbered_as_the_driver_does(gpus: tuple[int, ...], visible: str) -> None:
    (step,) = Vllm().steps(replace(SPEC, gpus=gpus), GPU_POD)
    assert step.env["CUDA_VISIBLE_DEVICES"] == visible
    assert step.env["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_several_copies_and_experts() -> None:
    argv = serve(replace(SPEC, data_parallel=8, expert_parallel=True, slots=32))
    assert argv[argv.index("--data-parallel-size") + 1] == "8"
    assert "--enable-expert-parallel" in argv
    assert argv[argv.index("--max-num-seqs") + 1] == "32"


def test_a_pod_without_a_gpu_is_told_before_gigabytes_are_fetched() -> None:
    spec = ServeSpec("tiny", model_path="/models/tiny")
    with pytest.raises(EngineUnavailable, match="no GPU") as caught:
        Vllm().check(spec, CPU_POD)
    assert "--python" in caught.value.hint
    Vllm().check(replace(spec, force=True), CPU_POD)


def test_an_old_version_needs_force() -> None:
    old = replace(SPEC, environment=replace(OWN, version="0.21.9"))
    with pytest.raises(EngineUnavailable, match=r"older than 0\.22\.0") as caught:
        Vllm().check(old, GPU_POD)
    assert "--force" in caught.value.hint
    Vllm().check(replace(old, force=True), GPU_POD)
    Vllm().check(replace(old, environment=replace(OWN, version="0.22.0")), GPU_POD)
    Vllm().check(replace(old, environment=replace(OWN, version="nightly")), GPU_POD)


@pytest.mark.parametrize(
    "changed",
    [{"gpu_layers": 3}, {"backend": "cpu"}, {"context": 0}, {"tensor_parallel": 0}, {"memory_ratio": 1.5},
     {"memory_ratio": 0.0}, {"slots": 0}, {"env": (("VLLM_API_KEY", "x"),)}, {"env": (("CUDA_VISIBLE_DEVICES", "1"),)}],
)  # fmt: skip
def test_an_option_that_cannot_work_is_refused_without_a_pod(changed: dict[str, object]) -> None:
    with pytest.raises(BadArgument) as caught:
        Vllm().check_options(replace(SPEC, model_path=None, **changed))  # type: ignore[arg-type]
    assert caught.value.hint


@pytest.mark.parametrize(
    "spec",
    [ServeSpec("x", hub=HubSource("o/r", "f.gguf"), environment=OWN), ServeSpec("x", environment=OWN),
     ServeSpec("x", model_path="/m", hub_repo=HubRepo("o/r"), environment=OWN)],
)  # fmt: skip
def test_a_model_is_one_folder_or_one_repository(spec: ServeSpec) -> None:
    with pytest.raises(BadArgument):
        Vllm().check(spec, GPU_POD)


def test_json_and_spaces_of_a_person_s_arguments_survive() -> None:
    extra = ("--hf-overrides", '{"rope": {"factor": 2.0}}', "--chat-template", "/a b/$HOME's.jinja")
    assert serve(replace(SPEC, extra=extra))[-4:] == extra


@pytest.mark.parametrize(
    "line,expected",
    [
        ("(APIServer pid=1) INFO [model.py:733] Resolved architecture: LlamaForCausalLM", Loading(LoadStage.START)),
        ("(Worker pid=1) INFO [cpu_model_runner.py:68] Starting to load model /m...", Loading(LoadStage.WEIGHTS)),
        ("Loading safetensors checkpoint shards:  50% Completed | 2/4 [00:01<00:01,  1.9it/s]",
         Loading(LoadStage.WEIGHTS, 2, 4)),
        ("INFO [backends.py:548] Dynamo bytecode transform time: 4.60 s", Loading(LoadStage.COMPILE)),
        ("Capturing CUDA graphs (decode, FULL):  14%|#4        | 5/35 [00:00<00:03, 9.01it/s]",
         Loading(LoadStage.WARM_UP, 5, 35)),
        ("(EngineCore pid=1) INFO [kv_cache_utils.py:2327] GPU KV cache size: 524,288 tokens",
         Loading(LoadStage.WARM_UP)),
        ("INFO:     Application startup complete.", Loading(LoadStage.READY)),
        ("WARNING [vllm.py:1703] Enforce eager set, disabling torch.compile, CUDAGraphs, and JIT kernel warmup.", None),
        ("INFO [launcher.py:195] Route: /health, Methods: GET", None),
        ("", None),
    ],
)  # fmt: skip
def test_a_log_line_tells_how_far_it_is(line: str, expected: Loading | None) -> None:
    assert Vllm().stage_of(line) == expected


def test_it_is_found_by_name_and_run_by_tests() -> None:
    assert engine_named("vllm").verified
    assert not any(engine_named(name).verified for name in ("sglang", "tgi", "trtllm"))
