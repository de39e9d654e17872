"""What would fit, in the words of `model start`: the arithmetic itself speaks those of `model fit`."""

from __future__ import annotations

from collections.abc import Sequence

from podlab.catalog.fit import Nearest

_ENGINE_FLAGS = {"--cache fp8": "-- --kv-cache-dtype fp8", "--expert-parallel": "-- --enable-expert-parallel"}
"""What `start` has no option for, as vLLM's own flags."""


def ways(nearest: Sequence[Nearest], engine: str, gpus_there: int, most: int) -> str:
    """The first `most` changes with which it would fit, as a person can type them; empty when there is none.

    `gpus_there` is how many GPUs the pod has: more of them are another pod.
    """
    said = (_said(change, engine, gpus_there) for change in nearest)
    return " or ".join([words for words in said if words][:most])


def _said(change: Nearest, engine: str, gpus_there: int) -> str:
    if change.text.startswith("--gpus "):
        if change.gpus <= gpus_there:
            return f"--gpus {change.gpus}"
        return f"{change.text.removeprefix('--gpus ')} on another pod"
    if change.text in _ENGINE_FLAGS:
        return _ENGINE_FLAGS[change.text] if engine == "vllm" else ""
    return change.text.replace("--concurrency", "--slots")
