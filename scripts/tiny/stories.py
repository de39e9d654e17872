"""Short stories from a grammar: a hero, a place, a wish, a trouble, a way out, an ending.

The parts, in stories.toml, are independent of each other, so that any choice of them holds together.
"""

from __future__ import annotations

import random
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PARTS: dict[str, Any] = tomllib.loads((Path(__file__).parent / "stories.toml").read_text(encoding="utf-8"))
HEROES: list[str] = PARTS["heroes"].split()
NAMES: list[str] = PARTS["names"].split()
TRAITS: list[str] = PARTS["traits"]
PLACES: list[str] = PARTS["places"]


@dataclass(frozen=True)
class Story:
    """A story, and what one can ask about it afterwards."""

    text: str
    hero: str
    kind: str
    friend: str


def plural(noun: str) -> str:
    if irregular := PARTS["plurals"].get(noun):
        return str(irregular)
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "sh", "ch", "x")) else "s")


def article(words: str) -> str:
    return ("an " if words[0] in "aeiou" and not words.startswith("uni") else "a ") + words


def tell(
    rng: random.Random,
    kind: str | None = None,
    *,
    trait: str | None = None,
    place: str | None = None,
    name: str | None = None,
    friend_kind: str | None = None,
) -> Story:
    """One story; what is not given is drawn."""
    kind = kind or rng.choice(HEROES)
    hero, friend = rng.sample(NAMES, 2)
    if name:
        hero, friend = name, friend if friend != name else hero
    place = place or rng.choice(PLACES)
    words = {
        "h": hero,
        "f": friend,
        "k": kind,
        "k2": friend_kind or rng.choice([other for other in HEROES if other != kind]),
        "a": trait or rng.choice(TRAITS),
        "a2": rng.choice(TRAITS),
        "p": place,
        "p2": rng.choice([other for other in PLACES if other != place]),
        "t": rng.choice(PARTS["treasures"]),
    }
    order = ["openings", "wishes", "troubles", "helps", "turns", "endings"]
    if rng.random() < 0.4:
        # A short story is easier to keep coherent.
        order.remove("turns")
    return Story(_assembled(order, words, rng), hero, kind, friend)


def pair(rng: random.Random, kind: str) -> Story:
    """A story about two of a kind."""
    hero, friend = rng.sample(NAMES, 2)
    words = {
        "h": hero,
        "f": friend,
        "k": plural(kind),
        "a": rng.choice(TRAITS),
        "p": rng.choice(PLACES),
        "t": rng.choice(PARTS["treasures"]),
    }
    order = ["pair_openings", "pair_wishes", "troubles", "turns", "endings"]
    return Story(_assembled(order, words, rng), hero, kind, friend)


def _assembled(order: list[str], words: dict[str, str], rng: random.Random) -> str:
    text = " ".join(rng.choice(PARTS[part]) for part in order).format_map(words)
    for trait in TRAITS:
        text = text.replace(f" a {trait} ", f" {article(trait)} ").replace(f"A {trait} ", f"{article(trait).capitalize()} ")
    return text
