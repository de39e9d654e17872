"""What this pod has and can reach, measured before anything is installed on it; and a place for models made ready.

Standard library only, Python 3.8 or newer. Sent to the pod's Python on standard input, followed by one line with the
request. {"v": 1, "op": "look", ...} answers with one line of raw facts, which the client judges, and writes nothing.
{"v": 1, "op": "place", "path": ...} makes the folder for models if it is missing and sees whether it can be written,
{"v": 1, "op": "where", "path": ...} only looks at one.
{"v": 1, "op": "plan", "words": [...]} tells the commands that setup.py would run with those words, without running any.
Every answer is {"v": 1, ...}; while it measures, {"v": 1, "beat": time} comes every few seconds.

Nothing needs root, and nothing asks for it: whether sudo might work is told from the groups of the user.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import socket
import sys
import threading
import time

from podlab.remote.host import memory_bytes
from podlab.remote.package_index import (
    JSON_OR_HTML,
    PAGE_LIMIT_BYTES,
    hide_login,
    index_address,
    index_files,
    opened,
)
from podlab.remote.pythons import has_pip, pythons, uv_there, version_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from podlab.remote.machine import Json

PROTOCOL = 1
BEAT_S = 2.5
LOOK_S = 15.0
"""What has not been measured by then is told as not answered."""
REACH_S = 6.0
MEASURE_BYTES, MEASURE_S = 4 * 2**20, 4.0
"""How much is fetched to measure the line, and for how long at most."""
PIECE_BYTES = 2**16
PORTS = range(20000, 32000)
"""Where the supervisor puts endpoints; see machine.choose_port."""
PORT_TRIES = 32
FLAGS = ("avx", "avx2", "avx512f", "bmi2", "f16c", "fma", "sse4_2")
ADMINISTRATORS = ("sudo", "wheel", "admin")
HUB = "https://huggingface.co"


def emit(**fields: object) -> None:
    """Send one line."""
    sys.stdout.write(json.dumps({"v": PROTOCOL, **fields}) + "\n")
    sys.stdout.flush()


# ------------------------------------------------------------------------------------------------ the machine


def system() -> Json:
    """Its system, its C library, its processor and its memory."""
    total, available = memory_bytes()
    shared = disk_of("/dev/shm") if os.path.isdir("/dev/shm") else {}
    return {
        "system": distribution(), "glibc": libc(), "cpu_flags": cpu_flags(), "uid": os.getuid(),
        "memory_total_bytes": total, "memory_available_bytes": available,
        "shared_memory_bytes": shared.get("total_bytes"), "administrator": administrator(),
    }  # fmt: skip


def distribution() -> str:
    """'Debian GNU/Linux 12 (bookworm)', or what uname says."""
    try:
        with open("/etc/os-release", encoding="utf-8") as file:
            found = re.search(r'(?m)^PRETTY_NAME="?([^"\n]{1,100})', file.read())
    except OSError:
        found = None
    return found.group(1) if found else f"{platform.system()} {platform.release()}"[:100]


def libc() -> str:
    """The version of glibc, "" where there is another C library or none can be told."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (AttributeError, OSError, ValueError):
        return ""
    return version if name == "glibc" else ""


def cpu_flags() -> list[str] | None:
    """Those of FLAGS that the processor has; None where that cannot be read or is called otherwise (aarch64)."""
    if platform.machine() != "x86_64":
        return None
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            line = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return None
    there = set(line.partition(":")[2].split())
    return [flag for flag in FLAGS if flag in there] if there else None


def administrator() -> str:
    """ "root", "perhaps" (sudo is there, and the user is in a group that may use it) or "no". Nothing is tried."""
    if os.getuid() == 0:
        return "root"
    if shutil.which("sudo") is None:
        return "no"
    import grp

    for number in os.getgroups():
        try:
            if grp.getgrgid(number).gr_name in ADMINISTRATORS:
                return "perhaps"
        except KeyError:
            continue
    return "no"


def found_pythons(least: tuple[int, int], most: tuple[int, int], home: str) -> Json:
    """The Pythons an engine could use, the one that would be taken first, and whether uv is here to bring one."""
    fitting = pythons(least, most)
    rows = [{"path": path, "version": list(version_of(path)), "pip": has_pip(path)} for path in fitting[:8]]
    rows.sort(key=lambda row: not row["pip"])  # stable: setup.py takes the first one with pip
    return {"pythons": rows, "uv": uv_there(home)}


def free_ports() -> int:
    """Of PORT_TRIES ports on 127.0.0.1 that endpoints may be given, how many can be bound."""
    import random

    free = 0
    for port in random.sample(PORTS, PORT_TRIES):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                free += 1
            except OSError:
                pass
    return free


# ------------------------------------------------------------------------------------------------ places


def disk_of(path: str) -> Json:
    """The disk below a folder that is there."""
    disk = os.statvfs(path)
    return {"free_bytes": disk.f_bavail * disk.f_frsize, "total_bytes": disk.f_blocks * disk.f_frsize}


def place_of(path: str) -> Json:
    """A folder that may not be there yet: its disk, whether it can be made and written, whether something is mounted
    on it."""
    path = os.path.expanduser(path)
    existing = path
    while not os.path.isdir(existing) and existing not in ("/", ""):
        existing = os.path.dirname(existing)
    existing = existing or "/"
    return {
        "path": path, "there": os.path.isdir(path), "existing": existing, "mounted": is_mounted(path),
        "writable": os.access(existing, os.W_OK | os.X_OK), **disk_of(existing),
    }  # fmt: skip


def is_mounted(path: str) -> bool:
    """Whether something is mounted on a folder, a bind mount of the same disk included, which ismount does not see."""
    real = os.path.realpath(path)
    if os.path.isdir(real) and os.path.ismount(real):
        return True
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            return any(unescaped(line.split(" ")[4]) == real for line in file)
    except (OSError, IndexError):
        return False


def unescaped(text: str) -> str:
    r"""A path as /proc writes it, with \040 for a space."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), text)


def make_place(path: str) -> Json:
    """The folder for models, made if missing, and whether a file can be written there."""
    path = os.path.expanduser(path)
    try:
        os.makedirs(path, exist_ok=True)
        trial = os.path.join(path, f".podlab-{os.getpid()}.part")
        with open(trial, "wb") as file:
            file.write(b"podlab")
        os.unlink(trial)
    except OSError as error:
        return {**place_of(path), "reason": f"{error.strerror or error}: {error.filename or path}"}
    return {**place_of(path), "reason": ""}


# ------------------------------------------------------------------------------------------------ the network


def timed(ask: Callable[[], Json]) -> Json:
    """What `ask` found and how long that took, or why it found nothing."""
    import urllib.error

    began = time.monotonic()
    try:
        found = ask()
    except urllib.error.HTTPError as error:
        found = {"status": error.code, "error": f"it answers {error.code}"}
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        found = {"status": None, "error": hide_login(str(reason))[:300]}
    return {"error": "", **found, "took_s": round(time.monotonic() - began, 3)}


def reach_index(package: str, version: str) -> Json:
    """The index's page of a package, and the speed of the line by the first bytes of a wheel of it."""
    address = index_address()
    shown = {"address": hide_login(address)}

    def ask() -> Json:
        url = f"{address}/{re.sub(r'[-_.]+', '-', package)}/"
        with opened(url, REACH_S, Accept=JSON_OR_HTML) as answer:
            page = answer.read(PAGE_LIMIT_BYTES).decode("utf-8", "replace")
        files = [file for file in index_files(page, url) if file[0].endswith(".whl")]
        return {"status": 200, "wheel": best_file(files, version)}

    found = timed(ask)
    wheel = found.pop("wheel", "")
    rate = timed(lambda: {"bytes_per_s": speed_of(wheel)}) if wheel else {}
    return {**shown, **found, "bytes_per_s": rate.get("bytes_per_s")}


def best_file(files: list[tuple[str, str, str]], version: str) -> str:
    """The address of the file that would be installed, or one like it; "" when there is none."""
    machine = platform.machine()
    wanted = [file for file in files if f"-{version}-" in file[0]] or files
    fitting = [file for file in wanted if machine in file[0]] or wanted
    return fitting[-1][1] if fitting else ""


def speed_of(url: str) -> float | None:
    """Bytes per second of the first MEASURE_BYTES of a file; None when nothing came."""
    began = time.monotonic()
    have = 0
    with opened(url, REACH_S, Range=f"bytes=0-{MEASURE_BYTES - 1}") as answer:
        while have < MEASURE_BYTES and time.monotonic() - began < MEASURE_S:
            piece = answer.read(min(PIECE_BYTES, MEASURE_BYTES - have))
            if not piece:
                break
            have += len(piece)
    return round(have / max(time.monotonic() - began, 1e-6)) if have else None


def reach_hub() -> Json:
    """Whether the Hub, or what HF_ENDPOINT names instead, answers at all."""
    import urllib.error

    address = (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")

    def ask() -> Json:
        try:
            opened(f"{address}/api/models?limit=1", REACH_S).close()
        except urllib.error.HTTPError as error:
            if error.code >= 500:
                raise
        return {"status": 200}

    return {"address": hide_login(address), **timed(ask)}


# ------------------------------------------------------------------------------------------------ requests


def look(request: Json) -> Json:
    """All of it, side by side: what hangs holds up nothing but itself."""
    least, most = tuple(request["min_python"]), tuple(request["max_python"])
    questions: dict[str, Callable[[], Any]] = {"system": system, "free_ports": free_ports}
    if request["to_install"]:
        questions["pythons"] = lambda: found_pythons(least, most, request["home"])
        questions["index"] = lambda: reach_index(request["package"], request["version"])
        questions["hub"] = reach_hub
    for name, path in request["places"].items():
        questions[f"place {name}"] = lambda path=path: place_of(path)  # type: ignore[misc]  # bound now
    answers: Json = {}
    done = threading.Condition()

    def work(name: str, question: Callable[[], Any]) -> None:
        try:
            found = question()
        except Exception as error:  # noqa: BLE001 - told as not measured, and the others go on
            found = {"failed": f"{type(error).__name__}: {hide_login(str(error))}"[:300]}
        with done:
            answers[name] = found
            done.notify()

    for name, question in questions.items():
        threading.Thread(target=work, args=(name, question), daemon=True).start()
    deadline = time.monotonic() + LOOK_S
    with done:
        while len(answers) < len(questions) and time.monotonic() < deadline:
            if not done.wait(BEAT_S):
                emit(beat=time.time())
        return dict(answers, ports_tried=PORT_TRIES)


def plan(request: Json) -> Json:
    """The commands of setup.py for these words."""
    from podlab.remote.setup import Setup, arguments

    return {"commands": Setup(arguments(request["words"])).plan()}


OPS: dict[str, Callable[[Json], Json]] = {
    "look": look, "plan": plan, "place": lambda request: make_place(request["path"]),
    "where": lambda request: place_of(request["path"]),
}  # fmt: skip


def main() -> None:
    """Read one request, answer it. See the top of this file."""
    os.umask(0o077)
    request = json.loads(sys.stdin.buffer.readline().decode("utf-8"))
    op = request["op"]
    emit(op=op, **OPS[op](request))
    os._exit(0)  # a thread that hangs in a name look-up or a dead mount would hold up the end


if __name__ == "__main__":
    main()
