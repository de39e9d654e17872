"""podlab's errors on their way from the keeper to a client: the same class with the same attributes comes out."""

from __future__ import annotations

import base64
import json
from typing import Any

from podlab import errors
from podlab.errors import KeeperError, PodlabError
from podlab.transport.kept_wire import NotTheProtocol


def pack_error(error: PodlabError) -> bytes:
    """An error as a payload. Attributes may be None, text, numbers, bytes and tuples of those."""
    names = [kind.__name__ for kind in type(error).__mro__ if issubclass(kind, PodlabError)]
    fields = {name: _pack(value) for name, value in vars(error).items() if not name.startswith("_")}
    return json.dumps([names, fields]).encode()


def unpack_error(payload: bytes) -> PodlabError:
    """The error in a payload; a class this podlab does not know becomes the nearest one that it does."""
    try:
        names, fields = json.loads(payload)
        values = {name: _unpack(value) for name, value in fields.items()}
        kind = next(known for name in names if (known := _known(name)))
    except (ValueError, TypeError, AttributeError, StopIteration) as error:
        raise NotTheProtocol("no error that is known") from error
    # Constructors take what their message is made of; here the message is already made.
    made = kind.__new__(kind)
    PodlabError.__init__(made, str(values.get("message", "")))
    vars(made).update(values)
    return made


def unexpected(error: Exception) -> KeeperError:
    """What a client is told when the keeper itself did something wrong."""
    return KeeperError(f"The keeper failed: {type(error).__name__}: {error}", hint="See: podlab logs")


def _known(name: Any) -> type[PodlabError] | None:
    kind = getattr(errors, str(name), None)
    return kind if isinstance(kind, type) and issubclass(kind, PodlabError) else None


def _pack(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, tuple):
        return [_pack(part) for part in value]
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def _unpack(value: Any) -> Any:
    if isinstance(value, dict):
        return base64.b64decode(value["base64"])
    if isinstance(value, list):
        return tuple(_unpack(part) for part in value)
    return value
