"""The folders of endpoints and jobs on the pod, and the checked facts that are told about them.

Standard library only, Python 3.8 or newer; travels inside the supervisor. Under the pod's home of podlab (0700, files
0600) lie `endpoints/<id>/` and `jobs/<id>/`, each with

    spec.json                   what was asked for, never changed
    run.json                    the present generation: step, argv, pid, process start time, boot, monitor, port
    log.G, stdout.G, stderr.G   what generation G wrote;  marks.G: "time size size" now and then
    log.G.cut, ...              what of it was dropped, see streams.py
    stop.json                   somebody asked this generation to stop; written before the first signal
    ready.G.json, exit.G.json   when it was first ready; how it ended, and what the machine said of that
    stdin                       what a job is to read, until it has begun
    key                         the endpoint's own API key;  monitor.py, monitor.log: what watches it

and beside them `.cancelled-<id>`, for an hour, where a stop came before the start it was for.
"""

from __future__ import annotations

import os
import re
import stat
import time

from podlab.remote.machine import (
    Fault,
    Table,
    ask_port,
    boot_id,
    is_same,
    open_regular,
    read_json,
    read_part,
    write_json,
)
from podlab.remote.streams import end_of, read_stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from podlab.remote.machine import Json

ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_-]{0,63}")
STREAMS = {"endpoint": ("log",), "job": ("stdout", "stderr")}
RESTART_S = 60.0
"""A stop that is half of a restart counts as a restart under way for so long."""
TELLING_LINES = 600
"""Of a log whose end nobody asked for: what tells why may stand far above its last line, as each of a server's
processes prints a traceback of its own."""
PROGRESS_FILES = 500
_this_boot: list[str] = []


def this_boot() -> str:
    """The machine's boot id, read once."""
    if not _this_boot:
        _this_boot.append(boot_id())
    return _this_boot[0]


class Folder:
    """One endpoint or job on disk, read once. `damaged` says why its record cannot be read, else it is empty."""

    def __init__(self, home: str, kind: str, id: str) -> None:
        self.kind, self.id = kind, id
        self.path = os.path.join(home, kind + "s", id)
        self.spec: Json = {}
        self.run: Json = {}
        self.exit: Json | None = None
        self.stop: Json | None = None
        self.ready: Json | None = None
        self.damaged = ""
        try:
            if not stat.S_ISDIR(os.lstat(self.path).st_mode):
                raise ValueError("it is not a folder")
            self.spec = self._read("spec.json", name=str, steps=list) or {}
            self.run = self._read("run.json", generation=int, boot=str, monitor=dict, created_at=float) or {}
            if not self.spec or not self.run:
                raise ValueError(f"{'run' if self.spec else 'spec'}.json is missing")
            self.exit = self._read(f"exit.{self.generation}.json")
            self.ready = self._read(f"ready.{self.generation}.json", at=float)
            stopped = self._read("stop.json", generation=int, at=float)
            self.stop = stopped if stopped and stopped["generation"] == self.generation else None
        except (OSError, ValueError) as error:
            self.damaged = f"the record of {id} cannot be read: {str(error)[:300]}"

    def _read(self, file: str, /, **types: type) -> Json | None:
        try:
            value = read_json(self.file(file))
        except (OSError, ValueError) as error:
            raise ValueError(f"{file}: {error}") from error
        for key, kind in types.items():
            if value is not None and not isinstance(value.get(key), (kind, int) if kind is float else kind):
                raise ValueError(f"{file}: no {key} in it")
        return value

    @property
    def generation(self) -> int:
        return int(self.run.get("generation", 1))

    def file(self, name: str) -> str:
        """Where a file of it lies."""
        return os.path.join(self.path, name)

    def stream(self, name: str, generation: int) -> str:
        """Where a stream's file lies."""
        return self.file(f"{name}.{generation}")

    def key(self) -> str:
        """The endpoint's own API key, "" when it has none."""
        try:
            return read_part(self.file("key"), 0, 4096)[0].decode("ascii", "replace").strip()
        except OSError:
            return ""

    def of_this_boot(self) -> bool:
        """Whether its processes can be there at all."""
        return self.run.get("boot") == this_boot()

    def alive(self) -> bool:
        """Whether its process is there, from one small file; the Table tells more."""
        return self.of_this_boot() and is_same(self.run.get("pid"), self.run.get("start"))

    def monitor_alive(self) -> bool:
        """Whether the monitor is there."""
        monitor = self.run.get("monitor", {})
        return self.of_this_boot() and (is_same(monitor.get("pid"), monitor.get("start")) or self.monitor_begins())

    def monitor_begins(self) -> bool:
        """Whether a monitor runs that has not put itself on record yet: it holds the lock it was born with."""
        if self.run.get("pid") is not None or self.exit is not None:
            return False
        import fcntl

        try:
            lock = open_regular(self.file("monitor.lock"))
        except OSError:
            return False
        if lock is None:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def ended(self) -> bool:
        """Nothing runs and nothing is about to. A restart under way has not ended."""
        restarting = self.stop and self.stop.get("restart") and time.time() - self.stop["at"] < RESTART_S
        return not restarting and not self.alive() and (self.exit is not None or not self.monitor_alive())

    def last_lines(self, count: int) -> list[str]:
        """The end of its log as text: at most `count` lines, 2000 characters each, 64 KiB together."""
        path = self.stream(STREAMS[self.kind][-1], self.generation)
        begin, data, _ = read_stream(path, -(2**16), 2**16)
        lines = data.decode("utf-8", "replace").split("\n")
        if begin and len(data) == 2**16 and len(lines) > 1:
            del lines[0]  # it began before what we read
        # Progress bars overwrite their line with \r: what a terminal would show is what came last.
        shown = [line.rstrip("\r").rsplit("\r", 1)[-1][:2000] for line in lines]
        return [line for line in shown if line.strip()][-count:]

    def progress(self) -> Json | None:
        """What the step in progress says about itself in progress.json."""
        try:
            said = read_json(self.file("progress.json"))
        except (OSError, ValueError):
            return None
        if said is None:
            return None
        numbers = {key: int(said[key]) for key in ("done", "total") if isinstance(said.get(key), (int, float))}
        rate = said.get("rate")
        if isinstance(rate, (int, float)):
            numbers["rate"] = int(rate)
        return {"text": str(said.get("text", ""))[:300], "unit": str(said.get("unit", ""))[:16], **numbers,
                "files": files_told(said.get("files"))}  # fmt: skip


def files_told(said: object) -> list[Json]:
    """The files a download speaks of, as far as they make sense; the first PROGRESS_FILES of them."""
    told = []
    for entry in said[:PROGRESS_FILES] if isinstance(said, list) else ():
        if isinstance(entry, list) and len(entry) == 3 and isinstance(entry[0], str) and isinstance(entry[1], int):
            told.append({"name": entry[0][:500], "done": entry[1], "total": entry[2]})
    return told


def folders(home: str, kind: str) -> list[Folder]:
    """Every folder of a kind, newest first; what has no valid name is none of ours."""
    try:
        names = os.listdir(os.path.join(home, kind + "s"))
    except FileNotFoundError:
        return []
    found = [Folder(home, kind, name) for name in names if ID.fullmatch(name)]
    return sorted(found, key=lambda folder: float(folder.run.get("created_at", 0)), reverse=True)


def find_folder(home: str, id: object) -> Folder | None:
    """The folder of an endpoint or job, damaged ones too."""
    if not isinstance(id, str) or not ID.fullmatch(id):
        raise Fault("bad_request", f"{id!r:.80} is not an id")
    for kind in STREAMS:
        if os.path.lexists(os.path.join(home, kind + "s", id)):
            return Folder(home, kind, id)
    return None


def the_folder(home: str, id: object) -> Folder:
    """The folder of an endpoint or job. Raises Fault when there is none that can be read."""
    folder = find_folder(home, id)
    if folder is None:
        raise Fault("unknown_id", f"there is no endpoint or job {id}")
    if folder.damaged:
        raise Fault("damaged", folder.damaged)
    return folder


def base_facts(folder: Folder, table: Table, lines: int) -> Json:
    """Everything about one endpoint or job but what its port answers. `lines` is how much of the log a living one's
    facts hold; of what ended by itself they hold TELLING_LINES."""
    if folder.damaged:
        return ownerless_facts(folder.id, table, folder)
    run, spec, monitor = folder.run, folder.spec, folder.run["monitor"]
    if lines and folder.exit is not None and not folder.stop:
        lines = max(lines, TELLING_LINES)
    boot_changed = not folder.of_this_boot()
    alive = not boot_changed and table.is_same(run.get("pid"), run.get("start"))
    mine = table.of(folder.id, run["pid"] if alive else None)
    monitor_alive = table.is_same(monitor.get("pid"), monitor.get("start")) or folder.monitor_begins()
    step = run.get("step") or ""
    secrets = {each["name"]: each["secrets"] for each in spec["steps"] if each.get("secrets")}
    return {
        "id": folder.id, "name": spec["name"], "kind": folder.kind, "now": time.time(),
        "generation": folder.generation, "model": spec.get("model", ""), "engine": spec.get("engine", ""),
        "gpus": spec.get("gpus", []), "port": run.get("port"), "meta": spec.get("meta", {}), "secrets": secrets,
        "served_name": (spec.get("health") or {}).get("served_name", ""), "argv": run.get("argv", []), "step": step,
        "created_at": spec.get("created_at"), "started_at": run["created_at"], "pid": run.get("pid"), "alive": alive,
        "monitor_alive": not boot_changed and monitor_alive,
        "boot_changed": boot_changed, "exit": folder.exit, "stop_at": folder.stop and folder.stop["at"],
        "ready_at": folder.ready and folder.ready["at"], "health": None, "socket_ours": None, "socket_owner": "",
        "log_bytes": {name: end_of(folder.stream(name, folder.generation)) for name in STREAMS[folder.kind]},
        "lines": folder.last_lines(lines), "answers_as_ready": False,
        "progress": folder.progress() if step in ("prepare", "download") else None,
        "strays": [] if alive else sorted(mine), "orphan": False, "damaged": "",
    }  # fmt: skip


def ownerless_facts(id: str, table: Table, folder: Folder | None = None) -> Json:
    """Facts of a mark without a readable record, or of a record that cannot be read."""
    pids = sorted(table.of(id))
    return {
        "id": id, "name": str(folder.spec.get("name", ""))[:64] if folder else "", "now": time.time(),
        "kind": folder.kind if folder else "endpoint", "generation": 1, "strays": pids, "orphan": bool(pids),
        "damaged": folder.damaged if folder else "",
    }  # fmt: skip


def add_health(folder: Folder, facts: Json, table: Table) -> None:
    """Add what the port answers."""
    root = facts["pid"]
    pids = sorted(table.of(folder.id, root), key=lambda pid: pid != root)  # the one that listens is mostly the first
    health = folder.spec["health"]
    facts.update(ask_port(facts["port"], health, folder.key, pids))
    if facts["answers_as_ready"] and health.get("probe") and not facts["ready_at"] and facts["monitor_alive"]:
        # The monitor is asking it for a first token: that may take long, and until then it is not ready.
        facts["health"] = {"status": None, "error": "it answers, and its first token is awaited", "models": []}
        facts["answers_as_ready"] = False
    if facts["answers_as_ready"]:
        facts["lines"] = facts["lines"][-3:]
        if not facts["ready_at"]:  # the monitor, which records this, may be gone
            facts["ready_at"] = time.time()
            write_json(folder.file(f"ready.{folder.generation}.json"), {"v": 1, "at": facts["ready_at"]})


def checked(wanted: Iterable[Folder], table: Table, lines: int = 60) -> list[Json]:
    """Facts of these folders, checked now. Ports are asked side by side, so that hanging ones cost 4 s together."""
    answers: list[Json] = []
    asking: list[tuple[Folder, Json, Table]] = []
    for read in wanted:
        folder = read
        try:
            facts = base_facts(folder, table, lines)
            if not (facts["orphan"] or facts["damaged"] or facts["alive"] or facts["monitor_alive"] or facts["exit"]):
                # It may have ended between reading its record and looking at the processes: the record tells now.
                folder = Folder(os.path.dirname(os.path.dirname(folder.path)), folder.kind, folder.id)
                facts = base_facts(folder, table, lines)
        except (KeyError, TypeError, AttributeError, ValueError, OSError) as error:
            folder.damaged = f"the record of {folder.id} makes no sense: {error!r:.300}"
            facts = ownerless_facts(folder.id, table, folder)
        answers.append(facts)
        if facts.get("alive") and facts["step"] == "serve" and folder.spec.get("health") and facts["port"]:
            asking.append((folder, facts, table))
    if len(asking) == 1:
        add_health(*asking[0])
    elif asking:
        import threading

        threads = [threading.Thread(target=add_health, args=each) for each in asking]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return answers
