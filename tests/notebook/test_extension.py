"""Loading registers, unloading takes everything away, and neither costs what is not used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

import podlab
from podlab.notebook.extension import MAGICS, questions

_HEAVY = (
    "ipywidgets", "anywidget", "plotly", "paramiko", "runpod", "openai", "numpy", "httpx2", "pandas", "markdown_it",
    "rich", "podlab.lab", "podlab.commands", "podlab.settings",
)  # fmt: skip


def _registered(shell: InteractiveShell) -> tuple[object, ...]:
    magics = shell.magics_manager.magics
    return (
        sorted(magics["line"]),
        sorted(magics["cell"]),
        len(shell.Completer.custom_matchers),
        len(shell.input_transformers_cleanup),
        [type(entry).__name__ for entry in shell.configurables],
    )


def test_load_and_unload_leave_nothing_behind(shell: InteractiveShell) -> None:
    podlab.unload_ipython_extension(shell)
    before = _registered(shell)
    for _ in range(2):
        assert shell.extension_manager.load_extension("podlab") is None
        loaded = _registered(shell)
        podlab.load_ipython_extension(shell)
        assert _registered(shell) == loaded
        for magic in MAGICS:
            assert shell.find_line_magic(magic.name)
            assert shell.find_cell_magic(magic.name)
        assert "Podlab" in [type(entry).__name__ for entry in shell.configurables]
        assert shell.extension_manager.unload_extension("podlab") is None
        assert _registered(shell) == before
    podlab.unload_ipython_extension(shell)
    assert _registered(shell) == before


def test_loading_imports_nothing_heavy() -> None:
    code = (
        "import sys, IPython\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance(); before = set(sys.modules)\n"
        "import podlab; print(sorted(set(sys.modules) - before)); podlab.load_ipython_extension(shell)\n"
        "print([name for name in sys.modules if name not in before])"
    )
    root = Path(podlab.__file__).parents[1]
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    imported, loaded = ran.stdout.splitlines()
    assert imported == "['podlab']"
    for name in _HEAVY:
        assert f"'{name}'" not in loaded, name


@pytest.mark.parametrize(
    "cell, asked",
    [
        ("%chat what's up?", "get_ipython().run_line_magic('chat', \"what's up?\")"),
        ("r = %chat Who?\n", "r = get_ipython().run_line_magic('chat', 'Who?')"),
        ("%chat?", None),
        ("%chat Who.", None),
        ('x = """\n%chat Who?\n"""', None),
        ("%%bash\n%chat Who?", None),
        ("%pod run ls ?", None),
    ],
)
def test_a_question_is_asked_and_not_looked_up(cell: str, asked: str | None) -> None:
    lines = cell.splitlines(keepends=True)
    assert "".join(questions(lines)).strip() == (asked or cell)


def test_public_names_are_there_and_lazy() -> None:
    for name in podlab.__all__:
        assert getattr(podlab, name) is not None
    assert set(podlab.__all__) <= set(dir(podlab))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = podlab.nothing  # type: ignore[attr-defined]


def test_every_magic_has_a_docstring_that_names_its_help(shell: InteractiveShell) -> None:
    for magic in MAGICS:
        assert f"See %{magic.name} --help" in (shell.find_line_magic(magic.name).__doc__ or "")
