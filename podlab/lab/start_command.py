"""What a rented pod runs first: podlab's dead-man switch, then what its image would have run; and what it says of that.

The command is one argv, `sh -c SCRIPT`, with the switch and its certificates packed into it, so that an image needs no
podlab, no network and no disk of ours: a sh and a Python 3.8 are enough. The order matters (reference: a switch that is
brought over SSH leaves a gap between the pod's first billed second and the first login): the switch is started, host
keys are made and told in the container's log, and only then does an SSH server begin to listen.

Nothing in it is a secret: providers repeat a pod's command and environment in every listing. The key that the switch
ends the pod with is the pod-scoped one that the provider itself puts into the container's environment.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import resources
from itertools import islice

from podlab.errors import BadArgument
from podlab.lab.talk import program
from podlab.renting import Policy, RentalLine

LIMIT_BYTES = 100_000
"""Of the script. Linux takes 128 KiB for one word of an argv."""
LONGEST_S = 10 * 365 * 86400.0
MOST_USD = 1e9
ROOMS = (
    "machine", "streams", "records", "nvml", "nvidia_smi", "activity", "children", "host_key_lines", "roots",
    "provider_api", "switch", "switch_rules",
)  # fmt: skip
"""Of podlab/remote, what watchdog.py is made of, in the order they need each other."""
BOOT = '"import sys,zlib,binascii;exec(zlib.decompress(binascii.a2b_base64(sys.stdin.buffer.read())))"'
LAUNCH = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}")
IMAGE_START = "/start.sh"
"""What RunPod's own images start with: it starts their sshd, and whatever else the image is for."""
LINES_LIMIT = 10_000
KEYS_LIMIT = 1000
LINE_LIMIT_CHARACTERS = 4096
_HOST_KEY = re.compile(r"podlab: host key ([a-z0-9@.-]{1,64}) (SHA256:[A-Za-z0-9+/]{43})")
_KEY_TYPES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa")
"""What start.sh makes, as our SSH client prefers them. A line of another type was written by somebody else."""
_KEYS_END = "podlab: host keys are told"


@dataclass(frozen=True)
class StartCommand:
    """An order's `command`, and what belongs into its `env`."""

    argv: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pace:
    """How often the switch does what, in seconds. None: its own default, which fits a real pod."""

    grace_s: float | None = None
    """How long it waits for the first word; the lease, and 15 minutes at least, when None."""
    tick_s: float | None = None
    look_s: float | None = None
    """Between looks at what the pod is doing."""
    request_s: float | None = None
    """How long a request to the provider may take, whatever it does."""
    retry_s: float | None = None
    retry_limit_s: float | None = None
    check_s: float | None = None
    """Between checks of whether it is armed."""
    quiet_s: float | None = None
    """For how long a shell on which nothing happens still keeps the pod from being idle."""
    gpu_percent: float | None = None
    """A card that is used more than this is busy."""


@dataclass(frozen=True)
class Heard:
    """What the start command said in the container's log."""

    fingerprints: tuple[str, ...] = ()
    """Of the host keys, one of each type; first that of the type our SSH client asks for first."""
    armed: bool | None = None
    """What the switch said last of itself; None: nothing yet."""
    detail: str = ""
    """Why it is not armed."""


def start_command(
    launch_id: str, policy: Policy, *, now: float, usd_per_hour: float, stopped_usd_per_hour: float = 0.0,
    pace: Pace | None = None, image_start: str = IMAGE_START,
) -> StartCommand:  # fmt: skip
    """The command for a launch. It holds for the pod's first start and for every later one: what it says of deadline
    and budget counts from a start, and the first beat says it again, exactly.

    `usd_per_hour` is the price while the pod runs; the time in which it is stopped is told by beats as money spent, so
    `stopped_usd_per_hour` changes nothing here. Raises BadArgument for an id that is none, and for a policy that
    the switch would not take.
    """
    del stopped_usd_per_hour  # a stopped pod runs no switch
    if not LAUNCH.fullmatch(launch_id) or not re.fullmatch(r"/[A-Za-z0-9._/-]+", image_start):
        raise BadArgument(f"{launch_id!r:.80} is no launch, or {image_start!r:.80} no program.")
    _check(policy, now, usd_per_hour)
    told = {
        "lease_s": policy.lease_s, "idle_s": policy.idle_s, "budget_usd": policy.budget_usd,
        "deadline_left_s": None if policy.deadline_at is None else policy.deadline_at - now,
        "usd_per_hour": usd_per_hour,
    }  # fmt: skip
    paces = {name: value for name, value in asdict(pace or Pace()).items() if value is not None}
    config = json.dumps({"launch": launch_id, "policy": told, "pace": paces}).encode()
    words = {
        "@PROGRAM@": _packed(), "@BOOT@": BOOT, "@CONFIG@": base64.b64encode(config).decode(),
        "@IMAGE_START@": image_start,
    }  # fmt: skip
    script = _script()
    for name, value in words.items():
        script = script.replace(name, value)
    assert len(script) < LIMIT_BYTES, f"the start command has {len(script)} bytes"
    return StartCommand(("sh", "-c", script), {"PODLAB_LAUNCH": launch_id})


def _check(policy: Policy, now: float, usd_per_hour: float) -> None:
    """A switch that does not understand its policy would never be armed. The limits are those of switch_rules.py."""
    left_s = 0.0 if policy.deadline_at is None else policy.deadline_at - now
    fine = (
        1.0 <= policy.lease_s <= LONGEST_S and (policy.idle_s is None or 1.0 <= policy.idle_s <= LONGEST_S)
        and (policy.budget_usd is None or 0.0 <= policy.budget_usd <= MOST_USD) and abs(left_s) <= LONGEST_S
        and 0.0 <= usd_per_hour <= MOST_USD
    )  # fmt: skip
    if not fine:
        raise BadArgument(
            f"No switch can keep this policy: {policy}.",
            hint="Lease and idle time are at least a second, and nothing is longer than ten years.",
        )


@cache
def _packed() -> str:
    """The switch, as one word."""
    return base64.b64encode(zlib.compress(program("watchdog", *ROOMS, bare=True).encode(), 9)).decode()


@cache
def _script() -> str:
    """start.sh on one line."""
    lines = resources.files("podlab.remote").joinpath("start.sh").read_text(encoding="utf-8").splitlines()
    kept = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return " ".join(kept)


class Hearing:
    """What the start command says, out of a log that is read bit by bit: of all else in it nothing is kept, so that its
    lines are not lost in what an image has to say."""

    def __init__(self) -> None:
        self._keys: list[tuple[float | None, str, str]] = []
        """When it was said, of which type, its fingerprint; no type: a start has told all of its keys."""
        self._armed: tuple[float | None, bool, str] | None = None

    def take(self, line: RentalLine) -> None:
        """One more line, behind those that were taken. It is untrusted."""
        text = line.text[:LINE_LIMIT_CHARACTERS].strip()
        if line.source != "container" or not text.startswith("podlab: "):
            return
        if found := _HOST_KEY.fullmatch(text):
            if found[1] in _KEY_TYPES and len(self._keys) < KEYS_LIMIT:
                self._keys.append((line.at, found[1], found[2]))
        elif text == _KEYS_END:
            if len(self._keys) < KEYS_LIMIT:
                self._keys.append((line.at, "", ""))
        elif text.startswith("podlab: armed {"):
            self._armed = line.at, True, ""
        elif text.startswith("podlab: not armed: "):
            self._armed = line.at, False, _plain(text.removeprefix("podlab: not armed: "))

    def heard(self, since: float | None = None) -> Heard:
        """All of it, but for what came before `since`."""
        keys: dict[str, str] = {}
        for at, kind, fingerprint in self._keys:
            if _is_before(at, since):
                continue
            if not kind:
                break
            keys.setdefault(kind, fingerprint)
        armed, detail = None, ""
        if self._armed is not None and not _is_before(self._armed[0], since):
            armed, detail = self._armed[1:]
        return Heard(tuple(keys[kind] for kind in _KEY_TYPES if kind in keys), armed, detail)


def heard(lines: Iterable[RentalLine], *, since: float | None = None) -> Heard:
    """What the start command said, from the lines of a container's log, oldest first.

    `since` (the provider's clock: the rental's `started_at`) leaves out what came before; after a restart the log
    still holds the lines of the start before, and an image without a volume makes new host keys at each start.

    Of each type of host key the first line counts, and none after the start command said that all are told: whoever is
    in the container can write into its log, but before that nobody is: no SSH server listens yet and nothing of the
    image has run. (The switch's being armed is no such end: it comes while the keys are still made. An image without
    ssh-keygen has no end: its keys are told once they are there.) What is heard of `armed` is the switch's own word,
    and decides only together with a beat (heartbeat.py). The lines are untrusted: their number and length are capped,
    and what is not understood is left out.
    """
    hearing = Hearing()
    for line in islice(lines, LINES_LIMIT):
        hearing.take(line)
    return hearing.heard(since)


def _is_before(at: float | None, since: float | None) -> bool:
    return since is not None and at is not None and at < since


def _plain(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text)[:300]
