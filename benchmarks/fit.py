"""How far is the VRAM arithmetic from what vLLM says of real GPUs? Public logs beside what we would have said.

    python benchmarks/fit.py            a table, and the goals with pass or fail
    python benchmarks/fit.py --json     the same as JSON
    python benchmarks/fit.py --vllm V   also starts vLLM's CPU build, of the environment V, with the tiny model

The runs, each with its address, are in tests/data/fit_runs.toml. Weights and the layout of the cache are compared in
percent of what vLLM reports. What is left for the cache is a small rest of large numbers, so its error is given in
percent of the GPU's memory, too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from podlab.catalog.cache import Request, layout_of
from podlab.catalog.reading import geometry_of_folder
from tests.catalog.fit_runs import Judgement, judged, runs

TINY = Path(__file__).parents[1] / "tests" / "data" / "tiny"


@dataclass(frozen=True)
class Goal:
    """What an error must stay below, and whether it does."""

    what: str
    limit_percent: float
    median_percent: float
    worst_percent: float
    passed: bool


LIMITS = {"weights": 5.0, "layout": 2.0, "cache_of_gpu": 10.0}
"""In percent, for the worst run. The worst of the cache are versions of 2025 that sorted all logits to sample."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    parser.add_argument("--vllm", type=Path, metavar="V", help="an environment with vLLM's CPU build")
    args = parser.parse_args()
    judgements = [judged(run) for run in runs()]
    goals = [_goal(what, limit, judgements) for what, limit in LIMITS.items()]
    on_cpu = _cpu_run(args.vllm) if args.vllm else None
    if args.json:
        print(json.dumps({"runs": [asdict(each) for each in judgements], "goals": [asdict(each) for each in goals],
                          "cpu": on_cpu}, indent=2))  # fmt: skip
    else:
        _show(judgements, goals, on_cpu)
    return 0 if all(goal.passed for goal in goals) else 1


def _goal(what: str, limit: float, judgements: Sequence[Judgement]) -> Goal:
    errors = [abs(error) for each in judgements if (error := getattr(each, f"{what}_percent")) is not None]
    return Goal(what, limit, statistics.median(errors), max(errors), max(errors) <= limit)


def _show(judgements: Sequence[Judgement], goals: Sequence[Goal], on_cpu: dict[str, float] | None) -> None:
    print(f"{'run':46}  {'vLLM':>7}  {'weights':>8}  {'layout':>8}  {'cache':>8}  {'of GPU':>7}")
    for each in judgements:
        cells = (each.weights_percent, each.layout_percent, each.cache_percent, each.cache_of_gpu_percent)
        texts = ("" if cell is None else f"{cell:+.1f}%" for cell in cells)
        print(f"{each.name:46}  {each.version:>7}  " + "  ".join(f"{text:>8}" for text in texts))
    print()
    for goal in goals:
        print(f"{'pass' if goal.passed else 'FAIL'}  {goal.what:12} median {goal.median_percent:.1f}%, "
              f"worst {goal.worst_percent:.1f}%, limit {goal.limit_percent:g}%")  # fmt: skip
    if on_cpu is not None:
        print(f"\nvLLM's CPU build, the tiny model: {on_cpu['reported']:.0f} tokens reported, "
              f"{on_cpu['ours']:.0f} by our layout")  # fmt: skip


def _cpu_run(environment: Path) -> dict[str, float]:
    """Tokens that a real vLLM has room for in 1 GiB with the tiny model, and what our layout says of it."""
    with tempfile.TemporaryDirectory() as cache:
        env = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1",
                            "VLLM_CACHE_ROOT": cache}  # fmt: skip
        argv = [str(environment / "bin" / "vllm"), "serve", str(TINY), "--host", "127.0.0.1", "--port", "0",
                "--max-model-len", "2048", "--enforce-eager"]  # fmt: skip
        # A session of its own, so that its workers end with it.
        process = subprocess.Popen(
            argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if match := re.search(r"KV cache size: ([\d,]+) tokens", line):
                    reported = float(match[1].replace(",", ""))
                    break
            else:
                raise SystemExit("vLLM ended without telling the size of its cache")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    layout = layout_of(geometry_of_folder(TINY), 1)
    assert layout is not None
    pages = 2**30 // layout.page_bytes
    return {"reported": reported, "ours": pages / layout.pages(Request(2048, 0, 1)) * 2048}


if __name__ == "__main__":
    raise SystemExit(main())
