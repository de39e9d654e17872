"""Every notebook runs from top to bottom, twice: through nbclient, and through nbval with its checked cells.

IPython reports a magic it refuses (UsageError) on stderr only, which neither notices; so the outputs are looked at too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests import machines, vllm_cpu

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LIMIT_S = 900


@pytest.fixture
def notebook_env(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """An environment with a home of podlab's own, in which nothing runs afterwards."""
    with tempfile.TemporaryDirectory(prefix="podlab-") as home:  # short: a socket's path has few characters
        env = {
            **os.environ,
            "PODLAB_HOME": home,
            "JUPYTER_PREFER_ENV_PATH": "1",
            "JUPYTER_PLATFORM_DIRS": "1",
            "IPYTHONDIR": str(own_home / "ipython"),
        }
        yield env
        stop = "from podlab.cli import run; run(['model', 'stop', '--all', '--yes'])"
        down = "from podlab.sandbox import control; control.down()"
        end = "from podlab.transport.kept import stop_keeper; stop_keeper()"
        for code in (stop, down, end):
            subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, timeout=60, check=False)


@pytest.fixture
def machine(tmp_path: Path, notebook_env: dict[str, str]) -> Iterator[None]:
    """A machine that answers to SSH, named to the notebook as its reader would name it."""
    if machines.SSHD is None:
        pytest.skip(machines.WHY_SKIPPED)
    server = machines.start_sshd(tmp_path)
    notebook_env["PODLAB_TUTORIAL_SSH"] = f"{server.user}@{server.host} -p {server.port} -i {server.identity}"
    notebook_env["PODLAB_TUTORIAL_HOST_KEY"] = server.fingerprint()
    yield
    server.stop()


def run(argv: list[str], env: dict[str, str]) -> str:
    done = subprocess.run(argv, env=env, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False)

    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def executed(notebook: Path, env: dict[str, str], tmp_path: Path) -> Any:
    saved = tmp_path / notebook.name
    run([sys.executable, "scripts/execute_notebook.py", "--save", str(saved), str(notebook)], env)
    return nbformat.read(saved, as_version=4)


def offline(env: dict[str, str]) -> dict[str, str]:
    """Where the hub is asked, nothing answers."""
    return env | {"HF_ENDPOINT": "http://127.0.0.1:9"}


def streams(notebook: Any, name: str) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == name)


def nbval(notebook: Path, env: dict[str, str]) -> None:
    options = ["--nbval-lax", "--nbval-cell-timeout=300", "--timeout=600", "-p", "no:cacheprovider", "-q"]
    said = run([sys.executable, "-m", "pytest", *options, str(notebook)], env)

    cells = sum(cell["cell_type"] == "code" for cell in json.loads(notebook.read_text())["cells"])
    assert f"{cells} passed" in said


@pytest.mark.timeout(LIMIT_S)
def test_the_quickstart_runs_and_its_answers_are_there(notebook_env: dict[str, str], tmp_path: Path) -> None:
    notebook = executed(NOTEBOOKS[0], notebook_env, tmp_path)

    assert "UsageError" not in streams(notebook, "stderr")
    for cell in notebook.cells:
        if cell.source.startswith("%%chat"):
            shown = [output.data["text/plain"] for output in cell.outputs if "data" in output]
            assert any(text.strip() for text in shown)


@pytest.mark.timeout(LIMIT_S)
def test_the_quickstart_passes_nbval(notebook_env: dict[str, str]) -> None:
    nbval(NOTEBOOKS[0], notebook_env)


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.usefixtures("machine")
def test_your_own_machine_runs_over_ssh(notebook_env: dict[str, str], tmp_path: Path) -> None:
    notebook = executed(NOTEBOOKS[1], notebook_env, tmp_path)

    assert "UsageError" not in streams(notebook, "stderr")
    assert "hello from" in streams(notebook, "stdout")


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.usefixtures("machine")
def test_your_own_machine_passes_nbval(notebook_env: dict[str, str]) -> None:
    nbval(NOTEBOOKS[1], notebook_env)


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.usefixtures("machine")
def test_serve_vllm_passes_nbval(notebook_env: dict[str, str], vllm_python: str) -> None:
    """With vLLM's CPU build, and the built-in model's safetensors in place of one of the Hub."""
    notebook_env["PODLAB_TUTORIAL_VLLM"] = vllm_python
    notebook_env["PODLAB_TUTORIAL_MODEL"] = str(vllm_cpu.MODEL)
    nbval(ROOT / "notebooks" / "10_serve_vllm.ipynb", notebook_env)


@pytest.mark.timeout(LIMIT_S)
def test_11_fit_and_choose_runs_without_a_gpu_or_a_network(notebook_env: dict[str, str], tmp_path: Path) -> None:
    notebook = executed(ROOT / "notebooks" / "11_fit_and_choose.ipynb", offline(notebook_env), tmp_path)

    assert "UsageError" not in streams(notebook, "stderr")
    shown = [
        output.data["text/plain"] for cell in notebook.cells for output in cell.get("outputs", ()) if "data" in output
    ]
    assert any(text.startswith("Qwen/Qwen3-8B: does not fit on 1x RTX 4090") for text in shown)
    assert any(text.startswith("chosen on local (llamacpp) does what it should") for text in shown)
    assert not list(Path(notebook_env["PODLAB_HOME"]).glob("models.toml"))


@pytest.mark.timeout(LIMIT_S)
def test_11_fit_and_choose_passes_nbval(notebook_env: dict[str, str]) -> None:
    nbval(ROOT / "notebooks" / "11_fit_and_choose.ipynb", offline(notebook_env))


def shown(notebook: Any) -> str:
    """Every value that its cells show, as text."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(output.data.get("text/plain", "") for output in outputs if "data" in output)


@pytest.mark.timeout(LIMIT_S)
def test_rent_a_pod_runs_with_the_sandbox(notebook_env: dict[str, str], tmp_path: Path) -> None:
    """A stock-out is walked past, a killed kernel loses nothing, and the ledger is clean in the end."""
    notebook = executed(ROOT / "notebooks" / "20_rent_a_pod.ipynb", offline(notebook_env), tmp_path)

    said = shown(notebook)
    assert "UsageError" not in streams(notebook, "stderr")
    assert "no longer any instances available" in said and "RTX A6000" in said
    assert "Simulated: sandbox is a pretended company" in said
    assert "protected: its switch is armed" in said
    assert "Nothing of ours is orphaned" in said
    assert '"rent.ended"' in (Path(notebook_env["PODLAB_HOME"]) / "ledger.jsonl").read_text()


@pytest.mark.timeout(LIMIT_S)
def test_rent_a_pod_passes_nbval(notebook_env: dict[str, str]) -> None:
    nbval(ROOT / "notebooks" / "20_rent_a_pod.ipynb", offline(notebook_env))


@pytest.mark.timeout(LIMIT_S)
def test_when_things_go_wrong_runs_with_the_sandbox(notebook_env: dict[str, str], tmp_path: Path) -> None:
    """A lost answer makes no second pod, and a pod whose computer is gone ends itself."""
    notebook = executed(ROOT / "notebooks" / "21_when_things_go_wrong.ipynb", offline(notebook_env), tmp_path)

    said = shown(notebook)
    assert "UsageError" not in streams(notebook, "stderr")
    assert "answered 500 when asked to create pod" in said
    assert "not rented from here: podlab never touches it" in said
    ledger = (Path(notebook_env["PODLAB_HOME"]) / "ledger.jsonl").read_text()
    assert ledger.count('"rent.ask"') == ledger.count('"rent.ended"') == 2


@pytest.mark.timeout(LIMIT_S)
def test_when_things_go_wrong_passes_nbval(notebook_env: dict[str, str]) -> None:
    nbval(ROOT / "notebooks" / "21_when_things_go_wrong.ipynb", offline(notebook_env))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_saved_clean(notebook: Path) -> None:
    """Without outputs, but for the cells whose output is checked; with ids that stay what they are."""
    document = json.loads(notebook.read_text())
    nbformat.validate(document)

    cells = document["cells"]
    assert (document["nbformat"], document["nbformat_minor"]) == (4, 5)
    assert document["metadata"]["kernelspec"]["name"] == "python3"
    assert len({cell["id"] for cell in cells}) == len(cells)
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    checked = [cell for cell in code if "nbval-check-output" in cell["metadata"].get("tags", [])]
    assert checked
    for cell in code:
        assert bool(cell["outputs"]) == (cell in checked)
        assert (cell["execution_count"] is not None) == bool(cell["outputs"])
    assert notebook.stat().st_size < 20_000


def test_every_notebook_is_executed_by_a_test_of_its_own() -> None:
    assert [notebook.name for notebook in NOTEBOOKS] == [
        "00_quickstart.ipynb",
        "01_your_own_machine.ipynb",
        "10_serve_vllm.ipynb",
        "11_fit_and_choose.ipynb",
        "20_rent_a_pod.ipynb",
        "21_when_things_go_wrong.ipynb",
    ]
