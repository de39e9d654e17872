"""The load test: definitions against numbers worked out by hand, and real servers that answer, stall or refuse."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from podlab import loadtest
from podlab.errors import BadArgument
from podlab.http import Http
from podlab.loadtest import Answered, Load, Spread


class Server(ThreadingHTTPServer):
    """An OpenAI-compatible server with a pace: `first_s` to the first token, `gap_s` between two."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.first_s, self.gap_s = 0.0, 0.0
        self.refuses: set[int] = set()
        self.seen: list[dict[str, object]] = []
        self.now, self.most, self.left = 0, 0, 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            number = len(self.server.seen)
            self.server.seen.append(body)
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        try:
            self.answer(number, body)
        except OSError:
            self.server.left += 1
        finally:
            with self.server.lock:
                self.server.now -= 1

    def answer(self, number: int, body: dict[str, int]) -> None:
        if number in self.server.refuses:
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        time.sleep(self.server.first_s)
        for index in range(body["max_tokens"]):
            if index:
                time.sleep(self.server.gap_s)
            self.say({"choices": [{"delta": {"content": "a "}}]})
        self.say({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": body["max_tokens"]}})
        self.wfile.write(b"data: [DONE]\n\n")

    def say(self, document: object) -> None:
        self.wfile.write(f"data: {json.dumps(document)}\n\n".encode())


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def http(server: Server) -> Iterator[Http]:
    http = Http(server.url, connections=64)
    yield http
    http.close()


def test_the_figures_are_those_of_the_definitions() -> None:
    one = Answered(0.0, ttft_s=0.1, e2e_s=1.0, gaps_s=(0.3, 0.6), prompt_tokens=10, output_tokens=4)
    two = Answered(0.2, ttft_s=0.3, e2e_s=0.3, gaps_s=(), prompt_tokens=20, output_tokens=1)
    bad = Answered(0.3, error="503")
    level = loadtest.level(Load(concurrency=2), [one, two, bad], 2.0, {"ttft": 0.2, "tpot": 0.4})
    assert (level.requests, level.failed, level.requests_per_s) == (3, 1, 1.0)
    assert (level.output_tokens_per_s, level.total_tokens_per_s) == (2.5, 17.5)
    assert level.tpot.mean_s == pytest.approx((1.0 - 0.1) / 3), "an answer of one token has no time per token"
    assert level.itl.max_s == 0.6
    assert level.itl.p50_s == pytest.approx(0.45)
    assert level.goodput_per_s == 0.5, "the second was later than its limit"
    assert level.errors == ("503",)


def test_percentiles_are_numpy_s() -> None:
    numpy = pytest.importorskip("numpy")
    values = [3.0, 1.0, 9.0, 4.5, 2.25]
    found = loadtest.spread(values)
    assert found.mean_s == pytest.approx(statistics.mean(values))
    assert [found.p50_s, found.p90_s, found.p99_s] == pytest.approx(list(numpy.percentile(values, [50, 90, 99])))
    assert loadtest.spread([]) == Spread()


def test_a_concurrency_is_kept_and_never_exceeded(server: Server, http: Http) -> None:
    server.first_s = 0.02
    answered, _ = loadtest.drive(http, "m", Load(requests=24, concurrency=6, output_tokens=3))
    assert len(answered) == 24
    assert not [one.error for one in answered if one.error]
    assert server.most == 6
    assert all(one.output_tokens == 3 and one.prompt_tokens == 7 and len(one.gaps_s) == 2 for one in answered)
    assert all(one.ttft_s is not None and one.ttft_s >= 0.02 for one in answered)


def test_requests_by_rate_start_while_others_wait(server: Server, http: Http) -> None:
    server.first_s = 1.0
    answered, took_s = loadtest.drive(http, "m", Load(requests=12, rate_per_s=50, output_tokens=1))
    assert len(answered) == 12
    assert server.most >= 6, "a slow server must not slow down who asks"
    assert took_s < 12


def test_no_two_prompts_begin_alike_and_the_seed_decides(server: Server, http: Http) -> None:
    load = Load(requests=50, input_words=20)
    made = loadtest.prompts(load)
    assert len({prompt.split()[0] for prompt in made}) == 50
    assert all(len(prompt.split()) == 20 for prompt in made)
    assert made == loadtest.prompts(load) != loadtest.prompts(Load(requests=50, input_words=20, seed=1))


def test_a_request_that_fails_is_counted_and_the_others_go_on(server: Server, http: Http) -> None:
    server.refuses = {1, 3}
    answered, took_s = loadtest.drive(http, "m", Load(requests=6, concurrency=1, output_tokens=2))
    level = loadtest.level(Load(), answered, took_s)
    assert (level.requests, level.failed) == (6, 2)
    assert "503" in level.errors[0]


def test_stopping_lets_go_of_what_is_under_way(server: Server, http: Http) -> None:
    server.gap_s = 0.02
    stop, began = threading.Event(), threading.Event()

    def told(count: int) -> None:
        began.set()
        stop.set()

    answered, _ = loadtest.drive(http, "m", Load(requests=50, concurrency=4, output_tokens=8), told=told, stop=stop)
    assert began.is_set()
    assert 1 <= len(answered) <= 4
    assert len(server.seen) < 50


@pytest.mark.parametrize("text", ["ttft", "ttft:fast", "speed:3s", "", "ttft:1s,,"])
def test_a_limit_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadArgument):
        loadtest.limits_from(text)


def test_limits_are_durations() -> None:
    assert loadtest.limits_from("ttft:200ms, tpot:0.05s,e2e:1m") == {"ttft": 0.2, "tpot": 0.05, "e2e": 60.0}


@pytest.mark.parametrize(
    "load",
    [
        Load(requests=0),
        Load(concurrency=5000),
        Load(concurrency=0),
        Load(rate_per_s=0),
        Load(output_tokens=0),
        Load(input_words=-1),
        Load(requests=100_000, input_words=1_000),
    ],
)
def test_a_load_that_is_none_is_refused(load: Load) -> None:
    with pytest.raises(BadArgument):
        loadtest.check(load)
