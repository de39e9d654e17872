"""What a model server's command line is, and how its log and its HTTP say ready or why not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from podlab.engines.base import Engine

NAMES = ("llamacpp", "vllm", "sglang", "tgi", "trtllm", "openai")


def engine_named(name: str) -> Engine:
    """The engine of that name. Raises NotFound."""
    from podlab.errors import NotFound

    match name:
        case "llamacpp":
            from podlab.engines.llamacpp import LlamaCpp

            return LlamaCpp()
        case "vllm":
            from podlab.engines.vllm import Vllm

            return Vllm()
        case "openai":
            from podlab.engines.openai import OpenAi

            return OpenAi()
        case "sglang" | "tgi" | "trtllm":
            from podlab.engines import documented

            return {"sglang": documented.SGLANG, "tgi": documented.TGI, "trtllm": documented.TRTLLM}[name]
    raise NotFound(f"There is no engine {name!r}.", hint=f"Engines: {', '.join(NAMES)}.")
