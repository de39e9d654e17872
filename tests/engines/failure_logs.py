"""The logs of tests/data/engine_logs, each with what is known of it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podlab.engines.base import Cause, MachineEvidence

FOLDER = Path(__file__).parents[1] / "data" / "engine_logs"


@dataclass(frozen=True)
class FailureLog:
    """A log, and the head that scripts/make-failure-logs (or who quoted it) put before it."""

    name: str
    head: dict[str, Any]
    lines: tuple[str, ...]

    @property
    def cause(self) -> Cause:
        return Cause(self.head["cause"])

    @property
    def status(self) -> int | None:
        return self.head.get("status")

    @property
    def evidence(self) -> MachineEvidence | None:
        return MachineEvidence(**self.head["evidence"]) if "evidence" in self.head else None

    @property
    def produced(self) -> bool:
        return bool(self.head["provenance"] == "produced")

    @property
    def words(self) -> str:
        return str(self.head["words"])

    def __str__(self) -> str:
        return self.name


def read(path: Path) -> FailureLog:
    _, head, text = path.read_text("utf-8").split("+++\n", 2)
    return FailureLog(path.relative_to(FOLDER).with_suffix("").as_posix(), tomllib.loads(head), tuple(text.split("\n")))


ALL = tuple(read(path) for path in sorted(FOLDER.rglob("*.log")))
PRODUCED = tuple(log for log in ALL if log.produced)
QUOTED = tuple(log for log in ALL if not log.produced)
