"""Engines that follow their documentation: their command lines, and that they are said to be unverified."""

from __future__ import annotations

from dataclasses import replace

import pytest

from podlab.catalog.sources import HubRepo
from podlab.engines import engine_named
from podlab.engines.base import Environment, PodFacts, ServeSpec
from podlab.errors import BadArgument, EngineUnavailable

POD = PodFacts("Linux", "x86_64", (3, 11), gpus=2)
NAMES = ("sglang", "tgi", "trtllm")


def spec(name: str) -> ServeSpec:
    own = Environment(name, "1.0", "/v/bin/python", ("/v/bin/server",), adopted=True)
    return ServeSpec("tiny", model_path="/m", environment=own, tensor_parallel=2, context=4096, memory_ratio=0.8,
                     gpus=(1, 0), extra=("--extra", '{"a": 1}'))  # fmt: skip


@pytest.mark.parametrize(
    "name,argv",
    [
        ("sglang", ("--model-path", "/m", "--served-model-name", "tiny", "--host", "127.0.0.1", "--port", "{port}",
                    "--context-length", "4096", "--tp-size", "2", "--mem-fraction-static", "0.8", "--enable-metrics")),
        ("tgi", ("--model-id", "/m", "--served-model-name", "tiny", "--hostname", "127.0.0.1", "--port", "{port}",
                 "--max-total-tokens", "4096", "--num-shard", "2", "--cuda-memory-fraction", "0.8")),
        ("trtllm", ("/m", "--served_model_name", "tiny", "--host", "127.0.0.1", "--port", "{port}", "--max_seq_len",
                    "4096", "--tp_size", "2", "--kv_cache_free_gpu_memory_fraction", "0.8")),
    ],
)  # fmt: skip
def test_its_command_line_is_the_documented_one(name: str, argv: tuple[str, ...]) -> None:
    (step,) = engine_named(name).steps(spec(name), POD)
    assert step.argv == ("/v/bin/server", *argv, "--extra", '{"a": 1}')
    assert step.env["CUDA_VISIBLE_DEVICES"] == "1,0"
    assert "{key}" not in str(step)


@pytest.mark.parametrize("name", NAMES)
def test_it_says_that_nobody_has_run_it(name: str) -> None:
    engine = engine_named(name)
    assert not engine.verified
    assert any("no test of podlab has run it" in note for note in engine.notes(spec(name)))


@pytest.mark.parametrize("name", NAMES)
def test_it_is_not_installed_and_needs_a_gpu(name: str) -> None:
    engine = engine_named(name)
    with pytest.raises(EngineUnavailable, match="does not install"):
        engine.check(replace(spec(name), environment=None), POD)
    with pytest.raises(EngineUnavailable, match="GPU"):
        engine.check(spec(name), replace(POD, gpus=0))
    with pytest.raises(BadArgument):
        engine.check(replace(spec(name), hub_repo=HubRepo("o/r")), POD)
    with pytest.raises(BadArgument):
        engine.check_options(replace(spec(name), gpu_layers=2))
