"""docs/failures.md, made from the causes, what to do about them, and the logs that show them."""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path

from podlab.engines.base import Cause
from podlab.engines.suggestions import HINTS

LOGS = Path(__file__).parent.parent / "tests" / "data" / "engine_logs"
MEANS: dict[Cause, str] = {
    Cause.BAD_FLAG: "An option, or its value, is not one of this engine's.",
    Cause.BAD_CONFIG: "The model's `config.json` is missing or makes no sense.",
    Cause.MODEL_NOT_FOUND: "There is no such file, folder or repository.",
    Cause.GATED_OR_UNAUTHORIZED: "The hub wants a token, or a licence accepted on the model's page.",
    Cause.NO_NETWORK: "The hub cannot be reached, or must not be.",
    Cause.UNSUPPORTED_ARCHITECTURE: "This version of the engine does not know that kind of model.",
    Cause.CORRUPT_WEIGHTS: "Files of weights are damaged, incomplete or missing.",
    Cause.MISSING_TOKENIZER: "The tokenizer is missing, damaged or unknown.",
    Cause.TEMPLATE_ERROR: "The chat template is missing or no valid Jinja.",
    Cause.PORT_IN_USE: "Another process listens on the port.",
    Cause.CONTEXT_TOO_LONG: "More context was asked for than the model was made for.",
    Cause.TP_MISMATCH: "The model or the machine cannot be divided into that many parts.",
    Cause.OUT_OF_MEMORY_WEIGHTS: "The weights do not fit into the memory.",
    Cause.OUT_OF_MEMORY_KV: "The weights fit, and what is left does not hold the context.",
    Cause.DISK_FULL: "The disk has no room for the model or for what the engine writes.",
    Cause.DRIVER_OR_DEVICE: "The GPU, its driver or the CPU is missing, too old, or failed.",
    Cause.NO_ENVIRONMENT: "The engine's own environment could not be made or does not import.",
    Cause.KILLED: "A signal ended it: somebody's, or the kernel's for want of memory.",
    Cause.WORKER_DIED: "One of the server's processes ended while it served.",
    Cause.HANG: "It neither became ready nor ended.",
    Cause.OTHER: "It failed in a way that no rule knows.",
    Cause.NONE: "It became ready, and the log shows no end.",
}
INTRODUCTION = """\
# Why a model server failed

Written by `scripts/docs` from `podlab/engines/` and `tests/data/engine_logs/`; do not edit it by hand.

`%model explain LOGFILE` says why a server failed, from any log of vLLM, llama.cpp, SGLang, TGI or TensorRT-LLM.
`%model show` and `%model start` say the same of podlab's own endpoints, and know the exit status and the machine too.

A cause is verified where a log of it was produced: `scripts/make-failure-logs` runs vLLM's CPU build and llama.cpp into that failure and keeps what they say.
A quoted log is the few decisive lines of a public issue, whose address stands in its head.
Where a rule rests on a quoted log or on an engine's source only, `%model explain` says so (`verified` in its document); all rules for SGLang, TGI and TensorRT-LLM do.

"""


def failures() -> str:
    heads = [tomllib.loads(path.read_text("utf-8").split("+++\n", 2)[1]) for path in sorted(LOGS.rglob("*.log"))]
    made = Counter((head["cause"], head["engine"]) for head in heads if head["provenance"] == "produced")
    quoted = Counter(head["cause"] for head in heads if head["provenance"] == "quoted")
    lines = ["| cause | what it means | vLLM | llama.cpp | quoted | |", "| --- | --- | ---: | ---: | ---: | --- |"]
    for cause, meaning in MEANS.items():
        counts = [made[cause.value, engine] for engine in ("vllm", "llamacpp")]
        by = [name for name, count in zip(("vLLM", "llama.cpp"), counts, strict=True) if count]
        verified = f"verified with {' and '.join(by)}" if by else "unverified"
        lines.append(
            f"| `{cause.value}` | {meaning} | {counts[0]} | {counts[1]} | {quoted[cause.value]} | {verified} |"
        )
    total = sum(made.values())
    lines += ["", f"{total} logs were produced and {len(heads) - total} are quoted.", "", "## What to do", ""]
    lines += ["| cause | where nothing better is known |", "| --- | --- |"]
    lines += [f"| `{cause.value}` | {HINTS[cause]} |" for cause in MEANS if cause in HINTS]
    return INTRODUCTION + "\n".join(lines) + "\n"
