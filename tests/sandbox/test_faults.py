"""What goes wrong on order: each fault does to the company and to the wire what its name says."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from podlab.sandbox.asking import Answer, Request
from podlab.sandbox.company import Company
from podlab.sandbox.fault_names import NAMES, Ask, set_fault
from podlab.sandbox.faults import Fault, refused
from podlab.sandbox.records import Status
from podlab.sandbox.rest import Rest
from podlab.sandbox.serve import Running
from tests.clock import Clock

BODY = {"name": "a-pod-1a2b", "image": "an/image", "gpu": {"id": "NVIDIA A40"}, "ports": ["22/tcp"]}


@pytest.fixture
def rest(company: Company) -> Rest:
    return Rest(company)


def ask(rest: Rest, method: str, path: str, body: Any = None, **query: str) -> Answer:
    headers = {"user-agent": "a-test", "authorization": f"Bearer {rest.company.key}"}
    return rest.answer(Request(method, path, query, headers, b"" if body is None else json.dumps(body).encode()))


def break_(rest: Rest, name: str, **said: Any) -> None:
    if fault := set_fault(rest.company, name, Ask(**said)):
        rest.faults.add(fault)


def rented(rest: Rest, clock: Clock) -> str:
    pod: str = ask(rest, "POST", "/v2/pods", BODY).json["id"]
    clock.turn(60)
    rest.company.advance()
    clock.turn(10)
    rest.company.advance()
    return pod


def test_a_fault_lets_some_pass_then_strikes_a_number_of_times(rest: Rest) -> None:
    rest.faults.add(Fault(refused(503, "later"), method="GET", times=2, after=1))

    assert [ask(rest, "GET", "/v2/pods").status for _ in range(5)] == [200, 503, 503, 200, 200]


def test_faults_of_one_request_stand_behind_each_other(rest: Rest) -> None:
    break_(rest, "rate-limited", path="/v2/pods")
    break_(rest, "created-500")
    answers = [ask(rest, "POST", "/v2/pods", BODY).status for _ in range(3)]

    assert answers == [429, 500, 201] and len(rest.company.pods) == 2


def test_stock_is_out_for_the_first_candidates(rest: Rest) -> None:
    break_(rest, "stock-out", times=2)
    answers = [ask(rest, "POST", "/v2/pods", BODY) for _ in range(3)]

    assert [each.status for each in answers] == [400, 400, 201] and len(rest.company.pods) == 1
    assert "no longer any instances" in answers[0].json["detail"]


@pytest.mark.parametrize("name", ["created-500", "created-html", "created-reset", "created-silence", "created-cut"])
def test_a_pod_exists_whose_creation_was_never_answered(rest: Rest, name: str) -> None:
    break_(rest, name)
    answer = ask(rest, "POST", "/v2/pods", BODY)

    assert answer.status >= 500 or answer.delivery != "whole"
    assert [pod["name"] for pod in ask(rest, "GET", "/v2/pods").json["pods"]] == ["a-pod-1a2b"]
    break_(rest, name)
    assert ask(rest, "POST", "/v2/pods", {**BODY, "gpu": {"id": "none"}}).status == 400, "what it refuses stays refused"


def test_a_pod_may_be_dearer_or_another_than_was_quoted(rest: Rest) -> None:
    break_(rest, "wrong-price")
    break_(rest, "wrong-gpu", after=1)
    dear, other = (ask(rest, "POST", "/v2/pods", BODY).json for _ in range(2))

    assert (dear["cost"], dear["gpu"]["id"]) == (0.6, "NVIDIA A40")
    assert (other["cost"], other["gpu"]["id"] != "NVIDIA A40") == (0.4, True)
    assert ask(rest, "GET", f"/v2/pods/{dear['id']}").json["cost"] == 0.6


def test_a_pod_that_says_it_runs_may_never_run(rest: Rest, clock: Clock) -> None:
    break_(rest, "never-up")
    pod = rented(rest, clock)
    clock.turn(3600)
    said = ask(rest, "GET", f"/v2/pods/{pod}").json

    assert (said["status"], said["runtime"], said["ssh"]["direct"]) == ("RUNNING", None, None)


def test_a_new_pod_is_not_found_for_some_reads_and_listed_late(rest: Rest, clock: Clock) -> None:
    break_(rest, "listing-lag", seconds=100)
    break_(rest, "read-404", times=2)
    pod = ask(rest, "POST", "/v2/pods", BODY).json["id"]

    assert [ask(rest, "GET", f"/v2/pods/{pod}").status for _ in range(3)] == [404, 404, 200]
    assert ask(rest, "GET", "/v2/pods").json["pods"] == []
    clock.turn(100)
    assert len(ask(rest, "GET", "/v2/pods").json["pods"]) == 1


@pytest.mark.parametrize(
    "name", ["delete-500", "delete-reset", "delete-silence", "delete-ignored", "delete-409", "delete-404-back"]
)
def test_a_pod_may_live_on_whatever_its_end_was_answered_with(rest: Rest, clock: Clock, name: str) -> None:
    pod = rented(rest, clock)
    break_(rest, name, seconds=60)
    ask(rest, "DELETE", f"/v2/pods/{pod}")

    gone = name == "delete-404-back"
    assert ask(rest, "GET", f"/v2/pods/{pod}").status == (404 if gone else 200)
    assert len(ask(rest, "GET", "/v2/pods").json["pods"]) == (0 if gone else 1)
    clock.turn(60)
    assert ask(rest, "GET", f"/v2/pods/{pod}").json["status"] == "RUNNING"
    assert rest.company.pod_usd(pod) > 0.40 * 130 / 3600
    assert ask(rest, "DELETE", f"/v2/pods/{pod}").status == 204


def test_a_pod_may_be_gone_although_its_end_was_answered_with_500(rest: Rest, clock: Clock) -> None:
    pod = rented(rest, clock)
    break_(rest, "delete-done-500")

    assert ask(rest, "DELETE", f"/v2/pods/{pod}").status == 502
    assert rest.company.pods[pod].status is Status.TERMINATED


def test_a_locked_pod_is_neither_stopped_nor_ended_until_it_is_unlocked(rest: Rest, clock: Clock) -> None:
    pod = rented(rest, clock)
    break_(rest, "locked")

    assert ask(rest, "DELETE", f"/v2/pods/{pod}").status == 409
    assert ask(rest, "GET", f"/v2/pods/{pod}").json["locked"] is True
    break_(rest, "unlocked", pod=pod)
    assert ask(rest, "DELETE", f"/v2/pods/{pod}").status == 204


def test_descriptions_may_lie_and_name_what_nobody_knows(rest: Rest, clock: Clock) -> None:
    pod = rented(rest, clock)
    break_(rest, "unknown-status")
    break_(rest, "unknown-fields")
    said = ask(rest, "GET", f"/v2/pods/{pod}").json
    assert said["status"] == "HIBERNATING" and said["futureField"]

    break_(rest, "no-ports")
    assert ask(rest, "GET", "/v2/pods").json["pods"][0]["ssh"]["direct"] is None
    break_(rest, "exited-cost")
    break_(rest, "zero-gpus")
    stopped = ask(rest, "POST", f"/v2/pods/{pod}/action", {"action": "stop"}).json
    assert (stopped["status"], stopped["cost"], stopped["gpu"]["count"]) == ("EXITED", 0.72, 0)
    break_(rest, "no-gpu-at-host")
    assert "not enough free GPUs" in ask(rest, "POST", f"/v2/pods/{pod}/action", {"action": "start"}).json["detail"]


def test_a_running_pod_may_move_break_stop_or_be_gone(rest: Rest, clock: Clock) -> None:
    pod = rest.company.pods[rented(rest, clock)]
    before = dict(pod.public_ports)
    break_(rest, "new-port")
    assert pod.public_ports.keys() == before.keys() and pod.public_ports != before

    break_(rest, "error")
    assert pod.status is Status.ERROR
    other = rest.company.pods[rented(rest, clock)]
    break_(rest, "exited", pod=other.id)
    assert other.status is Status.EXITED
    break_(rest, "vanish")
    assert {pod.status, other.status} == {Status.TERMINATED}
    assert rest.company.stock.free["NVIDIA A40", "CA-MTL-1"] == 9


def test_an_account_without_money_loses_its_pods_at_once(rest: Rest, clock: Clock) -> None:
    pod = rented(rest, clock)
    break_(rest, "balance-zero")

    assert rest.company.pods[pod].status is Status.TERMINATED
    assert ask(rest, "POST", "/v2/pods", BODY).status == 402


def test_lists_may_be_paged_cut_or_stale(rest: Rest) -> None:
    made = [ask(rest, "POST", "/v2/pods", BODY).json["id"] for _ in range(3)]
    break_(rest, "pages", count=2, times=None)
    first = ask(rest, "GET", "/v2/pods").json
    second = ask(rest, "GET", "/v2/pods", cursor=first["pagination"]["nextCursor"]).json
    assert [pod["id"] for pod in first["pods"] + second["pods"]] == made
    assert second["pagination"] == {"hasNextPage": False, "nextCursor": None}
    rest.faults.clear()

    break_(rest, "half-list")
    assert len(ask(rest, "GET", "/v2/pods").json["pods"]) == 1
    break_(rest, "stale-list", times=2)
    ask(rest, "GET", "/v2/pods")
    ask(rest, "DELETE", f"/v2/pods/{made[0]}")
    assert len(ask(rest, "GET", "/v2/pods").json["pods"]) == 3


@pytest.mark.parametrize(
    "name, status",
    [("unauthorized", 401), ("forbidden", 403), ("conflict", 409), ("retired", 410), ("invalid", 422),
     ("rate-limited", 429), ("error-500", 500), ("unavailable", 503), ("bad-gateway", 502)],
)  # fmt: skip
def test_any_request_may_be_refused(rest: Rest, name: str, status: int) -> None:
    break_(rest, name, seconds=12)
    answer = ask(rest, "GET", "/v2/pods")

    assert answer.status == status
    assert answer.headers.get("Retry-After") == ("12" if status == 429 else None)


def test_bodies_may_be_nothing_that_can_be_read(rest: Rest) -> None:
    for name in ("html", "empty", "not-json"):
        break_(rest, name)
        answer = ask(rest, "GET", "/v2/pods")
        assert answer.status == 200 and Request("GET", "", body=answer.body).json is None
    break_(rest, "huge")
    assert len(ask(rest, "GET", "/v2/pods").body) > 10 * 2**20


def client(running: Running, read_s: float = 30) -> httpx2.Client:
    return httpx2.Client(base_url=running.url, headers={"Authorization": f"Bearer {running.key}"}, timeout=read_s)


def test_the_wire_itself_may_fail(running: Running) -> None:
    with client(running) as http:
        for name in ("reset", "cut"):
            http.post("/sandbox/faults", json={"name": name})
            with pytest.raises(httpx2.TransportError):
                http.get("/v2/pods")
        assert http.get("/v2/pods").status_code == 200
    with client(running, read_s=0.2) as http:
        for name in ("silence", "drip"):
            http.post("/sandbox/faults", json={"name": name}, timeout=30)
            with pytest.raises(httpx2.TimeoutException):
                http.get("/v2/pods")


def test_a_log_stream_breaks_off_and_goes_on_behind_its_last_line(running: Running) -> None:
    with client(running) as http:
        pod = http.post("/v2/pods", json=BODY).json()["id"]
        for nth in range(4):
            running.company.books[pod].write(running.company.now(), "container", f"line {nth}")
        http.post("/sandbox/faults", json={"name": "log-drop", "count": 2})
        found: list[tuple[str, str]] = []
        event: dict[str, str] = {}
        source = {"source": "container"}
        with pytest.raises(httpx2.TransportError):
            with http.stream("GET", f"/v2/pods/{pod}/logs", params=source) as stream:
                for line in stream.iter_lines():
                    name, _, value = line.partition(": ")
                    if line:
                        event[name] = value
                    else:  # an event is one when it has ended: what is cut off in the middle is none
                        found.append((event["id"], json.loads(event["data"])["line"]))
        assert [line for _, line in found] == ["line 0", "line 1"]
        resume = {"Last-Event-ID": found[-1][0]}
        with http.stream("GET", f"/v2/pods/{pod}/logs", params=source, headers=resume) as on:
            data = [line for _, line in zip(range(6), on.iter_lines(), strict=False) if line.startswith("data: ")]
        assert [json.loads(line[6:])["line"] for line in data] == ["line 2", "line 3"]


def test_faults_are_listed_and_cleared_from_outside(running: Running) -> None:
    with client(running) as http:
        http.post("/sandbox/faults", json={"name": "stock-out", "times": 3})
        listed = http.get("/sandbox/faults").json()
        assert [(one["name"], one["times"]) for one in listed["faults"]] == [("stock-out", 3)]
        assert listed["names"].keys() == NAMES.keys()
        assert http.delete("/sandbox/faults").status_code == 204
        assert http.get("/sandbox/faults").json()["faults"] == []
        assert http.post("/sandbox/faults", json={"name": "weather"}).status_code == 404
        pod = http.post("/v2/pods", json=BODY).json()["id"]
        key = running.company.pods[pod].key
        own = {"Authorization": f"Bearer {key}"}
        assert http.post("/sandbox/faults", json={"name": "vanish"}, headers=own).status_code == 403


def test_somebody_else_may_rent_in_the_same_account(rest: Rest) -> None:
    break_(rest, "foreign-pod", count=2)
    break_(rest, "cluster-pod")

    assert [pod["name"] for pod in ask(rest, "GET", "/v2/pods").json["pods"]] == ["somebody-elses"] * 2
    assert len(ask(rest, "GET", "/v2/pods", includeClusterPods="true").json["pods"]) == 3


def test_an_image_may_take_long_and_its_layers_are_told(rest: Rest, clock: Clock) -> None:
    break_(rest, "slow-image", seconds=400)
    pod = ask(rest, "POST", "/v2/pods", BODY).json["id"]
    clock.turn(20 + 200)

    assert ask(rest, "GET", f"/v2/pods/{pod}").json["status"] == "STARTING"
    lines = rest.company.books[pod].read(source="system", after=None, tail=10)
    assert [line.text for line in lines][-1] == "image an/image: layer 2 of 4 is there"
