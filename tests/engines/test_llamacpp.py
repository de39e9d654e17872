"""What the engine asks a pod to run, and what it refuses before anything is sent."""

from __future__ import annotations

import json
import runpy
import sys
from dataclasses import replace
from importlib import resources

import pytest

from podlab.catalog.sources import HubSource
from podlab.engines import engine_named
from podlab.engines.base import PodFacts, ServeSpec
from podlab.engines.llamacpp import VERSION, LlamaCpp
from podlab.engines.llamacpp_options import FLAGS, as_arguments, assignments
from podlab.engines.repository import INSTALLER
from podlab.errors import BadArgument, EngineUnavailable, NotFound

POD = PodFacts("Linux", "x86_64", (3, 8), "/usr/bin/python3")
HERE = PodFacts("Linux", "x86_64", (3, 11), sys.executable, local=True)
SPEC = ServeSpec("tiny", model_path="{dir}/tiny.gguf")
NOTHING = LlamaCpp(importable=lambda module: False)
WITH_MODULE = LlamaCpp(importable=lambda module: True)


def settings(argv: tuple[str, ...]) -> dict[str, object]:
    given = [argv[i + 1].partition("=") for i, word in enumerate(argv) if word == "--set"]
    return {name: json.loads(value) for name, _, value in given}


def test_a_bare_pod_prepares_then_serves() -> None:
    prepare, serve = NOTHING.steps(SPEC, POD)
    assert (prepare.name, serve.name) == ("prepare", "serve")
    assert prepare.argv[0] == "/usr/bin/python3"
    assert f"xllamacpp=={VERSION}" in prepare.argv
    assert serve.argv[0] == "{dir}/env/bin/python"
    assert [file.name for file in NOTHING.files(SPEC, POD)] == ["llamacpp_server.py", *INSTALLER]


def test_this_very_python_needs_no_preparation_when_it_has_the_engine() -> None:
    (serve,) = WITH_MODULE.steps(SPEC, HERE)
    assert serve.argv[0] == sys.executable
    assert [file.name for file in WITH_MODULE.files(SPEC, HERE)] == ["llamacpp_server.py"]
    assert [step.name for step in WITH_MODULE.steps(SPEC, POD)] == ["prepare", "serve"], "another machine's is not ours"


def test_a_hub_file_is_downloaded_to_where_it_is_served_from() -> None:
    hub = HubSource("Qwen/Qwen3-4B-GGUF", "Qwen3-4B-Q4_K_M.gguf", "abc", "0" * 64, 12)
    spec = ServeSpec("qwen3-4b", hub=hub, hub_token=True)
    _, download, serve = NOTHING.steps(spec, POD)
    path = "{home}/models/Qwen/Qwen3-4B-GGUF/abc/Qwen3-4B-Q4_K_M.gguf"
    assert download.argv[download.argv.index("--to") + 1] == path
    assert serve.argv[serve.argv.index("--model") + 1] == path
    assert [step.secrets for step in NOTHING.steps(spec, POD)] == [(), ("HF_TOKEN",), ()], "the engine gets no token"
    assert "download.py" in [file.name for file in NOTHING.files(spec, POD)]


def test_no_argv_holds_a_secret_or_another_address_than_loopback() -> None:
    (serve,) = WITH_MODULE.steps(SPEC, HERE)
    assert "{key}" not in " ".join(serve.argv)
    assert serve.argv[serve.argv.index("--key-file") + 1] == "{dir}/key"
    assert not any("0.0.0.0" in word or "--host" in word for word in serve.argv)


def test_options_become_attributes_and_the_context_is_per_slot() -> None:
    spec = ServeSpec("tiny", "{dir}/m.gguf", context=2048, slots=4, gpu_layers=0, threads=3, backend="cpu",
                     extra=("--flash-attn", "off", "--temp=0.2", "-b", "256", "--no-jinja"))  # fmt: skip
    (serve,) = WITH_MODULE.steps(spec, HERE)
    assert settings(serve.argv) == {
        "n_parallel": 4, "n_ctx": 8192, "n_gpu_layers": 0, "cpuparams.n_threads": 3, "sampling.temp": 0.2,
        "flash_attn_type": "LLAMA_FLASH_ATTN_TYPE_DISABLED", "n_batch": 256, "use_jinja": False,
    }  # fmt: skip
    assert serve.argv[serve.argv.index("--backend") + 1] == "cpu"


@pytest.mark.parametrize(
    "extra,said,hint",
    [
        (("--ctx-sise", "1"), "no option '--ctx-sise'", "Did you mean --ctx-size?"),
        (("--api-key", "x"), "--api-key cannot be given here", "Leave it out."),
        (("--temp", "warm"), "--temp cannot be 'warm'", "number"),
        (("--temp", "nan"), "--temp cannot be 'nan'", "number"),
        (("--top-k", "1.5"), "--top-k cannot be '1.5'", "whole number"),
        (("--ctx-size", "99999999999"), "--ctx-size cannot be", "whole number"),
        (("--flash-attn", "maybe"), "--flash-attn cannot be 'maybe'", "One of: on, off, auto."),
        (("--seed",), "--seed has no value", "--seed VALUE"),
        (("--no-jinja=yes",), "--no-jinja takes no value", "alone"),
        (("--chat-template", "x{dir}y"), "which the pod would fill in", "Reword it."),
        (("model.gguf",), "no option 'model.gguf'", "Options look like"),
    ],
)
def test_an_option_that_cannot_work_is_refused_with_the_way_out(extra: tuple[str, ...], said: str, hint: str) -> None:
    with pytest.raises(BadArgument) as caught:
        NOTHING.check(ServeSpec("tiny", "{dir}/m.gguf", extra=extra), POD)
    assert said in str(caught.value)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    "spec",
    [ServeSpec("x", "m", slots=0), ServeSpec("x", "m", context=255), ServeSpec("x", "m", threads=0), ServeSpec("x"),
     ServeSpec("x", "m", gpu_layers=-1), ServeSpec("x", "m", backend="cpu", gpu_layers=9)],
)  # fmt: skip
def test_a_spec_that_makes_no_sense_is_refused(spec: ServeSpec) -> None:
    with pytest.raises(BadArgument) as caught:
        NOTHING.steps(spec, POD)
    assert caught.value.hint


@pytest.mark.parametrize("system,arch", [("Darwin", "x86_64"), ("Linux", "armv7l"), ("FreeBSD", "amd64")])
def test_a_machine_without_a_wheel_is_refused_at_once(system: str, arch: str) -> None:
    with pytest.raises(EngineUnavailable):
        NOTHING.check(SPEC, PodFacts(system, arch, (3, 11)))


def test_metal_is_for_macs() -> None:
    with pytest.raises(EngineUnavailable):
        NOTHING.check(ServeSpec("x", "m", backend="metal"), POD)
    with pytest.raises(EngineUnavailable):  # where this very Python has the engine, too
        LlamaCpp(importable=lambda module: True).check(ServeSpec("x", "m", backend="metal"), replace(POD, local=True))
    NOTHING.check(ServeSpec("x", "m", backend="metal"), PodFacts("Darwin", "arm64", (3, 12)))


def test_engines_are_found_by_name() -> None:
    assert engine_named("llamacpp").health_path == "/health"
    with pytest.raises(NotFound):
        engine_named("llama")


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.names[0])
def test_every_flag_reaches_the_attribute_of_the_real_parameters(flag) -> None:  # type: ignore[no-untyped-def]
    xlc = pytest.importorskip("xllamacpp")
    script = runpy.run_path(str(resources.files("podlab.remote") / "llamacpp_server.py"))
    samples = {"whole": ["7"], "number": ["0.5"], "text": ["chatml"], "on": [None], "off": [None]}
    for sample in samples.get(flag.kind) or list(flag.choices):
        for name in flag.names:
            values = assignments([name] if sample is None else [name, sample])
            params = xlc.CommonParams()
            for word in list(as_arguments(values))[1::2]:
                script["apply"](params, word)
            found = params
            for part in flag.attribute.split("."):
                found = getattr(found, part)
            expected = values[flag.attribute]
            assert (found.name if isinstance(expected, str) and flag.kind == "choice" else found) == expected
