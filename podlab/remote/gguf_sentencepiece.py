"""A SentencePiece tokenizer (tokenizer.model), into a GGUF file. Python 3.8, gguf; lies beside convert.py.

The file is a protocol buffer, of which the pieces and a few settings are read:
https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto. llama.cpp merges by the pieces'
scores as SentencePiece's own BPE does; text of a unigram model it would cut in another way, so that is refused.
"""

from __future__ import annotations

import struct

import gguf  # type: ignore[import-not-found,unused-ignore]  # only where it runs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Iterator

    from podlab.remote.safetensors_files import Failure
else:
    from safetensors_files import Failure

BPE, NORMAL, USER_DEFINED, BYTE = 2, 1, 4, 6
"""Of a model's type, and of a piece's; the latter are the same in a GGUF file."""
ABSENT_SCORE = -1000.0


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a protocol buffer: numbers as they are, the rest as bytes."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        wire = key & 7
        if wire == 0:
            yield key >> 3, varint()
            continue
        length = {1: 8, 5: 4}.get(wire)
        if length is None:
            if wire != 2:
                raise ValueError(f"a field of kind {wire}")
            length = varint()
        if at + length > len(data):
            raise ValueError("it ends in its middle")
        yield key >> 3, data[at : at + length]
        at += length


def pieces_of(data: bytes) -> tuple[list[tuple[bytes, float, int]], bool]:
    """The pieces as (text, score, type), and whether a space is put before a text. Raises Failure."""
    pieces: list[tuple[bytes, float, int]] = []
    kind, prefix = 1, True
    try:
        for number, value in fields(data):
            if number == 1:
                piece = dict(fields(value))
                score = struct.unpack("<f", piece[2])[0] if 2 in piece else 0.0
                pieces.append((piece[1], score, int(piece.get(3, NORMAL))))
            elif number == 2:
                kind = dict(fields(value)).get(3, 1)
            elif number == 3:
                prefix = bool(dict(fields(value)).get(3, 1))
    except (ValueError, KeyError, IndexError, struct.error) as error:
        raise Failure("missing_tokenizer", f"tokenizer.model is damaged: {error!r}")
    if kind != BPE:
        raise Failure("missing_tokenizer", "its SentencePiece model is not BPE, and no other kind is known")
    return pieces, prefix


def add_pieces(writer: Any, data: bytes, added: dict[int, dict[str, Any]], size: int) -> None:
    """The vocabulary of `size` tokens. `added` are those of tokenizer.json that count more than the pieces."""
    pieces, prefix = pieces_of(data)
    if len(pieces) > size:
        raise Failure("bad_config", f"tokenizer.model has {len(pieces)} pieces, and config.json says {size}")
    names, scores, kinds = [], [], []
    for number in range(size):
        text, score, kind = f"[PAD{number}]".encode(), ABSENT_SCORE, int(gguf.TokenType.UNUSED)
        if number < len(pieces):
            text, score, kind = pieces[number]
        token = added.get(number)
        if token is not None and kind != BYTE:
            kind = int(gguf.TokenType.CONTROL if token.get("special") else gguf.TokenType.USER_DEFINED)
            text = str(token["content"]).encode()
        if kind == USER_DEFINED:  # llama.cpp looks for it in the text as it was written
            text = text.replace("\u2581".encode(), b" ")
        names.append(text)
        scores.append(score)
        kinds.append(kind)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(names)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_add_space_prefix(prefix)
