"""Providers by their names: what is asked when a command says --provider."""

from __future__ import annotations

import difflib
import json
import os
import threading

from podlab import secrets
from podlab.errors import BadSecret, BadSettings, NotFound, StateDamaged
from podlab.providers.base import Belongings, Provider
from podlab.secrets import Secret
from podlab.settings import home

NAMES = ("local", "ssh", "runpod", "sandbox")
KEY = "RUNPOD_API_KEY"
URL = "RUNPOD_API_BASE_URL"
SANDBOX_FILE = "sandbox.json"
_made: dict[tuple[str, str, Secret, tuple[str, ...]], Provider] = {}
_making = threading.Lock()
CHANGING = threading.Lock()
"""Held while a process changes its own KEY and URL: no key is sent to the address of another."""


def company(name: str) -> Provider:
    """The provider of that name, one per key, address and way there in a process. Asks nobody anything.

    A sandbox that is not open has no pods, and refuses all else. Raises NotFound for a name that is none, BadSecret
    without a key, BadSettings for a base URL that a key must not be sent to.
    """
    if name == "local":
        from podlab.providers.local import LocalProvider

        return LocalProvider()
    if name == "ssh":
        from podlab.providers.ssh import SshProvider

        return SshProvider()
    if name not in NAMES:
        near = difflib.get_close_matches(name.lower(), NAMES, n=1)
        said = f"Did you mean {near[0]}?" if near else f"There are {', '.join(NAMES)}."
        raise NotFound(f"There is no provider {name!r}.", hint=said)
    if name == "sandbox" and not (home() / SANDBOX_FILE).exists():
        from podlab.providers.closed_sandbox import ClosedSandbox

        return ClosedSandbox()
    from podlab.http import network

    url, key = address(name)
    asked = name, url, key, network()
    with _making:
        if asked not in _made:
            _made[asked] = _provider(name, url, key)
        return _made[asked]


def address(name: str) -> tuple[str, Secret]:
    """Where a company that rents is asked, and the key of its account.

    Raises as `company` does, and NotFound for a sandbox that is not open.
    """
    return _sandbox() if name == "sandbox" else _runpod()


def with_key(key: Secret) -> Provider:
    """RunPod with a key that is not kept yet, so that it can be tried. Raises BadSettings as `company` does."""
    return _provider("runpod", _runpod_url(), key)


def identity(key: Secret, url: str) -> str:
    """Whose account a key is of, as `Provider.identity` has it; `url` "" is RunPod's own. Raises BadSettings as
    `company` does."""
    from podlab.providers.runpod import URL as OFFICIAL
    from podlab.providers.runpod import identity_of

    return identity_of(key, _checked_url(url or OFFICIAL, URL))


def _provider(name: str, url: str, key: Secret) -> Provider:
    from podlab.providers.runpod import RunpodProvider

    if name != "sandbox":
        return RunpodProvider(key=key, url=url, name=name)
    return RunpodProvider(key=key, url=url, name=name, simulated=True, lag_s=_sandbox_lag_s())


def belongings(name: str) -> Belongings:
    """What the account at a provider keeps besides pods. Raises NotFound for a provider that keeps nothing, and as
    `address` does."""
    found = company(name)
    if found.rents:
        address(name)  # a sandbox that is not open says so
    if not isinstance(found, Belongings):
        raise NotFound(
            f"The provider {name!r} keeps no volumes, templates, registries or keys.",
            hint="Name one that rents: --provider runpod, or --provider sandbox.",
        )
    return found


def _runpod() -> tuple[str, Secret]:
    with CHANGING:
        key = secrets.find(KEY)
        if key is None:
            raise BadSecret("Renting from RunPod needs its API key.", hint=f"podlab secret set {KEY}, or podlab init")
        return _runpod_url(), key


def _runpod_url() -> str:
    from podlab.providers.runpod import URL as OFFICIAL

    return _checked_url(os.environ.get(URL) or OFFICIAL, URL)


def _sandbox() -> tuple[str, Secret]:
    """Where the sandbox of this PODLAB_HOME is open, and the key of its account."""
    path = home() / SANDBOX_FILE
    closed = "Open it: podlab sandbox up"
    try:
        given = json.loads(path.read_bytes())
        url, key = given["url"], Secret(given["key"])
    except FileNotFoundError:
        raise NotFound("The sandbox is not open.", hint=closed) from None
    except (OSError, ValueError, KeyError, TypeError, BadSecret, RecursionError) as error:
        raise StateDamaged(f"{path} does not say where the sandbox is.", hint=closed) from error
    return _checked_url(str(url), str(path)), key


def _sandbox_lag_s() -> float:
    """How late its listings may be, as it says: the pretended company's own are never late unless that is ordered."""
    from podlab.providers.runpod import LAG_S

    try:
        return float(json.loads((home() / SANDBOX_FILE).read_bytes())["lag_s"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return LAG_S


def _checked_url(url: str, where: str) -> str:
    """A base URL that a key may be sent to: encrypted, or to this very computer."""
    from podlab.http import is_loopback_url

    if not url.lower().startswith("https://") and not is_loopback_url(url):
        raise BadSettings(
            f"{where} is {url[:100]!r}: a key would be sent there unencrypted.", hint="Write it with https://"
        )
    return url.rstrip("/")
