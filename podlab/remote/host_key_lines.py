"""The host keys of a pod, as they are told in its log. Part of the watchdog; needs no program.

Standard library only, Python 3.8 or newer.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re

NAME = re.compile(r"ssh_host_[a-z0-9]+_key\.pub")
KIND = re.compile(r"[a-z0-9@.-]{1,64}")


def host_key_lines(folder: str) -> list[str]:
    """A line for each public host key in a folder; one that is not whole yet has none."""
    try:
        names = sorted(name for name in os.listdir(folder) if NAME.fullmatch(name))
    except OSError:
        return []
    lines = []
    for name in names:
        try:
            with open(os.path.join(folder, name), encoding="ascii", errors="replace") as file:
                kind, packed = file.read(16384).split()[:2]
            blob = base64.b64decode(packed, validate=True)
        except (OSError, ValueError):
            continue
        if KIND.fullmatch(kind) and blob[4:].startswith(kind.encode()):
            digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
            lines.append(f"podlab: host key {kind} SHA256:{digest}")
    return lines
