"""The official SDK, unchanged, as a client of the simulated company over a socket."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from podlab.sandbox.serve import Running

runpod = pytest.importorskip("runpod")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def sdk(running: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("RUNPOD_API_BASE_URL", running.url)
    monkeypatch.setattr(runpod, "api_key", running.key)
    return runpod


def wait_for(look: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come")


def order(sdk: Any, **changes: Any) -> Any:
    wanted = {
        "image_name": "runpod/pytorch",
        "gpu_type_id": "NVIDIA RTX A5000",
        "ports": "22/tcp",
        "env": {"A": '{"b":1}'},
    }
    return sdk.create_pod("a-pod-1a2b", **{**wanted, **changes})


def test_the_sdk_reads_the_catalogue(sdk: Any) -> None:
    names = {gpu["id"] for gpu in sdk.get_gpus()}
    one = sdk.get_gpu("NVIDIA A40")

    assert {"NVIDIA A40", "NVIDIA RTX A4000", "NVIDIA L40S", "NVIDIA L4"} <= names
    assert one["memory"] == 48 and one["availability"] == "HIGH" and one["price"]["secure"] > 0


def test_the_sdk_rents_stops_resumes_and_ends_a_pod(sdk: Any) -> None:
    made = order(sdk)

    assert made["status"] == "PROVISIONING" and made["env"] == {"A": '{"b":1}'} and made["cost"] == 0.27
    running = wait_for(lambda: (pod := sdk.get_pod(made["id"]))["status"] == "RUNNING" and pod)
    up = wait_for(lambda: (pod := sdk.get_pod(made["id"]))["runtime"] and pod)
    assert running["actions"] == ["stop", "restart", "terminate"]
    assert up["ssh"]["direct"]["port"] and [pod["id"] for pod in sdk.get_pods()] == [made["id"]]

    stopped = sdk.stop_pod(made["id"])
    assert stopped["status"] == "EXITED" and stopped["cost"] == 0 and stopped["ssh"]["direct"] is None

    sdk.resume_pod(made["id"])
    again = wait_for(lambda: (pod := sdk.get_pod(made["id"]))["ssh"]["direct"] and pod)
    assert again["ssh"]["direct"]["port"] != up["ssh"]["direct"]["port"]

    assert sdk.terminate_pod(made["id"]) is None
    assert sdk.get_pod(made["id"]) is None and sdk.get_pods() == []


def test_the_sdk_reads_who_the_account_is(sdk: Any) -> None:
    assert sdk.get_user()["id"] == "user_simulated"


def test_the_sdk_gets_the_details_of_what_is_refused(sdk: Any) -> None:
    with pytest.raises(sdk.error.QueryError) as refused:
        order(sdk, gpu_type_id="NVIDIA RTX A2000")

    assert refused.value.status_code == 400 and "no longer any instances" in str(refused.value)


def test_the_sdk_is_told_that_its_key_is_no_key(sdk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk, "api_key", "rpa_nobody")

    with pytest.raises(sdk.error.AuthenticationError):
        sdk.get_pods()


def test_the_sdk_keeps_templates_and_registries(sdk: Any) -> None:
    made = sdk.create_template("mine", "an/image", env={"A": "b"})
    login = sdk.create_container_registry_auth("hub", "me", "a-password")

    assert made["image"] == "an/image" and login["name"] == "hub" and "password" not in login
    assert sdk.delete_container_registry_auth(login["id"]) is True
