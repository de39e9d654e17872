"""How fast a server answers many requests: what is sent, when, and what the figures mean.

The definitions are those of vLLM's own `vllm bench serve` (vllm/benchmarks/serve.py, class BenchmarkMetrics):

- TTFT: from sending a request to its first token.
- ITL: between two pieces of an answer, after the first; all gaps of all requests together.
- TPOT: per request, (E2E - TTFT) / (output tokens - 1), for answers of two tokens or more.
- E2E: from sending a request to its last token.
- goodput: requests a second that kept every limit that was given.

Throughputs count successful requests, over the time from the first request sent to the last answer ended.
"""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from podlab.errors import BadArgument, HttpError, PodlabError
from podlab.http import Http

Metric = Literal["ttft", "tpot", "e2e"]
LIMITED: tuple[Metric, ...] = ("ttft", "tpot", "e2e")
WORDS = (
    "river", "stone", "morning", "letter", "garden", "window", "paper", "summer", "engine", "bridge", "candle",
    "forest", "silver", "market", "winter", "teacher", "ocean", "valley", "station", "copper",
)  # fmt: skip
MOST_ERRORS = 5
MOST_WORDS = 20_000_000
"""In all prompts of a load together; they are made before the first is sent."""


@dataclass(frozen=True)
class Load:
    """What to send. With `rate_per_s` requests start at random moments (a Poisson process) however long answers take;
    otherwise `concurrency` of them are always under way. `input_words` is about one token each."""

    requests: int = 32
    concurrency: int | None = 4
    rate_per_s: float | None = None
    input_words: int = 64
    output_tokens: int = 64
    seed: int = 0


@dataclass(frozen=True)
class Answered:
    """One request. Seconds; `late_s` is how long after its moment this client came to send it."""

    began_s: float
    ttft_s: float | None = None
    e2e_s: float = 0.0
    gaps_s: tuple[float, ...] = ()
    prompt_tokens: int = 0
    output_tokens: int = 0
    late_s: float = 0.0
    error: str = ""

    @property
    def tpot_s(self) -> float | None:
        if self.ttft_s is None or self.output_tokens < 2:
            return None
        return (self.e2e_s - self.ttft_s) / (self.output_tokens - 1)


@dataclass(frozen=True)
class Spread:
    """How values lie, in seconds; None where there were none."""

    mean_s: float | None = None
    p50_s: float | None = None
    p90_s: float | None = None
    p99_s: float | None = None
    max_s: float | None = None


@dataclass(frozen=True)
class Level:
    """What one load gave."""

    concurrency: int | None
    rate_per_s: float | None
    requests: int
    failed: int
    duration_s: float
    requests_per_s: float
    output_tokens_per_s: float
    total_tokens_per_s: float
    prompt_tokens: int
    output_tokens: int
    goodput_per_s: float | None = None
    """Successful requests a second that kept every limit; None when none was given."""
    ttft: Spread = field(default_factory=Spread)
    tpot: Spread = field(default_factory=Spread)
    itl: Spread = field(default_factory=Spread)
    e2e: Spread = field(default_factory=Spread)
    late_s: float = 0.0
    """The longest that this client was behind its own plan: large means that it, not the server, was the limit."""
    errors: tuple[str, ...] = ()
    """Different ones, a few of them."""


def check(load: Load) -> None:
    """Raises BadArgument for a load that is none."""
    at_once = 1 if load.concurrency is None else load.concurrency
    for name, value, most in (
        ("--requests", load.requests, 100_000), ("--concurrency", at_once, 1024),
        ("--input", load.input_words, 1_000_000), ("--output", load.output_tokens, 1_000_000),
    ):  # fmt: skip
        if not 1 <= value <= most:
            raise BadArgument(f"{name} is {value}.", hint=f"It has to be from 1 to {most}.")
    if load.requests * load.input_words > MOST_WORDS:
        raise BadArgument(
            f"--requests {load.requests} of --input {load.input_words} are more than {MOST_WORDS} tokens.",
            hint="Send fewer, or shorter ones.",
        )
    if load.rate_per_s is not None and not 0 < load.rate_per_s <= 10_000:
        raise BadArgument(f"--rate is {load.rate_per_s:g}.", hint="It is requests a second, more than 0.")


def limits_from(text: str) -> dict[Metric, float]:
    """'ttft:200ms,tpot:50ms' -> limits in seconds. Raises BadArgument."""
    from podlab.units import parse_duration_s

    limits: dict[Metric, float] = {}
    for part in text.split(","):
        name, colon, value = part.strip().partition(":")
        known = [metric for metric in LIMITED if metric == name.lower()]
        if not colon or not known:
            raise BadArgument(f"{part!r} is no limit.", hint="Write ttft:200ms,tpot:50ms,e2e:10s, or some of them.")
        limits[known[0]] = parse_duration_s(value)
    return limits


def prompts(load: Load) -> list[str]:
    """A prompt a request, no two alike from their first word on: no cache of prefixes is to answer for the server."""
    chance = random.Random(load.seed)  # noqa: S311  # the same load again, not a secret
    made = []
    for number in range(load.requests):
        words = [f"{number}-{chance.randrange(10**6)}", *chance.choices(WORDS, k=max(0, load.input_words - 1))]
        made.append(" ".join(words))
    return made


def drive(
    http: Http, model: str, load: Load, *, told: Callable[[int], None] = lambda _: None,
    stop: threading.Event | None = None, clock: Callable[[], float] = time.perf_counter,
) -> tuple[list[Answered], float]:  # fmt: skip
    """Send the load; every request's figures, in the order they were planned, and the seconds it took in all.

    `told` hears how many have ended, from whatever thread ended one. Once `stop` is set no more are sent and those
    under way are let go; the figures are then of the ones that had ended.
    """
    stop = stop or threading.Event()
    planned = _Plan(load, clock)
    answered: dict[int, Answered] = {}
    lock = threading.Lock()

    def work() -> None:
        for number, prompt, at in planned:
            if at is not None and stop.wait(max(0.0, at - clock())):
                return
            if stop.is_set():
                return
            late_s = 0.0 if at is None else max(0.0, clock() - at)
            one = _one(http, model, prompt, load.output_tokens, late_s, clock, stop)
            if one is None:
                return
            with lock:
                answered[number] = one
                count = len(answered)
            told(count)

    # With a rate, one thread for each request that could be under way: the moments must not wait for answers.
    workers = load.requests if load.rate_per_s is not None else min(load.concurrency or 1, load.requests)
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(workers, 1024))]
    began = clock()
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.2)
    return [answered[number] for number in sorted(answered)], clock() - began


class _Plan:
    """The requests still to be sent, each to one thread: number, prompt, and its moment where there is a rate."""

    def __init__(self, load: Load, clock: Callable[[], float]) -> None:
        chance = random.Random(load.seed + 1)  # noqa: S311  # as above
        moment, moments = clock(), []
        for _ in range(load.requests):
            moments.append(moment if load.rate_per_s is not None else None)
            moment += chance.expovariate(load.rate_per_s) if load.rate_per_s is not None else 0.0
        self._left = iter(zip(range(load.requests), prompts(load), moments, strict=True))
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[tuple[int, str, float | None]]:
        return self

    def __next__(self) -> tuple[int, str, float | None]:
        with self._lock:
            return next(self._left)


def _one(
    http: Http, model: str, prompt: str, output_tokens: int, late_s: float, clock: Callable[[], float],
    stop: threading.Event,
) -> Answered | None:  # fmt: skip
    """Send one request and time its pieces; None when it was let go."""
    body = {
        "model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": output_tokens,
        "temperature": 0.0, "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    began = clock()
    moments: list[float] = []
    usage: Mapping[str, object] = {}
    events = http.events("/chat/completions", body)
    try:
        for data in events:
            now = clock()
            if stop.is_set():
                return None
            if data == "[DONE]":
                continue
            document = json.loads(data)
            if document.get("error"):
                raise HttpError(f"it gave up: {str(document['error'])[:200]}")
            usage = document.get("usage") or usage
            if any(_says(choice) for choice in document.get("choices") or ()):
                moments.append(now)
    except Exception as error:  # noqa: BLE001  # whatever failed, this request did, and the others go on
        if stop.is_set():
            return None
        said = error.message if isinstance(error, PodlabError) else f"{type(error).__name__}: {str(error)[:200]}"
        return Answered(began, late_s=late_s, error=said)
    finally:
        events.close()
    if not moments:
        return Answered(began, late_s=late_s, error="it answered without a word")
    gaps = tuple(later - earlier for earlier, later in itertools.pairwise(moments))
    return Answered(
        began, moments[0] - began, moments[-1] - began, gaps, _count(usage, "prompt_tokens"),
        _count(usage, "completion_tokens") or len(moments), late_s,
    )  # fmt: skip


def _says(choice: Mapping[str, object]) -> bool:
    delta = choice.get("delta")
    return isinstance(delta, dict) and any(delta.get(name) for name in ("content", "reasoning_content", "reasoning"))


def _count(usage: Mapping[str, object], name: str) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) and value >= 0 else 0


def level(
    load: Load, answered: Sequence[Answered], duration_s: float, limits: Mapping[Metric, float] | None = None
) -> Level:
    """The figures of what was answered. Pure."""
    good = [one for one in answered if not one.error]
    over_s = duration_s or 1.0
    output = sum(one.output_tokens for one in good)
    prompt = sum(one.prompt_tokens for one in good)
    return Level(
        concurrency=None if load.rate_per_s is not None else load.concurrency, rate_per_s=load.rate_per_s,
        requests=len(answered), failed=len(answered) - len(good), duration_s=duration_s,
        requests_per_s=len(good) / over_s, output_tokens_per_s=output / over_s,
        total_tokens_per_s=(output + prompt) / over_s, prompt_tokens=prompt, output_tokens=output,
        goodput_per_s=sum(_keeps(one, limits) for one in good) / over_s if limits else None,
        ttft=spread([one.ttft_s for one in good if one.ttft_s is not None]),
        tpot=spread([one.tpot_s for one in good if one.tpot_s is not None]),
        itl=spread([gap for one in good for gap in one.gaps_s]), e2e=spread([one.e2e_s for one in good]),
        late_s=max((one.late_s for one in answered), default=0.0),
        errors=tuple(dict.fromkeys(one.error for one in answered if one.error))[:MOST_ERRORS],
    )  # fmt: skip


def _keeps(one: Answered, limits: Mapping[Metric, float]) -> bool:
    took: dict[Metric, float | None] = {"ttft": one.ttft_s, "tpot": one.tpot_s or 0.0, "e2e": one.e2e_s}
    return all((value := took[metric]) is not None and value <= most for metric, most in limits.items())


def spread(values: Sequence[float]) -> Spread:
    """Mean, percentiles (linear between neighbours, as numpy.percentile) and the largest."""
    if not values:
        return Spread()
    ordered = sorted(values)
    return Spread(
        sum(ordered) / len(ordered), percentile(ordered, 50), percentile(ordered, 90), percentile(ordered, 99),
        ordered[-1],
    )  # fmt: skip


def percentile(ordered: Sequence[float], percent: float) -> float:
    """A percentile of sorted values, linear between the two it lies between."""
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
