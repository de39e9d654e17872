"""One regression test per row of the defects found in pi pods; the number in a test's name is its row.

Rows 1 to 5, 10 and 18 are about planning, 3, 15 and 18 about setting up. The others stand beside what they are about,
under the same numbers.
"""

from __future__ import annotations

import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

from podlab.catalog import recipes
from podlab.catalog.catalog import find, recipes_of
from podlab.catalog.gpus import gpu_types, parse_gpus, type_of
from podlab.catalog.planner import ServePlan, plan
from podlab.catalog.wishes import ServeWish
from podlab.engines.builds import build_named
from podlab.quoting import shell_line


def planned(model: str, gpus: str, wish: ServeWish | None = None) -> ServePlan:
    entry = find(model)
    return plan(entry, entry.geometry, recipes_of(entry), parse_gpus(gpus), wish or ServeWish())


@pytest.mark.parametrize("wish", [ServeWish(gpus=2), ServeWish(gpus=(2, 3)), ServeWish(extra=("-tp", "2")), None])
def test_row_1_the_engine_is_told_its_gpus_whatever_their_number(wish: ServeWish | None) -> None:
    found = planned("Qwen/Qwen3-Coder-30B-A3B-Instruct", "4x H100", wish)
    assert dict(found.env)["CUDA_VISIBLE_DEVICES"] == ",".join(map(str, found.gpus))
    assert len(found.gpus) == found.tensor_parallel == (2 if wish else 1)
    if wish and wish.gpus == (2, 3):
        assert found.gpus == (2, 3)


def test_row_2_the_smallest_that_fits_is_the_default() -> None:
    assert planned("Qwen/Qwen2.5-Coder-32B-Instruct", "2x H100").gpus == (0,)
    assert len(planned("openai/gpt-oss-120b", "8x H100").gpus) == 1


@pytest.mark.parametrize("form", [("--max-model-len", "8192"), ("--max-model-len=8192",)])
@pytest.mark.parametrize(
    "model, gpus",
    [("openai/gpt-oss-120b", "H100"), ("openai/gpt-oss-120b", "2x H100"), ("zai-org/GLM-4.5-Air", "2x H200"),
     ("Qwen/Qwen3-Coder-480B-A35B-Instruct", "8x H200"), ("Qwen/Qwen3-Coder-480B-A35B-Instruct-FP8", "8x H200")],
)  # fmt: skip
def test_row_4_an_override_takes_flag_and_value_together(model: str, gpus: str, form: tuple[str, ...]) -> None:
    asked = planned(model, gpus, ServeWish(context=8192, memory_ratio=0.93))
    assert (asked.context, asked.memory_ratio) == (8192, 0.93)
    values = [word for word in asked.args if not word.startswith("-")]
    assert not {"32000", "131072", "0.95", "0.94"} & set(values), "no stray value of a flag that went"

    raw = planned(model, gpus, ServeWish(extra=(*form, "--max-num-batched-tokens", "2048")))
    assert raw.context == 8192
    assert raw.args.count("--max-num-batched-tokens") == 1
    assert "1024" not in raw.args


def test_row_5_json_and_quotes_survive() -> None:
    extra = ("--speculative-config", '{"method": "mtp", "n": [1, 2]}', "--chat-template", "a 'b' $HOME `id`\n")
    assert planned("zai-org/GLM-4.5-Air", "4x H100", ServeWish(extra=extra)).args[-4:] == extra


def test_row_10_gpus_are_told_apart_token_by_token() -> None:
    pairs = [("NVIDIA H20", "NVIDIA H200"), ("NVIDIA L4", "NVIDIA L40S"), ("NVIDIA A40", "NVIDIA RTX A4000"),
             ("NVIDIA RTX A6000", "NVIDIA RTX 6000 Ada Generation")]  # fmt: skip
    for one, other in pairs:
        assert type_of(one) is not None
        assert type_of(one) != type_of(other)
    assert type_of("") is None, "a name that is not known matches nothing"
    assert not any(kind.is_one_of(("",)) for kind in gpu_types())
    mixed = planned("Qwen/Qwen3-Coder-30B-A3B-Instruct", "L4, H100")
    assert mixed.gpus == (1,), "a pod is not judged by its first GPU"


def test_row_18_no_recipe_sets_what_is_no_longer_read() -> None:
    gone = {"HF_HUB_ENABLE_HF_TRANSFER", "VLLM_ATTENTION_BACKEND", "VLLM_USE_TRTLLM_ATTENTION"}
    for recipe in recipes.packaged():
        assert not gone & dict(recipe.env).keys(), recipe.title


def test_row_3_a_version_reaches_pip_as_one_word(tmp_path: Path) -> None:
    """Unquoted, `vllm>=0.10.0` is a redirection in a shell: no floor, and a file called `=0.10.0`."""
    words = build_named("vllm==0.25.1+cu129").setup_words(home="/h", folder="/d")
    assert words[words.index("--package") + 1] == "vllm==0.25.1+cu129"
    argv = ("pip", "install", "vllm>=0.10.0", "a b", "$(touch x)")
    said = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {shell_line(argv)}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert said.stdout.splitlines() == list(argv), "what a dry run shows can be pasted"
    assert list(tmp_path.glob("*0.10*")) == list(tmp_path.glob("x")) == []


def test_row_15_an_environment_in_use_is_not_removed(tmp_path: Path) -> None:
    """Not even one that does not work any more. tests/lab/test_setup.py has the server that lives through a setup."""
    home = tmp_path / "pod"
    home.mkdir()
    program = str(resources.files("podlab.remote") / "setup.py")
    argv = [sys.executable, program, "--home", str(home), "--dir", str(home), "--engine", "demo", "--package",
            "iniconfig==2.1.0", "--min-python", "3.10", "--probe", "import iniconfig"]  # fmt: skip
    assert subprocess.run(argv, capture_output=True).returncode == 0
    env = (home / "env").resolve()
    python = str(env / "bin" / "python")
    server = subprocess.Popen([python, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        (module,) = env.glob("lib/python3*/site-packages/iniconfig/__init__.py")
        module.write_text("raise SystemExit(3)")
        again = subprocess.run(argv, capture_output=True, text=True)
        assert again.returncode == 1
        assert f"python ({server.pid}) uses it" in again.stderr
        assert server.poll() is None and (env / "podlab.json").exists()
    finally:
        server.communicate(b"\n")
    assert subprocess.run(argv, capture_output=True).returncode == 0, "nobody uses it now"
    assert module.read_text() != "raise SystemExit(3)"


def test_row_18_setup_installs_and_sets_nothing_that_is_no_longer_read() -> None:
    for text in ("vllm", "nightly", "sglang", "llamacpp"):
        words = build_named(text).setup_words(home="/h", folder="/d")
        assert not any("transfer" in word.lower() for word in words)
    sources = (Path(__file__).parents[1] / "podlab").rglob("*.py")
    assert not [path for path in sources if "HF_TRANSFER" in path.read_text().upper()]
