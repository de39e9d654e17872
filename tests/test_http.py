"""The HTTP client against a real server that misbehaves in every way a server can."""

from __future__ import annotations

import json
import queue
import socket
import threading
import time

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from podlab import http as http_module
from podlab import secrets
from podlab.errors import BadArgument, BadSecret, HttpError
from podlab.http import Http
from podlab.secrets import Secret, redact
from tests.scripted import OK, SSE, Script, answer, saying, serving


def dripping(connection: socket.socket, piece: bytes) -> None:
    """Bytes one by one, for as long as anybody listens."""
    for _ in range(5000):
        connection.sendall(piece)
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_known", set())


def test_get_and_post() -> None:
    """Documents go both ways, with the key as a bearer token and the body as JSON."""
    with serving(saying(answer(b'{"a": [1, "\xc3\xa9"]}'))) as server:
        http = Http(server.url + "/", key=Secret("key-12345678"))
        assert http.get_json("/models") == {"a": [1, "é"]}
        assert http.post_json("/tokens", {"b": "é\ud83d"}) == {"a": [1, "é"]}
        http.close()
    get, post = server.requests
    assert get.startswith(b"GET /v1/models HTTP/1.1\r\n")
    assert b"authorization: bearer key-12345678\r\n" in get.lower()
    assert post.startswith(b"POST /v1/tokens HTTP/1.1\r\n")
    assert b"content-type: application/json\r\n" in post.lower()
    assert json.loads(post.partition(b"\r\n\r\n")[2]) == {"b": "é\ud83d"}


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nX-Slow: ",
        OK + b"Content-Length: 9000\r\n\r\n",
        OK + b"\r\n",
        b"HTTP/1.1 500 No\r\n\r\n",
    ],
)
def test_a_slow_drip_ends_at_the_deadline(start: bytes) -> None:
    """A server that sends a byte now and then, in the head or in the body, does not outlive the call's deadline."""

    def drip(connection: socket.socket, request: bytes) -> None:
        connection.sendall(start)
        dripping(connection, b"x" if start else b"HTTP/1.1"[:1])

    with serving(drip) as server:
        began = time.monotonic()
        with pytest.raises(HttpError) as caught:
            Http(server.url).get_json("/models", deadline_s=0.3)
        assert time.monotonic() - began < 8
        assert caught.value.status == 0
        assert "time" in str(caught.value)


def test_silence_ends_at_the_deadline() -> None:
    """A server that accepts and says nothing is waited for no longer than the deadline, repetition included."""
    held = threading.Event()

    def silent(connection: socket.socket, request: bytes) -> None:
        held.wait(30)

    with serving(silent) as server:
        began = time.monotonic()
        with pytest.raises(HttpError):
            Http(server.url).get_json("/models", deadline_s=0.3)
        assert time.monotonic() - began < 8
        held.set()


def test_a_body_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body beyond the limit is not read to its end, compressed or not."""
    monkeypatch.setattr(http_module, "BODY_LIMIT_BYTES", 100_000)

    def endless(connection: socket.socket, request: bytes) -> None:
        connection.sendall(OK + b"\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    with serving(endless) as server:
        with pytest.raises(HttpError, match="more than 100000 bytes"):
            Http(server.url).get_json("/models")
        assert server.ended.get(timeout=5) == "gone"
    import gzip

    bomb = gzip.compress(b"0" * 50_000_000)
    head = OK + f"Content-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n".encode()
    with serving(saying(head + bomb)) as server, pytest.raises(HttpError, match="more than 100000 bytes"):
        Http(server.url).get_json("/models")


def test_a_wrong_key() -> None:
    """401 says what the server said without the key it repeats, and what to look at; it is asked once."""
    body = b'{"error": {"message": "Incorrect API key: key-12345678."}}'
    with serving(saying(answer(body, "401 Unauthorized"))) as server:
        with pytest.raises(HttpError) as caught:
            Http(server.url, key=Secret("key-12345678")).get_json("/models")
        assert len(server.requests) == 1
    error = caught.value
    assert error.status == 401
    assert "Incorrect API key: ********." in str(error)
    assert "key-12345678" not in str(error) + error.body
    assert "key" in error.hint


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>\n<head><title>502 Bad Gateway</title></head>\r\n<body>nginx</body>", "502 Bad Gateway nginx"),
        (b"", "nothing more"), (b'{"error": "plain"}', "plain"), (b'{"error": {}}', '{"error": {}}'),
        (b"[" * 90_000, "[[[["),
        (b'{"error": {"message": {"a": 1}}}', "{'a': 1}"), (b"\xff\xfe\n\n", "��"), (b"null", "null"),
    ],
)  # fmt: skip
def test_what_an_error_body_says(body: bytes, said: str) -> None:
    """Whatever stands in the body of an error, the message is one short line with its sense."""
    with serving(saying(answer(body, "502 Bad Gateway"))) as server, pytest.raises(HttpError) as caught:
        Http(server.url).post_json("/x", {})
    assert caught.value.status == 502
    assert f"answered 502: {said}" in str(caught.value)
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff", b"<html>", b"1" * 5000, b"{} {}"])
def test_an_answer_that_is_no_json(body: bytes) -> None:
    """200 with anything but JSON is an HttpError with that status."""
    with serving(saying(answer(body))) as server, pytest.raises(HttpError, match="did not answer with JSON") as caught:
        Http(server.url).post_json("/x", {})
    assert caught.value.status == 200


def test_nobody_listens() -> None:
    """A refused connection is an HttpError without a status that names the server."""
    with serving(saying(b"")) as server:
        pass
    with pytest.raises(HttpError, match="Connection refused") as caught:
        Http(server.url).get_json("/models")
    assert caught.value.status == 0
    assert server.url in str(caught.value)


def test_get_is_repeated_once_and_post_never() -> None:
    """A GET whose connection broke is tried again, once; a POST is not, as it may have been carried out."""
    seen: list[int] = []

    def breaks_first(connection: socket.socket, request: bytes) -> None:
        seen.append(1)
        if len(seen) > 1:
            connection.sendall(answer(b"[]"))

    with serving(breaks_first) as server:
        assert Http(server.url).get_json("/models") == []
        assert len(seen) == 2
    with serving(lambda connection, request: None) as server:
        for call in (Http(server.url).get_json, lambda path: Http(server.url).post_json(path, {})):
            with pytest.raises(HttpError):
                call("/x")
    assert [request[:4] for request in server.requests] == [b"GET ", b"GET ", b"POST"]


def test_a_redirect_is_not_followed() -> None:
    """A redirect is an error with its status: the key goes to no other server."""
    with serving(saying(answer(b"{}"))) as other:
        script = saying(answer(b"", "302 Found", f"Location: {other.url}/models\r\n"))
        with serving(script) as server, pytest.raises(HttpError) as caught:
            Http(server.url, key=Secret("key-12345678")).get_json("/models")
    assert caught.value.status == 302
    assert other.requests == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433"])
def test_no_proxy_for_this_computer(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment sees nothing of what goes to this computer, however it is written."""
    with serving(saying(answer(b'"the proxy"'))) as proxy, serving(saying(answer(b'"the server"'))) as server:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        http = Http(f"http://{host}:{server.port}/v1", key=Secret("key-12345678"))
        assert http.get_json("/x") == "the server"
        assert Http("http://elsewhere.example/v1").get_json("/x") == "the proxy"
    assert len(proxy.requests) == 1
    assert b"key-12345678" not in proxy.requests[0]


@pytest.mark.parametrize("address", ["http://me:pass%40word9@proxy.example:3128", "me:pass%40word9@proxy.example:3128"])
def test_the_password_of_a_proxy_is_taken_out_of_texts(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", address)
    Http("https://elsewhere.example/v1")
    for text in (f"cannot reach {address}", "login me:pass%40word9", "login pass%40word9", "login pass@word9"):
        assert "word9" not in redact(text)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("::ffff:127.0.0.1", True), ("localhost", True), ("a.localhost.", True),
    ("0.0.0.0", True),
     ("127.9", True), ("10.0.0.1", False), ("localhost.example", False), ("::2", False), ("example.com", False)],
)  # fmt: skip
def test_what_this_computer_is(host: str, expected: bool) -> None:
    """Every way to write an address of this computer counts as one."""
    assert http_module._is_loopback(host) is expected


@pytest.mark.parametrize(
    "url",
    ["", "x", "127.0.0.1:8000", "ftp://h", "http://", "http://:80", "http://h:0x", "http://h:99999", "http://[::1",
    "http://h\n/",
     "http://me:canary@h", "http://h/v1?key=1", "http://h:0", "file:///etc/passwd", "http://h/#x"],
)  # fmt: skip
def test_what_no_address_is(url: str) -> None:
    """What is no base URL of a server is refused before anything is sent; a password in it is not repeated."""
    with pytest.raises(BadArgument) as caught:
        Http(url)
    assert "canary" not in str(caught.value)


def test_a_key_that_no_header_can_hold() -> None:
    """A key outside ASCII is refused without being shown."""
    with pytest.raises(BadSecret) as caught:
        Http("http://127.0.0.1:1", key=Secret("canary-é-1234"))
    assert "canary" not in str(caught.value)


# --- server-sent events


STREAM = (
    ": hello\r\n\r\ndata: {\"a\": \"é\"}\n\nevent: x\rdata: two\rdata:lines \r\rid: 7\ndata\n\n"
    "retry: 5\r\n\r\ndata: \U0001f600 \u2028 \x85 end\r\n\r\n"
).encode()  # fmt: skip
EVENTS = ['{"a": "é"}', "two\nlines ", "", "", "\U0001f600 \u2028 \x85 end"]


def heard(script: Script, **more: float) -> list[str]:
    with serving(script) as server:
        return list(Http(server.url).events("/chat", {"x": 1}, **more))


def test_events_split_at_every_byte() -> None:
    """Wherever the network cuts the stream, the same events come out; line ends of all three kinds count."""

    def in_two(cut: int) -> Script:
        def script(connection: socket.socket, request: bytes) -> None:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(SSE + STREAM[:cut])
            time.sleep(0.001)
            connection.sendall(STREAM[cut:])

        return script

    for cut in range(len(STREAM)):
        assert heard(in_two(cut)) == EVENTS, cut

    def byte_by_byte(connection: socket.socket, request: bytes) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(SSE)
        for position in range(len(STREAM)):
            connection.sendall(STREAM[position : position + 1])

    assert heard(byte_by_byte) == EVENTS


@hypothesis_settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=20), max_size=8), st.sampled_from(["\n", "\r\n", "\r"]))
def test_any_text_in_json_arrives(texts: list[str], end: str) -> None:
    """Any text a server puts into an event as JSON is the same text here, in as many events."""
    body = "".join(f"data: {json.dumps(text)}{end}{end}" for text in texts)
    assert [json.loads(event) for event in heard(saying(SSE + body.encode()))] == texts


def test_events_come_as_they_are_sent() -> None:
    """An event is there before the next one is sent."""
    go_on = queue.SimpleQueue[None]()

    def script(connection: socket.socket, request: bytes) -> None:
        connection.sendall(SSE)
        for number in range(3):
            connection.sendall(f"data: {number}\n\n".encode())
            go_on.get(timeout=5)

    with serving(script) as server:
        for number, event in enumerate(Http(server.url).events("/chat", {})):
            assert event == str(number)
            go_on.put(None)


def test_invalid_utf8_is_replaced() -> None:
    """Bytes that are no UTF-8 become the replacement character, whatever charset the header claims."""
    head = SSE.replace(b"event-stream", b"event-stream; charset=utf-16")
    assert heard(saying(head + b"data: a\xff\xfeb\n\ndata: caf\xc3\n\n")) == ["a\ufffd\ufffdb", "caf\ufffd"]


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 400, b"data: x\n" * 40, b": " + b"x" * 400])
def test_an_event_too_large(piece: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """An event beyond the limit, as one line, as many or as a comment without end, breaks the stream with our error."""
    monkeypatch.setattr(http_module, "EVENT_LIMIT_BYTES", 10_000)

    def script(connection: socket.socket, request: bytes) -> None:
        connection.sendall(SSE)
        for _ in range(10_000):
            connection.sendall(piece)

    with pytest.raises(HttpError, match="limit"):
        heard(script)


@pytest.mark.parametrize(
    "data",
    [
        SSE.replace(b"Connection: close", b"Content-Length: 900") + b"data: 1\n\n",
        SSE.replace(b"Connection: close", b"Transfer-Encoding: chunked") + b"9\r\ndata: 1\n\n\r\n",
    ],
)
def test_cut_in_the_middle(data: bytes) -> None:
    """A connection that ends before the announced end raises after the events that had arrived."""
    with serving(saying(data)) as server:
        events = Http(server.url).events("/chat", {})
        assert next(events) == "1"
        with pytest.raises(HttpError) as caught:
            next(events)
    assert caught.value.status == 0


def test_reset_in_the_middle() -> None:
    """A connection that is reset is our error, too."""
    import struct

    def script(connection: socket.socket, request: bytes) -> None:
        connection.sendall(SSE + b"data: 1\n\n")
        taken.get(timeout=5)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    taken = queue.SimpleQueue[None]()
    with serving(script) as server:
        events = Http(server.url).events("/chat", {})
        assert next(events) == "1"
        taken.put(None)
        with pytest.raises(HttpError):
            next(events)


def test_silence_breaks_the_stream() -> None:
    """A stream in which nothing comes for too long is our error."""
    held = threading.Event()

    def script(connection: socket.socket, request: bytes) -> None:
        connection.sendall(SSE + b"data: 1\n\n")
        held.wait(30)

    with pytest.raises(HttpError, match="timed out"):
        heard(script, silence_s=0.2)
    held.set()


@pytest.mark.parametrize(
    "data", [answer(b"{}"), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"SSH-2.0-OpenSSH\r\n", b""]
)
def test_what_is_no_stream(data: bytes) -> None:
    """A server that answers with a document, with another protocol or not at all is our error."""
    with pytest.raises(HttpError):
        heard(saying(data))


def test_a_refused_stream() -> None:
    """An error instead of a stream carries its status and its sentence, and a drip in its body ends."""
    with pytest.raises(HttpError, match="answered 400: too long") as caught:
        heard(saying(answer(b'{"error": {"message": "too long"}}', "400 Bad Request")))
    assert caught.value.status == 400


def test_a_refusal_that_drips(monkeypatch: pytest.MonkeyPatch) -> None:
    """The body of a refusal is not read for ever."""
    monkeypatch.setattr(http_module, "CONNECT_S", 0.3)

    def drip(connection: socket.socket, request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 100000\r\n\r\n")
        dripping(connection, b"x")

    began = time.monotonic()
    with pytest.raises(HttpError):
        heard(drip)
    assert time.monotonic() - began < 8


def test_closing_closes_the_connection() -> None:
    """Closing the iterator tells a server that goes on for ever to stop, at once."""

    def endless(connection: socket.socket, request: bytes) -> None:
        connection.sendall(SSE)
        while True:
            connection.sendall(b"data: x\n\n")
            time.sleep(0.002)

    with serving(endless) as server:
        events = Http(server.url).events("/chat", {})
        next(events)
        events.close()
        assert server.ended.get(timeout=3) == "gone"


def test_threads_share_a_client() -> None:
    """One client used by many threads at the same time gives each its own answer."""

    def echo(connection: socket.socket, request: bytes) -> None:
        connection.sendall(answer(request.partition(b"\r\n\r\n")[2]))

    with serving(echo) as server:
        http = Http(server.url)
        found: list[object] = [None] * 12

        def ask(number: int) -> None:
            found[number] = http.post_json("/x", {"number": number})

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [{"number": number} for number in range(12)]


def test_bytes_come_as_they_are_with_their_status() -> None:
    """What is no success is an answer, too: who asks for bytes reads redirects and refusals."""
    moved = b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 2\r\n\r\nno"
    with serving(saying(moved)) as server:
        found = Http(server.url).get_bytes("/here")
    assert (found.status, found.headers["location"], found.content) == (302, "/there", b"no")


def test_a_span_is_asked_for_and_no_more_is_read() -> None:
    """A server that knows no ranges sends the whole file; its beginning is taken, and the rest is not waited for."""
    asked: queue.Queue[bytes] = queue.Queue()

    def endless(connection: socket.socket, request: bytes) -> None:
        asked.put(request)
        connection.sendall(OK + b"\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    with serving(endless) as server:
        found = Http(server.url).get_bytes("/large", span=(100, 1099))
        assert server.ended.get(timeout=5) == "gone"
    assert len(found.content) == 1000
    assert b"range: bytes=100-1099\r\n" in asked.get(timeout=5).lower()


def test_any_method_goes_out_once_and_any_answer_comes_back_as_it_is() -> None:
    """Refusals and redirects too, with their headers; a body is sent as JSON; the program says its name."""
    with serving(saying(answer(b"gone", "410 Gone", "Retry-After: 7\r\nLocation: /x\r\n"))) as server:
        http = Http(server.url, key=Secret("key-12345678"), user_agent="podlab/test")
        for method in ("DELETE", "PUT", "PATCH"):
            found = http.ask(method, "/pods/a", content=b'{"a": 1}')
            assert (found.status, found.content, found.headers["retry-after"]) == (410, b"gone", "7")
    assert [request.split()[0] for request in server.requests] == [b"DELETE", b"PUT", b"PATCH"]
    assert all(b"user-agent: podlab/test\r\n" in request.lower() for request in server.requests)
    assert all(request.endswith(b'\r\n\r\n{"a": 1}') for request in server.requests)


def test_what_never_left_says_so() -> None:
    """No connection: certainly nothing was done. A connection and no answer: perhaps."""
    with serving(saying(b"")) as server:
        with pytest.raises(HttpError) as lost:
            Http(server.url).ask("DELETE", "/pods/a")
    with pytest.raises(HttpError) as refused:
        Http(server.url).ask("DELETE", "/pods/a")

    assert lost.value.sent
    assert not refused.value.sent
    assert len(server.requests) == 1


def test_listening_gets_events_with_their_ids_and_asks_behind_the_last() -> None:
    with serving(saying(SSE + b": hi\n\nid: 1\ndata: a\n\ndata: b\n\nid: 2\ndata: c\ndata: d\n\ndata: half")) as server:
        found = list(Http(server.url, key=Secret("key-12345678")).listen("/logs?tail=5", last_id="0", silence_s=5))

    assert [(event.id, event.data) for event in found] == [("1", "a"), ("1", "b"), ("2", "c\nd")]
    head = server.requests[0].lower()
    assert b"get /v1/logs?tail=5 " in head
    assert b"last-event-id: 0\r\n" in head
    assert b"authorization: bearer key-12345678\r\n" in head


def test_listening_ends_with_silence_and_with_its_time() -> None:
    """However lively the other side is, and whether or not what it sends makes events."""

    def lively(connection: socket.socket, request: bytes) -> None:
        connection.sendall(SSE)
        dripping(connection, b": alive\n\n")

    def mute(connection: socket.socket, request: bytes) -> None:
        connection.sendall(SSE + b"data: a\n\n")
        connection.settimeout(20)
        connection.recv(1)

    with serving(lively) as server:
        assert list(Http(server.url).listen("/logs", whole_s=0.3)) == []
    with serving(mute) as server:
        assert [event.data for event in Http(server.url).listen("/logs", silence_s=0.3)] == ["a"]


@pytest.mark.parametrize("status", ["404 Not Found", "302 Found", "503 No"])
def test_listening_to_what_refuses_is_an_error_with_its_status(status: str) -> None:
    with serving(
        saying(answer(b'{"detail": "no"}', status, "Retry-After: 9\r\nLocation: http://127.0.0.1:1/\r\n"))
    ) as server:
        with pytest.raises(HttpError) as refused:
            list(Http(server.url).listen("/logs"))

    assert (refused.value.status, refused.value.retry_after) == (int(status[:3]), "9")
    assert len(server.requests) == 1


def test_listening_to_what_is_no_stream_is_an_error() -> None:
    with serving(saying(answer(b"<html>hello</html>"))) as server, pytest.raises(HttpError, match="text/event-stream"):
        list(Http(server.url).listen("/logs"))


def test_listening_does_not_wait_for_a_head_without_end() -> None:
    def drip(connection: socket.socket, request: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        dripping(connection, b"x")

    with serving(drip) as server:
        began = time.monotonic()
        with pytest.raises(HttpError, match="in time"):
            list(Http(server.url).listen("/logs", first_s=0.3))
        assert time.monotonic() - began < 10
