"""podlab's own log: private from its first byte, and without secrets."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from podlab import logs, secrets
from podlab.secrets import MASK, Secret

CANARY = "canary-in-the-log-7d1f"
log = logging.getLogger("podlab.test")


@pytest.fixture(autouse=True)
def own_handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The podlab logger as it was before, afterwards; and no value is redacted from another test's output."""
    monkeypatch.setattr(secrets, "_known", set())
    logger = logging.getLogger("podlab")
    before = logger.handlers[:], logger.level, logger.propagate
    # pytest puts handlers of its own on a logger that does not propagate, as one that an earlier test used does not.
    logger.handlers, logger.propagate = [], True
    yield
    for handler in logger.handlers:
        handler.close()
    logger.handlers, logger.level, logger.propagate = before


def written() -> str:
    return "".join(path.read_text("utf-8") for path in sorted(logs.log_path().parent.iterdir()))


def test_no_secret_is_written() -> None:
    """Messages, arguments, exceptions with their causes and stacks reach the file with asterisks for the value."""
    logs.start_logging(verbose=True)
    secret = Secret(CANARY)
    log.warning("plain %s and %r", secret, CANARY)
    log.info("joined " + CANARY)  # noqa: G003
    log.debug("a dict: %s", {"authorization": f"Bearer {CANARY}"})
    try:
        try:
            raise ValueError(CANARY)
        except ValueError as error:
            raise RuntimeError(f"because of {CANARY}") from error
    except RuntimeError:
        log.exception("it failed with %s", CANARY, stack_info=True)
    text = written()
    assert CANARY not in text
    assert text.count(MASK) >= 6
    assert "RuntimeError: because of" in text
    assert "stack_info=True" in text


def test_a_broken_call_says_nothing_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    """Arguments that do not fit their message are not printed to stderr by the logging machinery."""
    logs.start_logging()
    log.warning("%d tokens", CANARY)
    said = capsys.readouterr()
    assert CANARY not in said.out + said.err
    assert said.err == ""


def test_rotation_keeps_everything_private(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file and those it was rotated into are 0600 under umask 000, of bounded number and size."""
    monkeypatch.setattr(logs, "MAX_BYTES", 2000)
    before = os.umask(0)
    try:
        logs.start_logging()
        for number in range(200):
            log.warning("line %d %s", number, "x" * 80)
    finally:
        os.umask(before)
    folder = logs.log_path().parent
    files = {path.name: path.stat() for path in folder.iterdir()}
    assert sorted(files) == ["podlab.log", "podlab.log.1", "podlab.log.2", "podlab.log.3"]
    assert {info.st_mode & 0o777 for info in files.values()} == {0o600}
    assert max(info.st_size for info in files.values()) <= 2000
    assert folder.stat().st_mode & 0o777 == 0o700
    assert "line 199" in logs.log_path().read_text()


def test_levels() -> None:
    """Infos are written, details only when verbose, and calling again changes that without a second handler."""
    logs.start_logging()
    log.debug("a detail")
    log.info("an info")
    logs.start_logging(verbose=True)
    log.debug("another detail")
    text = written()
    assert "a detail" not in text
    assert text.count("an info") == 1
    assert text.count("another detail") == 1
    assert len(logging.getLogger("podlab").handlers) == 1


def test_other_handlers_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that somebody else put on our logger stays; another PODLAB_HOME moves ours."""
    theirs = logging.NullHandler()
    logging.getLogger("podlab").addHandler(theirs)
    logs.start_logging()
    monkeypatch.setenv("PODLAB_HOME", str(tmp_path / "other"))
    logs.start_logging()
    log.warning("moved")
    assert theirs in logging.getLogger("podlab").handlers
    assert len(logging.getLogger("podlab").handlers) == 2
    assert "moved" in (tmp_path / "other" / "logs" / "podlab.log").read_text()


def test_undecodable_text_is_written_somehow() -> None:
    """A file name that is no UTF-8 does not stop its line from being written."""
    logs.start_logging()
    log.warning("file %s", b"caf\xe9".decode("utf-8", "surrogateescape"))
    assert "file caf\\udce9" in written()


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    """A symlink where the log belongs is not written through."""
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    logs.start_logging()
    logs.log_path().symlink_to(victim)
    log.warning("hello")
    assert victim.read_text() == "untouched"
