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
from podlab.quoting import shell_line
from podlab.types import Interactive, Pod, SshAddress


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
    argv = [
        ssh, "-t", "-o", f"HostKeyAlias=podlab-{pod.id}", *_trusting(settings.home() / "known_hosts"),
        "-o", "ForwardAgent=no", *_through(ssh, address), *_as(address),
    ]  # fmt: skip
    for path in address.identity_files:
        argv += ["-i", str(Path(path).expanduser())]
    return Interactive((*argv, "--", address.host), how)


def _through(ssh: str, address: SshAddress) -> list[str]:
    """Options that lead through the machines on the way.

    `-J` would start an ssh of its own for them, which gets none of our options and takes a key that a person says yes
    to. They are trusted as podlab itself trusts them: by what the user's known_hosts holds already.
    """
    from podlab.transport.ssh import jumps

    options: list[str] = []
    for hop in jumps(address):
        argv = [ssh, *_trusting(Path.home() / ".ssh" / "known_hosts"), "-o", "GlobalKnownHostsFile=/dev/null",
                "-o", "ForwardAgent=no", "-o", "ClearAllForwardings=yes"]  # fmt: skip
        # %h and %p are the next machine's, filled in by the ssh that runs the command. In the command of the machine
        # before, an ssh of its own fills in its own: one % for each that looks at it.
        argv += [options[0], options[1].replace("%", "%%")] if options else []
        argv += [*_as(hop), "-W", "[%h]:%p", "--", hop.host]
        options = ["-o", f"ProxyCommand={shell_line(argv)}"]
    return options


def _trusting(known_hosts: Path) -> list[str]:
    """Options that accept a key of that file, and no other."""
    quoted = f'"{known_hosts}"'  # for ssh, which takes words apart as several files
    return ["-o", f"UserKnownHostsFile={quoted}", "-o", "StrictHostKeyChecking=yes", "-o", "UpdateHostKeys=no"]


def _as(address: SshAddress) -> list[str]:
    argv = ["-p", str(address.port)] if address.port else []
    return argv + (["-l", address.user] if address.user else [])


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
