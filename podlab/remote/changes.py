"""What starts, stops and removes endpoints and jobs on the pod.

Standard library only, Python 3.8 or newer; travels inside the supervisor when a request changes something. Changes of
records happen under one lock per home (flock, released by the kernel however we end), so nothing is started twice.
"""

from __future__ import annotations

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
LOCK_WAIT_S = 60.0
STRAY_GRACE_S = 2.0
"""What outlives its main process gets this long to end by itself after TERM."""
MONITOR_GRACE_S = 3.0
KILL_WAIT_S = 10.0
NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
OWN_FILES = re.compile(r"(spec|run|stop|progress)\.json|key|monitor\.(py|log)|(log|stdout|stderr|marks|exit|ready)\..*")
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
    hidden = [value for values in secrets.values() for value in values.values()]
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
    for file in request.get("files") or ():
        need(NAME.fullmatch(file) and not OWN_FILES.fullmatch(file), f"{file!r:.80} cannot be a file of it")
    if health:
        paths = (health["path"], health["models_path"])
        need(all(re.fullmatch(r"/[!-~]*", path) for path in paths), "a path to probe is not one")
        need(isinstance(health["served_name"], str), "there is no served name")
    return {
        "v": 1, "id": request["id"], "name": name, "kind": kind, "steps": checked_steps(request),
        "cwd": checked_cwd(home, kind, request.get("cwd")), "port": port, "model": request.get("model") or "",
        "engine": request.get("engine") or "", "gpus": list(request.get("gpus") or ()), "health": health,
        "meta": request.get("meta") or {}, "created_at": time.time(),
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
        table = Table(home)
        folder = find_folder(home, spec["id"])
        if folder is not None:
            if folder.damaged:
                raise Fault("damaged", folder.damaged)
            if not never_ran(folder, table):
                return True
            launch(home, folder, folder.run, request, beat)
            return False
        if table.of(spec["id"]):
            raise Fault("orphaned", f"processes of {spec['id']} run without a record; stop it first")
        living, ended = sorted_out(home, spec["kind"], table)
        for other in living:
            if other.spec["name"] == spec["name"]:
                raise Fault("name_taken", f"an {other.kind} named {spec['name']} runs already")
        sweep(home, spec["kind"], ended[KEEP_ENDED - 1 :])
        port = choose_port(spec["port"], reserved_ports(home)) if spec["kind"] == "endpoint" else None
        run = new_run(1, port)
        launch(home, make_folder(home, spec, run, request), run, request, beat)
    return False


def never_ran(folder: Folder, table: Table) -> bool:
    """Whether a start was cut off between making the folder and starting anything."""
    facts = base_facts(folder, table, 0)
    return not any(facts[key] for key in ("pid", "exit", "stop_at", "monitor_alive", "strays"))


def sorted_out(home: str, kind: str, table: Table) -> tuple[list[Folder], list[Folder]]:
    """(those that run or may, those that have ended) of a kind, newest first; damaged ones are neither."""
    living, ended = [], []
    for folder in folders(home, kind):
        if not folder.damaged:
            facts = base_facts(folder, table, 0)
            (living if facts["alive"] or facts["monitor_alive"] or facts["strays"] else ended).append(folder)
    return living, ended


def reserved_ports(home: str) -> dict[int, str]:
    """Ports of endpoints that live: a loading one has not bound its port yet."""
    living = [folder for folder in folders(home, "endpoint") if not folder.damaged and not folder.ended()]
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


def launch(home: str, folder: Folder, run: Json, request: Json, beat: Callable[[], None]) -> None:
    """Start the monitor of a generation and wait until it has started the first step."""
    import select
    import subprocess

    run["monitor"] = new_run(1, None)["monitor"]
    write_json(folder.file("run.json"), run)
    write_file(folder.file("monitor.py"), request["monitor"].encode())
    serve_env, fetch_env = environments(folder.kind)
    given = {
        "home": home, "kind": folder.kind, "env": serve_env, "fetch_env": fetch_env,
        "secrets": request.get("secrets") or {}, "umask": request["umask"] if folder.kind == "job" else 0o077,
    }  # fmt: skip
    told, tell = os.pipe()
    with open(os.open(folder.file("monitor.log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "wb") as log:
        monitor = subprocess.Popen(
            [sys.executable, "-I", "-S", folder.file("monitor.py"), folder.path, str(tell)],
            stdin=subprocess.PIPE, stdout=log, stderr=log, cwd="/", start_new_session=True, pass_fds=(tell,),
            env={name: value for name, value in serve_env.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")},
        )  # fmt: skip
    os.close(tell)
    try:
        monitor.communicate(json.dumps(given).encode()) if False else send(monitor, given)
    except BrokenPipeError:
        pass  # it ended at once; monitor.log has why, and the facts say that it is gone
    deadline = time.monotonic() + 20.0
    while not select.select([told], [], [], 0.5)[0] and time.monotonic() < deadline:
        beat()
    os.close(told)
