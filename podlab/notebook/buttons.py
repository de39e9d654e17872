"""Buttons below a question of a cell, in a page that can have them. They answer the cell's own input prompt.

While a cell runs, a kernel reads no widget messages: they wait in the shell channel until the cell has ended. What it
does read is the answer to `input()`, on a channel of its own. So a button fills in the page's input box and sends it
(`buttons.js`), and everything else stays what it is at a prompt: nobody answers a run without a person, an interrupt
ends the question, and what is sent to a question that is over is thrown away by the kernel.

What the page learns from here is whether the question is open, and once a second that the kernel still waits.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import importlib.resources
import sys
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from IPython.display import DisplayHandle

from podlab.display.html import line_html
from podlab.display.questions import Button

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

BEAT_S = 1.0
VIEW = "application/vnd.jupyter.widget-view+json"


def view(widget: Any) -> dict[str, Any]:
    """A widget as part of an output."""
    return {VIEW: {"version_major": 2, "version_minor": 0, "model_id": widget.model_id}}


def possible(shell: InteractiveShell) -> bool:
    """Whether the page may have an input box that a button can fill in.

    VS Code asks in a box of its window, Colab in a frame of its own: neither is within a widget's reach.
    """
    if getattr(shell, "kernel", None) is None:
        return False
    return "__vsc_ipynb_file__" not in shell.user_ns and "google.colab" not in sys.modules


class Buttons:
    """Buttons that are there while the body of `with` runs, and a sentence in their place when it has ended.

    `prompt` is the text of the input box that they fill in. `first` marks the first one: "go" for one that costs
    something, "end" for one that ends or deletes, "" for a choice among equals. `escape`: the last one is no. `said`
    is the sentence for a question that nobody answered. Unless they are `alone`, the input box stays beside them.
    """

    def __init__(
        self, prompt: str, buttons: Sequence[Button], *, said: str, first: str, escape: bool, alone: bool = True
    ) -> None:
        self.said = said
        self._handle = DisplayHandle()  # type: ignore[no-untyped-call]
        self._widget = _kind()(
            prompt=prompt, labels=[each.label for each in buttons], answers=[each.typed for each in buttons],
            first=first, escape=escape, alone=alone,
        )  # fmt: skip
        self._over = threading.Event()
        # The copied context carries which cell the messages belong to into the thread.
        run = contextvars.copy_context().run
        self._thread = threading.Thread(target=run, args=(self._beat,), name="podlab-buttons", daemon=True)

    def __enter__(self) -> Self:
        try:
            self._handle.display({**view(self._widget), "text/plain": "Answer below."}, raw=True)  # type: ignore[no-untyped-call]
            self._thread.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        self._over.set()
        self._widget.waits = False
        # The sentence first: a view that has lost its model would show an error in its place.
        self._handle.update({"text/html": line_html(self.said), "text/plain": self.said}, raw=True)  # type: ignore[no-untyped-call]
        self._widget.layout.close()
        self._widget.close()

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            with contextlib.suppress(Exception):  # the page is gone, or the question ended in this very moment
                self._widget.beat += 1


@functools.cache
def _kind() -> Any:
    """The widget's class, made at the first question: what it needs takes a while to load. Raises ImportError."""
    import anywidget
    from traitlets import Bool, Int, List, Unicode

    here = importlib.resources.files("podlab.notebook")

    class ButtonsWidget(anywidget.AnyWidget):
        _esm = here.joinpath("buttons.js").read_text(encoding="utf-8")
        _css = here.joinpath("buttons.css").read_text(encoding="utf-8")
        prompt = Unicode().tag(sync=True)
        labels = List(Unicode()).tag(sync=True)
        answers = List(Unicode()).tag(sync=True)
        first = Unicode().tag(sync=True)
        escape = Bool(False).tag(sync=True)
        alone = Bool(True).tag(sync=True)
        waits = Bool(True).tag(sync=True)
        beat = Int(0).tag(sync=True)

    return ButtonsWidget
