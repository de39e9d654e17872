"""GPUs and their machine as blocks: what `pod gpu` shows, and the lines of `pod show` about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from podlab.display.layout import Block, Cell, Facts, Head, Line, Table
from podlab.types import GpuSample, HostSample, PodSample
from podlab.units import bytes_text, memory_text

BAR_WIDTH = 8
_WHY = {
    "application_clocks": "application clocks", "power_cap": "power cap", "hardware_slowdown": "hardware slowdown",
    "sync_boost": "sync boost", "software_thermal": "thermal", "hardware_thermal": "hardware thermal",
    "power_brake": "power brake", "display_clocks": "display clocks",
}  # fmt: skip
"""Why clocks are lowered, in words."""


def pod_sample(sample: PodSample, now: float) -> tuple[Block, ...]:
    """A table of the GPUs, what is wrong with them, and the machine."""
    facts = Facts(tuple(
        (name, cell)
        for name, cell in (
            ("pod", Cell(sample.pod)),
            ("driver", Cell(driver_text(sample.driver, sample.cuda))),
            ("machine", Cell(host_text(sample.host))),
        )
        if cell.text
    ))  # fmt: skip
    if not sample.gpus:
        why = f"No GPU on {sample.pod}" + (f": {sample.detail}" if sample.detail else ".")
        return (Line(Cell(why, "quiet" if sample.source == "none" else "bad")), facts)
    problems = [Line(Cell(f"GPU {_number(gpu)}: {gpu.error}", "bad")) for gpu in sample.gpus if gpu.error]
    slowed = ((_number(gpu), _slowed(gpu)) for gpu in sample.gpus)
    problems += [Line(Cell(f"GPU {number} is slowed: {why}", "busy")) for number, why in slowed if why]
    notes = [Line(Cell(sample.detail))] if sample.detail else []
    if sample.simulated:
        notes.append(
            Line(
                Cell(f"Simulated: the GPUs of {sample.pod} are pretended; their figures follow its processes.", "busy")
            )
        )
    return (_table(sample.gpus), *problems, *notes, facts)


def gpus_text(gpus: Sequence[GpuSample]) -> str:
    """'2 x NVIDIA L40S, 85.0 GiB of 90.0 GiB free; 1 lost': the cards of a pod in a line. Empty without any."""
    cards = [gpu for gpu in gpus if not gpu.mig]
    parts = []
    for name, count in Counter(gpu.name or "GPU" for gpu in cards).items():
        of_kind = [gpu for gpu in cards if (gpu.name or "GPU") == name]
        free = [gpu.memory_free_bytes for gpu in of_kind if gpu.memory_free_bytes is not None]
        total = [gpu.memory_total_bytes for gpu in of_kind if gpu.memory_total_bytes is not None]
        room = f", {memory_text(sum(free))} of {memory_text(sum(total))} free" if free and total else ""
        parts.append(f"{count} x {name}{room}")
    lost, cut = sum(gpu.lost for gpu in cards), sum(gpu.mig for gpu in gpus)
    parts += [f"{lost} lost"] if lost else []
    parts += [f"{cut} MIG instance{'' if cut == 1 else 's'}"] if cut else []
    return "; ".join(parts)


def driver_text(driver: str | None, cuda: str | None) -> str:
    """'570.86.15, runs CUDA up to 12.8'. Empty when there is none."""
    return ", ".join(part for part in (driver or "", f"runs CUDA up to {cuda}" if cuda else "") if part)


def host_text(host: HostSample) -> str:
    """'CPU 12% of 64, load 3.1, 384 GiB of 469 GiB memory free, 1.2 TB of 2.0 TB disk free': what is known of it."""
    parts = []
    if host.cpu_percent is not None:
        parts.append(f"CPU {host.cpu_percent:.0f}%" + (f" of {host.cpus}" if host.cpus else ""))
    elif host.cpus:
        parts.append(f"{host.cpus} CPUs")
    if host.load_1m is not None:
        parts.append(f"load {host.load_1m:.1f}")
    for what, size, free, total in (
        ("memory", memory_text, host.memory_available_bytes, host.memory_total_bytes),
        ("disk", bytes_text, host.disk_free_bytes, host.disk_total_bytes),
    ):
        if free is not None and total is not None:
            parts.append(f"{size(free)} of {size(total)} {what} free")
    if host.received_bytes_per_s is not None and host.sent_bytes_per_s is not None:
        rates = (bytes_text(round(rate)) for rate in (host.received_bytes_per_s, host.sent_bytes_per_s))
        parts.append("network {}/s in, {}/s out".format(*rates))
    return ", ".join(parts)


def bar(part: float, whole: float) -> str:
    """A share as blocks: '███░░░░░'. Never looks empty or full when it is not."""
    filled = round(BAR_WIDTH * part / whole) if whole > 0 else 0
    if 0 < part < whole:
        filled = min(BAR_WIDTH - 1, max(1, filled))
    filled = min(BAR_WIDTH, max(0, filled))
    return "█" * filled + "░" * (BAR_WIDTH - filled)


def _table(gpus: Sequence[GpuSample]) -> Table:
    heads = (
        Head("GPU"), Head("name", spare=1), Head("state"), Head("use", numeric=True), Head("memory"),
        Head("temp", numeric=True, spare=3), Head("power", numeric=True, spare=2), Head("processes", note=True),
    )  # fmt: skip
    rows = tuple(
        (
            Cell(_number(gpu)), Cell(gpu.name.removeprefix("NVIDIA ") or "-", hover=gpu.uuid), _state(gpu),
            Cell("-" if gpu.utilization_percent is None else f"{gpu.utilization_percent:.0f}%"), _memory(gpu),
            Cell("-" if gpu.temperature_celsius is None else f"{gpu.temperature_celsius:.0f} °C"), _power(gpu),
            _processes(gpu),
        )
        for gpu in gpus
    )  # fmt: skip
    return Table(heads, rows)


def _number(gpu: GpuSample) -> str:
    return str(gpu.index) if gpu.parent is None else f"{gpu.parent}:{gpu.index}"


def _state(gpu: GpuSample) -> Cell:
    if gpu.lost:
        return Cell("lost", "bad")
    if gpu.error:
        return Cell("no figures" if gpu.memory_total_bytes is None else "some figures", "bad")
    if why := _slowed(gpu):
        return Cell("slowed", "busy", hover=why)
    return Cell("ok", "good")


def _slowed(gpu: GpuSample) -> str:
    """Why its clocks are lowered; "" where they are not, or a worse thing is said of it."""
    if gpu.lost or gpu.error:
        return ""
    return ", ".join(_WHY.get(reason, reason) for reason in gpu.throttle_reasons)


def _memory(gpu: GpuSample) -> Cell:
    used, total = gpu.memory_used_bytes, gpu.memory_total_bytes
    if used is None or total is None:
        return Cell("-")
    return Cell(f"{bar(used, total)} {memory_text(used)} of {memory_text(total)}", hover=f"{used} of {total} bytes")


def _power(gpu: GpuSample) -> Cell:
    if gpu.power_w is None:
        return Cell("-")
    return Cell(f"{gpu.power_w:.0f}" + (f" of {gpu.power_limit_w:.0f} W" if gpu.power_limit_w is not None else " W"))


def _processes(gpu: GpuSample) -> Cell:
    """Whose they are where we know it, the biggest first; empty without any."""
    if gpu.processes is None:
        return Cell("" if gpu.error else "its processes are not told")
    shown = []
    for process in sorted(gpu.processes, key=lambda process: -(process.memory_bytes or 0)):
        held = "" if process.memory_bytes is None else f" {memory_text(process.memory_bytes)}"
        who = process.owner or process.name
        shown.append(f"{who} (pid {process.pid}){held}" if who else f"pid {process.pid}{held}")
    return Cell("; ".join(shown))
