"""Whether an endpoint does what an OpenAI-compatible server should, one small request after another."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any

from podlab.engines import engine_named
from podlab.engines.base import Engine
from podlab.errors import HttpError, PodlabError
from podlab.events import Stage, Work
from podlab.http import Http
from podlab.lab import endpoints
from podlab.types import Check, Endpoint

if TYPE_CHECKING:
    from podlab.lab.workspace import Reached, Workspace

PROMPT = "Tell me a short story about a river."
TOKENS = 32
NOTICE_S = 5.0
"""How long a server may take to notice that nobody listens any more, and to count what it wrote."""
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather", "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}  # fmt: skip
Found = tuple[str, str]
"""(state, what was seen)"""


def smoke(workspace: Workspace, name: str | None, *, on: str | None = None) -> Work[tuple[Endpoint, tuple[Check, ...]]]:
    """Try everything, whatever failed before; what each trial found, in order. Raises as endpoints.reach does."""
    reached = endpoints.reach(workspace, name, on)
    trial = _Trial(reached, engine_named(reached.endpoint.engine))
    checks = []
    try:
        for number, (what, attempt) in enumerate(trial.attempts()):
            yield Stage("smoke", f"Trying {reached.endpoint.name}", number, len(trial.attempts()))
            checks.append(_checked(what, attempt))
    finally:
        trial.close()
    return reached.endpoint, tuple(checks)


def _checked(what: str, attempt: Callable[[], Found]) -> Check:
    began = time.monotonic()
    try:
        state, seen = attempt()
    except PodlabError as error:
        state, seen = "failed", error.message
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        state, seen = "failed", f"its answer is not of the form it should be ({type(error).__name__}: {error})"
    took_s = time.monotonic() - began
    if state == "ok":
        return Check(what, "ok", seen, took_s=took_s)
    return Check(what, "skipped" if state == "skipped" else "failed", seen, took_s=took_s)


class _Trial:
    """The requests of one trial. `text` is what the model said when nothing was asked of it but to speak, `written` how
    many tokens all answers had."""

    def __init__(self, reached: Reached, engine: Engine) -> None:
        self._reached, self._model, self._engine = reached, reached.model, engine
        self._api = Http(reached.base_url, key=reached.key)
        self._server = Http(reached.base_url.removesuffix("/v1"), key=reached.key)
        self._text, self._written = "", 0

    def attempts(self) -> tuple[tuple[str, Callable[[], Found]], ...]:
        return (
            ("health", self._health), ("models", self._models), ("answer", self._answer), ("streaming", self._streams),
            ("stop string", self._stops), ("seed", self._seed), ("cancel", self._cancel), ("tools", self._tools),
            ("metrics", self._metrics),
        )  # fmt: skip

    def close(self) -> None:
        self._api.close()
        self._server.close()

    def _health(self) -> Found:
        status = self._server.get_bytes(self._engine.health_path).status
        return ("ok" if status == 200 else "failed"), f"{self._engine.health_path} answers {status}"

    def _models(self) -> Found:
        names = [entry["id"] for entry in self._api.get_json("/models")["data"]]
        return ("ok" if self._model in names else "failed"), f"serves {', '.join(map(str, names[:5])) or 'nothing'}"

    def _answer(self) -> Found:
        choice, usage = self._said(temperature=0)
        self._text = str(choice["message"].get("content") or choice["message"].get("reasoning_content") or "")
        counted = usage.get("completion_tokens")
        if not self._text.strip():
            return "failed", "it answered without a word"
        return ("ok" if counted else "failed"), f"{counted or 'no count of'} tokens, ended by {choice['finish_reason']}"

    def _streams(self) -> Found:
        pieces, reason, usage = 0, "", None
        for document in self._events(temperature=0):
            usage = document.get("usage") or usage
            for choice in document.get("choices") or ():
                pieces += bool(choice.get("delta", {}).get("content") or choice.get("delta", {}).get("reasoning"))
                reason = choice.get("finish_reason") or reason
        self._written += int((usage or {}).get("completion_tokens") or 0)
        seen = f"{pieces} pieces, ended by {reason or 'nothing'}, {'with' if usage else 'without'} a count of tokens"
        return ("ok" if pieces > 1 and reason and usage else "failed"), seen

    def _stops(self) -> Found:
        words = [word for word in self._text.split() if len(word) > 2]
        if len(words) < 3:
            return "skipped", "its answer is too short to stop in"
        stop = words[2]
        choice, _ = self._said(temperature=0, stop=[stop])
        text = str(choice["message"].get("content") or "")
        if stop in text:
            return "failed", f"{stop!r} is in the answer that was to end before it"
        ended = choice["finish_reason"] == "stop" and self._text.startswith(text[:40])
        return ("ok" if ended else "failed"), f"ended before {stop!r}, by {choice['finish_reason']}"

    def _seed(self) -> Found:
        first, again, other = (
            str(self._said(temperature=1.0, seed=seed)[0]["message"].get("content")) for seed in (7, 7, 8)
        )
        if first != again:
            return "failed", "the same seed gave two texts"
        return "ok", "the same seed gave the same text" + (", another one another" if first != other else "")

    def _cancel(self) -> Found:
        """Leave an answer in its middle: the server must stop working on it."""
        events = self._events(max_tokens=1024, temperature=0, ignore_eos=True)
        for _ in range(3):
            next(events, None)
        events.close()  # closes the connection, too
        began = time.monotonic()
        while (running := self._running()) is not None:
            took_s = time.monotonic() - began
            if running == 0:
                return "ok", f"nothing runs any more {took_s:.1f} s after the connection was closed"
            if took_s > NOTICE_S:
                return "failed", f"{running} requests still run {took_s:.1f} s after the connection was closed"
            time.sleep(0.05)
        return "skipped", "it does not say how many requests run"

    def _tools(self) -> Found:
        try:
            choice, _ = self._said(
                temperature=0, messages=[{"role": "user", "content": "What is the weather in Paris? Use the tool."}],
                tools=[TOOL], tool_choice="auto", max_tokens=128,
            )  # fmt: skip
        except HttpError as error:
            if error.status in (400, 404, 422, 500, 501):
                return "skipped", f"it takes no tools: {error.message}"
            raise
        calls = choice["message"].get("tool_calls") or ()
        if not calls:
            return "skipped", "it called no tool; with a parser and a model made for tools it would"
        function = calls[0]["function"]
        json.loads(function["arguments"])
        return "ok", f"called {function['name']} with {function['arguments'][:80]}"

    def _metrics(self) -> Found:
        """What `model metrics` shows has to be there, and to count at least what was written for this trial."""
        if self._engine.metrics_path is None:
            return "skipped", "this engine has none"
        until = time.monotonic() + NOTICE_S
        while (counted := endpoints.metrics(self._reached)).generation_tokens is not None:
            if counted.generation_tokens >= self._written:
                cache = "not told" if counted.kv_used_ratio is None else f"{counted.kv_used_ratio:.1%} used"
                return "ok", (
                    f"{counted.generation_tokens} tokens written, {self._written} of them for these trials; "
                    f"{counted.running} requests running, {counted.waiting} waiting, KV cache {cache}"
                )
            if time.monotonic() > until:
                return "failed", (
                    f"it counts {counted.generation_tokens} tokens, and wrote {self._written} for these trials alone"
                )
            time.sleep(0.05)
        return "failed", f"{self._engine.metrics_path} does not say how many tokens it wrote"

    def _said(self, **fields: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        body = self._body(stream=False, **fields)
        document = self._api.post_json("/chat/completions", body, deadline_s=300.0)
        usage = document.get("usage") or {}
        self._written += int(usage.get("completion_tokens") or 0)
        return document["choices"][0], usage

    def _events(self, **fields: Any) -> Generator[Mapping[str, Any], None, None]:
        body = self._body(stream=True, stream_options={"include_usage": True}, **fields)
        events = self._api.events("/chat/completions", body)
        try:
            for data in events:
                if data != "[DONE]":
                    yield json.loads(data)
        finally:
            events.close()

    def _body(self, **fields: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": PROMPT}]
        return {"model": self._model, "messages": messages, "max_tokens": TOKENS} | fields

    def _running(self) -> int | None:
        """How many requests the server works on, by its own metrics."""
        if self._engine.metrics_path is None:
            return None
        return endpoints.metrics(self._reached).running
