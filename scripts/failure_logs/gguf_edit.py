"""A GGUF file spoiled in one place: fields are overwritten where they lie, so that everything else stays sound.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (version 3, little-endian).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9
BLOCKS = {0: (1, 4), 1: (1, 2), 8: (32, 34)}
"""Elements and bytes of a block of F32, F16 and Q8_0."""
ALIGNMENT = 32


@dataclass
class Tensor:
    """Where a tensor's fields lie in the file."""

    name: str
    dims_at: int
    dims: list[int]
    kind: int
    offset_at: int

    @property
    def size_bytes(self) -> int:
        count = 1
        for dim in self.dims:
            count *= dim
        elements, size = BLOCKS[self.kind]
        return count // elements * size


class Gguf:
    """A file's bytes, the places of its values by key, and its tensors."""

    def __init__(self, path: Path) -> None:
        self.data = bytearray(path.read_bytes())
        self.at = 24
        tensors, values = struct.unpack_from("<QQ", self.data, 8)
        self.values: dict[str, int] = {}
        for _ in range(values):
            key = self._string()
            self.values[key] = self.at + 4
            self._skip(self._u32())
        self.tensors = [self._tensor() for _ in range(tensors)]
        self.begin = -(-self.at // ALIGNMENT) * ALIGNMENT

    def _u32(self) -> int:
        self.at += 4
        return int(struct.unpack_from("<I", self.data, self.at - 4)[0])

    def _u64(self) -> int:
        self.at += 8
        return int(struct.unpack_from("<Q", self.data, self.at - 8)[0])

    def _string(self) -> str:
        length = self._u64()
        self.at += length
        return self.data[self.at - length : self.at].decode()

    def _skip(self, kind: int) -> None:
        if kind == STRING:
            self._string()
        elif kind == ARRAY:
            inner, count = self._u32(), self._u64()
            for _ in range(count):
                self._skip(inner)
        else:
            self.at += SIZES[kind]

    def _tensor(self) -> Tensor:
        name = self._string()
        count = self._u32()
        dims_at = self.at
        dims = [self._u64() for _ in range(count)]
        kind = self._u32()
        tensor = Tensor(name, dims_at, dims, kind, self.at)
        self._u64()
        return tensor

    def replace(self, old: bytes, new: bytes) -> None:
        """The first such words in the header become others of the same length."""
        assert len(old) == len(new)
        where = self.data.index(old)
        self.data[where : where + len(new)] = new

    def grow(self, width: int, file: Path) -> None:
        """Make every feed-forward tensor `width` wide, and write the file with a hole where the weights would be."""
        was = struct.unpack_from("<I", self.data, self.values["llama.feed_forward_length"])[0]
        struct.pack_into("<I", self.data, self.values["llama.feed_forward_length"], width)
        offset = 0
        for tensor in self.tensors:
            if "ffn_" in tensor.name and was in tensor.dims:
                tensor.dims[tensor.dims.index(was)] = width
            struct.pack_into(f"<{len(tensor.dims)}Q", self.data, tensor.dims_at, *tensor.dims)
            struct.pack_into("<Q", self.data, tensor.offset_at, offset)
            offset += -(-tensor.size_bytes // ALIGNMENT) * ALIGNMENT
        with file.open("wb") as out:
            out.write(self.data[: self.begin])
            out.truncate(self.begin + offset)
