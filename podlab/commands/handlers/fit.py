"""`model fit`: whether a model fits, and what would."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from podlab.commands.results import FitReport, Outcome
from podlab.errors import BadArgument
from podlab.events import Work

if TYPE_CHECKING:
    from podlab.lab.workspace import Workspace


def fit(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import fit as fitting
    from podlab.lab import pods

    if args.gpus is not None and args.on:
        raise BadArgument("--gpus and --on say different things.", hint="Name a pod, or GPUs that need not be there.")
    wish = fitting.wish_of(
        context=args.context, concurrency=args.concurrency, memory=args.memory, cache=args.cache,
        expert_parallel=args.expert_parallel,
    )  # fmt: skip
    pod = None if args.gpus is not None else pods.meant(workspace, args.on)
    judged = yield from fitting.judge(workspace, args.model, pod=pod, gpus_text=args.gpus, wish=wish)
    result = judged.result
    return Outcome(
        FitReport(
            judged.model, judged.engine, judged.pod, result.fits, result.reason, result.context,
            result.wish.concurrency, result.wish.tensor_parallel, result.wish.data_parallel, result.wish.memory_ratio,
            result.wish.cache_dtype, result.gpus, result.cache_bytes_per_token, result.cache_tokens,
            result.largest_context, result.largest_concurrency, tuple(way.text for way in result.nearest),
            result.missing, judged.geometry.source,
        )
    )  # fmt: skip
