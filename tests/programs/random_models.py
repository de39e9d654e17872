"""Write small models of random weights, and what transformers makes of them: a reference for converters.

    random_models.py FOLDER        with a Python that has vLLM, and so torch and transformers

Of each: FOLDER/NAME with its safetensors, config.json and tokenizer.json, and FOLDER/NAME/reference.json with what
follows a prompt of token ids greedily, the logarithms of the first token's likeliest, and the tokens of some text.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
SPACES = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEXT = "The 12345 quick brown foxes aren't 67 lazy:\n\n  they JUMP, über 3 fences — naïvely!\t don't they? 日本語 ok"
CORPUS = [TEXT, "quick foxes jump over fences and they are lazy " * 3, "1 22 333 4444 words aren't the same"]
SHAPE = {
    "vocab_size": 640, "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.3, "bos_token_id": 0,
    "eos_token_id": 1, "pad_token_id": 1,
}  # fmt: skip
LLAMA_3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
           "original_max_position_embeddings": 64}  # fmt: skip
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 128}
PLAIN = {"rope_type": "default", "rope_theta": 1000000.0}


def shapes() -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Architecture, way of cutting text, and what is special, by name."""
    return {
        "llama": ("Llama", "llama-bpe", {"rope_parameters": LLAMA_3, "attention_bias": True}),
        "smollm": ("Llama", "smollm", {"tie_word_embeddings": True}),
        "mistral": ("Mistral", "gpt-2", {"sliding_window": None, "head_dim": 32}),
        "qwen2": ("Qwen2", "qwen2", {"rope_parameters": PLAIN, "tie_word_embeddings": True}),
        "qwen2-yarn": ("Qwen2", "qwen2", {"rope_parameters": YARN}),
        "spm": ("Llama", "sentencepiece", {}),
        "gemma3": (
            "Gemma3Text",
            "sentencepiece-bare",
            {
                "num_hidden_layers": 7,
                "head_dim": 32,
                "query_pre_attn_scalar": 32,
                "sliding_window": 16,
                "tie_word_embeddings": True,
                "initializer_range": 0.1,
            },
        ),
        "qwen3": ("Qwen3", "qwen2", {"rope_parameters": PLAIN, "head_dim": 32}),
    }


def tokenizer_of(cut: str) -> Tokenizer:
    """A byte-level BPE tokenizer that cuts text in that way."""
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    ways: dict[str, list[Any]] = {
        "gpt-2": [pre_tokenizers.ByteLevel(add_prefix_space=False)],
        "smollm": [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)],
        "llama-bpe": [pre_tokenizers.Split(Regex(WORDS + r"\p{N}{1,3}" + SPACES), "isolated"), bytes_only],
        "qwen2": [pre_tokenizers.Split(Regex(WORDS + r"\p{N}" + SPACES), "isolated"), bytes_only],
    }
    made = Tokenizer(models.BPE(ignore_merges=cut == "llama-bpe"))
    if cut == "qwen2":
        made.normalizer = normalizers.NFC()
    made.pre_tokenizer = ways[cut][0] if len(ways[cut]) == 1 else pre_tokenizers.Sequence(ways[cut])
    made.decoder = decoders.ByteLevel()
    special = [AddedToken("<|begin|>", special=True), AddedToken("<|end|>", special=True)]
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), min_frequency=1
    )  # fmt: skip
    made.train_from_iterator(CORPUS, trainer)
    return made


def pieces(file: Path, *, prefix: bool) -> list[int]:
    """Write a SentencePiece model; the tokens of the text by it."""
    sentences = [line for text in CORPUS * 20 for line in text.splitlines() if line.strip()]
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=made, vocab_size=460, model_type="bpe", byte_fallback=True,
        hard_vocab_limit=False, split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        add_dummy_prefix=prefix, bos_id=0, eos_id=1, unk_id=2, minloglevel=3,
    )  # fmt: skip
    file.write_bytes(made.getvalue())
    return list(sentencepiece.SentencePieceProcessor(model_proto=made.getvalue()).encode(TEXT))


def make(folder: Path, architecture: str, cut: str, special: dict[str, Any]) -> None:
    """One model and its reference."""
    torch.manual_seed(7)
    config = getattr(transformers, f"{architecture}Config")(**{**SHAPE, **special})
    causal = "Gemma3ForCausalLM" if architecture == "Gemma3Text" else f"{architecture}ForCausalLM"
    model = getattr(transformers, causal)(config).float().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:  # norms of ones and biases of zeros would hide that they are missing
                usual = 1.0 if "norm" in name and "Gemma" not in architecture else 0.0
                weight.copy_(torch.randn_like(weight) * 0.3 + usual)
    model.save_pretrained(folder)
    if cut.startswith("sentencepiece"):
        tokens = pieces(folder / "tokenizer.model", prefix=cut == "sentencepiece")
    else:
        tokenizer = tokenizer_of(cut)
        tokenizer.save(str(folder / "tokenizer.json"))
        tokens = tokenizer.encode(TEXT).ids
    (folder / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": False}))
    prompt = [5 + number * 7 % 600 for number in range(90)]
    ids, first = torch.tensor([prompt]), None
    with torch.no_grad():
        for _ in range(16):
            logits = model(ids).logits[0, -1]
            first = torch.log_softmax(logits, -1) if first is None else first
            ids = torch.cat([ids, logits.argmax().reshape(1, 1)], 1)
    assert first is not None
    likeliest = first.topk(5)
    reference = {
        "prompt": prompt, "greedy": ids[0, len(prompt) :].tolist(), "text": TEXT, "tokens": tokens,
        "likeliest": dict(zip(map(str, likeliest.indices.tolist()), likeliest.values.tolist(), strict=True)),
    }  # fmt: skip
    (folder / "reference.json").write_text(json.dumps(reference))


def main() -> None:
    """All of them."""
    for name, (architecture, cut, special) in shapes().items():
        make(Path(sys.argv[1]) / name, architecture, cut, special)
        print(name, flush=True)


if __name__ == "__main__":
    main()
