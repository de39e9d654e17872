"""A bare machine reached by SSH is brought to serving with llama.cpp, interrupted in every way, and set up again."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from podlab import settings
from podlab.commands.drive import drive
from podlab.engines.builds import build_named
from podlab.errors import BadArgument, CommandFailed, EngineUnavailable, Refused
from podlab.events import Stage
from podlab.lab import endpoints, environments, launch, pods
from podlab.lab import setup as use_case
from podlab.lab.facts import PodFacts
from podlab.lab.setup import Wants
from podlab.lab.supervisor import result_of
from podlab.lab.wish import Wish
from podlab.lab.workspace import Workspace
from podlab.types import EndpointState, Pod, SetupReport
from tests import machines, processes
from tests.audiences import Silent
from tests.machines import Sshd
from tests.processes import deleted_under_way

pytestmark = pytest.mark.timeout(400)
LLAMACPP = Wants("llamacpp")
BUILD = build_named("llamacpp")
NOWHERE = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_EXTRA_INDEX_URL": "", "PIP_FIND_LINKS": "",
           "PIP_CONFIG_FILE": os.devnull}  # fmt: skip
DOTFILES = (".bashrc", ".profile", ".zshrc", ".config/fish/config.fish")


def bring(workspace: Workspace, pod: Pod, wants: Wants = LLAMACPP, audience: Silent | None = None) -> SetupReport:
    return drive(use_case.setup(workspace, pod, wants), audience or Silent())


def facts_of(workspace: Workspace, pod: Pod) -> PodFacts:
    return workspace.side(pod).hello()


def stages(report: SetupReport) -> dict[str, str]:
    return {stage.name: stage.detail for stage in report.stages}


def until(work: object, key: str) -> None:
    """Let a setup go on until it has come to a stage."""
    while not (isinstance(event := next(work), Stage) and event.key == key):  # type: ignore[call-overload]
        pass


def digests(home: Path) -> dict[str, str]:
    """Of every file of a home but podlab's own."""
    found = [path for path in home.rglob("*") if path.is_file() and ".podlab" not in path.parts]
    return {str(path.relative_to(home)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.fixture
def bare(workspace: Workspace, box: Pod) -> Pod:
    """The machine without any environment, and no job of before."""
    home = Path(facts_of(workspace, box).home)
    if home.exists():
        deleted_under_way(home)
    return box


def test_a_bare_machine_serves_and_a_second_run_finds_it_so(workspace: Workspace, bare: Pod, sshd: Sshd) -> None:
    for name in DOTFILES:
        (sshd.home / name).parent.mkdir(parents=True, exist_ok=True)
        (sshd.home / name).write_text(f"# {name} of a person\n")
    cache = sshd.home / ".cache" / "huggingface" / "hub" / "models--a--b"
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "weights").write_text("weights of a person")
    before = digests(sshd.home)
    report = bring(workspace, bare)
    assert report.ready and report.installed, report
    assert (report.versions.engine, report.versions.torch) == (BUILD.version, None)
    assert report.versions.python and report.versions.python.startswith("3.")
    assert {"checks", "models", "environment", "environment: installed"} <= stages(report).keys()
    assert all(stage.took_s is not None for stage in report.stages)
    assert report.environment is not None
    record = json.loads((Path(report.environment) / "podlab.json").read_text())
    assert record["versions"]["engine"] == BUILD.version and record["fingerprint"]

    again = bring(workspace, bare)
    assert again.ready and not again.installed
    assert (again.environment, again.versions) == (report.environment, report.versions)
    assert stages(again)["environment"] == f"{BUILD.title} is there already"
    assert len(workspace.side(bare).jobs()) == 1, "the second run started nothing"
    checked = drive(use_case.look(workspace, bare, LLAMACPP), Silent())
    assert checked.ready
    mine = {name: digest for name, digest in digests(sshd.home).items() if name in before}
    assert mine == before, "no file of the person's was written"

    endpoint = drive(launch.start(workspace, bare, Wish("tiny")), Silent())
    try:
        assert endpoint.state is EndpointState.READY
        (facts,) = workspace.side(bare).status([endpoint.id])
        with pytest.raises(EngineUnavailable, match="could not be installed"):
            bring(workspace, bare, Wants("sglang==0.0.1", force=True))
        bring(workspace, bare)
        (still,) = workspace.side(bare).status([endpoint.id])
        assert (still.pid, still.alive, still.generation) == (facts.pid, True, 1)
        assert endpoints.reach(workspace, "tiny").model == "tiny"
    finally:
        result_of(workspace.side(bare).stop(endpoint.id, grace_s=3))


def test_the_plan_is_what_is_done(workspace: Workspace, bare: Pod) -> None:
    home = Path(facts_of(workspace, bare).home)
    planned = drive(use_case.plan(workspace, bare, LLAMACPP), Silent())
    assert not home.exists(), "a plan changes nothing"
    bring(workspace, bare)
    (job,) = workspace.side(bare).jobs()
    log = (home / "jobs" / job.id / "stdout.1").read_text()
    ran = [line.removeprefix("$ ") for line in log.splitlines() if line.startswith("$ ")]
    told = [line.removeprefix("environment: ") for line in planned if line.startswith("environment: ")]
    assert len(told) == 2 and told == ran[:2]
    assert f"models: mkdir -p {home}/models" in planned
    after = drive(use_case.plan(workspace, bare, LLAMACPP), Silent())
    assert any(line.startswith(f"environment: nothing: {BUILD.title} is there") for line in after)


def test_a_check_that_failed_stops_before_anything_is_installed(workspace: Workspace, bare: Pod) -> None:
    report = bring(workspace, bare, Wants("vllm", models_path="~/models"))
    assert (report.ready, report.installed, report.environment) == (False, False, None)
    assert "GPUs" in [check.name for check in report.checks if check.state == "failed"]
    assert not Path(facts_of(workspace, bare).home).exists()
    assert pods.find("box").models_path is None
    audience = Silent()
    planned = drive(use_case.plan(workspace, bare, Wants("vllm")), audience)
    assert any("would stop here" in notice.text for notice in audience.notices)
    assert any(line.endswith("vllm==0.32.0") for line in planned), "what it would do is shown all the same"


def test_the_models_path_is_made_and_remembered(workspace: Workspace, bare: Pod, tmp_path: Path) -> None:
    bring(workspace, bare)
    target = tmp_path / "big disk" / "models"
    report = bring(workspace, bare, Wants("llamacpp", models_path=str(target)))
    assert target.is_dir() and report.models_path == str(target)
    assert pods.find("box").models_path == str(target)
    assert settings.read_config()["pods"]["box"]["models_path"] == str(target)
    assert bring(workspace, pods.find("box")).models_path == str(target)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadArgument, match="Not a directory"):
        bring(workspace, bare, Wants("llamacpp", models_path=f"{tmp_path}/file/models"))
    assert pods.find("box").models_path == str(target)


def test_a_broken_link_and_a_killed_setup_are_survived(workspace: Workspace, bare: Pod, sshd: Sshd) -> None:
    home = Path(facts_of(workspace, bare).home)
    working = use_case.setup(workspace, bare, LLAMACPP)
    until(working, "environment.2")
    (job,) = workspace.side(bare).jobs()
    assert job.pid is not None
    os.kill(job.pid, signal.SIGKILL)  # pip, its child, goes on writing
    with pytest.raises(EngineUnavailable, match="ended early"):
        drive(working, Silent())
    assert not list(home.glob("envs/*/podlab.json"))

    working = use_case.setup(workspace, bare, LLAMACPP)
    until(working, "environment.1")
    assert sshd.kill_sessions() > 0
    audience = Silent()
    report = drive(working, audience)
    assert report.ready and report.installed
    assert len(list(home.glob("envs/*/podlab.json"))) == 1
    assert len(workspace.side(bare).jobs()) == 2, "the link that broke started no third job"


def test_a_killed_client_is_followed_by_one_that_goes_on_watching(workspace: Workspace, bare: Pod) -> None:
    command = [sys.executable, "-c", "from podlab.cli import main; main()", "pod", "setup", "box", "--engine",
               "llamacpp"]  # fmt: skip
    client = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert client.stderr is not None
    for line in client.stderr:
        if "making the environment" in line:
            break
    client.kill()
    client.wait()
    client.stderr.close()
    audience = Silent()
    report = bring(workspace, bare, audience=audience)
    assert report.ready and report.installed
    (job,) = workspace.side(bare).jobs()
    assert [job.id in notice.text and "already" in notice.text for notice in audience.notices] == [True]


def test_an_interrupt_ends_the_watching_and_not_the_job(workspace: Workspace, bare: Pod) -> None:
    working = use_case.setup(workspace, bare, LLAMACPP)
    until(working, "environment.1")
    said = working.throw(KeyboardInterrupt)
    assert "goes on" in getattr(said, "text", "")
    with pytest.raises(KeyboardInterrupt):
        next(working)
    (job,) = workspace.side(bare).jobs()
    assert not job.ended
    result_of(workspace.side(bare).stop(job.id, grace_s=5))
    (job,) = workspace.side(bare).jobs()
    assert job.ended and processes.marked(f"PODLAB_ENDPOINT={job.id}") == []


def test_a_person_s_own_environment_needs_no_making(workspace: Workspace, bare: Pod, tmp_path: Path) -> None:
    venv.create(tmp_path / "v", with_pip=False, symlinks=True)
    site = next((tmp_path / "v" / "lib").glob("python3*/site-packages"))
    (site / "sglang").mkdir()
    (site / "sglang" / "__init__.py").write_text("__version__ = '1.2'\n")
    python = str(tmp_path / "v" / "bin" / "python")
    facts = facts_of(workspace, bare)
    drive(environments.adopt(workspace, bare, facts, "sglang", python), Silent())
    report = bring(workspace, bare, Wants("sglang==1.2"))
    assert (report.ready, report.installed, report.environment) == (True, False, python)
    assert report.versions.engine == "1.2"
    other = drive(use_case.look(workspace, bare, Wants("sglang==1.3")), Silent())
    assert not other.ready, "another version is another environment"


# ------------------------------------------------------------------------------------------------ mounts


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """A folder that something may be mounted on; nothing is when the test has ended."""
    path = tmp_path / "mnt"
    yield path
    subprocess.run(["umount", str(path)], check=False, capture_output=True)


def test_a_mount_is_shown_agreed_to_and_done_once(workspace: Workspace, bare: Pod, target: Path) -> None:
    trial = target.with_name("trial")
    trial.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "none", str(trial)], capture_output=True).returncode != 0:
        pytest.skip("mounting is not allowed here")
    subprocess.run(["umount", str(trial)], check=True)
    ran = target.with_name("ran")
    wants = Wants("llamacpp", mount=f"echo once >>{ran} && mount -t tmpfs none {target}")
    audience = Silent(answer=True)
    report = bring(workspace, bare, wants, audience)
    (asked,) = audience.asked
    assert asked.kind == "command" and "mount -t tmpfs none" in asked.detail
    assert report.ready and report.models_path == str(target) == pods.find("box").models_path
    assert target.is_mount() and ran.read_text() == "once\n"
    assert [stage.name for stage in report.stages][1] == "mount", "before anything is installed"
    again = Silent()
    assert bring(workspace, pods.find("box"), wants, again).ready
    assert (again.asked, ran.read_text()) == ([], "once\n")


def test_a_mount_that_is_refused_or_fails_stops_all(workspace: Workspace, bare: Pod, target: Path) -> None:
    wants = Wants("llamacpp", mount=f"echo no such server >&2; exit 32 # {target}")
    for answer in (False, None):
        with pytest.raises(Refused, match="Nothing was mounted"):
            bring(workspace, bare, wants, Silent(answer))
    with pytest.raises(CommandFailed, match="no such server") as caught:
        bring(workspace, bare, wants, Silent(answer=True))
    assert caught.value.status == 32
    with pytest.raises(EngineUnavailable, match="nothing is mounted on"):
        bring(workspace, bare, Wants("llamacpp", mount=f"true {target}"), Silent(answer=True))
    assert not (Path(facts_of(workspace, bare).home) / "envs").exists()
    assert pods.find("box").models_path is None
    with pytest.raises(BadArgument, match="cannot be seen"):
        bring(workspace, bare, Wants("llamacpp", mount="mount-it please"))


# ------------------------------------------------------------------------------------------------ other machines


@pytest.fixture
def no_index(workspace: Workspace, tmp_path: Path) -> Iterator[Pod]:
    """A machine of its own whose pip knows only an index that is not there."""
    if machines.SSHD is None:
        pytest.skip(machines.WHY_SKIPPED)
    server = machines.start_sshd(tmp_path, environment=NOWHERE)
    address = f"ssh {server.user}@{server.host} -p {server.port} -i {server.identity}"
    work = pods.add(workspace, "far", address, models_path=None, host_key=server.fingerprint())
    yield drive(work, Silent())[0]
    server.stop()


def test_a_pod_without_an_index_gets_the_wheels(workspace: Workspace, no_index: Pod) -> None:
    audience = Silent()
    planned = drive(use_case.plan(workspace, no_index, LLAMACPP), Silent())
    assert any(" -m pip download " in line and line.startswith("wheels, here: ") for line in planned)
    report = bring(workspace, no_index, audience=audience)
    assert report.ready and report.installed
    keys = list(dict.fromkeys(stage.key for stage in audience.stages))
    assert keys.index("wheels") < keys.index("transfer") < keys.index("environment")
    home = Path(facts_of(workspace, no_index).home)
    (job,) = workspace.side(no_index).jobs()
    assert "--no-index --find-links" in (home / "jobs" / job.id / "stdout.1").read_text()
    assert not list(home.glob("wheels/*")) and not list(settings.home().glob("wheels/*"))
    assert not bring(workspace, no_index).installed


def test_without_an_index_here_and_there_it_is_said(
    workspace: Workspace, no_index: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in NOWHERE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(EngineUnavailable, match="could not be fetched here either") as caught:
        bring(workspace, no_index)
    assert "PIP_INDEX_URL" in caught.value.hint


def test_an_ordinary_user_needs_no_root(workspace: Workspace) -> None:
    with machines.for_a_user_of("sh") as server:
        address = f"ssh {server.user}@{server.host} -p {server.port} -i {server.identity}"
        work = pods.add(workspace, "plain", address, models_path=None, host_key=server.fingerprint())
        plain, facts = drive(work, Silent())
        assert facts.uid != 0
        report = bring(workspace, plain)
        assert report.ready and report.installed, report
        administrator = {check.name: check for check in report.checks}["administrator"]
        assert administrator.state == "ok" and "neither root nor sudo" in administrator.detail


def test_local_needs_no_environment_for_the_built_in_engine(workspace: Workspace) -> None:
    pytest.importorskip("xllamacpp", reason="install the engine: pip install 'podlab[local]'")
    report = bring(workspace, pods.find("local"))
    assert (report.ready, report.installed, report.environment) == (True, False, None)
    with pytest.raises(BadArgument, match="local"):
        bring(workspace, pods.find("local"), Wants("llamacpp", models_path="/data"))
