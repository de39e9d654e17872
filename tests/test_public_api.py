"""The public names: what `podlab` exports is there, is written down, and nothing else is offered."""

from __future__ import annotations

import inspect
import subprocess
import sys
import zipfile
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


def test_the_wheel_holds_everything_the_package_needs(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("podlab/")}
        licences = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]

    here = {file.relative_to(ROOT).as_posix() for file in (ROOT / "podlab").rglob("*") if file.is_file()}
    assert held == {file for file in here if "__pycache__" not in file}
    assert {"podlab/py.typed", "podlab/remote/supervisor.py", "podlab/catalog/models.toml"} <= held
    assert any(name.endswith(".gguf") for name in held)
    assert licences
    assert wheel.stat().st_size < 10 * 2**20
