"""The stop button during an answer: the cell ends at once, keeps what had arrived, and the server stops generating."""

from __future__ import annotations

import os
import signal

import httpx2
import pytest

from tests import processes
from tests.kernels import Kernel, Said

pytest.importorskip("xllamacpp", reason="install the engine: pip install 'podlab[local]'")


def busy(connection: dict[str, str]) -> int:
    """How many requests the engine is generating for, by its own count."""
    url = connection["base_url"].removesuffix("/v1") + "/metrics"
    headers = {"Authorization": f"Bearer {connection['api_key']}"}
    text = httpx2.get(url, headers=headers, trust_env=False, timeout=10).text
    lines = [line for line in text.splitlines() if line.startswith("llamacpp:requests_processing")]
    return int(float(lines[0].split()[-1]))


def test_interrupt_ends_the_answer_on_both_sides() -> None:
    """The cell ends although the engine says nothing more; once it can, that drops the request; the next turn works."""
    with Kernel() as kernel:
        kernel.run("%model start tiny -- --ignore-eos")
        kernel.run("import podlab")
        connection = kernel.value("podlab.connection('tiny')")
        (endpoint,) = kernel.endpoints()
        with processes.slowed(endpoint["pid"]):
            message = kernel.begin("%%chat --max-tokens 1900\nTell me a short story about a fox.")
            kernel.listen(message, until=_shows_an_answer)
        os.kill(endpoint["pid"], signal.SIGSTOP)  # whatever ends the cell now, it is no word of the engine
        try:
            kernel.interrupt()
            said = kernel.listen(message, until=lambda _: False)
        finally:
            os.kill(endpoint["pid"], signal.SIGCONT)
        assert said.error is not None and "Interrupted" in said.error[0]
        processes.wait_until(lambda: busy(connection) == 0, timeout_s=10, why="the engine has stopped generating")
        kernel.run("kept = %chat show")
        turns = kernel.value("kept.to_dict()")["messages"]
        assert [turn["role"] for turn in turns] == ["user", "assistant"]
        assert turns[1]["content"]
        kernel.run("%%chat --max-tokens 8\nSay hello.")
        kernel.run("%model stop tiny")


def _shows_an_answer(said: Said) -> bool:
    return any("text/html" in shown for shown in said.displayed.values())
