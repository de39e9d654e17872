"""What facts mean: the one place where an endpoint gets its state.

The first row that holds decides. "There" means that the very process that was started runs now: same pid, start time
and boot. "Answers as ready" means: HTTP 200 for its health, its served name in the list of models, and the port not
known to be listened on by somebody else.

     # | record and process                         | more                         | state       | cause
    ---|--------------------------------------------|------------------------------|-------------|------------------
     1 | no readable record                         | processes carry its mark     | ORPHAN      |
     2 | no readable record                         | no process                   | CRASHED     | other
     3 | not there, stop was asked                  |                              | STOPPED     |
     4 | not there, how it ended is on record       |                              | CRASHED     | by log and status
     5 | not there, no end on record                | the pod was booted since     | CRASHED     | rebooted
     6 | not there, no end on record                | its monitor is gone too      | CRASHED     | by log
     7 | not there, no end on record, its monitor is | last seen fetching          | DOWNLOADING |
     8 | not there, no end on record, its monitor is | starting, or just ended     | LOADING     |
     9 | there, in a prepare or download step       |                              | DOWNLOADING |
    10 | there, serving                             | answers as ready             | READY       |
    11 | there, serving, was ready before           | does not answer as ready     | UNHEALTHY   |
    12 | there, serving, never ready                | its port is a stranger's     | LOADING     | port_in_use
    13 | there, serving, never ready                | anything else                | LOADING     |

UNREACHABLE is not among them: it means that there are no facts. A stop under way shows in the detail of rows 7 to 13.
Row 4 holds for status 0 too: a server does not end by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from signal import Signals

from podlab.engines.base import Cause, Diagnosis, MachineEvidence
from podlab.lab.facts import ExitFacts, Facts, Progress
from podlab.types import EndpointState
from podlab.units import bytes_text

Diagnose = Callable[[Sequence[str], "int | None", MachineEvidence], Diagnosis]
"""(last log lines, exit status or 128 + signal or None, what the machine says) -> why it ended. An engine's
`diagnose`."""
Judgement = tuple[EndpointState, "str | None", str]
FETCHING = ("prepare", "download")


def classify(facts: Facts, diagnose: Diagnose) -> Judgement:
    """(state, cause or None, one line for a person) of an endpoint. Pure; facts of jobs have no state."""
    if facts.orphan:  # 1
        return EndpointState.ORPHAN, None, f"{_processes(facts)} without a record: {facts.damaged or 'it is missing'}"
    if facts.damaged:  # 2
        return EndpointState.CRASHED, Cause.OTHER.value, facts.damaged
    if not facts.alive:
        return _not_there(facts, diagnose)
    state, cause, detail = _there(facts)
    return state, cause, _stopping(facts, detail)


def _not_there(facts: Facts, diagnose: Diagnose) -> Judgement:
    left = f"; {_processes(facts)} left of it" if facts.strays else ""
    if facts.stop_at is not None and facts.ended:  # 3
        return EndpointState.STOPPED, None, left[2:]
    if facts.exit is not None:  # 4
        cause, line = _why(facts, facts.exit, diagnose)
        return EndpointState.CRASHED, cause, line + left
    if facts.boot_changed:  # 5
        return EndpointState.CRASHED, Cause.REBOOTED.value, "the pod was started anew while it ran"
    if not facts.monitor_alive:  # 6
        cause, line = _why(facts, ExitFacts(None, None, None, facts.step), diagnose)
        return EndpointState.CRASHED, cause, line + left
    if facts.step in FETCHING:  # 7
        return EndpointState.DOWNLOADING, None, _stopping(facts, _doing(facts))
    return EndpointState.LOADING, None, _stopping(facts, "starting")  # 8


def _there(facts: Facts) -> Judgement:
    if facts.step in FETCHING:  # 9
        return EndpointState.DOWNLOADING, None, _doing(facts)
    health = facts.health
    named = health is not None and facts.served_name in health.models
    if health is not None and health.status == 200 and named and facts.socket_ours is not False:  # 10
        return EndpointState.READY, None, ""
    why = _why_not_ready(facts)
    if facts.ready_at is not None:  # 11
        return EndpointState.UNHEALTHY, None, why
    if facts.socket_ours is False:  # 12
        return EndpointState.LOADING, Cause.PORT_IN_USE.value, why
    if health is not None and health.status == 200:  # 13, and what it says matters more than its log
        return EndpointState.LOADING, None, why
    return EndpointState.LOADING, None, facts.lines[-1] if facts.lines else why  # 13


def _why_not_ready(facts: Facts) -> str:
    health = facts.health
    if health is None:
        return "its health was not asked"
    if health.status is None:
        return health.error
    if health.status != 200:
        return f"its health answers {health.status}"
    if facts.socket_ours is False:
        return f"port {facts.port} belongs to {facts.socket_owner or 'another process'}"
    serves = ", ".join(health.models[:3]) or health.error or "nothing"
    return f"it serves {serves} instead of {facts.served_name}"


def _why(facts: Facts, end: ExitFacts, diagnose: Diagnose) -> tuple[str, str]:
    """(cause, one line) of an end nobody asked for."""
    status = 128 + end.signal if end.signal is not None else end.status
    found = diagnose(facts.lines, status, end.evidence)
    how = _how(end)
    cause = found.cause
    if cause is Cause.OTHER:  # the log does not tell: the status may
        cause = Cause.KILLED if end.signal is not None else Cause.EXITED if end.status == 0 else Cause.OTHER
    said = found.lines[-1] if found.lines else end.error
    if not said and cause is Cause.KILLED and end.evidence.oom_kills:
        said = "the kernel ended it because memory ran out"
    if not said and facts.lines and found.cause is not Cause.KILLED:  # what was killed had no reason to log
        said = facts.lines[-1]
    return cause.value, f"{how}: {said}" if said else how


def _how(end: ExitFacts) -> str:
    step = f"{end.step} " if end.step in FETCHING else ""
    if end.signal is not None:
        name = Signals(end.signal).name if end.signal in Signals.__members__.values() else f"signal {end.signal}"
        return f"{step}ended by {name}"
    return f"{step}ended, nobody saw how" if end.status is None else f"{step}ended with status {end.status}"


def _doing(facts: Facts) -> str:
    if facts.progress is not None:
        return _progress_text(facts.progress)
    return facts.lines[-1] if facts.lines else facts.step


def _progress_text(progress: Progress) -> str:
    if progress.done is None:
        return progress.text
    shown = bytes_text if progress.unit == "bytes" else str
    amount = shown(progress.done) + (f" of {shown(progress.total)}" if progress.total else "")
    return f"{progress.text}: {amount}" if progress.text else amount


def _stopping(facts: Facts, detail: str) -> str:
    if facts.stop_at is None:
        return detail
    return f"being stopped{'; ' if detail else ''}{detail}"


def _processes(facts: Facts) -> str:
    count = len(facts.strays)
    pids = ", ".join(map(str, facts.strays[:5])) + (", ..." if count > 5 else "")
    return f"{count} process{'es' if count != 1 else ''} (pid {pids})"
