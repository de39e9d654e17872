"""A person's words and variables reach every engine as they were written, or are refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from podlab.engines import engine_named
from podlab.engines.base import Environment, PodFacts, ServeSpec
from podlab.engines.given import FILLED_IN
from podlab.errors import BadArgument
from podlab.remote import monitor

GPU_POD = PodFacts("Linux", "x86_64", (3, 11), gpus=2)
PYTHON_ENGINES = ("vllm", "sglang", "tgi", "trtllm")


def spec(name: str) -> ServeSpec:
    return ServeSpec("tiny", model_path="/m", environment=Environment(name, "0.32.0", "/v/p", ("/v/server",)))


@pytest.mark.parametrize("token", FILLED_IN)
@pytest.mark.parametrize("name", PYTHON_ENGINES)
def test_a_word_that_the_pod_would_rewrite_is_refused(name: str, token: str) -> None:
    for changed in (
        replace(spec(name), extra=("--overrides", '{"x": "' + token + '"}')),
        replace(spec(name), extra=(f"--overrides={token}",)),
        replace(spec(name), env=(("NOTE", f"a{token}b"),)),
    ):
        with pytest.raises(BadArgument, match="which the pod would fill in"):
            engine_named(name).check_options(changed)


@pytest.mark.parametrize("token", FILLED_IN)
def test_a_variable_for_llama_cpp_that_the_pod_would_rewrite_is_refused(token: str) -> None:
    with pytest.raises(BadArgument, match="which the pod would fill in"):
        engine_named("llamacpp").check_options(ServeSpec("tiny", env=(("NOTE", token),)))


@pytest.mark.parametrize("name", PYTHON_ENGINES)
def test_other_braces_arrive_byte_for_byte(name: str) -> None:
    words = '{"rope": {"type": "yarn"}, "list": [{}], "home": "{ home }"}'
    step = engine_named(name).steps(replace(spec(name), extra=("--overrides", words), env=(("NOTE", words),)), GPU_POD)
    filling = object.__new__(monitor.Monitor)
    filling.folder, filling.run, filling.given = "/f", {"port": 1}, {"home": "/h"}
    assert filling.filled(step[-1].argv[-1]) == words
    assert filling.filled(step[-1].env["NOTE"]) == words


@pytest.mark.parametrize("variable", ["CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES"])
def test_vllm_keeps_the_numbering_of_the_gpus_to_itself(variable: str) -> None:
    with pytest.raises(BadArgument, match="podlab sets it"):
        engine_named("vllm").check_options(replace(spec("vllm"), env=((variable, "FASTEST_FIRST"),)))


@pytest.mark.parametrize("word", ["--hos", "--hos=0.0.0.0", "--api-k", "--por"])
def test_a_shortened_option_of_vllm_is_the_option_that_argparse_takes_it_for(word: str) -> None:
    known = frozenset({"--host", "--api-key", "--port", "--seed"})
    for flags in (frozenset(), known):
        environment = Environment("vllm", "0.32.0", "/v/p", ("/v/server",), flags)
        with pytest.raises(BadArgument, match="cannot be given here"):
            engine_named("vllm").check_options(replace(spec("vllm"), environment=environment, extra=(word, "x")))


def test_llama_cpp_hands_on_variables_and_refuses_another_version() -> None:
    engine = engine_named("llamacpp")
    given = ServeSpec("tiny", model_path="{dir}/m.gguf", env=(("FOO", "bar"),))
    assert engine.steps(given, GPU_POD)[-1].env == {"FOO": "bar"}
    with pytest.raises(BadArgument, match="no other version"):
        engine.check_options(replace(given, engine_version="9.9"))
