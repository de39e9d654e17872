"""Make an engine's own environment on this pod. Standard library, Python 3.8.

    setup.py --home H --dir D --engine llamacpp --package xllamacpp==V --min-python 3.10 --probe "import xllamacpp"

The environment is H/envs/<engine>-<version>-py3XX; D/env becomes a link to it, and D/environment.json says which one it
is. It counts as made once its podlab.json is there, which is written last and after `--probe` ran in it; anything less
is removed and made again, unless a process uses it. A second start waits for the first one's lock. A Python that is new
enough is looked for here; where there is none, or one without pip, `uv` brings what is missing. Packages are installed
as wheels only, from wherever the user's pip is configured to look; nothing is begun with less room on the disk than
--need-bytes. --index names further places to look, --wheels a folder that is the only place, and that is removed once
the environment is made. package_index.py and pythons.py lie beside this file.
Progress goes to D/progress.json; a failure is one line, `podlab: <cause>: <reason>`, and exit status 1.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any
if TYPE_CHECKING or "podlab.remote.pythons" in sys.modules:  # joined with others into one program
    from podlab.remote.package_index import Failure, fetch_wheel, hide_login, pip_setting, unpack
    from podlab.remote.pythons import ANY, answer_of, clean_environment, has_pip, pythons, runs, uv_there, version_of
else:
    from package_index import Failure, fetch_wheel, hide_login, pip_setting, unpack
    from pythons import ANY, answer_of, clean_environment, has_pip, pythons, runs, uv_there, version_of

MARKER = "podlab.json"
NEED_BYTES = 400 << 20
STAGES = ("looking for Python", "making the environment", "installing", "checking")
LOCK = ".lock"
END_S = 5.0
INSTALLS = re.compile(r"(?:Downloading|Installing|Prepared|Installed|Collecting) [^(]{1,160}")
# Run by an environment's own Python: the versions of what is in it, without importing any of it.
VERSIONS = """
import importlib.metadata as metadata, importlib.util, json, os, platform, re, sys
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
cuda = None
torch = importlib.util.find_spec("torch")
if torch is not None and torch.origin:
    with open(os.path.join(os.path.dirname(torch.origin), "version.py"), encoding="utf-8") as file:
        found = re.search(r"(?m)^cuda\\b[^=]*= *'([0-9.]+)'", file.read())
    cuda = found.group(1) if found else None
package, module = sys.argv[1:]
spec = importlib.util.find_spec(module)
print(json.dumps({"file": os.path.abspath(spec.origin), "versions": {
    "engine": version(package), "torch": version("torch"), "cuda": cuda, "python": platform.python_version()}}))
"""

UNREACHABLE = (
    r"Temporary failure in name resolution|Failed to establish a new connection|NameResolutionError|ProxyError|"
    r"ConnectTimeout|ReadTimeout|Network is unreachable|Connection refused|SSLError|CERTIFICATE_VERIFY_FAILED|"
    r"[Cc]ould not connect|dns error|Failed to fetch|error sending request|No route to host"
)
NO_WHEEL = (
    r"is not a supported wheel|No matching distribution found|no wheels with a matching|No solution found|"
    r"[Cc]ould not find a version|no compatible wheel"
)

# What pip and uv say, and what it means. The first row that matches wins.
REASONS = (
    (r"No space left on device|Disk quota exceeded|os error 28", "disk_full", "the disk is full"),
    (
        r"HTTP error 40[13]|40[13] Client Error|status code 40[13]|^User for \S+:",
        "no_environment",
        "the package index wants a login: set it in pip's configuration on the pod",
    ),
    (
        r"Failed to download `?https?://\S*python-build-standalone",
        "no_environment",
        "the place where uv gets a Python from (github.com) cannot be reached from the pod",
    ),
    (
        UNREACHABLE,
        "no_environment",
        "no package index can be reached from the pod",
    ),
    (r"DO NOT MATCH THE HASHES|[Hh]ash mismatch", "no_environment", "a package arrived damaged"),
    (
        NO_WHEEL,
        "no_environment",
        "the package index has no such wheel for this machine and Python",
    ),
)


class Stages:
    """Tells progress.json and the log how far it is."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, "progress.json")

    def say(self, stage: int, text: str = "") -> None:
        """Stage `stage` of STAGES begins, or goes on with `text`."""
        text = text or STAGES[stage]
        print(text, flush=True)
        self.note(stage, text)

    def note(self, stage: int, text: str) -> None:
        """The same for progress.json alone."""
        replace_json(self.path, {"text": text, "done": stage, "total": len(STAGES), "unit": ""})


def replace_json(path: str, value: dict[str, Any]) -> None:
    """Write so that a reader sees the old or the new, never a half, a power cut included."""
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def run(
    argv: list[str], env: dict[str, str] | None = None, told: Callable[[str], None] = lambda line: None
) -> None:  # fmt: skip
    """Run to its end with the output in the log, each line `told`. Raises Failure with what the output means."""
    print("$ " + " ".join(hide_login(word) for word in argv), flush=True)
    said = []
    try:
        child = subprocess.Popen(argv, env=env or clean_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, universal_newlines=True, errors="replace")  # fmt: skip
    except OSError as error:
        raise Failure("no_environment", f"{argv[0]} cannot be started: {error}")
    assert child.stdout is not None
    for line in child.stdout:
        print(hide_login(line.rstrip()), flush=True)
        told(hide_login(line.strip()))
        said.append(line)
        del said[:-200]
    if child.wait() != 0:
        raise meaning("".join(said), f"{os.path.basename(argv[0])} ended with status {child.returncode}")


def meaning(said: str, otherwise: str) -> Failure:
    """What failed, by the words of pip and uv."""
    for pattern, cause, reason in REASONS:
        if re.search(pattern, said):
            return Failure(cause, reason)
    return Failure("no_environment", otherwise)


def fingerprint(path: str) -> list[int]:
    """What changes when another version of a package is installed over the one at `path`; as in environments.py."""
    try:
        now = os.stat(path)
    except OSError:
        return []
    return [now.st_mtime_ns, now.st_size, now.st_ino]


def users_of(folder: str) -> dict[int, str]:
    """The processes that name a folder, or something in it, in their command line."""
    named = re.compile(re.escape(folder) + r"(/|\s|$)")
    return {pid: command for pid, command in commands() if named.search(command) and pid != os.getpid()}


def commands() -> list[tuple[int, str]]:
    """Every process with its command line, words apart by spaces; from ps where there is no /proc."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc/self") else ()):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                found.append((int(name), file.read().replace(b"\0", b" ").decode("utf-8", "replace")))
        except OSError:
            continue  # it has just ended
    if found:
        return found
    listed = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,args="], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL, check=False).stdout.decode("utf-8", "replace")  # fmt: skip
    rows = [line.strip().partition(" ") for line in listed.splitlines()]
    return [(int(pid), command) for pid, _, command in rows]


def end_installers(folder: str) -> None:
    """End what a start that was killed has left at work on an environment. We hold its lock, so it is nobody else's."""
    installers = re.compile(r"\S+ -m (pip install|venv) |\S*uv (venv|pip install) |" + re.escape(folder) + "/")
    deadline = time.monotonic() + END_S
    while True:
        left = [pid for pid, command in users_of(folder).items() if installers.match(command)]
        if not left or time.monotonic() > deadline:
            return
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                continue
        time.sleep(0.05)


def find_uv(home: str, wheels: str) -> str:
    """An `uv` that runs: installed here, or put into H/tools from `wheels` or else from the package index."""
    there = uv_there(home)
    if there:
        return there
    target = os.path.join(home, "tools", "uv")
    shutil.rmtree(target, ignore_errors=True)
    if wheels:
        sent = sorted(name for name in os.listdir(wheels) if re.match(r"uv-[0-9.]+-py3-\S+\.whl$", name))
        if not sent:
            raise Failure("no_environment", "no wheel of uv was sent")
        with open(os.path.join(wheels, sent[-1]), "rb") as file:
            unpack(file.read(), "uv", target)
    elif runs([sys.executable, "-m", "pip", "--version"]):
        run([sys.executable, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", "--no-deps", "--retries", "2",
             "--target", target, "uv"])  # fmt: skip
    else:
        fetch_wheel("uv", target)
    return os.path.join(target, "bin", "uv")


def uv_environment(home: str) -> dict[str, str]:
    """pip's settings in uv's words. Source: docs.astral.sh/uv, "Compatibility with pip" and "Environment variables"."""
    env = dict(clean_environment(), UV_PYTHON_INSTALL_DIR=os.path.join(home, "pythons"), UV_NO_PROGRESS="1")
    for theirs, ours in (("UV_DEFAULT_INDEX", "index-url"), ("UV_INDEX", "extra-index-url"),
                         ("UV_FIND_LINKS", "find-links"), ("SSL_CERT_FILE", "cert")):  # fmt: skip
        if pip_setting(ours) and theirs not in env:
            env[theirs] = pip_setting(ours).replace(" ", "," if ours == "find-links" else " ")
    return env


class Setup:
    """One run of this program."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.stages = Stages(args.dir)
        self.version = args.version or args.package.partition("==")[2]
        self.least, self.most = numbers(args.min_python), numbers(args.max_python)
        self.envs = os.path.join(args.home, "envs")
        self.stem = f"{args.engine}-{self.version}-py3"

    def main(self) -> None:
        """Find or make the environment, and link it."""
        os.makedirs(self.envs, exist_ok=True)
        env = self.made()
        if env is None:
            held = self.lock()
            env = self.made() or self.make()  # somebody may have made it while we waited
            held.close()
        self.clear_wheels()
        replace_json(os.path.join(self.args.dir, "environment.json"), {"path": env, **self.record(env)})
        link = os.path.join(self.args.dir, "env")
        temporary = f"{link}.{os.getpid()}"
        os.symlink(env, temporary)
        os.replace(temporary, link)
        self.stages.say(len(STAGES), f"{self.args.package} is ready in {env}")

    def made(self) -> str | None:
        """An environment that is complete and still works: the Python it was made from may have gone."""
        for name in sorted(os.listdir(self.envs)):
            env = os.path.join(self.envs, name)
            if name.startswith(self.stem) and os.path.exists(os.path.join(env, MARKER)) and self.works(env):
                return env
        return None

    def record(self, env: str) -> dict[str, Any]:
        """Its podlab.json; empty when that is no record."""
        try:
            with open(os.path.join(env, MARKER), encoding="utf-8") as file:
                record = json.load(file)
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def works(self, env: str) -> bool:
        """Whether the probe passes, or nothing of it changed since it did: importing some engines takes a minute."""
        python, record = os.path.join(env, "bin", "python"), self.record(env)
        seen = record.get("fingerprint")
        if seen and seen == fingerprint(str(record.get("file"))):
            return runs([python, "-S", "-c", ""])
        return runs([python, "-c", self.args.probe])

    def lock(self) -> Any:
        """Hold the lock until this process ends, in whatever way."""
        file = open(os.path.join(self.envs, self.stem + LOCK), "w")  # noqa: SIM115 - closing it lets go
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.stages.say(0, "waiting for another start that makes the same environment")
            fcntl.flock(file, fcntl.LOCK_EX)
        return file

    def make(self) -> str:
        """Make it, check it, mark it."""
        free = shutil.disk_usage(self.envs).free
        need = self.args.need_bytes
        if free < need:
            raise Failure("disk_full", f"an environment needs {need >> 20} MiB, and {self.envs} has {free >> 20}")
        self.stages.say(0)
        env = self.with_pip_or_uv()
        self.stages.say(3)
        python = os.path.join(env, "bin", "python")
        try:
            run([python, "-c", self.args.probe])
        except Failure:
            raise Failure(
                "no_environment", f"{self.args.package} is installed and does not work there: {self.args.probe!r}"
            )
        module = self.args.probe.split()[1].rstrip(",")
        looked = answer_of([python, "-c", VERSIONS, self.args.package.partition("==")[0], module])
        file = str(looked.get("file", ""))
        replace_json(os.path.join(env, MARKER), {
            "engine": self.args.engine, "package": self.args.package, "version": self.version,
            "versions": looked.get("versions", {}), "file": file, "fingerprint": fingerprint(file),
            "python": ".".join(map(str, version_of(python))),
            "platform": platform.platform(), "setup_python": platform.python_version(),
        })  # fmt: skip
        return env

    def with_pip_or_uv(self) -> str:
        """The environment with its packages, from a Python with pip where there is one."""
        ready = pythons(self.least, self.most)
        python = next(filter(has_pip, ready), "")
        if python:
            env = self.fresh(version_of(python))
            self.stages.say(1, f"{STAGES[1]} with {python}")
            self.follow(self.pip_commands(python, env))
            return env
        lack = "no Python here has pip" if ready else f"no Python {self.args.min_python} or newer here"
        print(f"{lack}; uv is to help", flush=True)
        return self.with_uv(ready[0] if ready else self.python_for_uv(), lack)

    def with_uv(self, python: str, lack: str) -> str:
        """Uv, which can bring a Python along."""
        self.stages.say(1, f"{STAGES[1]} with uv")
        try:
            uv = find_uv(self.args.home, self.args.wheels)
            draft = os.path.join(self.envs, self.stem + "-draft")
            shutil.rmtree(draft, ignore_errors=True)
            settings = uv_environment(self.args.home)
            run([uv, "venv", "--no-config", "--python", python, draft], settings)
            chosen = os.path.realpath(os.path.join(draft, "bin", "python"))
            env = self.fresh(version_of(chosen))
            shutil.rmtree(draft)
            making, installing = self.uv_commands(uv, chosen, env)
            run(making, settings)
        except Failure as failure:
            raise Failure(failure.cause, f"{lack}, and uv cannot bring one: {failure}")
        self.follow([installing], settings)
        return env

    def follow(self, commands: list[list[str]], env: dict[str, str] | None = None) -> None:
        """Run commands, the last of which installs and is told about as it goes."""
        *before, installing = commands
        for argv in before:
            run(argv, env)
        self.stages.say(2, f"{STAGES[2]} {self.args.package}")

        def told(line: str) -> None:
            found = INSTALLS.match(line)
            if found:
                self.stages.note(2, f"{STAGES[2]} {self.args.package}: {found.group(0).strip()}")

        run(installing, env, told)

    def pip_commands(self, python: str, env: str) -> list[list[str]]:
        """What makes the environment and what installs into it, with venv and pip."""
        places = [word for index in self.args.index for word in ("--extra-index-url", index)]
        if self.args.wheels:
            places = ["--no-index", "--find-links", self.args.wheels]
        early = ["--pre"] if self.args.pre == "all" else []
        return [[python, "-m", "venv", env],
                [os.path.join(env, "bin", "python"), "-m", "pip", "install", "--only-binary", ":all:", "--retries", "2",
                 "--progress-bar", "off", *places, *early, self.args.package]]  # fmt: skip

    def uv_commands(self, uv: str, python: str, env: str) -> list[list[str]]:
        """The same with uv. Several indexes are looked through as pip does it: for the best match among all."""
        places = [word for index in self.args.index for word in ("--index", index)]
        places += ["--index-strategy", "unsafe-best-match"] if self.args.index else []
        if self.args.wheels:
            places = ["--no-index", "--find-links", self.args.wheels]
        early = ["--prerelease", "allow"] if self.args.pre else []
        return [[uv, "venv", "--no-config", "--python", python, env],
                [uv, "pip", "install", "--no-config", "--only-binary", ":all:", "--python",
                 os.path.join(env, "bin", "python"), *places, *early, self.args.package]]  # fmt: skip

    def python_for_uv(self) -> str:
        """What uv is asked to bring."""
        least = f">={self.args.min_python}"
        return least if self.most == ANY else f"{least},<{self.most[0]}.{self.most[1] + 1}"

    def fresh(self, version: tuple[int, int]) -> str:
        """The environment's folder, emptied of what an interrupted start has left. Raises Failure while it is used."""
        env = os.path.join(self.envs, f"{self.stem}{version[1]}")
        if os.path.exists(os.path.join(env, MARKER)):
            for pid, command in users_of(env).items():
                name = os.path.basename(command.split()[0])
                raise Failure("no_environment", f"{env} does not work any more, and {name} ({pid}) uses it: end that")
        if os.path.lexists(env):
            end_installers(env)
            shutil.rmtree(env)
        return env

    def clear_wheels(self) -> None:
        """Remove the wheels that were sent for this environment."""
        if self.args.wheels:
            shutil.rmtree(self.args.wheels, ignore_errors=True)

    def plan(self) -> list[list[str]]:
        """The commands that would make it, for who only wants to see them. A Python uv brings has no number yet: XX."""
        ready = pythons(self.least, self.most)
        python = next(filter(has_pip, ready), "")
        if python:
            env = os.path.join(self.envs, f"{self.stem}{version_of(python)[1]}")
            return self.pip_commands(python, env)
        uv = uv_there(self.args.home) or os.path.join(self.args.home, "tools", "uv", "bin", "uv")
        wanted = ready[0] if ready else self.python_for_uv()
        env = os.path.join(self.envs, self.stem + (str(version_of(wanted)[1]) if ready else "XX"))
        return self.uv_commands(uv, wanted, env)


def numbers(version: str) -> tuple[int, int]:
    """`3.11` as (3, 11)."""
    major, minor = version.split(".")
    return int(major), int(minor)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, see the top of this file."""
    parser = argparse.ArgumentParser()
    for option in ("--home", "--dir", "--engine", "--package", "--min-python", "--probe"):
        parser.add_argument(option, required=True)
    for option in ("--version", "--wheels", "--pre"):
        parser.add_argument(option, default="")
    parser.add_argument("--max-python", default=".".join(map(str, ANY)))
    parser.add_argument("--index", action="append", default=[])
    parser.add_argument("--need-bytes", type=int, default=NEED_BYTES)
    return parser.parse_args(argv)


def main() -> None:
    """See the top of this file."""
    try:
        Setup(arguments()).main()
    except Failure as failure:
        sys.exit(f"podlab: {failure.cause}: {failure}")
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        sys.exit(f"podlab: {'disk_full' if full else 'no_environment'}: {error}")


if __name__ == "__main__":
    main()
