"""Notebooks that run without a person: what is saved, and that a failure fails the run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

ROOT = Path(__file__).parents[2]
LOAD = "%load_ext podlab\nfrom tests.notebook import standin; standin.install()"


def _notebook(path: Path, *cells: str) -> Path:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in (LOAD, *cells)])
    nbformat.write(notebook, path)
    return path


def _execute(path: Path, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jupyter", "execute", "--inplace", str(path)],
        capture_output=True, text=True, cwd=path.parent, timeout=100,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PODLAB_HOME": str(home), "HOME": str(home)},
    )  # fmt: skip


def _read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def test_the_saved_notebook_holds_the_final_text_once(tmp_path: Path) -> None:
    path = _notebook(tmp_path / "a.ipynb", "%pod answer --seconds 0.5 --text 'Hello, **you**.'", "%podlab config show")
    ran = _execute(path, tmp_path)
    assert ran.returncode == 0, ran.stderr
    saved = path.read_text()
    assert saved.count("Hello, **you**.") == 2  # the cell's source and its text/plain
    assert saved.count("Hello, <strong>you</strong>.") == 1
    (output,) = _read(path).cells[1].outputs
    assert output.data["text/plain"] == "Hello, **you**."
    assert nbformat.validate(_read(path)) is None  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("cell", ["%pod boom", "%pod lst", "%pod output --status 3", "%pod question"])
def test_a_failing_magic_fails_the_run(tmp_path: Path, cell: str) -> None:
    ran = _execute(_notebook(tmp_path / "a.ipynb", cell), tmp_path)
    assert ran.returncode != 0


def test_a_failing_magic_fails_nbval_even_when_lax(tmp_path: Path) -> None:
    path = _notebook(tmp_path / "a.ipynb", "%pod boom")
    notebook = _read(path)
    for number, cell in enumerate(notebook.cells, 1):
        cell.execution_count = number
    nbformat.write(notebook, path)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval-lax", "-p", "no:cacheprovider", "-c", os.devnull, "-q", str(path)],
        capture_output=True, text=True, cwd=tmp_path, timeout=100,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PODLAB_HOME": str(tmp_path), "HOME": str(tmp_path)},
    )  # fmt: skip
    assert ran.returncode == 1, ran.stdout
    assert "1 failed, 1 passed" in ran.stdout
