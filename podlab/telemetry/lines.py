"""The probe's line as a PodSample. It came from a pod: kinds and sizes are checked, text is cleaned."""

from __future__ import annotations

from dataclasses import replace

from podlab.errors import SupervisorError
from podlab.types import GpuProcess, GpuSample, HostSample, PodSample
from podlab.wire import Wire

MOST_GPUS = 1024
"""More than any machine has, MIG instances included."""
MOST_PROCESSES = 4096
TEXT_CUT = 400


def sample_from(value: object, pod: str) -> PodSample:
    """One tick. `value` is a line of remote/probe.py, decoded. Raises SupervisorError naming what is wrong in it."""
    wire = Wire(value, "sample")
    host = wire.part("host") if wire.has("host") else Wire({}, "host")
    gpus = tuple(_gpu_from(gpu) for gpu in wire.parts("gpus", MOST_GPUS))
    driver, cuda, detail = _clean(wire, "driver"), _clean(wire, "cuda"), _clean(wire, "detail")
    for source in ("nvml", "nvidia-smi", "none"):
        if wire.text("source", 16) == source:
            at = wire.number("at")
            return PodSample(pod, at, source, gpus, _host_from(host), driver or None, cuda or None, detail)
    raise SupervisorError(f"The probe speaks of a source {wire.text('source', 16)!r} nobody knows.")


def _gpu_from(wire: Wire) -> GpuSample:
    """One card. Memory that no card can have is not known then, and its error says why."""
    gpu = _as_told(wire)
    if gpu.index < 0:
        raise SupervisorError(f"The probe speaks of a GPU with the number {gpu.index}.")
    sizes = {"total": gpu.memory_total_bytes, "used": gpu.memory_used_bytes, "free": gpu.memory_free_bytes}
    wrong = [f"{size} bytes {name}" for name, size in sizes.items() if size is not None and size < (name == "total")]
    if not wrong:
        return gpu
    error = "; ".join([*([gpu.error] if gpu.error else []), f"its driver tells of {' and '.join(wrong)}"])[:TEXT_CUT]
    return replace(gpu, error=error, memory_total_bytes=None, memory_used_bytes=None, memory_free_bytes=None)


def _as_told(wire: Wire) -> GpuSample:
    return GpuSample(
        index=wire.whole("index"), name=_clean(wire, "name"), uuid=_clean(wire, "uuid"), lost=wire.flag("lost"),
        error=_clean(wire, "error"),
        utilization_percent=wire.maybe("utilization_percent", wire.number),
        memory_utilization_percent=wire.maybe("memory_utilization_percent", wire.number),
        memory_total_bytes=wire.maybe("memory_total_bytes", wire.whole),
        memory_used_bytes=wire.maybe("memory_used_bytes", wire.whole),
        memory_free_bytes=wire.maybe("memory_free_bytes", wire.whole),
        temperature_celsius=wire.maybe("temperature_celsius", wire.number),
        power_w=wire.maybe("power_w", wire.number), power_limit_w=wire.maybe("power_limit_w", wire.number),
        energy_j=wire.maybe("energy_j", wire.number), sm_clock_mhz=wire.maybe("sm_clock_mhz", wire.number),
        memory_clock_mhz=wire.maybe("memory_clock_mhz", wire.number),
        fan_percent=wire.maybe("fan_percent", wire.number), ecc_errors=wire.maybe("ecc_errors", wire.whole),
        throttle_reasons=tuple(_printable(text) for text in wire.texts("throttle_reasons", 40, 40)),
        mig=wire.flag("mig"), parent=wire.maybe("parent", wire.whole),
        processes=_processes_from(wire) if wire.has("processes") else None,
    )  # fmt: skip


def _processes_from(wire: Wire) -> tuple[GpuProcess, ...]:
    return tuple(
        GpuProcess(
            each.whole("pid"), each.maybe("memory_bytes", each.whole), _clean(each, "name"), _clean(each, "owner")
        )
        for each in wire.parts("processes", MOST_PROCESSES)
    )


def _host_from(wire: Wire) -> HostSample:
    return HostSample(
        cpu_percent=wire.maybe("cpu_percent", wire.number), load_1m=wire.maybe("load_1m", wire.number),
        cpus=wire.maybe("cpus", wire.whole), memory_total_bytes=wire.maybe("memory_total_bytes", wire.whole),
        memory_available_bytes=wire.maybe("memory_available_bytes", wire.whole),
        disk_total_bytes=wire.maybe("disk_total_bytes", wire.whole),
        disk_free_bytes=wire.maybe("disk_free_bytes", wire.whole),
        received_bytes_per_s=wire.maybe("received_bytes_per_s", wire.number),
        sent_bytes_per_s=wire.maybe("sent_bytes_per_s", wire.number),
    )  # fmt: skip


def _clean(wire: Wire, key: str) -> str:
    return _printable(wire.text(key))[:TEXT_CUT] if wire.has(key) else ""


def _printable(text: str) -> str:
    """Without line ends, terminal escapes and marks that turn the direction of writing."""
    return "".join(letter for letter in text if letter.isprintable())
