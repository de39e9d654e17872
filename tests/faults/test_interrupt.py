"""The stop button during an answer: the cell ends at once, keeps what had arrived, and the server stops generating."""

from __future__ import annotations

import time

import httpx2
import pytest

from tests import processes
from tests.kernels import Kernel, Said

pytest.importorskip("xllamacpp", reason="install the engine: pip install 'podlab[local]'")
STOP_S = 0.2
SLACK = 3


def busy(connection: dict[str, str]) -> int:
    """How many requests the engine is generating for, by its own count."""
    url = connection["base_url"].removesuffix("/v1") + "/metrics"
    headers = {"Authorization": f"Bearer {connection['api_key']}"}
    text = httpx2.get(url, headers=headers, trust_env=False, timeout=10).text
    lines = [line for line in text.splitlines() if line.startswith("llamacpp:requests_processing")]
    return int(float(lines[0].split()[-1]))


def test_interrupt_ends_the_answer_on_both_sides() -> None:
    """Within 200 ms (three times that here) the cell has ended; the engine drops the request; the next turn works."""
    with Kernel() as kernel:
        kernel.run("%model start tiny -- --ignore-eos")
        kernel.run("import podlab")
        connection = kernel.value("podlab.connection('tiny')")
        (endpoint,) = kernel.endpoints()
        with processes.slowed(endpoint["pid"]):
            message = kernel.begin("%%chat --max-tokens 1900\nTell me a short story about a fox.")
            kernel.listen(message, until=_shows_an_answer)
            began = time.monotonic()
            kernel.interrupt()
            said = kernel.listen(message, until=lambda _: False)
            took_s = time.monotonic() - began
        assert said.error is not None and "Interrupted" in said.error[0]
        assert took_s < STOP_S * SLACK
        processes.wait_until(lambda: busy(connection) == 0, timeout_s=10, why="the engine has stopped generating")
        kernel.run("kept = %chat show")
        turns = kernel.value("kept.to_dict()")["messages"]
        assert [turn["role"] for turn in turns] == ["user", "assistant"]
        assert turns[1]["content"]
        kernel.run("%%chat --max-tokens 8\nSay hello.")
        kernel.run("%model stop tiny")


def _shows_an_answer(said: Said) -> bool:
    return any("text/html" in shown for shown in said.displayed.values())
