"""What vLLM says (0.6 to 0.32), without what it repeats of torch and the Hub.

Lines that only wrap a failure have no row of their own, so that the search goes on upwards to the cause. "Engine core
initialization failed. See root cause above" counts where there is none above it.
"""

from __future__ import annotations

from podlab.engines.base import Cause
from podlab.engines.failures.row import Row, Weight

_ISSUE = "https://github.com/vllm-project/vllm/issues/"
_CODE = "https://github.com/vllm-project/vllm/blob/main/vllm/"
_OTHER_GPU = (
    "Another process holds memory of that GPU: stop it, take another GPU, or lower --gpu-memory-utilization below the "
    "share that is free."
)
_NEWER_VLLM = "This version of the engine does not know the model: update vLLM, or take another model."

ROWS: tuple[Row, ...] = (
    Row(r"argument --tensor-parallel-size", Cause.BAD_FLAG, source=_CODE + "engine/arg_utils.py"),
    Row(r"invalid tool call parser: (?P<name>[\w.-]{1,60})", Cause.BAD_FLAG,
        "Choose one of the parsers that the line names for --tool-call-parser."),
    Row(r"invalid reasoning parser", Cause.BAD_FLAG, "Choose one of the parsers that the line names for "
        "--reasoning-parser.", _CODE + "entrypoints/launchers/launcher.py"),
    Row(r"validation errors? for (Cache|Parallel|Scheduler|Load|LoRA|Speculative|Compilation|Kernel)Config",
        Cause.BAD_FLAG, weight=Weight.SYMPTOM, below=2),
    Row(r"not a valid JSON file", Cause.BAD_CONFIG,
        "The model's config.json is damaged: fetch it anew from the model's repository."),
    Row(r"Validation error for field '(?P<field>[\w.]{1,60})'", Cause.BAD_CONFIG,
        "Correct {field} in the model's config.json, or fetch that file anew.", weight=Weight.SYMPTOM, below=1),
    Row(r"Unknown RoPE scaling type", Cause.BAD_CONFIG),
    Row(r"Unrecognized model in .{1,200}Should have a `model_type` key", Cause.BAD_CONFIG),
    Row(r"No adapter found for", Cause.MODEL_NOT_FOUND, "Check the paths of --lora-modules."),
    Row(r"Invalid repository ID or local directory specified: '/", Cause.BAD_CONFIG,
        "The folder holds no config.json: name the folder that does, or download the model whole."),
    Row(r"Invalid repository ID or local directory specified: '(?!/)", Cause.MODEL_NOT_FOUND,
        source=_CODE + "transformers_utils/config.py"),
    Row(r"Model architectures .{1,300} are not supported for now", Cause.UNSUPPORTED_ARCHITECTURE, _NEWER_VLLM),
    Row(r"but Transformers does not recognize this architecture", Cause.UNSUPPORTED_ARCHITECTURE, _NEWER_VLLM),
    Row(r"Weight files referenced in index but missing", Cause.CORRUPT_WEIGHTS, "Some files of weights are missing.",
        another_copy=True),
    Row(r"Cannot find any model weights with", Cause.CORRUPT_WEIGHTS, "The folder holds no weights.",
        another_copy=True),
    Row(r"in parse_safetensors_file_metadata", Cause.CORRUPT_WEIGHTS, "It is no safetensors file.", below=2,
        another_copy=True),
    Row(r"Following weights were not initialized from checkpoint", Cause.CORRUPT_WEIGHTS,
        "The weights are incomplete.", _CODE + "model_executor/model_loader/default_loader.py", another_copy=True),
    Row(r"The supplied chat template", Cause.TEMPLATE_ERROR, "Give --chat-template a file that exists on the pod."),
    Row(r"User-specified max_model_len \(\d+\) is greater than the derived max_model_len \([^)]{0,60}?(?P<max>\d+)",
        Cause.CONTEXT_TOO_LONG, "Start it with --max-model-len {max}, the most this model was made for."),
    Row(r"User-specified max_model_len \(\d+\) is greater than the derived max_model_len", Cause.CONTEXT_TOO_LONG),
    Row(r"must be divisible by tensor parallel size", Cause.TP_MISMATCH,
        "Choose a --tensor-parallel-size that divides the number of attention heads, such as 1, 2 or 4."),
    Row(r"Not enough allowed NUMA nodes", Cause.TP_MISMATCH,
        "Say --tensor-parallel-size 1, or name the cores of each rank in VLLM_CPU_OMP_THREADS_BIND."),
    Row(r"World size \(\d+\) is larger than the number of available GPUs \((?P<gpus>\d+)\)", Cause.TP_MISMATCH,
        "Say --tensor-parallel-size {gpus}, or use a machine with more GPUs.", _CODE + "config/parallel.py"),
    Row(r"larger than the available KV cache memory.{0,120}estimated maximum model length is (?P<fits>\d+)",
        Cause.OUT_OF_MEMORY_KV, "Start it with --max-model-len {fits}, which fits by vLLM's own estimate, or raise "
        "--gpu-memory-utilization."),
    Row(r"larger than the available KV cache memory", Cause.OUT_OF_MEMORY_KV),
    Row(r"larger than the maximum number of tokens that can be stored in KV cache \((?P<fits>\d+)\)",
        Cause.OUT_OF_MEMORY_KV, "Start it with --max-model-len {fits}, or raise --gpu-memory-utilization.",
        _ISSUE + "2418"),
    Row(r"No available memory for the cache blocks", Cause.OUT_OF_MEMORY_KV),
    Row(r"on kv cache allocation is less than requested memory for kv", Cause.OUT_OF_MEMORY_KV,
        "Lower VLLM_CPU_KVCACHE_SPACE (GiB) or --kv-cache-memory-bytes below what is free."),
    Row(r"Available memory on node .{0,80}is less than desired CPU memory utilization", Cause.OUT_OF_MEMORY_WEIGHTS,
        "It was to take a larger share of the machine's memory than is free: start it with a smaller --memory, such as "
        "--memory 50%, or end what takes the memory."),
    Row(r"Free memory on device .{0,80}is less than desired GPU memory utilization", Cause.OUT_OF_MEMORY_WEIGHTS,
        _OTHER_GPU, "https://github.com/ovg-project/kvcached/issues/29"),
    Row(r"quantization is currently not supported in", Cause.DRIVER_OR_DEVICE,
        "This machine cannot compute that quantisation: take another form of the model, or another machine.",
        _CODE + "platforms/interface.py"),
    Row(r"Cannot find the config file for (?P<method>\w{1,40})", Cause.BAD_FLAG,
        "The model is not quantised that way: leave --quantization {method} out."),
    Row(r"Failed to infer device type", Cause.DRIVER_OR_DEVICE, "This machine has no GPU that the engine can use.",
        _CODE + "config/device.py"),
    Row(r"No available shared memory broadcast block found", Cause.HANG, source="https://github.com/vllm-project/vllm-ascend/issues/3717",
        weight=Weight.HINT, quiet=True),
    Row(r"Waiting for \d+ .{0,30}core engine proc\(s\) to start", Cause.HANG, source=_ISSUE + "16841",
        weight=Weight.HINT, quiet=True),
    Row(r"Worker proc \S+ died unexpectedly", Cause.WORKER_DIED, weight=Weight.SYMPTOM),
    Row(r"EngineDeadError", Cause.WORKER_DIED, weight=Weight.HINT),
    Row(r"Failed core proc\(s\): \{[^}]{0,80}: -9", Cause.KILLED,
        "Most often the machine ran out of memory: see dmesg. {memory}", _CODE + "v1/engine/utils.py", Weight.SYMPTOM),
    Row(r"RuntimeError: Engine core initialization failed", Cause.KILLED,
        "One of its processes ended without a word, most often because the machine ran out of memory: see dmesg.",
        weight=Weight.HINT),
    Row(r"trigger received signal=SIGTERM", Cause.KILLED, weight=Weight.HINT, quiet=True),
)  # fmt: skip
