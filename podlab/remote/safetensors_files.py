"""A model's folder as Hugging Face's tools write it: its JSON files, and the tensors in its safetensors.

Format of the latter: https://huggingface.co/docs/safetensors. Python 3.8 and numpy; lies beside convert.py on the pod.
"""

from __future__ import annotations

import json
import os
import struct

import numpy as np

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEADER_LIMIT_BYTES = 100 << 20
NUMBERS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


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


class Tensor:
    """A tensor in a safetensors file; its numbers are read when they are asked for."""

    def __init__(self, path: str, start: int, told: dict[str, Any]) -> None:
        self.path, self.kind, self.shape = path, str(told["dtype"]), tuple(told["shape"])
        self.first, self.last = start + int(told["data_offsets"][0]), start + int(told["data_offsets"][1])

    def read(self) -> Any:
        """As float32."""
        if self.kind not in NUMBERS:
            raise Failure(
                "unsupported_architecture", f"its weights are kept as {self.kind}: convert the original model"
            )
        flat = np.fromfile(self.path, NUMBERS[self.kind], self.count(), offset=self.first)
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
    """Every tensor of the model, from the headers of its files."""
    found: dict[str, Tensor] = {}
    for name in sorted(name for name in os.listdir(folder) if name.endswith(".safetensors")):
        path = os.path.join(folder, name)
        try:
            with open(path, "rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                if length > HEADER_LIMIT_BYTES:
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
