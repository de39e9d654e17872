"""How a model is put on the GPUs of a pod: which of them, cut how, with which context and arguments. Pure.

    plan(entry, geometry, recipes, rooms, wish) -> ServePlan

It does no I/O: `rooms` carry what a probe saw, `geometry` what the catalog or the hub says. The smallest way that fits
is taken: recipes for these GPUs first, then what the VRAM arithmetic allows by itself. GPUs are taken of one kind, the
freest first. Whatever the person said comes before all of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from podlab.catalog import advice, arguments, choice, memory, own_options
from podlab.catalog.catalog import ModelEntry
from podlab.catalog.choice import Candidate
from podlab.catalog.families import parsers_of
from podlab.catalog.fit import DEFAULT_MEMORY_RATIO, FitResult, Wish, fit, widest
from podlab.catalog.fit_file import HostRoom
from podlab.catalog.geometry import Geometry, GpuRoom
from podlab.catalog.gpus import type_of
from podlab.catalog.own_options import DATA, PIPELINE, SHARE_OF_FREE, TENSOR, Said, number
from podlab.catalog.recipes import Recipe
from podlab.catalog.sources import HubRepo
from podlab.catalog.wishes import ServeWish
from podlab.errors import BadArgument, EngineUnavailable
from podlab.units import memory_text

COMFORTABLE, LEAST = 16384, 2048
"""Tokens of context: below the first more GPUs are looked for, below the second nothing is worth starting."""
LOWEST_RATIO = 0.1
VLLM = "vllm"
"""The engine whose flags the catalog knows."""
BFLOAT16 = 8.0
"""The compute capability from which GPUs compute in bfloat16, which most models are stored in."""

ANYTHING = ServeWish()
Judge = Callable[[Geometry, Sequence[GpuRoom], Wish], FitResult]


@dataclass(frozen=True)
class ServePlan:
    """What to start. `args` are the engine's beyond what the other fields say, the person's own last and as written.

    `env` holds CUDA_VISIBLE_DEVICES wherever there are GPUs. `reasons` say why this way and these GPUs, `refused` why
    not smaller ones; each is a sentence.
    """

    engine: str
    gpus: tuple[int, ...] = ()
    tensor_parallel: int = 1
    data_parallel: int = 1
    pipeline_parallel: int = 1
    """Only ever what `args` say: the three together are the number of `gpus`."""
    expert_parallel: bool = False
    context: int | None = None
    memory_ratio: float | None = None
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    recipe: Recipe | None = None
    fit: FitResult | None = None
    """The arithmetic's verdict on it; None where it was not asked (no GPUs, or nothing known of the model)."""
    reasons: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Asked:
    """The wish, with what the engine's own arguments in it say of the same things."""

    wish: ServeWish
    engine: str
    own: Said

    @property
    def least(self) -> int:
        """Tokens of context without which the engine does not start with the arguments it gets."""
        return (self.own.prompt or 0) + 1

    @property
    def gpus(self) -> int | tuple[int, ...] | None:
        """How many or which; None where any multiple of `step` will do."""
        return self.step if self.wish.gpus is None and self.own.tensor_parallel else self.wish.gpus

    @property
    def step(self) -> int:
        """What the number of GPUs is a multiple of."""
        return (self.own.tensor_parallel or 1) * (self.own.data_parallel or 1) * (self.own.pipeline_parallel or 1)

    def allows(self, recipe: Recipe) -> bool:
        """Whether a recipe says nothing else than was asked."""
        pairs = (
            (self.gpus if self.gpus is None or isinstance(self.gpus, int) else len(self.gpus), recipe.gpus),
            (self.own.tensor_parallel, recipe.tensor_parallel), (self.own.data_parallel, recipe.data_parallel),
            (self.own.pipeline_parallel, 1),
        )  # fmt: skip
        return all(asked in (None, said) for asked, said in pairs)


@dataclass(frozen=True)
class _Trial:
    """A candidate and what the arithmetic says of it."""

    candidate: Candidate
    wish: Wish
    verdict: FitResult | None
    reasons: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        return self.verdict is None or self.verdict.fits is not False


def plan(
    entry: ModelEntry, geometry: Geometry | None, recipes: Sequence[Recipe], rooms: Sequence[GpuRoom],
    wish: ServeWish = ANYTHING, *, engine: str = "vllm", version: str | None = None, judge: Judge = fit,
    host: HostRoom | None = None,
) -> ServePlan:  # fmt: skip
    """The way to serve a model on a pod whose GPUs are `rooms`; none means a CPU, whose memory is `host`.

    Raises EngineUnavailable naming what does not fit and the nearest that does (not with `wish.force`), BadArgument
    for GPUs that are not there and options that contradict each other.
    """
    asked = _Asked(wish, engine, own_options.said(wish, engine))
    _check_split(asked)
    rooms = sorted(rooms, key=lambda room: room.index)
    least = entry.min_version if engine == entry.engine else None  # of another engine the entry says nothing
    if version and least and older(version, least) and not wish.force:
        raise EngineUnavailable(
            f"{entry.id} needs {engine} {least}, and {version} is asked for.",
            hint=f"Take {least} or newer, or add --force.",
        )
    if not rooms:
        return _on_a_cpu(entry, asked, engine, host)
    refused: list[str] = []
    fitting = [
        r for r in recipes if r.engine == engine and asked.allows(r) and _usable(r, version, rooms, refused)
    ]  # fmt: skip
    candidates = choice.candidates(fitting, rooms, asked.gpus, _cut(geometry, asked), step=asked.step)
    found = _first(candidates, geometry, entry, asked, judge, refused, engine, len(rooms))
    return _made(found, entry, geometry, asked, engine, refused)


def older(version: str, least: str) -> bool:
    """Whether a version comes before `least`, by its numbers; what has none (nightly) is new."""
    numbers = [tuple(int(n) for n in re.findall(r"\d+", text.partition("+")[0])[:3]) for text in (version, least)]
    return bool(numbers[0]) and numbers[0] < numbers[1]


def _check_split(asked: _Asked) -> None:
    """Raise BadArgument where --gpus and the engine's own options speak of different numbers of GPUs."""
    gpus = asked.wish.gpus
    if gpus is None:
        return
    count = gpus if isinstance(gpus, int) else len(gpus)
    settled = asked.own.tensor_parallel and asked.own.data_parallel  # else podlab fills in the other one
    if count == asked.step or (not settled and count % asked.step == 0):
        return
    own = asked.own
    sizes = ((TENSOR, own.tensor_parallel), (DATA, own.data_parallel), (PIPELINE, own.pipeline_parallel))
    said = " ".join(f"{flag} {size}" for flag, size in sizes if size)
    needed = f"a multiple of {asked.step}" if count > asked.step and not settled else str(asked.step)
    shown = str(gpus) if isinstance(gpus, int) else ",".join(map(str, gpus))
    raise BadArgument(
        f"--gpus {shown} is {'one GPU' if count == 1 else f'{count} GPUs'}, and {said} needs {needed}.",
        hint=f"Write --gpus {asked.step}, or leave one of them out: --gpus, or {said}.",
    )


def _usable(recipe: Recipe, version: str | None, rooms: Sequence[GpuRoom], refused: list[str]) -> bool:
    """Whether a recipe could be for this pod at all; why not goes to `refused`."""
    there = ", ".join(f"{count}x {name}" for name, count in choice.counted(rooms).items())
    why = ""
    if recipe.nodes > 1:
        why = f"needs {recipe.nodes} machines, which podlab does not join"
    elif recipe.min_version and version and older(version, recipe.min_version):
        why = f"needs version {recipe.min_version}"
    elif not choice.holds(recipe, rooms):
        why = f"the pod has {there}"
    if why:
        refused.append(f"{recipe.title}: {why}.")
    return not why


def _cut(geometry: Geometry | None, asked: _Asked) -> choice.Cut:
    """How a number of GPUs is used where no recipe says it: as asked, else in tensor parallel as far as it divides."""

    def cut(count: int) -> tuple[int, int, int]:
        stages = asked.own.pipeline_parallel or 1
        each = count // stages
        if asked.own.data_parallel:
            return each // asked.own.data_parallel, asked.own.data_parallel, stages
        tensor = asked.own.tensor_parallel or widest(geometry, each, expert_parallel=asked.own.expert_parallel is True)
        return tensor, each // tensor, stages

    return cut


def _first(
    candidates: Sequence[Candidate], geometry: Geometry | None, entry: ModelEntry, asked: _Asked, judge: Judge,
    refused: list[str], engine: str, gpus_there: int,
) -> _Trial:  # fmt: skip
    """The first candidate that fits with a comfortable context, else with any; one whose GPUs hold an endpoint of ours
    only where no other fits at all. Raises EngineUnavailable."""
    own = entry.context or (geometry.max_context if geometry else None) or COMFORTABLE
    trials: list[_Trial] = []
    for shared in (False, True):
        group = [candidate for candidate in candidates if bool(candidate.shared) == shared]
        before = trials
        for least in (min(COMFORTABLE, own), min(LEAST, own)):
            least = max(least, asked.least)
            trials = [*before]
            for candidate in group:
                trial = _try(candidate, geometry, asked, judge, least)
                if trial.good:
                    refused += dict.fromkeys(f"{each.candidate.title}: {_why(each)}" for each in trials)
                    return trial
                trials.append(trial)
    if not trials:
        raise EngineUnavailable(f"There is no GPU for {entry.id} on this pod.", hint="See: podlab pod gpu")
    last = max(trials, key=lambda trial: sum(room.free_bytes for room in trial.candidate.rooms))
    if asked.wish.force:
        return replace(last, reasons=(*last.reasons, f"Forced, although: {_why(last)}"))
    raise EngineUnavailable(
        f"{entry.id} does not fit on {last.candidate.title}. {_why(last)}",
        hint=_nearest(last, engine, gpus_there) + "--force starts it all the same.",
    )


def _nearest(trial: _Trial, engine: str, gpus_there: int) -> str:
    ways = advice.ways(trial.verdict.nearest if trial.verdict else (), engine, gpus_there, most=2)
    return f"It would with {ways}; " if ways else ""


def _why(trial: _Trial) -> str:
    return trial.verdict.reason if trial.verdict else "nothing is known of its size."


def _try(candidate: Candidate, geometry: Geometry | None, asked: _Asked, judge: Judge, least: int) -> _Trial:
    """Judge a candidate, with as much context as fits where nobody asked for a certain one."""
    recipe = candidate.recipe
    wish, reasons = _wish(candidate, asked)
    if geometry is None:
        return _Trial(candidate, wish, None, (*reasons, "Whether it fits was not judged: its shape is not known."))
    if candidate.pipeline_parallel > 1:
        return _Trial(candidate, wish, None, (*reasons, "Whether it fits was not judged: it is cut into stages."))
    verdict = judge(geometry, candidate.rooms, wish)
    if verdict.fits is None:
        return _Trial(candidate, wish, verdict, (*reasons, f"Whether it fits was not judged: {verdict.reason}"))
    room = verdict.largest_context or 0
    if verdict.fits or asked.own.context is not None or room < least:
        return _Trial(candidate, wish, verdict, reasons)
    shorter = max(room // 1024 * 1024 or room, asked.least)
    again = replace(wish, context=shorter)
    meant = f"the recipe's {recipe.context}" if recipe and recipe.context else "the model's own"
    said = f"A context of {shorter} tokens: {meant} do not fit beside its weights."
    return _Trial(candidate, again, judge(geometry, candidate.rooms, again), (*reasons, said))


def _wish(candidate: Candidate, asked: _Asked) -> tuple[Wish, tuple[str, ...]]:
    """A candidate as the arithmetic takes it. The share of memory shrinks to what is free, unless one was asked for."""
    recipe, reasons = candidate.recipe, list[str]()
    ratio, of_free = asked.own.memory_ratio, asked.engine in SHARE_OF_FREE
    if ratio is None and of_free:
        ratio = DEFAULT_MEMORY_RATIO
    elif ratio is None:
        ratio = recipe.memory_ratio if recipe and recipe.memory_ratio else DEFAULT_MEMORY_RATIO
        freest = min(memory.startable_bytes(room) / memory.cuda_total_bytes(room) for room in candidate.rooms)
        if (share := int(freest * 100) / 100) < ratio and share >= LOWEST_RATIO:
            busy = min(candidate.rooms, key=lambda room: room.free_bytes)
            left = f"GPU {busy.index} has {memory_text(busy.free_bytes)} free"
            reasons.append(f"{share:.0%} of the memory instead of {ratio:.0%}: {left}.")
            ratio = share
    args = arguments.merged(recipe.args if recipe else (), asked.wish.extra)
    experts = recipe.expert_parallel if recipe else False
    wish = Wish(
        context=asked.own.context or (recipe.context if recipe else None), concurrency=asked.wish.concurrency,
        tensor_parallel=candidate.tensor_parallel, data_parallel=candidate.data_parallel,
        expert_parallel=experts if asked.own.expert_parallel is None else asked.own.expert_parallel, memory_ratio=ratio,
        ratio_of_free=of_free,
    )  # fmt: skip
    return _with_flags(wish, args), tuple(reasons)


def _with_flags(wish: Wish, args: Sequence[str]) -> Wish:
    """The wish with what the arithmetic reads off the engine's own arguments."""
    cache = arguments.value_of(args, "kv-cache-dtype") or ""
    return replace(
        wish, cache_dtype="fp8" if cache.startswith("fp8") else "auto",
        max_batched_tokens=number(args, "max-num-batched-tokens"), max_sequences=number(args, "max-num-seqs"),
        eager=arguments.switched(args, "enforce-eager") is True,
        prefix_caching=arguments.switched(args, "enable-prefix-caching") is not False,
    )  # fmt: skip


def _made(
    trial: _Trial, entry: ModelEntry, geometry: Geometry | None, asked: _Asked, engine: str, refused: Sequence[str]
) -> ServePlan:
    candidate, wish, recipe = trial.candidate, trial.wish, trial.candidate.recipe
    chosen = tuple(sorted(room.index for room in candidate.rooms))
    split = wish.tensor_parallel * wish.data_parallel * candidate.pipeline_parallel
    assert split == len(chosen), f"{split} GPUs are needed and {chosen} chosen"
    half = _half(geometry, candidate.rooms) if engine == VLLM else ()
    args = (*parser_args(entry, engine), *half, *(recipe.args if recipe else ()))
    env = dict(recipe.env if recipe else ()) | {
        # Numbered as the driver does it: CUDA by itself puts the fastest card first.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, chosen)),
    }  # fmt: skip
    reasons = (
        f"The recipe for {recipe.title}{f': {recipe.notes}' if recipe.notes else ''}." if recipe
        else f"No recipe is for these GPUs: {candidate.title} is the smallest number that the arithmetic allows."
        if asked.gpus is None else f"{candidate.title}, as asked.",
        *(choice.reason(room) for room in sorted(candidate.rooms, key=lambda room: room.index)),
        *choice.mixed(candidate.rooms), *choice.shared(candidate, asked.wish.gpus), *trial.reasons, *asked.own.reasons,
        *(["--dtype half: these GPUs do not compute in bfloat16."] if half else []),
    )  # fmt: skip
    context = wish.context or (trial.verdict.context if trial.verdict else None) or entry.context
    own_options.check_prompt(asked.own, context, asked.wish, engine)
    return ServePlan(
        engine, chosen, wish.tensor_parallel, wish.data_parallel, candidate.pipeline_parallel, wish.expert_parallel,
        context, wish.memory_ratio, arguments.merged(args, asked.wish.extra), tuple(env.items()), recipe,
        trial.verdict, reasons, tuple(refused),
    )  # fmt: skip


def _half(geometry: Geometry | None, rooms: Sequence[GpuRoom]) -> tuple[str, ...]:
    kinds = [kind for room in rooms if (kind := type_of(room.name))]
    old = any(kind.capability < BFLOAT16 for kind in kinds)
    plain = geometry is None or geometry.quantization is None
    return ("--dtype", "half") if old and plain else ()


def parser_args(entry: ModelEntry, engine: str) -> tuple[str, ...]:
    """vLLM's flags that let a model call tools and show its reasoning apart: its entry's, else those of its family."""
    if engine != VLLM:
        return ()  # the others have parsers of other names, or flags of other names, or neither
    tool, reasoning = entry.tool_parser, entry.reasoning_parser
    if entry.geometry is None and not entry.source_of and isinstance(entry.source, HubRepo):
        family = parsers_of(entry.source.repo)  # nobody has written an entry for it
        tool, reasoning = tool or family.tool, reasoning or family.reasoning
    return (
        *(("--enable-auto-tool-choice", "--tool-call-parser", tool) if tool else ()),
        *(("--reasoning-parser", reasoning) if reasoning else ()),
    )


def _on_a_cpu(entry: ModelEntry, asked: _Asked, engine: str, host: HostRoom | None) -> ServePlan:
    if asked.wish.gpus is not None or asked.step > 1:
        several = "" if asked.wish.gpus is not None else ", and the engine's own options ask for several"
        hint = "--gpus" if asked.wish.gpus is not None else "them"
        raise BadArgument(f"This pod has no GPU{several}.", hint=f"Leave {hint} out, or use another pod with --on POD.")
    own = entry.context or (entry.geometry.max_context if entry.geometry else None)
    context = asked.own.context or (min(own, COMFORTABLE) if own else None)
    share = asked.own.memory_ratio
    reasons = ["This pod has no GPU: it is served by the CPU."]
    if share is None and engine == VLLM and not arguments.value_of(asked.wish.extra, "kv-cache-memory-bytes"):
        share = _share_of_a_cpu(entry, host)
        if share is not None:
            reasons.append(f"{share:.0%} of its memory, of what is free: vLLM by itself would insist on 92%.")
    own_options.check_prompt(asked.own, context, asked.wish, engine)
    return ServePlan(
        engine, context=context, memory_ratio=share,
        args=arguments.merged(parser_args(entry, engine), asked.wish.extra),
        reasons=(*reasons, *asked.own.reasons),
    )  # fmt: skip


def _share_of_a_cpu(entry: ModelEntry, host: HostRoom | None) -> float | None:
    """How much of a computer's memory vLLM may take: half of what is free, as other programs live there too; most of it
    where the weights fill that half. None where the memory is not known, or next to none is free."""
    if host is None or host.total_bytes <= 0:
        return None
    free = min(1.0, host.free_bytes / host.total_bytes)
    weights = entry.geometry.weight_bytes if entry.geometry and entry.geometry.weight_bytes else 0
    crowded = weights > 0.7 * 0.5 * host.free_bytes
    return int(free * (0.9 if crowded else 0.5) * 100) / 100 or None
