"""Secrets planted as canaries are found nowhere afterwards: not in a notebook, a log, a history, an argv, the state."""

from __future__ import annotations

import base64
import json
import os
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests import processes

pytest.importorskip("xllamacpp", reason="install the engine: pip install 'podlab[local]'")
IN_ENVIRONMENT = "hf_canary-ENV+7f3a/91c2=x"
IN_FILE = "rp_canary-FILE+52be/08d1=y"
NOT_A_SERVER = "http://127.0.0.1:9/v1"
CELLS = (
    "%load_ext podlab",
    "%podlab secret list",
    "%podlab config show",
    "%pod list",
    "%pod show local",
    "%model start tiny",
    "%%chat\nSay hello.",
    "%chat show",
    "%chat save talk.json",
    "%model list",
    "%model show tiny",
    "%model logs tiny -n 500",
    "%model url tiny",
    "%model url tiny --json",
    "x = %model url tiny\nrepr(x), str(x), x.to_dict()",
    "import podlab\npodlab.connection('tiny')",
    "str(podlab.connection('tiny')), sorted(podlab.connection('tiny'))",
    "%pod run echo hello",
    "%podlab logs -n 1000",
    # what fails
    "%model start hf:nobody/nothing/nothing.gguf --on local --dry-run",
    "%model start nonsense",
    f"%podlab infer --url {NOT_A_SERVER} --model m --key HF_TOKEN --prompt hello",
    f"%podlab infer --url {NOT_A_SERVER} --model m --key OTHER_KEY --prompt hello -v",
    "%model url nobody",
    "import podlab\npodlab.show_tracebacks(True)",
    f"%podlab infer --url {NOT_A_SERVER} --model m --key OTHER_KEY --prompt hello",
    "%model restart tiny",
    "%model stop tiny",
)


def forms(secret: str) -> Iterator[bytes]:
    """The ways in which a secret may have been written down."""
    raw = secret.encode()
    for shift in range(3):  # base64 of a longer text that holds it, whatever stood before
        encoded = base64.b64encode(b"\0" * shift + raw)
        yield encoded[4 : len(encoded) - 4]
    yield raw
    yield urllib.parse.quote(secret, safe="").encode()
    yield json.dumps(secret).strip('"').encode()
    yield raw[: len(raw) // 2 + 6]


def written(folder: Path) -> Iterator[Path]:
    """Every file below a folder that a secret must not be in: all but the ones that are there to keep it."""
    for path in folder.rglob("*"):
        kept = path.parent.name == "keys" or path.name == "key"
        if path.is_file() and not path.is_symlink() and not kept:
            yield path


def test_no_canary_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of verb, going well and failing, leaves no trace of a token, a kept secret or an endpoint's key."""
    home = Path(os.environ["PODLAB_HOME"])
    monkeypatch.setenv("HF_TOKEN", IN_ENVIRONMENT)
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    (home / "keys").mkdir(mode=0o700)
    (home / "keys" / "OTHER_KEY").touch(mode=0o600)
    (home / "keys" / "OTHER_KEY").write_text(IN_FILE)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    client = NotebookClient(notebook, timeout=90, allow_errors=True, store_widget_state=True,
                            resources={"metadata": {"path": str(tmp_path)}})  # fmt: skip
    client.execute()
    failed = [cell.source for cell in notebook.cells if any(out.output_type == "error" for out in cell.outputs)]
    assert len(failed) == 5, failed
    nbformat.write(notebook, tmp_path / "run.ipynb")
    keys = [path.read_text().strip() for path in home.glob("pod/endpoints/*/key")]
    assert len(keys) == 1 and keys[0].startswith("sk-podlab-")
    found = [
        (path.relative_to(tmp_path), form)
        for path in written(tmp_path)
        for secret in (IN_ENVIRONMENT, IN_FILE, keys[0])
        for form in forms(secret)
        if form in path.read_bytes()
    ]
    assert found == []


def test_no_canary_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """While an engine runs, its key is in no command line, and no secret of ours is in its environment."""
    from podlab.commands.drive import drive
    from podlab.lab import endpoints, launch, pods
    from podlab.lab.workspace import Workspace
    from tests.audiences import Silent

    monkeypatch.setenv("HF_TOKEN", IN_ENVIRONMENT)
    monkeypatch.setenv("RUNPOD_API_KEY", IN_FILE)
    workspace = Workspace.open()
    endpoint = drive(launch.start(workspace, pods.find("local"), launch.Wish("tiny")), Silent())
    try:
        key = workspace.endpoint_key(pods.find("local"), endpoint.id)
        assert key is not None and processes.saying(key.reveal()) == []
        assert processes.saying(IN_ENVIRONMENT) == [] == processes.saying(IN_FILE)
        ours = processes.marked(f"PODLAB_ENDPOINT={endpoint.id}")
        assert ours
        for pid in ours:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            assert IN_ENVIRONMENT.encode() not in environment and IN_FILE.encode() not in environment
    finally:
        drive(endpoints.stop(workspace, "tiny"), Silent())
        workspace.close()
