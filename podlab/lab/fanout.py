"""Ask several pods at the same time, and wait for none of them longer than the deadline."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from podlab.errors import PodlabError, Unreachable

K = TypeVar("K")
V = TypeVar("V")


def ask_all(items: Sequence[K], question: Callable[[K], V], *, deadline_s: float) -> list[V | PodlabError]:
    """`question(item)` for each item, in their order; an error of ours instead of an answer where one was raised.

    An item that did not answer within `deadline_s` gives Unreachable. Its thread is left behind: it ends by itself
    when its connection does, and does not keep the program from ending.
    """
    answers: queue.SimpleQueue[tuple[int, V | BaseException]] = queue.SimpleQueue()

    def ask(position: int, item: K) -> None:
        try:
            answers.put((position, question(item)))
        except BaseException as error:  # noqa: BLE001  # it belongs to the thread that asked
            answers.put((position, error))

    for position, item in enumerate(items):
        threading.Thread(target=ask, args=(position, item), daemon=True).start()
    late = Unreachable(f"It did not answer within {deadline_s:g} s.")
    results: list[V | PodlabError] = [late] * len(items)
    deadline = time.monotonic() + deadline_s
    for _ in items:
        try:
            position, answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        if isinstance(answer, BaseException) and not isinstance(answer, PodlabError):
            raise answer
        results[position] = answer
    return results
