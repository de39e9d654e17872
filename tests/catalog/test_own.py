"""The user's own models.toml: written without touching what is in it, and undone to the last byte."""

from __future__ import annotations

import pytest

from podlab.catalog import own
from podlab.catalog.catalog import entries, find, recipes_of
from podlab.catalog.sources import HubRepo
from podlab.errors import AlreadyExists, BadArgument, BadSettings, NotFound
from podlab.settings import home

BEFORE = """\
# mine, by hand
[models.first]   # kept
source = "hf:a/b/c.gguf"
context = 4_096

[[recipes]]
model = "Qwen/Qwen3-8B"
gpus = 2
"""


def text() -> str:
    return (home() / "models.toml").read_text()


@pytest.mark.parametrize("before", [None, "", BEFORE, "# only a comment\n", '[models."a.b"]\nsource = "hf:a/b"\n'])
@pytest.mark.parametrize("name", ["mine", "a b", "own.er/re-po", 'say "hi"'])
def test_registering_and_taking_out_again_leaves_the_file_as_it_was(before: str | None, name: str) -> None:
    path = home() / "models.toml"
    if before is not None:
        path.write_text(before)
    entry = own.register(name, {"source": "hf:x/y", "parameters": 8_000_000_000, "gated": True})
    assert (entry.id, entry.source, entry.parameters, entry.gated) == (name, HubRepo("x/y"), 8_000_000_000, True)
    if before:
        assert all(line in text() for line in before.splitlines())
    own.unregister(name)
    assert (text() if path.exists() else "") == (before or "")


def test_a_name_of_podlabs_own_may_be_taken_and_comes_back() -> None:
    theirs = find("tiny")
    own.register("tiny", {"source": "hf:x/y"})
    assert find("tiny").source == HubRepo("x/y")
    own.unregister("tiny")
    assert find("tiny") == theirs


def test_what_cannot_be_is_refused_and_nothing_is_written() -> None:
    path = home() / "models.toml"
    path.write_text(BEFORE)
    for name, fields, kind in [
        ("first", {"source": "hf:x/y"}, AlreadyExists),
        ("new", {"source": "nowhere"}, BadArgument),
        ("new", {}, BadArgument),
        ("new", {"source": "hf:x/y", "engine": "steam"}, BadArgument),
        ("", {"source": "hf:x/y"}, BadArgument),
        ("a\nb", {"source": "hf:x/y"}, BadArgument),
    ]:
        with pytest.raises(kind):
            own.register(name, fields)  # type: ignore[arg-type]
        assert text() == BEFORE


def test_what_is_not_there_is_not_taken_out() -> None:
    with pytest.raises(NotFound) as caught:
        own.unregister("tiny")
    assert "cannot be taken out" in caught.value.hint
    with pytest.raises(NotFound):
        own.unregister("nobody")


def test_a_damaged_file_is_not_made_worse() -> None:
    (home() / "models.toml").write_text("[models.x\n")
    with pytest.raises(BadSettings):
        own.register("mine", {"source": "hf:x/y"})
    assert text() == "[models.x\n"


def test_recipes_of_ones_own_come_before_podlabs() -> None:
    (home() / "models.toml").write_text(BEFORE)
    first, *rest = recipes_of(find("Qwen/Qwen3-8B"))
    assert first.gpus == 2
    assert rest
    assert len(entries()) > 50


@pytest.mark.parametrize(
    "before, after",
    [
        ('[models]\nmine = { source = "hf:a/b" }\nother = { source = "hf:c/d" }\n',
         '[models]\nother = { source = "hf:c/d" }\n'),
        ('[models.mine]\nsource = "pod:/b/"\n[models.mine.geometry]\nlayers = 2\n\n#\n[models.b]\nsource = "hf:c/d"\n',
         '\n#\n[models.b]\nsource = "hf:c/d"\n'),
        ('[models.a]\nsource = "hf:a/b"\nsummary = """\n[models.mine]\n"""\n\n[models.mine]\nsource = "hf:a/b"\n',
         '[models.a]\nsource = "hf:a/b"\nsummary = """\n[models.mine]\n"""\n'),
    ],
)  # fmt: skip
def test_what_was_written_by_hand_is_taken_out_and_nothing_else(before: str, after: str) -> None:
    (home() / "models.toml").write_text(before)
    own.unregister("mine")
    assert text().strip() == after.strip()
