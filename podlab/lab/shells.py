"""Programs that need a person's terminal: a shell on a pod, an editor on config.toml.

A handler cannot give its terminal away, and in a notebook there is none. It returns the command; the terminal's driver
runs it in place, the notebook shows how.
"""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

from podlab import settings
from podlab.errors import BadSettings, EngineUnavailable
from podlab.types import Interactive, Pod


def shell_of(pod: Pod) -> Interactive:
    """An interactive shell on a pod, with podlab's pinned host key: OpenSSH asks nobody and accepts no other."""
    how = f"podlab pod shell {shlex.quote(pod.name)}"
    if pod.address is None:
        return Interactive((os.environ.get("SHELL") or "/bin/sh", "-l"), how)
    ssh = shutil.which("ssh")
    if ssh is None:
        raise EngineUnavailable(
            "There is no ssh program here.", hint="Install OpenSSH's client: apt-get install openssh-client"
        )
    address = pod.address
    known_hosts = f'"{settings.home() / "known_hosts"}"'  # quoted for ssh: it reads words apart as several files
    argv = [
        ssh, "-t", "-o", f"HostKeyAlias=podlab-{pod.id}", "-o", f"UserKnownHostsFile={known_hosts}",
        "-o", "StrictHostKeyChecking=yes", "-o", "ForwardAgent=no",
    ]  # fmt: skip
    argv += ["-p", str(address.port)] if address.port else []
    argv += ["-l", address.user] if address.user else []
    argv += ["-J", address.proxy_jump] if address.proxy_jump else []
    for path in address.identity_files:
        argv += ["-i", str(Path(path).expanduser())]
    return Interactive((*argv, "--", address.host), how)


def editor_of(path: Path) -> Interactive:
    """The user's editor on a file."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""
    try:
        words = shlex.split(editor)
    except ValueError as error:
        raise BadSettings(f"EDITOR is {editor!r}, which cannot be read: {error}.", hint="Set it anew.") from error
    if words and shutil.which(words[0]) is None:
        raise EngineUnavailable(f"There is no program {words[0]!r} here.", hint="Set EDITOR to one that is.")
    if not words:
        found = next((name for name in ("nano", "vim", "vi") if shutil.which(name)), None)
        if found is None:
            raise EngineUnavailable("There is no editor here.", hint="Set EDITOR to one.")
        words = [found]
    return Interactive((*words, str(path)), "podlab config edit")
