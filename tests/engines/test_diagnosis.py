"""Every row of the table with a line it was made from: our own real failures, or a vendor's documented words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from podlab.engines.base import Cause
from podlab.engines.diagnosis import HINTS, ROWS, diagnose

LOGS = Path(__file__).parents[1] / "data" / "engine_logs"

# Made by remote/llamacpp_server.py with xllamacpp 2026.10.11549 (tests/remote/test_llamacpp_server.py makes them anew).
REAL = {
    "missing_file": (Cause.MODEL_NOT_FOUND, "there is no file missing.gguf"),
    "missing_file_raw": (Cause.MODEL_NOT_FOUND, "failed to open GGUF file 'nope.gguf'"),
    "garbage_file": (Cause.CORRUPT_WEIGHTS, "invalid magic characters"),
    "truncated_file": (Cause.CORRUPT_WEIGHTS, "not within the file bounds"),
    "header_only_file": (Cause.CORRUPT_WEIGHTS, "failed to read key-value pairs"),
    "port_in_use": (Cause.PORT_IN_USE, "couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 18702"),
    "out_of_memory_weights": (Cause.OUT_OF_MEMORY_WEIGHTS, "failed to allocate buffer for kv cache"),
    "bad_cache_type": (Cause.BAD_FLAG, "quantized V cache requires flash_attn"),
    "bad_template": (Cause.BAD_FLAG, "chat template parsing error"),
    "bad_flag": (Cause.BAD_FLAG, "n_ctxx"),
    "no_cuda": (Cause.DRIVER_OR_DEVICE, "no cuda device for this build of llama.cpp; its devices: CPU"),
    "no_gpu_layers": (Cause.DRIVER_OR_DEVICE, "no GPU to put 5 layers on"),
    "no_module": (Cause.NO_ENVIRONMENT, "No module named 'xllamacpp'"),
    "no_key": (Cause.OTHER, "the endpoint's key cannot be read"),
}

DOCUMENTED = [
    ("llama_model_load: error loading model: error loading model architecture: unknown model architecture: 'foo'",
     Cause.CORRUPT_WEIGHTS),
    ("gguf_init_from_file: failed to open GGUF file 'x.gguf' (Permission denied)", Cause.CORRUPT_WEIGHTS),
    ("ggml_backend_cuda_buffer_type_alloc_buffer: allocating 4096.00 MiB on device 0: cudaMalloc failed: out of memory",
     Cause.OUT_OF_MEMORY_WEIGHTS),
    ("llama_model_load: error loading model: unable to allocate CUDA0 buffer", Cause.OUT_OF_MEMORY_WEIGHTS),
    ("CUDA error: no kernel image is available for execution on the device", Cause.DRIVER_OR_DEVICE),
    ("ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing.",
     Cause.OUT_OF_MEMORY_WEIGHTS),
    ("ValueError: (16.00 GiB KV cache is needed, which is larger than the available KV cache memory (5.04 GiB).",
     Cause.OUT_OF_MEMORY_WEIGHTS),
    ("Free memory on device (3.1/79.2 GiB) on startup is less than desired GPU memory utilization (0.9, 71.28 GiB).",
     Cause.OUT_OF_MEMORY_WEIGHTS),
    ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 224.00 MiB.", Cause.OUT_OF_MEMORY_WEIGHTS),
    ("RuntimeError: Not enough memory to handle 4096 prefill tokens.", Cause.OUT_OF_MEMORY_WEIGHTS),
    ("OSError: [Errno 98] Address already in use", Cause.PORT_IN_USE),
    ("vllm: error: unrecognized arguments: --swap-space 4", Cause.BAD_FLAG),
    ("huggingface_hub.errors.GatedRepoError: 403 Client Error.", Cause.GATED_OR_UNAUTHORIZED),
    ("OSError: meta/x is not a local folder and is not a valid model identifier listed on the hub",
     Cause.MODEL_NOT_FOUND),
    ("safetensors_rust.SafetensorError: Error while deserializing header: HeaderTooLarge", Cause.CORRUPT_WEIGHTS),
    ("RuntimeError: Found no NVIDIA driver on your system.", Cause.DRIVER_OR_DEVICE),
    ("OSError: [Errno 28] No space left on device", Cause.DISK_FULL),
    ("ImportError: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.34' not found", Cause.NO_ENVIRONMENT),
    ("MemoryError", Cause.OUT_OF_MEMORY_WEIGHTS),
    *((f"podlab: {cause.value}: what happened", cause) for cause in HINTS),
]  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_a_real_log_gives_its_cause_and_its_decisive_line(name: str) -> None:
    cause, words = REAL[name]
    found = diagnose((LOGS / f"{name}.log").read_text().splitlines(), 1)
    assert found.cause is cause
    assert words in found.lines[-1]
    assert not found.lines[-1].startswith("podlab:")


@pytest.mark.parametrize("line,cause", DOCUMENTED)
def test_a_documented_line_gives_its_cause(line: str, cause: Cause) -> None:
    found = diagnose(["loading", line, "Traceback (most recent call last):", "  File x"], 1)
    assert (found.cause, bool(found.lines)) == (cause, True)
    assert found.hint


def test_every_row_is_reached_by_a_line_of_these_tests() -> None:
    lines = [line for line, _ in DOCUMENTED]
    for name in REAL:
        lines += (LOGS / f"{name}.log").read_text().splitlines()
    unreached = [row.pattern for row in ROWS if not any(re.search(row.pattern, line) for line in lines)]
    assert unreached == []


def test_a_wrapper_does_not_hide_the_cause_above_it() -> None:
    log = [
        "(EngineCore_0 pid=7) ValueError: No available memory for the cache blocks.",
        "(APIServer pid=1) ERROR EngineCore failed to start.",
        "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.",
    ]
    found = diagnose(log, 1)
    assert found.cause is Cause.OUT_OF_MEMORY_WEIGHTS
    assert "No available memory" in found.lines[-1]


@pytest.mark.parametrize(
    "status,cause",
    [(0, Cause.EXITED), (137, Cause.KILLED), (143, Cause.KILLED), (132, Cause.DRIVER_OR_DEVICE),
     (127, Cause.NO_ENVIRONMENT), (139, Cause.OTHER), (1, Cause.OTHER), (None, Cause.OTHER)],
)  # fmt: skip
def test_a_log_that_says_nothing_leaves_the_exit_status(status: int | None, cause: Cause) -> None:
    found = diagnose(["", "loading model", "  "], status)
    assert (found.cause, found.lines) == (cause, ("loading model",))


def test_what_was_said_before_ready_does_not_explain_the_end() -> None:
    log = [
        "E cudaMalloc failed: out of memory",
        "retrying smaller",
        "podlab: serving tiny on http://127.0.0.1:1",
        "bye",
    ]
    assert diagnose(log, 137).cause is Cause.KILLED
    assert diagnose([*log, "CUDA error: out of memory"], 134).cause is Cause.OUT_OF_MEMORY_WEIGHTS


def test_a_hostile_log_is_cut_and_cleaned() -> None:
    found = diagnose(["podlab: disk_full: \x1b[31m\x00red\x07" + "x" * 100_000], 1)
    assert found.lines[0].startswith("red")
    assert len(found.lines[0]) <= 300


def test_every_cause_that_can_be_found_has_something_to_do_next() -> None:
    assert set(Cause) - set(HINTS) == {Cause.OTHER, Cause.REBOOTED}
