"""A pod reached by SSH: connections that are tuned, watched and replaced, and commands on them.

This file and tunnel.py are where the SSH library (paramiko) is known. What it does by itself and we do not want is
changed in `Link`; what it raises is translated in `translated`; the rest of podlab meets neither.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import signal
import socket
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from paramiko.message import Message

from podlab.errors import (
    AuthenticationFailed,
    BadSettings,
    HostKeyChanged,
    HostKeyUnknown,
    LinkLost,
    PodlabError,
    TransportError,
    Unreachable,
)
from podlab.transport.base import Forward, Process, Transport
from podlab.transport.host_keys import HostKeys, checked_fingerprint
from podlab.transport.identities import offers
from podlab.transport.link_pool import LinkPool
from podlab.transport.ssh_config import Route, read_config, resolve
from podlab.transport.ssh_process import SshProcess, Wake, command_line
from podlab.transport.tunnel import Outlet, PodStream, PortForward
from podlab.transport.wire import CONNECT_TIMEOUT_S, Duplex, ProxyProcess, Wire, dial
from podlab.types import SshAddress

PROBE_S = 4.0
SILENCE_S = 8.0
"""A dead link is noticed PROBE_S + SILENCE_S after the last sign of life at the latest, plus half a second."""
DRAIN_BYTES = 32 * 2**30
"""OpenSSH asks for new keys after 64 GiB with AES; a connection is replaced well before."""
AUTHENTICATION_TIMEOUT_S = 20.0
CHANNEL_TIMEOUT_S = 20.0
MAX_LINKS = 64
MAX_JUMPS = 8
KEY_KINDS = (
    ("ssh-ed25519",),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    ("rsa-sha2-512", "rsa-sha2-256"),
)
KEY_TYPES = tuple(name for kind in KEY_KINDS for name in kind)

# Without this, Python prints the library's errors on the notebook's stderr; they reach the user as exceptions.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class Link(paramiko.Transport):
    """One SSH connection, with the library's defaults changed where they hurt.

    - AES-GCM first (the library puts CTR first, 60 % slower), no CBC, no MD5 or SHA-1, no host certificates.
    - It never asks for new keys itself: asked by the client they deadlock when a channel closes in that moment
      (paramiko issue 822). Asked for by the server they do not: the server holds back everything else meanwhile.
    - Its channels send through a `_Gate`, so that nothing follows a CLOSE, and receive into an `Outlet`.
    - `exit-signal` counts as an exit status, and a channel closed by the pod is told from one that died.
    - At new keys the host key must be the one that was verified.
    """

    _preferred_ciphers = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
    _preferred_macs = ("hmac-sha2-256", "hmac-sha2-512", "hmac-sha2-256-etm@openssh.com",
                       "hmac-sha2-512-etm@openssh.com")  # fmt: skip
    _preferred_keys = KEY_TYPES
    _active_check_timeout = 0.5

    def __init__(self, wire: Wire, below: Link | None, key_types: Sequence[str]) -> None:
        super().__init__(cast(socket.socket, wire))
        cast(Any, self.packetizer).REKEY_BYTES = cast(Any, self.packetizer).REKEY_PACKETS = 2**40
        self.banner_timeout = self.handshake_timeout = CONNECT_TIMEOUT_S
        self.auth_timeout = AUTHENTICATION_TIMEOUT_S
        self.channel_timeout = CHANNEL_TIMEOUT_S
        self._preferred_keys = tuple(key_types)
        self._channel_handler_table = {
            **cast(Any, paramiko.Transport)._channel_handler_table,
            paramiko.common.MSG_CHANNEL_REQUEST: self._on_channel_request,
            paramiko.common.MSG_CHANNEL_CLOSE: self._on_channel_close,
        }
        cast(Any, self)._handler_table[paramiko.common.MSG_CHANNEL_OPEN_SUCCESS] = self._on_channel_open
        self._below = below
        self._verified_key: bytes | None = None
        self.wire = wire
        self.closed_by_pod: weakref.WeakSet[paramiko.Channel] = weakref.WeakSet()
        self.ended = threading.Event()
        self.full = False
        """The pod refused another session; cleared when one of them ends."""
        self.opening = 0
        """Callers that are about to open a channel; kept by the owner of the link."""

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        return self._preferred_keys

    def run(self) -> None:
        try:
            super().run()
        finally:
            self.ended.set()
            self.wire.close()
            if self._below is not None:
                self._below.close()

    def channel_count(self) -> int:
        return len(cast(Any, self)._channels)

    def open_to(self, place: tuple[str, int]) -> paramiko.Channel:
        """A channel that leads to a port as the pod sees it."""
        return self.open_channel("direct-tcpip", place, ("127.0.0.1", 0))

    def lead(self, channel: paramiko.Channel, client: socket.socket | None) -> None:
        """Lead what the channel receives into `client` (None: no longer)."""
        cast(Outlet, channel.in_buffer).lead_to(client, lambda count: self._allow_more(channel, count))

    def _allow_more(self, channel: paramiko.Channel, taken_bytes: int) -> None:
        if more := cast(Any, channel)._check_add_window(taken_bytes):
            message = Message()
            message.add_byte(paramiko.common.cMSG_CHANNEL_WINDOW_ADJUST)
            message.add_int(channel.remote_chanid)
            message.add_int(more)
            cast(Any, channel.transport)._send_user_message(message)

    def execute(self, channel: paramiko.Channel, line: bytes) -> None:
        """Start `line`. Raises SSHException, EOFError or OSError; `channel.closed` before this means: not sent.

        The library's own exec_command can wait for ever when the link dies between two of its steps.
        """
        cast(Any, channel)._event_pending()
        if channel.closed:
            raise EOFError("the channel is closed")
        self._request(channel, "exec", True, line)
        cast(Any, channel)._wait_for_event()

    def terminate(self, channel: paramiko.Channel) -> None:
        """Ask the pod to send TERM to the channel's command. Servers may ignore it."""
        self._request(channel, "signal", False, b"TERM")

    def probe(self) -> None:
        """Ask for an answer of any kind; may block as long as the link does. Never raises: a dead link is told by
        `ended`."""
        message = Message()
        message.add_byte(paramiko.common.cMSG_GLOBAL_REQUEST)
        message.add_string("keepalive@openssh.com")
        message.add_boolean(True)
        with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
            cast(Any, self)._send_user_message(message)

    def _request(self, channel: paramiko.Channel, kind: str, reply: bool, argument: bytes) -> None:
        message = Message()
        message.add_byte(paramiko.common.cMSG_CHANNEL_REQUEST)
        message.add_int(channel.remote_chanid)
        message.add_string(kind)
        message.add_boolean(reply)
        message.add_string(argument)
        cast(Any, channel.transport)._send_user_message(message)

    def _on_channel_open(self, message: Message) -> None:
        # In the reading thread, before the channel can have received or sent anything.
        at = message.packet.tell()
        if (channel := cast(Any, self)._channels.get(message.get_int())) is not None:
            channel.transport = _Gate(self)
            channel.in_buffer = Outlet()
        message.packet.seek(at)
        cast(Any, self)._parse_channel_open_success(message)

    def _on_channel_request(self, channel: paramiko.Channel, message: Message) -> None:
        at = message.packet.tell()
        if message.get_text() == "exit-signal":
            message.get_boolean()
            channel.exit_status = 128 + _signal_number(message.get_text())
            channel.status_event.set()
            return
        message.packet.seek(at)
        cast(Any, channel)._handle_request(message)

    def _on_channel_close(self, channel: paramiko.Channel, message: Message) -> None:
        self.closed_by_pod.add(channel)
        self.full = False
        cast(Any, channel)._handle_close(message)

    def _verify_key(self, host_key: bytes, signature: bytes) -> None:
        # The library takes any key that signs well when keys are renewed.
        if self._verified_key is not None and self._verified_key != host_key:
            raise paramiko.SSHException("The host key changed on a live connection.")
        cast(Any, super())._verify_key(host_key, signature)
        self._verified_key = host_key


class _Gate:
    """Stands between a channel and its link: what comes after the channel's CLOSE is dropped.

    The library makes a message in one step and sends it in another. In between, its reading thread may answer the
    pod's CLOSE; an end-of-file that follows speaks of a channel that is no more, and OpenSSH hangs up on the whole
    connection ("packet referred to nonexistent channel"). Any command that ends before its input is closed can do it.

    The reading thread may wait here for a writer, which is safe: a writer waits only for the server to read or, during
    new keys, for the server's part in them, and no server sends a CLOSE in the midst of that.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lock = threading.Lock()
        self._is_closed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    def _send_user_message(self, message: Message) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = message.asbytes()[:1] == paramiko.common.cMSG_CHANNEL_CLOSE
            try:
                cast(Any, self._link)._send_user_message(message)
            except (paramiko.SSHException, EOFError) as error:
                # A socket's error is what a channel's user expects; the library's own handler needs its two arguments.
                raise ConnectionResetError(errno.ECONNRESET, str(error)) from error


def _signal_number(name: str) -> int:
    # RFC 4254 names them without SIG; OpenSSH says "SIG@openssh.com" for those it has no name for.
    found = getattr(signal, f"SIG{name}", None)
    return int(found) if isinstance(found, signal.Signals) else 0


class SshTransport(Transport):
    """The way to one pod by SSH."""

    def __init__(
        self,
        pod: str,
        address: SshAddress,
        pins: HostKeys,
        *,
        pod_id: str | None = None,
        expected_host_key: str | None = None,
        ssh_folder: Path | None = None,
        probe_s: float = PROBE_S,
        silence_s: float = SILENCE_S,
        drain_bytes: int = DRAIN_BYTES,
    ) -> None:
        """`pod` is its name, `pod_id` what its host key is pinned under (default: the name), `expected_host_key` a
        "SHA256:..." fingerprint to trust at first contact, `ssh_folder` stands in for ~/.ssh. Connects at first use."""
        self.pod = pod
        self._address = address
        self._pins = pins
        self._pod_id = pod_id or pod
        self._expected = checked_fingerprint(expected_host_key) if expected_host_key else None
        self._ssh_folder = ssh_folder or Path.home() / ".ssh"
        self._silence_s = silence_s
        self._pool = LinkPool(pod, self._connect, probe_s=probe_s, drain_bytes=drain_bytes)
        self._forwards: weakref.WeakSet[PortForward] = weakref.WeakSet()

    def start(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> Process:
        line = command_line(argv, env, cwd)
        link, channel = self._open(Link.open_session, is_session=True)
        wake = Wake()
        channel.in_buffer.set_event(cast(threading.Event, wake))
        channel.in_stderr_buffer.set_event(cast(threading.Event, wake))
        with translated(self.pod, LinkLost):
            link.execute(channel, line)
        return SshProcess(
            self.pod, channel, wake, lambda: channel in link.closed_by_pod, lambda: link.terminate(channel)
        )

    def open_port(self, remote_port: int, *, local_port: int = 0) -> Forward:
        forward = PortForward(self.pod, self.open_stream, remote_port, local_port)
        self._forwards.add(forward)
        return forward

    def close(self) -> None:
        for forward in list(self._forwards):
            forward.close()
        self._pool.close()

    def move(self, address: SshAddress) -> None:
        """The pod is at another address by now: connections that are open go on, new ones are made there."""
        self._address = address

    def connect(self) -> None:
        """Connect now rather than at the first command; nothing happens when there is a connection."""
        self._pool.opened(self._pool.take(for_session=False)[0])

    def open_stream(self, port: int) -> PodStream:
        """A connection to 127.0.0.1:`port` of the pod, for a forward somebody else keeps. Raises as `start` does."""
        link, channel = self._open(lambda it: it.open_to(("127.0.0.1", port)), is_session=False)
        return PodStream(channel, lambda: channel in link.closed_by_pod, lambda client: link.lead(channel, client))

    def _open(self, opened: Callable[[Link], paramiko.Channel], *, is_session: bool) -> tuple[Link, paramiko.Channel]:
        """A channel, on a new link where no other takes it.

        A channel that was refused, or whose link died while it was being opened, has started nothing on the pod: so
        another link is tried, which must not be done once a command has been sent.
        """
        for _ in range(MAX_LINKS):
            link, is_new = self._pool.take(for_session=is_session)
            try:
                return link, opened(link)
            except (paramiko.SSHException, EOFError, OSError) as error:
                if not link.is_active():
                    if is_new:
                        raise Unreachable(f"Pod {self.pod!r} hung up at once.", pod=self.pod) from error
                elif not is_session:
                    raise Unreachable(f"Nothing answers on that port of pod {self.pod!r}.", pod=self.pod) from error
                elif is_new and not link.channel_count():
                    raise Unreachable(
                        f"Pod {self.pod!r} lets us in and runs no commands.", pod=self.pod,
                        hint="Look at MaxSessions in its sshd_config, and at what its authorized_keys restricts.",
                    ) from error  # fmt: skip
                else:
                    link.full = True
            finally:
                self._pool.opened(link)
        raise Unreachable(f"Pod {self.pod!r} refuses more sessions on {MAX_LINKS} connections.", pod=self.pod)

    def _connect(self) -> Link:
        with translated(self.pod, Unreachable):
            config = read_config(self._ssh_folder / "config")
            route = resolve(self._address, config, _lookup, self._ssh_folder)
            trusted = self._pins.key_types(self._pod_id, route.host, route.port)
            if trusted or not self._expected:
                return self._reach(route, config, trusted)
            # A server has several keys and the fingerprint is of one of them: ask for each kind in turn.
            mismatch: HostKeyChanged | None = None
            for kind in KEY_KINDS:
                try:
                    return self._reach(route, config, kind, only=True)
                except HostKeyChanged as error:
                    mismatch = mismatch or error
                except paramiko.ssh_exception.IncompatiblePeer:
                    continue  # it has no key of that kind
            raise mismatch or Unreachable(f"Pod {self.pod!r} shows no host key of a kind we take.", pod=self.pod)

    def _reach(self, route: Route, config: str, key_types: Sequence[str], *, only: bool = False) -> Link:
        below = self._jump(route, config, 0)
        try:
            return self._establish(route, below, _ordered(key_types, only=only), is_pod=True)
        except BaseException:
            if below is not None:
                below.close()
            raise

    def _jump(self, route: Route, config: str, depth: int) -> Link | None:
        """A link to the last machine on the way, each reached through the one before; None when there is no such."""
        if depth > MAX_JUMPS:
            raise BadSettings("~/.ssh/config: ProxyJump leads in a circle.")
        below: Link | None = None
        try:
            for address in route.jumps:
                hop = resolve(address, config, _lookup, self._ssh_folder)
                if below is None:
                    below = self._jump(hop, config, depth + 1)
                known = self._pins.key_types(None, hop.host, hop.port)
                below = self._establish(hop, below, _ordered(known), is_pod=False)
        except BaseException:
            if below is not None:
                below.close()
            raise
        return below

    def _establish(self, route: Route, below: Link | None, key_types: Sequence[str], *, is_pod: bool) -> Link:
        place = (route.host, route.port)
        ground: Duplex
        if below is not None:
            ground = below.open_to(place)
        else:
            ground = ProxyProcess(route.proxy) if route.proxy else dial(*place)
        link = Link(Wire(ground), below, key_types)
        try:
            link.start_client(timeout=2 * CONNECT_TIMEOUT_S)
            if not link.initial_kex_done:
                raise TimeoutError("no key exchange in time")  # the library returns as if all were well
            self._verify(link, route, is_pod=is_pod)
            authenticate(link, route, self.pod)
        except BaseException:
            link.close()
            link.wire.close()
            raise
        link.wire.arm(self._silence_s)
        return link

    def _verify(self, link: Link, route: Route, *, is_pod: bool) -> None:
        key = link.get_remote_server_key()
        shown = (route.host, route.port, key.get_name(), key.get_base64())
        if is_pod:
            return self._pins.verify(self.pod, self._pod_id, *shown, expected=self._expected)
        try:
            self._pins.verify(self.pod, None, *shown)
        except HostKeyUnknown as error:
            error.hint = f"It is a machine on the way to the pod. Compare its key and accept it once: ssh {route.host}"
            raise


def jumps(address: SshAddress, ssh_folder: Path | None = None) -> tuple[SshAddress, ...]:
    """The machines on the way to a pod, first one first, as its address and ~/.ssh/config (or another folder) say.

    Raises BadArgument or BadSettings.
    """
    folder = ssh_folder or Path.home() / ".ssh"
    return tuple(_jumps(address, read_config(folder / "config"), folder, 0))


def _jumps(address: SshAddress, config: str, folder: Path, depth: int) -> Iterator[SshAddress]:
    if depth > MAX_JUMPS:
        raise BadSettings("~/.ssh/config: ProxyJump leads in a circle.")
    for number, hop in enumerate(resolve(address, config, _lookup, folder).jumps):
        if number == 0:  # what the config says of the others' own way does not matter, as with ssh -J
            yield from _jumps(hop, config, folder, depth + 1)
        yield hop


def _lookup(config: str, host: str) -> Mapping[str, object]:
    return cast(Mapping[str, object], paramiko.SSHConfig.from_text(config).lookup(host))


def _ordered(trusted: Sequence[str], *, only: bool = False) -> tuple[str, ...]:
    """Host key algorithms to ask for, those of trusted keys first: a server with several has not changed then."""
    wanted = [name for name in KEY_TYPES if name in trusted or (name.startswith("rsa-") and "ssh-rsa" in trusted)]
    return tuple(wanted if only else dict.fromkeys([*wanted, *KEY_TYPES]))


def authenticate(link: Link, route: Route, pod: str) -> None:
    """Offer the user's keys until one is taken. Raises AuthenticationFailed: which were tried, and what to do."""
    who = f"{route.user}@{route.host}"
    agent = _agent()
    tried = 0
    locked: list[Path] = []
    try:
        for offer in offers(route, {key.asbytes(): key for key in agent.get_keys()} if agent else {}):
            key: paramiko.PKey | None = offer.agent_key
            if key is None and offer.path is not None:
                try:
                    key = paramiko.PKey.from_path(offer.path)
                except _LOCKED:
                    locked.append(offer.path)
                except _UNREADABLE:
                    pass  # not a private key, or of a kind that is out of use; the message below counts what was tried
            if key is None:
                continue
            tried += 1
            with contextlib.suppress(paramiko.AuthenticationException):
                link.auth_publickey(route.user, key)
            if link.is_authenticated():
                return
            if not link.is_active():
                raise AuthenticationFailed(
                    f"Pod {pod!r} hung up after {tried} keys for {who}.", pod=pod,
                    hint="Name the right one: --identity FILE, or IdentityFile and IdentitiesOnly in ~/.ssh/config.",
                )  # fmt: skip
    finally:
        if agent:
            agent.close()
    if locked:
        raise AuthenticationFailed(
            f"The key {locked[0]} for pod {pod!r} ({who}) has a passphrase.", pod=pod,
            hint=f"Unlock it first, in the terminal that starts Jupyter: ssh-add {locked[0]}",
        )  # fmt: skip
    if not tried:
        raise AuthenticationFailed(
            f"There is no SSH key to offer to pod {pod!r} ({who}).", pod=pod,
            hint="Make one with ssh-keygen -t ed25519 and add its .pub file to the pod's ~/.ssh/authorized_keys.",
        )  # fmt: skip
    raise AuthenticationFailed(
        f"Pod {pod!r} accepted none of {tried} {'key' if tried == 1 else 'keys'} for {who}.", pod=pod,
        hint="Is the user's name right, and is your public key in the pod's ~/.ssh/authorized_keys?",
    )  # fmt: skip


_LOCKED = (TypeError, paramiko.PasswordRequiredException)
"""The library under the library raises TypeError for a key that needs a passphrase."""
_UNREADABLE = (OSError, ValueError, paramiko.SSHException, paramiko.pkey.UnknownKeyType, UnsupportedAlgorithm)


def _agent() -> paramiko.Agent | None:
    try:
        return paramiko.Agent()
    except (paramiko.SSHException, OSError):
        return None  # a stale SSH_AUTH_SOCK; files may do


@contextlib.contextmanager
def translated(pod: str, otherwise: type[TransportError]) -> Iterator[None]:
    """Turns what the SSH library and sockets raise into podlab's errors; `otherwise` is for those that say little."""
    try:
        yield
    except PodlabError:
        raise
    except Exception as error:
        raise translation(error, pod, otherwise) from error


def translation(error: Exception, pod: str, otherwise: type[TransportError]) -> PodlabError:
    """The error of ours that says the same, most specific first. What nobody expected is raised as it is."""
    if isinstance(error, paramiko.ssh_exception.ConfigParseError):
        return BadSettings(f"~/.ssh/config: {error}", hint="ssh -G HOST shows how ssh itself reads it.")
    for kind, make, what, hint in _TRANSLATIONS:
        if isinstance(error, kind):
            return (make or otherwise)(f"Pod {pod!r}: {what}{_said(error)}.", pod=pod, hint=hint)
    raise error


def _said(error: Exception) -> str:
    """What the error itself adds for a person: neither its number nor what its class says already."""
    if isinstance(error, (ConnectionRefusedError, TimeoutError, socket.gaierror, FileNotFoundError)):
        return ""
    said = (error.strerror if isinstance(error, OSError) else str(error)) or ""
    return f" ({said})" if said else ""


_Row = tuple[type[Exception], type[TransportError] | None, str, str]
_TRANSLATIONS: tuple[_Row, ...] = (
    (paramiko.AuthenticationException, AuthenticationFailed, "it refused to let us in", ""),
    (paramiko.ssh_exception.MessageOrderError, Unreachable, "messages came out of order during the handshake",
     "A broken server, or somebody in between."),
    (paramiko.ssh_exception.IncompatiblePeer, Unreachable, "no common algorithm",
     "Its SSH server is too old, or set up to allow only what is unsafe."),
    (paramiko.ssh_exception.CouldNotCanonicalize, Unreachable, "its name cannot be resolved", "Check the spelling."),
    (paramiko.ProxyCommandFailure, Unreachable, "the ProxyCommand failed", "Run it by hand to see what it says."),
    (paramiko.ChannelException, Unreachable, "a machine on the way refused to pass us on",
     "Its sshd may forbid forwarding (AllowTcpForwarding), or cannot reach the next machine."),
    (socket.gaierror, Unreachable, "its name cannot be resolved", "Check the spelling and your network."),
    (ConnectionRefusedError, Unreachable, "nothing listens there",
     "Is the machine up, and is the port right? A pod that was just rented may need a minute."),
    (TimeoutError, Unreachable, "no answer in time", "Is the machine up, and does a firewall let you through?"),
    (FileNotFoundError, Unreachable, "the ProxyCommand's program is missing", "Install it, or change ~/.ssh/config."),
    (paramiko.SSHException, None, "the connection failed", "Try again; ssh -v to the same machine says more."),
    (EOFError, None, "the connection ended", "Try again; its sshd may be restarting or refusing this address."),
    (OSError, None, "the connection failed", "Check your network."),
)  # fmt: skip
