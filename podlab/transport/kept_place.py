"""Where a keeper is found: the files in PODLAB_HOME that it and its clients both know.

`keeper.sock` is the socket, or a link to it: a path of more than about 100 bytes does not fit into a Unix socket's
address, and some file systems hold no sockets. Then it lives in a private folder with a short name.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import stat
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

from podlab import settings
from podlab.errors import KeeperError

ADDRESS_BYTES = 100
"""sockaddr_un holds 108 bytes on Linux and 104 on macOS, with a zero at the end."""
BACKLOG = 256
KEPT_S = 12 * 3600.0
"""The keeper closes a forward that nobody asked for or connected to for so long."""
_CREDENTIALS = struct.Struct("3i")
_SOL_LOCAL, _LOCAL_PEERCRED = 0, 1


@dataclass(frozen=True)
class Place:
    """The keeper's files of one PODLAB_HOME."""

    home: Path

    @classmethod
    def here(cls) -> Place:
        """The one of this process's PODLAB_HOME, which is made if missing."""
        return cls(settings.home().absolute())

    @property
    def socket_path(self) -> Path:
        """Where clients connect; a link where the path is too long."""
        return self.home / "keeper.sock"

    @property
    def lock(self) -> Path:
        """Held by the keeper as long as it serves; says its pid and its machine."""
        return self.home / "keeper.lock"

    @property
    def start_lock(self) -> Path:
        """Held by the client that starts a keeper."""
        return self.home / "keeper.start.lock"

    @property
    def forwards(self) -> Path:
        """The forwards that the next keeper opens again."""
        return self.home / "keeper.json"

    def address(self) -> str:
        """What to connect to. Raises FileNotFoundError when there is nothing, KeeperError when it is not safe."""
        try:
            target = os.readlink(self.socket_path)
        except OSError as error:
            if error.errno == errno.EINVAL:  # no link: the socket itself
                return str(self.socket_path)
            raise
        _check_private(Path(target).parent)
        return target

    def listen(self) -> socket.socket:
        """A socket that listens here, 0600. The caller holds `lock`, so what is left there is nobody's."""
        self.remove()
        if len(os.fsencode(self.socket_path)) <= ADDRESS_BYTES:
            try:
                return _listen(self.socket_path)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EPERM, errno.EINVAL, errno.ENOSYS):
                    raise
        target = self._short_folder() / "keeper.sock"
        target.unlink(missing_ok=True)
        listener = _listen(target)
        self.socket_path.symlink_to(target)
        return listener

    def remove(self) -> None:
        """Take the socket away, wherever it is."""
        try:
            target = Path(os.readlink(self.socket_path))
            _check_private(target.parent)
            target.unlink(missing_ok=True)
            target.parent.rmdir()
        except (OSError, KeeperError):
            pass  # no link, or one that leads to something that is not ours to touch
        self.socket_path.unlink(missing_ok=True)

    def is_own(self, listener: socket.socket) -> bool:
        """Whether clients that look here still find `listener`."""
        try:
            return stat.S_ISSOCK(os.stat(self.socket_path).st_mode) and self.address() == listener.getsockname()
        except (OSError, KeeperError):
            return False

    def _short_folder(self) -> Path:
        name = f"podlab-{os.getuid()}-{hashlib.sha256(os.fsencode(self.home.resolve())).hexdigest()[:16]}"
        runtime = os.environ.get("XDG_RUNTIME_DIR", "")
        usable = os.path.isdir(runtime) and len(os.fsencode(runtime)) + len(name) + 14 <= ADDRESS_BYTES
        folder = Path(runtime if usable else "/tmp", name)  # private, and checked to be ours
        folder.mkdir(mode=0o700, exist_ok=True)
        _check_private(folder)
        return folder


def peer(connection: socket.socket) -> tuple[int, int]:
    """Whose process is at the other end of a Unix socket: its uid and its pid (0 where the system does not say)."""
    if hasattr(socket, "SO_PEERCRED"):
        pid, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return uid, pid
    if sys.platform == "darwin":  # struct xucred: version, uid, ...
        credentials = connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, 76)
        return struct.unpack_from("=II", credentials)[1], 0
    raise OSError(errno.ENOTSUP, "this system does not say who connects")


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)  # nobody can connect before `listen`
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _check_private(folder: Path) -> None:
    info = folder.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or stat.S_IMODE(info.st_mode) != 0o700:
        raise KeeperError(f"{folder} is not a private folder of yours.", hint="Remove it, or shorten PODLAB_HOME.")
