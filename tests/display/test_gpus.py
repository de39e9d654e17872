"""GPUs as a table and as a line: every state has its word, and nothing is said that was not read."""

from __future__ import annotations

import pytest

from podlab.commands.results import PodDetail
from podlab.display.gpus import BAR_WIDTH, bar, gpus_text
from podlab.display.html import html
from podlab.display.text import text
from podlab.types import GpuProcess, GpuSample, HostSample, Pod, PodSample, PodState, PodStatus

NOW = 1_763_690_100.0
GB, GIB = 10**9, 2**30
BUSY = GpuSample(
    0, "NVIDIA L40S", "GPU-a", utilization_percent=97, memory_total_bytes=48 * GIB, memory_used_bytes=36 * GIB,
    memory_free_bytes=12 * GIB, temperature_celsius=71, power_w=312.4, power_limit_w=350,
    throttle_reasons=("power_cap",),
    processes=(GpuProcess(7, None, "Xorg"), GpuProcess(8, 35 * GIB, "VLLM::EngineCore", "llama"), GpuProcess(9)),
)  # fmt: skip
SLICE = GpuSample(0, "MIG 1g.10gb", mig=True, parent=1, memory_total_bytes=10 * GIB, memory_used_bytes=0)


def test_a_table_of_gpus() -> None:
    lost = GpuSample(1, "NVIDIA L40S", lost=True, error="GPU is lost")
    plain = GpuSample(2, "NVIDIA L4", memory_total_bytes=24 * GIB, memory_used_bytes=0, processes=())
    host = HostSample(12.4, 3.14, 64, 504 * GIB, 412 * GIB, 2000 * GB, 1200 * GB, 1500.0, 20.0)
    shown = text(PodSample("lab", NOW, "nvml", (BUSY, lost, plain, SLICE), host, "570.86.15", "12.8"), now=NOW)
    rows, problem, slowed, facts = shown.split("\n\n")
    table = [line.split("  ") for line in rows.splitlines()]
    assert [[word.strip() for word in line if word.strip()] for line in table] == [
        ["GPU", "name", "state", "use", "memory", "temp", "power", "processes"],
        ["0", "L40S", "slowed", "97%", "██████░░ 36.0 GiB of 48.0 GiB", "71 °C", "312 of 350 W",
         "llama (pid 8) 35.0 GiB; Xorg (pid 7); pid 9"],
        ["1", "L40S", "lost", "-", "-", "-", "-"],
        ["2", "L4", "ok", "-", "░░░░░░░░ 0 B of 24.0 GiB", "-", "-"],
        ["1:0", "MIG 1g.10gb", "ok", "-", "░░░░░░░░ 0 B of 10.0 GiB", "-", "-",
         "its processes are not told"],
    ]  # fmt: skip
    assert problem == "GPU 1: GPU is lost"
    assert slowed == "GPU 0 is slowed: power cap"
    machine = "CPU 12% of 64, load 3.1, 412 GiB of 504 GiB memory free, 1.2 TB of 2.0 TB disk free"
    assert [line.split(None, 1) for line in facts.splitlines()] == [
        ["pod", "lab"],
        ["driver", "570.86.15, runs CUDA up to 12.8"],
        ["machine", machine + ", network 1.5 kB/s in, 20 B/s out"],
    ]


def test_no_gpu_is_said_in_words() -> None:
    shown = text(PodSample("lab", NOW, "none", detail="the driver is not loaded"), now=NOW)
    assert shown.splitlines()[0] == "No GPU on lab: the driver is not loaded"
    assert text(PodSample("lab", NOW, "nvml"), now=NOW).startswith("No GPU on lab.")


def test_a_page_says_the_states_in_words_too() -> None:
    shown = html(PodSample("lab", NOW, "nvml", (BUSY,)), now=NOW)
    assert "GPU 0 is slowed: power cap" in shown
    assert "as of 2025-11-21" in shown


@pytest.mark.parametrize(
    "part,whole,filled", [(0, 10, 0), (10, 10, 8), (5, 10, 4), (0.001, 10, 1), (9.999, 10, 7), (20, 10, 8), (1, 0, 0)]
)
def test_a_bar_never_looks_empty_or_full_when_it_is_not(part: float, whole: float, filled: int) -> None:
    assert bar(part, whole) == "█" * filled + "░" * (BAR_WIDTH - filled)


def test_the_gpus_of_a_pod_in_a_line() -> None:
    assert gpus_text(()) == ""
    assert gpus_text((BUSY, BUSY, GpuSample(2, lost=True), SLICE)) == (
        "2 x NVIDIA L40S, 24.0 GiB of 96.0 GiB free; 1 x GPU; 1 lost; 1 MIG instance"
    )


def test_a_pod_shows_its_gpus() -> None:
    status = PodStatus(Pod("lab", "1", "local"), PodState.REACHABLE, NOW)
    assert "GPUs       none" in text(PodDetail(status, gpus=()), now=NOW)
    assert "GPU" not in text(PodDetail(status), now=NOW)
    shown = text(PodDetail(status, gpus=(BUSY,), driver="570.86", cuda="12.8"), now=NOW)
    assert "1 x NVIDIA L40S, 12.0 GiB of 48.0 GiB free" in shown
    assert "570.86, runs CUDA up to 12.8" in shown
