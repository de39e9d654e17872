"""Which parsers of vLLM belong to a family of models, told from the name of a repository.

For models that the catalog does not know; an entry of the catalog says its own. The families are those of vLLM's page
on tool calling (https://docs.vllm.ai/en/latest/features/tool_calling/) and of its recipes
(https://github.com/vllm-project/recipes).
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Parsers:
    """Names for --tool-call-parser and --reasoning-parser; None: the family has none."""

    tool: str | None = None
    reasoning: str | None = None


# The first row that is found in the name counts, so what is narrower comes first.
_FAMILIES: tuple[tuple[str, Parsers], ...] = (
    (r"gpt-oss", Parsers("openai")),
    (r"qwen3\.\d", Parsers("qwen3_coder", "qwen3")),
    (r"qwen3-coder", Parsers("qwen3_coder")),
    (r"qwen3.*(instruct|thinking)-2507|qwen3-next.*instruct", Parsers("hermes")),
    (r"qwq", Parsers("hermes", "deepseek_r1")),
    (r"qwen3", Parsers("hermes", "qwen3")),
    (r"qwen|hermes", Parsers("hermes")),
    (r"llama-?4", Parsers("llama4_pythonic")),
    (r"nemotron-3", Parsers("qwen3_coder", "nemotron_v3")),
    (r"xlam", Parsers("xlam")),
    (r"deepseek.*distill", Parsers(None, "deepseek_r1")),
    (r"llama-?3", Parsers("llama3_json")),
    (r"magistral|ministral.*reasoning", Parsers("mistral", "mistral")),
    (r"mistral|ministral|devstral|mixtral", Parsers("mistral")),
    (r"internlm", Parsers("internlm")),
    (r"jamba", Parsers("jamba")),
    (r"granite-20b-functioncalling", Parsers("granite-20b-fc")),
    (r"granite", Parsers("granite")),
    (r"deepseek-v4", Parsers("deepseek_v4", "deepseek_v4")),
    (r"deepseek-v3\.2", Parsers("deepseek_v32", "deepseek_v3")),
    (r"deepseek-v3\.1", Parsers("deepseek_v31", "deepseek_v3")),
    (r"deepseek-r1", Parsers("deepseek_v3", "deepseek_r1")),
    (r"deepseek", Parsers("deepseek_v3")),
    (r"glm-(4\.7|5)", Parsers("glm47", "glm45")),
    (r"glm-4\.[56]", Parsers("glm45", "glm45")),
    (r"kimi-k2-instruct", Parsers("kimi_k2")),
    (r"kimi-k2", Parsers("kimi_k2", "kimi_k2")),
    (r"minimax-m2", Parsers("minimax_m2", "minimax_m2")),
    (r"gemma-?4", Parsers("gemma4", "gemma4")),
    (r"seed-oss", Parsers("seed_oss")),
    (r"phi-?4-mini", Parsers("phi4_mini_json")),
    (r"phi", Parsers()),
    (r"gemma|gpt2|smollm|tinyllama|llama-?2", Parsers()),
)
FALLBACK = Parsers("hermes")
"""The format most fine-tunes were made with."""


def parsers_of(name: str) -> Parsers:
    """The parsers of a model's family, by its repository's name (OWNER/REPO); FALLBACK where no family is known."""
    text = name.rpartition("/")[2].lower().replace("_", "-")
    return next((parsers for pattern, parsers in _FAMILIES if re.search(pattern, text)), FALLBACK)
