"""Which of the user's keys to offer to a pod, in which order. Reads key files only as far as they are public."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from podlab.transport.ssh_config import Route

AgentKey = TypeVar("AgentKey")
_MAGIC = b"openssh-key-v1\0"


@dataclass(frozen=True)
class Offer(Generic[AgentKey]):
    """One key to try: the agent's own object, or a file."""

    agent_key: AgentKey | None = None
    path: Path | None = None


def offers(route: Route, agent_keys: Mapping[bytes, AgentKey]) -> Sequence[Offer[AgentKey]]:
    """What to offer, best first. `agent_keys` is public blob -> key.

    1. keys somebody named: through the agent where it holds the same key (no passphrase is needed then), else the file
    2. the agent's other keys, unless only named ones may be used
    3. ~/.ssh/id_*, where nobody named any

    A server counts attempts (OpenSSH: 6), so named keys come before what an agent happens to hold.
    """
    found: list[Offer[AgentKey]] = []
    left = dict(agent_keys)

    def add(path: Path) -> None:
        blob = public_blob(path)
        if blob is not None and blob in left:
            found.append(Offer(agent_key=left.pop(blob)))
        elif path.is_file() and path.suffix != ".pub":
            found.append(Offer(path=path))

    for path in route.explicit_identities:
        add(path)
    if not route.identities_only:
        defaults = {public_blob(path) for path in route.default_identities}
        found += [Offer(agent_key=key) for blob, key in left.items() if blob not in defaults]
    for path in route.default_identities:
        add(path)
    return found


def public_blob(path: Path) -> bytes | None:
    """The public half of a key file: of PATH.pub, or of the unencrypted head of OpenSSH's own format. None: unknown."""
    public = path if path.suffix == ".pub" else path.with_name(path.name + ".pub")
    try:
        words = public.read_text("utf-8").split()
        return base64.b64decode(words[1], validate=True)
    except (OSError, ValueError, IndexError):
        pass
    try:
        lines = path.read_text("utf-8").split("-----")
        body = base64.b64decode("".join(lines[2].split()), validate=True)
        return _blob_of_openssh_key(body)
    except (OSError, ValueError, IndexError, struct.error):
        return None


def _blob_of_openssh_key(body: bytes) -> bytes | None:
    # PROTOCOL.key of OpenSSH: magic, cipher, kdf, kdf options, number of keys, public blob, private part.
    if not body.startswith(_MAGIC):
        return None
    at = len(_MAGIC)
    for _ in range(3):
        at += 4 + struct.unpack_from(">I", body, at)[0]
    at += 4
    (size,) = struct.unpack_from(">I", body, at)
    return body[at + 4 : at + 4 + size]
