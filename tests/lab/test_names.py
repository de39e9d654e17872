"""An endpoint's name is unique over all pods, by what they say now and not by what was once seen."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from podlab.commands.drive import drive
from podlab.commands.parsing import parse
from podlab.commands.table import find
from podlab.errors import AlreadyExists, Unreachable
from podlab.events import Stage
from podlab.lab import endpoints, launch, pods, replicas
from podlab.lab.supervisor import PodSide, result_of
from podlab.lab.wish import Wish
from podlab.lab.workspace import Workspace
from podlab.types import ALIVE, Endpoint, EndpointState, Pod
from tests.audiences import Silent
from tests.lab.test_endpoints import serve
from tests.machines import Sshd

LOCAL = pods.find("local")


def last_seen_on(workspace: Workspace, pod: Pod) -> None:
    """As a listing of yesterday left it."""
    seen = Endpoint("gone", "tiny", pod.name, "tiny", "llamacpp", EndpointState.READY, pid=4242)
    workspace.store.saw_endpoints(pod.id, [seen], time.time() - 86400)


def test_what_a_pod_once_had_takes_no_name(workspace: Workspace, box: Pod) -> None:
    """The pod is asked, and has it no longer: the name is free."""
    pytest.importorskip("xllamacpp", reason="install the engine: pip install 'podlab[local]'")
    last_seen_on(workspace, box)
    endpoint = drive(launch.start(workspace, LOCAL, Wish("tiny")), Silent())
    assert endpoint.state is EndpointState.READY
    drive(endpoints.stop(workspace, "tiny"), Silent())


def test_what_a_pod_has_takes_its_name(workspace: Workspace, box: Pod) -> None:
    """It is refused on another pod, by the name of the pod that has it."""
    facts = serve(workspace, box, "tiny")
    endpoints.listing(workspace, [box])
    with pytest.raises(AlreadyExists, match="on box that serves tiny"):
        drive(launch.start(workspace, LOCAL, Wish("tiny")), Silent())
    result_of(workspace.side(box).stop(facts.id, grace_s=2))


def test_of_two_starts_of_one_name_at_the_same_moment_one_is_refused(
    workspace: Workspace, box: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both look first and find the name free; what counts is who asks its pod first."""
    pytest.importorskip("xllamacpp")
    looked, asked, real = threading.Barrier(2), threading.Barrier(2), PodSide.start

    def ask_with_the_other(side: PodSide, **what: Any) -> Any:
        """Both pods are asked, or the other one has not come within three seconds."""
        with contextlib.suppress(threading.BrokenBarrierError):
            asked.wait(3)
        return real(side, **what)

    monkeypatch.setattr(PodSide, "start", ask_with_the_other)

    def begin(pod: Pod) -> str:
        work = launch.start(workspace, pod, Wish("tiny"), detach=True)
        answer = None
        while True:
            try:
                event = work.send(answer)
            except StopIteration as end:
                return f"started on {end.value.pod}"
            except AlreadyExists as error:
                return error.message
            if isinstance(event, Stage) and event.name == "start":
                looked.wait(60)

    with ThreadPoolExecutor() as both:
        said = sorted(both.map(begin, (LOCAL, box)))
    alive = [each for each in endpoints.listing(workspace, [LOCAL, box])[0] if each.state in ALIVE]
    for endpoint in alive:
        drive(endpoints.stop(workspace, "tiny", on=endpoint.pod), Silent())
    assert len(alive) == 1 and said[0].startswith("started on") is not said[1].startswith("started on")
    assert any("tiny is the name of an endpoint on" in line for line in said)


def test_a_pod_that_does_not_answer_may_have_it_still(workspace: Workspace, box: Pod, sshd: Sshd) -> None:
    """What it has is unknown, and said to be unknown."""
    last_seen_on(workspace, box)
    assert box.address is not None
    sshd.stop()
    try:
        with pytest.raises(AlreadyExists, match="last seen on box, which does not answer now"):
            drive(launch.start(workspace, LOCAL, Wish("tiny")), Silent())
    finally:
        sshd.start()
    assert workspace.side(LOCAL).list() == ()


def test_the_same_endpoint_is_remembered_of_both_names_of_a_machine(workspace: Workspace, box: Pod) -> None:
    """What was seen of one pod is not forgotten because another tells the same."""
    last_seen_on(workspace, box)
    last_seen_on(workspace, replace(box, id="another", name="again"))
    assert [e.pod for pod_id in (box.id, "another") for e in workspace.store.endpoints_of(pod_id)] == ["box", "again"]


def test_replicas_on_several_pods_are_endpoints_of_their_own(workspace: Workspace, box: Pod) -> None:
    """`--on local,box` starts NAME.1 here and NAME.2 there; a pod that refuses does not stop the other."""
    pytest.importorskip("xllamacpp")
    verb, rest = find(["model", "start", "tiny", "--name", "twin", "--on", "local,box"])
    outcome = drive(verb.handler(workspace, parse(verb, rest, magic=False).args), Silent())
    assert [(each.name, each.pod, each.state) for each in outcome.value.endpoints] == [
        ("twin.1", "local", EndpointState.READY), ("twin.2", "box", EndpointState.READY),
    ]  # fmt: skip
    for endpoint in outcome.value.endpoints:
        drive(endpoints.stop(workspace, endpoint.name), Silent())
    nowhere = replace(box, name="nowhere", id="nowhere", address=replace(box.address, port=1))
    audience = Silent()
    with pytest.raises(Unreachable):
        drive(replicas.start(workspace, [nowhere, LOCAL], Wish("tiny", name="twin")), audience)
    assert any("twin.1 on nowhere" in notice.text for notice in audience.notices)
    (left,) = [each for each in endpoints.listing(workspace, [LOCAL])[0] if each.state is EndpointState.READY]
    assert left.name == "twin.2"
    drive(endpoints.stop(workspace, "twin.2"), Silent())
