"""podlab's own log: `PODLAB_HOME/logs/podlab.log`, rotated, 0600, without secrets. `podlab logs` shows it."""

from __future__ import annotations

import logging
import logging.handlers
import os
from pathlib import Path

from podlab.durable import private_folder
from podlab.secrets import redact
from podlab.settings import home

MAX_BYTES, KEPT_FILES = 2_000_000, 3


def log_path() -> Path:
    """Where the log is, whether or not it exists."""
    return home() / "logs" / "podlab.log"


def start_logging(*, verbose: bool = False) -> None:
    """Send the `podlab` loggers to the file (infos and worse, everything when verbose). Calling again adjusts."""
    logger = logging.getLogger("podlab")
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    logger.propagate = False
    path = log_path()
    for handler in logger.handlers[:]:
        if isinstance(handler, _PrivateFile):
            if handler.baseFilename == str(path):
                return
            logger.removeHandler(handler)
            handler.close()
    private_folder(path.parent)
    logger.addHandler(_handler(path))


def _handler(path: Path) -> logging.Handler:
    handler = _PrivateFile(path, maxBytes=MAX_BYTES, backupCount=KEPT_FILES, encoding="utf-8", delay=True)
    handler.setFormatter(_Redacted("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"))
    return handler


class _PrivateFile(logging.handlers.RotatingFileHandler):
    """Opens its file 0600 from the first byte. What cannot be written is not said elsewhere: it may hold a secret."""

    def _open(self):  # type: ignore[no-untyped-def]  # the base class declares a stream type that has no public name
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        return os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # the base class prints the arguments
        pass


class _Redacted(logging.Formatter):
    """Takes every known secret out of the finished line, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))
