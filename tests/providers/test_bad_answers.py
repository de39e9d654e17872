"""Every call to RunPod against a real socket that answers as badly as a socket can.

Each ends in an error of ours, in time, with nothing sent twice that changes anything, and without the key in it.
"""

from __future__ import annotations

import gzip
import json
import logging
import socket
import struct
import time
import traceback
from collections.abc import Callable

import pytest

from podlab.errors import (
    BadArgument,
    HttpError,
    KeyRefused,
    OutcomeUnknown,
    PodlabError,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
)
from podlab.providers.runpod import RunpodProvider
from podlab.renting import OfferQuery, Order
from podlab.secrets import Secret
from tests.scripted import OK, Script, Server, answer, saying, serving

KEY = "rpa_CANARY0123456789"
PASSWORD = "a-password-1234"
DEADLINE_S = 1.0
SLACK_S = 15.0
ORDER = Order("lab-1a2b", "NVIDIA A40", 1, "secure", image="an/image:tag", env={"TOKENISH": "value-of-the-env"})
DEEP = b"[" * 100_000 + b"]" * 100_000


def drip(connection: socket.socket, request: bytes) -> None:
    connection.sendall(OK + b"Content-Length: 100000\r\n\r\n")
    for _ in range(4000):
        connection.sendall(b" ")
        time.sleep(0.01)


def endless(connection: socket.socket, request: bytes) -> None:
    connection.sendall(OK + b"\r\n")
    while True:
        connection.sendall(b" " * 65536)


def reset(connection: socket.socket, request: bytes) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def halfway(connection: socket.socket, request: bytes) -> None:
    connection.sendall(OK + b'Content-Length: 900\r\n\r\n{"pods": [{"id": "a')
    reset(connection, request)


def silent(connection: socket.socket, request: bytes) -> None:
    connection.settimeout(30)
    while connection.recv(1):  # until the client gives up
        pass


def page(status: str) -> Script:
    body = b"<html><head><title>Bad gateway</title></head><body>cloudflare</body></html>"
    return saying(answer(body, status).replace(b"application/json", b"text/html"))


def problem(status: int, detail: str, more: str = "") -> Script:
    body = json.dumps({"title": "no", "status": status, "detail": detail}).encode()
    return saying(answer(body, f"{status} No", more))


BOMB = gzip.compress(b" " * 200_000_000)
LARGE = b'{"pods": [], "gpus": [], "x": "' + b"y" * 10_000_000 + b'"}'
FAULTS: dict[str, Script] = {
    "a page of HTML": page("200 OK"),
    "a page with 502": page("502 Bad Gateway"),
    "a page with 404": page("404 Not Found"),
    "truncated JSON": saying(answer(b'{"id": "abc", "name": "lab-')),
    "cut in the body": halfway,
    "nothing": saying(b""),
    "an empty body": saying(answer(b"")),
    "no HTTP": saying(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "a list": saying(answer(b"[]")),
    "null": saying(answer(b"null")),
    "other kinds": saying(answer(b'{"id": 7, "pods": {"a": 1}, "gpus": "x", "records": null, "networkVolumes": 1}')),
    "no UTF-8": saying(answer(b'{"id": "\xff\xfe", "pods": [{"id": "\xff"}]}')),
    "a number of 5000 digits": saying(answer(b'{"id": ' + b"9" * 5000 + b"}")),
    "deeper than a stack": saying(answer(DEEP)),
    "10 MB": saying(answer(LARGE)),
    "a body without end": endless,
    "a bomb": saying(answer(BOMB, more="Content-Encoding: gzip\r\n")),
    "a slow drip": drip,
    "silence": silent,
    "a reset": reset,
    "500": problem(500, "boom"),
    "503": problem(503, "upstream"),
    "its own not knowing": problem(400, "Something went wrong. Please try again later or contact support."),
    "418": problem(418, "teapot"),
}
READS: dict[str, Callable[[RunpodProvider], object]] = {
    "offers": lambda provider: provider.offers(OfferQuery()),
    "get": lambda provider: provider.get("abc"),
    "list": lambda provider: provider.list(),
    "bills": lambda provider: provider.bills(since=0.0, until=3600.0),
    "logs": lambda provider: list(provider.logs("abc")),
    "volumes": lambda provider: provider.volumes(),
    "keys": lambda provider: provider.account_keys(),
    "account": lambda provider: provider.account(),
}
WRITES: dict[str, Callable[[RunpodProvider], object]] = {
    "create": lambda provider: provider.create(ORDER),
    "start": lambda provider: provider.start("abc"),
    "stop": lambda provider: provider.stop("abc"),
    "terminate": lambda provider: provider.terminate("abc"),
    "create_volume": lambda provider: provider.create_volume("data", size_gb=10, data_center="EU-RO-1"),
    "add_registry": lambda provider: provider.add_registry("hub", user="me", password=Secret(PASSWORD)),
}


def asked_in(call: str) -> int:
    """How many requests a call is, where each is answered."""
    return 2 if call == "account" else 1  # the balance is told by another interface than the limit


ACCEPTED = {("an empty body", name) for name in ("start", "stop", "terminate")} | {("other kinds", "terminate")}
"""What says yes and no more is a yes."""


@pytest.fixture
def ask(
    caplog: pytest.LogCaptureFixture,
) -> Callable[[Server, Callable[[RunpodProvider], object]], PodlabError]:
    """The error of a call, after what is true of every error was looked at."""
    caplog.set_level(logging.DEBUG)

    def asked(server: Server, call: Callable[[RunpodProvider], object]) -> PodlabError:
        provider = RunpodProvider(key=Secret(KEY), url=server.url.removesuffix("/v1"), deadline_s=DEADLINE_S)
        began = time.monotonic()
        with pytest.raises(PodlabError) as caught:
            call(provider)
        assert time.monotonic() - began < DEADLINE_S + SLACK_S
        error = caught.value
        shown = (
            "".join(traceback.format_exception(error)) + repr(error) + str(vars(error)) + repr(provider) + caplog.text
        )
        assert KEY not in shown and "value-of-the-env" not in shown and PASSWORD not in shown
        assert not isinstance(error, HttpError)
        assert len(error.message) < 700 and "\n" not in error.message
        return error

    return asked


@pytest.mark.parametrize("call", READS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_read_says_that_there_is_no_usable_answer(fault: str, call: str, ask: Callable[..., PodlabError]) -> None:
    with serving(FAULTS[fault]) as server:
        error = ask(server, READS[call])

    assert type(error) is ProviderUnavailable
    assert error.hint
    assert len(server.requests) <= 4  # asked once more where the connection failed, for each cloud


@pytest.mark.parametrize("call", WRITES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_write_is_sent_once_and_its_outcome_is_unknown(
    fault: str, call: str, ask: Callable[..., PodlabError]
) -> None:
    with serving(FAULTS[fault]) as server:
        if (fault, call) in ACCEPTED:
            WRITES[call](RunpodProvider(key=Secret(KEY), url=server.url.removesuffix("/v1")))
        else:
            error = ask(server, WRITES[call])
            assert type(error) is OutcomeUnknown
            assert "Look" in error.hint

    assert len(server.requests) == 1


@pytest.mark.parametrize("call", READS | WRITES)
def test_a_call_that_comes_too_often_is_told_when_to_come_again(call: str, ask: Callable[..., PodlabError]) -> None:
    with serving(problem(429, "rate limit exceeded for the minute window", "Retry-After: 12\r\n")) as server:
        error = ask(server, (READS | WRITES)[call])

    assert isinstance(error, RateLimited)
    assert error.retry_after_s == 12.0
    assert len(server.requests) == asked_in(call)


@pytest.mark.parametrize("call", READS | WRITES)
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
def test_no_redirect_is_followed_anywhere(status: str, call: str, ask: Callable[..., PodlabError]) -> None:
    with serving(saying(answer(b"{}"))) as elsewhere:
        there = f"Location: http://localhost:{elsewhere.port}/v2/pods\r\n"
        with serving(saying(answer(b"", status, there))) as server:
            error = ask(server, (READS | WRITES)[call])
        assert elsewhere.requests == []

    assert isinstance(error, ProviderError) and len(server.requests) == asked_in(call)
    assert type(error) is (ProviderUnavailable if call in READS else OutcomeUnknown)


@pytest.mark.parametrize("call", READS | WRITES)
def test_what_is_not_reached_was_certainly_not_asked(call: str, ask: Callable[..., PodlabError]) -> None:
    with serving(saying(b"")) as server:
        pass  # its port is closed now

    error = ask(server, (READS | WRITES)[call])
    assert type(error) is ProviderUnavailable


@pytest.mark.parametrize("call", ["list", "create"])
@pytest.mark.parametrize("fault", ["10 MB", "a body without end", "a bomb", "deeper than a stack"])
def test_a_large_answer_takes_little_memory(fault: str, call: str) -> None:
    import tracemalloc

    with serving(FAULTS[fault]) as server:
        provider = RunpodProvider(key=Secret(KEY), url=server.url.removesuffix("/v1"))
        tracemalloc.start()
        try:
            with pytest.raises(ProviderError):
                (READS | WRITES)[call](provider)
            peak_bytes = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak_bytes < 128 * 2**20


@pytest.mark.parametrize(
    ("balance", "limits", "kind"),
    [
        ("401 No", "401 No", KeyRefused), ("401 No", "404 No", KeyRefused), ("503 No", "503 No", ProviderUnavailable),
        ("403 No", "503 No", ProviderUnavailable), ("403 No", "403 No", None), ("410 No", "403 No", None),
    ],
)  # fmt: skip
def test_an_account_that_nobody_saw_is_an_error_and_one_that_may_not_be_seen_is_none(
    balance: str, limits: str, kind: type[PodlabError] | None
) -> None:
    def serve(connection: socket.socket, request: bytes) -> None:
        status = balance if request.startswith(b"POST /graphql") else limits
        connection.sendall(answer(b'{"title": "no", "detail": "not for you"}', status))

    with serving(serve) as server:
        provider = RunpodProvider(key=Secret(KEY), url=server.url.removesuffix("/v1"))
        if kind is None:
            found = provider.account()
            assert found.balance_usd is None and found.detail.count("not for you") == 2
        else:
            with pytest.raises(kind):
                provider.account()


def test_one_answer_more_does_not_end_an_account(ask: Callable[..., PodlabError]) -> None:
    """Balance and limit come from two places; what one of them says is shown when the other fails."""

    def half(connection: socket.socket, request: bytes) -> None:
        if request.startswith(b"POST /graphql"):
            connection.sendall(answer(b'{"errors": [{"message": "GraphQL is retired"}]}', "410 Gone"))
        else:
            connection.sendall(answer(b'{"spendRate": {"limit": 80, "current": 1.5}}'))

    with serving(half) as server:
        account = RunpodProvider(key=Secret(KEY), url=server.url.removesuffix("/v1")).account()

    assert account.balance_usd is None and account.spend_limit_usd_per_hour == 80.0
    assert "GraphQL is retired" in account.detail


POD = {"id": "abc", "name": "lab-1a2b", "status": "RUNNING"}
HALF_LISTS: dict[str, object] = {
    "one without an id": {"pods": [POD, {"name": "lab-2"}]},
    "one that is no object": {"pods": [POD, "lab-2"]},
    "a page more and no way to it": {"pods": [POD], "pagination": {"hasNextPage": True}},
    "pages without end": {"pods": [POD], "pagination": {"hasNextPage": True, "nextCursor": "again"}},
    "no list": {"pod": [POD]},
}


@pytest.mark.parametrize("name", HALF_LISTS)
def test_a_list_is_whole_or_not_at_all(name: str, ask: Callable[..., PodlabError]) -> None:
    """A pod left out would be taken for gone."""
    with serving(saying(answer(json.dumps(HALF_LISTS[name]).encode()))) as server:
        error = ask(server, READS["list"])

    assert type(error) is ProviderUnavailable
    assert len(server.requests) <= 2


def test_pages_are_read_to_the_last_and_pods_that_come_twice_count_once() -> None:
    pages = {
        b"": {"pods": [POD, POD | {"id": "b"}], "pagination": {"hasNextPage": True, "nextCursor": "p 2&x"}},
        b"p+2%26x": {"pods": [POD | {"id": "b"}, POD | {"id": "c"}], "pagination": {"hasNextPage": False}},
    }

    def serve(connection: socket.socket, request: bytes) -> None:
        line = request.split(b"\r\n")[0]
        cursor = line.partition(b"cursor=")[2].partition(b" ")[0]
        assert b"includeClusterPods=true" in line
        connection.sendall(answer(json.dumps(pages[cursor]).encode()))

    with serving(serve) as server:
        provider = RunpodProvider(key=Secret(KEY), url=server.url.removesuffix("/v1"))
        assert [pod.id for pod in provider.list()] == ["abc", "b", "c"]


@pytest.mark.parametrize("identity", ["", "..", "a/b", "a?b", "abc\n", "abc/action", "é", "x" * 200])
def test_an_id_that_is_none_becomes_no_request(identity: str) -> None:
    calls: list[Callable[[RunpodProvider], object]] = [
        lambda provider: provider.get(identity), lambda provider: provider.terminate(identity),
        lambda provider: provider.stop(identity), lambda provider: list(provider.logs(identity)),
        lambda provider: provider.delete_volume(identity), lambda provider: provider.delete_registry(identity),
    ]  # fmt: skip
    with serving(saying(answer(b"{}"))) as server:
        provider = RunpodProvider(key=Secret(KEY), url=server.url.removesuffix("/v1"))
        for call in calls:
            with pytest.raises(BadArgument):
                call(provider)
        assert server.requests == []


def test_an_answer_about_another_pod_is_none() -> None:
    body = json.dumps(POD | {"id": "other"}).encode()
    with serving(saying(answer(body))) as server:
        provider = RunpodProvider(key=Secret(KEY), url=server.url.removesuffix("/v1"))
        with pytest.raises(ProviderUnavailable, match="pod other"):
            provider.get("abc")
        for change in (provider.start, provider.stop):
            with pytest.raises(OutcomeUnknown, match="pod other"):
                change("abc")
        with pytest.raises(OutcomeUnknown, match="named 'lab-1a2b'"):
            provider.create(Order("lab-9", "NVIDIA A40", 1, "secure", image="an/image:tag"))


def test_keys_that_could_not_be_read_are_never_replaced() -> None:
    """PUT replaces them all."""
    with serving(saying(answer(b'{"keys": ["ssh-ed25519 AAAA one", 7]}'))) as server:
        provider = RunpodProvider(key=Secret(KEY), url=server.url.removesuffix("/v1"))
        with pytest.raises(ProviderUnavailable):
            provider.add_account_key("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA two")
    assert [request.split()[0] for request in server.requests] == [b"GET"]


def test_a_key_that_another_one_pushed_out_is_told() -> None:
    """Somebody else replaced the list at the same moment."""

    def serve(connection: socket.socket, request: bytes) -> None:
        connection.sendall(answer(b'{"keys": ["ssh-ed25519 AAAA one"]}'))

    with serving(serve) as server:
        provider = RunpodProvider(key=Secret(KEY), url=server.url.removesuffix("/v1"))
        with pytest.raises(OutcomeUnknown, match="1 of the account's SSH keys"):
            provider.add_account_key("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA two")
    assert [request.split()[0] for request in server.requests] == [b"GET", b"PUT", b"GET"]
