"""Secrets: a type that does not show itself, where they are kept, and redaction by value.

A secret comes from the environment (`HF_TOKEN`) or from `PODLAB_HOME/keys/NAME` (0600), written by
`podlab secret set NAME`. Every value that was read is remembered in this process, so `redact` can take it out of any
text before it is logged or shown.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import stat
import unicodedata
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote

from podlab import errors
from podlab.durable import private_folder, replace_file, translated
from podlab.errors import BadSecret, NotFound
from podlab.settings import home

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_known: set[str] = set()
MASK = "********"
LIMIT_BYTES = 64 * 2**10
SHORTEST = 8
"""A shorter value is a word like any other."""
USUAL = ("HF_TOKEN", "RUNPOD_API_KEY")
"""Secrets that are looked for in the environment, too."""
_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{16,}|sk-[\w-]{16,}|rpa_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}"
    r"|github_pat_\w{20,}|glpat-[\w-]{16,}|nvapi-[\w-]{16,}|AKIA[0-9A-Z]{16}|xox[abprs]-[\w-]{10,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.)|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
"""How the tokens of services begin that people use beside a rented pod; and a private key in PEM."""


class Secret:
    """A value that shows as asterisks everywhere but in `reveal()`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        if not value or any(unicodedata.category(letter) in ("Cc", "Cs") for letter in value):
            raise BadSecret("A secret is empty or holds a control character.", hint="Set it again, without a line end.")
        self._value = value
        remember(value)

    def reveal(self) -> str:
        """The value. Call it where it is used, and nowhere else."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return MASK

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret does not leave the process")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


def remember(value: str) -> None:
    """Have `redact` take `value` out of texts from now on, and the forms in which texts quote it.

    Short values are left: they would redact ordinary words.
    """
    if len(value) >= SHORTEST:
        _known.update(_forms(value))


def _forms(value: str) -> set[str]:
    data = value.encode(errors="replace")
    in_url, in_base64 = quote(data, safe=""), base64.b64encode(data).decode().rstrip("=")
    return {value, json.dumps(value)[1:-1], repr(value)[1:-1], in_url, in_base64}


def redact(text: str) -> str:
    """`text` without any secret this process has read."""
    for value in sorted(_known, key=len, reverse=True):
        text = text.replace(value, MASK)
    return text


errors.redact_with(redact)


def what_it_holds(text: str) -> str:
    """Which secret a text gives away, in words: one that podlab knows, by its value, or what looks like a token.

    "" for none. The words hold nothing of the secret. Raises StateDamaged when the kept ones cannot be listed.
    """
    for name in dict.fromkeys((*USUAL, *names())):
        with contextlib.suppress(BadSecret):
            secret = find(name)
            if secret is not None and _hides(secret.reveal(), text):
                return f"the value of {name}"
    return "what looks like a token or a key" if _TOKEN.search(text) else ""


def _hides(value: str, text: str) -> bool:
    """Whether a text has a secret in it, in one of the forms in which texts quote it."""
    return len(value) >= SHORTEST and any(form in text for form in _forms(value))


def find(name: str) -> Secret | None:
    """The secret `name` from the environment, else from its file, else None. Raises BadSecret if kept unsafely."""
    _check(name)
    if text := os.environ.get(name):
        return _secret(text, f"The environment variable {name}")
    return kept(name)


def kept(name: str) -> Secret | None:
    """The secret `name` from its file, whatever the environment says; else None. Raises BadSecret if kept unsafely."""
    _check(name)
    path = _path(name)
    try:
        # Checked on the open file, so that it cannot become another one in between; never waiting for a FIFO's writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unsafe(path) from error
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode) or info.st_uid != os.getuid() or stat.S_IMODE(info.st_mode) & 0o077:
            raise _unsafe(path)
        # What is no UTF-8 becomes half characters, which no secret may hold.
        return _secret(os.read(descriptor, LIMIT_BYTES).decode(errors="surrogateescape"), str(path))
    finally:
        os.close(descriptor)


def _secret(text: str, where: str) -> Secret:
    with contextlib.suppress(BadSecret):
        return Secret(text.strip())
    raise BadSecret(f"{where} holds no secret: it is empty or has a control character.", hint="Set it again.")


def _unsafe(path: Path) -> BadSecret:
    return BadSecret(
        f"{path} is not a private file of yours, so its content is not used.",
        hint=f"Remove it and set it again: podlab secret set {path.name}",
    )


def keep(name: str, value: Secret) -> None:
    """Write a secret to its file (0600 from creation)."""
    _check(name)
    private_folder(home() / "keys")
    replace_file(_path(name), value.reveal().encode())


def shadowed(name: str) -> str:
    """What to say where the environment has another value than the one that is kept."""
    return f"The environment variable {name} has another value and goes before the kept one: unset it there."


def forget(name: str) -> None:
    """Remove a secret's file. Raises NotFound when there is none, StateDamaged when it cannot be removed."""
    _check(name)
    path = _path(name)
    with translated(path):
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"No secret {name!r} is kept.", hint="See: podlab secret list") from None


def names() -> list[str]:
    """The secrets that are kept in files, sorted."""
    folder = home() / "keys"
    with translated(folder):
        return sorted(p.name for p in folder.iterdir() if _NAME.fullmatch(p.name)) if folder.is_dir() else []


def _path(name: str) -> Path:
    return home() / "keys" / name


def _check(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise BadSecret(f"{name!r} cannot be a secret's name.", hint="Use letters, digits and _, such as HF_TOKEN.")
