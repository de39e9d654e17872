"""Write the text that tiny is trained on: one chat a line, as JSON.

Everything comes from the patterns in this folder and one seed. What tests/data/tiny_questions.toml asks, and the
prompts of the notebooks listed there, never appear: a turn that contains one of them is dropped and drawn anew.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

from grammar import expand, gerund, roughen, sentence, third_person  # noqa: E402
from talk import DATA, MAKERS, TASKS, Maker, State, Turn, after_story, dont_know  # noqa: E402
from tool_chats import tool_chat  # noqa: E402

QUESTIONS = HERE.parents[1] / "tests" / "data" / "tiny_questions.toml"
TOOL_SHARE = 0.05
SYSTEM_SHARE = 0.22
# How many turns a chat has, and how often.
LENGTHS = [1] * 40 + [2] * 20 + [3] * 14 + [4] * 10 + [5] * 6 + [6] * 4 + [8] * 2 + [10]


@dataclass(frozen=True)
class Intent:
    name: str
    ask: list[str]
    do: list[str]
    then: list[str]
    say: list[str]
    topic: str | None
    weight: float
    small: bool


class Knowledge:
    """What intents.toml says, ready to be asked."""

    def __init__(self, path: Path = HERE / "intents.toml") -> None:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        self.frames: list[str] = data["frames"]
        self.before: list[str] = data["before"]
        self.after: list[str] = data["after"]
        self.lead: list[str] = data["lead"]
        self.macros: dict[str, str] = data["macros"]
        self.intents = [_intent(name, fields) for name, fields in data["intent"].items()]
        self.podlab = [i for i in self.intents if not i.small]
        self.small = [i for i in self.intents if i.small]

    def turn(self, intent: Intent, rng: random.Random) -> Turn:
        if intent.do and (not intent.ask or rng.random() < 0.6):
            ask = self._framed(expand(rng.choice(intent.do), rng, self.macros), rng)
        else:
            ask = expand(rng.choice(intent.ask), rng, self.macros)
        ask = sentence(self._wrapped(ask, intent, rng))
        if not intent.small and rng.random() < 0.08:
            ask = f"{sentence(expand(rng.choice(self.lead), rng))} {ask}"
        return Turn(ask, rng.choice(intent.say), topic=intent.topic or intent.name)

    def follow_up(self, topic: str | None, rng: random.Random) -> Turn | None:
        """`and how do I stop it?`, after a turn of the same topic."""
        intents = [i for i in self.podlab if i.topic == topic and i.then]
        if not intents:
            return None
        intent = _weighted(intents, rng)
        ask = expand(rng.choice(intent.then), rng, self.macros)
        return Turn(sentence(ask), rng.choice(intent.say), topic=intent.topic)

    def unknown_task(self, rng: random.Random) -> Turn:
        """The same frames around things that tiny knows nothing about."""
        return Turn(sentence(self._framed(rng.choice(TASKS), rng)), dont_know(rng))

    def _framed(self, phrase: str, rng: random.Random) -> str:
        frame = expand(rng.choice(self.frames), rng, self.macros)
        return frame.format(do=phrase, does=third_person(phrase), doing=gerund(phrase))

    def _wrapped(self, ask: str, intent: Intent, rng: random.Random) -> str:
        if rng.random() < (0.05 if intent.small else 0.15):
            ask = rng.choice(self.before) + ask
        if not intent.small and rng.random() < 0.1:
            end = len(ask.rstrip(".?!"))
            ask = ask[:end] + rng.choice(self.after) + ask[end:]
        return ask


def _intent(name: str, fields: dict[str, Any]) -> Intent:
    return Intent(
        name=name,
        ask=fields.get("ask", []),
        do=fields.get("do", []),
        then=fields.get("then", []),
        say=fields["say"],
        topic=fields.get("topic"),
        weight=fields.get("weight", 1.0),
        small=fields.get("small", False),
    )


def normalise(text: str) -> str:
    """Lower case, letters and digits only: how two questions are compared."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def held_out(path: Path = QUESTIONS) -> list[str]:
    """Every question and prompt that the text must not contain, normalised."""
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    turns = [turn for question in data["question"] for turn in question["turns"]]
    return sorted({normalise(text) for text in [*turns, *data["prompts"]]})


class Writer:
    """Draws chats, forever."""

    def __init__(self, seed: int, banned: list[str]) -> None:
        self.rng = random.Random(seed)
        self.knowledge = Knowledge()
        self._banned = re.compile("|".join(map(re.escape, banned)) or r"(?!)")
        self.dropped = 0

    def chats(self) -> Iterator[dict[str, Any]]:
        while True:
            chat = self._tool_chat() if self.rng.random() < TOOL_SHARE else self._chat()
            if chat is not None:
                yield chat

    def is_banned(self, text: str) -> bool:
        return self._banned.search(normalise(text)) is not None

    def _tool_chat(self) -> dict[str, Any] | None:
        messages, tools = tool_chat(self.rng)
        if any(self.is_banned(message["content"]) for message in messages):
            self.dropped += 1
            return None
        return {"messages": messages, "tools": tools}

    def _chat(self) -> dict[str, Any]:
        state = State()
        messages: list[dict[str, str]] = []
        if self.rng.random() < SYSTEM_SHARE:
            messages.append({"role": "system", "content": expand(self.rng.choice(DATA["systems"]), self.rng)})
        for _ in range(self.rng.choice(LENGTHS)):
            turn = self._allowed_turn(state)
            messages += [{"role": "user", "content": turn.ask}, {"role": "assistant", "content": turn.say}]
        return {"messages": messages}

    def _allowed_turn(self, state: State) -> Turn:
        while True:
            # A turn that is thrown away must leave no trace in the conversation.
            trial = State(**vars(state))
            turn = self._turn(trial)
            asked = roughen(turn.ask, self.rng) if not turn.exact or self.rng.random() < 0.2 else turn.ask
            if turn.exact and normalise(asked) != normalise(turn.ask):
                asked = turn.ask
            if self.is_banned(asked) or self.is_banned(turn.say):
                self.dropped += 1
                continue
            vars(state).update(vars(trial), topic=turn.topic, last_asked=asked)
            return Turn(asked, turn.say, turn.exact, turn.topic)

    def _turn(self, state: State) -> Turn:
        rng = self.rng
        if state.topic and rng.random() < 0.3:
            followed = after_story(rng, state) or self.knowledge.follow_up(state.topic, rng)
            if followed:
                return followed
        share = rng.random()
        if share < 0.42:
            return self.knowledge.turn(_weighted(self.knowledge.podlab, rng), rng)
        if share < 0.54:
            return self.knowledge.turn(_weighted(self.knowledge.small, rng), rng)
        if share < 0.57:
            return self.knowledge.unknown_task(rng)
        makers = [maker for maker, _ in MAKERS]
        maker: Maker = rng.choices(makers, [weight for _, weight in MAKERS])[0]
        return maker(rng, state) or self._turn(state)


def _weighted(intents: list[Intent], rng: random.Random) -> Intent:
    return rng.choices(intents, [intent.weight for intent in intents])[0]


def leaks(texts: Iterator[str], banned: list[str]) -> list[str]:
    """The held-out questions that occur in `texts`: should be empty."""
    wanted = re.compile("|".join(map(re.escape, banned)))
    return sorted({found.group() for text in texts if (found := wanted.search(normalise(text)))})


def generate(seed: int, chats: int) -> Iterator[dict[str, Any]]:
    """The corpus, as `train.py` reads it."""
    writer = Writer(seed, held_out())
    for chat, _ in zip(writer.chats(), range(chats), strict=False):
        yield chat


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="the file to write, one chat a line")
    parser.add_argument("--chats", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with args.output.open("w", encoding="utf-8") as file:
        for chat in generate(args.seed, args.chats):
            file.write(json.dumps(chat, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
