"""One output of a cell that is updated in place: at most so many times a second, and exact when it ends."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable

from IPython.display import DisplayHandle

Bundle = dict[str, str]
"""MIME type -> content."""


class Live:
    """Shows what `draw()` returns, in one place of the cell's output.

    `touch` says that there is something new; a thread draws it, so that output that arrives fast costs no more than
    `per_second` messages and the last piece is never left out. `delay_s` keeps short work from showing at all; with
    `pulse_s` it is drawn again although nothing is new (a clock). `end` draws the last state before it returns.
    """

    def __init__(
        self, draw: Callable[[], Bundle], *, per_second: float, delay_s: float = 0.0, pulse_s: float | None = None
    ) -> None:
        self._draw = draw
        self._gap_s = 1 / per_second
        self._delay_s = delay_s
        self._pulse_s = pulse_s
        self._handle: DisplayHandle | None = None
        self._shown: Bundle | None = None
        self._news = False
        self._ended = False
        self._wake = threading.Condition()
        self._screen = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def visible(self) -> bool:
        """Whether anything has been shown."""
        return self._handle is not None

    def touch(self) -> None:
        """There is something new to show. The first time is drawn at once when there is no delay."""
        if self._thread is None:
            if not self._delay_s:
                self._show(self._draw())
            # The copied context carries which cell this output belongs to into the thread.
            context = contextvars.copy_context()
            self._thread = threading.Thread(target=context.run, args=(self._run,), name="podlab-live", daemon=True)
            self._thread.start()
            if not self._delay_s:
                return
        with self._wake:
            self._news = True
            self._wake.notify()

    def end(self, last: Bundle | None = None) -> None:
        """Show `last` (default: what `draw` gives now) as the final state and stop. Nothing is shown if nothing was."""
        with self._wake:
            self._ended = True
            self._wake.notify()
        if self._thread is not None:
            self._thread.join()
        if self.visible:
            self._show(self._draw() if last is None else last)

    def _run(self) -> None:
        with self._wake:
            if self._wake.wait_for(lambda: self._ended, self._delay_s):
                return
        while True:
            began = time.monotonic()
            self._show(self._draw())
            # Drawing may be slow for a long answer: it never gets more than a quarter of the time.
            pause_s = max(self._gap_s, 3 * (time.monotonic() - began))
            with self._wake:
                if self._wake.wait_for(lambda: self._ended, pause_s):
                    return
                self._wake.wait_for(lambda: self._news or self._ended, self._pulse_s)
                if self._ended:
                    return
                self._news = False

    def _show(self, bundle: Bundle) -> None:
        with self._screen:
            if bundle == self._shown:
                return
            self._shown = bundle
            if self._handle is None:
                self._handle = DisplayHandle()  # type: ignore[no-untyped-call]
                self._handle.display(bundle, raw=True)  # type: ignore[no-untyped-call]
            else:
                self._handle.update(bundle, raw=True)  # type: ignore[no-untyped-call]
