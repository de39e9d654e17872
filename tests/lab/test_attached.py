"""A server that somebody else runs, among the endpoints: real servers on this computer, checked and never owned."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from podlab import settings
from podlab.commands.drive import drive
from podlab.commands.results import EndpointDetail, EndpointList, UrlDetail
from podlab.errors import AlreadyExists, BadArgument, BadSecret, EngineNotReady, HttpError, NotFound
from podlab.lab import attached, endpoints, known, pods
from podlab.lab.workspace import Workspace
from podlab.remote.machine import answers
from podlab.types import Endpoint, EndpointState, Pod
from tests.audiences import Silent
from tests.faults.machine import command
from tests.lab.test_endpoints import serve
from tests.machines import Sshd, free_port
from tests.processes import wait_until

SERVER = Path(__file__).parents[1] / "programs" / "server.py"
Start = Callable[..., str]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a server that is not podlab's; its base URL."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(name: str = "llama", key: str = "") -> str:
        port = free_port()
        argv = [sys.executable, str(SERVER), "--port", str(port), "--name", name, "--key-env", "THEIR_KEY"]
        running.append(subprocess.Popen(argv, env={"THEIR_KEY": key}, stdout=subprocess.PIPE))
        wait_until(lambda: answers(port), timeout_s=20, why="the server listens")
        return f"http://127.0.0.1:{port}/v1"

    yield begin
    for process in running:
        process.kill()
        process.wait()


def end(url: str) -> None:
    with contextlib.suppress(OSError):  # it ends without an answer
        urllib.request.urlopen(url.removesuffix("/v1") + "/exit/0", timeout=5).close()


def test_it_is_listed_shown_and_reached_by_its_name(start: Start, workspace: Workspace) -> None:
    url = start()
    made = command("model", "attach", url, "--name", "theirs")
    assert isinstance(made, EndpointDetail)
    assert (made.endpoint.state, made.endpoint.engine, made.endpoint.url) == (EndpointState.READY, "openai", url)
    listed = command("model", "list")
    assert isinstance(listed, EndpointList)
    assert [(each.name, each.state) for each in listed.endpoints] == [("theirs", EndpointState.READY)]
    way = command("model", "url", "theirs")
    assert isinstance(way, UrlDetail)
    assert (way.base_url, way.model) == (url, "llama")
    assert endpoints.reach(workspace, "theirs").base_url == url
    assert "theirs" in known.names(workspace, "endpoints")


def test_the_address_without_v1_and_the_model_s_name_are_enough(start: Start) -> None:
    url = start("org/Small Model")
    made = command("model", "attach", url.removesuffix("/v1") + "/")
    assert isinstance(made, EndpointDetail)
    assert (made.endpoint.name, made.endpoint.url) == ("Small-Model", url)


def test_its_key_is_a_secret_by_name_and_never_kept(
    start: Start, monkeypatch: pytest.MonkeyPatch, workspace: Workspace
) -> None:
    url = start(key="sk-canary-theirs")
    with pytest.raises(HttpError):
        command("model", "attach", url, "--name", "theirs")
    with pytest.raises(BadSecret):
        command("model", "attach", url, "--name", "theirs", "--key-env", "THEIRS")
    monkeypatch.setenv("THEIRS", "sk-canary-theirs")
    command("model", "attach", url, "--name", "theirs", "--key-env", "THEIRS")
    assert "canary" not in settings.config_path().read_text()
    assert endpoints.reach(workspace, "theirs").model == "llama"
    monkeypatch.delenv("THEIRS")
    (found,) = attached.listing(attached.all_attached())
    assert found.state is EndpointState.UNHEALTHY
    assert "THEIRS" in found.detail


def test_its_state_is_checked_each_time(start: Start, workspace: Workspace) -> None:
    url = start()
    made = attached.attach(workspace, url, name="theirs", model=None, key_name=None)
    end(url)
    assert attached.checked(made).state is EndpointState.UNREACHABLE
    with pytest.raises(EngineNotReady, match="unreachable"):
        endpoints.reach(workspace, "theirs")
    other = start("another")
    moved = attached.Attached("theirs", other, "llama")
    assert attached.checked(moved).state is EndpointState.UNHEALTHY


def test_a_name_is_taken_once_and_free_again_after_detach(start: Start, workspace: Workspace) -> None:
    url = start()
    command("model", "attach", url)
    with pytest.raises(AlreadyExists, match="llama"):
        command("model", "attach", url)
    command("model", "detach", "llama")
    assert attached.all_attached() == []
    with pytest.raises(NotFound):
        command("model", "detach", "llama")
    command("model", "attach", url)


def test_a_model_it_does_not_serve_is_refused(start: Start) -> None:
    with pytest.raises(BadArgument, match="does not serve") as caught:
        command("model", "attach", start(), "--model", "other")
    assert "llama" in caught.value.hint


@pytest.mark.parametrize(
    "url",
    ["ftp://x/v1", "localhost:8000", "http://", "http://user:pass@127.0.0.1/v1", "http://127.0.0.1:99999/v1",
     "http://127.0.0.1/v1?key=x", "http://a b/v1", "http://[::1/v1", "", "/v1"],
)  # fmt: skip
def test_what_is_no_address_is_refused_and_nothing_is_kept(url: str, workspace: Workspace) -> None:
    with pytest.raises(BadArgument):
        attached.attach(workspace, url, name="x", model=None, key_name=None)
    assert not settings.config_path().exists()


@pytest.mark.parametrize(
    "url",
    ["http://user:hunter2@h/v1", "nonsense", "ftp://user:hunter2@h/v1", "http://h/v1?key=hunter2", "hunter2@h b",
     "http://user:hunter2@[::1/v1", "ftp://h/?key=hunter2"],
)  # fmt: skip
def test_a_dry_run_refuses_what_is_no_address_and_shows_no_password(url: str) -> None:
    with pytest.raises(BadArgument) as caught:
        command("model", "attach", url, "--dry-run")
    assert "hunter2" not in f"{caught.value.message} {caught.value.hint}"


def test_a_dry_run_refuses_a_name_that_is_taken(start: Start, workspace: Workspace) -> None:
    url = start()
    command("model", "attach", url, "--name", "theirs")
    with pytest.raises(AlreadyExists):
        command("model", "attach", url, "--name", "theirs", "--dry-run")


@pytest.mark.parametrize("url", ["http://192.0.2.1:8000/v1", "http://gpu.example/v1", "http://[2001:db8::1]/v1"])
def test_a_key_goes_to_no_other_machine_where_it_can_be_read(
    url: str, monkeypatch: pytest.MonkeyPatch, workspace: Workspace
) -> None:
    """Not when it is attached, not when the file was edited by hand; a person may allow it."""
    monkeypatch.setenv("THEIRS", "sk-canary-theirs")
    with pytest.raises(BadSecret, match="plain HTTP") as caught:
        attached.attach(workspace, url, name="x", model=None, key_name="THEIRS")
    assert "--key-in-clear" in caught.value.hint
    with pytest.raises(BadSecret):
        command("model", "attach", url, "--key-env", "THEIRS", "--dry-run")
    command("model", "attach", url, "--key-env", "THEIRS", "--key-in-clear", "--dry-run")
    settings.config_path().parent.mkdir(parents=True, exist_ok=True)
    settings.config_path().write_text(f'[attached.x]\nurl = "{url}"\nmodel = "m"\nkey = "THEIRS"\n')
    (found,) = attached.all_attached()
    with pytest.raises(BadSecret, match="plain HTTP"):
        found.key()
    shown = attached.checked(found)
    assert (shown.state, "plain HTTP" in shown.detail) == (EndpointState.UNHEALTHY, True)
    with pytest.raises(BadSecret):
        endpoints.reach(workspace, "x")
    with settings.config_path().open("a") as file:
        file.write("key_in_clear = true\n")
    (found,) = attached.all_attached()
    assert found.key() is not None


@pytest.mark.parametrize(
    "url", ["https://gpu.example/v1", "http://127.0.0.9/v1", "http://localhost:1/v1", "http://[::1]"]
)
def test_a_key_goes_where_nobody_on_the_way_reads_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEIRS", "sk-canary-theirs")
    assert attached.Attached("x", url, "m", "THEIRS").key() is not None


def test_the_leave_to_send_a_key_in_clear_is_kept(
    start: Start, monkeypatch: pytest.MonkeyPatch, workspace: Workspace
) -> None:
    monkeypatch.setenv("THEIRS", "sk-canary-theirs")
    command("model", "attach", start(key="sk-canary-theirs"), "--key-env", "THEIRS", "--key-in-clear")
    assert attached.all_attached()[0].key_in_clear


def test_the_name_of_an_endpoint_is_not_taken_over(start: Start, workspace: Workspace) -> None:
    url = start()
    serve(workspace, pods.find("local"), name="mine")
    endpoints.listing(workspace, [pods.find("local")])
    try:
        with pytest.raises(AlreadyExists, match="mine is the name of an endpoint on local"):
            command("model", "attach", url, "--name", "mine")
        with pytest.raises(AlreadyExists):
            command("model", "attach", url, "--name", "mine", "--dry-run")
        assert attached.all_attached() == []
    finally:
        drive(endpoints.stop(workspace, "mine", "local"), Silent())
    command("model", "attach", url, "--name", "mine")


def test_the_name_that_a_silent_pod_was_last_seen_with_is_not_taken_over(
    start: Start, workspace: Workspace, box: Pod, sshd: Sshd
) -> None:
    seen = Endpoint("gone", "mine", box.name, "tiny", "llamacpp", EndpointState.READY, pid=4242)
    workspace.store.saw_endpoints(box.id, [seen], time.time())
    sshd.stop()
    try:
        with pytest.raises(AlreadyExists, match="last seen on box"):
            attached.attach(workspace, start(), name="mine", model=None, key_name=None)
    finally:
        sshd.start()
    assert attached.all_attached() == []
