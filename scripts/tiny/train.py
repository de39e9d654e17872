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
from jinja2 import Environment
from model import Llama, Shape
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.nn import functional

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


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal (Keller Jordan, 2024): small models need about half the tokens of AdamW."""

    def __init__(self, params: list[torch.nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            alike: dict[torch.Size, list[torch.nn.Parameter]] = {}
            for p in group["params"]:
                alike.setdefault(p.shape, []).append(p)
            for shape, params in alike.items():
                updates = torch.stack([self._nesterov(p, group["momentum"]) for p in params])
                scale = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                for p, update in zip(params, orthogonal(updates), strict=True):
                    p.mul_(1 - group["lr"] * 0.01).sub_(update, alpha=scale)

    def _nesterov(self, p: torch.nn.Parameter, momentum: float) -> Tensor:
        assert p.grad is not None
        state = self.state[p]
        if not state:
            state["velocity"] = torch.zeros_like(p)
        velocity: Tensor = state["velocity"]
        velocity.lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(velocity, momentum)


def orthogonal(x: Tensor) -> Tensor:
    """The nearest orthogonal matrices, nearly: five Newton-Schulz steps with Jordan's coefficients."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


def optimizers_for(model: Llama, rate: float, matrix_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for the embedding and the norms."""
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.dim() < 2 or "embed" in name]
    return [Muon(matrices, matrix_rate), torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)]


def repeats(vocab: int, rows: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random tokens, said twice. Only looking back can predict the second time: the shortest way to learn to copy."""
    half = int(torch.randint(12, 40, (1,), generator=rng))
    tokens = torch.randint(3, vocab, (rows, half), generator=rng)
    tokens = torch.cat((tokens, tokens), dim=1)
    target = tokens[:, 1:].clone()
    target[:, :half] = IGNORED
    return tokens[:, :-1], target


def train(model: Llama, samples: list[Sample], args: argparse.Namespace, pad: int) -> None:
    """As many steps as fit into the given minutes."""
    optimizers = optimizers_for(model, args.rate, args.matrix_rate)
    peaks = [args.rate if isinstance(o, torch.optim.AdamW) else args.matrix_rate for o in optimizers]
    checks = [_padded(samples[i : i + 16], pad) for i in range(0, 128, 16)]
    rng = torch.Generator().manual_seed(args.seed)
    started, spoke, seen = time.monotonic(), 0.0, 0
    for step, (tokens, target) in enumerate(batches(samples[128:], args.batch, pad, args.seed)):
        elapsed = time.monotonic() - started
        done = elapsed / (args.minutes * 60)
        if done >= 1:
            break
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = rate(max(done, (step + 1) * 1e-4), peak)
            optimizer.zero_grad(set_to_none=True)
        loss = loss_of(model, tokens, target)
        loss.backward()  # type: ignore[no-untyped-call]
        copying = None
        if done < args.repeats:
            copying = loss_of(model, *repeats(model.shape.vocab, args.batch // 250, rng))
            (0.5 * copying).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        seen += tokens.numel()
        if elapsed - spoke > 30:
            spoke = elapsed
            with torch.no_grad():
                check = math.fsum(loss_of(model, *batch).item() for batch in checks) / len(checks)
            copied = f"  copying {copying.item():.2f}" if copying is not None else ""
            speed = f"{seen / elapsed:.0f} tokens/s"
            print(
                f"{elapsed:5.0f} s  step {step}  loss {loss.item():.3f}  check {check:.4f}{copied}  {speed}", flush=True
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
    parser.add_argument("--rate", type=float, default=3e-3, help="the peak learning rate of AdamW")
    parser.add_argument("--matrix-rate", type=float, default=0.02, help="the peak learning rate of Muon")
    parser.add_argument("--repeats", type=float, default=0.4, help="the share of the time that also trains copying")
    parser.add_argument("--batch", type=int, default=3072, help="tokens per step")
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
