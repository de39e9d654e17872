"""Why a model server ended, read from the end of its log, its exit status, and what the machine says.

The only place where something is decided by the words of a log: engines tell it nowhere else. The words are rows of
engines/failures/, each with a test that has a real log or a documented line.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import NamedTuple

from podlab.engines.base import Cause, Diagnosis, MachineEvidence
from podlab.engines.failures import llamacpp, others, shared, vllm
from podlab.engines.failures.row import Row, Weight
from podlab.engines.log_lines import Line, cleaned, engine_of, shortened, shown
from podlab.engines.suggestions import LESS_MEMORY, suggestion

LINE_LIMIT = 300
SHOWN_LINES = 3
READ_LINES = 3000
"""From the end; the tracebacks of eight workers are shorter."""
FULL_DISK_BYTES = 16 << 20
"""Less than this on the models' disk explains an end that nothing else does."""
TABLES: dict[str, tuple[Row, ...]] = {
    "llamacpp": llamacpp.ROWS,
    "vllm": vllm.ROWS,
    "sglang": others.SGLANG,
    "tgi": others.TGI,
    "trtllm": others.TRTLLM,
    "": (*shared.ROWS, *shared.KERNEL_ROWS),
}
"""By engine; "" holds for all of them."""

_READY = re.compile(
    r"podlab: serving |server is listening on|Application startup complete|The server is fired up and ready to roll"
)
_BEGUN = re.compile(r"Initializing a V1 LLM engine|non-default args: |init: initializing |server_args=ServerArgs\(")
_LOADED = re.compile(
    r"Loading weights took|[Mm]odel loading took|Load weight end|load_tensors: .{0,60}buffer size|"
    r"in _?(initialize_kv_cache|allocate_kv_cache|initialize_from_config|determine_available_memory|profile_run)"
)
"""What is said, or what is being done (the frames of a traceback), once the weights are in memory."""
_EXCEPTION = re.compile(r"^([a-z_]\w*\.)*[A-Z]\w*(Error|Exception)\b(: |$)")
_FAILED = re.compile(r"Traceback \(most recent call last\)|^[Ee]rror: |exiting due to |terminate called")
"""Signs that something failed, where no row says what."""
_WRAPPER = re.compile(
    r"See (root cause|stack trace)|initialization failed|EngineDeadError|EngineGenerateError|ProcessRaisedException|"
    r"RuntimeError: cancelled|Executor failed|KeyboardInterrupt|SystemExit|CalledProcessError|ShardCannotStart"
)
_ENDS = {Cause.KILLED, Cause.WORKER_DIED}
_WHILE_SERVING = {
    Cause.OUT_OF_MEMORY_WEIGHTS, Cause.OUT_OF_MEMORY_KV, Cause.DISK_FULL, Cause.DRIVER_OR_DEVICE, Cause.KILLED,
    Cause.WORKER_DIED, Cause.HANG, Cause.TEMPLATE_ERROR,
}  # fmt: skip
"""What can end a server that was ready. Anything else in its log is about a request."""
_OUT_OF_MEMORY = f"The kernel ended it because memory ran out. {LESS_MEMORY}"
_BY_STATUS: dict[int, tuple[Cause, str]] = {
    0: (Cause.EXITED, ""),
    126: (Cause.NO_ENVIRONMENT, ""),
    127: (Cause.NO_ENVIRONMENT, ""),
    128 + signal.SIGILL: (Cause.DRIVER_OR_DEVICE, "The build uses instructions this CPU has not."),
    128 + signal.SIGKILL: (Cause.KILLED, "Most often the machine ran out of memory. " + LESS_MEMORY),
    128 + signal.SIGTERM: (Cause.KILLED, ""),
    128 + signal.SIGINT: (Cause.KILLED, ""),
    128 + signal.SIGHUP: (Cause.KILLED, ""),
}


class Hit(NamedTuple):
    """A line that a row knows."""

    number: int
    row: Row
    match: re.Match[str]


@dataclass(frozen=True)
class Reading:
    """A log as far as it matters: what came after the last sign of readiness."""

    lines: tuple[Line, ...]
    engine: str | None
    ready: bool
    """It was ready, and no further start began since."""
    begun: bool
    loaded: bool
    """The weights were in memory at some time."""


def diagnose(
    log_lines: Sequence[str], status: int | None, evidence: MachineEvidence | None = None, engine: str | None = None
) -> Diagnosis:
    """Why it ended: the heaviest line nearest the end of the log, else what the machine and the exit status say.

    Once a server was ready, what its log said before does not explain its end and is left out. `status` is 128 + N for
    signal N, None when nobody saw it end. `engine` is a name of engines.NAMES, None to guess it from the log. What
    another process ended by a signal had no reason to log: no line is shown then. The log is untrusted: what is
    returned of it is cut and free of controls.
    """
    log = read(log_lines, engine)
    known = evidence or MachineEvidence()
    found = _of_log(log, status) or _of_machine(log, status, known)
    if found.cause in _ENDS and known.oom_kills:
        found = replace(found, hint=_OUT_OF_MEMORY)
    return _hinted(found, log)


def explain(log_lines: Sequence[str], engine: str | None = None) -> tuple[Diagnosis, str | None]:
    """The same for a log of which nothing else is known, and the engine it is taken for.

    A log without a failure is `none` when the server became ready. When it did not, it hangs as far as the log tells.
    """
    log = read(log_lines, engine)
    found = _of_log(log, None)
    if found is None:
        silent = _raised(log.lines) < 0 and _last(_FAILED, [line.text for line in log.lines]) < 0
        alive = MachineEvidence(alive=True if silent and (log.ready or log.begun) else None)
        found = _of_machine(log, None, alive)
    return _hinted(found, log), log.engine


def read(log_lines: Sequence[str], engine: str | None) -> Reading:
    """The end of a log, without what the last readiness made void."""
    raw = [shortened(line) for line in log_lines]
    ready, begun = _last(_READY, raw), _last(_BEGUN, raw)
    known = engine or engine_of(raw)
    return Reading(
        tuple(cleaned(raw[ready + 1 :][-READ_LINES:])), known, ready=ready > begun,
        begun=begun >= 0 or known is not None, loaded=_last(_LOADED, raw) >= 0,
    )  # fmt: skip


def _hinted(found: Diagnosis, log: Reading) -> Diagnosis:
    return found if found.hint else replace(found, hint=suggestion(found.cause, log.engine))


def _last(pattern: re.Pattern[str], lines: Sequence[str]) -> int:
    """The number of the last line in which it is found; -1: there is none."""
    return next((number for number in range(len(lines) - 1, -1, -1) if pattern.search(lines[number])), -1)


def _of_log(log: Reading, status: int | None) -> Diagnosis | None:
    hits = [hit for hit in _hits(log) if not log.ready or hit.row.cause in _WHILE_SERVING]
    if not hits:
        return None
    weight = max(hit.row.weight for hit in hits)
    hit = _chosen([hit for hit in hits if hit.row.weight is weight])
    raised = _raised(log.lines, {hit.number for hit in hits})
    if weight is Weight.HINT and _outweighed(hit, raised, status):
        return None
    cause = hit.row.loaded if log.loaded and hit.row.loaded else hit.row.cause
    if cause is Cause.WORKER_DIED and not log.ready and raised >= 0:
        return None  # it died of what was raised while it loaded
    telling = [other.number for other in hits if other.number < hit.number and other.row.cause is hit.row.cause]
    if weight < Weight.ROOT and raised >= 0:
        telling.append(raised)
    telling += [hit.number, *range(hit.number + 1, min(hit.number + 1 + hit.row.below, len(log.lines)))]
    return Diagnosis(
        cause, _shown(log.lines[number] for number in sorted(telling)), _hint(hit), hit.row.another_copy,
        verified=not hit.row.source,
    )  # fmt: skip


def _chosen(hits: Sequence[Hit]) -> Hit:
    """Of hits of one weight the last; but of processes that pulled each other down, the one that fell first."""
    if hits[-1].row.weight is Weight.HINT and hits[-1].row.cause in _ENDS:
        return next(hit for hit in hits if hit.row.cause in _ENDS)
    return hits[-1]


def _outweighed(hit: Hit, raised: int, status: int | None) -> bool:
    """Whether a hint says less than an exception, which stands at `raised` (-1: there is none), or than the status."""
    if hit.row.cause is Cause.KILLED:
        return raised >= 0
    if hit.row.cause is Cause.WORKER_DIED:
        return False
    return raised > hit.number or (status is not None and status > 128)


def _of_machine(log: Reading, status: int | None, evidence: MachineEvidence) -> Diagnosis:
    """What the machine says where the log is silent: first what is known, then what the exit status means."""
    if evidence.kernel_lines or evidence.oom_kills:
        kernel = read(evidence.kernel_lines, log.engine)
        if (found := _of_log(replace(kernel, ready=False), None)) is not None:
            return found
        if evidence.oom_kills:
            return Diagnosis(Cause.KILLED, (), _OUT_OF_MEMORY, verified=True)
    last = _shown(log.lines[-SHOWN_LINES:])
    if evidence.driver_error:
        return Diagnosis(Cause.DRIVER_OR_DEVICE, _shown(cleaned([evidence.driver_error])))
    if evidence.disk_free_bytes is not None and evidence.disk_free_bytes < FULL_DISK_BYTES:
        return Diagnosis(Cause.DISK_FULL, last)
    if evidence.alive:
        return Diagnosis(Cause.NONE, verified=True) if log.ready else Diagnosis(Cause.HANG, last, verified=True)
    cause, hint = _BY_STATUS.get(status, (Cause.OTHER, "")) if status is not None else (Cause.OTHER, "")
    raised = _raised(log.lines)
    if raised >= 0 and cause in (Cause.OTHER, Cause.EXITED):
        return Diagnosis(Cause.OTHER, _shown(log.lines[raised : raised + SHOWN_LINES]))
    return Diagnosis(cause, () if cause is Cause.KILLED else last, hint, verified=cause is Cause.KILLED)


def _raised(lines: Sequence[Line], known: Collection[int] = ()) -> int:
    """The last exception that is no wrapper of another one and not among the known lines; -1: there is none."""
    for number in range(len(lines) - 1, -1, -1):
        text = lines[number].text
        if number not in known and not lines[number].quiet and _EXCEPTION.search(text) and not _WRAPPER.search(text):
            return number
    return -1


def _hits(log: Reading) -> list[Hit]:
    """In the order of the log. Of several rows that know a line, the heaviest counts, of equals the first."""
    rows = _compiled(log.engine)
    found = []
    for number, line in enumerate(log.lines):
        best: Hit | None = None
        for pattern, row in rows:
            if line.quiet and not row.quiet:
                continue
            if (best is None or row.weight > best.row.weight) and (match := pattern.search(line.text)) is not None:
                best = Hit(number, row, match)
        if best is not None:
            found.append(best)
    return found


@cache
def _compiled(engine: str | None) -> tuple[tuple[re.Pattern[str], Row], ...]:
    """The rows of that engine and the shared ones; of all engines where it is not known."""
    names = [name for name in TABLES if name] if engine is None else [engine]
    rows = [*(row for name in names for row in TABLES.get(name, ())), *TABLES[""]]
    return tuple((re.compile(row.pattern), row) for row in rows)


def _hint(hit: Hit) -> str:
    """The row's hint with what the line names; only what the pattern let through stands in it."""
    named = {name: (text or "").strip() for name, text in hit.match.groupdict().items()}
    return hit.row.hint.format(memory=LESS_MEMORY, **named) if hit.row.hint else ""


def _shown(lines: Iterable[Line]) -> tuple[str, ...]:
    """Each once, where it stood last."""
    texts = [shown(line)[:LINE_LIMIT] for line in lines]
    return tuple(reversed(list(dict.fromkeys(reversed(texts)))[:SHOWN_LINES]))
