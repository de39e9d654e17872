"""What starts, stops and removes endpoints and jobs on the pod.

Standard library only, Python 3.8 or newer; travels inside the supervisor when a request changes something. Changes of
records happen under one lock per home (flock, released by the kernel however we end), so nothing is started twice.
"""

from __future__ import annotations

import binascii
import json
import os
import re
import signal
import sys
import time

from podlab.remote.machine import (
    MARK,
    MARK_HOME,
    Fault,
    Table,
    choose_port,
    is_ours,
    listeners,
    one_process,
    port_is_free,
    private_folder,
    write_file,
    write_json,
)
from podlab.remote.records import ID, STREAMS, Folder, base_facts, find_folder, folders, the_folder, this_boot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from podlab.remote.machine import Json

KEEP_ENDED = 20
LEAST_CAP_BYTES = 2**16
CANCELLED, CANCELLED_S = ".cancelled-", 3600.0
"""Files of the home for starts that must not happen any more, and how long a request may be on its way."""
LOCK_WAIT_S = 60.0
STRAY_GRACE_S = 2.0
"""What outlives its main process gets this long to end by itself after TERM."""
MONITOR_GRACE_S = 3.0
KILL_WAIT_S = 10.0
BEGIN_WAIT_S = 20.0
NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
OWN_FILES = re.compile(
    r"(spec|run|stop|progress)\.json|key|stdin|monitor\.(py|log|lock)|(log|stdout|stderr|marks|exit|ready)\..*"
)
# What an engine may know of the user's environment; the rest (provider keys, tokens) is none of its business.
ENGINE_ENV = re.compile(
    r"PATH|HOME|LANG|TMPDIR|USER|SHELL|LD_LIBRARY_PATH|XDG_CACHE_HOME|HF_HOME|(LC|CUDA|NVIDIA|OMP)_.*|(ROCM|HIP).*"
)
# What fetching packages and models needs beyond that, to get through a company's proxy or mirror.
FETCH_ENV = re.compile(
    r"(?i)(https?|no|all)_proxy|SSL_CERT_(FILE|DIR)|(REQUESTS|CURL)_CA_BUNDLE|(PIP|UV)_.*|HF_ENDPOINT"
)
SECRET_ENV = re.compile(r"(?i).*(KEY|TOKEN|SECRET|PASSW).*")


class Lock:
    """The home's lock, held while the body runs."""

    def __init__(self, home: str, beat: Callable[[], None]) -> None:
        self._path, self._beat = os.path.join(home, "lock"), beat

    def __enter__(self) -> None:
        import fcntl

        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                return fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Fault("locked", f"{self._path} has been held for {LOCK_WAIT_S:g} s") from None
            self._beat()
            time.sleep(0.01)

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


# ------------------------------------------------------------------------------------------------ what is asked


def need(condition: object, message: str) -> None:
    """Refuse a request that does not hold what it must."""
    if not condition:
        raise Fault("bad_request", message)


def is_text(value: object) -> bool:
    """Whether a value may go into an argv or an environment."""
    return isinstance(value, str) and "\0" not in value


def checked_steps(request: Json) -> list[Json]:
    """The steps of a request, each with the names of the secrets only it gets."""
    steps, secrets = request["steps"], request.get("secrets") or {}
    names = [step["name"] for step in steps]
    need(steps and len(set(names)) == len(names), "each step needs a name of its own")
    need(set(secrets) <= set(names), "a secret is for a step that is not there")
    hidden = [value for values in secrets.values() for value in values.values() if value]
    for step in steps:
        need(step["name"] in ("prepare", "download", "serve", "run"), f"{step['name']!r:.40} is no step")
        need(step["argv"] and all(map(is_text, step["argv"])), f"step {step['name']} has no argv")
        env = step.get("env") or {}
        need(all(map(is_text, env.values())), f"step {step['name']} has a variable that is not text")
        wanted = [*env, *secrets.get(step["name"], ())]
        need(all(VARIABLE.fullmatch(name) for name in wanted), f"step {step['name']} has a bad variable name")
        shown = [*step["argv"], *env.values()]
        need(not any(value in text for value in hidden for text in shown), "a secret does not go into argv or env")
        need(not any(request.get("key") and request["key"] in word for word in step["argv"]), "a key is in an argv")
    return [
        {"name": step["name"], "argv": step["argv"], "env": step.get("env") or {},
         "secrets": sorted(secrets.get(step["name"], ()))}
        for step in steps
    ]  # fmt: skip


def checked_spec(home: str, request: Json) -> Json:
    """What spec.json will hold."""
    kind, name, health, port = request["kind"], request["name"], request.get("health"), request.get("port") or 0
    need(kind in STREAMS, f"{kind!r:.40} is neither an endpoint nor a job")
    need(isinstance(request["id"], str) and ID.fullmatch(request["id"]), "the id is not one")
    need(isinstance(name, str) and NAME.fullmatch(name), f"{name!r:.80} cannot be a name")
    need(isinstance(port, int) and 0 <= port < 65536, f"{port!r:.20} is no port")
    need(all(isinstance(gpu, int) for gpu in request.get("gpus") or ()), "GPUs are numbers")
    need(len(json.dumps(request.get("meta") or {})) < 2**16, "meta is larger than 64 KiB")
    cap_bytes = request.get("log_cap_bytes")
    need(cap_bytes is None or (isinstance(cap_bytes, int) and cap_bytes >= LEAST_CAP_BYTES), "the cap of logs is none")
    for file in request.get("files") or ():
        need(NAME.fullmatch(file) and not OWN_FILES.fullmatch(file), f"{file!r:.80} cannot be a file of it")
    if health:
        paths = (health["path"], health["models_path"], health.get("probe") or "/")
        need(all(re.fullmatch(r"/[!-~]*", path) for path in paths), "a path to probe is not one")
        need(isinstance(health["served_name"], str), "there is no served name")
    return {
        "v": 1, "id": request["id"], "name": name, "kind": kind, "steps": checked_steps(request),
        "cwd": checked_cwd(home, kind, request.get("cwd")), "port": port, "model": request.get("model") or "",
        "engine": request.get("engine") or "", "gpus": list(request.get("gpus") or ()), "health": health,
        "meta": request.get("meta") or {}, "created_at": time.time(), "log_cap_bytes": request.get("log_cap_bytes"),
    }  # fmt: skip


def checked_cwd(home: str, kind: str, cwd: str | None) -> str | None:
    """Where the steps run; None for an endpoint's own folder, which is the rule. A job's is the user's to choose."""
    if kind == "job":
        path = os.path.join(os.path.expanduser("~"), os.path.expanduser(cwd or ""))
        need(os.path.isdir(path), f"there is no folder {path}")
        return path
    if cwd is None:
        return None
    path = os.path.realpath(os.path.join(home, cwd))
    need(path == home or path.startswith(home + os.sep), f"{cwd} is outside of {home}")
    return path


# ------------------------------------------------------------------------------------------------ starting


def start_once(home: str, request: Json, beat: Callable[[], None]) -> bool:
    """Start what is asked for, unless its id is there already; says whether it was."""
    spec = checked_spec(home, request)
    with Lock(home, beat):
        folder = find_folder(home, spec["id"])
        patience = time.monotonic() + BEGIN_WAIT_S
        while folder is not None and folder.monitor_begins() and time.monotonic() < patience:
            beat()  # of a start that was cut off: whether it got all it needs will be seen in a moment
            time.sleep(0.01)
            folder = find_folder(home, spec["id"])
        table = Table(home)
        if folder is not None:
            if folder.damaged:
                raise Fault("damaged", folder.damaged)
            if not never_ran(folder, table):
                return True
            refuse_cancelled(home, folder.id)
            launch(home, folder, new_run(1, folder.run["port"]), request, beat)
            return False
        refuse_cancelled(home, spec["id"])
        if table.of(spec["id"]):
            raise Fault("orphaned", f"processes of {spec['id']} run without a record; stop it first")
        living, ended = sorted_out(home, spec["kind"], table)
        for other in living:
            if other.spec["name"] == spec["name"]:
                raise Fault("name_taken", f"an {other.kind} named {spec['name']} runs already")
        sweep(home, spec["kind"], ended[KEEP_ENDED - 1 :])
        sweep_cancelled(home)
        port = choose_port(spec["port"], reserved_ports(home, spec["id"])) if spec["kind"] == "endpoint" else None
        run = new_run(1, port)
        launch(home, make_folder(home, spec, run, request), run, request, beat, written=True)
    return False


def cancel(home: str, id: object, beat: Callable[[], None]) -> None:
    """From here on nothing is started under an id that does not run yet: its request may still be on the way."""
    need(isinstance(id, str) and ID.fullmatch(id), "the id is not one")
    with Lock(home, beat):
        write_file(os.path.join(home, f"{CANCELLED}{id}"), b"")
        sweep_cancelled(home)


def refuse_cancelled(home: str, id: str) -> None:
    """Raise Fault when a start was cancelled before it came."""
    if os.path.lexists(os.path.join(home, f"{CANCELLED}{id}")):
        raise Fault("cancelled", f"{id} was cancelled before it was started")


def sweep_cancelled(home: str) -> None:
    """Delete what cancelled a start so long ago that its request comes no more."""
    for name in os.listdir(home):
        path = os.path.join(home, name)
        if name.startswith(CANCELLED) and time.time() - os.lstat(path).st_mtime > CANCELLED_S:
            os.unlink(path)


def never_ran(folder: Folder, table: Table) -> bool:
    """Whether a start was cut off between making the folder and starting anything."""
    facts = base_facts(folder, table, 0)
    return not any(facts[key] for key in ("pid", "exit", "stop_at", "monitor_alive", "strays"))


def monitor_lock(folder: Folder) -> int:
    """A descriptor that holds the folder's lock. The monitor inherits it, so that it is seen to run from before its
    first instruction to its last, whatever becomes of us. Raises Fault when a monitor has it."""
    import fcntl

    lock = os.open(folder.file("monitor.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    for _ in range(20):  # whoever only looks whether it is held holds it for a moment
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            time.sleep(0.01)
    os.close(lock)
    raise Fault("still_there", f"a monitor of {folder.id} still runs")


def sorted_out(home: str, kind: str, table: Table) -> tuple[list[Folder], list[Folder]]:
    """(those that run or may, those that have ended) of a kind, newest first; damaged ones are neither."""
    living: list[Folder] = []
    ended: list[Folder] = []
    for folder in folders(home, kind):
        if not folder.damaged:
            facts = base_facts(folder, table, 0)
            (living if facts["alive"] or facts["monitor_alive"] or facts["strays"] else ended).append(folder)
    return living, ended


def reserved_ports(home: str, but: str) -> dict[int, str]:
    """Ports of endpoints that live, `but` one: a loading one has not bound its port yet."""
    others = [folder for folder in folders(home, "endpoint") if folder.id != but]
    living = [folder for folder in others if not folder.damaged and not folder.ended()]
    return {folder.run["port"]: folder.spec["name"] for folder in living}


def sweep(home: str, kind: str, old: list[Folder]) -> None:
    """Delete the folders of `old`, and what a start or a removal that was cut off has left."""
    import shutil

    top = os.path.join(home, kind + "s")
    for folder in old:
        shutil.rmtree(folder.path, ignore_errors=True)
    for name in os.listdir(top):
        if name.startswith("."):
            shutil.rmtree(os.path.join(top, name), ignore_errors=True)


def new_run(generation: int, port: int | None) -> Json:
    """run.json before the monitor takes over; until then we are what answers for it."""
    me = one_process(os.getpid())
    return {
        "v": 1, "generation": generation, "port": port, "created_at": time.time(), "boot": this_boot(), "step": "",
        "argv": [], "pid": None, "start": None, "monitor": {"pid": os.getpid(), "start": me.start if me else ""},
    }  # fmt: skip


def make_folder(home: str, spec: Json, run: Json, request: Json) -> Folder:
    """Its folder, which appears whole or not at all."""
    top = os.path.join(home, spec["kind"] + "s")
    new = os.path.join(top, f".new-{spec['id']}")
    private_folder(new)
    for name, text in (request.get("files") or {}).items():
        write_file(os.path.join(new, name), text.encode())
    if request.get("key"):
        write_file(os.path.join(new, "key"), request["key"].encode())
    if request.get("stdin"):
        write_file(os.path.join(new, "stdin"), binascii.a2b_base64(request["stdin"]))
    write_json(os.path.join(new, "spec.json"), spec)
    write_json(os.path.join(new, "run.json"), run)
    os.rename(new, os.path.join(top, spec["id"]))
    return Folder(home, spec["kind"], spec["id"])


def environments(kind: str) -> tuple[dict[str, str], dict[str, str]]:
    """(what serving steps and jobs get, what preparing and downloading steps get) of our own environment."""
    if kind == "job":  # the user's own command: all but what RunPod hides in every pod, and marks of what we are in
        env = {name: value for name, value in os.environ.items() if name not in ("RUNPOD_API_KEY", MARK, MARK_HOME)}
        return env, env
    plain = {name: value for name, value in os.environ.items() if not SECRET_ENV.fullmatch(name)}
    serve = {name: value for name, value in plain.items() if ENGINE_ENV.fullmatch(name)}
    return serve, {**{name: value for name, value in plain.items() if FETCH_ENV.fullmatch(name)}, **serve}


def launch(
    home: str, folder: Folder, run: Json, request: Json, beat: Callable[[], None], written: bool = False
) -> None:
    """Start the monitor of a generation and wait until it has started the first step."""
    import select
    import subprocess

    if not written:
        write_json(folder.file("run.json"), run)
    with open(os.open(folder.file("monitor.py"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as program:
        program.write(request["monitor"])
    serve_env, fetch_env = environments(folder.kind)
    given = {
        "home": home, "kind": folder.kind, "env": serve_env, "fetch_env": fetch_env,
        "secrets": request.get("secrets") or {}, "umask": request["umask"] if folder.kind == "job" else 0o077,
    }  # fmt: skip
    lock = monitor_lock(folder)
    told, tell = os.pipe()
    with open(os.open(folder.file("monitor.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "wb") as log:
        monitor = subprocess.Popen(
            [sys.executable, "-I", "-S", folder.file("monitor.py"), folder.path, str(tell)],
            stdin=subprocess.PIPE, stdout=log, stderr=log, cwd="/", start_new_session=True, pass_fds=(tell, lock),
            env={name: value for name, value in serve_env.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")},
        )  # fmt: skip
    os.close(tell)
    os.close(lock)
    assert monitor.stdin is not None
    try:
        with monitor.stdin as pipe:
            pipe.write(json.dumps(given).encode())
    except BrokenPipeError:
        pass  # it ended at once; monitor.log has why, and the facts say that it is gone
    deadline = time.monotonic() + BEGIN_WAIT_S
    while not select.select([told], [], [], 0.5)[0] and time.monotonic() < deadline:
        beat()
    os.close(told)


# ------------------------------------------------------------------------------------------------ stopping


class Ending:
    """Ends everything of one id: TERM to all of it, KILL after the grace, then proof that nothing is left."""

    def __init__(self, home: str, id: str, folder: Folder | None, emit: Callable[..., None]) -> None:
        self.home, self.id, self.folder, self.emit = home, id, folder, emit
        self.seen: dict[int, str] = {}  # pid -> start time of all that was ever found: some may drop their session
        self.termed: set[int] = set()
        self.killed: set[int] = set()
        self.main_alive = self.monitor_alive = False

    def look(self) -> set[int]:
        """Pids that are left now, the monitor not counted."""
        table = Table(self.home)
        run = self.folder.run if self.folder and self.folder.of_this_boot() else {}
        monitor = run.get("monitor", {})
        self.main_alive = table.is_same(run.get("pid"), run.get("start"))
        self.monitor_alive = table.is_same(monitor.get("pid"), monitor.get("start"))
        left = table.of(self.id, run["pid"] if self.main_alive else None)
        left |= {pid for pid, start in self.seen.items() if table.is_same(pid, start)}
        self.seen.update((pid, table.rows[pid].start) for pid in left)
        return left

    def signal(self, pids: set[int], number: int) -> None:
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass  # it ended in between, which is what we want

    def carry_out(self, grace_s: float, beat: Callable[[], None]) -> None:
        """Returns once nothing is left. Raises Fault when something survives KILL."""
        began = main_gone = all_gone = time.monotonic()
        said = ""
        pause_s = 0.01
        while (left := self.look()) or self.monitor_alive:
            now = time.monotonic()
            main_gone = now if self.main_alive else main_gone
            all_gone = now if left else all_gone
            if fresh := left - self.termed:
                self.emit(stage="term", pids=sorted(fresh))
                self.signal(fresh, signal.SIGTERM)
                self.termed |= fresh
            elif now - began >= grace_s or (left and not self.main_alive and now - main_gone >= STRAY_GRACE_S):
                if fresh := left - self.killed:
                    self.emit(stage="kill", pids=sorted(fresh))
                self.signal(left, signal.SIGKILL)
                self.killed |= left
            elif said != "waiting" and left:
                said = "waiting"
                self.emit(stage=said, pids=sorted(left))
            if not left and now - all_gone >= MONITOR_GRACE_S and self.folder:
                self.signal({self.folder.run["monitor"]["pid"]}, signal.SIGKILL)
            if now - began > grace_s + KILL_WAIT_S:
                raise Fault("still_there", f"processes {sorted(left)} of {self.id} survive a KILL")
            beat()
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.1)
            if self.folder:  # the monitor may have gone on to another step just before it read the intent
                self.folder = Folder(self.home, self.folder.kind, self.id)
        self.emit(stage="proof", pids=[])


def stop_all(
    home: str, request: Json, emit: Callable[..., None], beat: Callable[[], None], restart: bool = False
) -> tuple[bool, list[int]]:
    """(whether anything ran, what had to be killed). Also for what has no record, by its mark."""
    wanted, grace_s = request["id"], float(request.get("grace_s", 10.0))
    folder = find_folder(home, wanted)
    if folder is None and not Table(home).of(wanted):
        if request.get("cancel"):
            return False, []  # it is not there, and will not be
        raise Fault("unknown_id", f"there is no endpoint or job {wanted}")
    if folder is not None and not folder.damaged:
        with Lock(home, beat):
            folder = the_folder(home, wanted)
            runs = folder.alive() or (folder.monitor_alive() and folder.exit is None)
            if runs:
                asked = {"v": 1, "generation": folder.generation, "at": time.time(), "restart": restart}
                write_json(folder.file("stop.json"), asked)
                emit(stage="intent", pids=[])
    else:
        folder, runs = None, False  # an orphan: its processes are found by their mark alone
    ending = Ending(home, wanted, folder, emit)
    ending.carry_out(grace_s, beat)
    if folder is not None and runs and not os.path.exists(folder.file(f"exit.{folder.generation}.json")):
        gone = {"v": 1, "step": folder.run.get("step") or "", "status": None, "signal": None, "at": time.time()}
        write_json(folder.file(f"exit.{folder.generation}.json"), gone)  # its monitor, which saw how, is dead
    return runs or bool(ending.seen), sorted(ending.killed)


def refuse_no_room(home: str, folder: Folder) -> None:
    """Raise Fault when another one has its name by now, or the port it was wished on: what runs goes on then."""
    table = Table(home)
    living, _ = sorted_out(home, folder.kind, table)
    if any(other.id != folder.id and other.spec["name"] == folder.spec["name"] for other in living):
        raise Fault("name_taken", f"an {folder.kind} named {folder.spec['name']} runs already")
    wished = folder.spec["port"]
    if folder.kind == "endpoint" and wished:
        mine = table.of(folder.id, folder.run.get("pid") if folder.alive() else None)
        if not mine or is_ours(listeners(wished), mine) is False:
            choose_port(wished, reserved_ports(home, folder.id))


def restart_once(home: str, request: Json, emit: Callable[..., None], beat: Callable[[], None]) -> bool:
    """Start the next generation after the one that is named, unless somebody has; says whether somebody had."""
    replaced = int(request["generation"])
    folder = the_folder(home, request["id"])
    if folder.generation > replaced:
        return True
    need(not folder.spec.get("adopted"), "it was adopted, and how it was started is not known: start it anew")
    secrets = request.get("secrets") or {}
    for step in folder.spec["steps"]:  # before anything is stopped
        missing = set(step["secrets"]) - set(secrets.get(step["name"], ()))
        need(not missing, f"step {step['name']} needs {', '.join(sorted(missing))} again")
    with Lock(home, beat):
        refuse_no_room(home, folder)
    stop_all(home, request, emit, beat, restart=True)
    emit(stage="start", pids=[])
    with Lock(home, beat):
        folder = the_folder(home, request["id"])
        if folder.generation > replaced:
            return True
        refuse_no_room(home, folder)
        port = None
        if folder.kind == "endpoint":
            reserved, old, wished = reserved_ports(home, folder.id), folder.run["port"], folder.spec["port"]
            keep = request.get("same_port", True) and old not in reserved and port_is_free(old)
            port = choose_port(old if keep else wished, reserved)
        launch(home, folder, new_run(folder.generation + 1, port), request, beat)
    return False


def remove_ended(home: str, request: Json, beat: Callable[[], None]) -> None:
    """Delete the folder of what has ended, or cannot be read and has no process."""
    import shutil

    with Lock(home, beat):
        folder = find_folder(home, request["id"])
        if folder is None:
            raise Fault("unknown_id", f"there is no endpoint or job {request['id']}")
        facts = base_facts(folder, Table(home), 0)
        if facts.get("alive") or facts.get("monitor_alive") or facts["strays"]:
            raise Fault("alive", f"{folder.kind} {facts['name'] or folder.id} runs")
        gone = os.path.join(os.path.dirname(folder.path), f".gone-{folder.id}")
        os.rename(folder.path, gone)  # at once, so that nobody sees half a folder
        shutil.rmtree(gone)
