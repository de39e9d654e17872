"""`pod gpu` and the GPUs of `pod show`, as a terminal gets them, on simulated cards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.nvml import Gpu, SimulatedGpus


def podlab(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from podlab.cli import main; main()", *words]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | env)


def test_every_gpu_gave_its_figures(tmp_path: Path) -> None:
    cards = SimulatedGpus(tmp_path, [Gpu(used_mib=1000), Gpu(name="NVIDIA L4", total_mib=23034)])
    done = podlab("pod", "gpu", "--json", **cards.environment())
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["pod"], document["source"], document["cuda"]) == ("local", "nvml", "12.8")
    assert [gpu["name"] for gpu in document["gpus"]] == ["NVIDIA H100 80GB HBM3", "NVIDIA L4"]
    shown = podlab("pod", "gpu", "local", **cards.environment())
    assert "L4" in shown.stdout
    assert "█░░░░░░░ 1000 MiB of 79.6 GiB" in shown.stdout


def test_a_lost_gpu_is_a_failure_that_still_shows_the_others(tmp_path: Path) -> None:
    done = podlab("pod", "gpu", **SimulatedGpus(tmp_path, [Gpu(), Gpu(lost=True)]).environment())
    assert done.returncode == 1
    assert "H100" in done.stdout
    assert "GPU 1: GPU is lost" in done.stdout


def test_a_machine_without_a_gpu_is_no_failure(tmp_path: Path) -> None:
    done = podlab("pod", "gpu", **SimulatedGpus(tmp_path, init=9).environment())
    assert done.returncode == 0
    assert done.stdout.startswith("No GPU on local: the kernel module of the NVIDIA driver is not loaded")


def test_pod_show_names_them(tmp_path: Path) -> None:
    done = podlab("pod", "show", "--json", **SimulatedGpus(tmp_path, [Gpu()]).environment())
    document = json.loads(done.stdout)
    assert [gpu["memory_total_bytes"] for gpu in document["gpus"]] == [81559 * 2**20]
    assert (document["driver"], document["cuda"]) == ("570.86.15", "12.8")
