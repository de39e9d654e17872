"""Rented pods in the registry: entered, moved, dropped when they are proven gone, and never forgotten before."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from podlab import settings
from podlab.commands.drive import drive
from podlab.errors import AlreadyExists, BadArgument, HostKeyChanged, NotFound, Unreachable
from podlab.lab import pods, rented
from podlab.lab.following import FollowingTransport
from podlab.lab.launches import Launch, all_launches, find
from podlab.lab.workspace import Workspace
from podlab.ledger import Ledger
from podlab.renting import Policy, Rental, RentalState
from podlab.transport.base import Forward, Process
from podlab.types import Pod, SshAddress
from tests.audiences import Silent
from tests.lab.rentals import ask


def asked(name: str = "lab", id: str = "0123456789ab") -> Launch:
    Ledger().append("rent.ask", id, **ask(0.4, Policy(), name=name, order=f"{name}-00000000"))
    found = find(Ledger(), id)
    assert found is not None
    return found


def rental(port: int | None = 40000, host: str = "203.0.113.7") -> Rental:
    return Rental(
        "r1", "lab-00000000", RentalState.RUNNING, ssh_host=host if port else None, ssh_port=port, has_runtime=True
    )


def end(launch: Launch) -> None:
    """Close its row: the provider said absent twice, a minute apart."""
    for at in (2_000_000_000.0, 2_000_000_100.0):
        Ledger(now=lambda at=at: at).append("rent.absent", launch.id)  # type: ignore[misc]
    Ledger().append("rent.ended", launch.id)


def test_a_pod_is_entered_before_it_has_an_address_and_gets_one_later(workspace: Workspace) -> None:
    launch = asked()

    before = rented.keep(launch, rental(None))
    after = rented.moved(workspace, launch, rental())

    assert (before.address, before.rental_id, before.provider) == (None, "r1", "sandbox")
    assert after.address == SshAddress("203.0.113.7", "root", 40000, (str(rented.ssh_key()),))
    assert pods.find("lab") == after
    assert rented.moved(workspace, launch, rental(None)) == after, "an address that is missing for a while is kept"


def test_a_name_is_kept_through_a_rename_and_a_move(workspace: Workspace) -> None:
    launch = asked()
    rented.keep(launch, rental())
    pods.rename("lab", "bench")
    pods.keep_models_path(pods.find("bench"), "/workspace/models")

    rented.moved(workspace, launch, rental(40001))

    assert [pod.name for pod in pods.all_pods()] == ["local", "bench"]
    assert pods.find("bench").models_path == "/workspace/models"
    (known,) = all_launches(Ledger())
    assert known.name == "bench", "who tends it says so, and its old name is free"


def test_a_pod_is_opened_by_the_key_of_this_home_wherever_that_was_before(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    rented.keep(asked(), rental())
    settings.home().rename(tmp_path / "moved")
    monkeypatch.setenv("PODLAB_HOME", str(tmp_path / "moved"))

    address = pods.find("lab").address

    assert address is not None
    assert address.identity_files == (str(tmp_path / "moved" / "ssh" / "id_ed25519"),)
    assert Path(address.identity_files[0]).exists()


def test_a_name_that_is_another_pods_is_refused(workspace: Workspace) -> None:
    rented.keep(asked(), rental())

    with pytest.raises(AlreadyExists):
        rented.keep(asked(id="ba9876543210"), rental())


def test_what_may_be_billed_is_not_forgotten(workspace: Workspace) -> None:
    launch = asked()
    pod = rented.keep(launch, rental())

    with pytest.raises(BadArgument, match="may be billed") as refused:
        drive(pods.remove(workspace, pod), Silent())

    assert "terminate" in refused.value.hint
    assert rented.drop_ended(workspace, Ledger()) == []
    end(launch)
    assert rented.drop_ended(workspace, Ledger()) == ["lab"]
    assert [pod.name for pod in pods.all_pods()] == ["local"]


def test_what_is_meant_for_a_pod_that_is_gone_does_not_run_on_this_computer(workspace: Workspace) -> None:
    """A brake ends a pod at any time; the next command may be `pod run rm -r data`."""
    launch = asked()
    rented.keep(launch, rental())
    pods.use(workspace, "lab")
    end(launch)

    rented.drop_ended(workspace, Ledger())

    assert settings.value("pod") == ("lab", "file")
    with pytest.raises(NotFound, match="no pod 'lab', and config.toml says that it is the one in use"):
        pods.meant(Workspace.open(), None)


def test_the_key_is_made_once_and_opens_what_its_public_half_is_put_into() -> None:
    path = rented.ssh_key()
    text = path.read_text()

    assert rented.ssh_key().read_text() == text
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    shown = subprocess.run(["ssh-keygen", "-y", "-f", str(path)], capture_output=True, text=True, check=True).stdout
    assert shown.split()[:2] == rented.public_key().split()[:2]


def test_a_public_half_that_was_lost_is_made_again_from_the_key() -> None:
    public = rented.public_key()
    os.unlink(rented.ssh_key().with_suffix(".pub"))

    assert rented.public_key() == public


def test_what_is_not_rented_has_no_launch(workspace: Workspace) -> None:
    from podlab.lab.market import Market

    with pytest.raises(BadArgument, match="is not rented"):
        rented.launch_of(Market.of(workspace), pods.find("local"))
    with pytest.raises(NotFound):
        rented.pod_of(asked())


class Way:
    """A way to an address, at which somebody is or nobody."""

    def __init__(self, alive: set[str], address: SshAddress | None) -> None:
        assert address is not None
        self.alive, self.at, self.moves = alive, address.host, 0

    def start(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> Process:
        if self.at not in self.alive:
            raise Unreachable(f"nobody is at {self.at}")
        return self.at  # type: ignore[return-value]  # who answered

    def open_port(self, remote_port: int, *, local_port: int = 0) -> Forward:
        raise NotImplementedError

    def close(self) -> None:
        pass

    def move(self, address: SshAddress) -> None:
        self.at, self.moves = address.host, self.moves + 1


def at(host: str | None) -> Pod:
    return Pod("lab", "id", "sandbox", None if host is None else SshAddress(host), rental_id="r1")


def test_a_pod_that_does_not_answer_is_looked_for_once_and_reached_where_it_is() -> None:
    questions: list[Pod] = []

    def where(pod: Pod) -> Pod | None:
        questions.append(pod)
        return at("new")

    transport = FollowingTransport(at("old"), lambda pod: Way({"new"}, pod.address), where)

    assert transport.start(["true"]) == "new"  # type: ignore[comparison-overlap]
    assert transport.start(["true"]) == "new"  # type: ignore[comparison-overlap]
    assert len(questions) == 1


def test_a_pod_that_is_where_it_was_and_silent_is_unreachable() -> None:
    questions: list[Pod] = []
    transport = FollowingTransport(at("old"), lambda pod: Way(set(), pod.address), questions.append)

    for _ in range(3):
        with pytest.raises(Unreachable, match="nobody is at old"):
            transport.start(["true"])
    assert len(questions) == 1, "commands that find nobody come in crowds; the provider is asked once"


def test_a_pod_without_an_address_says_why_and_is_reached_when_it_has_one() -> None:
    transport = FollowingTransport(at(None), lambda pod: Way({"new"}, pod.address), lambda pod: None)

    with pytest.raises(Unreachable, match="it is stopped, or still on its way"):
        transport.start(["true"])
    transport.moved(at("new"))
    assert transport.start(["true"]) == "new"  # type: ignore[comparison-overlap]


def test_a_rented_pod_with_new_host_keys_is_not_to_be_removed_but_looked_at() -> None:
    class Anew(Way):
        def start(
            self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None
        ) -> Process:
            raise HostKeyChanged("lab", "203.0.113.7", "SHA256:before", "SHA256:now")

    transport = FollowingTransport(at("old"), lambda pod: Anew(set(), pod.address), lambda pod: None)

    with pytest.raises(HostKeyChanged) as caught:
        transport.start(["true"])
    assert "podlab pod wait lab" in caught.value.hint and "remove" not in caught.value.hint
