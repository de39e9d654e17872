"""Documents: JSON for every value, secrets masked, and field names that are a promise."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from podlab import secrets, types
from podlab.commands import results
from podlab.commands.results import document, rows
from podlab.secrets import MASK, Secret
from podlab.types import (
    Endpoint,
    EndpointState,
    JobRow,
    Message,
    Pod,
    PodState,
    PodStatus,
    SshAddress,
    TunnelRow,
    Usage,
)

POD = Pod("lab", "p1", "ssh", SshAddress("gpu.example", "me", 2222, ("~/.ssh/id",)), "/models")
STATUS = PodStatus(POD, PodState.REACHABLE, 1.5, "fine", True)
ENDPOINT = Endpoint("e1", "tiny", "lab", "tiny", "llamacpp", EndpointState.READY, gpus=(0, 1))
MODEL = results.ModelRow("tiny", "A small one.", "llamacpp", "built in", 3, 4, 5, "Apache-2.0")
JOB = JobRow("j-1", "lab", "running", "ls", 1.0, None)
SETTING = results.SettingRow("pod", "local", "default", "the pod")

VALUES: dict[str, Any] = {
    "Done": results.Done("It is done.", {"pod": "lab"}),
    "Plan": results.Plan(("do this",)),
    "PodList": results.PodList((STATUS,)),
    "PodDetail": results.PodDetail(STATUS, "host", "Linux", "3.11", 4, 8, 16, "/home/me"),
    "EndpointList": results.EndpointList((ENDPOINT,), (STATUS,)),
    "EndpointDetail": results.EndpointDetail(ENDPOINT, ("server", "--port"), ("last line",)),
    "ModelRow": MODEL,
    "ModelList": results.ModelList((MODEL,)),
    "UrlDetail": results.UrlDetail("tiny", "http://127.0.0.1:1/v1", MASK, "tiny", ("export X=1",), "import openai"),
    "JobList": results.JobList((JOB,), (STATUS,)),
    "Transfer": results.Transfer(("a", "b"), 10, 5, 0.5),
    "TunnelList": results.TunnelList((TunnelRow("lab", 1, 2),)),
    "Reply": results.Reply("Hello.", "tiny", "tiny", "stop", "Hm.", Usage(1, 2), 0.1, 0.2, 3.0),
    "ConversationDetail": results.ConversationDetail("tiny", (Message("user", "Hi"),)),
    "SettingRow": SETTING,
    "SettingList": results.SettingList((SETTING,)),
    "SecretRow": results.SecretRow("HF_TOKEN", "file"),
    "SecretList": results.SecretList((results.SecretRow("HF_TOKEN", "file"),)),
}

STATUS_KEYS = "name id provider address models_path state last_seen detail in_use"
ENDPOINT_KEYS = (
    "id name pod model engine state cause detail pid port gpus url started_at exit_status generation last_seen"
)
PROMISED = {
    "Done": "text changed",
    "Plan": "would",
    "PodList": "pods",
    "PodDetail": "pod hostname system python cpu_count memory_bytes free_disk_bytes home",
    "EndpointList": "endpoints pods",
    "EndpointDetail": "endpoint command log",
    "ModelRow": "id summary engine source parameters size_bytes context licence",
    "ModelList": "models",
    "UrlDetail": "name base_url key model exports snippet",
    "JobList": "jobs pods",
    "Transfer": "files total_bytes sent_bytes seconds",
    "TunnelList": "tunnels",
    "Reply": "text endpoint model stop_reason reasoning usage first_token_s total_s tokens_per_second",
    "ConversationDetail": "endpoint messages",
    "SettingRow": "name value source help",
    "SettingList": "settings",
    "SecretRow": "name source",
    "SecretList": "secrets",
}
"""What programs read: a name may be added behind these, none may be taken away or renamed."""
PROMISED_NOUNS = {
    "PodStatus": (STATUS, STATUS_KEYS),
    "Endpoint": (ENDPOINT, ENDPOINT_KEYS),
    "JobRow": (JOB, "id pod state command started_at status"),
    "TunnelRow": (TunnelRow("lab", 1, 2), "pod local_port remote_port"),
    "Message": (Message("user", "Hi"), "role content reasoning"),
    "Usage": (Usage(1, 2), "prompt_tokens completion_tokens"),
    "LogLines": (types.LogLines(("a",)), "lines generation offset"),
    "Interactive": (types.Interactive(("ssh",), "run it"), "argv how"),
    "SshAddress": (POD.address, "host user port identity_files alias proxy_jump"),
}


def strict(value: Any) -> Any:
    """Through JSON and back; what JSON has no word for is refused."""
    return json.loads(json.dumps(document(value), allow_nan=False))


def test_every_value_is_held_here() -> None:
    """No dataclass of results.py is without a promise."""
    kinds = {
        name
        for name, kind in vars(results).items()
        if dataclasses.is_dataclass(kind) and kind.__module__ == results.__name__
    }
    assert kinds - {"Outcome"} == set(PROMISED) == set(VALUES)


@pytest.mark.parametrize("name", VALUES)
def test_the_keys_of_each_document(name: str) -> None:
    """Each value's document has the promised keys in their order, and is plain JSON."""
    assert " ".join(strict(VALUES[name])) == PROMISED[name]
    assert strict(VALUES[name]) == document(VALUES[name])


@pytest.mark.parametrize("name", PROMISED_NOUNS)
def test_the_keys_of_each_noun(name: str) -> None:
    """The nouns inside of the values keep their keys, too; a pod's status is one flat object."""
    value, keys = PROMISED_NOUNS[name]
    assert " ".join(strict(value)) == keys


def test_a_status_is_flat_wherever_it_stands() -> None:
    """In a list, in a detail and alone, name and state of a pod stand side by side."""
    flat = strict(STATUS)
    assert (flat["name"], flat["state"], flat["in_use"]) == ("lab", "reachable", True)
    assert flat["address"] == {
        "host": "gpu.example", "user": "me",
        "port": 2222, "identity_files": ["~/.ssh/id"], "alias": None, "proxy_jump": None,
    }  # fmt: skip
    assert strict(VALUES["PodList"]) == {"pods": [flat]}
    assert strict(VALUES["PodDetail"])["pod"] == flat
    assert strict(VALUES["EndpointList"])["pods"] == [flat]


def test_a_secret_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret anywhere in a value is asterisks in its document."""
    monkeypatch.setattr(secrets, "_known", set())
    secret = Secret("canary-12345678")
    values = [
        results.UrlDetail("tiny", "http://h", secret, "tiny", (), ""), results.SettingRow("key", secret, "file", ""),
        results.Done("x", {"key": secret}), {"a": [secret, (secret,)], secret: 1},  # type: ignore[dict-item]
    ]  # fmt: skip
    for value in values:
        text = json.dumps(document(value))
        assert "canary" not in text
        assert MASK in text


def test_odd_values_are_json() -> None:
    """What JSON has no word for becomes null or text: numbers that are none, paths, keys that are no strings."""
    assert strict({"a": float("nan"), "b": [float("inf"), 1.5], Path("c"): Path("/x"), 3: EndpointState.READY}) == {
        "a": None, "b": [None, 1.5], "c": "/x", "3": "ready",
    }  # fmt: skip
    assert strict(None) is None


@pytest.mark.parametrize("name", VALUES)
def test_which_values_are_tables(name: str) -> None:
    """Lists have rows, also when they are empty; everything else has none."""
    found = rows(VALUES[name])
    if not name.endswith("List"):
        assert found is None
        return
    assert found == list(getattr(VALUES[name], PROMISED[name].split()[0]))
    empty = type(VALUES[name])(**{field.name: () for field in dataclasses.fields(VALUES[name])})
    assert rows(empty) == []


@pytest.mark.parametrize(
    "value", [results.Transfer((), 0, 0, 0.0), types.LogLines(()), results.Plan(()), JOB, None, "x"]
)
def test_what_is_no_table(value: Any) -> None:
    """Tuples of plain strings, empty or not, and values of other rooms are no tables."""
    assert rows(value) is None
