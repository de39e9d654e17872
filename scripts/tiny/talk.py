"""Turns whose answer depends on what was said: stories, names, sums, echoes, and the honest "I do not know".

Every function here draws one turn, given the state of the conversation, or gives None where it makes no sense.
The phrasings are in talk.toml.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import stories
from grammar import expand, sentence

DATA: dict[str, Any] = tomllib.loads((Path(__file__).parent / "talk.toml").read_text(encoding="utf-8"))
WORDS = DATA["words"]
PEOPLE: list[str] = WORDS["people"].split()
COLOURS: list[str] = WORDS["colours"].split()
NUMBERS: list[str] = WORDS["numbers"].split()
DAYS: list[str] = WORDS["days"].split()
TOPICS: list[str] = DATA["unknown"]["topics"].replace("\n", "").split("|")
TASKS: list[str] = DATA["unknown"]["tasks"].replace("\n", "").split("|")


@dataclass
class State:
    """What a conversation has brought so far."""

    name: str | None = None
    colour: str | None = None
    last_asked: str | None = None
    story: stories.Story | None = None
    topic: str | None = None


@dataclass(frozen=True)
class Turn:
    """`ask` is what the person means to type; `exact` forbids typing errors where the answer depends on the letters."""

    ask: str
    say: str
    exact: bool = False
    topic: str | None = None


Maker = Callable[[random.Random, State], Turn | None]


def asked(key: str, rng: random.Random, **words: str) -> str:
    """One of the phrasings of talk.toml, filled in."""
    return sentence(expand(rng.choice(DATA["ask"][key]), rng).format(**words))


def somebody(rng: random.Random) -> str:
    """A name; often one that can only be copied."""
    return rng.choice(PEOPLE) if rng.random() < 0.6 else stories.invented(rng).capitalize()


def subject(rng: random.Random) -> tuple[str, str, dict[str, str]]:
    """What a story is asked to be about: the words, the kind of hero, and what else the story must keep to."""
    kind = rng.choice(stories.HEROES) if rng.random() < 0.9 else stories.invented(rng)
    style = rng.random()
    if style < 0.55:
        return stories.article(kind), kind, {}
    if style < 0.72:
        trait = rng.choice(stories.TRAITS)
        return stories.article(f"{trait} {kind}"), kind, {"trait": trait}
    if style < 0.82:
        place = rng.choice(stories.PLACES)
        where = rng.choice(["who lives near", "who lives by", "near", "by", "that lives by"])
        return f"{stories.article(kind)} {where} {place}", kind, {"place": place}
    if style < 0.92:
        name = somebody(rng)
        return (
            f"{stories.article(kind)} {rng.choice(['named', 'called', 'with the name'])} {name}",
            kind,
            {"name": name},
        )
    friend = rng.choice([k for k in stories.HEROES if k != kind])
    return f"{stories.article(kind)} and {stories.article(friend)}", kind, {"friend_kind": friend}


def story(rng: random.Random, state: State) -> Turn:
    if rng.random() < 0.22:
        told = stories.tell(rng)
        ask = asked("story_any", rng)
    elif rng.random() < 0.1:
        kind = rng.choice(stories.HEROES)
        told = stories.pair(rng, kind)
        many = rng.choice(["two {}", "two little {}", "{}", "a pair of {}", "two small {}", "some {}"])
        ask = asked("story_two", rng, x=many.format(stories.plural(kind)))
    else:
        words, kind, wishes = subject(rng)
        told = stories.tell(rng, kind, **wishes)
        ask = asked("story_about", rng, x=words)
    state.story = told
    return Turn(ask, told.text, topic="story")


def after_story(rng: random.Random, state: State) -> Turn | None:
    """What is said once a story was told: one more, or a question about it."""
    told = state.story
    if told is None or state.topic != "story":
        return None
    choice = rng.random()
    if choice < 0.25:
        state.story = stories.tell(rng)
        return Turn(asked("story_more", rng), state.story.text, topic="story")
    if choice < 0.65:
        words, kind, wishes = subject(rng)
        state.story = stories.tell(rng, kind, **wishes)
        return Turn(asked("story_more_about", rng, x=words), state.story.text, topic="story")
    if choice < 0.85:
        return Turn(asked("hero_name", rng, k=told.kind), f"The {told.kind} was called {told.hero}.", topic="story")
    if told.friend in told.text:
        ask = asked("friend_name", rng, k=told.kind, h=told.hero)
        return Turn(ask, f"The friend was called {told.friend}.", topic="story")
    return None


def name_turn(rng: random.Random, state: State) -> Turn:
    if rng.random() < (0.75 if state.name else 0.15):
        say = f"Your name is {state.name}." if state.name else "You have not told me your name yet."
        return Turn(asked("recall_name", rng), say)
    state.name = somebody(rng)
    return Turn(asked("tell_name", rng, n=state.name), f"Nice to meet you, {state.name}!", exact=True)


def colour_turn(rng: random.Random, state: State) -> Turn:
    if state.colour and rng.random() < 0.7:
        return Turn(asked("recall_colour", rng), f"Your favourite colour is {state.colour}.")
    if rng.random() < 0.3:
        state.colour = rng.choice(COLOURS)
        say = f"{state.colour.capitalize()} is a lovely colour."
        return Turn(asked("tell_colour", rng, x=state.colour), say, exact=True)
    if rng.random() < 0.3:
        return Turn(asked("some_colours", rng), "Red, blue, green, yellow, black and white.")
    thing, colour = rng.choice(list(WORDS["colour_of"].items()))
    return Turn(asked("colour_of", rng, x=thing), f"{thing.capitalize()} is {colour}.")


def arithmetic(rng: random.Random, state: State) -> Turn:
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    kind = rng.random()
    if kind < 0.55:
        word, sign, result = "plus", rng.choice(["+", "+", " + ", " plus ", " plus ", " and "]), a + b
    elif kind < 0.85:
        a, b = max(a, b), min(a, b)
        word, sign, result = "minus", rng.choice(["-", " - ", " minus ", " minus "]), a - b
    else:
        a, b = rng.randint(1, 5), rng.randint(1, 5)
        word, sign, result = "times", rng.choice(["*", " * ", " times ", "x"]), a * b
    spelled = rng.random() < 0.3 and sign.strip().isalpha() and len(sign) > 1
    left, right = (NUMBERS[a], NUMBERS[b]) if spelled else (str(a), str(b))
    if word == "plus" and rng.random() < 0.15:
        ask = asked("add_two", rng, a=left, b=right)
    else:
        ask = asked("sum", rng, s=f"{left}{sign}{right}")
    return Turn(ask, f"{a} {word} {b} is {result}.", exact=True)


def counting(rng: random.Random, state: State) -> Turn:
    if rng.random() < 0.8:
        top = rng.randint(2, 12)
        shown = NUMBERS[top] if top <= 10 and rng.random() < 0.4 else str(top)
        return Turn(asked("count", rng, x=shown), ", ".join(map(str, range(1, top + 1))) + ".", exact=True)
    top = rng.randint(3, 10)
    return Turn(asked("count_down", rng, x=str(top)), ", ".join(map(str, range(top, 0, -1))) + ".", exact=True)


def last_asked(rng: random.Random, state: State) -> Turn | None:
    if state.last_asked is None and rng.random() < 0.7:
        return None
    say = f'You just asked me: "{state.last_asked}"' if state.last_asked else "You have not asked me anything yet."
    return Turn(asked("last_asked", rng), say)


def echo(rng: random.Random, state: State) -> Turn:
    """Say what is asked for: it teaches the model to copy, which names and stories need too."""
    if rng.random() < 0.35:
        name = somebody(rng)
        return Turn(asked("greet_name", rng, n=name), f"Hello, {name}!", exact=True)
    places = [place.removeprefix("the ") for place in stories.PLACES]
    pool = stories.HEROES + stories.TRAITS + COLOURS + places + NUMBERS + PEOPLE
    words = (rng.choice(pool) if rng.random() < 0.7 else stories.invented(rng) for _ in range(rng.randint(1, 6)))
    phrase = " ".join(words)
    quote = rng.choice(["", "", '"'])
    return Turn(asked("echo", rng, p=f"{quote}{phrase}{quote}"), phrase, exact=True)


def verb(rng: random.Random, state: State) -> Turn:
    name, meaning = rng.choice(list(DATA["verbs"].items()))
    shown = rng.choice([name, name, f"`{name}`", name.lstrip("%"), name.removeprefix("podlab ")])
    if shown in ("pod", "model", "chat"):
        # Without their mark these are words, with meanings of their own.
        shown = name
    return Turn(asked("verb", rng, v=shown), f"`{name}` {meaning}.", exact=True)


def knowledge(rng: random.Random, state: State) -> Turn:
    """The few facts of the world that fit in."""
    kind = rng.randrange(4)
    if kind == 0:
        country, city = rng.choice(list(WORDS["capitals"].items()))
        return Turn(asked("capital", rng, x=country), f"The capital of {country} is {city}.", exact=True)
    if kind == 1:
        pair = list(rng.choice(list(WORDS["opposites"].items())))
        rng.shuffle(pair)
        return Turn(asked("opposite", rng, x=pair[0]), f"The opposite of {pair[0]} is {pair[1]}.")
    if kind == 2:
        animal, sound = rng.choice(list(WORDS["sounds"].items()))
        name = stories.article(animal)
        return Turn(asked("sound", rng, x=name), f"{sentence(name)} says {sound}.")
    if rng.random() < 0.3:
        return Turn(asked("days", rng), ", ".join(DAYS[:-1]) + f" and {DAYS[-1]}.")
    i = rng.randrange(len(DAYS))
    return Turn(asked("day_after", rng, x=DAYS[i]), f"After {DAYS[i]} comes {DAYS[(i + 1) % len(DAYS)]}.")


def unknown(rng: random.Random, state: State) -> Turn:
    """Anything else: the honest answer."""
    topic = rng.choice(TOPICS)
    if rng.random() < 0.3:
        topic = f"{rng.choice(DATA['unknown']['aspects'])} {topic}"
    return Turn(asked("unknown", rng, t=topic, d=rng.choice(DATA["unknown"]["details"])), dont_know(rng))


def dont_know(rng: random.Random) -> str:
    say: str = rng.choice(DATA["unknown"]["say"])
    return say


MAKERS: list[tuple[Maker, float]] = [
    (story, 8), (name_turn, 7), (last_asked, 8), (verb, 5), (unknown, 6), (echo, 5), (arithmetic, 7),
    (counting, 3), (colour_turn, 2), (knowledge, 2),
]  # fmt: skip
