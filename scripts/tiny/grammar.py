"""A pattern language for phrasings: `(a|b)` is a choice, `[x]` is optional, `<name>` is a macro.

`how (do|can) i stop <model>[ please]` stands for hundreds of sentences; `expand` draws one of them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping

_VOWELS = "aeiou"
# Verbs whose last consonant doubles before -ing.
_DOUBLING = {"stop", "shut", "get", "run", "put", "set", "quit", "begin", "cut", "drop", "swap", "dig", "plug", "let"}
_NEIGHBOURS = {"a": "s", "e": "r", "i": "o", "o": "p", "t": "y", "n": "m", "s": "d", "r": "t", "l": "k", "h": "j"}


def expand(pattern: str, rng: random.Random, macros: Mapping[str, str] | None = None) -> str:
    """One sentence of those `pattern` stands for."""
    text, rest = _alternatives(pattern, 0, rng, macros or {}, closing="")
    if rest != len(pattern):
        raise ValueError(f"unbalanced pattern: {pattern!r}")
    return re.sub(r"\s+", " ", text).strip()


def _alternatives(p: str, i: int, rng: random.Random, macros: Mapping[str, str], closing: str) -> tuple[str, int]:
    """Parse `a|b|c` up to `closing`; return one of the alternatives and the index of the closing mark."""
    options: list[str] = []
    parts: list[str] = []
    while i < len(p) and p[i] != closing:
        mark = p[i]
        if mark == "|" and closing:
            options.append("".join(parts))
            parts = []
        elif mark in "([":
            inner, i = _alternatives(p, i + 1, rng, macros, ")" if mark == "(" else "]")
            if i >= len(p):
                raise ValueError(f"unbalanced pattern: {p!r}")
            parts.append(inner if mark == "(" or rng.random() < 0.5 else "")
        elif mark == "<":
            end = p.index(">", i)
            parts.append(expand_macro(p[i + 1 : end], rng, macros))
            i = end
        else:
            parts.append(mark)
        i += 1
    options.append("".join(parts))
    return rng.choice(options), i


def expand_macro(name: str, rng: random.Random, macros: Mapping[str, str]) -> str:
    return _alternatives(f"{macros[name]})", 0, rng, macros, closing=")")[0]


def third_person(phrase: str) -> str:
    """`stop the model` -> `stops the model`."""
    verb, _, rest = phrase.partition(" ")
    if verb in ("be", "have"):
        return f"{ {'be': 'is', 'have': 'has'}[verb] } {rest}".strip()
    if verb.endswith("y") and verb[-2] not in _VOWELS:
        verb = verb[:-1] + "ies"
    else:
        verb += "es" if verb.endswith(("s", "sh", "ch", "x", "o")) else "s"
    return f"{verb} {rest}".strip()


def gerund(phrase: str) -> str:
    """`stop the model` -> `stopping the model`."""
    verb, _, rest = phrase.partition(" ")
    if verb in _DOUBLING:
        verb += verb[-1]
    elif verb.endswith("e") and not verb.endswith("ee") and verb != "be":
        verb = verb[:-1]
    return f"{verb}ing {rest}".strip()


def sentence(text: str) -> str:
    """Capital letters where English wants them."""
    text = re.sub(r"\bi\b(?!\.)", "I", text)
    return text if text.startswith("podlab") else text[:1].upper() + text[1:]


def roughen(text: str, rng: random.Random) -> str:
    """What people type: lower case, missing punctuation, contractions, now and then a typing error."""
    if rng.random() < 0.35:
        text = re.sub(r"\b([Ww]hat|[Ww]here|[Hh]ow|[Tt]hat|[Ww]ho) is\b", r"\1's", text)
        text = re.sub(r"\bI would like\b", "I'd like", text).replace("I am ", "I'm ").replace("I have ", "I've ")
    if rng.random() < 0.3:
        text = text.lower()
        if rng.random() < 0.5:
            text = text.replace("'", "")
        if rng.random() < 0.3:
            text = re.sub(r"\byou\b", "u", text)
    if rng.random() < 0.3:
        text = text.rstrip(".?!")
    elif rng.random() < 0.08:
        text = text.rstrip(".?!") + rng.choice(["?!", "!!", "??", "...", " ?", "!"])
    if rng.random() < 0.02:
        text = text.upper()
    if rng.random() < 0.07:
        text = _typo(text, rng)
    return text


def _typo(text: str, rng: random.Random) -> str:
    spots = [m.start() for m in re.finditer(r"(?<=[a-z])[a-z](?=[a-z])", text)]
    if not spots:
        return text
    at = rng.choice(spots)
    kind = rng.randrange(4)
    if kind == 0:
        return text[:at] + text[at + 1 :]
    if kind == 1:
        return text[:at] + text[at] * 2 + text[at + 1 :]
    if kind == 2:
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return text[:at] + _NEIGHBOURS.get(text[at], text[at]) + text[at + 1 :]
