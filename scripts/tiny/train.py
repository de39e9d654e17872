"""Train tiny on the corpus and write it in Hugging Face's layout (fp16 safetensors, tokenizer, templates)."""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from jinja2 import Environment
from model import Llama, Shape
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

HERE = Path(__file__).resolve().parent
TEMPLATE = HERE / "chat_template.jinja"
START, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
IGNORED = -100


@dataclass(frozen=True)
class Sample:
    """One chat in tokens; `target` is IGNORED where the model is not graded."""

    tokens: list[int]
    target: list[int]


def renderer() -> Any:
    """The chat template that is shipped, compiled the way transformers compiles it."""
    env = Environment(trim_blocks=True, lstrip_blocks=True)
    env.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return env.from_string(TEMPLATE.read_text(encoding="utf-8"))


def train_tokenizer(texts: Iterator[str], vocab: int) -> Tokenizer:
    """Byte-level BPE with GPT-2's splitting, which llama.cpp knows as `gpt-2`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    specials = [AddedToken(text, special=True, normalized=False) for text in (PAD, START, END)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


class Encoder:
    """Chats -> samples graded on what the assistant says."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.start, self.end = tokenizer.token_to_id(START), tokenizer.token_to_id(END)
        self.assistant = tokenizer.encode("assistant\n", add_special_tokens=False).ids

    def __call__(self, text: str) -> Sample:
        tokens = self.tokenizer.encode(text, add_special_tokens=False).ids
        graded = [False] * len(tokens)
        i = 0
        while i < len(tokens):
            if tokens[i] == self.start and tokens[i + 1 : i + 1 + len(self.assistant)] == self.assistant:
                i += 1 + len(self.assistant)
                while i < len(tokens):
                    graded[i] = True
                    if tokens[i] == self.end:
                        break
                    i += 1
            i += 1
        target = [token if grade else IGNORED for token, grade in zip(tokens[1:], graded[1:], strict=True)]
        return Sample(tokens[:-1], target)


def batches(samples: list[Sample], size: int, pad: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Forever: rows of about the same length, about `size` tokens in all."""
    rng = random.Random(seed)
    while True:
        # Sorting with a little noise puts like to like without making every epoch the same.
        order = sorted(range(len(samples)), key=lambda i: len(samples[i].tokens) * rng.uniform(0.92, 1.08))
        rows: list[list[Sample]] = [[]]
        for i in order:
            if rows[-1] and (len(rows[-1]) + 1) * max(len(s.tokens) for s in [*rows[-1], samples[i]]) > size:
                rows.append([])
            rows[-1].append(samples[i])
        rng.shuffle(rows)
        yield from (_padded(batch, pad) for batch in rows)


def _padded(batch: list[Sample], pad: int) -> tuple[Tensor, Tensor]:
    longest = max(len(s.tokens) for s in batch)
    tokens = [s.tokens + [pad] * (longest - len(s.tokens)) for s in batch]
    target = [s.target + [IGNORED] * (longest - len(s.target)) for s in batch]
    return torch.tensor(tokens), torch.tensor(target)


def loss_of(model: Llama, tokens: Tensor, target: Tensor) -> Tensor:
    graded = target != IGNORED
    return functional.cross_entropy(model.logits(model(tokens)[graded]), target[graded])


def rate(done: float, peak: float) -> float:
    """The learning rate after the share `done` of the time: short warm-up, then straight down to a fiftieth."""
    return peak * min(1.0, done / 0.02) * max(0.02, 1 - done)


def optimizer_for(model: Llama, peak: float) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98))


def train(model: Llama, samples: list[Sample], args: argparse.Namespace, pad: int) -> None:
    """As many steps as fit into the given minutes."""
    optimizer = optimizer_for(model, args.rate)
    checks = [_padded(samples[i : i + 16], pad) for i in range(0, 128, 16)]
    started, spoke, seen = time.monotonic(), 0.0, 0
    for step, (tokens, target) in enumerate(batches(samples[128:], args.batch, pad, args.seed)):
        elapsed = time.monotonic() - started
        done = elapsed / (args.minutes * 60)
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = rate(max(done, (step + 1) * 1e-4), args.rate)
        loss = loss_of(model, tokens, target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seen += tokens.numel()
        if elapsed - spoke > 30:
            spoke = elapsed
            with torch.no_grad():
                check = math.fsum(loss_of(model, *batch).item() for batch in checks) / len(checks)
            print(
                f"{elapsed:5.0f} s  step {step}  loss {loss.item():.3f}  check {check:.4f}  {seen / elapsed:.0f} tokens/s",
                flush=True,
            )
    print(f"{step} steps, {seen} tokens, {time.monotonic() - started:.0f} s", flush=True)


def save(model: Llama, tokenizer: Tokenizer, folder: Path) -> None:
    """What transformers and vLLM expect to find in a model's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pad, end = tokenizer.token_to_id(PAD), tokenizer.token_to_id(END)
    weights = {name: p.detach().to(torch.float16).contiguous() for name, p in model.named_parameters()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "config.json", model.shape.hf_config(bos=pad, eos=end, pad=pad))
    _write_json(
        folder / "generation_config.json", {"bos_token_id": pad, "eos_token_id": [end, pad], "pad_token_id": pad}
    )
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": model.shape.context,
            "bos_token": None,
            "eos_token": END,
            "pad_token": PAD,
            "unk_token": None,
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "chat_template": TEMPLATE.read_text(encoding="utf-8"),
        },
    )


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path, help="what corpus.py wrote")
    parser.add_argument("output", type=Path, help="the folder for the model")
    parser.add_argument("--minutes", type=float, default=20.0, help="how long to train")
    parser.add_argument("--start-from", type=Path, help="a folder written before: go on with its weights and tokenizer")
    parser.add_argument("--rate", type=float, default=3e-3, help="the peak learning rate")
    parser.add_argument("--batch", type=int, default=4096, help="tokens per step")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)

    template = renderer()
    with args.corpus.open(encoding="utf-8") as file:
        texts = [template.render(**json.loads(line), add_generation_prompt=False) for line in file]
    shape = Shape()
    if args.start_from:
        tokenizer = Tokenizer.from_file(str(args.start_from / "tokenizer.json"))
    else:
        tokenizer = train_tokenizer(iter(texts[:20_000]), shape.vocab)
    encode = Encoder(tokenizer)
    samples = [encode(text) for text in texts]
    print(f"{len(samples)} chats, {sum(len(s.tokens) for s in samples)} tokens", flush=True)

    model = Llama(shape)
    if args.start_from:
        model.load_state_dict({k: v.float() for k, v in load_file(args.start_from / "model.safetensors").items()})
    print(f"{sum(p.numel() for p in model.parameters())} parameters", flush=True)
    train(model, samples, args, tokenizer.token_to_id(PAD))
    save(model, tokenizer, args.output)


if __name__ == "__main__":
    main()
