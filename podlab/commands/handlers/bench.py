"""`model bench`, `model smoke` and `model matrix`: what an endpoint can do, and how fast."""

from __future__ import annotations

import math
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from podlab.commands.results import BenchReport, MatrixList, Outcome, Plan, SmokeReport
from podlab.errors import BadArgument
from podlab.events import Work

if TYPE_CHECKING:
    from podlab.lab.wish import Wish
    from podlab.lab.workspace import Workspace
    from podlab.loadtest import Load


def bench(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab import loadtest
    from podlab.lab import bench as lab

    limits = loadtest.limits_from(args.goodput) if args.goodput else {}
    measured = yield from lab.measure(workspace, args.name, _loads(args), limits, on=args.on)
    endpoint = measured.endpoint
    failed = all(level.failed == level.requests for level in measured.levels)
    report = BenchReport(
        endpoint.name, endpoint.model, endpoint.engine, endpoint.pod, args.input, args.output, measured.levels,
        limits.get("ttft"), limits.get("tpot"), limits.get("e2e"),
    )  # fmt: skip
    return Outcome(report, 1 if failed else 0)


def smoke(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import smoke as lab

    endpoint, checks = yield from lab.smoke(workspace, args.name, on=args.on)
    ok = all(check.state != "failed" for check in checks)
    report = SmokeReport(endpoint.name, endpoint.model, endpoint.engine, endpoint.pod, ok, checks)
    return Outcome(report, 0 if ok else 1)


def matrix(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab import __version__
    from podlab.lab import matrix as lab
    from podlab.lab import pods

    pod = pods.meant(workspace, args.on)
    wishes = _wishes(args)
    if args.dry_run:
        would = (f"start {wish.model} with {wish.engine} on {pod.name}, try, measure and stop it" for wish in wishes)
        return Outcome(Plan((*would, *((f"write the table to {args.save}",) if args.save else ()))))
    facts = yield from pods.reach(workspace, pod)
    tried = yield from lab.run(workspace, pod, wishes)
    machine = f"{facts.os} {facts.arch}, {facts.cpus} CPUs"
    report = MatrixList(tried, pod.name, machine, __version__, args.save)
    if args.save:
        from podlab.durable import replace_file

        page = lab.page(tried, machine, __version__)
        replace_file(Path(args.save).expanduser().absolute(), page.encode(), mode=0o644)
    return Outcome(report, 0 if all(row.state == "works" for row in tried) else 1)


def _wishes(args: Namespace) -> list[Wish]:
    """Every combination whose model's files the engine can read."""
    from podlab.catalog import catalog
    from podlab.engines import engine_named
    from podlab.lab.wish import Wish

    wishes = []
    for model in args.models or ["tiny"]:
        entry = catalog.find(model)
        for engine in _words(args.engines) or [entry.engine]:
            engine_named(engine)
            if (entry.format == "gguf") != (engine == "llamacpp"):
                continue
            python = args.python if engine != "llamacpp" else None
            backends: list[str | None] = [*_words(args.backends)] or [None]
            wishes += [Wish(model, engine=engine, backend=backend, python=python) for backend in backends]
    if not wishes:
        raise BadArgument("No engine among these serves the files of any of these models.",
                          hint="GGUF files are served by llamacpp, folders of safetensors by vllm.")  # fmt: skip
    return wishes


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def _loads(args: Namespace) -> list[Load]:
    from podlab.loadtest import Load

    if args.rate and args.concurrency:
        raise BadArgument("--rate and --concurrency exclude each other.", hint="Leave one of them away.")
    sizes = {"requests": args.requests, "input_words": args.input, "output_tokens": args.output, "seed": args.seed}
    if args.rate:
        return [Load(concurrency=None, rate_per_s=rate, **sizes) for rate in _numbers("--rate", args.rate)]
    asked = _numbers("--concurrency", args.concurrency or "4")
    if any(value != int(value) for value in asked):
        raise BadArgument(f"--concurrency is {args.concurrency}.", hint="Whole numbers, such as 1,4,16.")
    return [Load(concurrency=int(value), **sizes) for value in asked]


def _numbers(option: str, text: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
        if all(math.isfinite(value) for value in values):
            return values
    except ValueError:
        pass
    raise BadArgument(f"{option} is {text!r}.", hint="Numbers with commas between, such as 1,4,16.")
