"""The wire between the keeper and its clients."""

from __future__ import annotations

import inspect
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podlab import errors
from podlab.errors import CommandFailed, HostKeyChanged, HostKeyUnknown, PodlabError
from podlab.transport import kept_wire
from podlab.transport.kept_errors import pack_error, unpack_error
from podlab.transport.kept_wire import Inbox, Kind, NotTheProtocol, PodRef, Start, pack, send, unpack
from podlab.types import SshAddress

CLASSES = [it for it in vars(errors).values() if inspect.isclass(it) and issubclass(it, PodlabError)]
MADE = {
    HostKeyUnknown: HostKeyUnknown("pod", "host", "ssh-ed25519", "AAAA", "SHA256:x"),
    HostKeyChanged: HostKeyChanged("pod", "host", "SHA256:x", "SHA256:y"),
    CommandFailed: CommandFailed("pod", ("a", "b"), 3, b"\0\xff", b"why\n"),
    errors.CommandTimeout: errors.CommandTimeout("pod", ("a",), 1.5, b"\xff"),
    errors.EngineCrashed: errors.EngineCrashed("it crashed", cause="oom", status=None, log=("one", "two")),
    errors.HttpError: errors.HttpError("no", status=500, body="why"),
    errors.RentalFailed: errors.RentalFailed("it ended", launch="l1", rental_id="r1", ended=True),
    errors.StreamBroken: errors.StreamBroken("cut", partial="half"),
}


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_arrives_as_itself(kind: type[PodlabError]) -> None:
    error = MADE.get(kind) or kind("what happened", hint="what to do")
    back = unpack_error(pack_error(error))
    assert type(back) is kind
    assert vars(back) == vars(error)
    assert (str(back), back.lines(), back.args) == (str(error), error.lines(), error.args)


def test_an_error_of_a_newer_podlab_is_the_nearest_known() -> None:
    newer = type("ReallyUnreachable", (errors.Unreachable,), {})("gone", pod="p")
    assert type(unpack_error(pack_error(newer))) is errors.Unreachable


@pytest.mark.parametrize("payload", [b"", b"{}", b"[[], {}]", b'[["os"], {}]', b'[["PodlabError"], 3]'])
def test_what_is_no_error(payload: bytes) -> None:
    with pytest.raises(NotTheProtocol):
        unpack_error(payload)


def test_words_of_any_kind_arrive() -> None:
    pod = PodRef("p", "id", SshAddress("h", identity_files=("a", "b")))
    asked = Start(pod, ("é漢", "\udcff", "", "\n"), {"A": "b"}, None, "")
    assert unpack(pack(asked)) == asked


@pytest.mark.parametrize("payload", [b"", b"[]", b'["Nothing", {}]', b'["Start", {}]', b'["Start", 1]', b'["os", {}]'])
def test_what_is_no_request(payload: bytes) -> None:
    with pytest.raises(NotTheProtocol):
        unpack(payload)


@given(
    frames=st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=50)), max_size=8),
    cuts=st.lists(st.integers(1, 30), max_size=40),
)
def test_frames_survive_any_cutting(frames: list[tuple[Kind, bytes]], cuts: list[int]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send(ours, *frames, before=b"hello\n")
        ours.shutdown(socket.SHUT_WR)
        whole = theirs.recv(65536)
        again, reader = socket.socketpair()
        with again, reader:
            inbox = Inbox(reader)
            found: list[tuple[Kind, bytes]] = []
            line = None
            for cut in [*cuts, len(whole)]:
                again.sendall(whole[:cut])
                whole = whole[cut:]
                try:
                    line = line or inbox.line(0)
                    while (one := inbox.next(0)) is not None:
                        found.append(one)
                except TimeoutError:
                    continue
        assert line == b"hello"
    joined: list[tuple[Kind, bytes]] = []
    data = (Kind.STDIN, Kind.STDOUT, Kind.STDERR)
    for kind, payload in found:
        if joined and kind in data and joined[-1][0] is kind:
            joined[-1] = (kind, joined[-1][1] + payload)
        else:
            joined.append((kind, payload))
    expected: list[tuple[Kind, bytes]] = []
    for kind, payload in frames:
        if kind in data and not payload:
            continue
        if expected and kind in data and expected[-1][0] is kind:
            expected[-1] = (kind, expected[-1][1] + payload)
        else:
            expected.append((kind, payload))
    assert joined == expected


@pytest.mark.parametrize("noise", [b"\x63\0\0\0\0", b"\x01\xff\xff\xff\xff", b"\x04\xff\xff\xff\xff", b"\0\0\0\0\0"])
def test_noise_is_refused_at_once(noise: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(noise)
        with pytest.raises(NotTheProtocol):
            Inbox(theirs).next(1)


def test_hellos() -> None:
    client = kept_wire.ClientHello("b", "hand-over", ("x", "y"))
    assert kept_wire.client_hello(kept_wire.hello_line(client).rstrip(b"\n")) == client
    keeper = kept_wire.KeeperHello("b", True, 7)
    assert kept_wire.keeper_hello(kept_wire.hello_line(keeper).rstrip(b"\n")) == keeper


@pytest.mark.parametrize("line", [b"", b"SSH-2.0-x", b"podlab-keeper", b"podlab-keeper []", b'other {"build": 1}'])
def test_what_is_no_hello(line: bytes) -> None:
    with pytest.raises(NotTheProtocol):
        kept_wire.client_hello(line)


def test_versions_are_compared_by_their_numbers() -> None:
    assert kept_wire.release("0.9.1") < kept_wire.release("0.10.0.dev1")
