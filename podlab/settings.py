"""Where podlab's files live, and its settings: flags > environment > config.toml > default.

`PODLAB_HOME` (default `~/.podlab`, 0700) holds everything of the client's. Each setting below has an environment
variable of the same name: `chat.max_tokens` is `PODLAB_CHAT_MAX_TOKENS`.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from podlab.durable import locked, private_folder, replace_file
from podlab.errors import BadSettings

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


def _switch(text: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    try:
        return words[text.lower()]
    except KeyError:
        raise ValueError("on or off") from None


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 86400:
        raise ValueError("seconds, more than 0")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError("a whole number from 1")
    return value


def _temperature(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 2:
        raise ValueError("a number from 0 to 2")
    return value


SETTINGS: tuple[Setting, ...] = (
    Setting("pod", str, "local", "the pod that commands without --on mean"),
    Setting("chat.system", str, "", "the system prompt of new conversations"),
    Setting("chat.temperature", _temperature, 0.7, "how freely a model chooses its words: 0 always the likeliest"),
    Setting("chat.max_tokens", _count, 512, "the longest answer, in tokens"),
    Setting("keeper", _switch, True, "keep SSH connections and tunnels in a background process"),
    Setting("deadline_s", _seconds, 8.0, "how long a pod may take to answer before it is shown as unreachable"),
    Setting("start_deadline_s", _seconds, 600.0, "how long `model start` waits for ready after the model is there"),
    Setting("tracebacks", _switch, False, "show whole Python tracebacks instead of short errors"),
)
_BY_NAME = {setting.name: setting for setting in SETTINGS}


def home() -> Path:
    """`PODLAB_HOME`, made if missing (0700). Raises StateDamaged when it belongs to somebody else."""
    return private_folder(Path(os.environ.get("PODLAB_HOME") or Path.home() / ".podlab"))


def config_path() -> Path:
    """Where config.toml is, whether or not it exists."""
    return home() / "config.toml"


def read_config() -> dict[str, Any]:
    """config.toml as a table; {} when there is none. Raises BadSettings naming the line that is wrong."""
    path = config_path()
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings(f"{path} cannot be read: {error}", hint="Mend it with: podlab config edit") from error


def update_config(change: Callable[[Any], None]) -> None:
    """Change config.toml under a lock, keeping its comments and order. `change` gets a tomlkit document."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    path = config_path()
    with locked(path.with_name("config.lock")):
        try:
            document = tomlkit.parse(path.read_text("utf-8")) if path.exists() else tomlkit.document()
        except (TOMLKitError, UnicodeDecodeError) as error:
            raise BadSettings(f"{path} cannot be read: {error}", hint="Mend it with: podlab config edit") from error
        change(document)
        replace_file(path, tomlkit.dumps(document).encode())


def setting(name: str) -> Setting:
    """The declaration of a setting. Raises BadSettings for a name that is none."""
    try:
        return _BY_NAME[name]
    except KeyError:
        raise BadSettings(f"There is no setting {name!r}.", hint="See: podlab config show") from None


def parse(name: str, text: str) -> Any:
    """The value that `text` means for a setting. Raises BadSettings naming the setting, the text and the fix."""
    declared = setting(name)
    try:
        return declared.kind(text)
    except ValueError as error:
        raise BadSettings(f"{name} cannot be {text!r}.", hint=f"It takes {error}.") from error


def value(name: str) -> tuple[Any, Source]:
    """A setting's value now, and where it comes from (environment, file or default)."""
    declared = setting(name)
    if (text := os.environ.get(declared.variable)) is not None:
        return parse(name, text), "environment"
    table: Any = read_config()
    for part in name.split("."):
        table = table.get(part) if isinstance(table, dict) else None
    if table is None:
        return declared.default, "default"
    text = ("on" if table else "off") if isinstance(table, bool) else str(table)
    return parse(name, text), "file"


def store(name: str, text: str) -> Any:
    """Write a setting to config.toml; returns its value. Raises BadSettings before anything is written."""
    parsed = parse(name, text)

    def change(document: Any) -> None:
        *tables, key = name.split(".")
        for table in tables:
            document = document.setdefault(table, {})
        document[key] = parsed

    update_config(change)
    return parsed
