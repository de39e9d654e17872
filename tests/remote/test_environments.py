"""The program that lists and takes over environments on a pod, with real Pythons and very small packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from tests.remote.bench import PYTHON38

PROGRAM = str(resources.files("podlab.remote") / "environments.py")


@pytest.fixture(params=["own", "3.8"])
def python(request: pytest.FixtureRequest) -> str:
    found = sys.executable if request.param == "own" else PYTHON38
    if found is None:
        pytest.skip("no Python 3.8 here: set PODLAB_TEST_PYTHON38, or install one with pyenv")
    return found


def ask(home: Path, *words: str, python: str = sys.executable) -> dict[str, Any]:
    done = subprocess.run([python, "-I", "-S", PROGRAM, str(home), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def own_environment(folder: Path, package: str, text: str = "__version__ = '1.2'\n") -> Path:
    """A person's environment with a package of that name in it; its Python."""
    venv.create(folder, with_pip=False, symlinks=True)
    site = next((folder / "lib").glob("python3*/site-packages"))
    (site / package).mkdir()
    (site / package / "__init__.py").write_text(text)
    return folder / "bin" / "python"


def test_a_pod_without_any_has_none_and_nothing_is_written(tmp_path: Path, python: str) -> None:
    assert ask(tmp_path / "pod", "list", python=python) == {"environments": []}
    assert not (tmp_path / "pod").exists()


def test_an_environment_is_taken_over_and_left_as_it_is(tmp_path: Path, python: str) -> None:
    theirs = own_environment(tmp_path / "v", "sglang")
    before = sorted(str(path) for path in (tmp_path / "v").rglob("*") if "__pycache__" not in path.parts)
    record = ask(tmp_path / "pod", "adopt", "sglang", str(theirs), python=python)["environment"]
    assert (record["version"], record["python"], record["adopted"]) == ("1.2", str(theirs), True)
    assert record["program"] == [str(theirs), "-m", "sglang.launch_server"], "not the Python a link leads to"
    assert sorted(str(path) for path in (tmp_path / "v").rglob("*") if "__pycache__" not in path.parts) == before
    (listed,) = ask(tmp_path / "pod", "list", python=python)["environments"]
    assert (listed["python"], listed["stale"]) == (str(theirs), False)


def test_a_record_is_stale_once_the_package_changed_and_gone_with_its_python(tmp_path: Path) -> None:
    theirs = own_environment(tmp_path / "v", "sglang")
    ask(tmp_path, "adopt", "sglang", str(theirs))
    next((tmp_path / "v" / "lib").glob("python3*/site-packages/sglang/__init__.py")).write_text("__version__ = '2'\n")
    (listed,) = ask(tmp_path, "list")["environments"]
    assert listed["stale"]
    assert ask(tmp_path, "adopt", "sglang", str(theirs))["environment"]["version"] == "2"
    assert [each["stale"] for each in ask(tmp_path, "list")["environments"]] == [False]
    theirs.unlink()
    assert ask(tmp_path, "list") == {"environments": []}


@pytest.mark.parametrize(
    "text,said",
    [("raise RuntimeError('operator torchvision::nms does not exist')\n", "torchvision::nms"), ("import nothing_such\n",
     "nothing_such")],
)  # fmt: skip
def test_what_does_not_import_says_why_and_is_not_recorded(tmp_path: Path, text: str, said: str) -> None:
    theirs = own_environment(tmp_path / "v", "vllm", text)
    assert said in ask(tmp_path, "adopt", "vllm", str(theirs))["error"]
    assert ask(tmp_path, "list") == {"environments": []}


@pytest.mark.parametrize("path", ["/nowhere/bin/python", "/etc/passwd"])
def test_what_is_no_python_says_so(tmp_path: Path, path: str) -> None:
    assert path in ask(tmp_path, "adopt", "vllm", path)["error"]


def test_an_engine_without_its_program_is_not_taken(tmp_path: Path) -> None:
    theirs = own_environment(tmp_path / "v", "tensorrt_llm")
    assert "trtllm-serve" in ask(tmp_path, "adopt", "trtllm", str(theirs))["error"]
    (tmp_path / "v" / "bin" / "trtllm-serve").write_text("#!/bin/sh\n")
    os.chmod(tmp_path / "v" / "bin" / "trtllm-serve", 0o755)
    program = ask(tmp_path, "adopt", "trtllm", str(theirs))["environment"]["program"]
    assert program == [str(tmp_path / "v" / "bin" / "trtllm-serve")]


def test_what_setup_made_is_listed_too_and_half_a_record_is_none(tmp_path: Path) -> None:
    made = tmp_path / "envs" / "vllm-0.32.0-py311"
    (made / "bin").mkdir(parents=True)
    (made / "bin" / "python").touch()
    (made / "podlab.json").write_text(json.dumps({"engine": "vllm", "package": "vllm==0.32.0", "python": "3.11"}))
    (tmp_path / "envs" / "half").mkdir()
    (tmp_path / "envs" / "half" / "podlab.json").write_text("{")
    (listed,) = ask(tmp_path, "list")["environments"]
    assert (listed["version"], listed["adopted"]) == ("0.32.0", False)
    assert listed["program"] == [str(made / "bin" / "vllm"), "serve"]


TELLS = "import sys\nprint('--seed N  --max-model-len N')\nsys.exit(0)\n"


def made_environment(home: Path, flags: str = TELLS) -> tuple[Path, Path]:
    """What setup.py leaves, with a very small vLLM that tells its options; its Python and its package's file."""
    python = own_environment(home / "envs" / "vllm-0.32.0-py311", "vllm", "__version__ = '0.32.0'\n")
    package = next((python.parents[1] / "lib").glob("python3*/site-packages/vllm"))
    (package / "entrypoints" / "cli").mkdir(parents=True)
    (package / "entrypoints" / "cli" / "main.py").write_text(flags)
    record = {"engine": "vllm", "package": "vllm==0.32.0", "python": "3.11"}
    (python.parents[1] / "podlab.json").write_text(json.dumps(record))
    return python, package / "__init__.py"


def test_the_options_of_what_setup_made_are_asked_for_once_and_until_it_changes(tmp_path: Path, python: str) -> None:
    theirs, package = made_environment(tmp_path)
    (listed,) = ask(tmp_path, "list", python=python)["environments"]
    assert (listed["flags"], listed["unread"]) == ([], True)
    read = ask(tmp_path, "read", "vllm", str(theirs), python=python)["environment"]
    assert (read["flags"], read["adopted"]) == (["--max-model-len", "--seed"], False)
    (listed,) = ask(tmp_path, "list", python=python)["environments"]
    assert (listed["flags"], listed["unread"], listed["version"]) == (["--max-model-len", "--seed"], False, "0.32.0")
    package.write_text("__version__ = '0.33.0'\n")
    (listed,) = ask(tmp_path, "list", python=python)["environments"]
    assert (listed["flags"], listed["unread"]) == ([], True)


def test_options_are_kept_of_nothing_but_what_was_made_here(tmp_path: Path) -> None:
    theirs = own_environment(tmp_path / "v", "vllm")
    assert "made here" in ask(tmp_path / "pod", "read", "vllm", str(theirs))["error"]
    assert not (tmp_path / "options.json").exists()
    assert not (tmp_path / "v" / "options.json").exists()


def test_a_look_writes_nothing(tmp_path: Path) -> None:
    theirs = own_environment(tmp_path / "v", "sglang")
    assert ask(tmp_path / "pod", "look", "sglang", str(theirs))["environment"]["version"] == "1.2"
    assert not (tmp_path / "pod").exists()
