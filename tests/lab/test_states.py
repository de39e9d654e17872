"""One test per row of the decision table of states.classify."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from podlab.engines.base import Cause, Diagnosis, MachineEvidence
from podlab.lab.facts import ExitFacts, Facts, HealthFacts, Progress
from podlab.lab.states import classify
from podlab.types import EndpointState as S

SERVING = Facts(
    id="u", name="tiny", kind="endpoint", now=100.0, served_name="tiny-1", step="serve", port=20001, pid=7,
    alive=True, monitor_alive=True, socket_ours=True, health=HealthFacts(200, "", ("tiny-1",)),
    lines=("loading", "42 %"),
)  # fmt: skip
GONE = replace(SERVING, alive=False, monitor_alive=False, health=None, socket_ours=None)
REFUSED = HealthFacts(None, "Connection refused")


def oom(lines: Sequence[str], status: int | None, evidence: MachineEvidence) -> Diagnosis:
    if "boom" in lines:
        return Diagnosis(Cause.OUT_OF_MEMORY_WEIGHTS, ("CUDA out of memory",))
    return Diagnosis(Cause.KILLED if status == 137 else Cause.OTHER)


ROWS = [
    (1, replace(GONE, orphan=True, strays=(7, 8)),
     (S.ORPHAN, None, "2 processes (pid 7, 8) without a record: it is missing")),
    (1, replace(GONE, orphan=True, strays=(7,), damaged="torn"),
     (S.ORPHAN, None, "1 process (pid 7) without a record: torn")),
    (2, replace(GONE, damaged="torn"), (S.CRASHED, "other", "torn")),
    (3, replace(GONE, stop_at=9.0, exit=ExitFacts(None, 15, 10.0)), (S.STOPPED, None, "")),
    (3, replace(GONE, stop_at=9.0, boot_changed=True), (S.STOPPED, None, "")),
    (3, replace(GONE, stop_at=9.0, strays=(9,)), (S.STOPPED, None, "1 process (pid 9) left of it")),
    (4, replace(GONE, exit=ExitFacts(0, None, 10.0, "serve")), (S.CRASHED, "exited", "ended with status 0: 42 %")),
    (4, replace(GONE, exit=ExitFacts(None, 9, 10.0, "serve")), (S.CRASHED, "killed", "ended by SIGKILL")),
    (4, replace(GONE, exit=ExitFacts(None, 9, 10.0, "serve", evidence=MachineEvidence(oom_kills=1))),
     (S.CRASHED, "killed", "ended by SIGKILL: the kernel ended it because memory ran out")),
    (4, replace(GONE, exit=ExitFacts(None, 6, 10.0, "serve")), (S.CRASHED, "killed", "ended by SIGABRT: 42 %")),
    (4, replace(GONE, exit=ExitFacts(None, 61, 10.0, "serve"), lines=()), (S.CRASHED, "killed", "ended by signal 61")),
    (4, replace(GONE, exit=ExitFacts(1, None, 10.0, "serve"), lines=("boom",)),
     (S.CRASHED, "out_of_memory_weights", "ended with status 1: CUDA out of memory")),
    (4, replace(GONE, exit=ExitFacts(127, None, 10.0, "prepare", "no pip"), lines=()),
     (S.CRASHED, "other", "prepare ended with status 127: no pip")),
    (4, replace(GONE, exit=ExitFacts(1, None, 10.0, "serve"), boot_changed=True),
     (S.CRASHED, "other", "ended with status 1: 42 %")),
    (4, replace(GONE, exit=ExitFacts(1, None, 10.0, "serve"), monitor_alive=True, strays=(9,)),
     (S.CRASHED, "other", "ended with status 1: 42 %; 1 process (pid 9) left of it")),
    (5, replace(GONE, boot_changed=True), (S.CRASHED, "rebooted", "the pod was started anew while it ran")),
    (6, GONE, (S.CRASHED, "other", "ended, nobody saw how: 42 %")),
    (6, replace(GONE, lines=("boom",)),
     (S.CRASHED, "out_of_memory_weights", "ended, nobody saw how: CUDA out of memory")),
    (7, replace(GONE, monitor_alive=True, step="download"), (S.DOWNLOADING, None, "42 %")),
    (8, replace(GONE, monitor_alive=True, step=""), (S.LOADING, None, "starting")),
    (8, replace(GONE, monitor_alive=True, stop_at=99.0), (S.LOADING, None, "being stopped; starting")),
    (9, replace(SERVING, step="prepare", health=None), (S.DOWNLOADING, None, "42 %")),
    (9, replace(SERVING, step="download", health=None, lines=()), (S.DOWNLOADING, None, "download")),
    (9, replace(SERVING, step="download", progress=Progress("tiny.gguf", 10**6, None, "bytes")),
     (S.DOWNLOADING, None, "tiny.gguf: 1.0 MB")),
    (9, replace(SERVING, step="prepare", progress=Progress("packages", 3, 7)),
     (S.DOWNLOADING, None, "packages: 3 of 7")),
    (10, SERVING, (S.READY, None, "")),
    (10, replace(SERVING, socket_ours=None), (S.READY, None, "")),
    (10, replace(SERVING, monitor_alive=False, ready_at=50.0), (S.READY, None, "")),
    (10, replace(SERVING, stop_at=99.0), (S.READY, None, "being stopped")),
    (11, replace(SERVING, ready_at=50.0, health=REFUSED), (S.UNHEALTHY, None, "Connection refused")),
    (11, replace(SERVING, ready_at=50.0, health=HealthFacts(503)), (S.UNHEALTHY, None, "its health answers 503")),
    (11, replace(SERVING, ready_at=50.0, health=HealthFacts(200, "/v1/models answers 500")),
     (S.UNHEALTHY, None, "it serves /v1/models answers 500 instead of tiny-1")),
    (11, replace(SERVING, ready_at=50.0, socket_ours=False, socket_owner="nc (pid 3)"),
     (S.UNHEALTHY, None, "port 20001 belongs to nc (pid 3)")),
    (12, replace(SERVING, socket_ours=False), (S.LOADING, "port_in_use", "port 20001 belongs to another process")),
    (13, replace(SERVING, health=REFUSED), (S.LOADING, None, "42 %")),
    (13, replace(SERVING, health=REFUSED, lines=()), (S.LOADING, None, "Connection refused")),
    (13, replace(SERVING, health=None, lines=()), (S.LOADING, None, "its health was not asked")),
    (13, replace(SERVING, health=HealthFacts(200, "", ("other",))),
     (S.LOADING, None, "it serves other instead of tiny-1")),
]  # fmt: skip


@pytest.mark.parametrize("row,facts,expected", ROWS, ids=[f"row{row[0]}-{n}" for n, row in enumerate(ROWS)])
def test_row(row: int, facts: Facts, expected: tuple[S, str | None, str]) -> None:
    assert classify(facts, oom) == expected


def test_every_row_has_a_test() -> None:
    assert {row for row, _, _ in ROWS} == set(range(1, 14))
