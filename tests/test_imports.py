"""What importing costs: nothing heavy is loaded before it is used.

Modules are counted, because that is exact. Time is asserted once, as a ratio to a bare Python measured in the same
run, with several times the slack of what benchmarks/ reports.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

HEAVY = {
    "IPython", "aiohttp", "anyio", "anywidget", "asyncio", "cryptography", "httpx", "httpx2", "ipykernel", "ipywidgets",
    "jupyter_client", "markdown_it", "numpy", "openai", "pandas", "paramiko", "plotly", "pynvml", "requests", "rich",
    "runpod", "tomlkit", "traitlets", "xllamacpp",
}  # fmt: skip
NEVER_AT_LOAD = {"ipywidgets", "anywidget", "plotly", "paramiko", "runpod", "openai", "numpy", "pandas", "xllamacpp"}
"""What `%load_ext podlab` must not bring into a kernel."""


def loaded_by(code: str, *, argv: tuple[str, ...] = ()) -> set[str]:
    """The modules that a fresh interpreter has loaded after `code`, beyond those it starts with."""
    script = (
        "import sys, json; before = set(sys.modules)\n"
        f"sys.argv = {['podlab', *argv]!r}\n"
        f"{code}\n"
        "print('\\x1e' + json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.rpartition("\x1e")[2]))


def packages(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


COMMAND = """
import podlab.cli
try:
    podlab.cli.main()
except SystemExit as end:
    assert not end.code, end.code
"""


def test_importing_podlab_loads_podlab_alone() -> None:
    loaded = loaded_by("import podlab")

    assert packages(loaded) & HEAVY == set()
    assert {module for module in loaded if module.startswith("podlab.")} == set()


@pytest.mark.parametrize("argv", [("--version",), ("--help",), ("pod", "--help"), ("model", "start", "--help")])
def test_asking_for_help_loads_nothing_heavy(argv: tuple[str, ...]) -> None:
    loaded = loaded_by(COMMAND, argv=argv)

    assert packages(loaded) & HEAVY == set()
    for room in ("lab", "transport", "notebook", "display", "http", "store"):
        assert not {module for module in loaded if module.startswith(f"podlab.{room}")}, room


def test_loading_the_extension_loads_nothing_heavy() -> None:
    loaded = loaded_by(
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\n"
        "before = set(sys.modules)\n"
        "shell.run_line_magic('load_ext', 'podlab')"
    )

    assert packages(loaded) & NEVER_AT_LOAD == set()
    for room in ("lab", "transport", "display"):
        assert not {module for module in loaded if module.startswith(f"podlab.{room}")}, room


def test_the_keeper_is_not_loaded_by_what_does_not_need_it(tmp_path: Path) -> None:
    assert not {module for module in loaded_by("import podlab.cli") if module.startswith("podlab.keeper")}


def best_s(code: str, times: int = 7) -> float:
    """The shortest of several runs: what it costs when the machine does nothing else."""

    def once() -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        return time.perf_counter() - began

    return min(once() for _ in range(times))


def test_importing_podlab_costs_a_fraction_of_starting_python() -> None:
    bare_s, ours_s = best_s("pass"), best_s("import podlab")

    assert ours_s < 3 * bare_s
