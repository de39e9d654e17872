"""Make the failures that the command line names; scripts/make-failure-logs --help says how."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import llamacpp_cases
import vllm_cases
from run import ROOT, Case, Unmakeable, run

CASES = (*llamacpp_cases.CASES, *vllm_cases.CASES)


def wanted(names: list[str], to: Path, again: bool) -> list[Case]:
    known = {case.engine for case in CASES} | {f"{case.engine}/{case.name}" for case in CASES}
    if unknown := set(names) - known:
        sys.exit(f"make-failure-logs: there is no {', '.join(sorted(unknown))}; see --list.")
    if names:
        return [case for case in CASES if {case.engine, f"{case.engine}/{case.name}"} & set(names)]
    return [case for case in CASES if again or not (to / case.engine / f"{case.name}.log").exists()]


def versions_of(engine: str, vllm_python: str | None) -> str:
    python = f"Python {sys.version.split()[0]}"
    if engine == "llamacpp":
        return f"xllamacpp {version('xllamacpp')}, {python}"
    asked = "import importlib.metadata as m; print(m.version('vllm'), m.version('torch'), m.version('transformers'))"
    told = subprocess.run([str(vllm_python), "-c", asked], capture_output=True, text=True, check=True).stdout.split()
    return f"vllm {told[0]}, torch {told[1]}, transformers {told[2]}, {python}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make-failure-logs")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--vllm-python", default=os.environ.get("PODLAB_VLLM_PYTHON"))
    parser.add_argument("--to", type=Path, default=ROOT / "tests" / "data" / "engine_logs")
    args = parser.parse_args()
    if args.list:
        for case in CASES:
            print(f"{case.engine}/{case.name:24} {case.cause:24} {case.words}{'  (held out)' if case.held_out else ''}")
        return 0
    failed = 0
    known: dict[str, str] = {}
    for case in wanted(args.names, args.to.resolve(), args.again):
        name = f"{case.engine}/{case.name}"
        if case.engine == "vllm" and not args.vllm_python:
            print(f"{name}: left out, --vllm-python names no Python that has vLLM")
            continue
        if case.engine not in known:
            known[case.engine] = versions_of(case.engine, args.vllm_python)
        try:
            text = run(case, args.vllm_python, known[case.engine])
        except Unmakeable as why:
            print(f"{name}: left out, {why}", flush=True)
            continue
        except AssertionError as error:
            print(f"{name}: NOT MADE, {error}", flush=True)
            failed += 1
            continue
        target = args.to.resolve() / case.engine / f"{case.name}.log"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        print(f"{name}: {len(text)} characters", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
