"""Make one GGUF file of a model in safetensors. Python 3.8, run in an environment that has `gguf` and `numpy`.

    convert.py --dir D --model FOLDER --to PATH.gguf --quant q8_0|f16|bf16|f32

Knows models of the Llama kind (LlamaForCausalLM, MistralForCausalLM) whose tokenizer is byte-level BPE, and refuses
every other with the reason. Names and values of a GGUF file: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
PATH gets its name when it is whole, with PATH.podlab.json beside it. Progress goes to D/progress.json; a failure is one
line, `podlab: <cause>: <reason>`, and exit status 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import struct
import sys

import gguf  # type: ignore[import-not-found,unused-ignore]  # only where it runs
import numpy as np

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator

ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM")
SPARE_BYTES = 64 << 20
# How a tokenizer cuts text before BPE, by the expression in its tokenizer.json, and llama.cpp's name for that.
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
SPACES = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CUTS = {"": "gpt-2", WORDS + r"\p{N}{1,3}" + SPACES: "llama-bpe", WORDS + r"\p{N}" + SPACES: "qwen2"}
BLOCK = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
WHOLE = {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}
KINDS = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bf16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
BITS = {"f32": 32.0, "f16": 16.0, "bf16": 16.0, "q8_0": 8.5}


class Failure(Exception):
    """It cannot be converted. `cause` is one of engines.base.Cause."""

    def __init__(self, cause: str, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause


def document(folder: str, name: str) -> dict[str, Any]:
    """A JSON file of the model; nothing where there is none."""
    try:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            value = json.load(file)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise Failure("bad_config", f"{name} is not JSON: {error}")
    return value if isinstance(value, dict) else {}


# ------------------------------------------------------------------------------------------------ safetensors


class Tensor:
    """A tensor in a safetensors file; its numbers are read when they are asked for."""

    def __init__(self, path: str, start: int, told: dict[str, Any]) -> None:
        self.path, self.kind, self.shape = path, str(told["dtype"]), tuple(told["shape"])
        self.first, self.last = start + int(told["data_offsets"][0]), start + int(told["data_offsets"][1])

    def read(self) -> Any:
        """As float32."""
        kinds = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
        if self.kind not in kinds:
            raise Failure(
                "unsupported_architecture", f"its weights are kept as {self.kind}: convert the original model"
            )
        flat = np.fromfile(self.path, kinds[self.kind], self.count(), offset=self.first)
        if self.kind == "BF16":  # the upper half of a float32
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        return flat.astype(np.float32).reshape(self.shape)

    def count(self) -> int:
        """How many numbers it holds."""
        total = 1
        for length in self.shape:
            total *= length
        return total


def tensors_of(folder: str) -> dict[str, Tensor]:
    """Every tensor of the model, from the headers of its files. Format: https://huggingface.co/docs/safetensors."""
    found: dict[str, Tensor] = {}
    for name in sorted(name for name in os.listdir(folder) if name.endswith(".safetensors")):
        path = os.path.join(folder, name)
        try:
            with open(path, "rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                if length > 100 << 20:
                    raise ValueError("its header is too long")
                header = json.loads(file.read(length))
            found.update(
                (tensor, Tensor(path, 8 + length, told)) for tensor, told in header.items() if tensor != "__metadata__"
            )
        except (ValueError, KeyError, struct.error) as error:
            raise Failure("corrupt_weights", f"{name} is damaged: {error}")
    if not found:
        raise Failure("corrupt_weights", f"there are no safetensors in {folder}")
    return found


def gguf_name(name: str) -> str:
    """llama.cpp's name of a weight. Raises Failure for one that a Llama does not have."""
    match = re.match(r"(?:model\.)?(?:layers\.(\d+)\.(.+)|(\w+))\.(weight)$", name)
    number, inner, outer = (match.group(1), match.group(2), match.group(3)) if match else (None, None, None)
    if number is not None and inner in BLOCK:
        return f"blk.{number}.{BLOCK[inner]}.weight"
    if outer in WHOLE:
        return WHOLE[outer] + ".weight"
    raise Failure("unsupported_architecture", f"it has a weight {name[:80]!r}, which no Llama has")


def interleaved(weight: Any, heads: int) -> Any:
    """Hugging Face turns the halves of a head against each other, llama.cpp neighbours: the rows in that order."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


# ------------------------------------------------------------------------------------------------ what is written


def check(config: dict[str, Any]) -> None:
    """Refuse what would come out wrong."""
    names = config.get("architectures") or ["none"]
    if names[0] not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise Failure("unsupported_architecture", f"it is a {names[0]}, and this converter knows {known}")
    for key in ("quantization_config", "rope_scaling", "sliding_window"):
        if config.get(key):
            raise Failure(
                "unsupported_architecture", f"its {key} is {json.dumps(config[key])[:120]}, which is not known"
            )
    for key in ("attention_bias", "mlp_bias"):
        if config.get(key):
            raise Failure("unsupported_architecture", f"it has {key}, which is not known")


def add_shape(writer: Any, config: dict[str, Any], quant: str) -> None:
    """The keys that say how large it is."""
    try:
        heads, width = int(config["num_attention_heads"]), int(config["hidden_size"])
        head = int(config.get("head_dim") or width // heads)
        writer.add_context_length(int(config["max_position_embeddings"]))
        writer.add_embedding_length(width)
        writer.add_block_count(int(config["num_hidden_layers"]))
        writer.add_feed_forward_length(int(config["intermediate_size"]))
        writer.add_head_count(heads)
        writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
        writer.add_key_length(head)
        writer.add_value_length(head)
        writer.add_rope_dimension_count(head)
        rope = config.get("rope_parameters") or {}
        writer.add_rope_freq_base(float(config.get("rope_theta") or rope.get("rope_theta") or 10000.0))
        writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
        writer.add_vocab_size(int(config["vocab_size"]))
        writer.add_file_type(KINDS[quant][1])
    except (KeyError, TypeError, ValueError) as error:
        raise Failure("bad_config", f"config.json does not say its shape: {error!r}")


def cut_of(tokenizer: dict[str, Any]) -> str:
    """llama.cpp's name for how a tokenizer cuts text before BPE."""
    model = tokenizer.get("model") or {}
    if model.get("type") != "BPE" or model.get("byte_fallback") or tokenizer.get("normalizer"):
        raise Failure("missing_tokenizer", "its tokenizer is not byte-level BPE, and no other kind is known")
    steps = tokenizer.get("pre_tokenizer") or {}
    steps = steps.get("pretokenizers") or [steps]
    expressions = [(step.get("pattern") or {}).get("Regex", "?") for step in steps if step.get("type") == "Split"]
    by_itself = any(step.get("type") == "ByteLevel" and step.get("use_regex", True) for step in steps)
    expression = "" if by_itself and not expressions else "".join(expressions) or "?"
    if expression not in CUTS:
        raise Failure("missing_tokenizer", f"its tokenizer cuts text in a way that is not known: {expression[:120]}")
    return CUTS[expression]


def add_tokenizer(writer: Any, folder: str, config: dict[str, Any]) -> None:
    """The vocabulary, the merges, the special tokens, the chat template."""
    tokenizer, settings = document(folder, "tokenizer.json"), document(folder, "tokenizer_config.json")
    if not tokenizer:
        raise Failure("missing_tokenizer", "there is no tokenizer.json")
    cut = cut_of(tokenizer)
    added = {token["id"]: token for token in tokenizer.get("added_tokens") or ()}
    tokens = {number: token for token, number in tokenizer["model"]["vocab"].items()}
    tokens.update({number: token["content"] for number, token in added.items()})
    kinds = {number: gguf.TokenType.CONTROL if token.get("special") else gguf.TokenType.USER_DEFINED
             for number, token in added.items()}  # fmt: skip
    size = int(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(cut)
    writer.add_token_list([tokens.get(number, f"[PAD{number}]") for number in range(size)])
    writer.add_token_types([
        kinds.get(number, gguf.TokenType.NORMAL if number in tokens else gguf.TokenType.UNUSED)
        for number in range(size)
    ])  # fmt: skip
    merges = tokenizer["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    for name, add in (
        ("bos", writer.add_bos_token_id),
        ("eos", writer.add_eos_token_id),
        ("pad", writer.add_pad_token_id),
    ):
        number = config.get(f"{name}_token_id")
        number = number[0] if isinstance(number, list) and number else number
        if isinstance(number, int):
            add(number)
    writer.add_add_bos_token(bool(settings.get("add_bos_token", cut == "llama-bpe")))
    template = settings.get("chat_template")
    beside = os.path.join(folder, "chat_template.jinja")
    if not isinstance(template, str) and os.path.exists(beside):
        with open(beside, encoding="utf-8") as file:
            template = file.read()
    if isinstance(template, str):
        writer.add_chat_template(template)


def converted(name: str, weight: Any, config: dict[str, Any], quant: str) -> tuple[Any, Any]:
    """A weight as it goes into the file, and its type. Vectors stay as they are: they are small and matter much."""
    heads = int(config["num_attention_heads"])
    per_part = {"attn_q": heads, "attn_k": int(config.get("num_key_value_heads") or heads)}
    part = name.split(".")[-2]
    if part in per_part:
        weight = interleaved(weight, per_part[part])
    kind = KINDS[quant][0] if weight.ndim > 1 else gguf.GGMLQuantizationType.F32
    if kind == gguf.GGMLQuantizationType.Q8_0 and weight.shape[-1] % 32:
        kind = gguf.GGMLQuantizationType.F16
    return gguf.quants.quantize(weight, kind), kind


def convert(args: argparse.Namespace) -> None:
    """Write the file."""
    config = document(args.model, "config.json")
    if not config:
        raise Failure("bad_config", f"there is no config.json in {args.model}")
    check(config)
    tensors = tensors_of(args.model)
    targets = {name: gguf_name(name) for name in tensors if not name.endswith("rotary_emb.inv_freq")}
    need = int(sum(tensors[name].count() for name in targets) * BITS[args.quant] / 8)
    free = shutil.disk_usage(os.path.dirname(args.to)).free
    if free < need + SPARE_BYTES:
        raise Failure("disk_full", f"it needs {need / 1e9:.2f} GB, and there are {free / 1e9:.2f} GB free")
    part = args.to + ".part"
    writer = gguf.GGUFWriter(part, "llama", use_temp_file=True)  # else all of it is held in memory until it is written
    writer.add_name(args.name)
    add_shape(writer, config, args.quant)
    add_tokenizer(writer, args.model, config)
    for number, (name, target) in enumerate(targets.items()):
        say(args.dir, f"converting {target}", number, len(targets))
        data, kind = converted(target, tensors[name].read(), config, args.quant)
        writer.add_tensor(target, data, raw_dtype=kind)
    say(args.dir, "writing", len(targets), len(targets))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(part, args.to)
    record(args.to)


def record(path: str) -> None:
    """Note its checksum, for `model verify`."""
    hashed = hashlib.sha256()
    with open(path, "rb") as file:
        for data in blocks(file):
            hashed.update(data)
    now = os.stat(path)
    with open(path + ".podlab.json", "w", encoding="utf-8") as file:
        json.dump({"digest": "sha256:" + hashed.hexdigest(), "commit": "", "size": now.st_size,
                   "mtime_ns": now.st_mtime_ns}, file)  # fmt: skip


def blocks(file: Any) -> Iterator[bytes]:
    """Its bytes, 4 MiB at a time."""
    while True:
        data = file.read(4 << 20)
        if not data:
            return
        yield data


def say(folder: str, text: str, done: int, total: int) -> None:
    """How far it is, for whoever watches, and in the log."""
    print(text, flush=True)
    path = os.path.join(folder, "progress.json")
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        json.dump({"text": text, "done": done, "total": total, "unit": ""}, file)
    os.replace(f"{path}.new", path)


def main() -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser()
    for option in ("--dir", "--model", "--to", "--name"):
        parser.add_argument(option, required=True)
    parser.add_argument("--quant", choices=sorted(KINDS), required=True)
    args = parser.parse_args()
    try:
        convert(args)
    except Failure as failure:
        sys.exit(f"podlab: {failure.cause}: {failure}")
    except OSError as error:
        sys.exit(f"podlab: {'disk_full' if error.errno == 28 else 'other'}: {error}")


if __name__ == "__main__":
    main()
