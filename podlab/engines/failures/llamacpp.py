"""What llama.cpp says (xllamacpp 2026.10)."""

from __future__ import annotations

from podlab.engines.base import Cause
from podlab.engines.failures.row import Row, Weight

_CODE = "https://github.com/ggml-org/llama.cpp/blob/master/"
_NEWER = "The model is newer than this build of llama.cpp: update the engine, or take another model."

ROWS: tuple[Row, ...] = (
    Row(r"couldn't bind HTTP server socket", Cause.PORT_IN_USE),
    Row(r"failed to open GGUF file .*No such file", Cause.MODEL_NOT_FOUND),
    Row(r"failed to open GGUF file .*Permission denied", Cause.CORRUPT_WEIGHTS, "Let the pod's user read the file.",
        _CODE + "ggml/src/gguf.cpp"),
    Row(r"invalid magic characters", Cause.CORRUPT_WEIGHTS, "It is no GGUF file.", another_copy=True),
    Row(r"failed to read magic", Cause.CORRUPT_WEIGHTS, "The file is empty.", another_copy=True),
    Row(r"this GGUF file is version \d+ but this software only supports up to", Cause.UNSUPPORTED_ARCHITECTURE, _NEWER),
    Row(r"bad GGUF version", Cause.CORRUPT_WEIGHTS, "It is no GGUF file.", _CODE + "ggml/src/gguf.cpp",
        another_copy=True),
    Row(r"not within the file bounds", Cause.CORRUPT_WEIGHTS, "The file is incomplete.", another_copy=True),
    Row(r"corrupted or incomplete", Cause.CORRUPT_WEIGHTS, "The file is incomplete.", another_copy=True),
    Row(r"failed to read key-value pairs", Cause.CORRUPT_WEIGHTS, "The file is incomplete.", another_copy=True),
    Row(r"failed to read tensor", Cause.CORRUPT_WEIGHTS, "The file is incomplete.", _CODE + "ggml/src/gguf.cpp",
        another_copy=True),
    Row(r"failed to load CLIP model from", Cause.MODEL_NOT_FOUND,
        "Check the path of --mmproj; the file must be one that llama.cpp made for this model.", weight=Weight.SYMPTOM),
    Row(r"tensor '[^']{1,80}' not found", Cause.CORRUPT_WEIGHTS,
        "The file lacks a part of the model: it was converted badly, or for another version of llama.cpp."),
    Row(r"key not found in model: ", Cause.CORRUPT_WEIGHTS,
        "The file lacks a part of the model: it was converted badly, or for another version of llama.cpp."),
    Row(r"unknown model architecture", Cause.UNSUPPORTED_ARCHITECTURE, _NEWER),
    Row(r"unsupported model architecture", Cause.UNSUPPORTED_ARCHITECTURE, _NEWER, _CODE + "src/llama-model.cpp"),
    Row(r"invalid ggml type", Cause.UNSUPPORTED_ARCHITECTURE, _NEWER, _CODE + "ggml/src/gguf.cpp"),
    Row(r"unknown pre-tokenizer type", Cause.MISSING_TOKENIZER, _NEWER),
    Row(r"cannot find tokenizer \w{1,20} in model file", Cause.MISSING_TOKENIZER,
        "The file holds no tokenizer: convert the model again with its tokenizer beside it, or take another file."),
    Row(r"failed to allocate buffer for kv cache", Cause.OUT_OF_MEMORY_KV),
    Row(r"failed to allocate compute buffers|failed to allocate compute pp buffers", Cause.OUT_OF_MEMORY_KV,
        source="https://github.com/ggml-org/llama.cpp/issues/16725"),
    Row(r"unable to allocate \S+ buffer", Cause.OUT_OF_MEMORY_WEIGHTS),
    Row(r"mmap failed: Cannot allocate memory", Cause.OUT_OF_MEMORY_WEIGHTS),
    Row(r"quantized V cache requires flash_attn|V cache quantization requires", Cause.BAD_FLAG,
        "Say --flash-attn on, or leave --cache-type-v out."),
    Row(r"cache type \S+ with block size", Cause.BAD_FLAG, "Choose another --cache-type-k or --cache-type-v.",
        _CODE + "src/llama-context.cpp"),
    Row(r"chat template parsing error", Cause.TEMPLATE_ERROR,
        "It is no valid Jinja template: change --chat-template, or say --chat-template chatml."),
    Row(r"cudaMalloc failed: out of memory", Cause.OUT_OF_MEMORY_WEIGHTS,
        source="https://github.com/ggml-org/llama.cpp/issues/20431"),
    Row(r"ErrorOutOfDeviceMemory", Cause.OUT_OF_MEMORY_WEIGHTS, source=_CODE + "ggml/src/ggml-vulkan/ggml-vulkan.cpp"),
)  # fmt: skip
"""Of its lines about memory the last tells what it was for; those above it (ggml_aligned_malloc, cudaMalloc) do not."""
