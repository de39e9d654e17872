"""Why a model server ended, read from the end of its log and its exit status.

The only place where something is decided by the words of a log: engines tell it nowhere else. Rows are facts about
llama.cpp (xllamacpp 2026.10), vLLM (0.9 to 0.32), TGI and our own programs on the pod; each has a test with a real or
documented line. Lines that only wrap a failure ("Engine core initialization failed. See root cause above",
"Failed to init server") have no row, so that the search goes on upwards to the cause.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from podlab.engines.base import Cause, Diagnosis

LINE_LIMIT = 300
SHOWN_LINES = 3

_LESS_MEMORY = "Use a smaller context, fewer slots, a smaller quantisation, or a machine with more memory."
_AGAIN = "Remove the file on the pod and start again: it is then fetched anew."
HINTS: dict[Cause, str] = {
    Cause.OUT_OF_MEMORY_WEIGHTS: _LESS_MEMORY,
    Cause.PORT_IN_USE: "Start again: another port is picked. Or name a free one.",
    Cause.MODEL_NOT_FOUND: "Check the model's name, repository and file.",
    Cause.CORRUPT_WEIGHTS: _AGAIN,
    Cause.BAD_FLAG: "Change or leave out that option.",
    Cause.DRIVER_OR_DEVICE: "Leave --backend out, say --backend cpu, or use a machine that has it.",
    Cause.NO_ENVIRONMENT: "The whole log says more; starting again makes the environment anew.",
    Cause.NO_NETWORK: "Start again: it goes on where it stopped.",
    Cause.GATED_OR_UNAUTHORIZED: "Accept the terms on the model's page, and give a token of that account as HF_TOKEN.",
    Cause.DISK_FULL: "Make room on the pod's disk, or choose another place for models.",
    Cause.KILLED: "Somebody, or a limit of the machine, ended it. Look who else works there.",
    Cause.EXITED: "A server should not end by itself; the log's last lines may say why.",
}
"""What to do next where a row has nothing better to say."""


@dataclass(frozen=True)
class Row:
    """A line that matches `pattern` means `cause`."""

    pattern: str
    cause: Cause
    hint: str = ""


ROWS: tuple[Row, ...] = (
    # Our own programs on the pod: `podlab: <cause>: <reason>`.
    *(Row(rf"^podlab: {cause.value}: ", cause) for cause in HINTS),
    # llama.cpp
    Row(r"couldn't bind HTTP server socket", Cause.PORT_IN_USE),
    Row(r"failed to open GGUF file .*No such file", Cause.MODEL_NOT_FOUND),
    Row(r"failed to open GGUF file .*Permission denied", Cause.CORRUPT_WEIGHTS, "Let the pod's user read the file."),
    Row(r"invalid magic characters|failed to read magic|bad GGUF version|gguf_init_from_reader: failed to read header",
        Cause.CORRUPT_WEIGHTS, "It is no GGUF file. " + _AGAIN),
    Row(r"not within the file bounds|corrupted or incomplete|failed to read key-value pairs|failed to read tensor",
        Cause.CORRUPT_WEIGHTS, "The file is incomplete. " + _AGAIN),
    Row(r"unknown (model architecture|pre-tokenizer type)|unsupported model architecture|invalid ggml type",
        Cause.CORRUPT_WEIGHTS, "The model is newer than this build of llama.cpp; take another one."),
    Row(r"insufficient memory \(attempted|failed to allocate (\S+ )?buffer|unable to allocate \S+ buffer",
        Cause.OUT_OF_MEMORY_WEIGHTS),
    Row(r"cudaMalloc failed: out of memory|CUDA error: out of memory|ErrorOutOfDeviceMemory|std::bad_alloc",
        Cause.OUT_OF_MEMORY_WEIGHTS),
    Row(r"requires flash_attn|cache type \S+ with block size|V cache quantization requires", Cause.BAD_FLAG,
        "Change --cache-type-k, --cache-type-v or --flash-attn."),
    Row(r"chat template parsing error", Cause.BAD_FLAG, "It is no valid Jinja template; change --chat-template."),
    Row(r"no kernel image is available|CUDA driver version is insufficient", Cause.DRIVER_OR_DEVICE,
        "The GPU or its driver is too old for this build. Say --backend cpu, or update the driver."),
    # vLLM and what it stands on
    Row(r"No available memory for the cache blocks|larger than the (maximum number of tokens|available KV cache)",
        Cause.OUT_OF_MEMORY_WEIGHTS, "Use a smaller context, or raise --gpu-memory-utilization."),
    Row(r"Free memory on device .* is less than desired GPU memory utilization", Cause.OUT_OF_MEMORY_WEIGHTS,
        "Another process holds memory of that GPU: stop it, take another GPU, or lower --gpu-memory-utilization."),
    Row(r"CUDA out of memory|torch\.(cuda\.)?OutOfMemoryError|Not enough memory to handle \d+ prefill tokens",
        Cause.OUT_OF_MEMORY_WEIGHTS),
    Row(r"[Aa]ddress already in use", Cause.PORT_IN_USE),
    Row(r"unrecognized arguments: |error: argument -|error: the following arguments are required", Cause.BAD_FLAG),
    Row(r"GatedRepoError|Cannot access gated repo|Access to model \S+ is restricted", Cause.GATED_OR_UNAUTHORIZED),
    Row(r"RepositoryNotFoundError|is not a local folder and is not a valid model identifier", Cause.MODEL_NOT_FOUND),
    Row(r"SafetensorError|Error while deserializing header", Cause.CORRUPT_WEIGHTS),
    Row(r"Torch not compiled with CUDA|Found no NVIDIA driver|libcuda\.so\.1: cannot open|Failed to infer device type",
        Cause.DRIVER_OR_DEVICE, "This machine has no GPU that the engine can use."),
    # Anything that runs on Linux
    Row(r"No space left on device|Disk quota exceeded", Cause.DISK_FULL),
    Row(r"ModuleNotFoundError: |ImportError: |version `GLIBC\S+' not found", Cause.NO_ENVIRONMENT),
    Row(r"^MemoryError|Cannot allocate memory", Cause.OUT_OF_MEMORY_WEIGHTS),
)  # fmt: skip
_COMPILED = tuple((re.compile(row.pattern), row) for row in ROWS)
_READY = re.compile(r"^podlab: serving |server is listening on|Application startup complete")
_NOISE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")
_OWN = re.compile(r"^(podlab: [a-z_]+: |[0-9]+\.[0-9]{2}\.[0-9]{3}\.[0-9]{3} [A-Z] +)")
"""What stands before the words: our own mark, or llama.cpp's clock and level."""
_BY_STATUS: dict[int, tuple[Cause, str]] = {
    0: (Cause.EXITED, ""),
    126: (Cause.NO_ENVIRONMENT, ""),
    127: (Cause.NO_ENVIRONMENT, ""),
    128 + signal.SIGILL: (Cause.DRIVER_OR_DEVICE, "The build uses instructions this CPU has not."),
    128 + signal.SIGKILL: (Cause.KILLED, "Most often the machine ran out of memory. " + _LESS_MEMORY),
    128 + signal.SIGTERM: (Cause.KILLED, ""),
    128 + signal.SIGINT: (Cause.KILLED, ""),
    128 + signal.SIGHUP: (Cause.KILLED, ""),
}


def diagnose(log_lines: Sequence[str], status: int | None) -> Diagnosis:
    """The cause nearest to the end of the log, else what the exit status means.

    Once a server was ready, what its log said before does not explain its end and is left out. `status` is 128 + N for
    signal N, None when nobody saw it end. The log is untrusted: what is returned of it is cut and free of controls.
    """
    lines = [cleaned for line in log_lines if (cleaned := _NOISE.sub("", line).strip())]
    ready = max((number for number, line in enumerate(lines) if _READY.search(line)), default=-1)
    lines = lines[ready + 1 :]
    for number in range(len(lines) - 1, -1, -1):
        row = _row_of(lines[number])
        if row is not None:
            same = [line for line in lines[:number] if (other := _row_of(line)) and other.cause is row.cause]
            shown = list(dict.fromkeys([*same, lines[number]]))[-SHOWN_LINES:]
            return Diagnosis(row.cause, _shown(shown), row.hint or HINTS[row.cause])
    cause, hint = _BY_STATUS.get(status, (Cause.OTHER, "")) if status is not None else (Cause.OTHER, "")
    return Diagnosis(cause, _shown(lines[-SHOWN_LINES:]), hint or HINTS.get(cause, ""))


def _row_of(line: str) -> Row | None:
    return next((row for pattern, row in _COMPILED if pattern.search(line[:4096])), None)


def _shown(lines: Sequence[str]) -> tuple[str, ...]:
    return tuple(_OWN.sub("", line)[:LINE_LIMIT] for line in lines)
