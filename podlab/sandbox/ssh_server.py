"""The SSH server of a simulated pod: real commands, terminals and port forwards, in that pod alone.

It listens on one port of 127.0.0.1, shows the pod's own host key and accepts the pod's public keys, whatever the user
is called. Its port is bound from the start and refuses connections until `open` is called, as the port of a container
does before its sshd runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import pty
import signal
import socket
import struct
import termios
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import paramiko
from paramiko.message import Message

from podlab.sandbox.container import Container, Job
from podlab.sandbox.processes import listens

READ_BYTES = 64 * 1024
HANDSHAKE_S = 30.0
WINDOW_BYTES = 2**21
PACKET_BYTES = 2**15
LOG = "podlab.sandbox.ssh"

# What the library calls errors here are clients that went away.
logging.getLogger(LOG).setLevel(logging.CRITICAL)


class PodSshd:
    """The server. `authorized` gives the public keys of the moment, as lines of an authorized_keys file."""

    def __init__(self, container: Container, host_key: Path, authorized: Callable[[], str]) -> None:
        self.container = container
        self.own_ports_only = True
        """Pods share this computer's ports; each reaches only what its own processes listen on."""
        self._key = paramiko.Ed25519Key.from_private_key_file(str(host_key))
        self.authorized = authorized
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._connections: set[paramiko.Transport] = set()
        self._lock = threading.Lock()
        self.is_open = self._is_closed = False

    def open(self) -> None:
        """Begin to listen; once is enough."""
        with self._lock:
            if self.is_open or self._is_closed:
                return
            self.is_open = True
            self._listener.listen(64)
        threading.Thread(target=self._accept, name="sandbox sshd", daemon=True).start()

    def move(self) -> int:
        """Listen on another port; the old one is gone. Connections stay. The new one."""
        with self._lock:
            old, self._listener = self._listener, socket.socket()
            self._listener.bind(("127.0.0.1", 0))
            self.port = self._listener.getsockname()[1]
            was_open, self.is_open = self.is_open, False
            _close(old)
        if was_open:
            self.open()
        return self.port

    def close(self) -> None:
        """Stop listening and end every connection."""
        with self._lock:
            self._is_closed = True
            connections, self._connections = list(self._connections), set()
            _close(self._listener)
        for each in connections:
            each.close()

    def _accept(self) -> None:
        listener = self._listener
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), name="sandbox ssh", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = ServerLink(connection)
        link.add_server_key(self._key)
        with self._lock:
            if self._is_closed:
                link.close()
                return
            self._connections.add(link)
        try:
            link.start_server(server=Visit(self, link))
            held: list[paramiko.Channel] = []  # the library closes a channel that nobody holds
            while link.is_active():
                if (channel := link.accept(5.0)) is not None:
                    held = [each for each in held if not each.closed] + [channel]
        except (paramiko.SSHException, EOFError, OSError):
            pass  # whoever came was no SSH client, or has gone
        finally:
            link.close()
            with self._lock:
                self._connections.discard(link)


class ServerLink(paramiko.Transport):
    """A connection. Work that a request asks for begins after that request has been answered, never before."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(connection, default_window_size=WINDOW_BYTES, default_max_packet_size=PACKET_BYTES)
        cast(Any, self.packetizer).REKEY_BYTES = cast(Any, self.packetizer).REKEY_PACKETS = 2**40
        self.banner_timeout = self.handshake_timeout = self.auth_timeout = HANDSHAKE_S
        self.local_version = "SSH-2.0-podlab_sandbox"
        self.set_log_channel(LOG)
        self.later: list[Callable[[], None]] = []
        self._channel_handler_table = {
            **cast(Any, paramiko.Transport)._channel_handler_table,
            paramiko.common.MSG_CHANNEL_REQUEST: self._on_request,
        }

    def _on_request(self, channel: paramiko.Channel, message: Message) -> None:
        at = message.packet.tell()
        if message.get_text() == "signal":
            message.get_boolean()
            cast(Visit, self.server_object).signalled(channel, message.get_text())
            return
        message.packet.seek(at)
        cast(Any, channel)._handle_request(message)
        self._catch_up()

    def _parse_channel_open(self, message: Message) -> None:
        cast(Any, super())._parse_channel_open(message)
        self._catch_up()

    def _catch_up(self) -> None:
        due, self.later = self.later, []
        for begin in due:
            begin()


class Visit(paramiko.ServerInterface):
    """What one connection may do."""

    def __init__(self, sshd: PodSshd, link: ServerLink) -> None:
        self._sshd = sshd
        self._link = link
        self._sessions: dict[int, Session] = {}

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        for line in self._sshd.authorized().splitlines():
            words = line.split()
            if len(words) >= 2 and words[0] == key.get_name() and words[1] == key.get_base64():
                return paramiko.common.AUTH_SUCCESSFUL
        return paramiko.common.AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        if kind != "session":
            return paramiko.common.OPEN_FAILED_UNKNOWN_CHANNEL_TYPE
        host, port = self._link.getpeername()[:2]
        self._sessions[chanid] = Session(self._sshd, f"{host} {port} 127.0.0.1 {self._sshd.port}")
        return paramiko.common.OPEN_SUCCEEDED

    def check_channel_env_request(self, channel: paramiko.Channel, name: bytes, value: bytes) -> bool:
        return False

    def check_channel_pty_request(
        self, channel: paramiko.Channel, term: bytes, width: int, height: int, pixelwidth: int, pixelheight: int,
        modes: bytes,
    ) -> bool:  # fmt: skip
        self._sessions[channel.get_id()].terminal(term.decode(errors="replace"), width, height)
        return True

    def check_channel_window_change_request(
        self, channel: paramiko.Channel, width: int, height: int, pixelwidth: int, pixelheight: int
    ) -> bool:
        self._sessions[channel.get_id()].resize(width, height)
        return True

    def check_channel_shell_request(self, channel: paramiko.Channel) -> bool:
        self._begin(channel, None)
        return True

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self._begin(channel, command)
        return True

    def _begin(self, channel: paramiko.Channel, command: bytes | None) -> None:
        session = self._sessions[channel.get_id()]
        self._link.later.append(lambda: session.begin(channel, command))

    def signalled(self, channel: paramiko.Channel, name: str) -> None:
        """The client wants a signal sent to what runs in a channel."""
        session = self._sessions.get(channel.get_id())
        number = getattr(signal, f"SIG{name}", None)
        if session and session.job and isinstance(number, signal.Signals):
            self._sshd.container.signal(session.job, number)

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        host, port = destination
        if host not in ("127.0.0.1", "localhost", "::1"):
            return paramiko.common.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
        if self._sshd.own_ports_only and not listens({each.pid for each in self._sshd.container.processes()}, port):
            return paramiko.common.OPEN_FAILED_CONNECT_FAILED
        try:
            target = socket.create_connection((host, port), 5.0)
        except OSError:
            return paramiko.common.OPEN_FAILED_CONNECT_FAILED
        target.settimeout(None)
        self._link.later.append(lambda: _bridge(cast(Any, self._link)._channels.get(chanid), target))
        return paramiko.common.OPEN_SUCCEEDED


class Session:
    """One program on one channel: its three streams, or its terminal, and how it ends."""

    def __init__(self, sshd: PodSshd, connection: str) -> None:
        """`connection` is what sshd(8) tells its sessions of it, as SSH_CONNECTION."""
        self._sshd = sshd
        self._connection = connection
        self._tty: tuple[int, int] | None = None
        self._env: dict[str, str] = {}
        self.job: Job | None = None

    def terminal(self, term: str, width: int, height: int) -> None:
        """Give the program a terminal."""
        self._tty = pty.openpty()
        self._env["TERM"] = term or "xterm"
        self.resize(width, height)

    def resize(self, width: int, height: int) -> None:
        """The client's window has another size."""
        if self._tty is not None:
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._tty[0], termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def begin(self, channel: paramiko.Channel, command: bytes | None) -> None:
        """Start the program: a command line for the login shell, or that shell itself."""
        shell = "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh"
        argv = [shell, "-l"] if command is None else [shell, "-c", os.fsdecode(command)]
        env = {**self._env, "SHELL": shell, "USER": "root", "LOGNAME": "root", "SSH_CONNECTION": self._connection}
        try:
            if self._tty is not None:
                ours, theirs = self._tty
                self.job = self._sshd.container.start(argv, (theirs, theirs, theirs), env=env, tty=True)
                os.close(theirs)
                outputs, stdin = [(ours, channel.sendall)], os.dup(ours)
            else:
                (child_in, stdin), (out, child_out), (err, child_err) = os.pipe(), os.pipe(), os.pipe()
                try:
                    self.job = self._sshd.container.start(argv, (child_in, child_out, child_err), env=env)
                finally:
                    for each in (child_in, child_out, child_err):
                        os.close(each)
                outputs = [(out, channel.sendall), (err, channel.sendall_stderr)]
        except OSError:
            _hang_up(channel)
            return
        threads = [threading.Thread(target=_pour, args=each, daemon=True) for each in outputs]
        threading.Thread(target=self._feed, args=(channel, stdin), daemon=True).start()
        for thread in threads:
            thread.start()
        threading.Thread(target=_finish, args=(channel, self.job, threads), daemon=True).start()

    def _feed(self, channel: paramiko.Channel, descriptor: int) -> None:
        """What the client sends, to the program. The end of a terminal's client is a hang-up."""
        try:
            while data := channel.recv(READ_BYTES):
                view = memoryview(data)
                while view:
                    view = view[os.write(descriptor, view) :]
        except OSError:
            pass  # it does not read any more
        finally:
            os.close(descriptor)
        with contextlib.suppress(OSError, EOFError):
            while channel.recv(READ_BYTES):
                pass  # its window must not fill up
        if self._tty is not None and self.job is not None:
            self._sshd.container.signal(self.job, signal.SIGHUP)


def _pour(descriptor: int, send: Callable[[bytes], Any]) -> None:
    """What a program writes, to the client. A client that is gone is a pipe that is closed."""
    try:
        while data := os.read(descriptor, READ_BYTES):
            send(data)
    except (OSError, EOFError, paramiko.SSHException):
        pass  # the channel is closed, or its whole connection; or a terminal whose last program has ended
    finally:
        os.close(descriptor)


def _finish(channel: paramiko.Channel, job: Job, threads: list[threading.Thread]) -> None:
    """Tell the status when it is there, close when nothing more can come."""
    job.ended.wait()
    assert job.status is not None
    with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
        if job.status >= 0:
            channel.send_exit_status(job.status)
        else:
            _tell_signal(channel, -job.status)
    for thread in threads:
        thread.join()
    _hang_up(channel)


def _tell_signal(channel: paramiko.Channel, number: int) -> None:
    message = Message()
    message.add_byte(paramiko.common.cMSG_CHANNEL_REQUEST)
    message.add_int(channel.remote_chanid)
    message.add_string("exit-signal")
    message.add_boolean(False)
    message.add_string(signal.Signals(number).name.removeprefix("SIG"))
    message.add_boolean(False)
    message.add_string("")
    message.add_string("")
    cast(Any, channel.transport)._send_user_message(message)


def _bridge(channel: paramiko.Channel | None, target: socket.socket) -> None:
    """Bytes both ways between a channel and a socket, each direction until its own end."""
    if channel is None:
        target.close()
        return

    def out() -> None:
        try:
            while data := target.recv(READ_BYTES):
                channel.sendall(data)
            channel.shutdown_write()
        except (paramiko.SSHException, OSError, EOFError):
            _hang_up(channel)

    def back() -> None:
        try:
            while data := channel.recv(READ_BYTES):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except (paramiko.SSHException, OSError, EOFError):
            _hang_up(channel)

    def both() -> None:
        other = threading.Thread(target=back, name="sandbox forward", daemon=True)
        other.start()
        out()
        other.join()
        _hang_up(channel)
        target.close()

    threading.Thread(target=both, name="sandbox forward", daemon=True).start()


def _hang_up(channel: paramiko.Channel) -> None:
    with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
        channel.close()


def _close(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept
    listener.close()
