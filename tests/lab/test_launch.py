"""Starting, judging and stopping a real engine on this computer."""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from podlab.commands.drive import drive
from podlab.engines.base import Cause, Diagnosis
from podlab.errors import (
    AlreadyExists,
    BadArgument,
    BadSecret,
    EngineCrashed,
    EngineNotReady,
    EngineUnavailable,
    NotFound,
    SupervisorError,
    Unreachable,
)
from podlab.events import Notice
from podlab.lab import endpoints, launch, pods
from podlab.lab.facts import Facts, HealthCheck, PodFacts
from podlab.lab.supervisor import PodSide, result_of
from podlab.lab.wish import Wish
from podlab.lab.workspace import Workspace
from podlab.types import Endpoint, EndpointState, Pod, SshAddress, Step
from tests import processes
from tests.audiences import Silent

pytest.importorskip("xllamacpp", reason="install the engine: pip install 'podlab[local]'")
LOCAL = pods.find("local")
TINY_FILE = Path(__file__).parents[2] / "podlab" / "catalog" / "data" / "tiny-q8_0.gguf"


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
    """A file that is no model is refused; forced, it crashes with the cause and the decisive line, and is so listed."""
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)
    with pytest.raises(BadArgument, match=r"broken\.gguf is not a GGUF file"):
        start(workspace, Wish(str(path)))
    with pytest.raises(EngineCrashed) as caught:
        start(workspace, Wish(str(path), force=True))
    assert caught.value.cause == cause and caught.value.log
    assert "your own" in caught.value.hint and "fetched" not in caught.value.hint
    (endpoint,), _ = endpoints.listing(workspace, [LOCAL])
    assert (endpoint.state, endpoint.cause) == (EndpointState.CRASHED, cause)


def test_a_file_of_ones_own_gets_the_context_it_was_made_for(workspace: Workspace, tmp_path: Path) -> None:
    """A model of 2k tokens that no catalog knows starts without --context; more than that is refused when asked for."""
    path = tmp_path / "mine.gguf"
    path.symlink_to(TINY_FILE)
    assert start(workspace, Wish(str(path))).state is EndpointState.READY
    with pytest.raises(EngineUnavailable, match="made for 2k tokens, not for 8k"):
        start(workspace, Wish(str(path), name="longer", context=8192))


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
    assert (seen.exit_status, seen.cause, seen.detail) == (143, "killed", "ended by SIGTERM")
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
    facts = PodFacts(
        1, "3.11.2", "/usr/bin/python3", "m", "b", "box", "Linux", "x86_64", "/h", "/home/me", 1000, 8, None, 0, 0.0
    )
    assert facts.absolute(written) == meant


NOWHERE = Pod("nowhere", "p-nowhere", "ssh", SshAddress("127.0.0.1", "nobody", 1))


@pytest.mark.parametrize(
    "wish",
    [Wish("tiny", port=99999), Wish("tiny", port=-1), Wish("tiny", context=0), Wish("tiny", context=255),
     Wish("tiny", slots=0), Wish("tiny", extra=("--no-such-flag",))],
)  # fmt: skip
def test_what_no_pod_can_do_is_refused_before_the_pod_is_reached(workspace: Workspace, wish: Wish) -> None:
    """A pod that does not answer is not even asked, by a start and by its plan."""
    with pytest.raises(Unreachable):
        drive(launch.start(workspace, NOWHERE, Wish("tiny")), Silent())
    with pytest.raises(BadArgument):
        drive(launch.start(workspace, NOWHERE, wish), Silent())
    with pytest.raises(BadArgument):
        drive(launch.plan(workspace, NOWHERE, wish), Silent())


def test_options_that_what_runs_was_not_started_with(workspace: Workspace) -> None:
    """Each differing one is named with both values and the way out; equal ones are not, and bad ones are refused."""
    first = start(workspace, Wish("tiny", context=1024))
    same = Silent()
    assert start(workspace, Wish("tiny", context=1024, slots=4, port=first.port or 0), same).id == first.id
    assert [notice.level for notice in same.notices] == ["info"]
    other = Silent()
    assert start(workspace, Wish("tiny", context=2048, slots=1, port=1, extra=("--threads", "2")), other).id == first.id
    (warning,) = [notice.text for notice in other.notices if notice.level == "warning"]
    for said in (f"--port {first.port} (asked: 1)", "--context 1024 (asked: 2048)", "--slots 4 (asked: 1)",
                 "engine options left open (asked: --threads 2)", "podlab model stop tiny"):  # fmt: skip
        assert said in warning
    with pytest.raises(BadArgument):
        start(workspace, Wish("tiny", slots=0))


def test_an_interrupt_before_the_request_arrives(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the start is on its way: the stop comes first, and the start that comes later is refused."""
    on_its_way: list[tuple[PodSide, dict[str, object]]] = []

    def late(self: PodSide, **asked: object) -> object:
        on_its_way.append((self, asked))
        raise KeyboardInterrupt

    audience = Silent()
    with monkeypatch.context() as patched:
        patched.setattr(PodSide, "start", late)
        with pytest.raises(KeyboardInterrupt):
            start(workspace, Wish("tiny"), audience)
    assert audience.notices == []
    ((side, asked),) = on_its_way
    with pytest.raises(SupervisorError, match="cancelled"):
        side.start(**asked)  # type: ignore[arg-type]
    assert workspace.side(LOCAL).list() == ()
    assert start(workspace, Wish("tiny")).state is EndpointState.READY


TOKEN = "hf_canary_of_a_restart"


def test_restart_gives_each_step_its_secrets_again(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pod's record says which step had which: they are given again; without them it is left running."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    program = Path(__file__).parents[1] / "programs" / "server.py"
    serve = Step("serve", (sys.executable, "-I", "-S", str(program), "--port", "{port}", "--name", "x"))
    prepare = Step("prepare", ("sh", "-c", f"test ${{#HF_TOKEN}} -eq {len(TOKEN)}"))
    side = workspace.side(LOCAL)
    side.start(
        id="x1", name="x", steps=(prepare, serve), engine="llamacpp", health=HealthCheck("x"),
        secrets={"prepare": {"HF_TOKEN": TOKEN}},
    )  # fmt: skip
    *_, facts = side.watch("x1", 20.0)
    assert facts.secrets == {"prepare": ("HF_TOKEN",)}
    assert drive(launch.restart(workspace, LOCAL, facts), Silent()).generation == 2
    monkeypatch.delenv("HF_TOKEN")
    (facts,) = side.status(["x1"])
    with pytest.raises(BadSecret, match="HF_TOKEN"):
        drive(launch.restart(workspace, LOCAL, facts), Silent())
    assert side.status(["x1"])[0].alive


def test_the_hint_for_bad_weights_goes_by_who_brought_them() -> None:
    """What the pod fetched is fetched again; a file of the user's own is the user's to replace."""
    found = Diagnosis(Cause.CORRUPT_WEIGHTS, ("bad magic",), "It is no GGUF file.", another_copy=True)
    facts = Facts("id", "tiny", "endpoint", now=0.0)
    assert "your own" in launch._hint(found, facts)
    assert "fetched anew" in launch._hint(found, replace(facts, meta={"fetched": True}))


@pytest.mark.parametrize("said", ["", "three", "3", "x.11"])
def test_a_python_without_a_version(workspace: Workspace, said: str) -> None:
    """A pod that tells no version of its Python is an error that shows what it told."""
    facts = replace(workspace.side(LOCAL).hello(), python=said)
    with pytest.raises(SupervisorError, match=re.escape(repr(said))):
        launch._machine(LOCAL, facts)
    assert launch._machine(LOCAL, replace(facts, python="3.13.0rc1+")).python == (3, 13)
