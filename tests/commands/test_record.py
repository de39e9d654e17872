"""podlab's own log tells what each verb did and how it ended, and none of its words or its output."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from podlab.commands import table
from podlab.commands.record import recorded
from podlab.errors import NotFound
from podlab.events import Ask, Chunk, Notice, Stage
from podlab.logs import log_path, start_logging
from tests.audiences import Silent

START, SHOW = (table.find(words)[0] for words in (["model", "start"], ["model", "show"]))


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    """The podlab logger as it was before, afterwards."""
    logger = logging.getLogger("podlab")
    before = logger.handlers[:], logger.level, logger.propagate
    logger.handlers, logger.propagate = [], True
    yield
    for handler in logger.handlers:
        handler.close()
    logger.handlers, logger.level, logger.propagate = before


def written() -> list[str]:
    """The lines of the log, without their times and processes."""
    text = log_path().read_text("utf-8") if log_path().exists() else ""
    return [line.split(" ", 3)[-1].replace("podlab.commands.record: ", "") for line in text.splitlines()]


def test_what_changes_the_world_leaves_a_trace_and_a_look_leaves_its_end() -> None:
    start_logging()
    for verb in (START, SHOW):
        with recorded(verb, Silent()) as audience:
            audience.stage(Stage("load", "Loading tiny"))
            audience.chunk(Chunk("what a command says"))
            audience.notice(Notice("the disk is nearly full", "warning"))
            audience.ask(Ask("Really?", "delete"))
    assert [line.partition(" after")[0] for line in written()] == [
        "INFO model start begins", "WARNING model start: the disk is nearly full", "INFO model start asks (delete)",
        "INFO model start ended", "WARNING model show: the disk is nearly full", "INFO model show asks (delete)",
        "INFO model show ended",
    ]  # fmt: skip


def test_verbose_tells_each_stage_once_and_where_it_failed() -> None:
    start_logging(verbose=True)
    with pytest.raises(NotFound), recorded(SHOW, Silent()) as audience:
        for done in range(3):
            audience.stage(Stage("send", "Sending tiny", done, 3))
        raise NotFound("There is no endpoint 'x'.")
    lines = written()
    assert lines[:2] == ["DEBUG model show begins", "DEBUG model show: Sending tiny"]
    assert lines[2].startswith("INFO model show failed after") and lines[2].endswith("There is no endpoint 'x'.")
    assert any("test_record.py" in line for line in lines[3:])


@pytest.mark.parametrize(("ending", "told"), [(KeyboardInterrupt, "was interrupted"), (ZeroDivisionError, "defect")])
def test_an_interrupt_and_a_defect_are_told_and_go_on(ending: type[BaseException], told: str) -> None:
    start_logging()
    with pytest.raises(ending), recorded(SHOW, Silent()):
        raise ending
    assert told in written()[0]
