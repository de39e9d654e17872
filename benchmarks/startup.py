"""How fast podlab starts: the command line, the import, the extension in a running kernel.

Prints ours, the floor (bare Python) and the ratio, from one run; the best of several rounds each, taken in turn, so
that a busy machine slows both alike. `--check` ends with status 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

CLI = "from podlab.cli import main; main()"
HEAVY = ("ipywidgets", "anywidget", "plotly", "paramiko", "runpod", "openai", "numpy")
LOAD = f"""
import sys, time
began = time.perf_counter()
get_ipython().run_line_magic("load_ext", "podlab")
took_ms = (time.perf_counter() - began) * 1000
print("TOOK", took_ms, [name for name in {HEAVY!r} if name in sys.modules])
"""


@dataclass(frozen=True)
class Figure:
    """One line of the report. Times in milliseconds; `goal` says what is asked of it."""

    name: str
    ours_ms: float
    floor_name: str
    floor_ms: float
    goal: str
    reached: bool

    @property
    def ratio(self) -> float:
        return self.ours_ms / self.floor_ms


def best_ms(commands: dict[str, list[str]], rounds: int) -> dict[str, float]:
    """The best wall time of each command in milliseconds; the commands take turns."""
    best = dict.fromkeys(commands, float("inf"))
    for _ in range(rounds):
        for name, argv in commands.items():
            began = time.perf_counter()
            subprocess.run(argv, stdout=subprocess.DEVNULL, check=True)
            best[name] = min(best[name], (time.perf_counter() - began) * 1000)
    return best


def load_ms(rounds: int) -> tuple[float, list[str]]:
    """What `%load_ext podlab` takes in a running kernel (best of several kernels), and the heavy packages it loaded."""
    from jupyter_client.manager import start_new_kernel

    best, heavy = float("inf"), set[str]()
    for _ in range(rounds):
        manager, client = start_new_kernel(kernel_name="python3")
        try:
            said: list[str] = []
            client.execute_interactive(
                LOAD, timeout=60, output_hook=lambda m, said=said: said.append(m["content"].get("text", ""))
            )
            line = next(text for text in said if "TOOK" in text).split(maxsplit=2)
            best = min(best, float(line[1]))
            heavy |= set(json.loads(line[2].replace("'", '"')))
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
    return best, sorted(heavy)


def measure(rounds: int) -> list[Figure]:
    """All figures of this report."""
    python = sys.executable
    script = Path(python).with_name("podlab")
    podlab = [str(script)] if script.exists() else [python, "-c", CLI]
    best = best_ms(
        {
            "bare -I -S": [python, "-I", "-S", "-c", "pass"],
            "bare": [python, "-c", "pass"],
            "import": [python, "-c", "import podlab"],
            "version": [*podlab, "--version"],
            "help": [*podlab, "--help"],
        },
        rounds,
    )
    figures = [
        Figure(
            f"podlab --{name}",
            best[name],
            "python -I -S -c pass",
            best["bare -I -S"],
            "<= 8 x floor and < 100 ms",
            best[name] <= 8 * best["bare -I -S"] and best[name] < 100,
        )
        for name in ("version", "help")
    ]
    figures.append(
        Figure(
            "import podlab",
            best["import"],
            "python -c pass",
            best["bare"],
            "<= floor + 15 ms",
            best["import"] <= best["bare"] + 15,
        )
    )
    took_ms, heavy = load_ms(max(2, rounds // 5))
    goal = "<= 50 ms, loading nothing heavy" + (f" (loaded {', '.join(heavy)})" if heavy else "")
    figures.append(
        Figure("%load_ext podlab", took_ms, "python -c pass", best["bare"], goal, took_ms <= 50 and not heavy)
    )
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="how often each command runs")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument("--check", action="store_true", help="status 1 when a goal is missed")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["PODLAB_HOME"] = home
        figures = measure(args.rounds)
    if args.json:
        print(json.dumps([asdict(figure) | {"ratio": figure.ratio} for figure in figures], indent=2))
    else:
        print(f"{'':<20}{'ours':>10}{'floor':>10}{'ratio':>8}  goal")
        for figure in figures:
            mark = "reached" if figure.reached else "MISSED"
            print(
                f"{figure.name:<20}{figure.ours_ms:>7.1f} ms{figure.floor_ms:>7.1f} ms{figure.ratio:>8.1f}  "
                f"{mark}: {figure.goal} (floor: {figure.floor_name})"
            )
    return int(args.check and not all(figure.reached for figure in figures))


if __name__ == "__main__":
    raise SystemExit(main())
