"""Make one GGUF file of a model in safetensors. Python 3.8, run in an environment that has `gguf` and `numpy`.

    convert.py --dir D --model FOLDER --to PATH.gguf --quant q8_0|f16|bf16|f32

What it knows is in gguf_kinds.py and gguf_tokenizer.py, which lie beside it; every other model is refused with the
reason. PATH gets its name when it is whole, with PATH.podlab.json beside it. Progress goes to D/progress.json; a
failure is one line, `podlab: <cause>: <reason>`, and exit status 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys

import gguf  # type: ignore[import-not-found,unused-ignore]  # only where it runs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator

    from podlab.remote import gguf_kinds, gguf_tokenizer
    from podlab.remote.safetensors_files import Failure, document, tensors_of
else:
    import gguf_kinds
    import gguf_tokenizer
    from safetensors_files import Failure, document, tensors_of

SPARE_BYTES = 64 << 20
TYPES = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bf16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
BITS = {"f32": 32.0, "f16": 16.0, "bf16": 16.0, "q8_0": 8.5}


def quantised(weight: Any, quant: str) -> tuple[Any, Any]:
    """A weight as it goes into the file, and its type. Vectors stay as they are: they are small and matter much."""
    kind = TYPES[quant][0] if weight.ndim > 1 else gguf.GGMLQuantizationType.F32
    if kind == gguf.GGMLQuantizationType.Q8_0 and weight.shape[-1] % 32:
        kind = gguf.GGMLQuantizationType.F16
    return gguf.quants.quantize(weight, kind), kind


def convert(args: argparse.Namespace) -> None:
    """Write the file."""
    config = document(args.model, "config.json")
    if not config:
        raise Failure("bad_config", f"there is no config.json in {args.model}")
    kind = gguf_kinds.kind_of(config)
    tensors = tensors_of(args.model)
    targets = {name: kind.target(name) for name in tensors if not name.endswith("rotary_emb.inv_freq")}
    need = int(sum(tensors[name].count() for name in targets) * BITS[args.quant] / 8)
    free = shutil.disk_usage(os.path.dirname(args.to)).free
    if free < need + SPARE_BYTES:
        raise Failure("disk_full", f"it needs {need / 1e9:.2f} GB, and there are {free / 1e9:.2f} GB free")
    part = args.to + ".part"
    # Without a file of its own it would hold all weights in memory until they are written.
    writer = gguf.GGUFWriter(part, kind.name, use_temp_file=True)
    writer.add_name(args.name)
    writer.add_file_type(TYPES[args.quant][1])
    gguf_kinds.add_shape(writer, kind, config)
    gguf_tokenizer.add_tokenizer(writer, args.model, config)
    for number, (name, target) in enumerate(targets.items()):
        say(args.dir, f"converting {target}", number, len(targets))
        data, stored = quantised(kind.ready(target, tensors[name].read(), config), args.quant)
        writer.add_tensor(target, data, raw_dtype=stored)
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
    parser.add_argument("--quant", choices=sorted(TYPES), required=True)
    args = parser.parse_args()
    try:
        convert(args)
    except Failure as failure:
        sys.exit(f"podlab: {failure.cause}: {failure}")
    except OSError as error:
        sys.exit(f"podlab: {'disk_full' if error.errno == 28 else 'other'}: {error}")


if __name__ == "__main__":
    main()
