"""The Pythons of this pod, and what they can do. Part of setup.py and of checks.py; standard library, Python 3.8."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import Any

ANY = (3, 99)
"""Newer than every Python there is."""


def clean_environment() -> dict[str, str]:
    """Ours without what would lead pip or a Python astray from the environment being made."""
    astray = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "VIRTUAL_ENV")
    ours = {name: value for name, value in os.environ.items() if name not in astray}
    return dict(ours, PIP_USER="0", PIP_NO_INPUT="1", PIP_DISABLE_PIP_VERSION_CHECK="1", PYTHONNOUSERSITE="1")


def version_of(python: str) -> tuple[int, int]:
    """(3, 11), or (0, 0) when it does not run."""
    try:
        code = "import sys; print(sys.version_info[0], sys.version_info[1])"
        ended = subprocess.run([python, "-S", "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               check=False, stderr=subprocess.DEVNULL, timeout=20, env=clean_environment())  # fmt: skip
        major, minor = ended.stdout.split()
        return int(major), int(minor)
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0, 0


def runs(argv: list[str]) -> bool:
    """Whether a command ends with status 0."""
    try:
        return subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              timeout=120, check=False, env=clean_environment()).returncode == 0  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return False


def answer_of(argv: list[str]) -> dict[str, Any]:
    """The JSON object that a command prints; empty when it prints none."""
    try:
        ended = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                               timeout=120, check=False, env=clean_environment())  # fmt: skip
        answer = json.loads(ended.stdout.decode("utf-8", "replace"))
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}
    return answer if isinstance(answer, dict) else {}


def pythons(least: tuple[int, int], most: tuple[int, int] = ANY) -> list[str]:
    """Every Python here that is new enough and not too new: this one, those on PATH, pyenv's."""
    names = [f"python3.{minor}" for minor in range(14, least[1] - 1, -1)] + ["python3"]
    found = [sys.executable] + [path for path in map(shutil.which, names) if path]
    versions = os.path.join(os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv")), "versions")
    if os.path.isdir(versions):
        found += [os.path.join(versions, name, "bin", "python") for name in sorted(os.listdir(versions), reverse=True)]
    distinct = list(dict.fromkeys(path for path in found if path and os.path.exists(path)))
    return [path for path in distinct if least <= version_of(path) <= most]


def has_pip(python: str) -> bool:
    """Whether it can make environments with pip in them; Debian's own Python cannot without python3-venv."""
    return runs([python, "-c", "import ensurepip, venv"])


def uv_there(home: str) -> str:
    """An `uv` that is here and runs, else ""."""
    usual = [shutil.which("uv"), os.path.expanduser("~/.local/bin/uv"), os.path.expanduser("~/.cargo/bin/uv"),
             os.path.join(home, "tools", "uv", "bin", "uv")]  # fmt: skip
    return next((path for path in usual if path and os.path.exists(path) and runs([path, "--version"])), "")
