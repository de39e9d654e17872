"""Whatever somebody sends, the company says what is wrong with it: no request is an error of the company's own."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from podlab.sandbox.asking import Request
from podlab.sandbox.company import Company
from podlab.sandbox.rest import ROUTES, Rest
from tests.clock import Clock

NAMES = [
    "name", "image", "gpu", "id", "count", "cpu", "ports", "env", "mounts", "persistent", "network", "size", "path",
    "volumeId", "templateId", "cloud", "dataCenterIds", "action", "keys", "locked", "minCudaVersion",
]  # fmt: skip
WORDS = ["NVIDIA A40", "SECURE", "22/tcp", "start", "12.8", "EU-RO-1", "", "\x00", "a" * 300]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=8,
)
BODIES = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6)
QUERIES = st.dictionaries(
    st.sampled_from(["include", "product", "count", "cloud", "countryCodes", "cudaVersions", "minCudaVersion", "lastN",
                     "bucketSize", "startTime", "endTime", "podId", "tail", "since", "source", "regions", "cursor"]),
    st.sampled_from(["AVAILABILITY", "POD", "1", "0", "-1", "99999999999", "hour", "day", "2026-01-01T00:00:00Z",
                     "0001-01-01", "9999-12-31T23:59:59.999999999+14:00", "12", "12.8", "FR", "container", "x,y", ""]),
    max_size=5,
)  # fmt: skip


def company_of_one() -> tuple[Rest, str]:
    company = Company(now=Clock(), rng=random.Random(7))
    rest = Rest(company)
    body = json.dumps({"name": "a", "image": "b", "gpu": {"id": "NVIDIA A40"}}).encode()
    return rest, str(send(rest, "POST", "/v2/pods", {}, body).json["id"])


def send(rest: Rest, method: str, path: str, query: dict[str, str], body: bytes) -> Any:
    headers = {"user-agent": "a-test", "authorization": f"Bearer {rest.company.key}"}
    return rest.answer(Request(method, path, query, headers, body))


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route[0]} {route[1].pattern}")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=BODIES, query=QUERIES)
def test_no_request_breaks_the_company(
    route: tuple[str, Any, Any], body: dict[str, Any], query: dict[str, str]
) -> None:
    rest, pod = company_of_one()
    path = route[1].pattern.replace("([^/]+)", pod)
    answer = send(rest, route[0], path, query, json.dumps(body).encode())

    assert answer.status < 500
    if answer.status >= 400:
        assert answer.json["detail"] and answer.json["status"] == answer.status


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"[" * 100_000, b"null", b'"name"', b'{"name": "a"'])
def test_a_body_that_is_no_json_is_refused(body: bytes) -> None:
    rest, _ = company_of_one()

    assert send(rest, "POST", "/v2/pods", {}, body).status in (400, 422)
    assert send(rest, "POST", "/graphql", {}, body).status in (400, 422)
