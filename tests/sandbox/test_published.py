"""Every route of the sandbox answers as RunPod publishes it, with no field that is not published."""

from __future__ import annotations

import json
from typing import Any

import pytest

from podlab.sandbox.asking import Answer, Request
from podlab.sandbox.company import Company
from podlab.sandbox.rest import ROUTES, Rest
from tests.clock import Clock
from tests.published import NEWER, Exchange, check, problems, published, route_of

POD = {
    "name": "a-pod-1a2b", "image": "an/image", "gpu": {"id": "NVIDIA A40", "count": 2, "minCudaVersion": "12.4"},
    "ports": ["22/tcp", "8000/http"], "env": {"A": "b"}, "mounts": {"persistent": {"size": 20, "path": "/workspace"}},
}  # fmt: skip
TEMPLATE = {"name": "mine", "image": "an/image", "mounts": {"persistent": {"size": 20, "path": "/workspace"}}}
VOLUME = {"name": "data", "size": 10, "dataCenter": "EU-RO-1"}
REGISTRY = {"name": "hub", "username": "me", "password": "a-password"}
KEYS = {"keys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILXGDN me"]}


class Customer:
    """Asks, and keeps what was asked and answered."""

    def __init__(self, rest: Rest) -> None:
        self.rest = rest
        self.seen: list[Exchange] = []

    def __call__(self, method: str, path: str, body: Any = None, **query: str) -> Answer:
        headers = {"user-agent": "a-test", "authorization": f"Bearer {self.rest.company.key}"}
        request = Request(method, path, query, headers, b"" if body is None else json.dumps(body).encode())
        answer = self.rest.answer(request)
        self.seen.append(Exchange(request, answer))
        return answer

    def made(self, path: str, body: Any) -> str:
        answer = self("POST", path, body)
        assert answer.status == 201, answer.body
        return f"{path}/{answer.json['id']}"


@pytest.fixture
def customer(company: Company) -> Customer:
    return Customer(Rest(company))


def strangers(exchange: Exchange) -> list[str]:
    """Fields of an answer that are not published."""
    route = published()["paths"][route_of(exchange.request.path)][exchange.request.method.lower()]
    schema = route["answers"].get(str(exchange.answer.status))
    if schema is None or not exchange.answer.body:
        return []
    found = exchange.answer.json
    wrong = problems(found, {"allOf": [schema], "unevaluatedProperties": False})
    fields = published()["components"]["schemas"][schema["$ref"].rpartition("/")[2]].get("properties", {})
    for name, each in fields.items():
        if name in found and each.get("type") == "array":
            strict = {"allOf": [each["items"]], "unevaluatedProperties": False}
            wrong += [problem for row in found[name] for problem in problems(row, strict)]
    return wrong


def test_every_route_answers_as_it_is_published(customer: Customer, clock: Clock) -> None:
    pod = customer.made("/v2/pods", POD)
    clock.turn(60)
    customer("GET", pod)
    clock.turn(10)
    for method, path, body in [
        ("GET", pod, None), ("GET", "/v2/pods", None), ("PATCH", pod, {"name": "renamed", "locked": True}),
        ("DELETE", pod, None), ("PATCH", pod, {"locked": False}), ("POST", f"{pod}/action", {"action": "restart"}),
        ("POST", f"{pod}/action", {"action": "stop"}), ("POST", f"{pod}/action", {"action": "stop"}),
        ("POST", f"{pod}/action", {"action": "start"}), ("GET", "/v2/catalog/gpus", None),
        ("GET", "/v2/catalog/gpus/NVIDIA%20L40S", None), ("GET", "/v2/catalog/gpus/none", None),
        ("GET", "/v2/catalog/datacenters", None), ("GET", "/v2/catalog/datacenters/EU-RO-1", None),
        ("GET", "/v2/catalog/templates", None), ("PUT", "/v2/account/ssh-keys", KEYS),
        ("GET", "/v2/account/ssh-keys", None), ("PUT", "/v2/account/ssh-keys", {"keys": ["none"]}),
    ]:  # fmt: skip
        customer(method, path, body)
    customer("GET", "/v2/catalog/gpus", include="AVAILABILITY", product="POD", cloud="COMMUNITY", minCudaVersion="12.6")
    customer("GET", "/v2/catalog/gpus/NVIDIA%20A40", include="AVAILABILITY", product="POD", countryCodes="SE")
    customer("GET", "/v2/catalog/datacenters", include="GPU_AVAILABILITY", regions="EUROPE")
    customer("GET", f"{pod}/logs", source="system", tail="5")
    for path, body, change in [
        ("/v2/templates", TEMPLATE, None), ("/v2/network-volumes", VOLUME, {"size": 20}),
        ("/v2/registries", REGISTRY, None),
    ]:  # fmt: skip
        one = customer.made(path, body)
        customer("GET", path)
        customer("GET", one)
        if change:
            customer("PATCH", one, change)
        customer("DELETE", one)
        customer("GET", one)
    clock.turn(3600)
    customer("GET", "/v2/billing/pods", bucketSize="hour")
    customer("GET", "/v2/billing/pods", lastN="3", podId=pod.rpartition("/")[2])
    customer("DELETE", pod)
    customer("GET", "/v2/account/limits")

    assert [problem for each in customer.seen for problem in check(each)] == []
    known = [each for each in customer.seen if each.request.path not in NEWER]
    assert [problem for each in known for problem in strangers(each)] == []
    asked = {(each.request.method, each.request.path) for each in customer.seen}
    untouched = [(method, form.pattern) for method, form, _ in ROUTES
                 if not any(method == one and form.fullmatch(path) for one, path in asked)]  # fmt: skip
    assert untouched == []
