"""What `~/.ssh/config` says about a host, together with what the pod's own address says.

The parser of the SSH library is passed in (`Lookup`), so this file needs no SSH to be read or tested. The address of
the pod wins over the file: it is what the person typed for this pod.
"""

from __future__ import annotations

import getpass
import glob
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from podlab.errors import BadArgument, BadSettings
from podlab.types import SshAddress

Lookup = Callable[[str, str], Mapping[str, object]]
"""The text of a config and a host's name -> the host's options, keys in lower case, `identityfile` a list."""

DEFAULT_IDENTITIES = ("id_ed25519", "id_ecdsa", "id_rsa")
INCLUDE_DEPTH = 16
_HOST = re.compile(r"[A-Za-z0-9_.:%-]*[A-Za-z0-9_.:%]")
_USER = re.compile(r"[^\s'\"`$;&|<>(){}\\*?!~-][^\s'\"`$;&|<>(){}\\*?!~]*")


@dataclass(frozen=True)
class Route:
    """Where to connect, as whom, with which keys, and through what. At most one of `jumps` and `proxy` is set."""

    host: str
    port: int
    user: str
    explicit_identities: tuple[Path, ...] = ()
    """Keys somebody named, tried first."""
    default_identities: tuple[Path, ...] = ()
    """~/.ssh/id_*, tried last, and only where nobody named any."""
    identities_only: bool = False
    """Offer no key of the agent but those named."""
    jumps: tuple[SshAddress, ...] = ()
    proxy: tuple[str, ...] = ()


def resolve(address: SshAddress, config: str, lookup: Lookup, ssh_folder: Path) -> Route:
    """The route to `address`. Raises BadArgument or BadSettings for what cannot be a host, user, port or command."""
    options = lookup(_first_words(address) + config, address.alias or address.host)
    named = address.identity_files or tuple(_texts(options, "identityfile"))
    jump = address.proxy_jump or _text(options, "proxyjump")
    proxy = _text(options, "proxycommand")
    if jump and jump.lower() == "none":
        jump = None
    return Route(
        host=_checked_host(_text(options, "hostname") or address.host),
        port=_port(_text(options, "port") or "22"),
        user=_checked_user(_text(options, "user") or getpass.getuser()),
        explicit_identities=tuple(_expand(name) for name in named if name.lower() != "none"),
        default_identities=() if named else tuple(ssh_folder / name for name in DEFAULT_IDENTITIES),
        identities_only=(_text(options, "identitiesonly") or "no").lower() == "yes" or bool(address.identity_files),
        jumps=tuple(_jumps(jump)) if jump else (),
        proxy=tuple(_words(proxy)) if proxy and not jump else (),
    )


def _first_words(address: SshAddress) -> str:
    # The first value wins in such a file, and a ProxyCommand's %h, %p and %r are filled in from it.
    lines = []
    if address.alias is not None and address.host != address.alias:
        lines.append(f"HostName {_checked_host(address.host)}\n")
    if address.user is not None:
        lines.append(f"User {_checked_user(address.user)}\n")
    if address.port is not None:
        lines.append(f"Port {_port(str(address.port))}\n")
    return "".join(lines)


def read_config(path: Path) -> str:
    """The text of a config file with its Include lines replaced by what they name; "" when there is no file.

    The SSH library knows no Include. After an included file the Host or Match line it stood under is repeated, because
    the file's own Host lines end with it.
    """
    return "".join(_lines(path, path.parent, 0))


def _lines(path: Path, folder: Path, depth: int) -> Iterator[str]:
    if depth > INCLUDE_DEPTH:
        raise BadSettings(f"{path} is included too deeply.", hint="An Include names a file that includes itself.")
    try:
        text = path.read_text("utf-8", errors="replace")
    except (FileNotFoundError, IsADirectoryError):
        return
    except OSError as error:
        raise BadSettings(f"{path} cannot be read: {error}") from error
    block = "Host *\n"
    for line in text.splitlines():
        keyword, _, rest = line.strip().replace("=", " ", 1).partition(" ")
        if keyword.lower() == "include":
            for pattern in _words(rest):
                for name in sorted(glob.glob(str(folder / Path(pattern).expanduser()))):
                    yield from _lines(Path(name), folder, depth + 1)
                    yield block
            continue
        if keyword.lower() in ("host", "match"):
            block = line + "\n"
        yield line + "\n"


def _jumps(text: str) -> Iterator[SshAddress]:
    for hop in text.split(","):
        user, _, place = hop.strip().removeprefix("ssh://").rpartition("@")
        host, port = place, ""
        if found := re.fullmatch(r"\[([^]]+)](?::(\d+))?|([^:]+):(\d+)", place):
            host, port = found[1] or found[3], found[2] or found[4] or ""
        yield SshAddress(host=host, user=user or None, port=_port(port) if port else None)


def _checked_host(host: str) -> str:
    # Such names end up in a ProxyCommand or another machine's log; OpenSSH refuses the same (its 9.6 release notes).
    if not _HOST.fullmatch(host) or host.startswith("-"):
        raise BadArgument(f"{host!r} cannot be a host's name.", hint="Letters, digits, dots, colons and dashes.")
    return host


def _checked_user(user: str) -> str:
    if not _USER.fullmatch(user):
        raise BadArgument(f"{user!r} cannot be a user's name.", hint="Write it without quotes or spaces.")
    return user


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise BadArgument(f"{text!r} is not a port.", hint="A number from 1 to 65535.")
    return int(text)


def _words(text: str) -> list[str]:
    # A ProxyCommand is an argv here, not a line for a shell: nothing expands but OpenSSH's own tokens.
    try:
        return shlex.split(text)
    except ValueError as error:
        raise BadSettings(f"~/.ssh/config: {text!r} cannot be read: {error}") from error


def _expand(name: str) -> Path:
    return Path(name).expanduser()


def _text(options: Mapping[str, object], key: str) -> str | None:
    value = options.get(key)
    return value if isinstance(value, str) and value else None


def _texts(options: Mapping[str, object], key: str) -> list[str]:
    value = options.get(key)
    return [str(item) for item in value] if isinstance(value, list) else []
