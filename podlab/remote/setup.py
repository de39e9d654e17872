"""Make an engine's own environment on this pod. Standard library, Python 3.8.

    setup.py --home H --dir D --engine llamacpp --package xllamacpp==V --min-python 3.10 --probe "import xllamacpp"

The environment is H/envs/<engine>-<version>-py3XX; D/env becomes a link to it. It counts as made once its podlab.json
is there, which is written last and after `--probe` ran in it; anything less is removed and made again. A second start
waits for the first one's lock. A Python that is new enough is looked for here; where there is none, or one without pip,
`uv` brings what is missing. Packages are installed as wheels only, from wherever the user's pip is configured to look.
Progress goes to D/progress.json; a failure is one line, `podlab: <cause>: <reason>`, and exit status 1.
"""

from __future__ import annotations

import argparse
import configparser
import errno
import fcntl
import hashlib
import html.parser
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from typing import Any

MARKER = "podlab.json"
NEED_BYTES = 400 << 20
STAGES = ("looking for Python", "making the environment", "installing", "checking")
PAGE_LIMIT_BYTES = 64 << 20
UV_LIMIT_BYTES = 200 << 20

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


class Failure(Exception):
    """Nothing more to try. `cause` is one of engines.base.Cause."""

    def __init__(self, cause: str, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause


class Stages:
    """Tells progress.json and the log how far it is."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, "progress.json")

    def say(self, stage: int, text: str = "") -> None:
        """Stage `stage` of STAGES begins, or goes on with `text`."""
        text = text or STAGES[stage]
        print(text, flush=True)
        replace_json(self.path, {"text": text, "done": stage, "total": len(STAGES), "unit": ""})


def replace_json(path: str, value: dict[str, Any]) -> None:
    """Write so that a reader sees the old or the new, never a half, a power cut included."""
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def clean_environment() -> dict[str, str]:
    """Ours without what would lead pip or a Python astray from the environment being made."""
    astray = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "PIP_USER", "VIRTUAL_ENV")
    ours = {name: value for name, value in os.environ.items() if name not in astray}
    return dict(ours, PIP_USER="0", PIP_NO_INPUT="1", PIP_DISABLE_PIP_VERSION_CHECK="1", PYTHONNOUSERSITE="1")


def run(argv: list[str], env: dict[str, str] | None = None) -> None:
    """Run to its end with the output in the log. Raises Failure with what the output means."""
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


def hide_login(text: str) -> str:
    """An index address may hold a password, and logs are read by others."""
    return re.sub(r"(https?://)[^/@\s]+@", r"\1***@", text)


def version_of(python: str) -> tuple[int, int]:
    """(3, 11), or (0, 0) when it does not run."""
    try:
        code = "import sys; print(sys.version_info[0], sys.version_info[1])"
        ended = subprocess.run([python, "-S", "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               check=False, stderr=subprocess.DEVNULL, timeout=20, env=clean_environment())  # fmt: skip
        major, minor = ended.stdout.split()
        return int(major), int(minor)
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0, 0


def runs(argv: list[str]) -> bool:
    """Whether a command ends with status 0."""
    try:
        return subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              timeout=120, check=False, env=clean_environment()).returncode == 0  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return False


def pythons(least: tuple[int, int]) -> list[str]:
    """Every Python here that is new enough: this one, those on PATH, pyenv's."""
    names = [f"python3.{minor}" for minor in range(14, least[1] - 1, -1)] + ["python3"]
    found = [sys.executable] + [path for path in map(shutil.which, names) if path]
    versions = os.path.join(os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv")), "versions")
    if os.path.isdir(versions):
        found += [os.path.join(versions, name, "bin", "python") for name in sorted(os.listdir(versions), reverse=True)]
    distinct = list(dict.fromkeys(path for path in found if path and os.path.exists(path)))
    return [path for path in distinct if version_of(path) >= least]


def find_uv(home: str) -> str:
    """An `uv` that runs: installed here, or fetched from the package index into H/tools."""
    usual = [shutil.which("uv"), os.path.expanduser("~/.local/bin/uv"), os.path.expanduser("~/.cargo/bin/uv"),
             os.path.join(home, "tools", "uv", "bin", "uv")]  # fmt: skip
    for path in usual:
        if path and os.path.exists(path) and runs([path, "--version"]):
            return path
    target = os.path.join(home, "tools", "uv")
    shutil.rmtree(target, ignore_errors=True)
    if runs([sys.executable, "-m", "pip", "--version"]):
        run([sys.executable, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", "--no-deps", "--retries", "2",
             "--target", target, "uv"])  # fmt: skip
    else:
        fetch_wheel("uv", target)
    return os.path.join(target, "bin", "uv")


def pip_setting(name: str) -> str:
    """What pip would use for `name`: its environment variable, else its configuration files, else nothing."""
    value = os.environ.get("PIP_" + name.upper().replace("-", "_"), "")
    files = ["/etc/pip.conf", os.path.expanduser("~/.pip/pip.conf"),
             os.path.join(os.environ.get("XDG_CONFIG_HOME", os.path.expanduser("~/.config")), "pip", "pip.conf"),
             os.environ.get("PIP_CONFIG_FILE", "")]  # fmt: skip
    parser = configparser.RawConfigParser()
    try:
        parser.read([path for path in files if path], encoding="utf-8")
    except configparser.Error as error:
        print(f"pip's configuration is not readable: {error}", flush=True)
    for section in ("install", "global"):
        if not value and parser.has_option(section, name):
            value = parser.get(section, name)
    return " ".join(value.split())


def uv_environment(home: str) -> dict[str, str]:
    """pip's settings in uv's words. Source: docs.astral.sh/uv, "Compatibility with pip" and "Environment variables"."""
    env = dict(clean_environment(), UV_PYTHON_INSTALL_DIR=os.path.join(home, "pythons"), UV_NO_PROGRESS="1")
    for theirs, ours in (("UV_DEFAULT_INDEX", "index-url"), ("UV_INDEX", "extra-index-url"),
                         ("UV_FIND_LINKS", "find-links"), ("SSL_CERT_FILE", "cert")):  # fmt: skip
        if pip_setting(ours) and theirs not in env:
            env[theirs] = pip_setting(ours).replace(" ", "," if ours == "find-links" else " ")
    return env


def read_url(url: str, limit_bytes: int, accept: str = "*/*") -> bytes:
    """A page of the index. Raises Failure."""
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise Failure("no_environment", "the package index is no web address, and there is no pip to read it")
    head = {"Accept": accept, "User-Agent": "podlab"}
    request = urllib.request.Request(url, headers=head)  # noqa: S310 - looked at above
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            data: bytes = answer.read(limit_bytes + 1)
    except urllib.error.HTTPError as error:
        raise Failure("no_environment", f"the package index answers {error.code}")
    except OSError as error:
        raise Failure("no_environment", f"no package index can be reached from the pod: {error}")
    if len(data) > limit_bytes:
        raise Failure("no_environment", "the package index sends more than it should")
    return data


class Links(html.parser.HTMLParser):
    """The links of an index page in HTML (PEP 503), which is all that many mirrors have."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        fields = dict(attrs)
        if tag == "a" and fields.get("href") and "data-yanked" not in fields:
            self.found.append(fields["href"] or "")


def index_files(page: str, url: str) -> list[tuple[str, str, str]]:
    """File name, address and SHA-256 of all that an index offers, from JSON (PEP 691) or HTML."""
    try:
        files = [entry for entry in json.loads(page)["files"] if not entry.get("yanked")]
        links = [entry["url"] + "#sha256=" + entry["hashes"].get("sha256", "") for entry in files]
    except (ValueError, KeyError, TypeError):
        parser = Links()
        parser.feed(page)
        links = parser.found
    found = []
    for link in links:
        address, _, digest = urllib.parse.urljoin(url, link).partition("#sha256=")
        found.append((urllib.parse.unquote(address.rpartition("/")[2]), address, digest))
    return found


def fetch_wheel(package: str, target: str) -> None:
    """Unpack the newest wheel for this machine into `target`, without pip, checked against the index's digest."""
    index = (pip_setting("index-url") or "https://pypi.org/simple").rstrip("/")
    url = f"{index}/{package}/"
    accept = "application/vnd.pypi.simple.v1+json, text/html;q=0.1"
    page = read_url(url, PAGE_LIMIT_BYTES, accept).decode(errors="replace")
    machine = platform.machine()
    tag = {"Linux": rf"manylinux\S*_{machine}", "Darwin": rf"macosx\S*_{machine}"}.get(platform.system(), "-")
    fitting = [
        entry for entry in index_files(page, url) if re.match(rf"{package}-[0-9.]+-py3-\S*{tag}\.whl$", entry[0])
    ]
    if not fitting:
        raise Failure("no_environment", f"the package index has no {package} for {machine}")
    name, address, digest = max(fitting, key=lambda entry: [int(part) for part in entry[0].split("-")[1].split(".")])
    print(f"fetching {name}", flush=True)
    data = read_url(address, UV_LIMIT_BYTES)
    if hashlib.sha256(data).hexdigest() != digest:
        raise Failure("no_environment", f"{name} arrived damaged")
    unpack(data, package, target)


def unpack(data: bytes, package: str, target: str) -> None:
    """A wheel's programs into target/bin, the rest is not needed."""
    wheel = os.path.join(os.path.dirname(target), f"{package}.whl")
    os.makedirs(os.path.join(target, "bin"), exist_ok=True)
    with open(wheel, "wb") as file:
        file.write(data)
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if re.match(rf"{package}-[0-9.]+\.data/scripts/[a-z]+$", name):
                program = os.path.join(target, "bin", os.path.basename(name))
                with archive.open(name) as source, open(program, "wb") as copy:
                    shutil.copyfileobj(source, copy)
                os.chmod(program, 0o755)
    os.unlink(wheel)


class Setup:
    """One run of this program."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.stages = Stages(args.dir)
        self.version = args.package.partition("==")[2]
        major, minor = args.min_python.split(".")
        self.least = int(major), int(minor)
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

    def works(self, env: str) -> bool:
        """Whether the probe passes."""
        return runs([os.path.join(env, "bin", "python"), "-c", self.args.probe])

    def lock(self) -> Any:
        """Hold the lock until this process ends, in whatever way."""
        file = open(os.path.join(self.envs, self.stem + ".lock"), "w")  # noqa: SIM115 - closing it lets go
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.stages.say(0, "waiting for another start that makes the same environment")
            fcntl.flock(file, fcntl.LOCK_EX)
        return file

    def make(self) -> str:
        """Make it, check it, mark it."""
        free = shutil.disk_usage(self.envs).free
        if free < NEED_BYTES:
            raise Failure("disk_full", f"an environment needs {NEED_BYTES >> 20} MiB, and {self.envs} has {free >> 20}")
        self.stages.say(0)
        ready = pythons(self.least)
        with_pip = [python for python in ready if runs([python, "-c", "import ensurepip, venv"])]
        if with_pip:
            env = self.with_pip(with_pip[0])
        else:
            lack = "no Python here has pip" if ready else f"no Python {self.args.min_python} or newer here"
            print(f"{lack}; uv is to help", flush=True)
            env = self.with_uv(ready[0] if ready else ">=" + self.args.min_python, lack)
        self.stages.say(3)
        python = os.path.join(env, "bin", "python")
        try:
            run([python, "-c", self.args.probe])
        except Failure:
            raise Failure(
                "no_environment", f"{self.args.package} is installed and does not work there: {self.args.probe!r}"
            )
        replace_json(os.path.join(env, MARKER), {
            "engine": self.args.engine, "package": self.args.package, "python": ".".join(map(str, version_of(python))),
            "platform": platform.platform(), "setup_python": platform.python_version(),
        })  # fmt: skip
        return env

    def fresh(self, version: tuple[int, int]) -> str:
        """The environment's folder, emptied of what an interrupted start has left."""
        env = os.path.join(self.envs, f"{self.stem}{version[1]}")
        if os.path.lexists(env):
            shutil.rmtree(env)
        return env

    def with_pip(self, python: str) -> str:
        """venv and pip, from this machine's own Python."""
        env = self.fresh(version_of(python))
        self.stages.say(1, f"{STAGES[1]} with {python}")
        run([python, "-m", "venv", env])
        self.stages.say(2, f"{STAGES[2]} {self.args.package}")
        run([os.path.join(env, "bin", "python"), "-m", "pip", "install", "--only-binary", ":all:", "--retries", "2",
             "--progress-bar", "off", self.args.package])  # fmt: skip
        return env

    def with_uv(self, python: str, lack: str) -> str:
        """Uv, which can bring a Python along."""
        self.stages.say(1, f"{STAGES[1]} with uv")
        try:
            uv = find_uv(self.args.home)
            draft = os.path.join(self.envs, self.stem + "-draft")
            shutil.rmtree(draft, ignore_errors=True)
            settings = uv_environment(self.args.home)
            run([uv, "venv", "--no-config", "--python", python, draft], settings)
            chosen = os.path.realpath(os.path.join(draft, "bin", "python"))
            env = self.fresh(version_of(chosen))
            shutil.rmtree(draft)
            run([uv, "venv", "--no-config", "--python", chosen, env], settings)
        except Failure as failure:
            raise Failure(failure.cause, f"{lack}, and uv cannot bring one: {failure}")
        self.stages.say(2, f"{STAGES[2]} {self.args.package}")
        run([uv, "pip", "install", "--no-config", "--only-binary", ":all:", "--python",
             os.path.join(env, "bin", "python"), self.args.package], settings)  # fmt: skip
        return env


def main() -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser()
    for option in ("--home", "--dir", "--engine", "--package", "--min-python", "--probe"):
        parser.add_argument(option, required=True)
    try:
        Setup(parser.parse_args()).main()
    except Failure as failure:
        sys.exit(f"podlab: {failure.cause}: {failure}")
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        sys.exit(f"podlab: {'disk_full' if full else 'no_environment'}: {error}")


if __name__ == "__main__":
    main()
