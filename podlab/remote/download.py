"""Fetch a model file from the Hugging Face Hub to this pod. Standard library, Python 3.8.

    download.py --dir D --repo OWNER/REPO --revision REV --file F.gguf --to PATH [--sha256 HEX] [--size BYTES] [--force]
                [--plan]

For the first part of a split file (NAME-00001-of-00003.gguf) all parts are fetched. HF_ENDPOINT names another hub; a
token is taken from HF_TOKEN only and sent to the hub's own host only. hashing.py, hub_requests.py and pieces.py lie
beside this file. What was fetched is checked against the hub's
digest (X-Linked-ETag: the file's SHA-256; a plain file's ETag: its git blob id) before it gets its name, and
PATH.podlab.json says what was checked. A cut download goes on where it stopped (PATH.part). A large file comes over
several connections, put together in order, and is hashed while it comes. Progress goes to D/progress.json, with bytes
of each file; a failure is one line, `podlab: <cause>: <reason>`, and exit status 1. Calling it again when all is there
asks the hub once, and works without the hub too; with --force it is fetched anew, and the old file stays until then.
With --plan it only says how many bytes would come, as {"need": BYTES}.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import http.client
import json
import os
import random
import re
import shutil
import sys
import time
import urllib.error
import urllib.parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from podlab.remote.hashing import Follower, hash_file, hasher
    from podlab.remote.hub_requests import HUB, Failure, Remote, Transient, ask, explain, host_of, refused
    from podlab.remote.pieces import WORTH_BYTES, fetch_in_pieces, write_all
else:
    from hashing import Follower, hash_file, hasher
    from hub_requests import HUB, Failure, Remote, Transient, ask, explain, host_of, refused
    from pieces import WORTH_BYTES, fetch_in_pieces, write_all

CHUNK_BYTES = 1 << 20
FILES_TOLD = 500
SPARE_BYTES = 64 << 20
TRIES = 6
BACKOFF_S = float(os.environ.get("PODLAB_BACKOFF_S", "0.5"))


class Meter:
    """Tells progress.json how far it is, twice a second at most."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, "progress.json")
        self.text = ""
        self.before = 0
        """Bytes of the parts that are done."""
        self.have = 0
        """Bytes of the part in progress."""
        self.total: int | None = None
        self.files: dict[str, list[Any]] = {}
        """Of each file that is meant: bytes that are here, bytes in all (None: not known)."""
        self.name = ""
        self.began = time.monotonic()
        self.fetched = 0
        """Bytes that came over the line in this run."""
        self._last = 0
        self._next = 0.0

    def expect(self, name: str, have: int, total: int | None) -> None:
        """A file that is meant, of which `have` bytes are here already."""
        self.files[name] = [have, total]

    def begin(self, name: str, have: int) -> None:
        """The file in progress from here on."""
        self.name, self._last = name, have

    def say(self, text: str) -> None:
        """A new line for people, in the log too."""
        self.text = text
        print(text, flush=True)
        self.show(now=True)

    def at(self, have: int) -> None:
        """Where the part in progress stands."""
        self.fetched += max(0, have - self._last)
        self._last = self.have = have
        if self.name in self.files:
            self.files[self.name][0] = have
        self.show()

    def finish(self, size: int) -> None:
        """The part in progress is done."""
        self.before, self.have = self.before + size, 0
        self.files[self.name] = [size, size]
        self.show(now=True)

    def rate(self) -> float | None:
        """Bytes a second in this run; None in its first moments."""
        took_s = time.monotonic() - self.began
        return self.fetched / took_s if self.fetched and took_s >= 1.0 else None

    def show(self, now: bool = False) -> None:
        """Write progress.json."""
        if now or time.monotonic() >= self._next:
            self._next = time.monotonic() + 0.5
            done = self.before + self.have
            unit = "bytes" if self.total is not None else ""
            files = [[name, *amounts] for name, amounts in list(self.files.items())[:FILES_TOLD]]
            replace_json(self.path, {"text": self.text, "done": done, "total": self.total, "unit": unit,
                                     "rate": self.rate(), "files": files})  # fmt: skip


def replace_json(path: str, value: dict[str, Any]) -> None:
    """Write so that a reader sees the old or the new, never a half."""
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(value, file)
    os.replace(temporary, path)


def read_json(path: str) -> dict[str, Any]:
    """What a file of ours says; nothing when it is missing or damaged."""
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def head(repo: str, revision: str, name: str) -> Remote:
    """Ask the hub about a file. Its own redirects are followed; one to another host is where the bytes are."""
    at = urllib.parse.quote(revision, safe="")
    url = f"{HUB}/{repo}/resolve/{at}/{urllib.parse.quote(name)}"
    seen: dict[str, str] = {}
    for _ in range(5):
        try:
            with ask("HEAD", url, {}) as answer:
                fields, location = answer.headers, None
        except urllib.error.HTTPError as error:
            if error.code not in (301, 302, 303, 307, 308) or not error.headers.get("Location"):
                raise explain(error, repo, name)
            fields, location = error.headers, urllib.parse.urljoin(url, error.headers["Location"])
        for field in ("X-Repo-Commit", "X-Linked-ETag", "X-Linked-Size"):
            seen.setdefault(field, fields.get(field, ""))
            seen[field] = seen[field] or fields.get(field, "")
        if location is None:
            return described(url, seen, fields)
        if host_of(location)[0] not in ("https", host_of(url)[0]):
            raise Failure("no_network", f"the hub leads to {host_of(location)[1]}, which is not https")
        if host_of(location) != host_of(HUB):
            return described(location, seen, {})
        url = location
    raise Failure("no_network", "the hub redirects in a circle")


def described(url: str, seen: dict[str, str], last: Any) -> Remote:
    """The hub's headers as a Remote. `last` are those of an answer with the file itself, empty for a redirect."""
    tag = (seen["X-Linked-ETag"] or last.get("ETag", "")).strip('"').lower()
    kind = "sha256:" if re.match("[0-9a-f]{64}$", tag) else "git:" if re.match("[0-9a-f]{40}$", tag) else ""
    size = seen["X-Linked-Size"] or last.get("Content-Length", "")
    return Remote(url, seen["X-Repo-Commit"], kind + tag if kind else "", int(size) if size.isdigit() else None)


def fetch_from(remote: Remote, repo: str, name: str, part: str, meter: Meter) -> None:
    """Bring `part` to its full size, from where it stands. Raises Transient when the stream ends early."""
    note = read_json(part + ".json")
    have = os.path.getsize(part) if os.path.exists(part) else 0
    if note.get("digest") != remote.digest or note.get("size") != remote.size or (remote.size or 0) < have:
        have = 0
    remote.wrote(have)
    if have and have == remote.size:
        return
    if remote.in_pieces and remote.size is not None and remote.size - have >= WORTH_BYTES:
        if fetch_in_pieces(
            remote, repo, name, part, have, str(note.get("etag") or ""), meter.at,
            lambda etag: note_part(part, remote, etag),
        ):  # fmt: skip
            return
        remote.in_pieces = False
    headers = {"Range": f"bytes={have}-"} if have else {}
    if have and note.get("etag"):
        headers["If-Range"] = note["etag"]
    try:
        answer = ask("GET", remote.url, headers)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            os.unlink(part)
            raise Transient(f"the server refuses to go on at byte {have}")
        raise refused(error, remote, repo, name)
    with answer:
        if answer.status != 206:
            have = 0
        elif not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            os.unlink(part)
            raise Transient("the server goes on somewhere else than asked")
        note_part(part, remote, answer.headers.get("ETag", ""))
        remote.wrote(have)
        receive(answer, part, have, remote, meter)


def note_part(part: str, remote: Remote, etag: str) -> None:
    """Write beside a part what it is a part of; without that it is not gone on with."""
    replace_json(part + ".json", {"digest": remote.digest, "size": remote.size,
                                  "etag": "" if etag.startswith("W/") else etag})  # fmt: skip


def receive(answer: Any, part: str, have: int, remote: Remote, meter: Meter) -> None:
    """The body into `part` from byte `have`. Raises Transient unless it ends at the size it should have."""
    with open(part, "r+b" if have else "wb", 0) as file:
        file.truncate(have)
        file.seek(have)
        while True:
            try:
                data = answer.read1(CHUNK_BYTES)  # what has come, so that a slow line shows
            except (OSError, http.client.HTTPException) as error:
                raise Transient(f"the connection was cut: {error}")
            if not data:
                break
            write_all(file, memoryview(data))
            have += len(data)
            remote.wrote(have)
            if remote.size is not None and have > remote.size:
                raise Failure("no_network", f"the server sends more than the {remote.size} bytes it named")
            meter.at(have)
    if remote.size is not None and have < remote.size:
        raise Transient(f"the connection was cut at byte {have} of {remote.size}")


def verified(path: str, remote: Remote | None) -> bool:
    """Whether `path` is what was checked once and, unless `remote` is None (no hub to ask), what the hub has now."""
    record = read_json(path + ".podlab.json")
    try:
        now = os.stat(path)
    except OSError:
        return False
    if remote is not None and record.get("digest") != remote.digest:
        if record or remote.size not in (None, now.st_size) or not remote.digest:
            return False
        # Somebody put the file there by hand.
        if not matches(path, remote, now.st_size):
            return False
        write_record(path, remote)
        return True
    return bool(record) and (record.get("size"), record.get("mtime_ns")) == (now.st_size, now.st_mtime_ns)


def matches(path: str, remote: Remote, size: int) -> bool:
    """Whether the file has the hub's digest; one without a digest is taken as it is."""
    kind, _, wanted = remote.digest.partition(":")
    return not kind or hash_file(path, hasher(remote.digest, size)).hexdigest() == wanted


def arrived_whole(part: str, remote: Remote) -> bool:
    """Whether what has come has the hub's digest, by what was hashed on the way where that is all of it."""
    size = os.path.getsize(part)
    if remote.follower is not None and size == remote.size:
        hashed = remote.follower.digest(size)
        if hashed:
            return hashed == remote.digest.partition(":")[2]
    return matches(part, remote, size)


def write_record(path: str, remote: Remote) -> None:
    """Note what was checked, for the next start."""
    now = os.stat(path)
    replace_json(path + ".podlab.json", {"digest": remote.digest, "commit": remote.commit, "size": now.st_size,
                                         "mtime_ns": now.st_mtime_ns})  # fmt: skip


def persist(step: Any, part: str) -> Any:
    """Call `step` until it succeeds; TRIES failures in a row without a byte more in `part` are the end."""
    failures, before = 0, -1
    while True:
        try:
            return step()
        except Transient as error:
            have = os.path.getsize(part) if os.path.exists(part) else 0
            failures = 1 if have > before else failures + 1
            before = max(before, have)
            if failures >= TRIES:
                raise Failure("no_network", str(error))
            wait_s = error.wait_s
            if wait_s is None:
                wait_s = min(20.0, BACKOFF_S * 2**failures) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret
            print(f"{error}; trying again in {wait_s:.1f} s", flush=True)
            time.sleep(wait_s)


def bring(args: argparse.Namespace, name: str, target: str, remote: Remote, meter: Meter) -> None:
    """One file under its final name, checked."""
    part = target + ".part"
    need = (remote.size or 0) - (os.path.getsize(part) if os.path.exists(part) else 0)
    folder = os.path.dirname(target)
    free = shutil.disk_usage(folder).free
    if free < need + SPARE_BYTES:
        raise Failure("disk_full", f"{name} needs {need / 1e9:.2f} GB more, and {folder} has {free / 1e9:.2f} GB free")

    def once() -> None:
        try:
            fetch_from(remote, args.repo, name, part, meter)
        except Transient:
            again = expected(head(args.repo, args.revision, name), args)
            if (again.digest, again.size) != (remote.digest, remote.size):
                raise Failure("no_network", f"{name} changed on the hub while it was fetched; start once more")
            remote.url = again.url  # the links that a hub signs expire
            raise

    meter.begin(name, os.path.getsize(part) if os.path.exists(part) else 0)
    for _ in range(2):
        meter.say(f"downloading {name}")
        if remote.digest and remote.size is not None:
            remote.follower = Follower(part, remote.digest, remote.size)
        persist(once, part)
        meter.say(f"checking {name}")
        whole = arrived_whole(part, remote)
        if remote.follower is not None:
            remote.follower.close()
        if whole:
            break
        os.unlink(part)  # what a proxy or a disk spoiled once may be right the second time
        print(f"{name} is not what the hub says it is", flush=True)
    else:
        raise Failure("no_network", f"{name} arrived twice with another checksum than {remote.digest}")
    with open(part, "rb") as file:
        os.fsync(file.fileno())
    os.replace(part, target)
    write_record(target, remote)
    if os.path.exists(part + ".json"):
        os.unlink(part + ".json")


def expected(remote: Remote, args: argparse.Namespace) -> Remote:
    """Hold the hub's description against what the caller knows."""
    if args.size is not None and remote.size not in (None, args.size):
        raise Failure("no_network", f"the hub's file has {remote.size} bytes, not {args.size} as it should")
    if args.sha256:
        if remote.digest.startswith("sha256:") and remote.digest != "sha256:" + args.sha256:
            raise Failure("no_network", f"the hub's file is another one: {remote.digest[7:]}, not {args.sha256}")
        remote.digest = "sha256:" + args.sha256
    return remote


def parts_of(args: argparse.Namespace) -> list[tuple[str, str]]:
    """The files to fetch and where each goes: one, or all parts of a split file."""
    split = re.match(r"(.*)-00001-of-(\d{5})\.gguf$", args.file)
    if split is None:
        return [(args.file, args.to)]
    stem, count = split.groups()
    names = [f"{stem}-{number:05}-of-{count}.gguf" for number in range(1, int(count) + 1)]
    return [(name, os.path.join(os.path.dirname(args.to), os.path.basename(name))) for name in names]


def lock(path: str, meter: Meter) -> Any:
    """Hold `path` until this process ends, so that two starts do not write one file.

    Its time says when the model was last wanted: where a cache is full, what was not wanted for longest goes.
    """
    while True:
        file = open(path, "w")  # noqa: SIM115 - closing it would let go of the lock
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            meter.say("waiting for another start that downloads the same model")
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.path.exists(path) and os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
            os.utime(path)
            return file
        file.close()  # whoever held it deleted the model, and the lock with it


def tell_need(meter: Meter) -> None:
    """The answer to --plan: what is still to come of all files that are meant."""
    print(json.dumps({"need": sum(max(0, (total or 0) - have) for have, total in meter.files.values())}), flush=True)


def run(args: argparse.Namespace, meter: Meter) -> None:
    """Fetch what is missing."""
    if args.file.startswith("/") or ".." in args.file.split("/") or ".." in args.repo.split("/"):
        raise Failure("bad_flag", f"{args.repo}/{args.file} is no file of a repository")
    if host_of(HUB)[0] not in ("http", "https"):
        raise Failure("bad_flag", f"HF_ENDPOINT is {HUB}, which is no web address")
    args.to = os.path.abspath(args.to)
    os.makedirs(os.path.dirname(args.to), exist_ok=True)
    held = lock(args.to + ".lock", meter)
    meter.say(f"asking {host_of(HUB)[1]} about {args.repo}")
    wanted: list[tuple[str, str, Remote]] = []
    for name, target in parts_of(args):
        try:
            remote = persist(lambda name=name: expected(head(args.repo, args.revision, name), args), target + ".part")
        except Failure as failure:
            if failure.cause != "no_network" or not verified(target, None):
                raise
            print(f"{failure}; using {target}, which was checked before", flush=True)
            continue
        if not args.force and verified(target, remote):
            print(f"{target} is there", flush=True)
        else:
            wanted.append((name, target, remote))
            part = target + ".part"
            meter.expect(name, os.path.getsize(part) if os.path.exists(part) else 0, remote.size)
    if all(remote.size is not None for _, _, remote in wanted):
        meter.total = sum(remote.size or 0 for _, _, remote in wanted)
    if args.plan:
        tell_need(meter)
        return
    for name, target, remote in wanted:
        bring(args, name, target, remote, meter)
        meter.finish(os.path.getsize(target))
    held.close()


def carry_out(work: Callable[[], None]) -> None:
    """Do the work; a failure ends the program with the one line that says its cause."""
    try:
        work()
    except Failure as failure:
        sys.exit(f"podlab: {failure.cause}: {failure}")
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        sys.exit(f"podlab: {'disk_full' if full else 'no_network'}: {error}")


def main() -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser()
    for option in ("--dir", "--repo", "--revision", "--file", "--to"):
        parser.add_argument(option, required=True)
    parser.add_argument("--sha256")
    parser.add_argument("--size", type=int)
    for switch in ("--force", "--plan"):
        parser.add_argument(switch, action="store_true")
    args = parser.parse_args()
    carry_out(lambda: run(args, Meter(args.dir)))


if __name__ == "__main__":
    main()
