"""The first process of a simulated pod: starts what it is told to, reaps what ends, and ends everything with itself.

Run as a program, with the number of a socket's descriptor as its argument; standard library only. It is the parent, or
(on Linux, as its subreaper) the adoptive parent, of all that ever runs in the pod, so ending the pod misses nothing,
whatever environment or session a program gave itself. When the other end of its socket is gone, the sandbox has died,
and the pod ends within a moment.

It reads a JSON object a line, with descriptors sent along, and writes them:

    {"id": 1, "argv": [...], "env": {...}, "cwd": "...", "tty": false, "fds": 3}   start; the descriptors become 0 to 2
    {"signal": 15, "id": 1}                                                       to that one's process group
    {"id": 1, "pid": 4711} | {"id": 1, "status": -9} | {"id": 1, "status": 127}   it started; it ended (minus: a signal)
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import sys
import termios
from typing import Any

PR_SET_CHILD_SUBREAPER = 36
ROUNDS = 200
"""How often ending looks again for what was started meanwhile."""


def main(descriptor: int) -> int:
    """Serve the socket until it is closed, then end all."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    told, tell = os.pipe()
    for each in (told, tell):
        os.set_blocking(each, False)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    wire = socket.socket(fileno=descriptor)
    try:
        _serve(wire, told)
    finally:
        _end_all()
    return 0


def _serve(wire: socket.socket, told: int) -> None:
    running: dict[int, int] = {}
    text, descriptors = b"", array.array("i")
    while True:
        ready, _, _ = select.select([wire.fileno(), told], [], [])
        if told in ready:
            os.read(told, 4096)
            _reap(wire, running)
        if wire.fileno() not in ready:
            continue
        data, more, _, _ = socket.recv_fds(wire, 2**16, 16)
        if not data:
            return
        descriptors.extend(more)
        text += data
        *lines, text = text.split(b"\n")
        for line in lines:
            asked = json.loads(line)
            if "signal" in asked:
                _signal(running, asked)
                continue
            given = [descriptors.pop(0) for _ in range(asked["fds"])]
            pid = _start(asked, given)
            running[pid] = asked["id"]
            for each in given:
                os.close(each)
            _say(wire, {"id": asked["id"], "pid": pid})


def _signal(running: dict[int, int], asked: dict[str, Any]) -> None:
    for pid, number in running.items():
        if number == asked["id"]:
            try:
                os.killpg(pid, asked["signal"])
            except OSError:
                pass  # it has ended, or has not made its group yet


def _start(asked: dict[str, Any], given: list[int]) -> int:
    """A program in a session of its own; 127 is how it ends when it cannot be started."""
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        for place, each in enumerate(given):
            os.dup2(each, place)
        os.closerange(3, 4096)
        if asked["tty"]:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        os.chdir(asked["cwd"])
        os.execvpe(asked["argv"][0], asked["argv"], asked["env"])  # noqa: S606 - an argv, and no shell
    except BaseException as error:  # noqa: BLE001 - a child that cannot become its program must not go on as its parent
        os.write(2, f"{asked['argv'][0]!a}: {error!a}\n".encode())
    finally:
        os._exit(127)


def _reap(wire: socket.socket, running: dict[int, int]) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if (number := running.pop(pid, None)) is not None:
            _say(wire, {"id": number, "status": os.waitstatus_to_exitcode(status)})


def _say(wire: socket.socket, what: dict[str, Any]) -> None:
    try:
        wire.sendall(json.dumps(what).encode() + b"\n")
    except OSError:
        pass  # nobody is there any more: the next read says so


def _end_all() -> None:
    """Kill every descendant; again, until there is none, for they may start others meanwhile."""
    for _ in range(ROUNDS):
        found = _descendants()
        if not found:
            return
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass  # it has ended
        try:
            while os.waitpid(-1, 0 if sys.platform == "linux" else os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            if sys.platform != "linux":
                return


def _descendants() -> list[int]:
    parents: dict[int, list[int]] = {}
    if sys.platform == "linux":
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    with open(f"/proc/{name}/stat", "rb") as file:
                        parent = int(file.read().rpartition(b")")[2].split()[1])
                except (OSError, ValueError, IndexError):
                    continue
                parents.setdefault(parent, []).append(int(name))
    else:
        with os.popen("ps -axo pid=,ppid=") as table:  # noqa: S605 - no word of it comes from outside
            for line in table:
                pid, parent = line.split()
                parents.setdefault(int(parent), []).append(int(pid))
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
