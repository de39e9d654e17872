"""Why a server failed: every log of tests/data/engine_logs, and every row of the tables."""

from __future__ import annotations

import re

import pytest

from podlab.engines.base import Cause, MachineEvidence
from podlab.engines.diagnosis import TABLES, diagnose, explain
from podlab.engines.failures.row import Row, Weight
from podlab.engines.failures.shared import OWN_CAUSES
from podlab.engines.log_lines import cleaned
from podlab.engines.suggestions import HINTS
from tests.engines.failure_logs import ALL, PRODUCED, QUOTED, FailureLog

ROWS = [row for rows in TABLES.values() for row in rows]
NOT_OF_A_LOG = {Cause.EXITED, Cause.REBOOTED}
"""Found by the monitor's record."""
SILENT = {
    "llamacpp/killed", "llamacpp/terminated", "llamacpp/crashed", "llamacpp/oom_kill", "llamacpp/no_key",
    "llamacpp/killed_loading",
    "vllm/server_killed", "vllm/oom_kill",
}  # fmt: skip
"""Ended by a signal, so that only the machine knows: their logs say nothing."""

DOCUMENTED = [
    ("gguf_init_from_file: failed to open GGUF file 'x.gguf' (Permission denied)", Cause.CORRUPT_WEIGHTS),
    ("gguf_init_from_reader: bad GGUF version: 0", Cause.CORRUPT_WEIGHTS),
    ("gguf_init_from_reader: failed to read tensor info", Cause.CORRUPT_WEIGHTS),
    ("llama_model_load: error loading model: unsupported model architecture: 'x'", Cause.UNSUPPORTED_ARCHITECTURE),
    ("gguf_init_from_reader: tensor 'x' has invalid ggml type 99", Cause.UNSUPPORTED_ARCHITECTURE),
    ("llama_init_from_model: K cache type q8_0 with block size 32 does not divide n_embd_head_k=80", Cause.BAD_FLAG),
    ("ggml_vulkan: Device memory allocation of size 1 failed. ErrorOutOfDeviceMemory", Cause.OUT_OF_MEMORY_WEIGHTS),
    ("KeyError: 'invalid reasoning parser: x (chose from { deepseek_r1 })'", Cause.BAD_FLAG),
    ("vllm serve: error: argument --tensor-parallel-size/-tp: invalid int value: 'two'", Cause.BAD_FLAG),
    ("Value error, Invalid repository ID or local directory specified: 'nobody/nothing'.", Cause.MODEL_NOT_FOUND),
    ("ValueError: Following weights were not initialized from checkpoint: {'lm_head.weight'}", Cause.CORRUPT_WEIGHTS),
    ("ValueError: User-specified max_model_len (4096) is greater than the derived max_model_len (unknown)",
     Cause.CONTEXT_TOO_LONG),
    ("ValueError: World size (4) is larger than the number of available GPUs (2) in this node.", Cause.TP_MISMATCH),
    ("ValueError: awq quantization is currently not supported in cpu.", Cause.DRIVER_OR_DEVICE),
    ("RuntimeError: Failed to infer device type, please set the environment variable", Cause.DRIVER_OR_DEVICE),
    ("DEBUG 04-18 18:08:15 [core_client.py:421] Waiting for 1 core engine proc(s) to start: {0}", Cause.HANG),
    ("RuntimeError: Engine core initialization failed. Failed core proc(s): {'EngineCore_0': -9}", Cause.KILLED),
    ("requests.exceptions.HTTPError: Invalid username or password.", Cause.GATED_OR_UNAUTHORIZED),
    ("main.py: error: the following arguments are required: model", Cause.BAD_FLAG),
    ("requests.exceptions.HTTPError: 401 Client Error: Unauthorized for url", Cause.GATED_OR_UNAUTHORIZED),
    ("huggingface_hub.errors.RevisionNotFoundError: 404 Client Error.", Cause.MODEL_NOT_FOUND),
    ("OSError: meta/x is not a local folder and is not a valid model identifier listed on the hub",
     Cause.MODEL_NOT_FOUND),
    ("OSError: We couldn't connect to 'https://huggingface.co' to load the files", Cause.NO_NETWORK),
    ("socket.gaierror: [Errno -3] Temporary failure in name resolution", Cause.NO_NETWORK),
    ("RuntimeError: PytorchStreamReader failed reading zip archive: failed finding central directory",
     Cause.CORRUPT_WEIGHTS),
    ("OSError: [Errno 28] No space left on device", Cause.DISK_FULL),
    ("OSError: [Errno 122] Disk quota exceeded", Cause.DISK_FULL),
    ("jinja2.exceptions.TemplateSyntaxError: unexpected '%'", Cause.TEMPLATE_ERROR),
    ("OSError: Can't load tokenizer for 'x'. If you were trying to load it from the hub", Cause.MISSING_TOKENIZER),
    ("CUDA error: out of memory", Cause.OUT_OF_MEMORY_WEIGHTS),
    ("terminate called after throwing an instance of 'std::bad_alloc'", Cause.OUT_OF_MEMORY_WEIGHTS),
    ("RuntimeError: [enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory",
     Cause.OUT_OF_MEMORY_WEIGHTS),
    ("cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version",
     Cause.DRIVER_OR_DEVICE),
    ("RuntimeError: Found no NVIDIA driver on your system.", Cause.DRIVER_OR_DEVICE),
    ("ImportError: libcuda.so.1: cannot open shared object file", Cause.DRIVER_OR_DEVICE),
    ("Failed to initialize NVML: Driver/library version mismatch", Cause.DRIVER_OR_DEVICE),
    ("[E] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=3)", Cause.HANG),
    ("ModuleNotFoundError: No module named 'vllm'", Cause.NO_ENVIRONMENT),
    ("ImportError: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.34' not found", Cause.NO_ENVIRONMENT),
    ("MemoryError", Cause.OUT_OF_MEMORY_WEIGHTS),
    ("Shard process was signaled to shutdown with signal 9 rank=0", Cause.KILLED),
    ("RuntimeError: Executor worker died during initialization", Cause.WORKER_DIED),
    ("[1.5] Out of memory: Killed process 4242 (VLLM::EngineCor) total-vm:9000kB", Cause.KILLED),
    ("[1.5] python3 invoked oom-killer: gfp_mask=0x140cca, order=0", Cause.KILLED),
    ("[1.5] NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.", Cause.DRIVER_OR_DEVICE),
    *((f"podlab: {cause.value}: what happened", cause) for cause in OWN_CAUSES),
]  # fmt: skip


def test_there_are_enough_logs_and_each_says_where_it_comes_from() -> None:
    assert len(PRODUCED) >= 30
    assert len(QUOTED) >= 10
    assert {log.head["engine"] for log in PRODUCED} == {"llamacpp", "vllm"}
    assert [log.name for log in PRODUCED if not log.head["versions"] or not log.head["command"]] == []
    assert [log.name for log in QUOTED if not re.match(r"https://github\.com/.+/\d+$", log.head["source"])] == []


@pytest.mark.parametrize("log", ALL, ids=str)
def test_a_log_gives_its_cause_and_its_decisive_line(log: FailureLog) -> None:
    found = diagnose(log.lines, log.status, log.evidence)
    if log.status is None:  # it was cut while the server ran: only the log is known
        found, _ = explain(log.lines)

    assert found.cause is log.cause
    if log.cause is not Cause.NONE and log.words:
        assert any(log.words in line for line in found.lines), found.lines
    assert not any(line.startswith(("podlab: ", "(")) for line in found.lines)


@pytest.mark.parametrize("log", [log for log in ALL if log.name not in SILENT], ids=str)
def test_the_log_alone_is_enough(log: FailureLog) -> None:
    found, engine = explain(log.lines)

    assert found.cause is log.cause
    assert bool(found.hint) == (log.cause not in (Cause.NONE, Cause.OTHER))
    assert engine in (None, log.head["engine"])


@pytest.mark.parametrize("name", sorted(SILENT))
def test_a_log_that_says_nothing_is_given_no_cause(name: str) -> None:
    (log,) = (log for log in ALL if log.name == name)
    assert explain(log.lines)[0].cause in (Cause.NONE, Cause.HANG, Cause.OTHER)


def test_no_failed_start_is_called_a_success() -> None:
    failed = [log for log in ALL if log.status is not None or not log.produced]

    assert len(failed) >= 40
    assert [log.name for log in failed if diagnose(log.lines, log.status, log.evidence).cause is Cause.NONE] == []
    started = [log.name for log in failed if explain(log.lines)[0].cause is Cause.NONE]
    assert set(started) <= SILENT, "those were ready, and were ended from outside"


@pytest.mark.parametrize("log", [log for log in PRODUCED if log.words and log.name not in SILENT], ids=str)
def test_a_log_whose_beginning_is_gone_gives_the_same_cause(log: FailureLog) -> None:
    """A tail begins anywhere, in the middle of a line too."""
    first = next(number for number, line in enumerate(log.lines) if log.words in line)
    for begin in range(max(0, first - 3), first + 1):
        tail = list(log.lines[begin:])
        if begin < first:
            tail[0] = tail[0][len(tail[0]) // 2 :]
        assert explain(tail, log.head["engine"])[0].cause is log.cause


@pytest.mark.parametrize("line,cause", DOCUMENTED)
def test_a_documented_line_gives_its_cause(line: str, cause: Cause) -> None:
    found = diagnose(["loading", line, "Traceback (most recent call last):", "  File x"], 1)
    assert (found.cause, bool(found.lines)) == (cause, True)
    assert found.hint


def _seen(row: Row, logs: tuple[FailureLog, ...]) -> bool:
    return any(
        re.search(row.pattern, line.text) for log in logs for line in cleaned(log.lines) if row.quiet or not line.quiet
    )


def test_every_row_is_reached_by_a_line_of_these_tests() -> None:
    documented = cleaned(line for line, _ in DOCUMENTED)
    unseen = [row for row in ROWS if not any(re.search(row.pattern, line.text) for line in documented)]
    unreached = [row.pattern for row in unseen if not _seen(row, ALL)]

    assert unreached == []


def test_a_row_without_a_source_is_shown_by_a_log_that_was_made() -> None:
    unshown = [row.pattern for row in ROWS if not row.source and not _seen(row, PRODUCED)]

    assert [pattern for pattern in unshown if not pattern.startswith("^podlab: ")] == []


def test_a_row_that_a_made_log_shows_needs_no_other_source() -> None:
    sourced = [row for row in ROWS if row.source]
    shown = [row.pattern for row in sourced for log in PRODUCED
             if log.cause in (row.cause, row.loaded) and _seen(row, (log,))]  # fmt: skip

    assert shown == []


def test_a_cause_is_verified_where_a_log_was_made_for_it() -> None:
    for log in ALL:
        found, _ = explain(log.lines)
        if found.cause is log.cause and log.produced and log.cause is not Cause.OTHER and log.name not in SILENT:
            assert found.verified, log.name
    assert not explain(["torch.OutOfMemoryError: CUDA out of memory."])[0].verified


def test_a_wrapper_does_not_hide_the_cause_above_it() -> None:
    log = [
        "(EngineCore_0 pid=7) ValueError: No available memory for the cache blocks.",
        "(APIServer pid=1) ERROR EngineCore failed to start.",
        "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.",
    ]
    found = diagnose(log, 1)
    assert found.cause is Cause.OUT_OF_MEMORY_KV
    assert "No available memory" in found.lines[-1]


def test_an_unknown_exception_is_shown_and_its_wrappers_are_not() -> None:
    log = [
        "(Worker pid=7) ERROR 11-23 22:46:04 [multiproc_executor.py:953] ZeroDivisionError: division by zero",
        "(EngineCore pid=7) ERROR 11-23 22:46:06 [core.py:1] Exception: WorkerProc initialization failed",
        "(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above.",
    ]
    found = diagnose(log, 1)
    assert (found.cause, found.lines[0]) == (Cause.OTHER, "ZeroDivisionError: division by zero")


def test_a_failure_that_no_rule_knows_is_not_taken_for_a_hang() -> None:
    begun = "(APIServer pid=1) INFO 11-23 22:25:44 [api_utils.py:286] non-default args: {}"
    assert explain([begun])[0].cause is Cause.HANG
    for line in ("Traceback (most recent call last):", "pkg._inner.NewError: what", "terminate called after throwing"):
        assert explain([begun, line])[0].cause is Cause.OTHER


def test_what_was_survived_does_not_hide_what_was_not() -> None:
    """An import that failed early and a neighbour's death say less than an exception or the memory."""
    early = "ImportError: libcuda.so.1: cannot open shared object file"
    assert diagnose([early, "ValueError: something new"], 1).cause is Cause.OTHER
    assert diagnose([early], 137).cause is Cause.KILLED
    assert diagnose([early], 1).cause is Cause.DRIVER_OR_DEVICE
    ranks = ["[rank1]: torch.OutOfMemoryError: CUDA out of memory.", "[rank0]: RuntimeError: NCCL error: remote closed"]
    assert diagnose(ranks, 1).cause is Cause.OUT_OF_MEMORY_WEIGHTS
    quiet = "WARNING 11-23 22:25:44 [x.py:1] CUDA out of memory was avoided"
    assert diagnose([quiet], 1).cause is Cause.OTHER


def test_of_processes_that_pull_each_other_down_the_first_counts() -> None:
    asked = (
        "(EngineCore pid=2) INFO 11-23 22:26:32 [core.py:1454] [shutdown] EngineCore: trigger received signal=SIGTERM"
    )
    dead = (
        "(APIServer pid=1) ERROR 11-23 22:26:32 [async_llm.py:906] vllm.v1.engine.exceptions.EngineDeadError: See above"
    )
    ready = "INFO:     Application startup complete."
    assert diagnose([ready, asked, dead], 0).cause is Cause.KILLED
    assert diagnose([ready, dead, asked], 0).cause is Cause.WORKER_DIED
    assert "memory ran out" in diagnose([ready, dead], 0, MachineEvidence(oom_kills=1)).hint


def test_memory_that_ran_out_after_the_weights_were_loaded_is_the_caches() -> None:
    log = ["(Worker pid=1) INFO 11-23 22:26:18 [default_loader.py:501] Loading weights took 20.02 seconds"]
    assert diagnose([*log, "torch.OutOfMemoryError: CUDA out of memory."], 1).cause is Cause.OUT_OF_MEMORY_KV
    assert diagnose(["torch.OutOfMemoryError: CUDA out of memory."], 1).cause is Cause.OUT_OF_MEMORY_WEIGHTS


def test_the_number_that_the_engine_proposes_is_the_one_suggested() -> None:
    (log,) = (log for log in QUOTED if log.name == "quoted/vllm_kv_estimate")
    assert "--max-model-len 34736" in explain(log.lines)[0].hint
    (log,) = (log for log in PRODUCED if log.name == "vllm/context_too_long")
    assert "--max-model-len 2048" in explain(log.lines)[0].hint


def test_a_suggestion_names_the_flags_of_the_engine() -> None:
    line = ["torch.OutOfMemoryError: CUDA out of memory."]
    flags = {"vllm": "--tensor-parallel-size", "sglang": "--tp", "tgi": "--num-shard", "trtllm": "--tp_size",
             "llamacpp": "--gpu-layers"}  # fmt: skip
    for engine, flag in flags.items():
        assert flag in explain(line, engine)[0].hint


@pytest.mark.parametrize(
    "status,cause",
    [(0, Cause.EXITED), (137, Cause.KILLED), (143, Cause.KILLED), (132, Cause.DRIVER_OR_DEVICE),
     (127, Cause.NO_ENVIRONMENT), (139, Cause.OTHER), (1, Cause.OTHER), (None, Cause.OTHER)],
)  # fmt: skip
def test_a_log_that_says_nothing_leaves_the_exit_status(status: int | None, cause: Cause) -> None:
    found = diagnose(["", "loading model", "  "], status)
    assert (found.cause, found.lines) == (cause, () if cause is Cause.KILLED else ("loading model",))


@pytest.mark.parametrize(
    "evidence,status,cause",
    [
        (MachineEvidence(oom_kills=1), None, Cause.KILLED),
        (MachineEvidence(oom_kills=0), 1, Cause.OTHER),
        (MachineEvidence(kernel_lines=("[9.1] Memory cgroup out of memory: Killed process 7 (python3)",)), 137,
         Cause.KILLED),
        (MachineEvidence(kernel_lines=("[9.1] NVRM: Xid (PCI:0000:01:00): 48, pid=7",)), 1, Cause.DRIVER_OR_DEVICE),
        (MachineEvidence(kernel_lines=("[9.1] eth0: link up",)), 1, Cause.OTHER),
        (MachineEvidence(driver_error="Driver/library version mismatch"), 1, Cause.DRIVER_OR_DEVICE),
        (MachineEvidence(disk_free_bytes=4096), 1, Cause.DISK_FULL),
        (MachineEvidence(disk_free_bytes=1 << 40), 1, Cause.OTHER),
        (MachineEvidence(alive=True), None, Cause.HANG),
        (MachineEvidence(alive=False), None, Cause.OTHER),
    ],
)  # fmt: skip
def test_the_machine_tells_what_the_log_does_not(evidence: MachineEvidence, status: int | None, cause: Cause) -> None:
    found = diagnose(["loading model"], status, evidence)
    assert found.cause is cause
    assert found.hint or cause is Cause.OTHER
    assert diagnose(["podlab: port_in_use: it is taken"], status, evidence).cause is Cause.PORT_IN_USE


def test_where_another_copy_of_the_weights_may_help_the_hint_leaves_open_where_it_comes_from() -> None:
    """Only who started it knows whether the pod fetched the file."""
    for line in ("gguf_init_from_reader: invalid magic characters", "podlab: corrupt_weights: it is cut"):
        found = diagnose([line], 1)
        assert (found.cause, found.another_copy) == (Cause.CORRUPT_WEIGHTS, True)
        assert "fetched" not in found.hint
    assert not diagnose(["unknown model architecture: 'new'"], 1).another_copy


def test_what_was_said_before_ready_does_not_explain_the_end() -> None:
    log = [
        "E cudaMalloc failed: out of memory",
        "retrying smaller",
        "podlab: serving tiny on http://127.0.0.1:1",
        "bye",
    ]
    assert diagnose(log, 137).cause is Cause.KILLED
    assert diagnose([*log, "CUDA error: out of memory"], 134).cause is Cause.OUT_OF_MEMORY_WEIGHTS


def test_a_request_that_was_refused_is_no_failure_of_the_server() -> None:
    said = "ValueError: User-specified max_model_len (9) is greater than the derived max_model_len (8)"
    log = ["INFO:     Application startup complete.", said]
    assert explain(log)[0].cause is not Cause.CONTEXT_TOO_LONG
    begun_again = [*log[:1], "(APIServer pid=1) INFO 11-23 22:25:44 [api_utils.py:286] non-default args: {}", *log[1:]]
    assert explain(begun_again)[0].cause is Cause.CONTEXT_TOO_LONG


def test_a_hostile_log_is_cut_and_cleaned() -> None:
    found = diagnose(["podlab: disk_full: \x1b[31m\x00red\x07\x9b\u202e" + "x" * 100_000], 1)
    assert found.lines[0].startswith("red")
    assert len(found.lines[0]) <= 300
    assert found.lines[0].isprintable()
    named = diagnose(["x: error: unrecognized arguments: --a {memory} {0} {x!r}"], 2)
    assert "{memory} {0} {x!r}" in named.hint, "what a log says is no template"


def test_lines_made_to_be_slow_are_read_like_others() -> None:
    """Each repeats the beginning of a pattern that goes on; the test's time limit is what would fail."""
    beginnings = [re.split(r"[.\\\[({]", row.pattern)[0] for row in ROWS]
    lines = [(begin + " ") * (200_000 // (len(begin) + 1)) for begin in beginnings if begin]
    lines += ["(" * 200_000, "[" * 200_000, "Model architectures " * 10_000, "\x1b[" + "0;" * 100_000, "\r" * 200_000]
    assert isinstance(diagnose(lines, 1).cause, Cause)


def test_progress_written_over_itself_hides_nothing() -> None:
    found = diagnose(["Loading: 1%\rLoading: 2%\rOSError: [Errno 28] No space left on device\rbye"], 1)
    assert (found.cause, found.lines) == (Cause.DISK_FULL, ("OSError: [Errno 28] No space left on device",))


def test_every_cause_that_can_be_found_has_something_to_do_next() -> None:
    assert set(Cause) - set(HINTS) == {Cause.OTHER, Cause.NONE, Cause.REBOOTED}


def test_every_cause_is_shown_by_a_log() -> None:
    assert {log.cause for log in ALL} == set(Cause) - NOT_OF_A_LOG


def test_a_hint_names_only_what_its_pattern_lets_through() -> None:
    for row in ROWS:
        names = set(re.findall(r"\{(\w+)\}", row.hint)) - {"memory"}
        assert names <= set(re.compile(row.pattern).groupindex), row.pattern
        assert row.weight in Weight
