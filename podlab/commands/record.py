"""What podlab's own log tells of a verb: when it began, what it said, and how it ended. Never its words or its output,
which may hold what nobody wants on a disk."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from podlab.errors import PodlabError

if TYPE_CHECKING:
    from podlab.commands.drive import Audience
    from podlab.commands.verb import Verb
    from podlab.events import Answer, Ask, Chunk, Notice, Stage

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def recorded(verb: Verb, audience: Audience) -> Iterator[Audience]:
    """An audience that also writes down what it is told, and between its two lines in the log, the verb at work."""
    _log.log(logging.INFO if verb.changes else logging.DEBUG, "%s begins", verb.words)
    began = time.monotonic()
    try:
        yield _Recorder(verb.words, audience)
    except (PodlabError, OSError) as error:
        took_s = time.monotonic() - began
        said = error.message if isinstance(error, PodlabError) else str(error)
        _log.info("%s failed after %.1f s: %s: %s", verb.words, took_s, type(error).__name__, said)
        _log.debug("%s failed here", verb.words, exc_info=True)
        raise
    except Exception:
        _log.exception("%s failed after %.1f s, by a defect of podlab", verb.words, time.monotonic() - began)
        raise
    except KeyboardInterrupt:
        _log.info("%s was interrupted after %.1f s", verb.words, time.monotonic() - began)
        raise
    else:
        _log.info("%s ended after %.1f s", verb.words, time.monotonic() - began)


class _Recorder:
    """Hands on every event to another audience; a stage is written down when it begins, not each time it moves."""

    def __init__(self, verb: str, audience: Audience) -> None:
        self._verb = verb
        self._audience = audience
        self._stage = ""

    def stage(self, stage: Stage) -> None:
        if stage.key != self._stage:
            self._stage = stage.key
            _log.debug("%s: %s", self._verb, stage.text)
        self._audience.stage(stage)

    def chunk(self, chunk: Chunk) -> None:
        self._audience.chunk(chunk)

    def notice(self, notice: Notice) -> None:
        _log.log(logging.WARNING if notice.level == "warning" else logging.INFO, "%s: %s", self._verb, notice.text)
        self._audience.notice(notice)

    def ask(self, ask: Ask) -> Answer:
        _log.info("%s asks (%s)", self._verb, ask.kind)
        return self._audience.ask(ask)
