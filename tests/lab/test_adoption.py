"""Servers without a record: orphans of ours and what somebody else started, put on record over real SSH."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest

from podlab.commands.drive import drive
from podlab.commands.handlers import model
from podlab.commands.results import EndpointDetail, EndpointList
from podlab.display.text import text
from podlab.errors import AlreadyExists, BadArgument, NotFound, PodlabError
from podlab.http import Http
from podlab.lab import endpoints
from podlab.lab.facts import HealthCheck
from podlab.lab.supervisor import result_of
from podlab.lab.workspace import Workspace
from podlab.types import Endpoint, EndpointState, Pod, Step
from tests.audiences import Silent
from tests.machines import free_port
from tests.processes import deleted_under_way, marked, wait_until
from tests.remote.bench import SERVER

KEY = "sk-canary-of-the-adopted"


@pytest.fixture
def swept(workspace: Workspace, box: Pod) -> Iterator[Pod]:
    """The pod; what runs there is ended."""
    yield box
    for facts in workspace.side(box).list():
        result_of(workspace.side(box).stop(facts.id, grace_s=2))


@pytest.fixture
def theirs() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Servers that podlab did not start."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def foreign(started: list[subprocess.Popen[bytes]], port: int, *options: str, **env: str) -> int:
    argv = [sys.executable, "-I", "-S", str(SERVER), "--port", str(port), "--name", "org/their-model", *options]
    started.append(subprocess.Popen(argv, stdout=subprocess.DEVNULL, env={**os.environ, **env}))
    wait_until(lambda: answers(port), timeout_s=20.0, why="their server answers")
    return started[-1].pid


def answers(port: int) -> bool:
    """Whether a server says that it is well."""
    http = Http(f"http://127.0.0.1:{port}")
    try:
        return http.get_bytes("/health").status == 200
    except PodlabError:
        return False
    finally:
        http.close()


def served(workspace: Workspace, pod: Pod, *options: str) -> tuple[str, Path]:
    """An endpoint of ours that is ready, with its key in engine's own variable; its id and its folder."""
    side = workspace.side(pod)
    argv = (sys.executable, "-I", "-S", str(SERVER), "--port", "{port}", "--name", "tiny-1", *options)
    id = side.start(id=uuid.uuid4().hex, name="tiny", steps=(Step("serve", argv, {"VLLM_API_KEY": "{key}"}),), key=KEY,
                    health=HealthCheck("tiny-1")).facts.id  # fmt: skip
    *_, last = side.watch(id, 20.0)
    assert last.health is not None and last.health.models == ("tiny-1",)
    return id, Path(side.hello().home) / "endpoints" / id


def asking(**given: object) -> Namespace:
    unsaid = {"orphan": None, "pid": None, "name": None, "key_env": None, "on": None, "dry_run": False}
    return Namespace(**{**unsaid, **given})


def adopted(workspace: Workspace, **given: object) -> Endpoint:
    value = drive(model.adopt(workspace, asking(**given)), Silent()).value
    assert isinstance(value, EndpointDetail)
    assert KEY not in repr(value)
    return value.endpoint


def listed(workspace: Workspace) -> EndpointList:
    value = drive(model.list_endpoints(workspace, Namespace(on="box", all=True, files=False)), Silent()).value
    assert isinstance(value, EndpointList)
    return value


def test_an_orphan_gets_its_record_again(workspace: Workspace, swept: Pod) -> None:
    """Its folder is gone: what it is, where it listens and its key are found out from the process."""
    id, folder = served(workspace, swept, "--key-env", "VLLM_API_KEY")
    deleted_under_way(folder)
    (orphan,) = listed(workspace).endpoints
    assert orphan.state is EndpointState.ORPHAN
    assert id in text(listed(workspace))
    endpoint = adopted(workspace, orphan=id)
    assert (endpoint.id, endpoint.name, endpoint.state, endpoint.model) == (id, "tiny-1", EndpointState.READY, "tiny-1")
    reached = endpoints.reach(workspace, "tiny-1")
    assert reached.key is not None and reached.key.reveal() == KEY
    http = Http(reached.base_url, key=reached.key)
    assert http.get_json("/models")["data"][0]["id"] == "tiny-1"
    http.close()
    pod, facts = endpoints.find(workspace, "tiny-1")
    said = endpoints.log(workspace, pod, facts, lines=50, since_s=None).lines
    assert said[0] == "loading the model", "what it wrote into a file that was deleted is still there to read"
    assert "adopted" in said[-1]
    assert (folder / "key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(AlreadyExists, match="on record"):
        adopted(workspace, orphan=id)
    with pytest.raises(BadArgument, match="adopted"):
        result_of(workspace.side(pod).restart(id, 1))
    assert drive(endpoints.stop(workspace, "tiny-1"), Silent()).state is EndpointState.STOPPED
    assert marked(f"PODLAB_ENDPOINT={id}") == []


def test_a_torn_record_is_mended_and_keeps_its_log(workspace: Workspace, swept: Pod) -> None:
    id, folder = served(workspace, swept, "--key-env", "VLLM_API_KEY")
    (folder / "run.json").write_text("{torn")
    endpoint = adopted(workspace, orphan="tiny")
    assert (endpoint.id, endpoint.name, endpoint.state) == (id, "tiny", EndpointState.READY)
    assert (folder / "key").read_text() == KEY
    assert "adopted" not in (folder / "spec.json").read_text(), "what it was asked for is known: it can be restarted"
    pod, facts = endpoints.find(workspace, "tiny")
    assert endpoints.log(workspace, pod, facts, lines=50, since_s=None).lines == ("loading the model", "listening")


def test_a_server_of_somebody_else_is_adopted_by_its_process(
    workspace: Workspace, swept: Pod, theirs: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = foreign(theirs, free_port(), "--key-env", "SECRET_OF_THEIRS", SECRET_OF_THEIRS=KEY)
    with pytest.raises(BadArgument, match="--key-env"):
        adopted(workspace, pid=pid, on="box")
    before = {endpoint.id for endpoint in listed(workspace).endpoints}
    monkeypatch.setenv("THEIR_KEY", KEY)
    endpoint = adopted(workspace, pid=pid, on="box", key_env="THEIR_KEY")
    assert (endpoint.name, endpoint.state, endpoint.pid) == ("their-model", EndpointState.READY, pid)
    assert endpoint.engine == "openai"
    theirs[0].kill()
    theirs[0].wait()
    (gone,) = (found for found in listed(workspace).endpoints if found.id not in before)
    assert (gone.id, gone.state, gone.detail) == (endpoint.id, EndpointState.CRASHED, "ended, nobody saw how")


def test_stopping_an_adopted_server_ends_it_and_nothing_else(
    workspace: Workspace, swept: Pod, theirs: list[subprocess.Popen[bytes]]
) -> None:
    """It is in our own process group here, as one that a script of theirs started is in the script's."""
    pids = [foreign(theirs, free_port()) for _ in range(2)]
    assert adopted(workspace, pid=pids[0], on="box", name="mine").state is EndpointState.READY
    with pytest.raises(AlreadyExists, match="mine"):
        adopted(workspace, pid=pids[1], on="box", name="mine")
    stopped = drive(endpoints.stop(workspace, "mine"), Silent())
    assert stopped.state is EndpointState.STOPPED
    assert theirs[0].wait(10) != 0
    assert theirs[1].poll() is None


def test_the_script_that_started_a_server_leads_to_it(
    workspace: Workspace, swept: Pod, theirs: list[subprocess.Popen[bytes]]
) -> None:
    """What people note is often the number of a wrapper."""
    port = free_port()
    line = f"{sys.executable} -I -S {SERVER} --port {port} --name wrapped >/dev/null; echo over"
    theirs.append(subprocess.Popen(["sh", "-c", line], stdout=subprocess.DEVNULL, start_new_session=True))
    wait_until(lambda: answers(port), timeout_s=20.0, why="their server answers")
    endpoint = adopted(workspace, pid=theirs[0].pid, on="box")
    assert (endpoint.name, endpoint.state) == ("wrapped", EndpointState.READY)
    assert endpoint.pid != theirs[0].pid
    drive(endpoints.stop(workspace, "wrapped"), Silent())
    assert theirs[0].wait(10) == 0, "it went on after its server had ended"


def test_keys_in_a_command_line_go_on_no_record(
    workspace: Workspace, swept: Pod, theirs: list[subprocess.Popen[bytes]]
) -> None:
    script = "import runpy, sys; sys.argv = sys.argv[:-2]; runpy.run_path(sys.argv[0], run_name='__main__')"
    port = free_port()
    argv = [sys.executable, "-c", "import sys; sys.argv = sys.argv[1:];" + script, str(SERVER), "--port", str(port),
            "--name", "m", "--api-key", KEY]  # fmt: skip
    theirs.append(subprocess.Popen(argv, stdout=subprocess.DEVNULL))
    wait_until(lambda: answers(port), timeout_s=20.0, why="their server answers")
    endpoint = adopted(workspace, pid=theirs[0].pid, on="box")
    folder = Path(workspace.side(swept).hello().home) / "endpoints" / endpoint.id
    holding = [path.name for path in folder.iterdir() if KEY.encode() in path.read_bytes()]
    assert holding == ["key"]
    assert endpoints.reach(workspace, "m").key is not None


def test_what_cannot_be_adopted_says_why(
    workspace: Workspace, swept: Pod, theirs: list[subprocess.Popen[bytes]]
) -> None:
    id, _ = served(workspace, swept)
    own = workspace.side(swept).status([id])[0].pid
    theirs.append(subprocess.Popen(["cat"], stdin=subprocess.PIPE))
    with pytest.raises(AlreadyExists, match="podlab started"):
        adopted(workspace, pid=own, on="box")
    with pytest.raises(BadArgument, match="none of its processes listens"):
        adopted(workspace, pid=theirs[0].pid, on="box")
    with pytest.raises(NotFound, match="no process 4194000"):
        adopted(workspace, pid=4194000, on="box")
    with pytest.raises(BadArgument, match="Say which"):
        adopted(workspace)
    with pytest.raises(NotFound):
        adopted(workspace, orphan="nothing")
