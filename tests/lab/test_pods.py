"""Pods: adopting, first contact, the one in use, checks that never hang."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from podlab import settings
from podlab.commands.drive import drive
from podlab.durable import locked
from podlab.errors import (
    AlreadyExists,
    BadArgument,
    BadSettings,
    HostKeyChanged,
    HostKeyUnknown,
    NotFound,
    Refused,
    Unreachable,
)
from podlab.lab import pods
from podlab.lab.workspace import Workspace
from podlab.ledger import Ledger
from podlab.transport.host_keys import HostKeys
from podlab.transport.kept_place import Place
from podlab.types import Endpoint, EndpointState, PodState
from tests.audiences import Silent
from tests.machines import Sshd, free_port


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
        drive(pods.remove(workspace, pods.find("local")), Silent())


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
        assert time.monotonic() - began < 8
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
    drive(pods.remove(workspace, pod), Silent())
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


ENTRY = '[pods.{name}]\nid = "{id}"\nhost = "127.0.0.1"\nport = {port}\n'
RACER = """
import sys
from podlab import settings
from podlab.commands.drive import drive
from podlab.errors import PodlabError
from podlab.lab import pods
from podlab.lab.workspace import Workspace
from tests.audiences import Silent

change = settings.update_config
def told(work):
    print("has looked", flush=True)
    change(work)
settings.update_config = told
verb, *names = sys.argv[1:]
try:
    if verb == "rename":
        pods.rename(*names)
    elif verb == "remove":
        drive(pods.remove(Workspace.open(), pods.find(*names)), Silent())
    else:
        pods._write([pods.Pod(names[0], "fedcba987654", "ssh", pods.SshAddress("elsewhere"))])
    print("done")
except PodlabError as error:
    print(type(error).__name__)
"""


def race(*calls: Sequence[str]) -> list[str]:
    """What each process ended with; all had looked at config.toml before any of them changed it."""
    command = [sys.executable, "-c", RACER]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "PODLAB_KEEPER": "0"}
    with locked(settings.home() / "config.lock"):
        racers = [
            subprocess.Popen([*command, *call], stdout=subprocess.PIPE, text=True, env=environment) for call in calls
        ]
        for racer in racers:
            assert racer.stdout is not None and racer.stdout.readline() == "has looked\n"
    return [racer.communicate(timeout=30)[0].strip() for racer in racers]


def test_two_kernels_rename_the_same_pod(workspace: Workspace) -> None:
    """One of them wins, the other is told that the pod is not there any more; its entry stays whole."""
    settings.config_path().write_text(ENTRY.format(name="box", id="0123456789ab", port=22))
    said = race(("rename", "box", "attic"), ("rename", "box", "cellar"))
    assert sorted(said) == ["NotFound", "done"]
    assert [pod.name for pod in pods.all_pods()][1:] == [("attic", "cellar")[said.index("done")]]


def test_two_pods_renamed_to_the_same_name(workspace: Workspace) -> None:
    """The second is refused, and neither pod is lost."""
    ids = {"box": "0123456789ab", "crate": "ba9876543210"}
    settings.config_path().write_text("".join(ENTRY.format(name=name, id=ids[name], port=22) for name in ids))
    said = race(("rename", "box", "attic"), ("rename", "crate", "attic"))
    assert sorted(said) == ["AlreadyExists", "done"]
    assert {pod.id for pod in pods.all_pods()} == {"local", *ids.values()}


def test_a_rename_and_an_add_to_the_same_name(workspace: Workspace) -> None:
    """Neither writes over the other's entry."""
    settings.config_path().write_text(ENTRY.format(name="box", id="0123456789ab", port=22))
    said = race(("rename", "box", "attic"), ("add", "attic"))
    assert sorted(said) == ["AlreadyExists", "done"]
    assert "0123456789ab" in [pod.id for pod in pods.all_pods()]


def test_two_kernels_remove_the_same_pod(workspace: Workspace) -> None:
    """It is forgotten once, and the ledger says so once."""
    settings.config_path().write_text(ENTRY.format(name="box", id="0123456789ab", port=22))
    assert sorted(race(("remove", "box"), ("remove", "box"))) == ["NotFound", "done"]
    assert [entry.verb for entry in Ledger().entries()] == ["pod.forget"]


def test_a_keeper_that_fails_does_not_keep_the_key(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host key and what was seen are forgotten although the keeper cannot be told, which is said."""
    settings.config_path().write_text(ENTRY.format(name="box", id="0123456789ab", port=22))
    key = "AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43
    HostKeys().pin("0123456789ab", "ssh-ed25519", key)
    workspace.store.saw_pod("0123456789ab", 1.0)
    monkeypatch.setenv("PODLAB_KEEPER", "1")
    Place.here().socket_path.symlink_to("/")  # not a private folder: no keeper that could be asked
    audience = Silent()
    drive(pods.remove(workspace, pods.find("box")), audience)
    assert HostKeys().pinned("0123456789ab") is None and workspace.store.pod_seen("0123456789ab") is None
    assert [pod.name for pod in pods.all_pods()] == ["local"]
    assert "keeper" in audience.notices[0].text


def test_what_was_seen_has_the_pods_new_name(workspace: Workspace) -> None:
    """An endpoint of a renamed pod that does not answer is listed under the name of now, the reason without it."""
    from podlab.lab import endpoints

    settings.config_path().write_text(ENTRY.format(name="box", id="0123456789ab", port=free_port()))
    seen = Endpoint("0" * 32, "tiny", "box", "tiny", "llamacpp", EndpointState.READY)
    workspace.store.saw_endpoints("0123456789ab", [seen], 1.0)
    pod = pods.rename("box", "attic")
    ((endpoint,), _) = endpoints.listing(workspace, [pod])
    assert (endpoint.pod, endpoint.state) == ("attic", EndpointState.UNREACHABLE)


def test_why_a_pod_does_not_answer(workspace: Workspace) -> None:
    """Its name once, no number of an error, and what to do next."""
    settings.config_path().write_text(ENTRY.format(name="box", id="0123456789ab", port=free_port()))
    (status,) = pods.check(workspace, [pods.find("box")])
    assert status.detail == "nothing listens there."
    with pytest.raises(Unreachable) as caught:
        pods.refuse_silent([status])
    assert caught.value.message == "What runs on box is unknown: nothing listens there."
    assert "podlab pod show box" in caught.value.hint
    with pytest.raises(Unreachable) as raw:
        drive(pods.reach(workspace, pods.find("box")), Silent())
    assert raw.value.message == "Pod 'box': nothing listens there." and "Is the machine up" in raw.value.hint


def test_an_unknown_pod_in_use_says_who_chose_it(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """PODLAB_POD names no pod: what needs one fails and says so, and the list says it too."""
    from argparse import Namespace

    from podlab.commands.handlers import pod as handlers

    monkeypatch.setenv("PODLAB_POD", "nope")
    with pytest.raises(NotFound, match=r"'nope', and PODLAB_POD says") as caught:
        pods.meant(workspace, None)
    assert "unset it" in caught.value.hint
    audience = Silent()
    drive(handlers.list_pods(workspace, Namespace(all=False, limit=None)), audience)
    assert "PODLAB_POD" in audience.notices[0].text


def test_this_computer_keeps_its_name(workspace: Workspace) -> None:
    """What is said about adding, renaming and removing `local` is true of it, with --dry-run too."""
    from argparse import Namespace

    from podlab.commands.handlers import pod as handlers

    settings.config_path().write_text(ENTRY.format(name="box", id="0123456789ab", port=22))
    add = Namespace(name="local", address=["me@x"], dry_run=True, models_path=None, host_key=None)
    for work, hint in (
        (handlers.add(workspace, add), "podlab pod use local"),
        (handlers.rename(workspace, Namespace(name="box", new_name="local", dry_run=True)), "podlab pod use local"),
        (handlers.rename(workspace, Namespace(name="local", new_name="x", dry_run=True)), "were added"),
        (handlers.remove(workspace, Namespace(name="local", dry_run=True)), "podlab pod use NAME"),
    ):
        with pytest.raises((AlreadyExists, BadArgument)) as caught:
            drive(work, Silent())
        assert hint in caught.value.hint and "remove" not in caught.value.hint


def test_a_port_is_checked_before_the_pod_is_reached(workspace: Workspace) -> None:
    """What cannot be a port is refused although the pod does not answer."""
    from argparse import Namespace

    from podlab.commands.handlers import pod as handlers

    settings.config_path().write_text(ENTRY.format(name="box", id="0123456789ab", port=free_port()))
    for port, local_port in (("abc", None), ("80", 99999)):
        args = Namespace(on="box", port=port, local_port=local_port, dry_run=False)
        with pytest.raises(BadArgument, match="is not a port"):
            drive(handlers.tunnel_open(workspace, args), Silent())
