"""Why a server ended, read from its log."""

from __future__ import annotations

from collections.abc import Sequence

from podlab.engines.base import Cause, Diagnosis


def diagnose(log_lines: Sequence[str], status: int | None) -> Diagnosis:
    return Diagnosis(Cause.UNKNOWN)
