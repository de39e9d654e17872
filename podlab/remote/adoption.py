"""Puts a server that runs already on record, so that it is shown, reached, logged and stopped like any other.

Standard library only, Python 3.8 or newer; travels inside the supervisor with changes.py. Either processes of ours
whose record is gone or torn, found by their mark, or a process that somebody else started. What cannot be known any
more (how it was started, so no restart) is left out; nothing about the process itself is changed.
"""

from __future__ import annotations

import json
import os
import re
import stat
import time

from podlab.remote.changes import NAME, Lock, make_folder, need, sorted_out
from podlab.remote.machine import (
    Fault,
    Table,
    http_ask,
    listening,
    one_process,
    sockets_of,
    write_file,
    write_json,
)
from podlab.remote.records import find_folder, this_boot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podlab.remote.machine import Json
    from podlab.remote.records import Folder

MODELS_PATH = "/v1/models"
HEALTH_PATHS = ("/health", MODELS_PATH, "/ping", "/")
"""Tried in this order; the first that answers 200 to somebody without a key is asked from then on."""
ENGINES = (("vllm", "vllm"), ("sglang", "sglang"), ("llama", "llamacpp"))
"""(a part of the command line, the engine it means); anything else is a server with OpenAI's API."""
SECRET_WORD = re.compile(r"(?i)-{1,2}[a-z-]*(key|token|secret|password)[a-z-]*")
KEY_VARIABLES = ("VLLM_API_KEY", "LLAMA_API_KEY", "API_KEY")
"""Where engines look for the key they ask for. Other keys in an environment are for somebody else."""
LEAST_KEY, MOST_KEYS = 8, 5
LOG_BYTES = 2**20
"""What is saved of a log whose file was deleted."""


def adopt(home: str, request: Json, beat: Callable[[], None]) -> str:
    """Put it on record; returns its id. Raises Fault when there is nothing, or it does not answer as a model server."""
    wanted, pid, name, key = request.get("id"), request.get("pid"), request.get("name"), request.get("key") or ""
    need(name is None or NAME.fullmatch(name), f"{name!r:.80} cannot be a name")
    with Lock(home, beat):
        table = Table(home)
        folder = None
        if pid is not None:
            refuse_ours(table, pid)
            ident = os.urandom(16).hex()
            pids = [pid, *sorted(table.of(ident, pid) - {pid})]  # a script that started it may be what is known
        else:
            ident = str(wanted)
            folder, pids = find_folder(home, wanted), sorted(table.of(ident))
            if folder is not None and not folder.damaged:
                raise Fault("name_taken", f"{ident} is on record already")
            if not pids:
                raise Fault("unknown_id", f"no process of {ident} runs")
        server = the_server(pids, [key] if key else known_keys(pids, folder))
        name = (
            name or re.sub(r"[^A-Za-z0-9._-]+", "-", server["model"].rpartition("/")[2])[:60].strip("-._") or "adopted"
        )
        living, _ = sorted_out(home, "endpoint", table)
        if any(other.spec["name"] == name for other in living):
            raise Fault("name_taken", f"an endpoint named {name} runs already")
        put_on_record(home, ident, name, server, folder)
    return ident


def refuse_ours(table: Table, pid: object) -> None:
    """Raise Fault for a number that is no process of somebody else's."""
    need(isinstance(pid, int) and pid > 1, f"{pid!r:.20} is no process")
    if pid not in table.rows:
        raise Fault("unknown_id", f"no process {pid} runs")
    if pid in table.marks:
        raise Fault("name_taken", f"process {pid} belongs to {table.marks[pid]}, which podlab started")


def the_server(pids: list[int], keys: list[str]) -> Json:
    """{"pid", "port", "key", "model", "path"} of the one among `pids` that answers as a model server."""
    why = "none of its processes listens on a port"
    for pid in pids:
        for port in ports_of(pid):
            for key in [*keys[:MOST_KEYS], ""]:  # llama.cpp lists its model to everybody, and answers only with the key
                status, model = the_model(port, key)
                if model:
                    return {"pid": pid, "port": port, "key": key, "model": model, "path": health_path(port)}
                why = f"port {port} answers {status or 'nothing'} instead of its models"
                if status in (401, 403):
                    why = f"port {port} asks for a key that is not known: name it with --key-env"
    raise Fault("bad_request", f"nothing there answers as a model server ({why})")


def the_model(port: int, key: str) -> tuple[int | None, str]:
    """(status, name of the first model) that a port answers; what makes no sense is no model."""
    try:
        status, body = http_ask(port, MODELS_PATH, key)
    except (OSError, ValueError):
        return None, ""
    try:
        return status, str(json.loads(body.decode("utf-8", "replace"))["data"][0]["id"])[:500] if status == 200 else ""
    except (ValueError, KeyError, TypeError, IndexError):
        return status, ""


def health_path(port: int) -> str:
    """A path that says 200 to somebody without a key. Raises Fault when there is none."""
    for path in HEALTH_PATHS:
        try:
            if http_ask(port, path, "")[0] == 200:
                return path
        except (OSError, ValueError):
            continue
    raise Fault("bad_request", f"port {port} has no path that tells its health without a key")


def ports_of(pid: int) -> list[int]:
    """The TCP ports a process listens on. Raises Fault where we may not look."""
    held = sockets_of(pid)
    if held is None:
        raise Fault("bad_request", f"process {pid} belongs to another user")
    found = set()
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            found |= {int(where.rpartition(":")[2], 16) for where, inode in listening(path, True) if inode in held}
        except OSError:
            continue
    return sorted(found)


def words_of(pid: int, file: str) -> list[str]:
    """The words of /proc/PID/cmdline or environ; [] where they cannot be read."""
    try:
        with open(f"/proc/{pid}/{file}", "rb") as source:
            return [word.decode("utf-8", "replace") for word in source.read(2**20).split(b"\0")[:-1]]
    except OSError:
        return []


def known_keys(pids: list[int], folder: Folder | None) -> list[str]:
    """What may be the key of a server: of its own folder, its own environment, its own command line."""
    found = [folder.key()] if folder is not None else []
    for pid in pids:
        pairs = [word.partition("=") for word in words_of(pid, "environ")]
        found += [value for name, _, value in pairs if name in KEY_VARIABLES]
        argv = words_of(pid, "cmdline")
        found += [value for option, value in zip(argv, argv[1:]) if option == "--api-key"]
    return [key for key in dict.fromkeys(found) if len(key) >= LEAST_KEY and key.isascii() and key.isprintable()]


def masked(argv: list[str]) -> Iterator[str]:
    """A command line without the values of what sounds like a secret: it goes on record."""
    hidden = False
    for word in argv:
        option, equals, _ = word.partition("=")
        secret = SECRET_WORD.fullmatch(option) is not None
        yield "***" if hidden else f"{option}=***" if secret and equals else word
        hidden = secret and not equals


def started_at(start: str) -> float:
    """A process's start, which the kernel counts in ticks since its boot, as seconds since the epoch."""
    try:
        with open("/proc/stat") as file:
            boot = next(int(line.split()[1]) for line in file if line.startswith("btime"))
        return boot + int(start) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, StopIteration):
        return time.time()


def put_on_record(home: str, id: str, name: str, server: Json, folder: Folder | None) -> None:
    """Its folder, or what is torn in the one that is there: what it was asked for, as far as it can be read, and what
    it wrote stay."""
    process = one_process(server["pid"])
    if process is None:
        raise Fault("unknown_id", f"process {server['pid']} has just ended")
    argv = list(masked(words_of(server["pid"], "cmdline")))
    line = " ".join(argv).lower()
    visible = dict(word.partition("=")[::2] for word in words_of(server["pid"], "environ")).get(
        "CUDA_VISIBLE_DEVICES", ""
    )
    spec = {
        "v": 1, "id": id, "name": name, "kind": "endpoint", "adopted": True, "cwd": None, "port": server["port"],
        "steps": [{"name": "serve", "argv": argv, "env": {}, "secrets": []}], "model": server["model"],
        "engine": next((engine for part, engine in ENGINES if part in line), "openai"),
        "gpus": [int(each) for each in visible.split(",") if each.isdecimal()], "meta": {}, "created_at": time.time(),
        "health": {"path": server["path"], "models_path": MODELS_PATH, "served_name": server["model"], "probe": ""},
    }  # fmt: skip
    if folder is not None and folder.spec:
        spec = dict(folder.spec, name=name)
    generation = last_generation(folder)
    run = {
        "v": 1, "generation": generation, "port": server["port"], "created_at": started_at(process.start),
        "boot": this_boot(), "step": "serve", "argv": argv, "pid": server["pid"], "start": process.start,
        "monitor": {"pid": None, "start": ""},
    }  # fmt: skip
    if folder is None:
        folder = make_folder(home, spec, run, {"key": server["key"]})
        write_file(folder.stream("log", generation), saved_log(server["pid"]))
        return
    if not stat.S_ISDIR(os.lstat(folder.path).st_mode):
        raise Fault("damaged", f"{folder.path} is not a folder")
    for file in (f"exit.{generation}.json", f"ready.{generation}.json", "stop.json"):
        if os.path.lexists(folder.file(file)):
            os.unlink(folder.file(file))  # it runs, whatever they say
    if server["key"]:
        write_file(folder.file("key"), server["key"].encode())
    write_json(folder.file("spec.json"), spec)
    write_json(folder.file("run.json"), run)


def last_generation(folder: Folder | None) -> int:
    """The newest one that has a log."""
    names = os.listdir(folder.path) if folder is not None and os.path.isdir(folder.path) else []
    return max([int(name[4:]) for name in names if re.fullmatch(r"log\.\d{1,9}", name)], default=1)


def saved_log(pid: int) -> bytes:
    """The end of what a process wrote and a word about the rest; nothing if that did not go into a file."""
    data = b""
    try:
        with open(f"/proc/{pid}/fd/1", "rb") as file:
            size = os.fstat(file.fileno())
            if stat.S_ISREG(size.st_mode):
                file.seek(max(0, size.st_size - LOG_BYTES))
                data = file.read(LOG_BYTES)
    except OSError:
        pass
    return data and data + b"podlab: adopted; what it writes from here on goes where it always went, and is not seen\n"
