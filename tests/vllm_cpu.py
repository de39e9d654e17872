"""vLLM's CPU build, a real vLLM that needs no GPU: where its environment is, if scripts/vllm-cpu could make it."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "tests" / "data" / "tiny"
WHY_SKIPPED = "no environment with vLLM's CPU build: run scripts/vllm-cpu, which says what is missing"


def _python() -> str | None:
    found = subprocess.run([ROOT / "scripts" / "vllm-cpu", "--find"], capture_output=True, text=True)
    return found.stdout.strip() if found.returncode == 0 else None


PYTHON = _python()  # at import: tests get another HOME
ENV = ("VLLM_CPU_KVCACHE_SPACE=0",)
SMALL = ("--enforce-eager", "--num-gpu-blocks-override", "64", "--max-num-seqs", "8")
"""Flags that make it start sooner and take little memory."""
