"""What to do about a failure: by its cause, and by the engine where its flags differ."""

from __future__ import annotations

from podlab.engines.base import Cause

LESS_MEMORY = "Use a smaller context, fewer slots, a smaller quantisation, or a machine with more memory."

HINTS: dict[Cause, str] = {
    Cause.BAD_FLAG: "Change or leave out that option.",
    Cause.BAD_CONFIG: "Correct the model's config.json, or fetch it anew from the model's repository.",
    Cause.MODEL_NOT_FOUND: "Check the model's name, repository and file.",
    Cause.GATED_OR_UNAUTHORIZED: "Accept the terms on the model's page, and give a token of that account: "
    "podlab secret set HF_TOKEN.",
    Cause.NO_NETWORK: "Let the pod reach the hub and start again: it goes on where it stopped.",
    Cause.UNSUPPORTED_ARCHITECTURE: "Update the engine, or take another model.",
    Cause.CORRUPT_WEIGHTS: "The file of weights is damaged.",
    Cause.MISSING_TOKENIZER: "Fetch the tokenizer's files from the model's repository, or name another --tokenizer.",
    Cause.TEMPLATE_ERROR: "Correct or leave out --chat-template.",
    Cause.PORT_IN_USE: "Start again: another port is picked. Or name a free one with --port.",
    Cause.CONTEXT_TOO_LONG: "Use a smaller context.",
    Cause.TP_MISMATCH: "Spread the model over fewer GPUs, or over a number that divides its attention heads.",
    Cause.OUT_OF_MEMORY_WEIGHTS: LESS_MEMORY,
    Cause.OUT_OF_MEMORY_KV: "Use a smaller context, fewer requests at once, or a machine with more memory.",
    Cause.DISK_FULL: "Make room on the pod's disk, or choose another place for models: df -h shows the disks.",
    Cause.DRIVER_OR_DEVICE: "See whether nvidia-smi answers there, or use a machine that has what the engine needs.",
    Cause.NO_ENVIRONMENT: "The whole log says more; starting again makes the environment anew.",
    Cause.KILLED: "Somebody, or a limit of the machine, ended it. Look who else works there.",
    Cause.WORKER_DIED: "Start it again. If it dies again, dmesg there says whether memory or a GPU was the reason.",
    Cause.HANG: "See whether the log still grows: large models load for minutes. If not, stop it and start anew.",
    Cause.EXITED: "A server should not end by itself; the log's last lines may say why.",
}
"""What to do next where a row has nothing better to say."""

OF_ENGINE: dict[str, dict[Cause, str]] = {
    "vllm": {
        Cause.OUT_OF_MEMORY_WEIGHTS: "Spread it with --tensor-parallel-size 2, or take a quantised form of the "
        "model or a GPU with more memory.",
        Cause.OUT_OF_MEMORY_KV: "Lower --max-model-len (such as 16384) or --max-num-seqs, or raise "
        "--gpu-memory-utilization (such as 0.95).",
        Cause.CONTEXT_TOO_LONG: "Lower --max-model-len.",
    },
    "llamacpp": {
        Cause.OUT_OF_MEMORY_WEIGHTS: "Keep fewer layers on the GPU (--gpu-layers), or take a smaller quantisation.",
        Cause.OUT_OF_MEMORY_KV: "Lower --ctx-size (--context for podlab) or --parallel, or say --cache-type-k q8_0.",
        Cause.DRIVER_OR_DEVICE: "Leave --backend out, say --backend cpu, or use a machine that has it.",
    },
    "sglang": {
        Cause.OUT_OF_MEMORY_WEIGHTS: "Spread it with --tp 2, or take a quantised form of the model.",
        Cause.OUT_OF_MEMORY_KV: "Lower --context-length or --max-running-requests, or change --mem-fraction-static.",
        Cause.CONTEXT_TOO_LONG: "Lower --context-length.",
    },
    "tgi": {
        Cause.OUT_OF_MEMORY_WEIGHTS: "Spread it with --num-shard 2, or say --quantize.",
        Cause.OUT_OF_MEMORY_KV: "Lower --max-total-tokens or --max-batch-prefill-tokens.",
        Cause.CONTEXT_TOO_LONG: "Lower --max-total-tokens.",
    },
    "trtllm": {
        Cause.OUT_OF_MEMORY_WEIGHTS: "Spread it with --tp_size 2, or take a quantised form of the model.",
        Cause.OUT_OF_MEMORY_KV: "Lower --max_seq_len, or change --kv_cache_free_gpu_memory_fraction.",
        Cause.CONTEXT_TOO_LONG: "Lower --max_seq_len.",
    },
}


def suggestion(cause: Cause, engine: str | None) -> str:
    """One or two sentences; "" for a cause that asks for nothing."""
    return OF_ENGINE.get(engine or "", {}).get(cause) or HINTS.get(cause, "")
