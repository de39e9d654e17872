"""Log lines as they are compared: without terminal codes, clocks, levels and the tags of processes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

LONGEST = 4096
"""Characters of a line that are looked at: its first and its last part, when it is longer."""

_NOISE = re.compile(
    r"\x1b\[[0-9;?]{0,20}[A-Za-z]|\x1b\][^\x07\x1b]{0,200}(?:\x07|\x1b\\)"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069]"
)
_SOURCE = re.compile(r"raise [\w.]{1,80}\(|f?[\"']")
"""Program text that a traceback shows: it holds the words of an error that need not have happened."""
_LEVEL = r"(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL|WARN|TRACE)"
_MOMENT = r"\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.,\d]{0,12}Z?"
_PREFIXES = tuple(
    re.compile(pattern)
    for pattern in (
        r"\([A-Za-z][\w -]{0,40}(?:pid|rank|ip)=[^()]{1,80}\) ?",  # vLLM's and Ray's processes
        rf"{_LEVEL} \d\d-\d\d \d\d:\d\d:\d\d (?:\[[^\]]{{1,80}}\]|[\w./]{{1,60}}:\d{{1,6}}\]) ?",  # vLLM
        rf"{_MOMENT}(?: [A-Z]{{2}}\d{{1,3}}){{0,3}}\]?(?: +{_LEVEL}\b)? ?",  # SGLang, TGI
        r"\[rank\d{1,4}\]:? ?",
        r"\[\d\d/\d\d/\d{4}-\d\d:\d\d:\d\d\] ",  # TensorRT-LLM
        r"\[TRT-LLM\] |\[RANK \d{1,4}\] |\[TensorRT-LLM\](?=\[)",
        r"\[(?P<level>I|W|E|INFO|WARNING|ERROR)\] ",
        r"\d{1,6}\.\d\d\.\d{3}\.\d{3} (?P<level>[A-Z]) +",  # llama.cpp
        r"[\w.-]{1,60} +\| ",  # docker compose
        rf"{_LEVEL}: {{1,5}}",  # uvicorn
    )
)
_OWN = re.compile(r"^podlab: [a-z_]+: ")
"""Our own mark: it says the cause, and is not shown."""
_QUIET = {"DEBUG", "INFO", "WARNING", "WARN", "TRACE", "I", "W", "D"}
_ENGINES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("sglang", re.compile(r"\bsglang\b|--mem-fraction-static")),
    ("tgi", re.compile(r"text[_-]generation[_-](?:launcher|router|server|inference)|ShardCannotStart")),
    ("trtllm", re.compile(r"tensorrt_llm|TRT-LLM|TensorRT-LLM")),
    ("llamacpp", re.compile(r"llama_model_load|llama\.cpp|common_init_|ggml_|\bsrv +\w+: |xllamacpp|\bgguf")),
    ("vllm", re.compile(r"\bvllm\b|EngineCore|VllmWorker|\(APIServer ")),
)
"""In this order: SGLang, TGI and TensorRT-LLM stand on parts of vLLM and name them."""


class Line(NamedTuple):
    """A line's words, and whether its level says that nothing is wrong."""

    text: str
    quiet: bool


def cleaned(lines: Iterable[str]) -> list[Line]:
    """Lines that say something; the marks that point into program text do not. A progress bar makes several lines."""
    return [
        line
        for whole in lines
        for part in shortened(whole).split("\r")
        if (line := _bare(_NOISE.sub("", part))).text.strip("^~ ")
    ]


def engine_of(lines: Sequence[str]) -> str | None:
    """The engine that most likely wrote this, None where nothing tells."""
    for name, pattern in _ENGINES:
        if any(pattern.search(line) for line in lines):
            return name
    return None


def shown(line: Line) -> str:
    """Its words for a person."""
    return _OWN.sub("", line.text)


def shortened(line: str) -> str:
    """A line without its middle where it is very long: what is telling stands at the ends."""
    return line if len(line) <= LONGEST else line[: LONGEST * 3 // 4] + " " + line[-LONGEST // 4 :]


def _bare(text: str) -> Line:
    """A line without what stands before its words, of which there may be several."""
    text, quiet = text.strip(), False
    for _ in range(4):
        for prefix in _PREFIXES:
            if (match := prefix.match(text)) is not None:
                level = match.groupdict().get("level")
                quiet = level in _QUIET if level else quiet
                text = text[match.end() :].strip()
                break
        else:
            break
    return Line(text, quiet or _SOURCE.match(text) is not None)
