"""The public names: what `podlab` exports is there, is written down, and nothing else is offered."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

import podlab

ROOT = Path(__file__).parent.parent
HOOKS = {"load_ipython_extension", "unload_ipython_extension"}


@pytest.mark.parametrize("name", podlab.__all__)
def test_every_exported_name_is_there(name: str) -> None:
    assert getattr(podlab, name) is not None


def test_the_list_is_sorted_and_without_doubles() -> None:
    assert podlab.__all__ == sorted(set(podlab.__all__))


def test_what_is_lazily_found_is_exported_and_the_other_way_round() -> None:
    written = {name for name in vars(podlab) if not name.startswith("_") and not inspect.ismodule(vars(podlab)[name])}
    written -= {"TYPE_CHECKING", "Any", "annotations"}

    assert podlab._HOMES.keys() | written | {"__version__"} == set(podlab.__all__)


@pytest.mark.parametrize("name", [name for name in podlab.__all__ if name != "__version__"])
def test_every_exported_name_says_what_it_is(name: str) -> None:
    assert inspect.getdoc(getattr(podlab, name))


def test_dir_offers_the_exported_names() -> None:
    assert set(podlab.__all__) <= set(dir(podlab))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'podlab' has no attribute 'nonsense'"):
        podlab.nonsense  # noqa: B018  # the access is the test


@pytest.mark.parametrize("name", [name for name in podlab.__all__ if name != "__version__" and name not in HOOKS])
def test_every_exported_name_is_in_the_reference(name: str) -> None:
    assert f"`podlab.{name}`" in (ROOT / "docs" / "reference.md").read_text()


def test_types_are_shipped() -> None:
    assert (Path(podlab.__file__).parent / "py.typed").exists()
