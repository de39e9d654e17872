"""The official SDK: what it does by itself over sockets, and what podlab makes of that."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from podlab.errors import RateLimited
from podlab.http import Answer
from podlab.providers import runpod_sdk
from podlab.providers.runpod import RunpodProvider
from podlab.providers.runpod_sdk import PLAIN, SdkMissing
from podlab.renting import Order
from podlab.sandbox.serve import Running
from podlab.secrets import Secret
from tests.scripted import OK, answer, saying, serving

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
ORDER = Order("lab-1a2b", "NVIDIA A40", 1, "secure", image="an/image:tag")


@pytest.fixture
def sdk(monkeypatch: pytest.MonkeyPatch) -> Any:
    runpod = pytest.importorskip("runpod")
    monkeypatch.setattr(runpod, "api_key", "rpa_somebody")
    return runpod


@pytest.mark.parametrize("function", PLAIN)
def test_the_sdk_asks_for_what_is_written_out_beside_it(function: runpod_sdk.Function) -> None:
    def kept(into: list[object]) -> runpod_sdk.Carry:
        def carry(method: str, path: str, body: dict[str, str] | None) -> Answer:
            into.append((method, path, body))
            return Answer(200, {}, b'{"id": "abc"}')

        return carry

    by_sdk: list[object] = []
    plain: list[object] = []
    first = runpod_sdk.on_line(kept(by_sdk))(function, "abc")
    second = runpod_sdk.without_sdk(kept(plain))(function, "abc")

    assert by_sdk == plain and len(plain) == 1
    assert first == second or function == "terminate_pod"


def test_the_sdk_by_itself_has_no_deadline_for_a_whole_answer(sdk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its timeout begins anew with each byte; podlab's line ends in time (test_bad_answers.py)."""
    timeout_s = 2.0

    def drip(connection: socket.socket, request: bytes) -> None:
        connection.sendall(OK + b"\r\n")
        for _ in range(30):
            connection.sendall(b" ")
            time.sleep(0.1)
        connection.sendall(b'{"pods": []}')

    from runpod.api.rest import run_rest_request

    with serving(drip) as server:
        monkeypatch.setenv("RUNPOD_API_BASE_URL", server.url.removesuffix("/v1"))
        began = time.monotonic()
        assert run_rest_request("GET", "/v2/pods", timeout=timeout_s) == {"pods": []}
        assert time.monotonic() - began > timeout_s


def test_the_sdk_by_itself_sends_a_write_again_where_a_redirect_points(
    sdk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole order, to another host; podlab's line follows none (test_bad_answers.py)."""
    with serving(saying(answer(b'{"id": "abc"}', "201 Created"))) as elsewhere:
        there = f"Location: http://localhost:{elsewhere.port}/v2/pods\r\n"
        with serving(saying(answer(b"", "307 Temporary Redirect", there))) as server:
            monkeypatch.setenv("RUNPOD_API_BASE_URL", server.url.removesuffix("/v1"))
            sdk.create_pod("lab-1a2b", "an/image:tag", "NVIDIA A40", env={"A": "b"})
        assert b'"A": "b"' in elsewhere.requests[0]
        assert b"rpa_somebody" not in elsewhere.requests[0]


def test_the_sdk_by_itself_drops_how_long_a_limit_lasts(sdk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.dumps({"title": "Too Many Requests", "status": 429, "detail": "slow down"}).encode()
    with serving(saying(answer(body, "429 Too Many Requests", "Retry-After: 12\r\n"))) as server:
        base = server.url.removesuffix("/v1")
        monkeypatch.setenv("RUNPOD_API_BASE_URL", base)
        with pytest.raises(sdk.error.QueryError) as by_itself:
            sdk.stop_pod("abc")
        with pytest.raises(RateLimited) as on_line:
            RunpodProvider(key=Secret("rpa_CANARY0123456789"), url=base).stop("abc")

    assert "12" not in str(vars(by_itself.value)) and on_line.value.retry_after_s == 12.0


def test_the_sdk_by_itself_leaves_out_members_of_clusters(sdk: Any, running: Running, monkeypatch: Any) -> None:
    from dataclasses import replace

    monkeypatch.setenv("RUNPOD_API_BASE_URL", running.url)
    monkeypatch.setattr(sdk, "api_key", running.key)
    provider = RunpodProvider(key=Secret(running.key), url=running.url)
    made = provider.create(ORDER)
    pod = running.company.pods[made.id]
    pod.wanted = replace(pod.wanted, cluster="c1")

    assert sdk.get_pods() == [] and [each.id for each in provider.list()] == [made.id]


def test_the_sdk_that_somebody_uses_beside_podlab_stays_as_it_was(
    sdk: Any, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its key, its base URL, its modules and what they are called with."""
    provider = RunpodProvider(key=Secret(running.key), url=running.url, deadline_s=10)
    made = provider.create(ORDER)
    provider.stop(made.id)
    with serving(saying(answer(b'{"pods": [{"id": "theirs"}]}'))) as server:
        monkeypatch.setenv("RUNPOD_API_BASE_URL", server.url.removesuffix("/v1"))
        assert sdk.get_pods() == [{"id": "theirs"}]
        assert provider.get(made.id) is not None
        assert [b"rpa_somebody" in request for request in server.requests] == [True]
    assert sdk.api_key == "rpa_somebody"
    assert sys.modules["runpod.api.rest"].requests is sys.modules["requests"]  # type: ignore[attr-defined]


def test_using_it_leaves_the_levels_of_other_loggers_alone() -> None:
    code = (
        "import logging\n"
        "for name in ('urllib3', 'paramiko', 'uvicorn'): logging.getLogger(name).setLevel(logging.DEBUG)\n"
        "from podlab.providers.runpod_sdk import on_line\n"
        "on_line(lambda *asked: None)\n"
        "print([logging.getLogger(name).level for name in ('urllib3', 'paramiko', 'uvicorn')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    assert done.stdout.strip() == "[10, 10, 10]", done.stderr


WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "runpod":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
from podlab.errors import PodlabError
from podlab.providers.runpod import RunpodProvider
from podlab.renting import Order
from podlab.secrets import Secret
url, key, pod = sys.argv[1:]
order = Order("lab-2", "NVIDIA A40", 1, "secure", image="an/image:tag")
provider = RunpodProvider(key=Secret(key), url=url)
print(provider.get(pod).id)
try:
    provider.create(order)
except PodlabError as error:
    print(type(error).__name__, error, error.hint)
provider.stop(pod)
provider.terminate(pod)
print(provider.list())
print(RunpodProvider(key=Secret(key), url=url, simulated=True).create(order).name)
"""


def test_without_the_package_nothing_is_rented_and_everything_can_be_ended(running: Running, tmp_path: Path) -> None:
    made = RunpodProvider(key=Secret(running.key), url=running.url).create(ORDER)
    program = tmp_path / "without.py"
    program.write_text(WITHOUT)

    done = subprocess.run(
        [sys.executable, str(program), running.url, running.key, made.id], capture_output=True, text=True, timeout=60
    )

    shown, refused, left, simulated = done.stdout.splitlines()
    assert refused.startswith("SdkMissing") and 'pip install "podlab[runpod]"' in refused
    assert shown == made.id and left == "()"
    assert simulated == "lab-2"  # what is simulated needs no package


def test_a_package_that_is_built_otherwise_is_refused_before_anything_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "other" / "runpod" / "api"
    package.mkdir(parents=True)
    for folder in (package.parent, package):
        (folder / "__init__.py").write_text("")
    (package / "rest.py").write_text("def run_rest_request(*given, **named): raise AssertionError\n")
    (package / "ctl_commands.py").write_text("def get_pod(id): raise AssertionError\n")
    for name in [name for name in sys.modules if name.partition(".")[0] == "runpod"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path / "other"))

    with pytest.raises(SdkMissing, match="not one that podlab knows"):
        runpod_sdk.on_line(lambda *asked: Answer(200, {}, b""))
    for name in [name for name in sys.modules if name.partition(".")[0] == "runpod"]:
        sys.modules.pop(name)


def test_the_functions_load_once_for_many_threads(running: Running) -> None:
    provider = RunpodProvider(key=Secret(running.key), url=running.url)
    made = provider.create(ORDER)
    began = time.monotonic()
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(provider.get(made.id))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(found) == 16 and all(found) and time.monotonic() - began < 30
    assert logging.getLogger("runpod").level == logging.NOTSET
