"""A real kernel, spoken to over its own protocol; a cell's messages as a notebook would keep them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from jupyter_client.manager import KernelManager


@dataclass
class Output:
    """What one cell showed: outputs as a saved notebook has them, and every message that led there."""

    outputs: list[dict[str, Any]] = field(default_factory=list)
    messages: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)
    reply: dict[str, Any] = field(default_factory=dict)

    @property
    def error(self) -> dict[str, Any] | None:
        """The cell's error output."""
        return next((output for output in self.outputs if output["output_type"] == "error"), None)

    @property
    def result(self) -> dict[str, str] | None:
        """The bundle of Out[n]."""
        return next((output["data"] for output in self.outputs if output["output_type"] == "execute_result"), None)

    @property
    def shown(self) -> list[dict[str, str]]:
        """The bundles that were displayed, in place, as they ended."""
        return [output["data"] for output in self.outputs if output["output_type"] == "display_data"]

    def stream(self, name: str) -> str:
        """What went to stdout or stderr."""
        return "".join(output["text"] for output in self.outputs if output.get("name") == name)

    def times(self, kind: str) -> list[float]:
        """When each message of a kind came."""
        return [when for when, message, _ in self.messages if message == kind]


class Kernel:
    """`with Kernel() as kernel: kernel.run("1 + 1")`."""

    def __init__(self, *, cwd: str, env: Mapping[str, str]) -> None:
        self.manager = KernelManager(kernel_name="python3")
        self._start = {"cwd": cwd, "env": dict(env)}

    def __enter__(self) -> Self:
        self.manager.start_kernel(**self._start)
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)
        return self

    def __exit__(self, *exception: object) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def run(
        self, code: str, *, stdin: str | Callable[[], str | None] | None = None, answer_at: str = "",
        interrupt_at: str = "", timeout_s: float = 60,
    ) -> Output:  # fmt: skip
        """Run a cell to its end. `stdin` answers every question (a function's None does not, and None as such means
        that nobody is there), with `answer_at` only when that text has come since; `interrupt_at` interrupts when that
        text has come."""
        output = Output()
        places: dict[str, dict[str, Any]] = {}

        waiting = False

        def hear(message: dict[str, Any]) -> None:
            kind, content = message["header"]["msg_type"], message["content"]
            output.messages.append((time.monotonic(), kind, content))
            keep(output.outputs, places, kind, content)
            nonlocal interrupt_at, waiting
            if waiting and answer_at in str(content):
                waiting = False
                reply()
            if interrupt_at and interrupt_at in str(content):
                interrupt_at = ""
                self.manager.interrupt_kernel()

        def answer(message: dict[str, Any]) -> None:
            nonlocal waiting
            waiting = bool(answer_at)
            if not waiting:
                reply()

        def reply() -> None:
            said = stdin() if callable(stdin) else stdin
            if said is not None:
                self.client.input(said)

        output.reply = self.client.execute_interactive(
            code, allow_stdin=stdin is not None, output_hook=hear, stdin_hook=answer, timeout=timeout_s,
            stop_on_error=False,
        )["content"]  # fmt: skip
        return output

    def complete(self, code: str, cursor: int | None = None) -> tuple[list[str], dict[str, str], tuple[int, int]]:
        """What a front end offers: texts, type by text, and the span that is replaced."""
        content = self.client.complete(code, len(code) if cursor is None else cursor, reply=True, timeout=30)["content"]
        types = content["metadata"].get("_jupyter_types_experimental", [])
        kinds = {entry["text"]: entry["type"] for entry in types}
        return content["matches"], kinds, (content["cursor_start"], content["cursor_end"])

    def value(self, expression: str) -> Any:
        """What a simple expression is in the kernel."""
        import ast

        reply = self.client.execute_interactive(
            "", user_expressions={"it": expression}, output_hook=lambda message: None, timeout=30, silent=True
        )
        return ast.literal_eval(reply["content"]["user_expressions"]["it"]["data"]["text/plain"])


def keep(outputs: list[dict[str, Any]], places: dict[str, dict[str, Any]], kind: str, content: dict[str, Any]) -> None:
    """Do with a message what a front end does with its outputs."""
    if kind == "stream":
        if outputs and outputs[-1].get("name") == content["name"]:
            outputs[-1]["text"] += content["text"]
        else:
            outputs.append({"output_type": "stream", **content})
    elif kind in ("display_data", "execute_result", "error"):
        outputs.append({"output_type": kind, **content})
        if place := content.get("transient", {}).get("display_id"):
            places[place] = outputs[-1]
    elif kind == "update_display_data":
        places[content["transient"]["display_id"]]["data"] = content["data"]
