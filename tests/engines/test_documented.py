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


def argv(name: str, *extra: str) -> tuple[str, ...]:
    return engine_named(name).steps(replace(spec(name), extra=extra), POD)[-1].argv


@pytest.mark.parametrize(
    "name,extra,said",
    [
        ("sglang", ("--host", "0.0.0.0"), "127.0.0.1"), ("sglang", ("--host=0.0.0.0",), "127.0.0.1"),
        ("sglang", ("--hos", "0.0.0.0"), "127.0.0.1"), ("sglang", ("--port", "80"), "--port"),
        ("sglang", ("--api-key", "sk-1"), "can be read by everybody"), ("sglang", ("--api_key=sk-1",), "read by every"),
        ("sglang", ("--model", "x"), "own argument"), ("sglang", ("--ssl-keyfile", "x"), "tunnel encrypts"),
        ("tgi", ("--hostname", "0.0.0.0"), "127.0.0.1"), ("tgi", ("-p8080",), "--port"), ("tgi", ("-p", "1"), "--port"),
        ("tgi", ("--ngrok",), "internet"), ("tgi", ("--api-key", "sk-1"), "can be read by everybody"),
        ("trtllm", ("--host", "0.0.0.0"), "127.0.0.1"), ("trtllm", ("--served_model_name", "x"), "--name"),
        ("trtllm", ("model",), "no option of trtllm"),
    ],
)  # fmt: skip
def test_no_option_opens_it_to_the_network_or_shows_a_key(name: str, extra: tuple[str, ...], said: str) -> None:
    with pytest.raises(BadArgument, match=said):
        engine_named(name).check_options(replace(spec(name), extra=extra))
    with pytest.raises(BadArgument, match=said):
        argv(name, *extra)


@pytest.mark.parametrize(
    "name,extra,gone",
    [("sglang", ("--tp", "4"), "--tp-size"), ("sglang", ("--tensor-parallel-size=4",), "--tp-size"),
     ("sglang", ("--context_length", "1024"), "--context-length"), ("trtllm", ("--tp-size", "4"), "--tp_size"),
     ("trtllm", ("--free_gpu_memory_fraction", "0.5"), "--kv_cache_free_gpu_memory_fraction")],
)  # fmt: skip
def test_an_option_under_another_of_its_names_replaces_ours(name: str, extra: tuple[str, ...], gone: str) -> None:
    words = argv(name, *extra)
    assert gone not in words
    assert words[-len(extra) :] == extra


def test_what_is_always_on_is_given_once() -> None:
    assert argv("sglang", "--enable-metrics").count("--enable-metrics") == 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("variable", ["CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"])
def test_variables_that_choose_gpus_are_not_a_person_s(name: str, variable: str) -> None:
    with pytest.raises(BadArgument, match=variable):
        engine_named(name).check_options(replace(spec(name), env=((variable, "FASTEST_FIRST"),)))
