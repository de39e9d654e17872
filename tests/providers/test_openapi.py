"""What podlab and the official SDK send, and what the sandbox answers, held against what RunPod publishes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from podlab.errors import BadOrder, NotFound, OutOfStock, WrongState
from podlab.providers.runpod import RunpodProvider
from podlab.renting import OfferQuery, Order
from podlab.sandbox.asking import Answer, Request
from podlab.sandbox.serve import Running, Server
from podlab.secrets import Secret
from tests.published import NEWER, Exchange, check, route_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
ORDER = Order(
    "lab-1a2b", "NVIDIA A40", 1, "secure", image="runpod/pytorch:tag", disk_gb=20, persistent_gb=30,
    ports=("22/tcp", "8000/http"), env={"A": '{"b": 1}'}, command=("sh", "-c", "echo 'a b' $HOME"), min_cuda="12.4",
    data_centers=("CA-MTL-1", "EU-SE-1"),
)  # fmt: skip
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILXGDN/SclOozk1xsDztpmhGiKkkrfQB9SKoO8dSIQQZ me@example.com"


class Tap:
    """Stands before the sandbox and keeps what went by."""

    def __init__(self, behind: Running) -> None:
        self.behind = behind
        self.seen: list[Exchange] = []
        self.server = Server(("127.0.0.1", 0), self._answer)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def _answer(self, request: Request) -> Answer:
        answer = self.behind.rest.answer(request)
        self.seen.append(Exchange(request, answer))
        return answer

    def close(self) -> None:
        self.server.hang_up()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def tap(running: Running) -> Iterator[Tap]:
    opened = Tap(running)
    yield opened
    opened.close()


def everything(provider: RunpodProvider, pass_s: Any) -> None:
    """Every call there is, and every refusal that can be had."""
    provider.offers(OfferQuery(gpu_count=2, countries=("SE", "CA"), min_cuda="12.4"))
    volume = provider.create_volume("data", size_gb=50, data_center="EU-RO-1")
    made = provider.create(ORDER)
    other = provider.create(
        Order("lab-2c3d", "NVIDIA RTX A4000", 1, "secure", image="an/image", volume_id=volume.id, ports=())
    )
    pass_s(100)
    provider.list()
    provider.get(made.id)
    first = next(iter(provider.logs(made.id, source="system", tail=5)))
    list(provider.logs(made.id, after=first.id))
    provider.stop(made.id)
    provider.start(made.id)
    for call, kind in [
        (lambda: provider.create(replace(ORDER, gpu_id="NVIDIA RTX A2000", data_centers=())), OutOfStock),
        (lambda: provider.create(replace(ORDER, image="", template_id="nosuchone")), BadOrder),
        (lambda: provider.stop("nosuchpod0"), NotFound),
    ]:
        with pytest.raises(kind):
            call()
    provider.stop(made.id)
    with pytest.raises(WrongState):
        provider._change("stop_pod", made.id, right=())
    provider.terminate(made.id)
    provider.terminate(other.id)
    provider.delete_volume(volume.id)
    provider.delete_registry(provider.add_registry("hub", user="me", password=Secret("a-password-1234")).id)
    provider.registries(), provider.templates(), provider.templates(public=True), provider.volumes()
    provider.add_account_key(KEY)
    pass_s(3600)
    provider.bills(since=(made.created_at or 0.0), until=(made.created_at or 0.0) + 7200)
    provider.account()


def test_what_podlab_sends_and_what_the_sandbox_answers_is_as_published(tap: Tap, clock: Any) -> None:
    def pass_s(seconds: float) -> None:
        clock.turn(seconds)
        tap.behind.company.advance()

    everything(RunpodProvider(key=Secret(tap.behind.key), url=tap.url), pass_s)

    wrong = [problem for exchange in tap.seen for problem in check(exchange)]
    assert wrong == []
    known = [each for each in tap.seen if each.request.path.startswith("/v2") and each.request.path not in NEWER]
    asked = {(each.request.method, route_of(each.request.path)) for each in known}
    assert len(asked) >= 18
    refused = {each.answer.status for each in tap.seen}
    assert refused >= {200, 201, 204, 400, 404, 409}


def test_what_the_official_sdk_sends_and_is_answered_is_as_published(
    tap: Tap, monkeypatch: pytest.MonkeyPatch, clock: Any
) -> None:
    sdk = pytest.importorskip("runpod")
    monkeypatch.setenv("RUNPOD_API_BASE_URL", tap.url)
    monkeypatch.setattr(sdk, "api_key", tap.behind.key)
    made = sdk.create_pod("a-pod", "an/image", "NVIDIA RTX A5000", ports="22/tcp", env={"A": "b"}, volume_in_gb=20)
    sdk.get_pods(), sdk.get_pod(made["id"]), sdk.get_gpus(), sdk.get_gpu("NVIDIA A40")
    sdk.stop_pod(made["id"]), sdk.resume_pod(made["id"]), sdk.terminate_pod(made["id"])
    login = sdk.create_container_registry_auth("hub", "me", "a-password")
    sdk.delete_container_registry_auth(login["id"])
    sdk.create_template("mine", "an/image")

    assert [problem for exchange in tap.seen for problem in check(exchange)] == []
    assert len(tap.seen) == 11


def test_the_check_sees_what_is_wrong() -> None:
    good = Request("POST", "/v2/pods", {}, {}, json.dumps({"name": "a", "image": "b"}).encode())
    problem = Answer(400, json.dumps({"title": "Bad Request", "status": 400, "detail": "no"}).encode())

    assert check(Exchange(good, problem)) == []
    assert check(Exchange(replace(good, body=b'{"name": "a", "image": "b", "bogus": 1}'), problem))
    assert check(Exchange(replace(good, body=b'{"name": "a"}'), problem))
    assert check(Exchange(replace(good, query={"x": "y"}), problem))
    assert check(Exchange(good, replace(problem, body=b'{"title": "x"}')))
    assert check(Exchange(good, Answer(201, b'{"id": "abc"}')))
    with pytest.raises(AssertionError, match="not published"):
        check(Exchange(replace(good, path="/v2/nowhere"), problem))
