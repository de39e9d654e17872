"""A tokenizer as Hugging Face writes it, into a GGUF file: byte-level BPE, or SentencePiece's BPE.

How text is cut before BPE is a name there, for which llama.cpp has rules of its own (src/llama-vocab.cpp). A tokenizer
that cuts in any other way is refused: it would get other tokens than the model was trained with. Python 3.8, gguf; lies
beside convert.py.
"""

from __future__ import annotations

import os

import gguf  # type: ignore[import-not-found,unused-ignore]  # only where it runs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from podlab.remote import gguf_sentencepiece
    from podlab.remote.safetensors_files import Failure, document
else:
    import gguf_sentencepiece
    from safetensors_files import Failure, document

WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
SPACES = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
DIGITS, GPT_2 = "each digit alone, ", "as GPT-2"
CUTS = {
    GPT_2: "gpt-2", DIGITS + GPT_2: "smollm", WORDS + r"\p{N}{1,3}" + SPACES: "llama-bpe",
    WORDS + r"\p{N}" + SPACES: "qwen2",
}  # fmt: skip
"""llama.cpp's name for the expressions of a tokenizer.json."""


def cut_of(tokenizer: dict[str, Any]) -> str:
    """llama.cpp's name for how a tokenizer cuts text before BPE."""
    model, normalizer = tokenizer.get("model") or {}, tokenizer.get("normalizer") or {}
    # llama.cpp does not normalise: NFC only joins letters with their accents, which almost all text has joined already.
    if model.get("type") != "BPE" or model.get("byte_fallback") or normalizer.get("type", "NFC") != "NFC":
        raise Failure("missing_tokenizer", "its tokenizer is not byte-level BPE, and no other kind is known")
    steps = tokenizer.get("pre_tokenizer") or {}
    found = [expression_of(step) for step in steps.get("pretokenizers") or [steps]]
    expression = "".join(found)
    if expression not in CUTS:
        raise Failure("missing_tokenizer", f"its tokenizer cuts text in a way that is not known: {expression[:120]}")
    return CUTS[expression]


def expression_of(step: dict[str, Any]) -> str:
    """What a step of cutting does: an expression, or a word of ours; "" for one that only turns bytes into letters."""
    how = step.get("type")
    if how == "ByteLevel" and not step.get("add_prefix_space"):
        return GPT_2 if step.get("use_regex", True) else ""
    if how == "Digits" and step.get("individual_digits"):
        return DIGITS
    if how == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
        return str((step.get("pattern") or {}).get("Regex", "?"))
    return f"by {how}"


def add_tokenizer(writer: Any, folder: str, config: dict[str, Any]) -> None:
    """The vocabulary, how text becomes of it, the special tokens, the chat template."""
    tokenizer, settings = document(folder, "tokenizer.json"), document(folder, "tokenizer_config.json")
    added = {token["id"]: token for token in tokenizer.get("added_tokens") or ()}
    model = os.path.join(folder, "tokenizer.model")
    by_bytes = bool(tokenizer) and not (tokenizer.get("model") or {}).get("byte_fallback")
    if by_bytes or not os.path.exists(model):
        begins = add_bytes(writer, tokenizer, added, int(config["vocab_size"])) == "llama-bpe"
    else:
        with open(model, "rb") as file:
            gguf_sentencepiece.add_pieces(writer, file.read(), added, int(config["vocab_size"]))
        begins = True
    for name, add in (
        ("bos", writer.add_bos_token_id),
        ("eos", writer.add_eos_token_id),
        ("pad", writer.add_pad_token_id),
    ):
        number = config.get(f"{name}_token_id")
        number = number[0] if isinstance(number, list) and number else number
        if isinstance(number, int):
            add(number)
    writer.add_add_bos_token(bool(settings.get("add_bos_token", begins)))
    template = template_of(folder, settings)
    if template is not None:
        writer.add_chat_template(template)


def add_bytes(writer: Any, tokenizer: dict[str, Any], added: dict[int, dict[str, Any]], size: int) -> str:
    """A byte-level BPE vocabulary with its merges; llama.cpp's name for how text is cut."""
    if not tokenizer:
        raise Failure("missing_tokenizer", "there is no tokenizer.json")
    cut = cut_of(tokenizer)
    tokens = {number: token for token, number in tokenizer["model"]["vocab"].items()}
    tokens.update({number: token["content"] for number, token in added.items()})
    kinds = {number: gguf.TokenType.CONTROL if token.get("special") else gguf.TokenType.USER_DEFINED
             for number, token in added.items()}  # fmt: skip
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(cut)
    writer.add_token_list([tokens.get(number, f"[PAD{number}]") for number in range(size)])
    writer.add_token_types([
        kinds.get(number, gguf.TokenType.NORMAL if number in tokens else gguf.TokenType.UNUSED)
        for number in range(size)
    ])  # fmt: skip
    merges = tokenizer["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    return cut


def template_of(folder: str, settings: dict[str, Any]) -> str | None:
    """How a conversation becomes text; None where nobody says it."""
    template, beside = settings.get("chat_template"), os.path.join(folder, "chat_template.jinja")
    if not isinstance(template, str) and os.path.exists(beside):
        with open(beside, encoding="utf-8") as file:
            template = file.read()
    return template if isinstance(template, str) else None
