"""What people have already: the machines that other tools know, taken over into podlab's registry.

Sources of the formats: pi pods (badlogic/pi-mono, packages/pods, src/config.ts), autopod (rwolt/autopod, config.json),
llorch (its config.toml, [remote.hosts.NAME]), ssh_config(5). Their files are read and never changed.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from podlab import secrets
from podlab.errors import BadArgument, NotFound, PodlabError
from podlab.lab import pods
from podlab.providers.ssh import SshProvider

if TYPE_CHECKING:
    from podlab.types import Pod, SshAddress

LIMIT_BYTES = 4 * 2**20
Tool = Literal["pi", "autopod", "llorch", "ssh"]


@dataclass(frozen=True)
class Machine:
    """A machine another tool knows. `address` is an ssh command line or an alias; `notes` are what else is known."""

    name: str
    address: str
    models_path: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Findings:
    """What one tool's file holds. `key` is an API key found in it, never shown."""

    tool: Tool
    path: Path
    machines: tuple[Machine, ...] = ()
    in_use: str | None = None
    key: secrets.Secret | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What became of one machine: `state` "new" (can be added), "there" (known already), "refused"."""

    machine: Machine
    state: Literal["new", "there", "refused"]
    pod: Pod | None = None
    detail: str = ""


def usual_path(tool: Tool) -> Path:
    """Where a tool keeps its file, its own environment variable honoured."""
    env = os.environ
    if tool == "pi":
        return Path(env.get("PI_CONFIG_DIR") or "~/.pi").expanduser() / "pods.json"
    if tool == "autopod":
        return Path("~/.autopod/config.json").expanduser()
    if tool == "llorch":
        return Path(env.get("LLORCH_CONFIG_PATH") or "~/.config/llorch/config.toml").expanduser()
    return Path("~/.ssh/config").expanduser()


def read(tool: Tool, path: Path | None = None) -> Findings:
    """What a tool's file holds. Raises NotFound when there is none, BadArgument when it is not what it should be."""
    path = path or usual_path(tool)
    text = _text(path, tool)
    try:
        return _READERS[tool](text, path)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise BadArgument(
            f"{path} is not a file of {tool}: {error}.", hint="Name the right one with --file, or add pods by hand."
        ) from error


def judge(machines: Iterable[Machine]) -> list[Outcome]:
    """What adding each would do, given the pods there are. Writes nothing."""
    known = {pod.name: pod for pod in pods.all_pods()}
    outcomes = []
    for machine in machines:
        outcome = _judge(machine, known)
        if outcome.pod is not None and outcome.state == "new":
            known[machine.name] = outcome.pod  # the second of two with one name is refused
        outcomes.append(outcome)
    return outcomes


def _judge(machine: Machine, known: dict[str, Pod]) -> Outcome:
    try:
        pods.check_name(machine.name)
        pod = SshProvider().adopt(machine.name, machine.address, models_path=machine.models_path)
    except PodlabError as error:
        return Outcome(machine, "refused", None, " ".join(filter(None, (error.message, error.hint))))
    other = known.get(machine.name)
    if other is None:
        return Outcome(machine, "new", pod)
    if other.address is not None and _place(other.address) == _place(pod.address):
        return Outcome(machine, "there", other, "the same address is known under this name")
    return Outcome(machine, "refused", other, f"another pod is called {machine.name}: rename it, or add this by hand")


def _place(address: SshAddress | None) -> tuple[object, ...]:
    return () if address is None else (address.host, address.user, address.port or 22, address.proxy_jump)


def _text(path: Path, tool: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(LIMIT_BYTES + 1)
    except FileNotFoundError:
        raise NotFound(f"There is no {path}.", hint=f"Name {tool}'s file with --file PATH.") from None
    except OSError as error:
        raise BadArgument(f"{path} cannot be read: {error.strerror}.") from error
    if len(data) > LIMIT_BYTES:
        raise BadArgument(f"{path} is larger than 4 MiB, so it is no settings file.")
    return data.decode(errors="replace")


def _pi(text: str, path: Path) -> Findings:
    document = json.loads(text)
    machines = []
    for name, fields in document.get("pods", {}).items():
        served = [
            f"pi started {run.get('model')} there as {label} on port {run.get('port')}. "
            f"To take it over as it runs: podlab model adopt --pid {run.get('pid')} --on {name} --name {label} "
            f"--key-env PI_API_KEY. Or stop it with pi, then: "
            f"podlab model start {run.get('model')} --name {label} --on {name}"
            for label, run in (fields.get("models") or {}).items()
        ]
        machines.append(Machine(name, _a_text(fields["ssh"]), fields.get("modelsPath"), tuple(served)))
    return Findings("pi", path, tuple(machines), document.get("active"))


def _a_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.40} is no address")
    return value


def _autopod(text: str, path: Path) -> Findings:
    document = json.loads(text)
    runpod = document.get("providers", {}).get("runpod", {})
    wanted = document.get("defaults", {}).get("gpu_preferences") or []
    notes = [f"autopod prefers these GPUs: {', '.join(map(str, wanted))}"] if wanted else []
    cache = path.with_name("pods.json")
    rented = json.loads(_text(cache, "autopod")) if cache.exists() else {}
    notes += [f"autopod rented {pod_id}: see the provider's console for whether it still bills" for pod_id in rented]
    key = runpod.get("api_key") or ""
    return Findings("autopod", path, key=secrets.Secret(key) if key else None, notes=tuple(notes))


def _llorch(text: str, path: Path) -> Findings:
    remote = tomllib.loads(text).get("remote", {})
    machines = []
    for name, fields in remote.get("hosts", {}).items():
        user, identity = fields.get("user"), fields.get("identity_file")
        words = [
            f"{user}@{fields['host']}" if user else _a_text(fields["host"]),
            *(("-i", identity) if identity else ()),
        ]
        port = fields.get("port")
        words += ["-p", str(port)] if port else []
        notes = (f"its repository is {fields['repo_path']}",) if fields.get("repo_path") else ()
        machines.append(Machine(name, shlex.join(["ssh", *words]), None, notes))
    return Findings("llorch", path, tuple(machines), remote.get("default_host"))


def _ssh(text: str, path: Path) -> Findings:
    """Every alias without a pattern; what stands behind it is read anew at each connection, so it is kept as alias."""
    from podlab.transport.ssh_config import read_config

    names: dict[str, None] = {}
    for line in read_config(path).splitlines():
        match = re.fullmatch(r"\s*host(?:\s+|\s*=\s*)(.+)", line, re.IGNORECASE)
        if match is not None:
            words = shlex.split(match[1], comments=True)
            names |= dict.fromkeys(word for word in words if not re.search(r"[*?!]", word))
    return Findings("ssh", path, tuple(Machine(name, name) for name in names))


_READERS: dict[Tool, Callable[[str, Path], Findings]] = {
    "pi": _pi, "autopod": _autopod, "llorch": _llorch, "ssh": _ssh,
}  # fmt: skip
TOOLS: tuple[Tool, ...] = tuple(_READERS)
