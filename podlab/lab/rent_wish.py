"""What a person asks to be rented: which machine, what it may cost, when it ends."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from podlab import settings
from podlab.errors import BadArgument
from podlab.lab import pods
from podlab.renting import OfferQuery
from podlab.secrets import what_it_holds
from podlab.transport.host_keys import checked_fingerprint

SSH_PORT = "22/tcp"
MOUNT = "/workspace"
"""Where a pod's disk is unless it is said otherwise."""
MOST_PORTS, MOST_VARIABLES = 10, 40
"""RunPod opens ten HTTP ports and takes fifty variables, some of which are podlab's own."""
SMALLEST_VOLUME_GB, LARGEST_DISK_GB = 10, 10_000
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_SECRET = re.compile(
    r"(?i).*(API_?KEY|(?:ACCESS|PRIVATE|AUTH)_?KEY|TOKEN(?!IZER|S)|(?:API|AUTH|ACCESS)_?TOKENS|SECRET|PASSW|CREDENTIAL).*"
    r"|(.*_)?PASS|.*_(PWD|AUTH)"
)
"""Names of variables that hold secrets. TOKENIZERS_PARALLELISM and MAX_TOKENS do not."""
_RESERVED = re.compile(r"(?i)(RUNPOD_|PODLAB_).*|PUBLIC_KEY|SSH_PUBLIC_KEY")
_PORT = re.compile(r"([0-9]{1,5})/(tcp|http)")
_REGION = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8}){0,3}")
_CUDA = re.compile(r"[0-9]{1,2}\.[0-9]{1,2}")
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._/:@-]{0,255}", re.IGNORECASE)


@dataclass(frozen=True)
class RentWish:
    """All of it, settled: what was left open has the setting's value. Of limits None is "off"."""

    provider: str = "runpod"
    name: str | None = None
    """None: the next free podlab-YYYY-MM-DD-NNN."""
    gpus: tuple[str, ...] = ()
    """Kinds that a person named, in the order to be tried; () leaves it to `preferences`, or to `for_model`."""
    preferences: tuple[str, ...] = ("A40", "RTX A6000", "RTX A5000")
    for_model: str | None = None
    """A model that has to fit; with `gpus` empty the cheapest machine that holds it is taken."""
    count: int | None = None
    """How many GPUs; None: one, or as few as `for_model` fits on."""
    cloud: Literal["secure", "community", "any"] = "secure"
    regions: tuple[str, ...] = ()
    """Data centers (EU-RO-1), or the beginnings of their names (EU, US-TX)."""
    min_cuda: str | None = None
    """None: what the image's name says it needs."""
    disk_gb: int = 40
    persistent_gb: int | None = None
    volume: str | None = None
    """A network volume, by its name or id."""
    mount_path: str = MOUNT
    image: str = settings.RENT_IMAGE
    template: str | None = None
    """A template of the provider, by its name or id, instead of the image."""
    registry: str | None = None
    ports: tuple[str, ...] = ()
    """Beside SSH: "8000/http", "9000/tcp"."""
    env: tuple[str, ...] = ()
    """NAME=VALUE, for the container's environment. Everybody with the account's key can read them."""
    spot: bool = False
    max_usd_per_hour: float | None = None
    """For all GPUs and the disk together."""
    budget_usd: float | None = 10.0
    ttl_s: float | None = 8 * 3600.0
    idle_s: float | None = 1800.0
    lease_s: float = 600.0
    wait_s: float | None = None
    """How long to wait where nothing is free; None: not at all."""
    host_key: str | None = None
    """The fingerprint its host key must have; None: what the provider's log shows of it."""
    notebook: str = ""
    """The notebook it is rented from, for the bill."""

    def check(self) -> None:
        """Refuse what no provider could do. Raises BadArgument naming the option, the value and the fix."""
        if self.name is not None:
            pods.check_name(self.name)
        if self.spot:
            raise BadArgument(
                "--spot: there are no spot pods any more. RunPod's current interface has no bids, and no other "
                "provider of podlab ever had.",
                hint="Leave --spot away. --cloud community is cheaper; --max-price sets what you would pay at most.",
            )
        if self.wait_s is not None and self.max_usd_per_hour is None:
            raise BadArgument(
                "--wait has no price: nobody may be there to say yes when a GPU comes free.",
                hint="Say what an hour may cost at most: --max-price 0.60",
            )
        if self.host_key is not None:
            checked_fingerprint(self.host_key)
        self._check_machine()
        self._check_disks()
        check_ports(self.ports)
        check_variables(self.env)

    def _check_machine(self) -> None:
        if self.count is not None and not 1 <= self.count <= 16:
            raise BadArgument(f"--count {self.count} is no number of GPUs for a pod.", hint="Give 1 to 16.")
        for region in self.regions:
            if not _REGION.fullmatch(region):
                raise BadArgument(f"--region {region[:40]!r} is no place.", hint="Write EU-RO-1, US-TX or EU.")
        if self.min_cuda is not None and not _CUDA.fullmatch(self.min_cuda):
            raise BadArgument(f"--cuda {self.min_cuda[:20]!r} is no version.", hint="Write it as 12.8.")
        if self.template is None and not _IMAGE.fullmatch(self.image):
            raise BadArgument(f"--image {self.image[:80]!r} is no image.", hint="Write it as owner/name:tag.")

    def _check_disks(self) -> None:
        if self.volume is not None and self.persistent_gb is not None:
            raise BadArgument(
                "--volume and --persistent are two disks for one place.",
                hint="A network volume outlives the pod, a persistent disk ends with it: choose one.",
            )
        if not 1 <= self.disk_gb <= LARGEST_DISK_GB:
            raise BadArgument(f"--disk {self.disk_gb} is no size.", hint=f"Give GB from 1 to {LARGEST_DISK_GB}.")
        if self.persistent_gb is not None and not SMALLEST_VOLUME_GB <= self.persistent_gb <= LARGEST_DISK_GB:
            raise BadArgument(
                f"--persistent {self.persistent_gb} is no size.",
                hint=f"Give GB from {SMALLEST_VOLUME_GB} to {LARGEST_DISK_GB}.",
            )
        if not self.mount_path.startswith("/") or "\0" in self.mount_path or self.mount_path == "/":
            raise BadArgument(f"--mount {self.mount_path[:80]!r} is no place for a disk.", hint="Write /workspace.")
        if self.mount_path != MOUNT and self.volume is None and self.persistent_gb is None:
            raise BadArgument(
                f"--mount {self.mount_path[:80]} has no disk to be put there.",
                hint="Say which: --volume NAME or --persistent 50.",
            )

    @property
    def starts_switch(self) -> bool:
        """Whether its image is known to let podlab's start command run, and with it the pod's own switch: RunPod's own
        images do, and nobody knows it of others and of templates before they are tried."""
        return self.template is None and self.image.startswith("runpod/")

    @property
    def needed_cuda(self) -> str | None:
        """The oldest CUDA that the machine's driver has to run: as asked, else what the image's name says of its own.

        A container whose CUDA is newer than the driver starts and then finds no GPU.
        """
        if self.min_cuda is not None:
            return self.min_cuda
        said = re.search(r"cu(?:da)?[-_]?([0-9]{2})\.?([0-9])", self.image.lower()) if self.template is None else None
        return f"{said[1]}.{said[2]}" if said else None

    @property
    def variables(self) -> tuple[tuple[str, str], ...]:
        """The variables as (name, value)."""
        return tuple((name, value) for name, _, value in (pair.partition("=") for pair in self.env))

    def query(self, count: int) -> OfferQuery:
        """What the provider is asked for; what it cannot filter by is refused here, with a reason."""
        return OfferQuery(gpu_count=count, cloud=None if self.cloud == "any" else self.cloud, min_cuda=self.needed_cuda)

    def text(self) -> str:
        """As one line that `wish_from` reads back: the ledger keeps it, so that the same pod can be rented again."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)


def wish_from(text: str) -> RentWish | None:
    """The wish that `text` holds, None where another version of podlab wrote something else."""
    try:
        told = json.loads(text)
        known = {field.name for field in fields(RentWish)}
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in told.items()
        }
        return RentWish(**{name: value for name, value in given.items() if name in known})
    except (ValueError, TypeError, AttributeError):
        return None


def wish_of(
    value: Callable[[str], Any], *, name: str | None = None, provider: str | None = None, gpu: Sequence[str] = (),
    for_model: str | None = None, count: int | None = None, cloud: str | None = None, region: Sequence[str] = (),
    cuda: str | None = None, disk: str | None = None, persistent: str | None = None, volume: str | None = None,
    mount: str | None = None, image: str | None = None, template: str | None = None, registry: str | None = None,
    port: Sequence[str] = (), env: Sequence[str] = (), spot: bool = False, max_price: str | None = None,
    budget: str | None = None, ttl: str | None = None, idle: str | None = None, lease: str | None = None,
    wait: str | None = None, host_key: str | None = None, notebook: str = "",
) -> RentWish:  # fmt: skip
    """What options mean, as a person wrote them; `value` gives the settings for those that were left away.

    Raises BadArgument naming the option, the value and the fix.
    """
    lease_s = _limit(value, "rent.lease", "--lease", lease)
    if lease_s is None:
        raise BadArgument("--lease off would leave a pod alone for ever.", hint="Give a time, such as 10m.")
    wish = RentWish(
        provider=provider or value("provider"), name=name, gpus=_listed(gpu),
        preferences=_listed([value("rent.gpu_preferences")]), for_model=for_model, count=count,
        cloud=_limit(value, "rent.cloud", "--cloud", cloud), regions=tuple(each.upper() for each in _listed(region)),
        min_cuda=cuda, disk_gb=_limit(value, "rent.disk_gb", "--disk", _gb(disk)),
        persistent_gb=None if persistent is None else _limit(value, "rent.disk_gb", "--persistent", _gb(persistent)),
        volume=volume, mount_path=mount or MOUNT, image=image or value("rent.image"), template=template,
        registry=registry, ports=tuple(each if "/" in each else f"{each}/http" for each in _listed(port)),
        env=tuple(env), spot=spot,
        max_usd_per_hour=None if max_price is None else _limit(value, "rent.budget_usd", "--max-price", max_price),
        budget_usd=_limit(value, "rent.budget_usd", "--budget", budget),
        ttl_s=_limit(value, "rent.ttl", "--ttl", ttl), idle_s=_limit(value, "rent.idle", "--idle", idle),
        lease_s=lease_s, wait_s=None if wait is None else _limit(value, "rent.ttl", "--wait", wait),
        host_key=host_key, notebook=notebook,
    )  # fmt: skip
    if image is not None and template is not None:
        raise BadArgument("--image and --template both name an image.", hint="Choose one.")
    wish.check()
    return wish


def _limit(value: Callable[[str], Any], setting: str, option: str, text: str | None) -> Any:
    """What an option says, else the setting. Raises BadArgument."""
    if text is None:
        return value(setting)
    try:
        return settings.setting(setting).kind(text)
    except ValueError as error:
        raise BadArgument(f"{option} cannot be {text[:80]!r}.", hint=f"It takes {error}.") from error


def _listed(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(part.strip() for text in texts for part in text.split(",") if part.strip())


def _gb(text: str | None) -> str | None:
    return None if text is None else re.sub(r"(?i)\s*gi?b?$", "", text.strip())


def check_ports(ports: Sequence[str]) -> None:
    """Raise BadArgument for --port that no pod can have."""
    for port in ports:
        said = _PORT.fullmatch(port)
        if said is None or not 1 <= int(said[1]) <= 65535:
            raise BadArgument(f"--port {port[:40]!r} is no port.", hint="Write 8000/http or 9000/tcp.")
        if said[1] == "22":
            raise BadArgument(f"--port {port}: SSH's port is always open.", hint="Leave it away.")
    if len(ports) > MOST_PORTS:
        raise BadArgument(f"--port is given {len(ports)} times.", hint=f"A pod opens {MOST_PORTS} ports at most.")
    if len(set(ports)) < len(ports):
        raise BadArgument("--port names one port twice.", hint="Leave one of them away.")


def check_variables(env: Sequence[str]) -> None:
    """Raise BadArgument for --env that is no variable of a pod, or that would show a secret in every list."""
    if len(env) > MOST_VARIABLES:
        raise BadArgument(f"--env is given {len(env)} times.", hint=f"A pod takes {MOST_VARIABLES} of them.")
    names = [pair.partition("=")[0] for pair in env]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise BadArgument(f"--env names {twice[:80]} twice.", hint="Leave one of them away.")
    for pair in env:
        name = pair.partition("=")[0]
        if "=" not in pair or "\0" in pair or not _VARIABLE.fullmatch(name):
            raise BadArgument(f"--env {name[:80]!r} is no NAME=VALUE.", hint="Write --env NAME=VALUE.")
        if _SECRET.fullmatch(name):
            raise BadArgument(
                f"--env {name} looks like a secret, and a pod's environment can be read in every list of the account.",
                hint='Send it over SSH once the pod is there, by standard input: podlab pod run -- sh -c "cat >FILE" '
                "<FILE. A model start takes the secrets that it needs along by itself.",
            )
        if held := what_it_holds(pair):
            raise BadArgument(
                f"--env {name} holds {held}, and a pod's environment can be read in every list of the account.",
                hint="Keep it with podlab secret set NAME, and send it over SSH once the pod is there.",
            )
        if _RESERVED.fullmatch(name):
            raise BadArgument(f"--env {name} is podlab's or the provider's own.", hint="Choose another name.")
