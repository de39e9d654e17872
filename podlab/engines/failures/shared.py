"""What is said by what every engine stands on: podlab's own programs, Python, torch, CUDA, the Hub, Linux."""

from __future__ import annotations

from podlab.engines.base import Cause
from podlab.engines.failures.row import Row, Weight

OWN_CAUSES = (
    Cause.OUT_OF_MEMORY_WEIGHTS, Cause.PORT_IN_USE, Cause.MODEL_NOT_FOUND, Cause.CORRUPT_WEIGHTS, Cause.BAD_FLAG,
    Cause.DRIVER_OR_DEVICE, Cause.NO_ENVIRONMENT, Cause.NO_NETWORK, Cause.GATED_OR_UNAUTHORIZED, Cause.DISK_FULL,
)  # fmt: skip
"""What the programs of podlab.remote refuse with: `podlab: <cause>: <reason>`."""
_TORCH = "https://github.com/pytorch/pytorch/blob/main/"
_HUB = "https://github.com/huggingface/huggingface_hub/blob/main/src/huggingface_hub/"
_LINUX = "https://github.com/torvalds/linux/blob/master/mm/oom_kill.c"
_NO_GPU = "This machine has no GPU that the engine can use."
_OLD_DRIVER = "The GPU's driver is older than the engine's CUDA: update the driver, or install a build for that CUDA."
_OLD_BUILD = "The engine's build knows nothing of this GPU: take a build of a newer CUDA, or an older GPU."
_OFFLINE = "Let the pod reach the hub, or copy the model to the pod and start its folder."

ROWS: tuple[Row, ...] = (
    *(Row(rf"^podlab: {cause.value}: ", cause, another_copy=cause is Cause.CORRUPT_WEIGHTS) for cause in OWN_CAUSES),
    # The command line
    Row(r"error: unrecognized arguments: (?P<words>[^\x00]{1,120})", Cause.BAD_FLAG,
        "This version does not know: {words}. Leave it out or see its --help."),
    Row(r"error: argument (?P<flag>-[\w/-]{1,80})", Cause.BAD_FLAG, "Change the value of {flag}."),
    Row(r"error: the following arguments are required", Cause.BAD_FLAG,
        source="https://docs.python.org/3/library/argparse.html"),
    # The network
    Row(r"[Aa]ddress already in use", Cause.PORT_IN_USE),
    Row(r"port must be 0-65535", Cause.BAD_FLAG, "Choose a --port from 1 to 65535."),
    Row(r"GatedRepoError", Cause.GATED_OR_UNAUTHORIZED, weight=Weight.SYMPTOM),
    Row(r"Cannot access gated repo|You are trying to access a gated repo", Cause.GATED_OR_UNAUTHORIZED),
    Row(r"Access to model \S{1,200} is restricted", Cause.GATED_OR_UNAUTHORIZED),
    Row(r"401 Client Error", Cause.GATED_OR_UNAUTHORIZED, weight=Weight.SYMPTOM),
    Row(r"Invalid (username or password|user token)", Cause.GATED_OR_UNAUTHORIZED, source=_HUB + "utils/_http.py",
        weight=Weight.SYMPTOM),
    Row(r"RepositoryNotFoundError", Cause.MODEL_NOT_FOUND),
    Row(r"RevisionNotFoundError", Cause.MODEL_NOT_FOUND, "Check the model's revision.", _HUB + "errors.py"),
    Row(r"is not a local folder and is not a valid model identifier", Cause.MODEL_NOT_FOUND),
    Row(r"HFValidationError: ", Cause.MODEL_NOT_FOUND,
        "There is no such folder on the pod, and it is no name of a repository: check the path."),
    Row(r"We couldn't connect to '", Cause.NO_NETWORK, _OFFLINE),
    Row(r"outgoing traffic has been disabled", Cause.NO_NETWORK,
        "The model is not on the pod, and HF_HUB_OFFLINE=1 forbids to fetch it: unset it, or copy the model there."),
    Row(r"LocalEntryNotFoundError|OfflineModeIsEnabled", Cause.NO_NETWORK, _OFFLINE, weight=Weight.SYMPTOM),
    Row(r"Temporary failure in name resolution|Name or service not known|Network is unreachable", Cause.NO_NETWORK,
        source="https://man7.org/linux/man-pages/man3/gai_strerror.3.html", weight=Weight.SYMPTOM),
    Row(r"Connection refused", Cause.NO_NETWORK, weight=Weight.HINT),
    # Files
    Row(r"SafetensorError|Error while deserializing header", Cause.CORRUPT_WEIGHTS,
        "A file of weights is incomplete or no safetensors file.", another_copy=True),
    Row(r"PytorchStreamReader failed", Cause.CORRUPT_WEIGHTS, "A file of weights is incomplete.",
        _TORCH + "caffe2/serialize/inline_container.cc", another_copy=True),
    Row(r"No space left on device", Cause.DISK_FULL),
    Row(r"Disk quota exceeded", Cause.DISK_FULL, source="https://man7.org/linux/man-pages/man3/errno.3.html"),
    Row(r"Not enough free disk space to download", Cause.DISK_FULL, weight=Weight.SYMPTOM, quiet=True),
    Row(r"TemplateSyntaxError", Cause.TEMPLATE_ERROR, "It is no valid Jinja template: change --chat-template."),
    # Tokenizers
    Row(r"Couldn't instantiate the backend tokenizer", Cause.MISSING_TOKENIZER),
    Row(r"Can't load tokenizer for", Cause.MISSING_TOKENIZER,
        source="https://github.com/huggingface/transformers/blob/main/src/transformers/tokenization_utils_base.py"),
    Row(r"transformers/tokenization_\w{1,40}\.py\", line \d{1,6}, in _?from_pretrained", Cause.MISSING_TOKENIZER,
        weight=Weight.SYMPTOM),
    # Memory
    Row(r"CUDA out of memory|torch\.(cuda\.)?OutOfMemoryError", Cause.OUT_OF_MEMORY_WEIGHTS,
        source="https://github.com/vllm-project/vllm/issues/31273", loaded=Cause.OUT_OF_MEMORY_KV),
    Row(r"CUDA error: out of memory", Cause.OUT_OF_MEMORY_WEIGHTS, source=_TORCH + "c10/cuda/CUDAException.cpp",
        loaded=Cause.OUT_OF_MEMORY_KV),
    Row(r"std::bad_alloc", Cause.OUT_OF_MEMORY_WEIGHTS, source="https://en.cppreference.com/w/cpp/memory/new/bad_alloc",
        weight=Weight.SYMPTOM, loaded=Cause.OUT_OF_MEMORY_KV),
    Row(r"DefaultCPUAllocator: can't allocate memory", Cause.OUT_OF_MEMORY_WEIGHTS, loaded=Cause.OUT_OF_MEMORY_KV),
    Row(r"^MemoryError|Cannot allocate memory", Cause.OUT_OF_MEMORY_WEIGHTS, weight=Weight.SYMPTOM,
        loaded=Cause.OUT_OF_MEMORY_KV),
    # Devices
    Row(r"The NVIDIA driver on your system is too old", Cause.DRIVER_OR_DEVICE, _OLD_DRIVER,
        "https://github.com/lllyasviel/Fooocus/issues/1313"),
    Row(r"CUDA driver version is insufficient", Cause.DRIVER_OR_DEVICE, _OLD_DRIVER,
        _TORCH + "c10/cuda/CUDAException.cpp"),
    Row(r"no kernel image is available", Cause.DRIVER_OR_DEVICE, _OLD_BUILD,
        "https://github.com/vllm-project/vllm/issues/14452"),
    Row(r"Found no NVIDIA driver|Torch not compiled with CUDA|No CUDA GPUs are available", Cause.DRIVER_OR_DEVICE,
        _NO_GPU, _TORCH + "torch/cuda/__init__.py"),
    Row(r"libcuda\.so\.1: cannot open", Cause.DRIVER_OR_DEVICE, _NO_GPU, _TORCH + "torch/cuda/__init__.py",
        weight=Weight.HINT),
    Row(r"Driver/library version mismatch", Cause.DRIVER_OR_DEVICE,
        "The driver was updated while the old one ran: restart the machine.",
        "https://docs.nvidia.com/deploy/nvml-api/"),
    Row(r"uncorrectable ECC error|an illegal memory access was encountered", Cause.DRIVER_OR_DEVICE,
        "The GPU failed: look at dmesg for Xid lines, and take another machine if they repeat.",
        "https://github.com/SystemPanic/vllm-windows/issues/72"),
    Row(r"NCCL error: ", Cause.DRIVER_OR_DEVICE, "The GPUs cannot talk to each other: try NCCL_P2P_DISABLE=1, a larger "
        "--shm-size for the container, and NCCL_DEBUG=INFO to see more.",
        "https://github.com/vllm-project/vllm/issues/6732", Weight.SYMPTOM),
    Row(r"Watchdog caught collective operation timeout", Cause.HANG, "A GPU no longer answers the others: restart the "
        "server, and look at dmesg for Xid lines.", _TORCH + "torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp",
        Weight.SYMPTOM),
    # The environment
    Row(r"ModuleNotFoundError: |ImportError: ", Cause.NO_ENVIRONMENT, weight=Weight.HINT,
        source="https://docs.python.org/3/library/exceptions.html#ImportError"),
    Row(r"version `GLIBC\S{1,20}' not found", Cause.NO_ENVIRONMENT,
        source="https://man7.org/linux/man-pages/man8/ld.so.8.html"),
)  # fmt: skip

KERNEL_ROWS: tuple[Row, ...] = (
    Row(r"[Oo]ut of memory: Killed process", Cause.KILLED, "The kernel ended it because memory ran out. {memory}",
        _LINUX, quiet=True),
    Row(r"oom-kill:constraint=|invoked oom-killer", Cause.KILLED, "The kernel ended a process because memory ran out. "
        "{memory}", _LINUX, Weight.SYMPTOM, quiet=True),
    Row(r"NVRM: (Xid|API mismatch|GPU .{0,40} has fallen off the bus)", Cause.DRIVER_OR_DEVICE,
        "The GPU or its driver failed: restart the machine, or take another one.",
        "https://docs.nvidia.com/deploy/xid-errors/", Weight.SYMPTOM, quiet=True),
)  # fmt: skip
"""What the kernel says; dmesg is often part of a log that a person has."""
