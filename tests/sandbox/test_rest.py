"""What the wire says: forms, refusals, headers, keys, the log stream."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from podlab.sandbox.asking import Answer, Request
from podlab.sandbox.company import Company
from podlab.sandbox.rest import Rest
from podlab.sandbox.serve import Running
from tests.clock import Clock

BODY = {"name": "a-pod-1a2b", "image": "an/image", "gpu": {"id": "NVIDIA A40"}}


@pytest.fixture
def rest(company: Company) -> Rest:
    return Rest(company)


def ask(rest: Rest, method: str, path: str, body: Any = None, *, key: str | None = None, **query: str) -> Answer:
    headers = {"user-agent": "a-test", "authorization": f"Bearer {key or rest.company.key}"}
    return rest.answer(Request(method, path, query, headers, b"" if body is None else json.dumps(body).encode()))


def test_every_answer_says_that_it_is_simulated(rest: Rest) -> None:
    answers = [ask(rest, "GET", "/v2/pods"), ask(rest, "GET", "/v2/nothing"), ask(rest, "GET", "/v2/pods", key="no")]

    assert [(each.status, each.headers["X-Podlab-Simulated"]) for each in answers] == [
        (200, "1"),
        (404, "1"),
        (401, "1"),
    ]


@pytest.mark.parametrize(
    "body, status, said",
    [
        ({**BODY, "gpuTypeIds": ["NVIDIA A40"]}, 422, "gpuTypeIds: unknown property"),
        ({**BODY, "gpu": {"id": "NVIDIA A40", "count": "2"}}, 422, "gpu.count: must be an integer"),
        ({**BODY, "mounts": {"persistent": {"size": 5, "path": "/w"}}}, 422, "mounts.persistent.size"),
        ({"name": "x", "gpu": {"id": "NVIDIA A40"}}, 422, "image: is required"),
        ({**BODY, "cpu": {"id": "cpu3c", "vcpuCount": 2}}, 400, None),
        ({"image": "an/image", "gpu": {"id": "NVIDIA A40"}}, 422, "name: is required"),
        ({**BODY, "templateId": "nobody"}, 404, None),
        ({**BODY, "gpu": {"id": "RTX A4000"}}, 400, None),
        ([], 422, "body: must be an object"),
    ],
)
def test_a_body_that_does_not_fit_is_refused_field_by_field(
    rest: Rest, body: Any, status: int, said: str | None
) -> None:
    answer = ask(rest, "POST", "/v2/pods", body)

    assert answer.status == status and answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["status"] == status and answer.json["detail"] and answer.json["title"]
    assert said is None or any(said in each for each in answer.json["errors"])
    assert rest.company.pods == {}


def test_a_pods_key_reads_and_ends_that_pod_and_nothing_else(rest: Rest) -> None:
    pod, other = (ask(rest, "POST", "/v2/pods", BODY).json["id"] for _ in range(2))
    key = rest.company.pods[pod].key

    assert ask(rest, "GET", f"/v2/pods/{pod}", key=key).status == 200
    for call in ("GET /v2/pods", "POST /v2/pods", "GET /v2/account/limits", f"PATCH /v2/pods/{pod}",
                 f"GET /v2/pods/{other}", f"DELETE /v2/pods/{other}"):  # fmt: skip
        method, _, path = call.partition(" ")
        assert ask(rest, method, path, BODY, key=key).status == 403
    assert ask(rest, "DELETE", f"/v2/pods/{pod}", key=key).status == 204
    assert ask(rest, "GET", f"/v2/pods/{pod}", key=key).status == 401


def test_members_of_clusters_are_listed_when_asked_for(rest: Rest) -> None:
    pod = rest.company.pods[ask(rest, "POST", "/v2/pods", BODY).json["id"]]
    pod.wanted = type(pod.wanted)(**{**vars(pod.wanted), "cluster": "a-cluster"})

    assert ask(rest, "GET", "/v2/pods").json["pods"] == []
    assert ask(rest, "GET", "/v2/pods", includeClusterPods="true").json["pods"][0]["cluster"]["id"] == "a-cluster"
    assert ask(rest, "DELETE", f"/v2/pods/{pod.id}").status == 409


def test_who_asks_too_often_is_told_when_to_come_again(company: Company, clock: Clock) -> None:
    rest = Rest(company, requests_per_minute=2)
    answers = [ask(rest, "GET", "/v2/pods") for _ in range(3)]

    assert [each.status for each in answers] == [200, 200, 429]
    assert (
        '"minute";r=1;' in answers[0].headers["RateLimit"]
        and '"minute";q=2;w=60' in answers[0].headers["RateLimit-Policy"]
    )
    clock.turn(int(answers[2].headers["Retry-After"]))
    assert ask(rest, "GET", "/v2/pods").status == 200


def test_who_does_not_say_what_it_is_is_turned_away_without_json(rest: Rest) -> None:
    answer = rest.answer(Request("GET", "/v2/pods", {}, {"authorization": f"Bearer {rest.company.key}"}))

    assert (answer.status, answer.body) == (403, b"error code: 1010")


def test_availability_has_to_name_its_product(rest: Rest) -> None:
    assert ask(rest, "GET", "/v2/catalog/gpus", include="AVAILABILITY").status == 400
    assert ask(rest, "GET", "/v2/catalog/gpus", count="2").status == 400
    found = ask(rest, "GET", "/v2/catalog/gpus", include="AVAILABILITY", product="POD", countryCodes="CA").json["gpus"]

    assert {place["id"] for gpu in found for place in gpu["dataCenters"]} == {"CA-MTL-1"}


def test_the_balance_is_read_by_graphql(rest: Rest) -> None:
    query = {"query": "query { myself { clientBalance currentSpendPerHr spendLimit } }"}

    assert ask(rest, "POST", "/graphql", query).json == {
        "data": {"myself": {"clientBalance": 25.0, "currentSpendPerHr": 0, "spendLimit": 80.0}}
    }
    assert (
        "Cannot query field"
        in ask(rest, "POST", "/graphql", {"query": "{ myself { shoes } }"}).json["errors"][0]["message"]
    )


def test_bills_add_up_to_their_totals(rest: Rest, clock: Clock) -> None:
    ask(rest, "POST", "/v2/pods", BODY)
    clock.turn(7200)
    bill = ask(rest, "GET", "/v2/billing/pods", bucketSize="hour", lastN="4").json

    assert sum(each["totalAmount"] for each in bill["records"]) == pytest.approx(
        bill["metadata"]["totals"]["totalAmount"]
    )
    assert bill["metadata"]["totals"]["gpuAmount"] == pytest.approx(0.8)


def test_a_log_stream_goes_on_behind_the_last_line_that_was_seen(running: Running) -> None:
    import httpx2

    http = httpx2.Client(base_url=running.url, headers={"Authorization": f"Bearer {running.key}"}, timeout=30)
    pod = http.post("/v2/pods", json=BODY).json()["id"]
    book = running.company.books[pod]
    for nth in range(3):
        book.write(running.company.now(), "container", f"line {nth}")

    def lines(**headers: str) -> list[tuple[str, str]]:
        """Two lines of the container, then hang up."""
        found: list[tuple[str, str]] = []
        with http.stream("GET", f"/v2/pods/{pod}/logs", params={"source": "container"}, headers=headers) as stream:
            assert stream.headers["content-type"] == "text/event-stream"
            at = ""
            for line in stream.iter_lines():
                if line.startswith("id: "):
                    at = line[4:]
                if line.startswith("data: "):
                    found.append((at, json.loads(line[6:])["line"]))
                    if len(found) == 2:
                        return found
        return found

    first = lines()
    book.write(running.company.now(), "container", "line 3")
    second = lines(**{"Last-Event-ID": first[-1][0]})

    assert [line for _, line in first + second] == ["line 0", "line 1", "line 2", "line 3"]


def test_a_web_page_that_calls_itself_local_is_turned_away(running: Running) -> None:
    port = int(running.url.rpartition(":")[2])
    for header in (b"Host: evil.example", b"Host: 127.0.0.1:%d\r\nOrigin: http://evil.example" % port):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as wire:
            wire.sendall(
                b"GET /v2/pods HTTP/1.1\r\n%s\r\nAuthorization: Bearer %s\r\n\r\n" % (header, running.key.encode())
            )
            assert wire.recv(100).startswith(b"HTTP/1.1 403")
