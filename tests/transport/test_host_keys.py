"""Which host keys are trusted, and that nothing else ever is."""

from __future__ import annotations

import base64
import hmac
import os
import stat
import struct
import subprocess
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from podlab.errors import BadArgument, HostKeyChanged, HostKeyUnknown
from podlab.transport.host_keys import HostKey, HostKeys, KnownHost, checked_fingerprint


def key(number: int, kind: str = "ssh-ed25519") -> HostKey:
    blob = struct.pack(">I", len(kind)) + kind.encode() + struct.pack(">I", 32) + bytes([number]) * 32
    return HostKey(kind, base64.b64encode(blob).decode())


A, B, RSA = key(1), key(2), key(3, "ssh-rsa")


@pytest.fixture
def user_file(own_home: Path) -> Path:
    path = own_home / ".ssh" / "known_hosts"
    path.parent.mkdir()
    path.touch()
    return path


def verify(shown: HostKey, *, host: str = "box", port: int = 22, expected: str | None = None) -> None:
    HostKeys().verify("pod", "id-1", host, port, shown.type, shown.base64, expected=expected)


def test_nobody_vouches() -> None:
    with pytest.raises(HostKeyUnknown) as caught:
        verify(A)
    assert (caught.value.fingerprint, caught.value.key_base64) == (A.fingerprint, A.base64)
    assert HostKeys().pinned("id-1") is None


def test_a_pin_decides_alone(user_file: Path) -> None:
    HostKeys().pin("id-1", A.type, A.base64)
    user_file.write_text(f"box {B.type} {B.base64}\n")
    verify(A)
    for expected in (None, B.fingerprint):
        with pytest.raises(HostKeyChanged) as caught:
            verify(B, expected=expected)
    assert (caught.value.expected, caught.value.shown) == (A.fingerprint, B.fingerprint)


def test_pins_belong_to_one_pod_and_can_be_forgotten() -> None:
    keys = HostKeys()
    keys.pin("id-1", A.type, A.base64)
    keys.pin("id-10", B.type, B.base64)
    keys.pin("id-1", RSA.type, RSA.base64)
    assert (keys.pinned("id-1"), keys.pinned("id-10")) == (RSA, B)
    assert keys.key_types("id-1", "box", 22) == ("ssh-rsa",)
    keys.forget("id-1")
    keys.forget("id-1")
    assert (keys.pinned("id-1"), keys.pinned("id-10")) == (None, B)


def test_the_file_is_private_and_openssh_reads_it() -> None:
    HostKeys().pin("id-1", A.type, A.base64)
    path = Path(os.environ["PODLAB_HOME"]) / "known_hosts"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = subprocess.run(["ssh-keygen", "-F", "podlab-id-1", "-f", str(path)], capture_output=True, text=True)
    assert found.returncode == 0
    assert A.base64 in found.stdout


def test_the_expected_fingerprint() -> None:
    with pytest.raises(HostKeyChanged):
        verify(A, expected=B.fingerprint)
    assert HostKeys().pinned("id-1") is None
    verify(A, expected=A.fingerprint + "=")
    assert HostKeys().pinned("id-1") == A


@pytest.mark.parametrize("text", ["", "SHA256:", "MD5:aa:bb", "SHA256:" + "x" * 42, "sha256:" + "x" * 43])
def test_what_is_no_fingerprint(text: str) -> None:
    with pytest.raises(BadArgument):
        checked_fingerprint(text)


def hashed(name: str) -> str:
    salt = os.urandom(20)
    digest = hmac.new(salt, name.encode(), "sha1").digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


@pytest.mark.parametrize(
    "field,port",
    [("box", 22), ("other,BOX", 22), ("b?x", 22), ("*", 22), ("*,!bad", 22), ("[box]:2200", 2200), ("[b*]:2200", 2200),
     (hashed("box"), 22), (hashed("[box]:2200"), 2200)],
)  # fmt: skip
def test_entries_of_the_user_that_speak_about_it(user_file: Path, field: str, port: int) -> None:
    user_file.write_text(f"# a comment\n\nnonsense\n{field} {A.type} {A.base64} a comment\n")
    with pytest.raises(HostKeyChanged):
        verify(B, port=port)
    verify(A, port=port)
    assert HostKeys().pinned("id-1") == A


@pytest.mark.parametrize(
    "field,port",
    [("box", 2200), ("[box]:2200", 22), ("boxes", 22), ("*,!box", 22), (hashed("other"), 22), ("|1|x|y", 22),
     ("@cert-authority box", 22), ("@unheard-of box", 22), ("b[ao]x", 22)],
)  # fmt: skip
def test_entries_of_the_user_that_do_not(user_file: Path, field: str, port: int) -> None:
    user_file.write_text(f"{field} {A.type} {A.base64}\n")
    with pytest.raises(HostKeyUnknown):
        verify(A, port=port)


def test_another_kind_of_key_than_the_known_one_is_a_change(user_file: Path) -> None:
    user_file.write_text(f"box {RSA.type} {RSA.base64}\n")
    assert HostKeys().key_types("id-1", "box", 22) == ("ssh-rsa",)
    with pytest.raises(HostKeyChanged):
        verify(A)


def test_a_revoked_key_is_refused_even_when_pinned(user_file: Path) -> None:
    user_file.write_text(f"@revoked * {A.type} {A.base64}\nbox {A.type} {A.base64}\n")
    HostKeys().pin("id-1", A.type, A.base64)
    for expected in (None, A.fingerprint):
        with pytest.raises(HostKeyChanged):
            verify(A, expected=expected)


def test_machines_on_the_way_are_never_pinned(user_file: Path) -> None:
    keys = HostKeys()
    with pytest.raises(HostKeyUnknown):
        keys.verify("pod", None, "box", 22, A.type, A.base64)
    user_file.write_text(f"box {A.type} {A.base64}\n")
    keys.verify("pod", None, "box", 22, A.type, A.base64)
    assert not (Path(os.environ["PODLAB_HOME"]) / "known_hosts").exists()


def test_our_pins_are_no_entries_for_hosts() -> None:
    keys = HostKeys()
    keys.pin("id-1", A.type, A.base64)
    assert not KnownHost("", "podlab-id-1", A).matches("box")
    with pytest.raises(HostKeyUnknown):
        HostKeys().verify("pod", "id-2", "podlab-id-1", 22, A.type, A.base64)


@pytest.mark.parametrize("pod_id", ["", "a b", "a\nb", "*", "-x", "a,b"])
def test_ids_that_would_be_something_else_in_the_file(pod_id: str) -> None:
    with pytest.raises(BadArgument):
        HostKeys().pin(pod_id, A.type, A.base64)


@pytest.mark.parametrize("kind,blob", [("ssh-ed25519", "!"), ("ssh-rsa", A.base64), ("ssh ed", A.base64), (A.type, "")])
def test_what_is_no_key(kind: str, blob: str) -> None:
    with pytest.raises(BadArgument):
        HostKeys().pin("id-1", kind, blob)


def _pin_many(start: int) -> None:
    for number in range(start, start + 10):
        HostKeys().pin(f"id-{number}", A.type, A.base64)


def test_many_processes_lose_nothing() -> None:
    with ProcessPoolExecutor(4) as pool:
        list(pool.map(_pin_many, range(0, 40, 10)))
    assert all(HostKeys().pinned(f"id-{number}") == A for number in range(40))
