"""podlab's own side of a pod: one request in, JSON lines out, nothing kept running.

Standard library only, Python 3.8 or newer. It is sent to the pod's Python on standard input, followed by one line with
the request: {"v": 1, "op": "list", "home": null, ...}. Every answer is a line {"v": 1, ...}; an error is
{"v": 1, "error": {"kind": ..., "message": ...}}. Long answers contain {"v": 1, "beat": time} at least every 3 s.

Where things lie is told in records.py. Of a request's secrets, the endpoint's key goes into a file of its folder, the
others through a pipe to the monitor; none into an argv.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time

from podlab.remote.machine import Fault, Table, private_folder, read_part
from podlab.remote.records import (
    ID,
    STREAMS,
    Folder,
    checked,
    find_folder,
    folders,
    ownerless_facts,
    the_folder,
    this_boot,
)
from podlab.remote.streams import cut_of, read_stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from podlab.remote.machine import Json

PROTOCOL = 1
BEAT_S = 2.5
READY_LOOK_S = 0.03
PIECE_BYTES = 48 * 1024
TAIL_BYTES = 2**20
_output = {"last": 0.0, "must_arrive": True}


def emit(**fields: object) -> None:
    """Send one line. When nobody listens any more: end, unless what is under way has to be finished."""
    try:
        sys.stdout.write(json.dumps({"v": PROTOCOL, **fields}) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if _output["must_arrive"]:
            os._exit(0)
    _output["last"] = time.monotonic()


def beat() -> None:
    """Say that we are still there, if nothing was said for a while."""
    if time.monotonic() - _output["last"] > BEAT_S:
        emit(beat=time.time())


def finish_without_listener() -> None:
    """From here on neither a lost link nor a hang-up ends us half-way."""
    import signal

    _output["must_arrive"] = False
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # not SIG_IGN: what we start would inherit that and ignore TERM too


# ------------------------------------------------------------------------------------------------ the machine


def machine_id() -> str:
    """What tells this machine from others that share its home folder."""
    from podlab.remote.machine import first_line

    found = first_line("/etc/machine-id")
    if not ID.fullmatch(found):
        found = re.sub(r"[^0-9A-Za-z-]", "-", f"{os.uname().nodename}-{this_boot().split('.')[0]}")
    return found[:64]


def home_of(request: Json) -> str:
    """The pod's home of podlab, which may not be there yet."""
    home = request.get("home") or os.environ.get("PODLAB_POD_HOME") or f"~/.podlab/pod/{machine_id()}"
    path = os.path.expanduser(home)
    if not os.path.isabs(path) or "\0" in path:
        raise Fault("bad_request", f"the home {home!r:.200} is no absolute path")
    return os.path.realpath(path) if not os.path.islink(path) else path  # a link itself is refused where we write


def memory_bytes() -> int | None:
    """Of the machine, or of the container where that is less."""
    from podlab.remote.machine import first_line

    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
    limit = first_line("/sys/fs/cgroup/memory.max")
    return min(total, int(limit)) if limit.isdigit() else total


def nvidia_gpus() -> int:
    """How many there are, by their device files; a container has those of its own GPUs only."""
    try:
        return sum(bool(re.fullmatch(r"nvidia\d+", name)) for name in os.listdir("/dev"))
    except OSError:
        return 0


def hello(request: Json) -> None:
    """The machine. Writes nothing."""
    home = existing = home_of(request)
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing)
    disk, uname = os.statvfs(existing), os.uname()
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    emit(
        protocol=PROTOCOL, python=".".join(map(str, sys.version_info[:3])), python_path=sys.executable,
        machine_id=machine_id(), boot=this_boot(), hostname=uname.nodename, os=uname.sysname, arch=uname.machine,
        home=home, user_home=os.path.expanduser("~"), uid=os.getuid(), cpus=cpus, memory_bytes=memory_bytes(),
        free_bytes=disk.f_bavail * disk.f_frsize, now=time.time(), gpus=nvidia_gpus(),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ looking


def list_endpoints(request: Json) -> None:
    """Every endpoint, and every mark of this home that no readable record owns."""
    home = home_of(request)
    found = folders(home, "endpoint")
    table = Table(home)
    place = f"{machine_id()} {home}"
    for facts in checked(found, table):
        emit(facts=dict(facts, place=place))
    known = {folder.id for folder in found} | {folder.id for folder in folders(home, "job")}
    for mark in sorted(set(table.marks.values()) - known):
        if ID.fullmatch(mark):
            emit(facts=dict(ownerless_facts(mark, table), place=place))
    emit(done=True, gpus=nvidia_gpus())


def list_jobs(request: Json) -> None:
    """Every job."""
    home = home_of(request)
    for facts in checked(folders(home, "job"), Table(home)):
        emit(facts=facts)
    emit(done=True)


def facts_now(home: str, id: object, lines: int = 60) -> Json:
    """Facts of one endpoint, job or orphan. Raises Fault for an id nobody knows."""
    folder = find_folder(home, id)
    table = Table(home)
    if folder is not None:
        return checked([folder], table, lines)[0]
    facts = ownerless_facts(str(id), table)
    if not facts["orphan"]:
        raise Fault("unknown_id", f"there is no endpoint or job {id}")
    return facts


def status(request: Json) -> None:
    """Some endpoints or jobs, in the order of their ids."""
    home, ids = home_of(request), list(request["ids"])
    found = [find_folder(home, each) for each in ids]
    table = Table(home)
    known = {facts["id"]: facts for facts in checked([folder for folder in found if folder is not None], table)}
    answers = [known.get(each) or ownerless_facts(each, table) for each in ids]
    for facts in answers:
        if facts["id"] not in known and not facts["orphan"]:
            raise Fault("unknown_id", f"there is no endpoint or job {facts['id']}")
    for facts in answers:
        emit(facts=facts)
    emit(done=True)


def has_ended(facts: Json) -> bool:
    """Whether there is nothing left to wait for in an endpoint's or job's present generation."""
    return not facts.get("alive") and (facts.get("exit") is not None or not facts.get("monitor_alive"))


def watch(request: Json) -> None:
    """A line whenever facts change, until it is ready, has ended, or time is up."""
    home, wanted, until = home_of(request), request["id"], request.get("until", "ready")
    deadline = time.monotonic() + float(request["timeout_s"])
    shown = None
    pause_s = 0.1
    while True:
        facts = facts_now(home, wanted, 8)
        end = "ended" if has_ended(facts) else ""
        if not end and until == "ready" and facts["answers_as_ready"]:
            end = "ready"
        if not end and time.monotonic() >= deadline:
            end = "timeout"
        if end:
            return emit(facts=facts_now(home, wanted) if end == "ended" else facts, end=end)
        steady = {key: value for key, value in facts.items() if key != "now"}
        if steady != shown:
            emit(facts=facts)
            shown, pause_s = steady, 0.1
        beat()
        wait_for_ready(home, facts, min(pause_s, max(0.0, deadline - time.monotonic())))
        pause_s = min(pause_s * 1.2, 0.5)  # what does not change is looked at less often


def wait_for_ready(home: str, facts: Json, limit_s: float) -> None:
    """Wait until the monitor notes that it is ready, which is cheaper to look for than all facts, but not longer."""
    noted = os.path.join(home, facts["kind"] + "s", facts["id"], f"ready.{facts['generation']}.json")
    until = time.monotonic() + limit_s
    known = os.path.exists(noted)
    while (left_s := until - time.monotonic()) > 0 and os.path.exists(noted) == known:
        time.sleep(min(READY_LOOK_S, left_s))


def stream_of(request: Json, folder: Folder) -> str:
    """The stream that is asked for."""
    stream = str(request.get("stream"))
    if stream not in STREAMS[folder.kind]:
        raise Fault("bad_request", f"{stream!r:.40} is no stream of a {folder.kind}")
    return stream


def follow(request: Json) -> None:
    """The bytes of a stream from a position on, over restarts, until it has ended (or for ever)."""
    home, wanted = home_of(request), request["id"]
    generation, offset = int(request.get("generation") or 1), int(request.get("offset") or 0)
    folder = the_folder(home, wanted)
    stream = stream_of(request, folder)
    if not 1 <= generation <= folder.generation or not offset >= 0:
        raise Fault("bad_request", f"there is no generation {generation} yet")
    pause_s = 0.02
    while True:
        # First whether it has ended, then what it wrote: the other way round its last words could be missed.
        folder = the_folder(home, wanted)
        over = generation < folder.generation or folder.ended()
        path = folder.stream(stream, generation)
        begin, data, size = read_stream(path, offset, PIECE_BYTES)
        if size < offset and not cut_of(path)[1]:
            raise Fault("log_cut", f"{stream} of generation {generation} has {size} bytes, fewer than {offset}")
        if data or begin > offset:
            emit_piece(generation, begin, data, dropped=begin - offset)
            offset, pause_s = begin + len(data), 0.02
        elif generation < folder.generation:
            generation, offset = generation + 1, 0
        elif over and request.get("until_exit", True):
            return emit(end=the_folder(home, wanted).exit or {"status": None, "signal": None, "at": None})
        else:
            beat()
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.2)


def emit_piece(generation: int, offset: int, data: bytes, **more: object) -> None:
    """Bytes of a stream and where they begin."""
    import binascii  # base64 itself imports much more

    emit(g=generation, o=offset, d=binascii.b2a_base64(data, newline=False).decode(), **more)


def tail(request: Json) -> None:
    """The end of a stream: since a byte, since a time, or some last lines."""
    folder = the_folder(home_of(request), request["id"])
    stream, generation = stream_of(request, folder), int(request.get("generation") or folder.generation)
    path = folder.stream(stream, generation)
    offset, since = request.get("offset"), request.get("since")
    if offset is not None:
        begin, data, size = read_stream(path, max(0, int(offset)), TAIL_BYTES)
        return emit_piece(generation, begin, data, size=size, dropped=begin - max(0, int(offset)))
    first, data, size = read_stream(path, -TAIL_BYTES, TAIL_BYTES)
    begin = first
    if since is not None:
        begin = max(begin, offset_at(folder, stream, generation, float(since)))
    else:
        count, at = int(request.get("lines") or 200), len(data)
        while count and at > 0:
            at, count = data.rfind(b"\n", 0, at - 1) + 1, count - 1
        begin += max(0, at)
    dropped = begin if begin == cut_of(path)[0] else 0  # what comes before was dropped, not left out
    return emit_piece(generation, begin, data[begin - first :], size=size, dropped=dropped)


def offset_at(folder: Folder, stream: str, generation: int, since: float) -> int:
    """Where a stream's file ended at a time or a little before, from what the monitor noted now and then."""
    noted, _ = read_part(folder.file(f"marks.{generation}"), -(2**22), 2**22)
    column, offset = 1 + STREAMS[folder.kind].index(stream), 0
    for line in noted.decode("ascii", "replace").splitlines():
        fields = line.split()
        try:
            if float(fields[0]) > since:
                break
            offset = int(fields[column])
        except (ValueError, IndexError):
            continue  # cut at the beginning of what we read
    return offset


# ------------------------------------------------------------------------------------------------ changing


def writable_home(request: Json) -> str:
    """The home, made if missing and closed to others."""
    home = home_of(request)
    for path in (home, os.path.join(home, "endpoints"), os.path.join(home, "jobs")):
        private_folder(path)
    return home


def start(request: Json) -> None:
    """Start an endpoint or a job; nothing when its id is there already."""
    from podlab.remote.changes import start_once

    finish_without_listener()
    home = writable_home(request)
    existed = start_once(home, request, beat)
    emit(facts=facts_now(home, request["id"]), existed=existed)


def stop(request: Json) -> None:
    """End it and everything it left. With `cancel` it is never started, should the request to start it come later."""
    from podlab.remote.changes import cancel, stop_all

    finish_without_listener()
    home = home_of(request)
    if request.get("cancel"):
        home = writable_home(request)
        cancel(home, request["id"], beat)
    was_running, killed = stop_all(home, request, emit, beat)
    try:
        facts = facts_now(home, request["id"])
    except Fault:  # it was an orphan, and now nothing of it is left
        facts = ownerless_facts(request["id"], Table(home))
    emit(facts=facts, was_running=was_running, killed=killed)


def restart(request: Json) -> None:
    """The next generation of what was started once."""
    from podlab.remote.changes import restart_once

    finish_without_listener()
    home = writable_home(request)
    existed = restart_once(home, request, emit, beat)
    emit(facts=facts_now(home, request["id"]), existed=existed)


def adopt(request: Json) -> None:
    """Put a server on record that runs without one."""
    from podlab.remote.adoption import adopt as put_on_record

    finish_without_listener()
    home = writable_home(request)
    emit(facts=facts_now(home, put_on_record(home, request, beat)))


def remove(request: Json) -> None:
    """Delete the folder of what has ended."""
    from podlab.remote.changes import remove_ended

    finish_without_listener()
    remove_ended(home_of(request), request, beat)
    emit(done=True)


OPS: dict[str, Callable[[Json], None]] = {
    "hello": hello, "list": list_endpoints, "jobs": list_jobs, "status": status, "watch": watch, "follow": follow,
    "tail": tail, "start": start, "stop": stop, "restart": restart, "remove": remove,
    "adopt": adopt,
}  # fmt: skip


def main() -> None:
    """Read one request, answer it."""
    umask = os.umask(0o077)
    try:
        request = json.loads(sys.stdin.buffer.readline().decode("utf-8"))
        if request.get("v") != PROTOCOL or request.get("op") not in OPS:
            raise Fault("bad_request", f"protocol {request.get('v')!r:.20} or op {request.get('op')!r:.40} is unknown")
        OPS[request["op"]](dict(request, umask=umask))
    except Fault as fault:
        emit(error={"kind": fault.kind, "message": str(fault)})
    except OSError as error:
        emit(error={"kind": "os", "message": f"{error.strerror or error}: {error.filename or ''}"[:600]})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        import traceback

        at = traceback.extract_tb(error.__traceback__)[-1]
        emit(error={"kind": "internal", "message": f"{error!r:.300} in {at.name}, line {at.lineno}"})


if __name__ == "__main__":
    main()
