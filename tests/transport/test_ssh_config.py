"""How an address and ~/.ssh/config become a route, and which keys are offered in which order."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest

from podlab.errors import BadArgument, BadSettings
from podlab.transport.identities import offers, public_blob
from podlab.transport.ssh import _lookup
from podlab.transport.ssh_config import Route, read_config, resolve
from podlab.types import SshAddress
from tests import machines


def route(config: str, address: SshAddress) -> Route:
    return resolve(address, config, _lookup, Path.home() / ".ssh")


def test_the_config_fills_in_what_the_address_leaves_open() -> None:
    found = route(
        "Host box\n HostName 10.0.0.7\n Port 2200\n User her\n IdentityFile ~/k\n", SshAddress("box", alias="box")
    )
    assert (found.host, found.port, found.user) == ("10.0.0.7", 2200, "her")
    assert found.explicit_identities == (Path.home() / "k",)
    assert found.default_identities == ()
    assert not found.identities_only


def test_the_address_wins() -> None:
    config = "Host *\n Port 2200\n User her\n IdentityFile ~/k\n ProxyCommand relay %h %p %r\n"
    found = route(config, SshAddress("box", "me", 22, ("~/mine",)))
    assert (found.port, found.user, found.explicit_identities) == (22, "me", (Path.home() / "mine",))
    assert found.identities_only
    assert found.proxy == ("relay", "box", "22", "me")


def test_without_a_config() -> None:
    found = route("", SshAddress("box"))
    assert (found.host, found.port) == ("box", 22)
    assert [path.name for path in found.default_identities] == ["id_ed25519", "id_ecdsa", "id_rsa"]


def test_jumps() -> None:
    jumps = route("Host box\n ProxyJump her@one:2200,[::1]:22,two\n", SshAddress("box")).jumps
    assert [(hop.user, hop.host, hop.port) for hop in jumps] == [
        ("her", "one", 2200), (None, "::1", 22), (None, "two", None),
    ]  # fmt: skip
    assert route("Host box\n ProxyJump none\n", SshAddress("box")).jumps == ()
    assert route("", SshAddress("box", proxy_jump="one")).jumps == (SshAddress("one"),)


def test_a_command_is_an_argv() -> None:
    assert route("ProxyCommand relay 'a b' %h;id\n", SshAddress("box")).proxy == ("relay", "a b", "box;id")
    with pytest.raises(BadSettings):
        route("ProxyCommand relay 'open\n", SshAddress("box"))


@pytest.mark.parametrize(
    "address",
    [SshAddress("a;b"), SshAddress("-x"), SshAddress("box", "a b"), SshAddress("box", "-l"), SshAddress("box", "$(x)"),
     SshAddress("box", "a\nPort 1"), SshAddress("box", port=0), SshAddress("box", port=65536)],
)  # fmt: skip
def test_names_that_are_refused(address: SshAddress) -> None:
    with pytest.raises(BadArgument):
        route("", address)


def test_includes(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("Host a\n  Include d/*\n  User inside\nHost b\n  User b\n")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "1").write_text("Port 2201\nHost c\n  Port 2202\n")
    text = read_config(tmp_path / "config")
    assert route(text, SshAddress("a")).user == "inside"
    assert route(text, SshAddress("a")).port == 2201
    assert route(text, SshAddress("c")).port == 2202
    assert route(text, SshAddress("b")).user == "b"
    assert read_config(tmp_path / "missing") == ""
    (tmp_path / "circle").write_text(f"Include {tmp_path / 'circle'}\n")
    with pytest.raises(BadSettings, match="too deeply"):
        read_config(tmp_path / "circle")


def make(path: Path, **options: str) -> bytes:
    machines.make_key(path, **options)
    return base64.b64decode(path.with_name(path.name + ".pub").read_text().split()[1])


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_the_public_half_of_a_locked_key(tmp_path: Path, kind: str) -> None:
    blob = make(tmp_path / "key", kind=kind, passphrase="open sesame")
    assert public_blob(tmp_path / "key") == blob
    (tmp_path / "key.pub").unlink()
    assert public_blob(tmp_path / "key") == blob


def test_the_public_half_of_what_is_no_key(tmp_path: Path) -> None:
    assert public_blob(tmp_path / "missing") is None
    for text in ("", "hello", "-----BEGIN X-----\nAAAA\n-----END X-----\n", "\0" * 100):
        (tmp_path / "x").write_text(text)
        assert public_blob(tmp_path / "x") is None
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-m", "PEM", "-N", "", "-f", tmp_path / "pem"], check=True)
    (tmp_path / "pem.pub").unlink()
    assert public_blob(tmp_path / "pem") is None


def test_the_order_of_keys(tmp_path: Path) -> None:
    named, default, other = tmp_path / "named", tmp_path / "id_ed25519", b"another one of the agent's"
    blobs = {path: make(path) for path in (named, default)}
    agent = {other: "other", blobs[named]: "named, by the agent"}

    def order(route: Route) -> list[object]:
        return [offer.agent_key or offer.path for offer in offers(route, agent)]

    where = ("box", 22, "me")
    assert order(Route(*where, explicit_identities=(named,))) == ["named, by the agent", "other"]
    assert order(Route(*where, explicit_identities=(named,), identities_only=True)) == ["named, by the agent"]
    assert order(Route(*where, default_identities=(default,))) == ["other", "named, by the agent", default]
    assert order(Route(*where, default_identities=(tmp_path / "missing",), identities_only=True)) == []
