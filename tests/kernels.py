"""A real Jupyter kernel for tests: run cells, watch what they say, kill it in the middle."""

from __future__ import annotations

import json
import os
import queue
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel

CELL_TIMEOUT_S = 90.0


@dataclass
class Said:
    """What a cell said: its streams, the text and HTML it displayed (updates in place), its error."""

    stdout: str = ""
    stderr: str = ""
    displayed: dict[str, dict[str, Any]] = field(default_factory=dict)
    result: dict[str, Any] | None = None
    error: list[str] | None = None
    error_name: str = ""


class CellFailed(AssertionError):
    """A cell ended with an error that the test did not expect."""


class Kernel:
    """One kernel process with podlab loaded. Use as a context manager."""

    def __init__(self, *, load: bool = True) -> None:
        self.manager: KernelManager
        self.client: BlockingKernelClient
        self.manager, self.client = start_new_kernel(kernel_name="python3", env=os.environ.copy())
        if load:
            self.run("%load_ext podlab")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.stop_channels()
        if self.manager.is_alive():
            self.manager.shutdown_kernel(now=True)

    @property
    def pid(self) -> int:
        provisioner = self.manager.provisioner
        assert provisioner is not None
        return int(provisioner.pid)  # type: ignore[attr-defined]

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while self.manager.is_alive():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def interrupt(self) -> None:
        self.manager.interrupt_kernel()

    def begin(self, code: str) -> str:
        """Send a cell and return at once; its message id."""
        return self.client.execute(code)

    def run(self, code: str, *, check: bool = True, timeout_s: float = CELL_TIMEOUT_S) -> Said:
        """Run a cell to its end."""
        said = self.listen(self.begin(code), until=lambda _: False, timeout_s=timeout_s)
        if check and said.error is not None:
            raise CellFailed("\n".join(said.error))
        return said

    def listen(self, message_id: str, *, until: Callable[[Said], bool], timeout_s: float = CELL_TIMEOUT_S) -> Said:
        """What a cell says, to its end or until `until` says so."""
        said = Said()
        deadline = time.monotonic() + timeout_s
        while not until(said):
            try:
                message = self.client.get_iopub_msg(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise TimeoutError(f"the cell is not done after {timeout_s:g} s; so far: {said}") from None
            if message["parent_header"].get("msg_id") != message_id:
                continue
            content, kind = message["content"], message["msg_type"]
            if kind == "stream":
                setattr(said, content["name"], getattr(said, content["name"]) + content["text"])
            elif kind in ("display_data", "update_display_data"):
                place = content.get("transient", {}).get("display_id") or str(len(said.displayed))
                said.displayed[place] = content["data"]
            elif kind == "execute_result":
                said.result = content["data"]
            elif kind == "error":
                said.error, said.error_name = content["traceback"], content["ename"]
            elif kind == "status" and content["execution_state"] == "idle":
                break
        return said

    def value(self, expression: str) -> Any:
        """The value of a Python expression, which has to be JSON-able."""
        said = self.run(f"import json as _json; print(_json.dumps({expression}))")
        return json.loads(said.stdout)

    def endpoints(self) -> list[dict[str, Any]]:
        """What `%model list` tells, as its JSON document."""
        self.run("_list = %model list")
        found = self.value("_list.to_dict()")["endpoints"]
        assert isinstance(found, list)
        return found
