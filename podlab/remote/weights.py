"""The model files on this pod: which there are, whether they are whole, deleting them. One request in, JSON lines out.

Standard library only, Python 3.8 or newer; sent as the supervisor is, with machine.py, records.py and hashing.py, and
spoken to in the same way: {"v": 1, "op": "list", "home": ..., "models": ...} on standard input. Under the folder for
models lie

    OWNER/REPO/REVISION/...             what download.py and snapshot.py brought: a repository's files, .gguf files
    NAME.gguf, NAME/config.json, ...    what was sent from somebody's computer, or converted here
    X.podlab.json, X.part, X.lock       beside a file: what it was checked against; what has come of it; who fetches it
    .podlab-cache.json                  how much all of it may take

A model's name is what `model start` takes: hf:OWNER/REPO[@REVISION][/FILE.gguf], pod:/PATH.gguf, pod:/PATH/.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time

from podlab.remote.hashing import hash_file, hasher
from podlab.remote.machine import Fault, Table, read_json, write_json
from podlab.remote.records import folders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from podlab.remote.machine import Json

PROTOCOL = 1
MANIFEST, FOLDER_LOCK, CACHE = "podlab-snapshot.json", ".podlab.lock", ".podlab-cache.json"
RECORD, PART, LOCK = ".podlab.json", ".part", ".lock"
OURS = (RECORD, PART, PART + ".json", LOCK)
SPLIT = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf$")
PROGRESS_S = 0.25
MOST_THREADS = 4


def emit(**fields: object) -> None:
    """Send one line."""
    sys.stdout.write(json.dumps({"v": PROTOCOL, **fields}) + "\n")
    sys.stdout.flush()


# ------------------------------------------------------------------------------------------------ what is there


class File:
    """One file of a model: what is there of it, and what it was checked against once."""

    def __init__(self, folder: str, name: str) -> None:
        self.folder, self.name = folder, name
        self.path = os.path.join(folder, name)
        self.now = stat_of(self.path)
        part = stat_of(self.path + PART)
        self.part_bytes = part.st_size if part else 0
        self.record: Json = {}
        try:
            self.record = read_json(self.path + RECORD) or {}
        except (OSError, ValueError):
            pass  # a damaged record is none: the file counts as not checked

    @property
    def digest(self) -> str:
        """What it was checked against when it came, "sha256:HEX" or "git:HEX"; "" when it never was."""
        return str(self.record.get("digest") or "")

    def checked(self) -> bool:
        """Whether it is what was checked, by its size and time."""
        if self.now is None or not self.digest:
            return False
        return (self.record.get("size"), self.record.get("mtime_ns")) == (self.now.st_size, self.now.st_mtime_ns)

    def told(self) -> Json:
        """For the client."""
        return {"name": self.name, "path": self.path, "bytes": self.now.st_size if self.now else 0,
                "part_bytes": self.part_bytes, "digest": self.digest, "checked": self.checked()}  # fmt: skip


class Model:
    """Files that are served together. `folder` is set when they are a folder, which is then what is served."""

    def __init__(self, id: str, files: list[File], folder: str = "", revision_folder: str = "") -> None:
        self.id, self.files, self.folder = id, files, folder
        self.revision_folder = revision_folder
        """Of what came from the hub: the folder that snapshot.py fills and locks."""
        self.manifest: Json = {}
        if folder:
            try:
                self.manifest = read_json(os.path.join(folder, MANIFEST)) or {}
            except (OSError, ValueError):
                pass

    @property
    def path(self) -> str:
        """What an engine is given."""
        return self.folder or self.files[0].path

    def state(self) -> str:
        """ "whole", "selected" (of a repository only some files, on purpose), or "partial" (a download was cut)."""
        if any(file.now is None or file.part_bytes for file in self.files):
            return "partial"
        split = SPLIT.match(self.files[0].name)
        if split and len(self.files) < int(split.group(3)):
            return "partial"
        if not self.revision_folder or not self.folder:
            return "whole"
        listed = self.manifest.get("files")
        names = {file.name for file in self.files}
        return "whole" if isinstance(listed, list) and {n for n in listed if n[-5:] != ".gguf"} <= names else "selected"

    def commit(self) -> str:
        """The one commit it is of, "" when it is not known or they differ."""
        commits = {str(file.record.get("commit") or "") for file in self.files if file.record}
        found = str(self.manifest.get("commit") or "") or (commits.pop() if len(commits) == 1 else "")
        return found[:64]

    def own_locks(self) -> list[str]:
        """The locks that a start with it holds for a moment, and so touches."""
        if not self.folder:
            return [file.path + LOCK for file in self.files]
        return [os.path.join(self.folder, FOLDER_LOCK)]

    def locks(self) -> list[str]:
        """Those and the one that a download of the whole repository holds."""
        whole = [os.path.join(self.revision_folder, FOLDER_LOCK)] if self.revision_folder else []
        return sorted({*self.own_locks(), *whole})

    def last_used(self) -> float:
        """When it came or was last wanted: each start looks for it under its lock."""
        times = [now.st_mtime for now in map(stat_of, self.own_locks()) if now]
        times += [file.now.st_mtime for file in self.files if file.now]
        return max(times, default=0.0)

    def size(self) -> int:
        """Bytes it takes, parts of downloads included."""
        return sum((file.now.st_size if file.now else 0) + file.part_bytes for file in self.files)

    def paths(self) -> set[str]:
        """What a command line that uses it may name."""
        named = {self.path, self.folder, self.revision_folder, *(file.path for file in self.files)} - {""}
        return named | {os.path.realpath(path) for path in named}


def stat_of(path: str) -> os.stat_result | None:
    """What is at a path; None for nothing, and for what is no regular file."""
    try:
        now = os.stat(path)
    except OSError:
        return None
    return now if os.path.isfile(path) else None


def names_in(folder: str) -> list[str]:
    """Names of the files of models below a folder, relative to it; those of which only a part is there, too."""
    found = set()
    for base, below, files in os.walk(folder):
        below[:] = [name for name in below if not name.startswith(".")]
        for file in files:
            name = os.path.relpath(os.path.join(base, file), folder)
            if name.endswith(PART):
                found.add(name[: -len(PART)])
            elif not name.endswith(OURS) and file != MANIFEST and not file.startswith("."):
                found.add(name)
    return sorted(found)


def models_in(models: str) -> Iterator[Model]:
    """Every model below the folder for models."""
    names = sorted(os.listdir(models)) if os.path.isdir(models) else []
    lone = [File(models, n) for n in names if n.endswith(".gguf") and os.path.isfile(os.path.join(models, n))]
    yield from ggufs(lone, "pod:" + models + "/")
    for name in names:
        folder = os.path.join(models, name)
        if name.startswith(".") or not os.path.isdir(folder):
            continue
        if os.path.isfile(os.path.join(folder, "config.json")):
            yield Model(f"pod:{folder}/", [File(folder, each) for each in names_in(folder)], folder)
            continue
        for repo in folders_in(folder):
            for revision in folders_in(os.path.join(folder, repo)):
                at = "" if revision == "main" else "@" + revision
                yield from of_revision(os.path.join(folder, repo, revision), f"hf:{name}/{repo}{at}")


def folders_in(folder: str) -> list[str]:
    """Names of the folders in a folder."""
    return sorted(n for n in os.listdir(folder) if n[0] != "." and os.path.isdir(os.path.join(folder, n)))


def of_revision(folder: str, id: str) -> Iterator[Model]:
    """What is there of a repository: each .gguf file is a model of its own, the rest is one."""
    files = [File(folder, name) for name in names_in(folder)]
    alone = [file for file in files if file.name.endswith(".gguf")]
    rest = [file for file in files if not file.name.endswith(".gguf")]
    yield from ggufs(alone, id + "/", folder)
    if rest:
        yield Model(id, rest, folder, folder)


def ggufs(files: list[File], prefix: str, revision_folder: str = "") -> Iterator[Model]:
    """.gguf files as models, the parts of a split one together, named by the first."""
    groups: dict[str, list[File]] = {}
    for file in files:
        split = SPLIT.match(file.name)
        name = f"{split.group(1)}-00001-of-{split.group(3)}.gguf" if split else file.name
        groups.setdefault(name, []).append(file)
    for name, group in groups.items():
        yield Model(prefix + name, sorted(group, key=lambda file: file.name), "", revision_folder)


# ------------------------------------------------------------------------------------------------ who uses it


class Users:
    """Who names which files: living endpoints and jobs of ours, and any process's command line."""

    def __init__(self, home: str) -> None:
        self.named: list[tuple[str, set[str]]] = []
        self.wanted_at: list[tuple[float, set[str]]] = []
        """Of endpoints that have ended too: when they were started."""
        table = Table(home)
        living: set[str] = set()
        for folder in (*folders(home, "endpoint"), *folders(home, "job")):
            if folder.damaged:
                continue
            words = {word.replace("{home}", home) for step in folder.spec["steps"] for word in step["argv"]}
            self.wanted_at.append((float(folder.run["created_at"]), words))
            if not folder.ended():
                living.add(folder.id)
                self.named.append((str(folder.spec["name"]), words))
        for pid in table.rows:
            if table.marks.get(pid) not in living:
                line = command_line(pid)
                if line:
                    self.named.append((f"{os.path.basename(line[0])[:40]} (pid {pid})", set(line)))

    def of(self, model: Model) -> list[str]:
        """Who uses it now."""
        paths = model.paths()
        found = [who for who, words in self.named if any(is_one(word, paths) for word in words)]
        if not found and any(map(is_held, model.locks())):
            found.append("a download")
        return found

    def last(self, model: Model) -> float:
        """When an endpoint was last started with it."""
        paths = model.paths()
        return max((at for at, words in self.wanted_at if any(is_one(word, paths) for word in words)), default=0.0)


def command_line(pid: int) -> list[str]:
    """The words of a process's command line; none where they cannot be read."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return [os.fsdecode(word) for word in file.read(2**20).split(b"\0") if word]
    except OSError:
        return []


def is_one(word: str, paths: set[str]) -> bool:
    """Whether a word of a command line is one of these paths: /path, /path/, --model=/path."""
    path = word.partition("=")[2] if word.startswith("-") else word
    return path.startswith("/") and path.rstrip("/") in paths


def is_held(lock: str) -> bool:
    """Whether somebody holds a lock file."""
    import fcntl

    try:
        with open(lock, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


# ------------------------------------------------------------------------------------------------ requests


def models_of(request: Json) -> str:
    """The folder for models, absolute, without links: names of models are made of it."""
    path = request["models"]
    if not isinstance(path, str) or not os.path.isabs(path) or "\0" in path:
        raise Fault("bad_request", f"{path!r:.200} is no folder for models")
    return os.path.realpath(path)


def list_models(request: Json) -> None:
    """Every model, and the disk. With `if_quota` nothing where there is no quota."""
    models = models_of(request)
    if request.get("if_quota") and quota_of(models) is None:
        emit(done=True)
        return
    users = Users(request["home"])
    for model in models_in(models):
        emit(model={
            "id": model.id, "path": model.path, "format": "safetensors" if model.folder else "gguf",
            "state": model.state(), "commit": model.commit(), "bytes": model.size(),
            "last_used": max(model.last_used(), users.last(model)), "used_by": users.of(model)[:20],
            "files": [file.told() for file in model.files[:5000]],
        })  # fmt: skip
    existing = models
    while not os.path.isdir(existing):
        existing = os.path.dirname(existing)
    disk = os.statvfs(existing)
    emit(disk={"models": models, "free_bytes": disk.f_bavail * disk.f_frsize,
               "total_bytes": disk.f_blocks * disk.f_frsize, "quota_bytes": quota_of(models)})  # fmt: skip
    if request.get("others"):
        for other in others():
            emit(other=other)
    emit(done=True)


def quota_of(models: str) -> int | None:
    """How much the models may take; None where nobody said."""
    try:
        value = (read_json(os.path.join(models, CACHE)) or {}).get("quota_bytes")
    except (OSError, ValueError):
        return None
    return value if isinstance(value, int) and value > 0 else None


def set_quota(request: Json) -> None:
    """Write how much the models may take, or that it is as much as there is room."""
    models = models_of(request)
    os.makedirs(models, exist_ok=True)
    write_json(os.path.join(models, CACHE), {"v": 1, "quota_bytes": request["quota_bytes"]})
    emit(done=True)


def others() -> Iterator[Json]:
    """Models in huggingface_hub's own cache, which belongs to others and is only looked at."""
    home = os.environ.get("HF_HOME") or os.path.join(os.path.expanduser("~"), ".cache", "huggingface")
    cache = os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")
    for name in sorted(os.listdir(cache)) if os.path.isdir(cache) else ():
        if not name.startswith("models--"):
            continue
        size, last = 0, 0.0
        for base, _, files in os.walk(os.path.join(cache, name, "blobs")):
            for now in (stat_of(os.path.join(base, file)) for file in files):
                if now:
                    size, last = size + now.st_size, max(last, now.st_atime, now.st_mtime)
        yield {"id": name[len("models--") :].replace("--", "/"), "path": os.path.join(cache, name), "bytes": size,
               "last_used": last}  # fmt: skip


def verify(request: Json) -> None:
    """Hash files and say of each whether it is what it should be. A damaged one is fetched anew at its next download,
    for its record is taken away.

    Each of `files` is {"path": ..., "digest": "sha256:HEX" | "git:HEX" | ""}.
    """
    from concurrent.futures import ThreadPoolExecutor

    models = models_of(request)
    hashed = [0]

    def heard(count: int) -> None:
        hashed[0] += count  # a lost update under threads costs a little of a progress bar

    wanted = [(inside(models, each["path"]), str(each["digest"])) for each in request["files"]]
    threads = min(MOST_THREADS, os.cpu_count() or 1, max(1, len(wanted)))
    with ThreadPoolExecutor(threads) as pool:
        work = [(path, pool.submit(state_of, path, digest, heard)) for path, digest in wanted]
        for path, future in work:
            while not future.done():
                emit(hashed=hashed[0])
                wait(future.done)
            state, found = future.result()
            emit(file={"path": path, "state": state, "digest": found})
    emit(done=True)


def wait(done: Callable[[], bool]) -> None:
    """Until something is done, PROGRESS_S at most."""
    until = time.monotonic() + PROGRESS_S
    while not done() and time.monotonic() < until:
        time.sleep(0.01)


def state_of(path: str, digest: str, heard: Callable[[int], None]) -> tuple[str, str]:
    """("ok" | "damaged" | "missing" | "unreadable" | "unknown", the digest it has). "unknown": nothing to hold it
    against."""
    now = stat_of(path)
    if now is None:
        return "missing", ""
    kind = "git:" if digest.startswith("git:") else "sha256:"
    try:
        found = kind + hash_file(path, hasher(digest, now.st_size), heard).hexdigest()
    except OSError as error:  # a disk that cannot read a block of it
        forget(path)
        return "unreadable", f"{error.strerror}"
    if not digest:
        return "unknown", found
    if found == digest:
        return "ok", found
    forget(path)
    return "damaged", found


def forget(path: str) -> None:
    """Take away the record that a file was checked."""
    if os.path.exists(path + RECORD):
        os.unlink(path + RECORD)


def inside(models: str, path: object) -> str:
    """A path of a file below the folder for models. Raises Fault for any other."""
    if not isinstance(path, str) or not os.path.realpath(path).startswith(models + os.sep):
        raise Fault("bad_request", f"{path!r:.200} is not below {models}")
    return path


def delete(request: Json) -> None:
    """Delete models by their names, all or none: one that is used or fetched is refused."""
    models = models_of(request)
    users, found = Users(request["home"]), {model.id: model for model in models_in(models)}
    for wanted in request["ids"]:
        if wanted not in found:
            raise Fault("unknown_id", f"there is no model {wanted!r:.300} here")
        who = users.of(found[wanted])
        if who:
            raise Fault("alive", f"{wanted} is used by {', '.join(who[:5])}")
    for wanted in request["ids"]:
        emit(deleted={"id": wanted, "bytes": delete_one(models, found[wanted])})
    emit(done=True)


def delete_one(models: str, model: Model) -> int:
    """The bytes that it frees: a file with another name elsewhere stays on the disk."""
    import fcntl

    held = []
    for lock in model.locks():
        if os.path.exists(lock):
            opened = open(lock, "rb")  # noqa: SIM115 - closing it would let go of the lock
            held.append(opened)
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Fault("alive", f"{model.id} is being downloaded")
    freed = 0
    if model.folder and os.path.exists(os.path.join(model.folder, MANIFEST)):
        os.unlink(os.path.join(model.folder, MANIFEST))  # first: from here on it does not count as whole
    for file in model.files:
        for suffix in (RECORD, "", PART, PART + ".json", LOCK):
            path = file.path + suffix
            if os.path.lexists(path):
                now = os.lstat(path)
                freed += now.st_size if now.st_nlink == 1 else 0
                os.unlink(path)
    remove_empty(models, model)
    for each in held:
        each.close()
    return freed


def remove_empty(models: str, model: Model) -> None:
    """The folders that held nothing else, up to the folder for models. A lock goes with the last file it is for."""
    top = model.revision_folder or model.folder
    if top and os.path.isdir(top) and not names_in(top):
        lock = os.path.join(top, FOLDER_LOCK)
        if os.path.exists(lock):
            os.unlink(lock)
    places = {os.path.dirname(file.path) for file in model.files} | {top or models}
    for place in sorted(places, key=len, reverse=True):
        while place.startswith(models + os.sep):
            try:
                os.rmdir(place)
            except OSError:
                break
            place = os.path.dirname(place)


OPS = {"list": list_models, "quota": set_quota, "verify": verify, "delete": delete}


def main() -> None:
    """Read one request, answer it."""
    os.umask(0o077)
    try:
        request = json.loads(sys.stdin.buffer.readline().decode("utf-8"))
        if request.get("v") != PROTOCOL or request.get("op") not in OPS:
            raise Fault("bad_request", f"protocol {request.get('v')!r:.20} or op {request.get('op')!r:.40} is unknown")
        OPS[request["op"]](request)
    except Fault as fault:
        emit(error={"kind": fault.kind, "message": str(fault)})
    except OSError as error:
        emit(error={"kind": "os", "message": f"{error.strerror or error}: {error.filename or ''}"[:600]})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        emit(error={"kind": "internal", "message": f"{error!r:.300}"})


if __name__ == "__main__":
    main()
