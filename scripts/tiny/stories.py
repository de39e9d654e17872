"""Short stories from a grammar: a hero, a place, a wish, a trouble, a way out, an ending.

The parts are in stories.toml. Where the hero lives, and what goes wrong there, follows from what the hero is; what the
hero wants, and how it ends, follows from how the hero is.
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
TRAITS: list[str] = PARTS["traits"].split()
SETTINGS: list[dict[str, Any]] = PARTS["settings"]
CHARACTERS: list[dict[str, Any]] = PARTS["characters"]
PLACES: list[str] = [place for setting in SETTINGS for place in setting["places"]]


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
    setting = _setting(kind, place, rng)
    character = rng.choice([c for c in CHARACTERS if trait is None or trait in c["traits"].split()])
    place = place or rng.choice(setting["places"])
    words = {
        "h": hero,
        "f": friend,
        "k": kind,
        "k2": friend_kind or rng.choice([other for other in HEROES if other != kind]),
        "a": trait or rng.choice(character["traits"].split()),
        "a2": rng.choice(TRAITS),
        "p": place,
        "p2": rng.choice([other for other in PLACES if other != place]),
        "t": rng.choice(PARTS["treasures"]),
    }
    order = [PARTS["openings"], character["wishes"], setting["troubles"], PARTS["helps"]]
    if rng.random() < 0.6:
        order.append(PARTS["turns"])
    return Story(_assembled([*order, character["endings"]], words, rng), hero, kind, friend)


def _setting(kind: str, place: str | None, rng: random.Random) -> dict[str, Any]:
    """Where the story plays: at the place that was asked for, else where the hero is at home."""
    if place:
        return next(setting for setting in SETTINGS if place in setting["places"])
    return rng.choice([s for s in SETTINGS if kind in s["kinds"].split()] or SETTINGS)


def invented(rng: random.Random) -> str:
    """A word that nobody has heard before."""
    word = "".join(rng.choice(PARTS["syllables"].split()) for _ in range(rng.randint(2, 3)))
    return word + (rng.choice(PARTS["finals"].split()) if rng.random() < 0.5 else "")


def pair(rng: random.Random, kind: str) -> Story:
    """A story about two of a kind."""
    hero, friend = rng.sample(NAMES, 2)
    setting, character = _setting(kind, None, rng), rng.choice(CHARACTERS)
    words = {
        "h": hero,
        "f": friend,
        "k": plural(kind),
        "a": rng.choice(TRAITS),
        "p": rng.choice(setting["places"]),
        "t": rng.choice(PARTS["treasures"]),
    }
    order = [PARTS["pair_openings"], PARTS["pair_wishes"], setting["troubles"], PARTS["turns"], character["endings"]]
    return Story(_assembled(order, words, rng), hero, kind, friend)


def _assembled(order: list[list[str]], words: dict[str, str], rng: random.Random) -> str:
    text = " ".join(rng.choice(part) for part in order).format_map(words)
    for trait in TRAITS:
        text = text.replace(f" a {trait} ", f" {article(trait)} ").replace(
            f"A {trait} ", f"{article(trait).capitalize()} "
        )
    return text
