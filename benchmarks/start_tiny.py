"""From `model start tiny` to the first token of its answer, on this computer, in a process that is warm.

Prints ours, the floor (the engine started by hand in a child process, then asked over HTTP) and the ratio, from one
run, the rounds taken in turn. `--check` ends with status 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx2

from podlab.catalog import catalog
from podlab.chat import Sampling
from podlab.events import Chunk
from podlab.lab import chats, endpoints, launch, pods
from podlab.lab.workspace import Workspace

GOAL_S = 3.0
BY_HAND = """
import sys, threading, xllamacpp as x
p = x.CommonParams(); p.model.path = sys.argv[1]; p.hostnames = ["127.0.0.1"]; p.port = 0; p.n_ctx = 2048
s = x.Server(p); print(s.listening_address, flush=True); threading.Event().wait()
"""
ASK = {"messages": [{"role": "user", "content": "Say hello."}], "stream": True, "max_tokens": 16}


def ours_s(workspace: Workspace) -> float:
    """Seconds from the command to the first piece of an answer."""
    local = pods.find("local")
    began = time.perf_counter()
    for _ in launch.start(workspace, local, launch.Wish("tiny")):
        pass
    talk = chats.say(workspace, "tiny", "Say hello.", Sampling(temperature=0.0, max_tokens=16), new=True)
    for event in talk:
        if isinstance(event, Chunk):
            break
    took_s = time.perf_counter() - began
    talk.close()
    for _ in endpoints.stop(workspace, "tiny"):
        pass
    return took_s


def floor_s(model: Path) -> float:
    """The same with nothing but the engine: a child process, and one HTTP request."""
    began = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-c", BY_HAND, str(model)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert child.stdout is not None
        address = child.stdout.readline().strip()
        with httpx2.stream("POST", f"{address}/v1/chat/completions", json=ASK, trust_env=False) as answer:
            for line in answer.iter_lines():
                if '"content":"' in line.replace(" ", ""):
                    return time.perf_counter() - began
        raise RuntimeError("the engine gave no token")
    finally:
        child.kill()
        child.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument("--check", action="store_true", help="status 1 when a goal is missed")
    args = parser.parse_args()
    source = catalog.resolve(catalog.find("tiny"))
    assert isinstance(source, catalog.SendFile)
    with tempfile.TemporaryDirectory() as home:
        os.environ["PODLAB_HOME"] = home
        workspace = Workspace.open()
        ours, floor = [], []
        for _ in range(args.rounds):
            ours.append(ours_s(workspace))
            floor.append(floor_s(source.path))
    figures = {
        "ours_s": statistics.median(ours),
        "floor_s": statistics.median(floor),
        "ratio": statistics.median(ours) / statistics.median(floor), "worst_s": max(ours), "goal_s": GOAL_S,
        "reached": statistics.median(ours) <= GOAL_S,
    }  # fmt: skip
    if args.json:
        print(json.dumps(figures, indent=2))
    else:
        print(f"model start tiny to first token, median of {args.rounds}:")
        print(f"  ours {figures['ours_s']:.2f} s (worst {figures['worst_s']:.2f} s), floor {figures['floor_s']:.2f} s")
        mark = "reached" if figures["reached"] else "MISSED"
        print(f"  ratio {figures['ratio']:.1f}; goal <= {GOAL_S:g} s: {mark}")
    return int(args.check and not figures["reached"])


if __name__ == "__main__":
    raise SystemExit(main())
