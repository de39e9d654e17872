"""The program that makes an environment: real venvs, the real package index, and indexes that are not there."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

from podlab.engines.base import Cause
from podlab.engines.diagnosis import diagnose
from podlab.engines.llamacpp import VERSION
from tests.processes import saying
from tests.remote.bench import PYTHON38

FOLDER = str(resources.files("podlab.remote"))
PROGRAM = os.path.join(FOLDER, "setup.py")
SMALL = ("--engine", "demo", "--package", "iniconfig==2.1.0", "--probe", "import iniconfig")
NOWHERE = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": "",
           "PIP_CONFIG_FILE": os.devnull}  # fmt: skip


class Pod:
    """A home of podlab on a pod, and the folders of endpoints in it."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "pod"
        self.home.mkdir()
        (folder / "no programs").mkdir()
        self.alone = {"PATH": str(folder / "no programs"), "PYENV_ROOT": str(folder / "no programs")}
        """Of the environment: no other Python and no uv to be found."""

    def folder(self, name: str) -> Path:
        made = self.home / name
        made.mkdir(exist_ok=True)
        return made

    def argv(self, name: str, *what: str, python: str = sys.executable, least: str = "3.10") -> list[str]:
        given = ("--home", str(self.home), "--dir", str(self.folder(name)), "--min-python", least)
        return [python, "-u", PROGRAM, *given, *(what or SMALL)]

    def run(
        self, name: str, *what: str, python: str = sys.executable, least: str = "3.10", **env: str
    ) -> subprocess.CompletedProcess[str]:
        argv = self.argv(name, *what, python=python, least=least)
        return subprocess.run(argv, env=os.environ | env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def progress(self, name: str) -> dict[str, object]:
        return dict(json.loads((self.home / name / "progress.json").read_text()))


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


def why(ended: subprocess.CompletedProcess[str]) -> tuple[Cause, str]:
    """What the client makes of a failure."""
    assert ended.returncode == 1, ended.stdout
    found = diagnose(ended.stdout.splitlines(), ended.returncode)
    return found.cause, found.lines[-1]


def test_the_engine_is_installed_and_a_second_start_finds_it(pod: Pod) -> None:
    what = ("--engine", "llamacpp", "--package", f"xllamacpp=={VERSION}", "--probe", "import xllamacpp")
    first = pod.run("a", *what)
    assert first.returncode == 0, first.stdout
    python = pod.home / "a" / "env" / "bin" / "python"
    code = "import sys, xllamacpp; print(sys.prefix)"
    shown = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    minor = sys.version_info[1]
    assert Path(shown).resolve() == pod.home / "envs" / f"llamacpp-{VERSION}-py3{minor}"
    record = json.loads((Path(shown) / "podlab.json").read_text())
    assert (record["package"], record["python"]) == (f"xllamacpp=={VERSION}", f"3.{minor}")
    assert pod.progress("a")["done"] == pod.progress("a")["total"] == 4
    again = pod.run("b", *what, **NOWHERE)
    assert again.returncode == 0, again.stdout
    assert "installing" not in again.stdout
    assert (pod.home / "b" / "env").resolve() == (pod.home / "a" / "env").resolve()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Pod, list[str]]:
    """An environment that two starts asked for at once, one of them led astray, and what they said."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "iniconfig.py").write_text("raise SystemExit('the wrong one')")
    astray = os.environ | {"PYTHONPATH": str(folder), "PIP_TARGET": str(folder / "target"), "PIP_USER": "1"}
    pod = Pod(folder)
    children = [subprocess.Popen(pod.argv(name), stdout=subprocess.PIPE, text=True, env=astray) for name in ("a", "b")]
    said = [child.communicate()[0] for child in children]
    assert [child.returncode for child in children] == [0, 0], said
    assert not (folder / "target").exists()
    return pod, said


def test_two_starts_at_once_make_one_environment_and_one_waits(shared: tuple[Pod, list[str]]) -> None:
    pod, said = shared
    assert "".join(said).count(" -m pip install ") == 1
    assert "waiting for another start" in "".join(said)
    assert (pod.home / "a" / "env").resolve() == (pod.home / "b" / "env").resolve()


def test_an_environment_that_stopped_working_is_made_again(shared: tuple[Pod, list[str]]) -> None:
    pod, _ = shared
    ((pod.home / "a" / "env").resolve() / "bin" / "python").unlink()
    again = pod.run("c")
    assert again.returncode == 0, again.stdout
    assert "installing" in again.stdout


def test_a_start_that_was_killed_leaves_nothing_in_the_way_of_the_one_that_waits(pod: Pod) -> None:
    first = subprocess.Popen(pod.argv("a"), stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert first.stdout is not None
    for line in first.stdout:
        if line.startswith("installing"):
            break
    (env,) = [path for path in (pod.home / "envs").iterdir() if path.is_dir()]
    (env / "left over").write_text("from before")
    second = subprocess.Popen(pod.argv("b"), stdout=subprocess.PIPE, text=True)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    first.stdout.close()
    assert not (env / "podlab.json").exists()
    said, _ = second.communicate(timeout=90)
    assert second.returncode == 0, said
    assert not (env / "left over").exists()


def test_an_index_out_of_reach_is_one_line(pod: Pod) -> None:
    index = "http://me:canary-9@127.0.0.1:9/simple"
    ended = pod.run("a", **NOWHERE | {"PIP_INDEX_URL": index})
    assert why(ended) == (Cause.NO_ENVIRONMENT, "no package index can be reached from the pod")
    assert "canary-9" not in ended.stdout


@pytest.mark.skipif(PYTHON38 is None, reason="no Python 3.8 here")
def test_the_oldest_python_finds_a_newer_one_and_a_package_without_a_wheel_is_one_line(pod: Pod) -> None:
    assert PYTHON38 is not None
    what = ("--engine", "demo", "--package", "iniconfig==99.0", "--probe", "import iniconfig")
    ended = pod.run("a", *what, python=PYTHON38, PATH=str(Path(sys.base_prefix) / "bin"))
    assert f"making the environment with {sys.base_prefix}" in ended.stdout
    assert why(ended) == (Cause.NO_ENVIRONMENT, "the package index has no such wheel for this machine and Python")


def test_a_package_that_does_not_import_is_not_taken_as_made(pod: Pod) -> None:
    what = (*SMALL[:4], "--probe", "import no_such_module")
    cause, line = why(pod.run("a", *what))
    assert cause is Cause.NO_ENVIRONMENT
    assert "does not work there" in line
    assert not list((pod.home / "envs").glob("*/podlab.json"))
    assert not (pod.home / "a" / "env").exists()


def bare_python(target: Path) -> str:
    """This Python without pip and without ensurepip, as Debian's is."""
    library = Path("lib") / f"python3.{sys.version_info[1]}"
    (target / library / "site-packages").mkdir(parents=True)
    (target / "bin").mkdir()
    for entry in (Path(sys.base_prefix) / library).iterdir():
        if entry.name not in ("ensurepip", "site-packages", "EXTERNALLY-MANAGED", "__pycache__"):
            (target / library / entry.name).symlink_to(entry)
    real = (Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info[1]}").resolve()
    shutil.copy2(real, target / "bin" / "python3")
    python = str(target / "bin" / "python3")
    if subprocess.run([python, "-c", "import json, ssl"], capture_output=True).returncode != 0:
        pytest.skip("this Python cannot be copied")
    return python


def test_a_python_without_pip_is_helped_by_uv_from_the_index(pod: Pod, tmp_path: Path) -> None:
    python = bare_python(tmp_path / "bare")
    ended = pod.run("a", python=python, **pod.alone)
    assert ended.returncode == 0, ended.stdout
    assert "fetching uv-" in ended.stdout
    found = subprocess.run([pod.home / "a" / "env" / "bin" / "python", "-c", "import iniconfig"])
    assert found.returncode == 0
    assert pod.run("b", python=python, **pod.alone | NOWHERE).returncode == 0


def test_no_python_and_no_index_is_one_line(pod: Pod) -> None:
    cause, line = why(pod.run("a", least="3.99", **pod.alone | NOWHERE))
    assert cause is Cause.NO_ENVIRONMENT
    assert line.startswith("no Python 3.99 or newer here, and uv cannot bring one: no package index can be reached")


@pytest.fixture
def index() -> Iterator[tuple[str, dict[str, bytes]]]:
    """A package index of our own: its address, and what it answers by path."""
    pages: dict[str, bytes] = {}

    class Index(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = pages.get(self.path)
            self.send_response(404 if body is None else 200)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *args: object) -> None:
            """Nothing to say."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/simple", pages
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("kind", ["html", "json"])
def test_a_wheel_of_uv_with_another_digest_is_not_unpacked(
    pod: Pod, tmp_path: Path, index: tuple[str, dict[str, bytes]], kind: str
) -> None:
    address, pages = index
    machine = os.uname().machine
    name, digest = f"uv-9.9.9-py3-none-manylinux_2_17_{machine}.whl", hashlib.sha256(b"the right one").hexdigest()
    older = f"uv-9.9.10-py3-none-win_amd64.whl\n<a href='uv-9.8.0-py3-none-manylinux_2_17_{machine}.whl#sha256=0'>"
    pages["/simple/uv/"] = (
        f"<a href='../../files/{name}#sha256={digest}'>x</a>{older}".encode()
        if kind == "html"
        else json.dumps(
            {"files": [{"filename": name, "url": f"../../files/{name}", "hashes": {"sha256": digest}}]}
        ).encode()
    )
    pages[f"/files/{name}"] = b"another one"
    python = bare_python(tmp_path / "bare")
    cause, line = why(pod.run("a", python=python, **pod.alone, PIP_INDEX_URL=address))
    assert cause is Cause.NO_ENVIRONMENT
    assert line.endswith(f"uv cannot bring one: {name} arrived damaged")
    assert not (pod.home / "tools" / "uv").exists()


@pytest.mark.parametrize(
    "said,cause,words",
    [
        ("OSError: [Errno 28] No space left on device", "disk_full", "disk is full"),
        ("error: failed to write: No space left on device (os error 28)", "disk_full", "disk is full"),
        ("ERROR: HTTP error 401 while getting x\nERROR: No matching distribution found", "no_environment", "login"),
        ("WARNING: ... SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]')", "no_environment",
         "no package index can be reached"),
        ("Failed to download `https://github.com/astral-sh/python-build-standalone/x.tar.gz`\n  cause: dns error",
         "no_environment", "where uv gets a Python from"),
        ("error: Failed to fetch: `http://127.0.0.1:9/simple/x/`", "no_environment", "no package index"),
        ("THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "no_environment", "damaged"),
        ("x No solution found when resolving dependencies: has no wheels with a matching platform", "no_environment",
         "no such wheel"),
        ("something else", "no_environment", "pip ended with status 7"),
    ],
)  # fmt: skip
def test_what_pip_and_uv_say_is_understood(said: str, cause: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    failure = runpy.run_path(PROGRAM)["meaning"](said, "pip ended with status 7")
    assert (failure.cause, words in str(failure)) == (cause, True)


def test_a_disk_without_room_is_told_before_anything_starts(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(FOLDER)
    module = runpy.run_path(PROGRAM)
    monkeypatch.setitem(module["arguments"].__globals__, "NEED_BYTES", 1 << 60)
    args = module["arguments"](["--home", str(pod.home), "--dir", str(pod.folder("a")), "--min-python", "3.10", *SMALL])
    with pytest.raises(module["Failure"]) as caught:
        module["Setup"](args).main()
    assert caught.value.cause == "disk_full"


def test_the_versions_of_what_was_installed_are_on_record(shared: tuple[Pod, list[str]]) -> None:
    pod, _ = shared
    record = json.loads((pod.home / "a" / "environment.json").read_text())
    assert record["path"] == str((pod.home / "b" / "env").resolve())
    assert (record["version"], record["versions"]["engine"], record["versions"]["torch"]) == ("2.1.0", "2.1.0", None)
    assert record["versions"]["python"].startswith(record["python"])
    assert record["file"].endswith("/iniconfig/__init__.py") and len(record["fingerprint"]) == 3


def test_the_cuda_of_torch_is_read_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise SystemExit('imported')")
    (tmp_path / "torch" / "version.py").write_text("__version__ = '2.13.0'\ncuda: Optional[str] = '13.0'\nhip = None\n")
    monkeypatch.syspath_prepend(FOLDER)
    code = runpy.run_path(PROGRAM)["VERSIONS"]
    told = subprocess.run([sys.executable, "-c", code, "pip", "json"], capture_output=True, text=True, check=True,
                          env=os.environ | {"PYTHONPATH": str(tmp_path)}).stdout  # fmt: skip
    assert json.loads(told)["versions"]["cuda"] == "13.0"


def test_what_is_unchanged_is_not_imported_again(shared: tuple[Pod, list[str]]) -> None:
    pod, _ = shared
    what = (*SMALL[:4], "--probe", "raise SystemExit(9)")
    assert pod.run("d", *what, **NOWHERE).returncode == 0, "nothing of it changed since its probe passed"
    env = (pod.home / "d" / "env").resolve()
    (module,) = env.glob("lib/python3*/site-packages/iniconfig/__init__.py")
    os.utime(module)
    assert pod.run("d", *what, **NOWHERE).returncode == 1


def test_another_version_is_another_environment(pod: Pod) -> None:
    assert pod.run("a").returncode == 0
    before = (pod.home / "a" / "env").resolve()
    what = ("--engine", "demo", "--package", "iniconfig==2.0.0", "--probe", "import iniconfig", "--version", "older")
    assert pod.run("b", *what).returncode == 0
    assert (pod.home / "b" / "env").resolve().name.startswith("demo-older-py3")
    assert (before / "podlab.json").exists()


def test_wheels_that_were_sent_are_all_that_is_used_and_go(pod: Pod, tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels)]
    subprocess.run([*fetch, "iniconfig==2.1.0", "uv"], check=True, capture_output=True)
    python = bare_python(tmp_path / "bare")
    ended = pod.run("a", *SMALL, "--wheels", str(wheels), python=python, **pod.alone | NOWHERE)
    assert ended.returncode == 0, ended.stdout
    assert "--no-index --find-links" in ended.stdout and str(pod.home / "tools" / "uv") in ended.stdout
    assert not wheels.exists()


def test_what_a_killed_start_has_left_at_work_is_ended(pod: Pod) -> None:
    first = subprocess.Popen(pod.argv("a"), stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    for line in first.stdout:
        if line.startswith("$ ") and " -m pip install " in line:
            break
    (env,) = [path for path in (pod.home / "envs").iterdir() if path.is_dir()]
    first.kill()  # and its pip goes on
    first.wait()
    first.stdout.close()
    assert pod.run("b").returncode == 0
    assert saying(f"{env}/bin/python -m pip install") == []
