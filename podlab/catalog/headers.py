"""The headers of weight files: what a safetensors or GGUF file says of itself at its beginning. Pure, from bytes.

safetensors: eight bytes of length, then JSON (https://huggingface.co/docs/safetensors). GGUF: counts, then keys with
typed values (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). Neither reads a weight.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from podlab.errors import BadArgument

SAFETENSORS_LIMIT_BYTES = 100 * 2**20
"""The longest header that safetensors itself reads."""
_BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "BF16": 16, "F16": 16, "I16": 16, "U16": 16,
         "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}  # fmt: skip
_GGUF_MAGIC = b"GGUF"
_SIMPLE = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_KEPT_ITEMS = 4096
"""Of an array, the longest that is kept: layers have one entry each, a vocabulary many."""

Value = int | float | bool | str | tuple[int | float | bool | str, ...]


class TooShort(Exception):
    """The header goes on; `needed` bytes of the file are known to be required, or 0 where that is not known."""

    def __init__(self, needed: int = 0) -> None:
        super().__init__(needed)
        self.needed = needed


@dataclass(frozen=True)
class TensorList:
    """What a safetensors header lists: names, bytes and weights of all tensors."""

    names: frozenset[str]
    total_bytes: int
    parameters: int


def safetensors_header(data: bytes, where: str) -> TensorList:
    """Reads the file's beginning. Raises TooShort with how much is needed, BadArgument where it is no such file."""
    if len(data) < 8:
        raise TooShort(8)
    (length,) = struct.unpack("<Q", data[:8])
    if length > SAFETENSORS_LIMIT_BYTES:
        raise BadArgument(f"{where} is not a safetensors file.", hint="Fetch it again.")
    if len(data) < 8 + length:
        raise TooShort(8 + length)
    try:
        tensors = json.loads(data[8 : 8 + length])
        return _listed({name: entry for name, entry in tensors.items() if name != "__metadata__"})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadArgument(f"{where} is not a safetensors file.", hint="Fetch it again.") from error


def _listed(tensors: Mapping[str, Any]) -> TensorList:
    total, weights = 0, 0
    for entry in tensors.values():
        count = 1
        for size in entry["shape"]:
            count *= int(size)
        begin, end = entry["data_offsets"]
        total += int(end) - int(begin)
        # Scales and packed integers are no weights of their own; close enough for what is shown of it.
        weights += count if _BITS.get(str(entry["dtype"]), 8) <= 32 else 0
    return TensorList(frozenset(tensors), total, weights)


@dataclass(frozen=True)
class GgufHeader:
    """The keys of a GGUF file. Of an array longer than any model has layers, only the length is kept."""

    values: Mapping[str, Value]
    lengths: Mapping[str, int]

    def number(self, name: str) -> int | None:
        """A whole number of the file's architecture: "block_count" -> llama.block_count."""
        value = self.values.get(f"{self.values.get('general.architecture')}.{name}")
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def numbers(self, name: str) -> tuple[int, ...]:
        """The same where each layer has its own; () where one number holds for all."""
        value = self.values.get(f"{self.values.get('general.architecture')}.{name}")
        return tuple(int(item) for item in value) if isinstance(value, tuple) else ()


def gguf_header(data: bytes, where: str) -> GgufHeader:
    """Reads the file's keys. Raises TooShort where they go on, BadArgument where it is no such file."""
    if len(data) < 24:
        raise TooShort(24)
    magic, version, _, count = struct.unpack("<4sIQQ", data[:24])
    if magic != _GGUF_MAGIC or version not in (2, 3) or count > 2**20:
        raise BadArgument(f"{where} is not a GGUF file of version 2 or 3.", hint="Convert it anew.")
    reader = _Reader(data, 24)
    values: dict[str, Value] = {}
    lengths: dict[str, int] = {}
    try:
        for _ in range(count):
            name = reader.text()
            kind = reader.simple("I")
            if kind == _ARRAY:
                items, length = reader.array()
                lengths[name] = length
                if items is not None:
                    values[name] = items
            else:
                values[name] = reader.value(int(kind))
    except (ValueError, KeyError) as error:
        raise BadArgument(f"{where} is a damaged GGUF file.", hint="Fetch it again.") from error
    return GgufHeader(values, lengths)


class _Reader:
    """Values one after the other. Raises TooShort at the end of the data, ValueError where no header looks so."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at

    def _take(self, count: int) -> bytes:
        if count > SAFETENSORS_LIMIT_BYTES:
            raise ValueError("longer than any header")
        end = self._at + count
        if end > len(self._data):
            raise TooShort
        taken, self._at = self._data[self._at : end], end
        return taken

    def simple(self, form: str) -> int | float | bool:
        found: tuple[int | float | bool, ...] = struct.unpack(f"<{form}", self._take(struct.calcsize(f"<{form}")))
        return found[0]

    def text(self) -> str:
        return self._take(int(self.simple("Q"))).decode("utf-8", errors="replace")

    def value(self, kind: int) -> int | float | bool | str:
        return self.text() if kind == _STRING else self.simple(_SIMPLE[kind])

    def array(self) -> tuple[tuple[int | float | bool | str, ...] | None, int]:
        """Its items, or None for a long one, and how many there are."""
        kind, length = int(self.simple("I")), int(self.simple("Q"))
        if kind == _ARRAY:
            raise ValueError("an array of arrays")
        if length <= _KEPT_ITEMS:
            return tuple(self.value(kind) for _ in range(length)), length
        if kind == _STRING:
            for _ in range(length):
                self._take(int(self.simple("Q")))
        else:
            self._take(length * struct.calcsize(f"<{_SIMPLE[kind]}"))
        return None, length
