"""Pods: adopting, first contact, the one in use, checks that never hang."""

from __future__ import annotations

import socket
import time

import pytest

from podlab import settings
from podlab.commands.drive import drive
from podlab.errors import AlreadyExists, BadArgument, BadSettings, HostKeyChanged, HostKeyUnknown, NotFound, Refused
from podlab.lab import pods
from podlab.lab.workspace import Workspace
from podlab.ledger import Ledger
from podlab.types import PodState
from tests.audiences import Silent
from tests.machines import Sshd


def address(sshd: Sshd) -> str:
    return f"ssh {sshd.user}@{sshd.host} -p {sshd.port} -i {sshd.identity}"


def add(workspace: Workspace, sshd: Sshd, audience: Silent, host_key: str | None = None) -> pods.Pod:
    work = pods.add(workspace, "box", address(sshd), models_path=None, host_key=host_key)
    return drive(work, audience)[0]


def test_local_always_exists(workspace: Workspace) -> None:
    """On a fresh machine there is one pod, it is in use, and it answers."""
    (status,) = pods.check(workspace, pods.all_pods())
    assert (status.pod.name, status.state, status.in_use) == ("local", PodState.REACHABLE, True)
    with pytest.raises(BadArgument):
        pods.remove(workspace, pods.find("local"))


def test_first_contact_refused_where_nobody_answers(workspace: Workspace, sshd: Sshd) -> None:
    """Nobody to ask: the error shows the fingerprint, and nothing was written."""
    with pytest.raises(HostKeyUnknown, match="SHA256:"):
        add(workspace, sshd, Silent(answer=None))
    assert [pod.name for pod in pods.all_pods()] == ["local"]


def test_first_contact_asks_and_pins(workspace: Workspace, sshd: Sshd) -> None:
    """A yes pins the key: the next contact does not ask. The ledger says that the machine was adopted."""
    audience = Silent(answer=True)
    pod = add(workspace, sshd, audience)
    (asked,) = audience.asked
    assert sshd.fingerprint() in asked.question and asked.kind == "host_key"
    assert pods.check(workspace, [pod])[0].state is PodState.REACHABLE
    assert [entry.verb for entry in Ledger().entries()] == ["pod.adopt"]
    with pytest.raises(AlreadyExists):
        add(workspace, sshd, audience)


def test_a_no_is_a_no(workspace: Workspace, sshd: Sshd) -> None:
    """A refused key is not pinned, and --yes does not stand for it."""
    with pytest.raises(Refused):
        add(workspace, sshd, Silent(answer=False))
    with pytest.raises(HostKeyUnknown):
        drive(pods.add(workspace, "box", address(sshd), models_path=None, host_key=None), Silent(), yes=True)


def test_fingerprint_given_in_advance(workspace: Workspace, sshd: Sshd) -> None:
    """The right fingerprint asks nobody; a wrong one is a hard stop."""
    with pytest.raises(Refused, match="Nothing was sent"):
        add(workspace, sshd, Silent(answer=True), host_key="SHA256:" + "A" * 43)
    audience = Silent(answer=None)
    add(workspace, sshd, audience, host_key=sshd.fingerprint())
    assert audience.asked == []


def test_changed_key_is_a_hard_stop(workspace: Workspace, sshd: Sshd) -> None:
    """Another key than the pinned one is never accepted, and is said of the pod in a list."""
    pod = add(workspace, sshd, Silent(), host_key=sshd.fingerprint())
    sshd.change_host_key()
    fresh = Workspace.open()
    with pytest.raises(HostKeyChanged):
        drive(pods.reach(fresh, pod), Silent(answer=True))
    (status,) = pods.check(fresh, [pod])
    assert status.state is PodState.UNREACHABLE and "pinned" in status.detail
    fresh.close()


def test_unreachable_within_the_deadline(workspace: Workspace) -> None:
    """A machine that takes connections and says nothing does not hold up the list."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        settings.config_path().write_text(f'[pods.mute]\nid = "0123456789ab"\nhost = "127.0.0.1"\nport = {port}\n')
        workspace.override("deadline_s", 1.0)
        began = time.monotonic()
        states = {status.pod.name: status.state for status in pods.check(workspace, pods.all_pods())}
        assert time.monotonic() - began < 1.0 * 3
    assert states == {"local": PodState.REACHABLE, "mute": PodState.UNREACHABLE}


def test_rename_keeps_what_it_is(workspace: Workspace, sshd: Sshd) -> None:
    """A renamed pod keeps id, key and its being in use; the old name is gone."""
    pod = add(workspace, sshd, Silent(), host_key=sshd.fingerprint())
    pods.use(workspace, "box")
    renamed = pods.rename("box", "attic")
    workspace.override("pod", None)
    assert (renamed.id, pods.meant(workspace, None).name) == (pod.id, "attic")
    assert pods.check(workspace, [renamed])[0].state is PodState.REACHABLE
    with pytest.raises(NotFound, match="box"):
        pods.find("box")


def test_remove_forgets_the_key(workspace: Workspace, sshd: Sshd) -> None:
    """Removing a pod takes its pinned key along, and the setting that made it the one in use."""
    pod = add(workspace, sshd, Silent(), host_key=sshd.fingerprint())
    pods.use(workspace, "box")
    pods.remove(workspace, pod)
    workspace.override("pod", None)
    assert pods.meant(workspace, None).name == "local"
    with pytest.raises(HostKeyUnknown):
        add(workspace, sshd, Silent())


@pytest.mark.parametrize("name", ["", "-x", "a b", "../x", "x" * 64, "a/b", "ä"])
def test_bad_names(workspace: Workspace, name: str) -> None:
    """A name that could be an option or a path is refused before anything is reached."""
    with pytest.raises(BadArgument):
        drive(pods.add(workspace, name, "user@host.invalid", models_path=None, host_key=None), Silent())


def test_wrong_config_names_the_field(workspace: Workspace) -> None:
    """A broken entry in config.toml is an error that names it."""
    settings.config_path().write_text('[pods.x]\nhost = 3\nid = "a"\n')
    with pytest.raises(BadSettings, match=r"pods\.x.*host"):
        pods.all_pods()
