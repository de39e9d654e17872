"""Endpoints over pods that exist twice, clocks that disagree, and the ends of logs."""

from __future__ import annotations

import sys
import time
import uuid
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace

import pytest

from podlab.commands.drive import drive
from podlab.commands.handlers import model
from podlab.display.text import text
from podlab.errors import BadArgument
from podlab.events import Chunk
from podlab.lab import endpoints, pods
from podlab.lab.facts import Facts, HealthCheck
from podlab.lab.supervisor import result_of
from podlab.lab.workspace import Workspace
from podlab.types import EndpointState, LogLines, Pod, Step
from tests.audiences import Silent
from tests.machines import Sshd
from tests.remote.bench import SERVER

LOCAL = pods.find("local")


def serve(workspace: Workspace, pod: Pod, name: str) -> Facts:
    """A model server without a model, ready."""
    step = Step("serve", (sys.executable, "-I", "-S", str(SERVER), "--port", "{port}", "--name", name))
    side = workspace.side(pod)
    started = side.start(id=uuid.uuid4().hex, name=name, steps=(step,), model=name, engine="llamacpp",
                         health=HealthCheck(name))  # fmt: skip
    *_, last = side.watch(started.facts.id, 20.0)
    return last


@pytest.fixture
def twice(workspace: Workspace, sshd: Sshd, box: Pod) -> Iterator[tuple[Pod, Pod]]:
    """One machine under two names; what runs there is ended."""
    address = f"ssh {sshd.user}@{sshd.host} -p {sshd.port} -i {sshd.identity}"
    work = pods.add(workspace, "again", address, models_path=None, host_key=sshd.fingerprint())
    yield box, drive(work, Silent())[0]
    for facts in workspace.side(box).list():
        result_of(workspace.side(box).stop(facts.id, grace_s=2))


def test_one_machine_under_two_names(workspace: Workspace, twice: tuple[Pod, Pod]) -> None:
    """Its endpoints are there once: under the first name, or the one in use; both names lead to it, and both answer."""
    box, again = twice
    facts = serve(workspace, box, "tiny")
    asked = [box, again]
    for in_use, expected in (("local", "box"), ("again", "again"), ("box", "box")):
        workspace.override("pod", in_use)
        found, statuses = endpoints.listing(workspace, asked)
        assert [(each.id, each.pod, each.state) for each in found] == [(facts.id, expected, EndpointState.READY)]
        assert [status.state.value for status in statuses] == ["reachable", "reachable"]
        assert endpoints.find(workspace, "tiny")[0].name == expected
        assert endpoints.find(workspace, None)[0].name == expected
    assert [endpoints.find(workspace, "tiny", on=pod.name)[0].name for pod in asked] == ["box", "again"]
    workspace.override("pod", "local")
    stopped = drive(endpoints.stop(workspace, "tiny"), Silent())
    assert stopped.state is EndpointState.STOPPED


def test_what_a_reachable_name_shows_is_not_shown_as_unreachable_too(
    workspace: Workspace, twice: tuple[Pod, Pod], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine's other name leads nowhere any more: its endpoint is listed once all the same, as it is."""
    box, again = twice
    facts = serve(workspace, box, "tiny")
    endpoints.listing(workspace, [again])
    assert again.address is not None
    gone = replace(again, address=replace(again.address, port=1))
    workspace.drop_transport(again.id)
    found, statuses = endpoints.listing(workspace, [gone, box])
    assert [(each.id, each.pod) for each in found] == [(facts.id, "box")]
    assert [status.state.value for status in statuses] == ["unreachable", "reachable"]


@pytest.mark.parametrize(("ahead_s", "kept"), [(3600.0, False), (-3600.0, False), (0.4, True)])
def test_started_is_told_by_our_clock(workspace: Workspace, ahead_s: float, kept: bool) -> None:
    """A pod's clock may be an hour off: what started 10 s ago did so by our clock too."""
    now = time.time()
    facts = Facts("id", "tiny", "endpoint", now=now + ahead_s, started_at=now + ahead_s - 10)
    started_at = endpoints.endpoint_of(workspace, LOCAL, facts).started_at
    assert started_at is not None
    assert started_at == facts.started_at if kept else abs(started_at - (now - 10)) < 5


@pytest.fixture
def logging(workspace: Workspace) -> Iterator[str]:
    """A server on this computer that has said a few lines."""
    facts = serve(workspace, LOCAL, "talker")
    yield facts.name
    result_of(workspace.side(LOCAL).stop(facts.id, grace_s=2))


def asking(name: str, **given: object) -> Namespace:
    unsaid = {"on": None, "lines": None, "since": None, "follow": False, "json": False}
    return Namespace(**{"name": name, **unsaid, **given})


def shown(workspace: Workspace, name: str, **given: object) -> LogLines:
    value = drive(model.logs(workspace, asking(name, **given)), Silent()).value
    assert isinstance(value, LogLines)
    return value


def test_lines_and_since_hold_together(workspace: Workspace, logging: str) -> None:
    """--since alone shows all of that time; with --lines the last of it; both ends are the same."""
    whole = shown(workspace, logging, since="1h")
    assert len(whole.lines) > 1
    last = shown(workspace, logging, since="1h", lines=1)
    assert last.lines == whole.lines[-1:] and last.offset == whole.offset
    with pytest.raises(BadArgument, match="--lines 0"):
        shown(workspace, "no-such-endpoint", lines=0)


def test_a_log_without_news_is_not_called_empty() -> None:
    """Nothing new and nothing at all are said differently."""
    assert "empty" in text(LogLines(()))
    assert text(LogLines((), 1, 500)).strip() == "Nothing was added to the log in that time."


def test_a_followed_log_that_is_interrupted_gives_its_document(workspace: Workspace, logging: str) -> None:
    """With --json the interrupt ends the watching, and the document holds what was seen; else it is an interrupt."""

    class Interrupting(Silent):
        def chunk(self, chunk: Chunk) -> None:
            super().chunk(chunk)
            raise KeyboardInterrupt

    audience = Interrupting()
    args = asking(logging, follow=True, json=True)
    value = drive(model.logs(workspace, args), audience).value
    assert value.lines == tuple("".join(chunk.text for chunk in audience.chunks).splitlines()) != ()
    assert value.offset > 0
    with pytest.raises(KeyboardInterrupt):
        drive(model.logs(workspace, asking(logging, follow=True)), Interrupting())
