"""The shell scripts of the project, read for mistakes that no run on a complete machine would show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHELLS = [path for path in sorted((ROOT / "scripts").iterdir()) if path.is_file() and b"sh\n" in path.read_bytes()[:24]]


def test_the_scripts_were_found() -> None:
    assert {"test", "install", "quickstart"} <= {path.name for path in SHELLS}


@pytest.mark.parametrize("script", SHELLS, ids=lambda path: path.name)
def test_no_function_stands_in_for_a_program_that_is_looked_for(script: Path) -> None:
    """`command -v sshd` finds a function of that name too, and then nothing is ever missing."""
    text = script.read_text()
    functions = set(re.findall(r"^\s*([a-z_]+) ?\(\)", text, re.MULTILINE))
    looked_for = set(re.findall(r"command -v ([\w-]+)", text))
    assert functions.isdisjoint(looked_for)
