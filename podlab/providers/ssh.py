"""Any machine reached by SSH, as the person who owns it writes its address."""

from __future__ import annotations

import ipaddress
import re
import shlex
import uuid

from podlab.errors import BadArgument
from podlab.providers.owned import RentsNothing
from podlab.types import Pod, SshAddress

_HOST = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:%-]{0,254}")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@\\-]{0,63}")
_FLAGS_IGNORED = {"-A", "-a", "-T", "-t", "-tt", "-q", "-v", "-4", "-6", "-C", "-N", "-x"}
"""Switches people paste along that change nothing here; agent forwarding (-A) is never done."""
FORM = 'Write it as user@host, "ssh user@host -p 22 -i ~/.ssh/key", or an alias of ~/.ssh/config.'


class SshProvider(RentsNothing):
    """Adopts machines that exist already."""

    name = "ssh"

    def adopt(self, name: str, address: str, *, models_path: str | None = None) -> Pod:
        return Pod(name, uuid.uuid4().hex[:12], "ssh", parse_address(address), models_path)


def parse_address(text: str) -> SshAddress:
    """`ssh user@host -p PORT -i KEY`, `user@host`, `host:port` or an alias of ~/.ssh/config. Raises BadArgument."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise BadArgument(f"{text!r} cannot be read as an address: {error}.", hint=FORM) from error
    if words[:1] == ["ssh"]:
        words = words[1:]
    target, port, jump = "", None, None
    user: str | None = None
    keys: list[str] = []
    queue = iter(words)
    for word in queue:
        if word[:2] in ("-p", "-i", "-l", "-J", "-o"):
            word, given = word[:2], word[2:] or next(queue, None)
            if not given:
                raise BadArgument(f"{word} in {text!r} has no value.", hint=FORM)
            if word == "-p":
                port = _port(given, text)
            elif word == "-i":
                keys.append(given)
            elif word == "-l":
                user = given
            elif word == "-J":
                jump = _jump(given, text)
            else:
                raise BadArgument(f"-o {given} in {text!r} is not understood.", hint="Put it into ~/.ssh/config.")
        elif word in _FLAGS_IGNORED:
            continue
        elif word.startswith("-"):
            raise BadArgument(f"{word} in {text!r} is not understood.", hint="Put it into ~/.ssh/config. " + FORM)
        elif target:
            raise BadArgument(f"{text!r} names two machines, {target!r} and {word!r}.", hint=FORM)
        else:
            target = word
    return _address(target, text, user, port, tuple(keys), jump)


def _address(
    target: str, text: str, user: str | None, port: int | None, keys: tuple[str, ...], jump: str | None
) -> SshAddress:
    named_user, at, host = target.removeprefix("ssh://").rpartition("@")
    if at:
        user = named_user
    if target.startswith("ssh://"):
        host = host.removesuffix("/")
    bracketed = re.fullmatch(r"\[([^\[\]]*)\](?::(.*))?", host)
    if bracketed is not None:
        host, digits = bracketed[1], bracketed[2]
    elif host.count(":") == 1:
        host, _, digits = host.partition(":")
    else:
        digits = None
    if digits is not None:
        if port not in (None, _port(digits, text)):
            raise BadArgument(f"{text!r} names two ports, {port} and {digits}.", hint=FORM)
        port = _port(digits, text)
    if not _HOST.fullmatch(host) or (":" in host and not _is_ipv6(host)):
        raise BadArgument(f"{text!r} names no machine that SSH could reach.", hint=FORM)
    if user is not None and not _USER.fullmatch(user):
        raise BadArgument(f"{user!r} in {text!r} cannot be a user name.", hint=FORM)
    return SshAddress(host, user, port, keys, proxy_jump=jump)


def _jump(text: str, whole: str) -> str:
    """`-J`'s value, each machine in it checked as an address is: it becomes the argument of a command."""
    for machine in text.split(","):
        _address(machine, whole, None, None, (), None)
    return text


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False


def _port(text: str, whole: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise BadArgument(f"{text!r} in {whole!r} is not a port.", hint="A port is a number from 1 to 65535.")
    return int(text)
