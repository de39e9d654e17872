"""The official SDK's pod functions, on podlab's own line.

The SDK says what is asked for; podlab's line (runpod_line.py) carries it. What the SDK brings for carrying is kept out:

- `requests` with a timeout that begins anew with each byte, no cap on a body, redirects that are followed with the
  whole order, and a 429 whose Retry-After is dropped: no deadline of ours could be kept with it;
- one key and one RUNPOD_API_BASE_URL for the whole process: an order for the sandbox could reach RunPod, and cost
  money.

So its two modules are loaded a second time, for one account, with the line where `requests` stood. They never see the
key, and whoever uses the SDK beside podlab in the same process does not notice. tests/providers/test_runpod_sdk.py
shows each of these with the SDK as it is, over sockets.

Functions of it that are not used, for they cannot say what an order or the contract needs: create_pod (one data center,
no lowest CUDA version, no registry), get_pods (leaves out members of clusters, one page), get_gpus (no stock).
"""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Literal

from podlab.errors import BadSettings
from podlab.http import Answer

EXTRA = 'Install it: pip install "podlab[runpod]"'
Function = Literal["get_pod", "resume_pod", "stop_pod", "terminate_pod"]
PLAIN: dict[Function, tuple[str, str, dict[str, str] | None]] = {
    "get_pod": ("GET", "", None),
    "resume_pod": ("POST", "/action", {"action": "start"}),
    "stop_pod": ("POST", "/action", {"action": "stop"}),
    "terminate_pod": ("DELETE", "", None),
}
"""What each of them sends, for where the package is not installed: what ends a pod must not depend on it."""
Carry = Callable[[str, str, dict[str, str] | None], Answer]
"""Method, path and body to the answer, which is a success; podlab's error otherwise."""
Call = Callable[[Function, str], Answer | None]
"""Function and pod id to the answer; None for one without a body."""
LOGGERS = ("urllib3", "paramiko", "uvicorn")
"""Not its own, and yet `import runpod` sets their levels."""
_loading = threading.Lock()


class SdkMissing(BadSettings):
    """The package is not installed, or is not built as the one podlab knows."""


def on_line(carry: Carry) -> Call:
    """The SDK's functions for one account, from any thread. Raises SdkMissing."""
    with _loading, _log_levels_kept():
        rest, functions = _own_copy("runpod.api.rest"), _own_copy("runpod.api.ctl_commands")
    if not all(callable(vars(functions).get(name)) for name in PLAIN) or "requests" not in vars(rest):
        raise SdkMissing("The installed runpod package is not one that podlab knows.", hint=EXTRA)
    vars(rest)["requests"] = _Carrier(carry)

    def run_rest_request(method: str, path: str, **given: Any) -> Any:
        # Told a word in place of a key, it looks for none.
        return rest.run_rest_request(method, path, **(given | {"api_key": "carried by podlab"}))

    vars(functions)["run_rest_request"] = run_rest_request

    def call(name: Function, rental_id: str) -> Answer | None:
        answer = vars(functions)[name](rental_id)
        return answer if isinstance(answer, Answer) else None

    return call


def without_sdk(carry: Carry) -> Call:
    """The same requests, written out."""

    def call(name: Function, rental_id: str) -> Answer | None:
        method, rest, body = PLAIN[name]
        return carry(method, f"/v2/pods/{rental_id}{rest}", body)

    return call


class _Carrier:
    """Stands where `requests` stood in the SDK's module."""

    def __init__(self, carry: Carry) -> None:
        self._carry = carry

    def request(self, method: str, url: str, *, json: dict[str, str] | None = None, **ignored: Any) -> _Reply:
        # The base URL and the headers are the process's: only the path counts.
        return _Reply(self._carry(method, "/v2/" + url.rpartition("/v2/")[2], json))


class _Reply:
    """A success as the SDK reads one; refusals have been raised. It hands on the answer: JSON is the line's to read."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.status_code = answer.status
        self.content = answer.content

    def json(self) -> Answer:
        return self._answer


def _own_copy(name: str) -> ModuleType:
    """A module of the SDK, loaded once more, for nobody else."""
    try:
        spec = importlib.util.find_spec(name)
    except ImportError:
        spec = None
    if spec is None or spec.loader is None:
        raise SdkMissing("Renting from RunPod needs its official package, which is not installed.", hint=EXTRA)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def _log_levels_kept() -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
