"""Starting, judging and stopping a real engine on this computer."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from podlab.commands.drive import drive
from podlab.errors import AlreadyExists, BadArgument, EngineCrashed, EngineNotReady, NotFound
from podlab.events import Notice
from podlab.lab import endpoints, launch, pods
from podlab.lab.launch import Wish
from podlab.lab.supervisor import PodSide, result_of
from podlab.lab.workspace import Workspace
from podlab.types import Endpoint, EndpointState
from tests import processes
from tests.audiences import Silent

pytest.importorskip("xllamacpp", reason="install the engine: pip install 'podlab[local]'")
LOCAL = pods.find("local")


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    workspace = Workspace.open()
    yield workspace
    for facts in workspace.side(LOCAL).list():
        result_of(workspace.side(LOCAL).stop(facts.id, grace_s=2))
    workspace.close()
    assert processes.saying(f"{os.environ['PODLAB_HOME']}/pod/endpoints") == []


def start(workspace: Workspace, wish: Wish, audience: Silent | None = None) -> Endpoint:
    return drive(launch.start(workspace, LOCAL, wish), audience or Silent())


def test_start_list_stop(workspace: Workspace) -> None:
    """Ready means that it answers; stopped means that no process of it is left."""
    endpoint = start(workspace, Wish("tiny"))
    assert endpoint.state is EndpointState.READY and endpoint.url is not None
    assert endpoints.reach(workspace, "tiny").model == "tiny"
    stopped = drive(endpoints.stop(workspace, "tiny"), Silent())
    assert stopped.state is EndpointState.STOPPED
    assert processes.marked(f"PODLAB_ENDPOINT={endpoint.id}") == []
    with pytest.raises(EngineNotReady, match="stopped"):
        endpoints.reach(workspace, "tiny")


def test_only_loopback_and_only_with_the_key(workspace: Workspace) -> None:
    """The engine listens on 127.0.0.1 alone, and its key stands in no command line."""
    endpoint = start(workspace, Wish("tiny"))
    key = workspace.endpoint_key(LOCAL, endpoint.id)
    assert key is not None and processes.saying(key.reveal()) == []
    table = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    listeners = [line.split()[1] for line in table.splitlines() if line.split()[3] == "0A"]
    ours = [entry for entry in listeners if entry.endswith(f":{endpoint.port:04X}")]
    assert ours == [f"0100007F:{endpoint.port:04X}"]


def test_wished_port_that_is_taken(workspace: Workspace) -> None:
    """A port somebody else listens on is refused by name, and nothing is left behind."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(AlreadyExists, match=str(port)):
            start(workspace, Wish("tiny", port=port))
    assert endpoints.listing(workspace, [LOCAL])[0] == []


def test_port_lost_in_a_race(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The port that was chosen is taken before the engine binds it: another is chosen, and a stranger is not ours."""
    taken: list[socket.socket] = []
    real_start = PodSide.start

    def start_and_lose_the_port(self: PodSide, **asked: object) -> object:
        # The step that binds waits until the test has taken the port, as a faster stranger would have.
        gate = Path(os.environ["PODLAB_HOME"]) / "gate"
        *before, serve = asked["steps"]  # type: ignore[misc]
        waiting = replace(
            serve, argv=("sh", "-c", 'while [ ! -e "$1" ]; do sleep 0.02; done; shift; exec "$@"', "sh", str(gate),
                         *serve.argv)
        )  # fmt: skip
        started = real_start(self, **{**asked, "steps": (*before, waiting)})  # type: ignore[arg-type]
        assert started.facts.port is not None
        taken.append(socket.create_server(("127.0.0.1", started.facts.port)))
        gate.touch()
        return started

    monkeypatch.setattr(PodSide, "start", start_and_lose_the_port)
    audience = Silent()
    endpoint = start(workspace, Wish("tiny"), audience)
    lost = taken[0].getsockname()[1]
    taken[0].close()
    assert endpoint.state is EndpointState.READY and endpoint.port != lost
    assert any(str(lost) in notice.text for notice in audience.notices)


@pytest.mark.parametrize(
    ("content", "cause"), [(b"this is no model" * 100, "corrupt_weights"), (b"GGUF" + b"\0" * 64, "corrupt_weights")]
)
def test_broken_model(workspace: Workspace, tmp_path: Path, content: bytes, cause: str) -> None:
    """A file that is no model crashes with that cause and the decisive line, and is listed as crashed."""
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    with pytest.raises(EngineCrashed) as caught:
        start(workspace, Wish(str(path)))
    assert caught.value.cause == cause and caught.value.log
    (endpoint,), _ = endpoints.listing(workspace, [LOCAL])
    assert (endpoint.state, endpoint.cause) == (EndpointState.CRASHED, cause)


def test_refused_before_anything_starts(workspace: Workspace) -> None:
    """Unknown models, engine flags and bad values are refused at once."""
    with pytest.raises(NotFound, match="tniy"):
        start(workspace, Wish("tniy"))
    with pytest.raises(BadArgument):
        start(workspace, Wish("tiny", extra=("--no-such-flag",)))
    with pytest.raises(BadArgument):
        start(workspace, Wish("tiny", name="../x"))
    assert endpoints.listing(workspace, [LOCAL])[0] == []


def test_backend_the_build_lacks(workspace: Workspace) -> None:
    """--backend cuda on a build for the CPU is refused with the reason."""
    with pytest.raises(EngineCrashed) as caught:
        start(workspace, Wish("tiny", backend="cuda"))
    assert caught.value.cause == "driver_or_device"


def test_too_slow_is_left_loading(workspace: Workspace) -> None:
    """What is not ready in time is an error that says so, and goes on."""
    workspace.override("start_deadline_s", 0.01)
    with pytest.raises(EngineNotReady, match="not ready"):
        start(workspace, Wish("tiny"))
    workspace.override("start_deadline_s", None)
    audience = Silent()
    assert start(workspace, Wish("tiny"), audience).state is EndpointState.READY
    assert isinstance(audience.notices[0], Notice)
    assert len(endpoints.listing(workspace, [LOCAL])[0]) == 1


def test_ended_by_itself_is_a_crash(workspace: Workspace) -> None:
    """TERM from somebody else: an end without a stop of ours is a crash. Starting again replaces it in the list."""
    endpoint = start(workspace, Wish("tiny"))
    assert endpoint.pid is not None
    os.kill(endpoint.pid, 15)
    deadline = time.monotonic() + 15
    while True:
        (seen,), _ = endpoints.listing(workspace, [LOCAL])
        if seen.state is EndpointState.CRASHED:
            break
        assert time.monotonic() < deadline, seen
    assert (seen.exit_status, seen.cause) == (143, "killed")
    again = start(workspace, Wish("tiny"))
    assert again.state is EndpointState.READY
    assert [e.id for e in endpoints.listing(workspace, [LOCAL])[0]] == [again.id]


def test_log_since_and_follow(workspace: Workspace) -> None:
    """The end of a log by lines; following ends with the endpoint and repeats nothing."""
    start(workspace, Wish("tiny"))
    pod, facts = endpoints.find(workspace, "tiny")
    assert len(endpoints.log(workspace, pod, facts, lines=2, since_s=None).lines) == 2
    following = endpoints.follow_log(workspace, pod, facts, lines=100000, since_s=None)
    heard = next(following)[1]
    drive(endpoints.stop(workspace, "tiny"), Silent())
    heard += "".join(text for _, text in following)
    whole = endpoints.log(workspace, pod, facts, lines=100000, since_s=None)
    assert heard.splitlines() == list(whole.lines)


@pytest.mark.parametrize(
    ("written", "meant"), [("~/my models", "/home/me/my models"), ("models", "/home/me/models"), ("/data/m", "/data/m")]
)
def test_models_path_as_a_person_writes_it(written: str, meant: str) -> None:
    """Engines know nothing of `~`: the path is made absolute once, for sending and for serving."""
    assert launch._in_home(written, "/home/me") == meant
