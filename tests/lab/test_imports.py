"""Machines that other tools know: each tool's own file, read as that tool writes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from podlab import secrets
from podlab.commands.drive import drive
from podlab.commands.parsing import parse
from podlab.commands.results import ImportList
from podlab.commands.table import find
from podlab.errors import AlreadyExists, BadArgument, NotFound
from podlab.lab import imports, pods
from podlab.lab.workspace import Workspace
from tests.audiences import Silent

PI = {
    "pods": {
        "dc1": {
            "ssh": "ssh root@86.38.238.55 -p 2222 -i ~/.ssh/pi",
            "gpus": [{"id": 0, "name": "NVIDIA H100 80GB HBM3", "memory": "81559 MiB"}],
            "models": {"qwen": {"model": "Qwen/Qwen2.5-Coder-32B-Instruct", "port": 8001, "gpu": [0], "pid": 4242}},
            "modelsPath": "/mnt/sfs",
            "vllmVersion": "release",
        },
        "odd": {"ssh": "ssh -o ProxyCommand=nc root@10.0.0.9", "gpus": [], "models": {}},
    },
    "active": "dc1",
}
LLORCH = """
[general]
log_level = "info"
[remote]
default_host = "mac"
[remote.hosts.mac]
user = "vince"
host = "mac.home.arpa"
identity_file = "~/.ssh/id_ed25519"
repo_path = "~/Projects/llama-orch"
[remote.hosts.workstation]
host = "workstation.home.arpa"
"""
SSH = """
Host gpu-a gpu-b  # the two in the cellar
    User me
Host *.example !bad gpu-c
Include more
Match host nothing
    Port 1
"""


@pytest.fixture
def workspace() -> Workspace:
    return Workspace.open()


def carry_out(workspace: Workspace, *words: str) -> tuple[ImportList, int, Silent]:
    verb, rest = find(["pod", "import", *words])
    audience = Silent()
    outcome = drive(verb.handler(workspace, parse(verb, rest, magic=False).args), audience)
    return outcome.value, outcome.exit_code, audience


def test_pi_s_pods_come_with_their_address_key_and_models_path(tmp_path: Path, workspace: Workspace) -> None:
    path = tmp_path / "pods.json"
    path.write_text(json.dumps(PI))
    value, code, audience = carry_out(workspace, "pi", "--file", str(path))
    assert [(row.name, row.state) for row in value.machines] == [("dc1", "added"), ("odd", "refused")]
    assert code == 1, "a machine that was left out is no success"
    assert "podlab model start Qwen/Qwen2.5-Coder-32B-Instruct --name qwen --on dc1" in value.machines[0].detail
    pod = pods.find("dc1")
    assert pod.address is not None
    assert (pod.address.host, pod.address.user, pod.address.port) == ("86.38.238.55", "root", 2222)
    assert (pod.address.identity_files, pod.models_path) == (("~/.ssh/pi",), "/mnt/sfs")
    assert any("podlab pod use dc1" in notice.text for notice in audience.notices)

    again, _, _ = carry_out(workspace, "pi", "dc1", "--file", str(path))
    assert [row.state for row in again.machines] == ["there"]
    assert pods.find("dc1").id == pod.id


def test_llorch_s_hosts_and_the_aliases_of_ssh_are_found(tmp_path: Path, workspace: Workspace) -> None:
    (tmp_path / "config.toml").write_text(LLORCH)
    value, code, _ = carry_out(workspace, "llorch", "--file", str(tmp_path / "config.toml"))
    assert (code, [row.name for row in value.machines]) == (0, ["mac", "workstation"])
    address = pods.find("mac").address
    assert address is not None
    assert (address.user, address.identity_files) == ("vince", ("~/.ssh/id_ed25519",))

    (tmp_path / "config").write_text(SSH)
    (tmp_path / "more").write_text("Host gpu-d\n")
    value, code, _ = carry_out(workspace, "ssh", "gpu-a", "gpu-d", "--file", str(tmp_path / "config"))
    assert (code, [row.name for row in value.machines]) == (0, ["gpu-a", "gpu-d"])
    found = imports.read("ssh", tmp_path / "config")
    assert [machine.name for machine in found.machines] == ["gpu-a", "gpu-b", "gpu-c", "gpu-d"]


def test_autopod_s_key_stays_where_it_is_unless_asked_for(tmp_path: Path, workspace: Workspace) -> None:
    key = "rpa_ABCDEFGHIJKLMNOP0123456789"
    config = {"providers": {"runpod": {"api_key": key}}, "defaults": {"gpu_preferences": ["RTX A40"]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "pods.json").write_text(json.dumps({"abc123": {"pod_host_id": "abc123-64410"}}))
    value, code, audience = carry_out(workspace, "autopod", "--file", str(tmp_path / "config.json"))
    assert code == 0
    assert any("abc123" in note for note in value.notes)
    assert secrets.names() == []
    assert any("--with-keys" in notice.text for notice in audience.notices)
    carry_out(workspace, "autopod", "--with-keys", "--file", str(tmp_path / "config.json"))
    kept = secrets.find("RUNPOD_API_KEY")
    assert kept is not None
    assert kept.reveal() == key
    assert key not in repr(value) + repr(audience.notices)


@pytest.mark.parametrize(
    "text",
    [
        '{"pods": {"a": {"ssh": 5}}}',
        '{"pods":' * 9999,
        "[]",
        "{",
        '{"pods": {"a": {}}}',
        '{"pods": {"a": 3}}',
        '{"pods": []}',
        "\0",
    ],
)
def test_what_is_no_such_file_is_refused_by_name(tmp_path: Path, workspace: Workspace, text: str) -> None:
    path = tmp_path / "pods.json"
    path.write_text(text)
    with pytest.raises(BadArgument, match=r"pods\.json is not a file of pi"):
        carry_out(workspace, "pi", "--file", str(path))
    assert [pod.name for pod in pods.all_pods()] == ["local"]


def test_a_name_that_another_pod_has_is_refused_and_dry_run_writes_nothing(
    tmp_path: Path, workspace: Workspace
) -> None:
    path = tmp_path / "pods.json"
    path.write_text(json.dumps({"pods": {"dc1": {"ssh": "ssh a@b.example"}}}))
    verb, rest = find(["pod", "import", "pi", "--dry-run", "--file", str(path)])
    plan = drive(verb.handler(workspace, parse(verb, rest, magic=False).args), Silent()).value
    assert plan.would == ("add dc1 (ssh a@b.example)",)
    assert [pod.name for pod in pods.all_pods()] == ["local"]
    carry_out(workspace, "pi", "--file", str(path))
    path.write_text(json.dumps({"pods": {"dc1": {"ssh": "ssh a@elsewhere.example"}}}))
    value, code, _ = carry_out(workspace, "pi", "--file", str(path))
    assert (value.machines[0].state, code) == ("refused", 1)
    with pytest.raises(AlreadyExists):
        pods.adopt_all([pods.find("dc1")])
    with pytest.raises(NotFound, match="nowhere"):
        carry_out(workspace, "pi", "--file", str(tmp_path / "nowhere.json"))
    with pytest.raises(NotFound, match="knows no machine 'x'"):
        carry_out(workspace, "pi", "x", "--file", str(path))
