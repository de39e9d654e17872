"""Train tiny on the corpus and write it in Hugging Face's layout (fp16 safetensors, tokenizer, templates)."""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections import Counter
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
CHECKED = 128  # chats that are kept from training, to watch the loss on
REPORT_S = 30


# A word that was said before and is not one of the commonest counts as copied: names, heroes of stories, quotations.
# There are few of them, and all of the sense hangs on them.
COMMONEST, COPIED_WEIGHT = 300, 3.0

Batch = tuple[Tensor, Tensor, Tensor]
"""Tokens, targets and their weights, each (rows, length)."""


@dataclass(frozen=True)
class Sample:
    """One chat in tokens; `target` is IGNORED where the model is not graded."""

    tokens: list[int]
    target: list[int]
    weight: list[float]


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


def special(tokenizer: Tokenizer, text: str) -> int:
    """The number of a token that must be there."""
    token: int | None = tokenizer.token_to_id(text)
    if token is None:
        raise ValueError(f"the tokenizer has no {text}")
    return token


class Encoder:
    """Chats -> samples graded on what the assistant says."""

    def __init__(self, tokenizer: Tokenizer, texts: list[str]) -> None:
        self.tokenizer = tokenizer
        self.start, self.end = special(tokenizer, START), special(tokenizer, END)
        self.assistant = self._ids("assistant\n")
        counts = Counter(token for text in texts for token in self._ids(text))
        self.common = {token for token, _ in counts.most_common(COMMONEST)}

    def __call__(self, text: str) -> Sample:
        tokens = self._ids(text)
        graded = self._graded(tokens)
        target = [token if grade else IGNORED for token, grade in zip(tokens[1:], graded[1:], strict=True)]
        return Sample(tokens[:-1], target, self._weights(tokens))

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _graded(self, tokens: list[int]) -> list[bool]:
        """Which tokens the assistant says, the end mark included."""
        graded, speaking = [], False
        for i, token in enumerate(tokens):
            header = i - 1 - len(self.assistant)
            if header >= 0 and tokens[header] == self.start and tokens[header + 1 : i] == self.assistant:
                speaking = True
            graded.append(speaking)
            speaking = speaking and token != self.end
        return graded

    def _weights(self, tokens: list[int]) -> list[float]:
        seen: set[int] = set()
        weights = []
        for token in tokens:
            weights.append(COPIED_WEIGHT if token in seen else 1.0)
            if token not in self.common:
                seen.add(token)
        return weights[1:]


def batches(samples: list[Sample], size: int, pad: int, seed: int) -> Iterator[Batch]:
    """Forever: rows of about the same length, about `size` tokens in all."""
    rng = random.Random(seed)
    while True:
        # Sorting with a little noise puts like to like without making every epoch the same.
        order = sorted(samples, key=lambda sample: len(sample.tokens) * rng.uniform(0.92, 1.08))
        groups: list[list[Sample]] = [[]]
        for sample in order:
            longest = max(len(s.tokens) for s in [*groups[-1], sample])
            if groups[-1] and (len(groups[-1]) + 1) * longest > size:
                groups.append([])
            groups[-1].append(sample)
        rng.shuffle(groups)
        yield from (padded(group, pad) for group in groups)


def padded(group: list[Sample], pad: int) -> Batch:
    longest = max(len(s.tokens) for s in group)

    def filled(rows: list[list[Any]], filling: float) -> Tensor:
        return torch.tensor([row + [filling] * (longest - len(row)) for row in rows])

    return (
        filled([s.tokens for s in group], pad),
        filled([s.target for s in group], IGNORED),
        filled([s.weight for s in group], 0.0),
    )


def loss_of(model: Llama, tokens: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    graded = target != IGNORED
    weight = weight[graded]
    each = functional.cross_entropy(model.logits(model(tokens)[graded]), target[graded], reduction="none")
    return (each * weight).sum() / weight.sum()


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


def repeats(vocab: int, rows: int, rng: torch.Generator) -> Batch:
    """Random tokens, said twice. Only looking back can predict the second time: the shortest way to learn to copy."""
    half = int(torch.randint(5, 20, (1,), generator=rng))
    tokens = torch.randint(3, vocab, (rows, half), generator=rng)
    tokens = torch.cat((tokens, tokens), dim=1)
    target = tokens[:, 1:].clone()
    target[:, :half] = IGNORED
    return tokens[:, :-1], target, torch.ones(target.shape)


def train(model: Llama, tokenizer: Tokenizer, samples: list[Sample], args: argparse.Namespace) -> None:
    """As many steps as fit into the given minutes; saved now and then, so that an interruption costs little."""
    pad = special(tokenizer, PAD)
    optimizers = optimizers_for(model, args.rate, args.matrix_rate)
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    checks = [padded(samples[i : i + 16], pad) for i in range(0, CHECKED, 16)]
    rng = torch.Generator().manual_seed(args.seed)
    started, spoke, seen = time.monotonic(), 0.0, 0
    for step, batch in enumerate(batches(samples[CHECKED:], args.batch, pad, args.seed)):
        elapsed = time.monotonic() - started
        done = elapsed / (args.minutes * 60)
        if done >= 1:
            break
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = rate(max(done, (step + 1) * 1e-4), peak)
            optimizer.zero_grad(set_to_none=True)
        tokens, target, weight = batch
        copying = torch.zeros(())
        if done < args.repeats:
            copying = loss_of(model, *repeats(model.shape.vocab, args.batch // 128, rng))
        else:
            # To the end with the true frequencies: a preference for what was said gives hero and friend the same name.
            weight = weight.clamp(max=1.0)
        loss = loss_of(model, tokens, target, weight)
        (loss + 0.5 * copying).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        seen += tokens.numel()
        if elapsed - spoke > REPORT_S:
            spoke = elapsed
            with torch.no_grad():
                check = math.fsum(loss_of(model, *batch).item() for batch in checks) / len(checks)
            losses = f"loss {loss.item():.3f}  check {check:.4f}  copying {copying.item():.2f}"
            print(f"{elapsed:5.0f} s  step {step}  {losses}  {seen / elapsed:.0f} tokens/s", flush=True)
            save(model, tokenizer, args.output)
    print(f"{step} steps, {seen} tokens, {time.monotonic() - started:.0f} s", flush=True)


def save(model: Llama, tokenizer: Tokenizer, folder: Path) -> None:
    """What transformers and vLLM expect to find in a model's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pad, end = special(tokenizer, PAD), special(tokenizer, END)
    weights = {name: p.detach().to(torch.float16).contiguous() for name, p in model.named_parameters()}
    path = folder / "model.safetensors"
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)  # safetensors makes it private
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
    parser.add_argument("--repeats", type=float, default=0.6, help="the share of the time in which copying is stressed")
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
    encode = Encoder(tokenizer, texts[:2000])
    samples = [encode(text) for text in texts]
    print(f"{len(samples)} chats, {sum(len(s.tokens) for s in samples)} tokens", flush=True)

    model = Llama(shape)
    if args.start_from:
        model.load_state_dict({k: v.float() for k, v in load_file(args.start_from / "model.safetensors").items()})
    print(f"{sum(p.numel() for p in model.parameters())} parameters", flush=True)
    train(model, tokenizer, samples, args)
    save(model, tokenizer, args.output)


if __name__ == "__main__":
    main()
