"""A real vLLM (its CPU build) on this computer: seconds by stage, and how soon ready is noticed.

Prints one start: what passes before vLLM's process is begun (ours), when each stage of vLLM's own was first shown, when
its server could first be asked (seen by asking it every 5 ms, on the side), and how much later `model start` returned;
its first token is in that time. `--check` ends with status 1 when a goal is missed. Needs scripts/vllm-cpu.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx2

from podlab.events import Stage
from podlab.lab import endpoints, environments, launch, pods
from podlab.lab.wish import Wish
from podlab.lab.workspace import Workspace
from podlab.types import Pod

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "tests" / "data" / "tiny"
OVERHEAD_GOAL_S, READY_GOAL_S = 1.0, 0.25
ASK_EVERY_S = 0.005


def watch_port(workspace: Workspace, pod: Pod, able: list[float], stop: threading.Event) -> None:
    """Note when the server first lists its model."""
    while not stop.is_set():
        found = [facts for facts in workspace.side(pod).list() if facts.port]
        if found:
            break
        stop.wait(0.2)
    key = workspace.endpoint_key(pod, found[0].id)
    head = {"Authorization": f"Bearer {key.reveal() if key else ''}"}
    with httpx2.Client(trust_env=False) as client:
        while not stop.wait(ASK_EVERY_S):
            try:
                if client.get(f"http://127.0.0.1:{found[0].port}/v1/models", headers=head).status_code == 200:
                    return able.append(time.perf_counter())
            except httpx2.HTTPError:
                continue


def measured(workspace: Workspace, pod: Pod, python: str) -> tuple[float, float]:
    """One start, printed; (our own seconds before vLLM's process, seconds from able to answer to noticed)."""
    wish = Wish(str(MODEL), name="tiny", engine="vllm", context=1024, env=("VLLM_CPU_KVCACHE_SPACE=0",),
                extra=("--enforce-eager", "--num-gpu-blocks-override", "64"))  # fmt: skip
    for event in environments.adopt(workspace, pod, workspace.side(pod).hello(), "vllm", python):
        print(event.text if isinstance(event, Stage) else event)
    able: list[float] = []
    stop = threading.Event()
    threading.Thread(target=watch_port, args=(workspace, pod, able, stop), daemon=True).start()
    shown: dict[str, float] = {}
    began = time.perf_counter()
    for event in launch.start(workspace, pod, wish):
        if isinstance(event, Stage):
            shown.setdefault(event.text, time.perf_counter() - began)
    ready = time.perf_counter()
    stop.set()
    for text, at_s in shown.items():
        print(f"{at_s:8.2f} s  {text}")
    print(f"{able[0] - began:8.2f} s  its server lists the model")
    print(f"{ready - began:8.2f} s  model start returned")
    own_s = next(at_s for text, at_s in shown.items() if text == "Loading tiny")
    return own_s, ready - able[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when a goal is missed")
    args = parser.parse_args()
    found = subprocess.run([ROOT / "scripts" / "vllm-cpu", "--find"], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        print("skipped: run scripts/vllm-cpu first, which says what is missing")
        return 0
    with tempfile.TemporaryDirectory(prefix="podlab-") as home:
        os.environ["PODLAB_HOME"] = home
        workspace = Workspace.open()
        try:
            own_s, noticed_s = measured(workspace, pods.find("local"), found.stdout.strip())
        finally:
            for facts in workspace.side(pods.find("local")).list():
                for _ in endpoints.stop(workspace, facts.id):
                    pass
            workspace.close()
    print(f"our own before vLLM's process {own_s:.2f} s (goal {OVERHEAD_GOAL_S:g} s)")
    print(f"from able to answer to returned {noticed_s * 1000:.0f} ms, its first token included "
          f"(goal {READY_GOAL_S * 1000:g} ms)")  # fmt: skip
    return int(args.check and (own_s > OVERHEAD_GOAL_S or noticed_s > READY_GOAL_S))


if __name__ == "__main__":
    sys.exit(main())
