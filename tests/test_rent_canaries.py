"""The account's key as a canary: it rents a pod, and is found nowhere afterwards, on the pod least of all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from podlab.lab import kernel_brake
from podlab.sandbox.serve import Running, start
from podlab.transport.kept import stop_keeper
from tests import processes
from tests.test_canaries import forms, written

pytest.importorskip("runpod", reason="install the SDK: pip install 'podlab[runpod]'")
pytestmark = pytest.mark.timeout(300)
CELLS = (
    "%load_ext podlab",
    "%pod doctor",
    "%pod offers A40 --json",
    "%pod plan",
    "%pod account",
    "%pod create lab --gpu A40 --ttl 1h --env MODE=fast --yes",
    "%pod show lab --json",
    "%pod list --json",
    "%pod logs lab -n 500",
    "%pod run --on lab env",
    "%pod run --on lab -- sh -c 'cat ~/.podlab/*/* /proc/self/environ 2>/dev/null; true'",
    "%pod cost",
    "%pod orphans",
    "%podlab logs -n 2000",
    "import podlab\npodlab.show_tracebacks(True)",
    # what fails
    "%pod create other --env MODE={key} --yes",
    "%pod create other --gpu NOTHING --yes",
    "%pod show nobody -v",
    "%pod terminate lab --no-wait --yes",
)


@pytest.fixture
def company(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """The sandbox under RunPod's name, with the real SDK as its client."""
    opened = start(tmp_path / "company")
    monkeypatch.setenv("RUNPOD_API_BASE_URL", opened.url)
    monkeypatch.setenv("RUNPOD_API_KEY", opened.key)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    yield opened
    kernel_brake.stop()
    stop_keeper()
    opened.stop()


def test_the_key_of_the_account_is_found_nowhere(company: Running, tmp_path: Path) -> None:
    cells = [nbformat.v4.new_code_cell(cell) for cell in CELLS]
    cells.insert(1, nbformat.v4.new_code_cell("import os\nkey = os.environ['RUNPOD_API_KEY']"))
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = NotebookClient(notebook, timeout=120, allow_errors=True, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()

    failed = [cell.source for cell in notebook.cells if any(out.output_type == "error" for out in cell.outputs)]
    assert failed == [cell for cell in CELLS if " other " in cell or " nobody " in cell]
    nbformat.write(notebook, tmp_path / "run.ipynb")
    (pod,) = company.company.pods.values()
    assert pod.key not in (None, company.key), "the pod has a key of its own, good for itself"
    assert company.key not in str(pod.wanted)
    assert processes.saying(company.key) == [], "no command line has it"
    found = [
        path.relative_to(tmp_path)
        for path in written(tmp_path)
        for form in forms(company.key)
        if form in path.read_bytes()
    ]
    assert found == []


def test_no_process_of_a_pod_has_it(company: Running) -> None:
    """What a person or a model server on the pod could read: every environment there, and every file."""
    from podlab.commands.drive import drive
    from podlab.commands.parsing import parse
    from podlab.commands.table import find
    from podlab.lab.workspace import Workspace
    from tests.audiences import Silent

    workspace = Workspace.open()
    verb, rest = find(["pod", "create", "lab", "--gpu", "A40", "--ttl", "1h"])
    drive(verb.handler(workspace, parse(verb, rest, magic=False).args), Silent(), yes=True)
    workspace.close()
    (pod,) = company.company.pods.values()
    ours = processes.marked(f"RUNPOD_POD_ID={pod.id}")
    assert ours, "its processes run on this computer"
    for pid in ours:
        assert company.key.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
