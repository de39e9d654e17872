"""Where podlab's files live, and its settings: flags > environment > config.toml > default.

`PODLAB_HOME` (default `~/.podlab`, 0700) holds everything of the client's. Each setting below has an environment
variable of the same name: `chat.max_tokens` is `PODLAB_CHAT_MAX_TOKENS`.

Reading one setting looks at that one only; `check` holds the whole file against what may stand in it. What ends a pod
and what mends the file go without `check`: a slip of the pen must not keep a meter running.
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from podlab.durable import locked, private_folder, replace_file
from podlab.errors import BadArgument, BadSettings
from podlab.units import parse_bytes, parse_duration_s

T = TypeVar("T")
Source = Literal["flag", "environment", "file", "default"]


@dataclass(frozen=True)
class Setting:
    """One setting. `kind` reads it from text and refuses what it cannot be with a ValueError."""

    name: str
    kind: Callable[[str], Any]
    default: Any
    help: str

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return "PODLAB_" + self.name.replace(".", "_").upper()

    def text(self, value: Any) -> str:
        """A value as a person writes it, which `kind` reads back: "2h", "off"."""
        return _WRITTEN.get(self.kind, str)(value)

    def shown(self, value: Any) -> str:
        """A value as a person reads it: as it is written, money with its sign."""
        return ("$" if self.kind is _dollars and value is not None else "") + self.text(value)


def _switch(text: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    try:
        return words[text.lower()]
    except KeyError:
        raise ValueError("on or off") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan  # in no range, so the caller says what it takes


def _text(text: str) -> str:
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("text that UTF-8 can hold")
    return text


def _name(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError("a name")
    return text


def _seconds(text: str) -> float:
    value = _number(text)
    if not 0 < value < 86400:
        raise ValueError("seconds, more than 0 and less than 86400")
    return value


def _duration(text: str) -> float | None:
    if text.strip().lower() in ("off", "none"):
        return None
    try:
        value = parse_duration_s(text)
    except BadArgument:
        value = 0.0
    if not 60 <= value <= 30 * 86400:
        raise ValueError("a time from 1m to 30d, such as 20m or 2h, or off")
    return value


def _lease(text: str) -> float:
    value = _duration(text)
    if value is None or value > 86400:
        raise ValueError("a time from 1m to 1d, such as 10m: without a lease nothing on the pod would end it")
    return value


def _dollars(text: str) -> float | None:
    if text.strip().lower() in ("off", "none"):
        return None
    value = _number(text.strip().removeprefix("$"))
    if not 0 < value <= 100_000:
        raise ValueError("an amount of dollars above 0, such as 5 or 2.50, or off")
    return value


def _switch_text(value: bool) -> str:
    return "on" if value else "off"


def _duration_text(value: float | None) -> str:
    """7200 -> '2h', 5400 -> '90m': the largest unit that needs no fraction."""
    if value is None:
        return "off"
    for unit, size_s in (("d", 86400), ("h", 3600), ("m", 60)):
        if value % size_s == 0:
            return f"{value / size_s:.0f}{unit}"
    return f"{value!r}s"


def _dollars_text(value: float | None) -> str:
    if value is None:
        return "off"
    return f"{value:.0f}" if value == round(value) else f"{value:.2f}" if value == round(value, 2) else repr(value)


def _size_text(value: int) -> str:
    """536870912 -> '512MiB'."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if value % size == 0:
            return f"{value // size}{unit}"
    return str(value)


def _cloud(text: str) -> str:
    if text not in ("secure", "community", "any"):
        raise ValueError("secure, community or any")
    return text


def _log_cap(text: str) -> int:
    try:
        size = parse_bytes(text)
    except BadArgument:
        size = 0
    if size < 2**20:
        raise ValueError("a size from 1MiB, such as 512MiB")
    return size


def count(text: str) -> int:
    """A whole number from 1, from text. Raises ValueError saying so."""
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) >= 1):
        raise ValueError("a whole number from 1")
    return int(text)


def temperature(text: str) -> float:
    """A sampling temperature from 0 to 2, from text. Raises ValueError saying so."""
    value = _number(text)
    if not 0 <= value <= 2:
        raise ValueError("a number from 0 to 2")
    return value


RENT_IMAGE = "runpod/pytorch:2.8.0-py3.11-cuda12.8.1-cudnn-devel-ubuntu22.04"
"""It ends in a shell's start command, so that ours can run before it, and brings sshd and Python."""

SETTINGS: tuple[Setting, ...] = (
    Setting("pod", _name, "local", "the pod that commands without --on mean"),
    Setting("chat.system", _text, "", "the system prompt of new conversations"),
    Setting("chat.temperature", temperature, 0.7, "how freely a model chooses its words: 0 always the likeliest"),
    Setting("chat.max_tokens", count, 512, "the longest answer, in tokens"),
    Setting("keeper", _switch, True, "keep SSH connections and tunnels in a background process"),
    Setting("deadline_s", _seconds, 8.0, "how long a pod may take to answer before it is shown as unreachable"),
    Setting("start_deadline_s", _seconds, 600.0, "how long `model start` waits for ready after the model is there"),
    Setting("log_cap_bytes", _log_cap, 2**30, "how much of a log a pod keeps, such as 512MiB: older lines are dropped"),
    Setting("provider", _name, "runpod", "the company that pods are rented from without --provider"),
    Setting("rent.gpu_preferences", _text, "A40, RTX A6000, RTX A5000", "GPUs to be tried in this order without --gpu"),
    Setting("rent.cloud", _cloud, "secure", "whose machines are rented without --cloud: secure, community or any"),
    Setting("rent.image", _name, RENT_IMAGE, "the container image"),
    Setting("rent.disk_gb", count, 40, "the container's own disk, in GB"),
    Setting("rent.ttl", _duration, 8 * 3600.0, "how long a rented pod may live, such as 2h, or off"),
    Setting("rent.idle", _duration, 1800.0, "how long a rented pod may be idle, such as 20m, or off"),
    Setting("rent.budget_usd", _dollars, 10.0, "what a rented pod may cost in its whole life, or off"),
    Setting("rent.lease", _lease, 600.0, "how long a rented pod lives without word from this computer"),
    Setting("money.per_day_usd", _dollars, None, "what all pods together may cost a day, or off"),
    Setting("money.total_usd", _dollars, None, "what all pods together may cost in all, or off"),
    Setting("rent.max_pods", count, 4, "how many rented pods may live at the same time"),
    Setting("tracebacks", _switch, False, "show whole Python tracebacks instead of short errors"),
)
_BY_NAME = {setting.name: setting for setting in SETTINGS}
_WRITTEN: dict[Callable[[str], Any], Callable[[Any], str]] = {
    _switch: _switch_text, _duration: _duration_text, _lease: _duration_text, _dollars: _dollars_text,
    _log_cap: _size_text,
}  # fmt: skip
TABLES: dict[str, frozenset[str]] = {
    "pods": frozenset(
        {"id", "host", "user", "port", "identity_files", "proxy_jump", "models_path", "provider", "rental_id"}
    ),
    "attached": frozenset({"url", "model", "key", "key_in_clear"}),
}  # fmt: skip
"""Tables of config.toml that podlab writes by itself: an entry of any name in each, and what may stand in an entry."""


def home() -> Path:
    """`PODLAB_HOME`, made if missing (0700). Raises StateDamaged when it belongs to somebody else or cannot be made."""
    given = os.environ.get("PODLAB_HOME") or "~/.podlab"
    try:
        return private_folder(Path(given).expanduser().absolute())
    except (RuntimeError, ValueError) as error:  # this user has no home folder; a NUL in the name
        raise BadSettings(f"{given!r} cannot be a folder: {error}.", hint="Set PODLAB_HOME to your own.") from error


def config_path() -> Path:
    """Where config.toml is, whether or not it exists."""
    return home() / "config.toml"


def read_config() -> dict[str, Any]:
    """config.toml as a table, for reading only; {} when there is none. Raises BadSettings naming the line that is
    wrong."""
    return _parsed(config_path(), _loads, {})


@lru_cache(maxsize=2)
def _loads(text: str) -> dict[str, Any]:
    """What TOML says. Asked for many times a command, and parsing takes a millisecond."""
    return tomllib.loads(text)


def update_config(change: Callable[[Any], None]) -> None:
    """Change config.toml under a lock, keeping its comments and order. `change` gets a tomlkit document."""
    import tomlkit

    path = config_path()
    with locked(path.with_name("config.lock")):
        _parsed(path, tomllib.loads, None)  # tomlkit takes more than TOML allows
        document = _parsed(path, tomlkit.parse, tomlkit.document())
        change(document)
        replace_file(path, tomlkit.dumps(document).encode())


def _parsed(path: Path, parser: Callable[[str], T], otherwise: T) -> T:
    """A TOML file as `parser` reads it; `otherwise` when there is none. Raises BadSettings."""
    try:
        return parser(path.read_text("utf-8-sig"))
    except FileNotFoundError:
        return otherwise
    except (OSError, ValueError, RecursionError) as error:  # both TOML parsers raise kinds of ValueError
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise BadSettings(f"{path} cannot be read: {reason}", hint="Mend it with: podlab config edit") from error


def check() -> None:
    """Hold config.toml against what may stand in it. Raises BadSettings naming the file, the key and the fix."""
    document = read_config()
    known = _tree()
    for key, found in document.items():
        if key in TABLES:
            _check_entries(key, found)
        elif key not in known:
            raise _unknown(key, [*known, *TABLES])
        elif isinstance(known[key], Setting):
            _from_file(known[key].name, found)
        elif not isinstance(found, dict):
            raise _no_table(f"{key}.")
        else:
            for name, value in found.items():
                if name not in known[key]:
                    raise _unknown(f"{key}.{name}", [f"{key}.{each}" for each in known[key]])
                _from_file(f"{key}.{name}", value)


def _tree() -> dict[str, Any]:
    """The settings as config.toml nests them: {"pod": Setting, "chat": {"system": Setting}}."""
    tree: dict[str, Any] = {}
    for declared in SETTINGS:
        table, _, key = declared.name.rpartition(".")
        (tree.setdefault(table, {}) if table else tree)[key] = declared
    return tree


def _check_entries(table: str, entries: Any) -> None:
    for name, fields in entries.items() if isinstance(entries, dict) else ():
        for key in fields if isinstance(fields, dict) else ():
            if key not in TABLES[table]:
                raise _unknown(f"{table}.{name}.{key}", [f"{table}.{name}.{each}" for each in TABLES[table]])


def _unknown(key: str, known: list[str]) -> BadSettings:
    from difflib import get_close_matches

    # A setting's whole name may be nearer than any in its table: [rent] budget belongs to rent.budget_usd.
    near = get_close_matches(key, [*known, *_BY_NAME], n=1, cutoff=0.6)
    meant = f"Did you mean {near[0]}? " if near else ""
    return BadSettings(
        f"{config_path()} has a key that podlab does not know: {key}.", hint=f"{meant}Mend it with: podlab config edit"
    )


def setting(name: str) -> Setting:
    """The declaration of a setting. Raises BadSettings for a name that is none."""
    try:
        return _BY_NAME[name]
    except KeyError:
        from difflib import get_close_matches

        near = get_close_matches(name, _BY_NAME, n=1, cutoff=0.5)
        hint = f"Did you mean {near[0]}?" if near else "See: podlab config show"
        raise BadSettings(f"There is no setting {name!r}.", hint=hint) from None


def parse(name: str, text: str, *, where: str = "") -> Any:
    """The value that `text` means for a setting. Raises BadSettings naming the setting, the text and the fix.

    `where` says in that sentence who wants it so.
    """
    declared = setting(name)
    try:
        return declared.kind(text)
    except ValueError as error:
        said = f"{name} cannot be {text[:80]!r}{where and f', as {where} says'}."
        raise BadSettings(said, hint=f"It takes {error}.") from error


def value(name: str) -> tuple[Any, Source]:
    """A setting's value now, and where it comes from (environment, file or default)."""
    declared = setting(name)
    if (text := os.environ.get(declared.variable)) is not None:
        return parse(name, text, where=declared.variable), "environment"
    found: Any = read_config()
    for part in name.split("."):
        if not isinstance(found, dict):
            raise _no_table(name)
        if (found := found.get(part)) is None:
            return declared.default, "default"
    return _from_file(name, found), "file"


def _from_file(name: str, found: Any) -> Any:
    if isinstance(found, bool):
        found = "on" if found else "off"
    if not isinstance(found, (str, int, float)):
        raise BadSettings(f"{name} cannot be {str(found)[:80]}, as config.toml says.", hint="It takes a single value.")
    return parse(name, str(found), where="config.toml")


def store(name: str, text: str) -> Any:
    """Write a setting to config.toml; returns its value. Raises BadSettings before anything is written."""
    parsed = parse(name, text)
    declared = setting(name)
    # What TOML has a type for is written so; durations, sizes and "off" as a person writes them.
    written = declared.text(parsed) if parsed is None or declared.kind in (_duration, _lease, _log_cap) else parsed

    def change(document: Any) -> None:
        *tables, key = name.split(".")
        for table in tables:
            if not isinstance(document.setdefault(table, {}), dict):
                raise _no_table(name)
            document = document[table]
        document[key] = written

    update_config(change)
    return parsed


def _no_table(name: str) -> BadSettings:
    table = name.rpartition(".")[0]
    said = f"{table} in config.toml is not a table, so {name} has no place in it."
    return BadSettings(said, hint="Mend it with: podlab config edit")
