"""Models made GGUF files on a pod: llama.cpp says of each what transformers says of the weights it was made of."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from podlab.commands.drive import drive
from podlab.errors import EngineUnavailable
from podlab.lab import conversion, pods, weights
from podlab.lab.workspace import Workspace
from tests import vllm_cpu
from tests.audiences import Silent

LOCAL = pods.find("local")
PROGRAMS = Path(__file__).parents[1] / "programs"
CONVERTER = Path(__file__).parents[2] / "podlab" / "remote" / "convert.py"
NEAR = 0.05
"""Of a logarithm of a probability: llama.cpp keeps keys and values in 16 bits."""
REFUSED: list[tuple[str, str, dict[str, Any] | bytes, str]] = [
    (
        "qwen3",
        "config.json",
        {"architectures": ["MambaForCausalLM"]},
        "it is a MambaForCausalLM, and this",
    ),
    (
        "qwen3",
        "config.json",
        {"sliding_window": 64, "use_sliding_window": True},
        "its sliding_window is 64",
    ),
    ("qwen3", "config.json", {"layer_types": ["full_attention", "sliding_attention"]}, "its layer_types"),
    ("qwen3", "config.json", {"rope_parameters": {"rope_type": "longrope"}}, "its positions are turned by"),
    ("qwen3", "config.json", {"architectures": ["Qwen2ForCausalLM"]}, "which no qwen2 has"),
    ("qwen3", "config.json", {"num_hidden_layers": None}, "config.json does not say its shape"),
    ("qwen3", "tokenizer.json", {"pre_tokenizer": {"type": "Whitespace"}}, "cuts text in a way that is not known"),
    ("qwen3", "tokenizer.json", {"normalizer": {"type": "Lowercase"}}, "not byte-level BPE"),
    ("spm", "tokenizer.model", b"\x0a\x7fhalf", "tokenizer.model is damaged"),
    ("spm", "tokenizer.model", b"\x12\x02\x18\x01", "SentencePiece model is not BPE"),
    ("gemma3", "config.json", {"final_logit_softcapping": 30.0}, "its final_logit_softcapping is 30.0"),
    ("gemma3", "config.json", {"layer_types": ["full_attention"] * 7}, "its layer_types"),
]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder of models of random weights, each with a reference beside it."""
    pytest.importorskip("xllamacpp", reason="install the engine: pip install 'podlab[local]'")
    if vllm_cpu.PYTHON is None:
        pytest.skip(vllm_cpu.WHY_SKIPPED)
    run([vllm_cpu.PYTHON, str(PROGRAMS / "random_models.py"), str(tmp_path / "made")])
    return tmp_path / "made"


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def converted(workspace: Workspace, folder: Path) -> str:
    """What `model convert` makes of a model that is put on this computer for it."""
    facts = workspace.side(LOCAL).hello()
    shutil.copytree(folder, Path(facts.home) / "models" / folder.name)
    found = weights.shelf(workspace, LOCAL, facts)
    (model,) = found.models
    path = conversion.target(found, model, "f32")
    try:
        return drive(conversion.convert(workspace, LOCAL, facts, model, "f32", path), Silent()).path
    except EngineUnavailable as error:
        if "package index" in error.message:
            pytest.skip("no package index to install gguf from")
        raise


def said(pairs: list[tuple[str, Path]]) -> list[dict[str, Any]]:
    """What llama.cpp says of each file, asked as the reference beside it was made."""
    words = [word for file, folder in pairs for word in (file, str(folder / "reference.json"))]
    lines = run([sys.executable, str(PROGRAMS / "llamacpp_says.py"), *words]).splitlines()
    return [json.loads(line[5:]) for line in lines if line.startswith("SAID ")]


@pytest.mark.timeout(600)
def test_each_kind_says_what_its_weights_say_and_what_is_not_known_is_refused(workspace: Workspace, made: Path) -> None:
    """Greedy text, probabilities, tokens: biases, norms of heads, tied embeddings, scaled positions, sliding windows,
    ways of cutting text."""
    folders = sorted(made.iterdir())
    pairs = [(converted(workspace, folders[0]), folders[0])]
    (python,) = (Path(workspace.side(LOCAL).hello().home) / "envs").glob("gguf-*/bin/python")
    alone = [str(python), str(CONVERTER), "--dir", str(made.parent), "--name", "it", "--quant", "f32"]
    for folder in folders[1:]:
        file = f"{made.parent}/{folder.name}.gguf"
        run([*alone, "--model", str(folder), "--to", file])
        pairs.append((file, folder))
    for (file, folder), told in zip(pairs, said(pairs), strict=True):
        reference = json.loads((folder / "reference.json").read_text())
        assert told["greedy"] == reference["greedy"], file
        assert told["tokens"] == reference["tokens"], file
        for token, logarithm in reference["likeliest"].items():
            assert told["likeliest"][token] == pytest.approx(logarithm, abs=NEAR), file

    for kind, file, change, why in REFUSED:
        folder = made.parent / "changed"
        shutil.copytree(made / kind, folder)
        if isinstance(change, dict):
            (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), **change}))
        else:
            (folder / file).write_bytes(change)
        done = subprocess.run(
            [*alone, "--model", str(folder), "--to", f"{made.parent}/no.gguf"], capture_output=True, text=True
        )
        assert done.returncode == 1 and why in done.stderr, done.stderr
        assert "Traceback" not in done.stderr and not os.path.exists(f"{made.parent}/no.gguf")
        shutil.rmtree(folder)
