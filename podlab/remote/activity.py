"""What a pod is doing, so that idle means something: tokens, commands, shells, downloads, GPUs. Part of the watchdog.

Standard library only, Python 3.8 or newer. `look` and `gpu_use` collect figures in children that may be killed; `Judge`
compares them with those before and names what is busy:

    tokens    an engine's counters of tokens grew, or it has requests under way or waiting
    engine    one without such counters used a CPU, or the same connection to it was there twice
    loading   an endpoint that is not ready yet
    command   a job of podlab; what was begun over SSH by anybody else, and used a CPU
    download  a job or an endpoint that fetches or installs; a program that copies files moved some, or one that was
              begun over SSH wrote some
    shell     a terminal on which something was typed or printed of late
    gpu       a card's use is above a limit; a card that does not tell it is not busy
    unknown   it could not be looked

An open connection over SSH, a panel that reads GPUs and the switch's own heartbeats are nothing of the kind.
"""

from __future__ import annotations

import os
import re
import time

from podlab.remote.machine import MARK, MARK_HOME, http_ask, is_ours, listeners
from podlab.remote.nvidia_smi import NvidiaSmi
from podlab.remote.nvidia_smi import find as find_nvidia_smi
from podlab.remote.nvml import DIRECTORIES
from podlab.remote.records import find_folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from podlab.remote.machine import Json
    from podlab.remote.records import Folder

COUNTERS = re.compile(
    rb"(?m)^(?:vllm:(?:prompt|generation)_tokens_total|llamacpp:(?:prompt_tokens|tokens_predicted)_total"
    rb"|sglang:(?:prompt|generation)_tokens_total|tgi_request_(?:input_length|generated_tokens)_sum)"
    rb"(?:\{[^\n]*\})?[ \t]+([0-9.eE+]{1,30})"
)
"""The same names as in engines/metrics.py, which runs where podlab does."""
UNDER_WAY = re.compile(
    rb"(?m)^(?:vllm:num_requests_(?:running|waiting)|llamacpp:requests_(?:processing|deferred)"
    rb"|sglang:num_(?:running|queue)_reqs|tgi_batch_current_size|tgi_queue_size)(?:\{[^\n]*\})?[ \t]+([0-9.eE+]{1,30})"
)
METRICS_S = 5.0
COPIERS = frozenset(
    {"dd", "cat", "tail", "head", "tar", "scp", "sftp-server", "rsync", "curl", "wget", "aria2c", "git"}
)
"""What moves files between a pod and elsewhere, podlab's own push and pull among them."""
COPIED_BYTES = 2**20
CPU_SHARE = 0.2
BEGUN_OVER_SSH = "SSH_CONNECTION"
"""What sshd puts into the environment of all it starts; it stays there where a program outlives its session."""
LOADING_S = 2 * 3600.0
"""After so long an endpoint that never got ready is stuck, not busy."""
PTS_MAJOR = 136
GPU_READS, GPU_PAUSE_S = 3, 0.3


class Row:
    """One process, as far as it matters here."""

    __slots__ = ("by_ssh", "comm", "cpu_s", "endpoint", "home", "pid", "start", "tty")

    def __init__(self, pid: int, stat: bytes, environ: bytes) -> None:
        name, _, rest = stat.partition(b"(")[2].rpartition(b")")
        fields = rest.split()
        ticks = os.sysconf("SC_CLK_TCK")
        self.pid, self.comm, self.start = pid, name.decode("utf-8", "replace"), fields[19].decode()
        self.cpu_s = (int(fields[11]) + int(fields[12])) / ticks
        device = int(fields[4])
        self.tty = device & 0xFF | device >> 12 & 0xFFF00 if device >> 8 & 0xFFF == PTS_MAJOR else None
        self.endpoint, self.home = variable(environ, MARK), variable(environ, MARK_HOME)
        self.by_ssh = bool(variable(environ, BEGUN_OVER_SSH)) and not self.endpoint


def variable(environ: bytes, name: str) -> str:
    """The value of a variable in a process's environment, "" when it has none."""
    _, found, rest = (b"\0" + environ).partition(f"\0{name}=".encode())
    return rest.partition(b"\0")[0].decode("utf-8", "replace") if found else ""


def rows(only: bytes) -> Iterator[Row]:
    """All processes but zombies; with `only` those whose environment holds it, where a machine holds several pods."""
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                stat = file.read()
            with open(f"/proc/{name}/environ", "rb") as file:
                environ = file.read(2**20)
        except OSError:
            continue  # it has ended, or is another user's
        if only and only not in b"\0" + environ:
            continue
        if stat.rpartition(b")")[2].split()[:1] not in ([b"Z"], [b"X"]):
            yield Row(int(name), stat, environ)


def look(only: bytes, now: float) -> Json:
    """The figures of `now`, by the switch's clock: commands, downloads, loading, engines, terminals, copied, and the
    CPU seconds of what was begun over SSH."""
    found: Json = {"commands": [], "downloads": [], "loading": [], "engines": {}, "terminals": {}, "copied": {},
                   "by_ssh": {}}  # fmt: skip
    marked: dict[tuple[str, str], list[Row]] = {}
    for row in rows(only):
        if row.endpoint and os.path.isabs(row.home):
            marked.setdefault((row.home, row.endpoint), []).append(row)
        if row.tty is not None:
            add_terminal(row.tty, found["terminals"])
        if row.comm in COPIERS or row.by_ssh:
            add_copied(row, found["copied"])
        if row.by_ssh:
            found["by_ssh"][f"{row.pid}.{row.start}"] = row.cpu_s
    for (home, mark), members in marked.items():
        try:
            folder = find_folder(home, mark)
            if folder is not None and not folder.damaged and folder.alive():
                add_endpoint(folder, members, now, found)
        except Exception:  # noqa: BLE001 - a record that makes no sense must not hide what the others do
            continue
    return found


def add_terminal(number: int, found: Json) -> None:
    """A terminal that somebody's program has, and when something last happened on it."""
    try:
        facts = os.stat(f"/dev/pts/{number}")
    except OSError:
        return  # of another container's, or just closed
    found[str(number)] = [facts.st_atime, facts.st_mtime]


def add_copied(row: Row, found: Json) -> None:
    """How much a program that copies files has moved, or another one has written: any program reads a lot to begin."""
    moves = rb"(?m)^[rw]char: (\d+)" if row.comm in COPIERS else rb"(?m)^wchar: (\d+)"
    try:
        with open(f"/proc/{row.pid}/io", "rb") as file:
            moved = [int(value) for value in re.findall(moves, file.read())]
    except OSError:
        return
    found[f"{row.pid}.{row.start}"] = sum(moved)


def add_endpoint(folder: Folder, members: list[Row], now: float, found: Json) -> None:
    """An endpoint or job that lives."""
    step = str(folder.run.get("step") or "")
    if step in ("prepare", "download"):
        found["downloads"].append(folder.id)
    elif folder.kind == "job":
        found["commands"].append(folder.id)
    elif folder.ready is None:
        began = min(int(row.start) for row in members) / os.sysconf("SC_CLK_TCK")
        if now - began < LOADING_S:
            found["loading"].append(folder.id)
    else:
        found["engines"][f"{folder.id}.{folder.run.get('start')}"] = engine(folder, members)


def engine(folder: Folder, members: list[Row]) -> Json:
    """What an engine that serves has done: its own counters, else its CPU and its connections."""
    port = folder.run.get("port")
    facts: Json = {"tokens": None, "under_way": 0.0, "connections": [],
                   "cpu": {f"{row.pid}.{row.start}": row.cpu_s for row in members}}  # fmt: skip
    if not isinstance(port, int) or isinstance(port, bool):
        return facts
    if is_ours(listeners(port), [row.pid for row in members]) is not False:  # a stranger must not be shown the key
        try:
            status, page = http_ask(port, "/metrics", folder.key(), deadline_s=METRICS_S)
        except (OSError, ValueError):
            status, page = 0, b""
        counted = sum_of(COUNTERS, page) if status == 200 else None
        facts.update(tokens=counted, under_way=sum_of(UNDER_WAY, page) or 0.0 if status == 200 else 0.0)
    if facts["tokens"] is None:
        facts["connections"] = connections_to(port)
    return facts


def sum_of(names: re.Pattern[bytes], page: bytes) -> float | None:
    """The sum of these figures on a page, None when it has none of them."""
    values = []
    for text in names.findall(page):
        try:
            values.append(float(text))
        except ValueError:
            continue
    return sum(values) if values else None


def connections_to(port: int) -> list[str]:
    """Who is connected to a port of this machine, as hexadecimal address:port."""
    found = []
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(path, "rb") as file:
                lines = file.read(2**24).decode("ascii", "replace").splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            if len(fields) > 3 and fields[3] == "01" and int(fields[1].rpartition(":")[2], 16) == port:
                found.append(fields[2])
    return found


# ------------------------------------------------------------------------------------------------ GPUs


def gpu_use() -> Json:
    """{"percent": [...]} of every card now; a card that does not tell is left out."""
    use = by_nvml()
    if use is None:
        return {"percent": by_program()}
    for _ in range(GPU_READS - 1):
        time.sleep(GPU_PAUSE_S)
        again = by_nvml() or []
        use = [max(pair) for pair in zip(use, again)] if len(again) == len(use) else use
    return {"percent": use}


def by_nvml() -> list[float] | None:
    """By NVIDIA's library (nvml.h), None where it cannot be loaded or begun."""
    try:
        import ctypes
    except ImportError:
        return None
    library = None
    for folder in ("", *DIRECTORIES):
        try:
            library = ctypes.CDLL(os.path.join(folder, "libnvidia-ml.so.1"))
            break
        except OSError:
            continue
    if library is None or library.nvmlInit_v2() != 0:
        return None

    class Use(ctypes.Structure):
        _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))

    count, found = ctypes.c_uint(), []
    if library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
        return None
    for index in range(min(count.value, 64)):
        handle, use = ctypes.c_void_p(), Use()
        if library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)) == 0:
            if library.nvmlDeviceGetUtilizationRates(handle, ctypes.byref(use)) == 0:
                found.append(float(use.gpu))
    return found


def by_program() -> list[float]:
    """By nvidia-smi, [] where there is none."""
    path = find_nvidia_smi()
    if path is None:
        return []
    lines = NvidiaSmi(path).run("--query-gpu=utilization.gpu", "--format=csv,noheader,nounits").splitlines()
    return [float(line) for line in lines if re.fullmatch(r" *\d{1,3} *", line)]


# ------------------------------------------------------------------------------------------------ judging


class Judge:
    """Compares what was seen with what was seen before."""

    def __init__(self, gpu_percent: float, quiet_s: float) -> None:
        """`quiet_s`: for how long a terminal on which nothing happens still counts as a shell in use."""
        self._gpu_percent, self._quiet_s = gpu_percent, quiet_s
        self._before: Json = {}
        self._before_at = 0.0
        self._terminals: dict[str, tuple[object, float]] = {}
        self._cards: list[float] = []

    def gpus(self, seen: Json) -> None:
        """What the cards said; what failed says nothing."""
        self._cards = list(seen.get("percent") or ())

    def busy(self, seen: Json, now: float) -> list[str]:
        """What keeps the pod from being idle."""
        if "failed" in seen:
            return ["unknown"]
        before, passed_s = self._before, now - self._before_at
        words = {
            "command": bool(seen["commands"]),
            "download": bool(seen["downloads"]),
            "loading": bool(seen["loading"]),
        }
        words["gpu"] = any(percent >= self._gpu_percent for percent in self._cards)
        words["shell"] = self._shell(seen["terminals"], now)
        for name, facts in seen["engines"].items():
            word = engine_word(facts, before.get("engines", {}).get(name), passed_s)
            words[word] = True
        grown = grown_by(seen["copied"], before.get("copied", {})) if before else 0
        words["download"] = words["download"] or grown >= COPIED_BYTES
        if before and passed_s > 0:
            worked_s = grown_by(seen["by_ssh"], before.get("by_ssh", {}))
            words["command"] = words["command"] or worked_s / passed_s >= CPU_SHARE
        self._before, self._before_at = seen, now
        return sorted(word for word, busy in words.items() if busy and word)

    def _shell(self, terminals: Json, now: float) -> bool:
        """Whether one was used of late. Its times are only compared with each other, for the time of day may jump."""
        self._terminals = {
            name: self._terminals[name] if self._terminals.get(name, (None,))[0] == stamps else (stamps, now)
            for name, stamps in terminals.items()
        }
        return any(now - changed_at < self._quiet_s for _, changed_at in self._terminals.values())


def engine_word(facts: Json, before: Json | None, passed_s: float) -> str:
    """How an engine is busy, "" when it is not."""
    if facts["under_way"] > 0:
        return "tokens"
    if facts["tokens"] is not None:
        # Fewer than before: it counts from its start anew, and has begun again.
        return "tokens" if before and before["tokens"] is not None and facts["tokens"] != before["tokens"] else ""
    if before is None or passed_s <= 0:
        return ""
    worked = grown_by(facts["cpu"], before["cpu"]) / passed_s >= CPU_SHARE
    return "engine" if worked or set(facts["connections"]) & set(before["connections"]) else ""


def grown_by(now: Json, before: Json) -> float:
    """By how much figures grew together; a new one counts whole."""
    return float(sum(max(0, value - before.get(name, 0)) for name, value in now.items()))
