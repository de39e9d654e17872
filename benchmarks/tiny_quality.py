"""How well does the built-in model answer? Fifty held-out questions, asked of a real llama.cpp.

    python benchmarks/tiny_quality.py                  the failures and the score
    python benchmarks/tiny_quality.py --at-least 42    exit 1 below that
    python benchmarks/tiny_quality.py --prompts        what it says to the prompts of the notebooks
    python benchmarks/tiny_quality.py --self-check     proves that the training text contains none of them

Greedy decoding, at most 96 tokens an answer. The questions and what counts as right: tests/data/tiny_questions.toml.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import signal
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "podlab" / "catalog" / "data" / "tiny-q8_0.gguf"
QUESTIONS = ROOT / "tests" / "data" / "tiny_questions.toml"
CORPUS_SCRIPTS = ROOT / "scripts" / "tiny"
MAX_TOKENS = 96
START_TIMEOUT_S = 60
ANSWER_TIMEOUT_S = 60

Messages = Sequence[dict[str, str]]
Ask = Callable[[Messages], str]
"""Given the conversation so far, which ends with a user's message: the answer."""


@dataclass(frozen=True)
class Question:
    """One conversation whose last answer is judged; the patterns are regular expressions, case ignored."""

    turns: list[str]
    all: list[str] = field(default_factory=list)
    any: list[str] = field(default_factory=list)
    none: list[str] = field(default_factory=list)
    min_words: int = 1

    def accepts(self, answer: str) -> bool:
        def found(pattern: str) -> bool:
            return re.search(pattern, answer, re.IGNORECASE) is not None

        return (
            len(answer.split()) >= self.min_words
            and all(map(found, self.all))
            and (not self.any or any(map(found, self.any)))
            and not any(map(found, self.none))
            and not repeats_itself(answer)
        )


@dataclass(frozen=True)
class Failure:
    question: Question
    answer: str


def repeats_itself(answer: str) -> bool:
    """Small models fall into loops; an answer that says a whole sentence twice is never right."""
    sentences = [s.strip().lower() for s in re.split(r"[.!?]\s", answer) if len(s.split()) > 3]
    return len(sentences) != len(set(sentences))


def load_questions(path: Path = QUESTIONS) -> list[Question]:
    return [Question(**fields) for fields in _read(path)["question"]]


def load_prompts(path: Path = QUESTIONS) -> list[str]:
    prompts: list[str] = _read(path)["prompts"]
    return prompts


def _read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def converse(turns: Sequence[str], ask: Ask) -> list[dict[str, str]]:
    """Ask every turn in order, each with the whole conversation before it."""
    messages: list[dict[str, str]] = []
    for turn in turns:
        messages.append({"role": "user", "content": turn})
        messages.append({"role": "assistant", "content": ask(messages)})
    return messages


def score(questions: Sequence[Question], ask: Ask) -> tuple[int, list[Failure]]:
    """How many questions are answered right, and what was said to the others."""
    answers = [(question, converse(question.turns, ask)[-1]["content"]) for question in questions]
    failures = [Failure(question, answer) for question, answer in answers if not question.accepts(answer)]
    return len(answers) - len(failures), failures


def serve(model: Path) -> None:
    """The child process: llama.cpp's own server on a free port, until it is told to end."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = 2048
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = 2
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    signal.pause()


@contextlib.contextmanager
def running(model: Path) -> Iterator[Ask]:
    """A served model as an `Ask`."""
    command = [sys.executable, __file__, "--serve", str(model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        try:
            assert child.stdout is not None
            address = next((line.strip() for line in child.stdout if line.startswith("http")), None)
            if address is None:
                raise SystemExit(f"llama.cpp did not start with {model}")
            yield lambda messages: _complete(address, messages)
        finally:
            child.terminate()


def _complete(address: str, messages: Messages) -> str:
    body = {"model": "tiny", "messages": list(messages), "temperature": 0, "max_tokens": MAX_TOKENS}
    request = urllib.request.Request(
        f"{address}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S) as response:
        text: str = json.load(response)["choices"][0]["message"]["content"]
    return text


def self_check(seed: int, chats: int) -> list[str]:
    """The held-out questions and prompts that occur in the training text."""
    sys.path.insert(0, str(CORPUS_SCRIPTS))
    import corpus

    texts = (m["content"] for chat in corpus.generate(seed, chats) for m in chat["messages"])
    return corpus.leaks(texts, corpus.held_out())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--questions", type=Path, default=QUESTIONS)
    parser.add_argument("--at-least", type=int, default=0, metavar="N", help="exit 1 if fewer are right")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument("--prompts", action="store_true", help="show the answers to the prompts of the notebooks")
    parser.add_argument("--self-check", action="store_true", help="look for the questions in the training text")
    parser.add_argument("--seed", type=int, default=1, help="of the training text")
    parser.add_argument("--chats", type=int, default=80_000, help="of the training text")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve)
        return 0
    if args.self_check:
        found = self_check(args.seed, args.chats)
        print(
            json.dumps({"leaks": found}) if args.json else f"{len(found)} of the held-out texts in the corpus {found}"
        )
        return 1 if found else 0
    with running(args.model) as ask:
        if args.prompts:
            show_prompts(load_prompts(args.questions), ask)
            return 0
        questions = load_questions(args.questions)
        passed, failures = score(questions, ask)
    report(passed, failures, len(questions), as_json=args.json)
    return 1 if passed < args.at_least else 0


def show_prompts(prompts: Sequence[str], ask: Ask) -> None:
    """Each prompt on its own, then all of them in one conversation, as a notebook would."""
    for prompt in prompts:
        print(f"> {prompt}\n{converse([prompt], ask)[-1]['content']}\n")
    print("--- in one conversation ---\n")
    for message in converse(prompts, ask):
        print(f"> {message['content']}" if message["role"] == "user" else f"{message['content']}\n")


def report(passed: int, failures: Sequence[Failure], total: int, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"passed": passed, "total": total, "failures": [asdict(f) for f in failures]}, indent=2))
        return
    for failure in failures:
        print(f"> {' | '.join(failure.question.turns)}\n  {failure.answer}\n")
    print(f"{passed}/{total}")


if __name__ == "__main__":
    sys.exit(main())
