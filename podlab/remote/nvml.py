"""GPUs as NVIDIA's management library sees them, through pynvml's functions. Part of the probe; writes nothing.

Standard library only, Python 3.8 or newer: pynvml is handed in as a module. Each card is read by a thread of its own,
so everything here may block for as long as the driver likes. Not asked for: PCIe throughput, which blocks 20 ms a call.
"""

from __future__ import annotations

import os

from podlab.remote.machine import MARK, first_line, one_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from podlab.remote.machine import Json

DIRECTORIES = ("/usr/local/nvidia/lib64", "/usr/lib/wsl/lib", "/run/nvidia/driver/usr/lib/x86_64-linux-gnu",
               "/run/opengl-driver/lib", "/opt/bin/.nvidia/lib64")  # fmt: skip
"""Where containers and WSL mount the library and name the place in a variable that a session over SSH does not get."""
ANCESTORS = 32
"""How far up a process's parents we look for who it belongs to."""
LONGEST_ID = 64
REASONS = {
    0x2: "application_clocks", 0x4: "power_cap", 0x8: "hardware_slowdown", 0x10: "sync_boost",
    0x20: "software_thermal", 0x40: "hardware_thermal", 0x80: "power_brake", 0x100: "display_clocks",
}  # fmt: skip
"""Bits of nvmlDeviceGetCurrentClocksEventReasons (nvml.h) but for 0x1, a GPU that idles."""


def load_library() -> str:
    """Load libnvidia-ml.so.1 into this process; "" when it is there, else why not.

    pynvml asks for it by this name, and the loader then gives it what is loaded already, wherever it came from.
    """
    try:
        import ctypes
    except ImportError as error:  # a Python that was built without it
        return f"this Python cannot load libraries ({error})"
    why = ""
    for folder in ("", *DIRECTORIES):
        try:
            ctypes.CDLL(os.path.join(folder, "libnvidia-ml.so.1"))
            return ""
        except OSError as error:
            if folder == "" or os.path.exists(os.path.join(folder, "libnvidia-ml.so.1")):
                why = why or str(error)
    return why


class Nvml:
    """The library, initialised once. Raises pynvml.NVMLError when the driver does not let it be."""

    def __init__(self, pynvml: Any) -> None:
        self.api = pynvml
        pynvml.nvmlInit()
        self.driver: str | None = self._maybe(pynvml.nvmlSystemGetDriverVersion)
        level = self._maybe(pynvml.nvmlSystemGetCudaDriverVersion)
        self.cuda = None if level is None else f"{level // 1000}.{level % 1000 // 10}"
        self.cards = [Card(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]

    def _maybe(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except self.api.NVMLError:
            return None


class Card:
    """One card. What never changes is asked once; a handle is kept until the driver loses the card."""

    def __init__(self, pynvml: Any, index: int) -> None:
        self.api = pynvml
        self.index = index
        self.name = self.uuid = ""
        self._handle: Any = None
        # Lost: fell off the bus. Reset required: as good as lost until somebody resets it.
        self._gone = (pynvml.NVMLError_GpuIsLost, pynvml.NVMLError_ResetRequired)
        self._ordinary = (
            pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound, pynvml.NVMLError_NoPermission,
            pynvml.NVMLError_NotFound, pynvml.NVMLError_ArgumentVersionMismatch,
        )  # fmt: skip

    def read(self) -> list[Json]:
        """This card, and behind it each MIG instance it is cut into. A lost one is looked for anew the next time."""
        api = self.api
        try:
            if self._handle is None:
                handle = api.nvmlDeviceGetHandleByIndex(self.index)
                self.name, self.uuid = api.nvmlDeviceGetName(handle), api.nvmlDeviceGetUUID(handle)
                self._handle = handle
            return [self._figures(self._handle), *self._instances(self._handle)]
        except self._gone as error:
            self._handle = None
            return [dict(self.silent(str(error)), lost=True)]
        except api.NVMLError as error:
            self._handle = None
            return [self.silent(str(error))]

    def silent(self, why: str) -> Json:
        """This card without figures."""
        return {"index": self.index, "name": self.name, "uuid": self.uuid, "error": why[:400]}

    def _figures(self, handle: Any) -> Json:
        api, errors = self.api, []  # type: Any, list[str]

        def ask(call: str, *given: Any, scale: float = 1) -> Any:
            try:
                value = getattr(api, call)(handle, *given)
            except self._gone:
                raise
            except self._ordinary:
                return None
            except api.NVMLError as error:
                errors.append(f"{call}: {error}")
                return None
            return value if scale == 1 else round(value / scale, 3)

        use, memory = ask("nvmlDeviceGetUtilizationRates"), self._memory(ask)
        return {
            "index": self.index, "name": self.name, "uuid": self.uuid,
            "utilization_percent": use and use.gpu, "memory_utilization_percent": use and use.memory,
            "memory_total_bytes": memory and memory.total, "memory_used_bytes": memory and memory.used,
            "memory_free_bytes": memory and memory.free,
            "temperature_celsius": ask("nvmlDeviceGetTemperature", api.NVML_TEMPERATURE_GPU),
            "power_w": ask("nvmlDeviceGetPowerUsage", scale=1000),
            "power_limit_w": ask("nvmlDeviceGetEnforcedPowerLimit", scale=1000),
            "energy_j": ask("nvmlDeviceGetTotalEnergyConsumption", scale=1000),
            "sm_clock_mhz": ask("nvmlDeviceGetClockInfo", api.NVML_CLOCK_SM),
            "memory_clock_mhz": ask("nvmlDeviceGetClockInfo", api.NVML_CLOCK_MEM),
            "fan_percent": ask("nvmlDeviceGetFanSpeed"),
            "ecc_errors": ask(
                "nvmlDeviceGetTotalEccErrors", api.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, api.NVML_VOLATILE_ECC
            ),
            "throttle_reasons": reasons(ask("nvmlDeviceGetCurrentClocksThrottleReasons")),
            "processes": processes(
                ask("nvmlDeviceGetComputeRunningProcesses"), ask("nvmlDeviceGetGraphicsRunningProcesses")
            ),
            "error": errors[0] if errors else None,
        }  # fmt: skip

    def _memory(self, ask: Callable[..., Any]) -> Any:
        """The second version keeps what the driver reserves for itself out of what is used; old drivers lack it."""
        return ask("nvmlDeviceGetMemoryInfo", self.api.nvmlMemory_v2) or ask("nvmlDeviceGetMemoryInfo")

    def _instances(self, handle: Any) -> list[Json]:
        api = self.api
        try:
            if not api.nvmlDeviceGetMigMode(handle)[0]:
                return []
            places = api.nvmlDeviceGetMaxMigDeviceCount(handle)
        except self._ordinary:
            return []
        found = []
        for place in range(places):
            try:
                instance = api.nvmlDeviceGetMigDeviceHandleByIndex(handle, place)
                named = {"name": api.nvmlDeviceGetName(instance), "uuid": api.nvmlDeviceGetUUID(instance)}
            except self._ordinary:
                continue  # a place that no instance takes
            found.append(dict(self._figures(instance), index=place, mig=True, parent=self.index, **named))
        return found


def reasons(bits: int | None) -> list[str]:
    """Why the clocks are lower than they could be."""
    return [name for bit, name in REASONS.items() if bits and bits & bit]


def processes(*lists: Any) -> list[Json] | None:
    """Who holds memory of it; None when the driver does not say."""
    if all(each is None for each in lists):
        return None
    found: dict[int, Json] = {}
    for process in (process for each in lists for process in each or ()):
        found[process.pid] = {
            "pid": process.pid, "memory_bytes": process.usedGpuMemory,
            "name": first_line(f"/proc/{process.pid}/comm"), "owner": owner(process.pid),
        }  # fmt: skip
    return list(found.values())


def owner(pid: int) -> str:
    """The id of the endpoint or job of ours that a process belongs to, "" when it is none of ours.

    By the mark in its environment or in that of one of its parents: a worker that renames itself overwrites its own.
    """
    mark = f"\0{MARK}=".encode()
    for _ in range(ANCESTORS):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                _, found, value = (b"\0" + file.read()).partition(mark)
        except OSError:
            return ""  # somebody else's, or gone, or of a machine whose processes this container does not see
        if found:
            return value.partition(b"\0")[0][:LONGEST_ID].decode("ascii", "replace")
        process = one_process(pid)
        if process is None or process.ppid <= 1:
            return ""
        pid = process.ppid
    return ""
