"""What SGLang, TGI and TensorRT-LLM say, from what people reported: none of them was run to make these rows."""

from __future__ import annotations

from podlab.engines.base import Cause
from podlab.engines.failures.row import Row, Weight

_SGLANG = "https://github.com/sgl-project/sglang/issues/"
_TGI = "https://github.com/huggingface/text-generation-inference/issues/"
_TRTLLM = "https://github.com/NVIDIA/TensorRT-LLM/issues/"

SGLANG: tuple[Row, ...] = (
    Row(r"Not enough memory\. Please try to increase --mem-fraction-static", Cause.OUT_OF_MEMORY_KV,
        "Raise --mem-fraction-static, say --context-length with fewer tokens, or spread the model with --tp.",
        _SGLANG + "4330"),
)  # fmt: skip
TGI: tuple[Row, ...] = (
    Row(r"Not enough memory to handle \d+ prefill tokens", Cause.OUT_OF_MEMORY_KV,
        "Lower --max-batch-prefill-tokens or --max-total-tokens.", _TGI + "1164"),
    Row(r"Shard process was signaled to shutdown with signal 9", Cause.KILLED,
        "Most often the machine ran out of memory: see dmesg. {memory}", _TGI + "2238", Weight.SYMPTOM),
    Row(r"Shard process was signaled to shutdown with signal 4", Cause.DRIVER_OR_DEVICE,
        "The build uses instructions this CPU has not.", _TGI + "2238"),
)  # fmt: skip
TRTLLM: tuple[Row, ...] = (
    Row(r"Cuda Runtime \(out of memory\)", Cause.OUT_OF_MEMORY_WEIGHTS,
        source="https://github.com/guidance-ai/llgtrt/issues/7"),
    Row(r"Executor worker (returned error|died during initialization)", Cause.WORKER_DIED, source=_TRTLLM + "7706",
        weight=Weight.HINT),
)  # fmt: skip
