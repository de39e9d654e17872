"""The environments with engines on this pod: list them, or take over one that a person has. Standard library, 3.8.

    environments.py HOME list
    environments.py HOME adopt ENGINE PYTHON
    environments.py HOME look ENGINE PYTHON
    environments.py HOME read ENGINE PYTHON

Prints one JSON line. A record is HOME/envs/<name>/podlab.json. What setup.py made lies beside its record; of an adopted
environment there is nothing but the record, in HOME/envs/adopted-<engine>-<hash>: it belongs to its owner and is never
written to. Adopting runs its Python once to see that the engine can be imported, of which version it is, and which
options its server has; the record is stale once the engine's package there has changed. `look` says the same and writes
nothing. `read` does it for an environment that setup.py made, whose record knows of no options: they are kept in
HOME/envs/<name>/options.json, and count until the package changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Json = dict[str, Any]

RECORD = "podlab.json"
OPTIONS = "options.json"
LOOK_S = 180.0
# Of each engine: the module that is it, the programs that start its server, and how those tell their options.
ENGINES = {
    "vllm": ("vllm", ("vllm",), ("serve",), ("-m", "vllm.entrypoints.cli.main", "serve"), ("--help=all",)),
    "llamacpp": ("xllamacpp", (), (), (), ()),
    "sglang": ("sglang", (), (), ("-m", "sglang.launch_server"), ()),
    "tgi": ("text_generation_server", ("text-generation-launcher",), (), (), ()),
    "trtllm": ("tensorrt_llm", ("trtllm-serve",), (), (), ()),
}
# Run by the environment's own Python: the engine's module, and, in the same process, as importing it is what takes
# long, what its server says about its options.
LOOK = """
import contextlib, importlib, io, json, os, re, runpy, sys, sysconfig
given = json.loads(sys.argv[1])
module = importlib.import_module(given["module"])
told = {"version": str(getattr(module, "__version__", "")), "file": os.path.abspath(module.__file__), "flags": [],
        "scripts": [os.path.dirname(sys.executable), sysconfig.get_path("scripts")]}
if given["help"]:
    said = io.StringIO()
    sys.argv = ["server", *given["help"]]
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        runpy.run_module(given["cli"], run_name="__main__", alter_sys=True)
    told["flags"] = sorted(set(re.findall("--[A-Za-z][A-Za-z0-9-]*", said.getvalue())))
print("\\n" + json.dumps(told))
"""


class Failure(Exception):
    """Why it cannot be taken over."""


def fingerprint(path: str) -> list[int]:
    """What changes when another version of a package is installed over the one at `path`."""
    try:
        now = os.stat(path)
    except OSError:
        return []
    return [now.st_mtime_ns, now.st_size, now.st_ino]


def run(argv: list[str]) -> subprocess.CompletedProcess[bytes]:
    """A look at somebody's program, without what of our own environment could lead it astray."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    env.update(VLLM_NO_USAGE_STATS="1", DO_NOT_TRACK="1", HF_HUB_OFFLINE="1", NO_COLOR="1", COLUMNS="400")
    try:
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=LOOK_S, check=False, env=env)  # fmt: skip
    except OSError as error:
        raise Failure(f"{argv[0]} cannot be started: {error.strerror}")
    except subprocess.TimeoutExpired:
        raise Failure(f"{argv[0]} did not answer within {LOOK_S:g} s")


def last_line(text: bytes) -> str:
    """The last line of what a program said."""
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:300] if lines else "it said nothing"


def look_at(engine: str, python: str) -> Json:
    """The record of an environment. Raises Failure."""
    module, programs, words, by_module, help_words = ENGINES[engine]
    given = {"module": module, "help": [*words, *help_words] if help_words else [], "cli": "".join(by_module[1:2])}
    seen = run([python, "-c", LOOK, json.dumps(given)])
    try:
        facts = json.loads(seen.stdout.decode("utf-8", "replace").strip().splitlines()[-1])
        version, file, scripts, flags = facts["version"], facts["file"], facts["scripts"], facts["flags"]
    except (ValueError, IndexError, KeyError, TypeError):
        raise Failure(f"{python} cannot import {module}: {last_line(seen.stderr)}")
    if help_words and not flags:
        raise Failure(f"{module} of {python} does not tell its options: {last_line(seen.stderr)}")
    found = [os.path.join(folder, name) for name in programs for folder in scripts]
    there = [path for path in found if os.access(path, os.X_OK)]
    if programs and not there and not by_module:
        raise Failure(f"{python} has {module} and no program {programs[0]} beside it")
    program = [there[0], *words] if there else [python, *by_module]
    return {"engine": engine, "version": str(version)[:64], "python": python, "program": program, "adopted": True,
            "flags": flags, "file": file, "fingerprint": fingerprint(file)}  # fmt: skip


def look(engine: str, python: str) -> Json:
    """What an environment is, without writing it down. Raises Failure."""
    python = os.path.abspath(os.path.expanduser(python))  # not its target: a venv's Python is a link
    if not os.path.exists(python):
        raise Failure(f"there is no {python}")
    return look_at(engine, python)


def adopt(home: str, engine: str, python: str) -> Json:
    """Take over an environment; what was known of it is replaced. Raises Failure."""
    record = look(engine, python)
    python = record["python"]
    name = f"adopted-{engine}-{hashlib.sha256(python.encode()).hexdigest()[:12]}"
    folder = os.path.join(home, "envs", name)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = os.path.join(folder, RECORD)
    write(path, record)
    return dict(record, at=os.stat(path).st_mtime, stale=False)


def write(path: str, document: Json) -> None:
    """A JSON file, whole or not at all."""
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_options(home: str, engine: str, python: str) -> Json:
    """Ask the engine of an environment that setup.py made for its options, and keep them. Raises Failure."""
    env = os.path.dirname(os.path.dirname(python))
    if os.path.dirname(env) != os.path.join(home, "envs") or not os.path.exists(os.path.join(env, RECORD)):
        raise Failure(f"{python} is of no environment that was made here")
    seen = look(engine, python)
    write(os.path.join(env, OPTIONS), {name: seen[name] for name in ("flags", "file", "fingerprint")})
    return dict(seen, adopted=False, stale=False)


def options_of(env: str) -> list[str]:
    """What `read_options` kept; [] when nothing, or when the engine's package has changed since."""
    try:
        with open(os.path.join(env, OPTIONS), encoding="utf-8") as file:
            kept = json.load(file)
        current = bool(kept["fingerprint"]) and fingerprint(kept["file"]) == kept["fingerprint"]
        return [str(flag) for flag in kept["flags"]] if current else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def recorded(home: str) -> list[Json]:
    """Every environment whose Python is there, the newest record first."""
    envs = os.path.join(home, "envs")
    found = []
    for name in os.listdir(envs) if os.path.isdir(envs) else ():
        path = os.path.join(envs, name, RECORD)
        try:
            with open(path, encoding="utf-8") as file:
                record = json.load(file)
            at = os.stat(path).st_mtime
            if not record.get("adopted"):
                record = made(os.path.join(envs, name), record)
            if os.path.exists(record["python"]):
                stale = bool(record.get("file")) and fingerprint(record["file"]) != record.get("fingerprint")
                found.append(dict(record, at=at, stale=stale))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # half of a record is none
    return sorted(found, key=lambda record: -record["at"])


def made(env: str, record: Json) -> Json:
    """The record of what setup.py made, in the same words."""
    programs, words, by_module, help_words = ENGINES[record["engine"]][1:]
    python, flags = os.path.join(env, "bin", "python"), options_of(env)
    program = [os.path.join(env, "bin", programs[0]), *words] if programs else [python, *by_module]
    if record.get("file") and not os.path.exists(record["file"]):
        raise KeyError("file")  # somebody took the engine out of it
    asked, versions = record["package"].partition("==")[2], record.get("versions") or {}
    return {"engine": record["engine"], "version": versions.get("engine") or asked, "python": python,
            "program": program, "adopted": False, "flags": flags,
            "unread": bool(help_words) and not flags, "path": env, "label": record.get("version") or asked,
            "versions": versions}  # fmt: skip


def main() -> None:
    """See the top of this file."""
    home, what, *rest = sys.argv[1:]
    try:
        answer: Json
        if what == "list":
            answer = {"environments": recorded(home)}
        elif what == "adopt":
            answer = {"environment": adopt(home, *rest)}
        elif what == "read":
            answer = {"environment": read_options(home, *rest)}
        else:
            answer = {"environment": dict(look(*rest), stale=False)}
    except Failure as failure:
        answer = {"error": str(failure)}
    except OSError as error:
        answer = {"error": f"{error.strerror or error}: {error.filename or ''}"}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
