"""Serve one GGUF model with llama.cpp on 127.0.0.1 of the pod. Needs Python 3.10 and `xllamacpp`, nothing else.

    llamacpp_server.py --key-file F --model M.gguf --name N --port P [--backend cpu|cuda|metal]
                       [--set ATTRIBUTE=JSON ...]

A `--set` names an attribute of xllamacpp.CommonParams, dotted for a nested one; an enumeration takes its member's
name. The log is what llama.cpp itself writes to standard error. A refusal of ours is one line,
`podlab: <cause>: <reason>`, with exit status 1; when llama.cpp gave up, its reason is in the lines above ours.
SIGTERM ends it within milliseconds, while it loads too; whoever sent it knows that the signal is its exit status.
"""

from __future__ import annotations

import argparse
import glob
import importlib
import json
import os
import platform
import signal
import sys
import threading
import time
from typing import Any, NoReturn

BACKENDS = {"cuda": ("CUDA",), "metal": ("METAL", "MTL")}


def refuse(cause: str, reason: str) -> NoReturn:
    """End with one line that engines/diagnosis.py understands; `cause` is one of engines.base.Cause."""
    print(f"podlab: {cause}: {reason}", file=sys.stderr, flush=True)
    sys.exit(1)


def wait_for_log(limit_s: float = 3.0) -> None:
    """Wait until llama.cpp has written what it had to say: its own thread writes, and would die unheard."""
    deadline = time.monotonic() + limit_s
    size, quiet = -1, 0
    while quiet < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
        now = os.fstat(2).st_size
        quiet = quiet + 1 if now == size and not others_work() else 0
        size = now


def others_work() -> bool:
    """Whether another thread of this process runs or wants to. Linux tells; elsewhere the log's size has to do."""
    for task in glob.glob("/proc/self/task/*"):
        if os.path.basename(task) != str(threading.get_native_id()):
            try:
                with open(task + "/stat", encoding="ascii", errors="replace") as file:
                    if file.read().rpartition(")")[2].split()[0] in "RD":
                        return True
            except OSError:
                continue  # it has just ended
    return False


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--key-file", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--backend", choices=("cpu", *BACKENDS))
    parser.add_argument("--set", action="append", default=[], metavar="ATTRIBUTE=JSON")
    return parser.parse_args()


def read_key(path: str) -> str:
    """The endpoint's API key. It is in a file (0600) because an argv is for everybody on the machine to read."""
    try:
        with open(path, encoding="ascii") as file:
            key = file.read().strip()
    except (OSError, ValueError) as error:
        refuse("unknown", f"the endpoint's key cannot be read: {error}")
    if not key:
        refuse("unknown", "the endpoint's key is empty, and without one anybody on this machine could use the model")
    return key


def check_cpu() -> None:
    """Refuse a CPU that the wheel's code would end on."""
    # The x86 wheel is compiled for AVX2 without a fallback: an older CPU would end it with "illegal instruction".
    if platform.machine() not in ("x86_64", "AMD64"):
        return
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            flags = next((line for line in file if line.startswith("flags")), "avx2")
    except OSError:
        return
    if "avx2" not in flags.split():
        refuse("driver_or_device", "this CPU has no AVX2, which the build of llama.cpp needs")


def usable_cpus() -> int:
    """CPUs this process may really use: a container sees all of the host's, and its quota is what it gets."""
    if hasattr(os, "sched_getaffinity"):
        cpus = len(os.sched_getaffinity(0))
    else:
        cpus = os.cpu_count() or 1
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()
        return max(1, min(cpus, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup v2, or no quota: "max"
        return cpus


def check_backend(xlc: Any, backend: str | None, gpu_layers: int) -> bool:
    """Refuse what the installed build or this machine cannot do. Returns whether a GPU may be used."""
    devices = xlc.get_device_info()
    names = ", ".join(str(device["name"]) for device in devices) or "none"
    gpus = [str(device["name"]).upper() for device in devices if "GPU" in device["type"].name.rpartition("_")[2]]
    if backend in BACKENDS and not any(name.startswith(BACKENDS[backend]) for name in gpus):
        refuse("driver_or_device", f"no {backend} device for this build of llama.cpp; its devices: {names}")
    if gpu_layers > 0 and not gpus:
        refuse("driver_or_device", f"no GPU to put {gpu_layers} layers on; devices of this build: {names}")
    return bool(gpus) and backend != "cpu"


def apply(params: Any, assignment: str) -> None:
    """Carry out one `--set`."""
    path, _, text = assignment.partition("=")
    *outer, name = path.split(".")
    try:
        target = params
        for part in outer:
            target = getattr(target, part)
        now = getattr(target, name)
        value = json.loads(text)
        # llama.cpp's enumerations come as IntEnum; their members' names are the wire's.
        setattr(target, name, type(now)[value] if hasattr(type(now), "__members__") else value)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        refuse("bad_flag", f"--set {assignment!r} is not accepted: {type(error).__name__}: {error}")


def parameters(xlc: Any, args: argparse.Namespace, key: str) -> Any:
    """What the command line asks for, and what podlab insists on."""
    params = xlc.CommonParams()
    params.cpuparams.n_threads = usable_cpus()
    for assignment in args.set:
        apply(params, assignment)
    if not check_backend(xlc, args.backend, params.n_gpu_layers):
        params.n_gpu_layers = 0
        params.warmup = False  # it loads kernels onto a GPU; on a busy CPU it only delays the start
    params.model.path = args.model
    params.model_alias = {args.name}
    params.hostnames = ["127.0.0.1"]
    params.port = args.port
    params.reuse_port = False  # a second server on the same port must fail, not share it
    params.api_keys = [key]
    params.endpoint_metrics = True
    params.endpoint_props = False
    params.ui = False
    params.cors_origins = params.cors_methods = params.cors_headers = ""  # no web page talks to it
    params.cors_credentials = False
    params.offline = True
    params.timeout_read = params.timeout_write = 3600
    return params


def main() -> None:
    """Load, and serve until a signal ends this process."""
    # TERM and INT keep the system's own disposition, which ends us at once in every phase: loading is C++ that may take
    # minutes and runs no Python handler, and xllamacpp's own way down (`del server`) can wait for ever with the
    # interpreter's lock held when it is asked soon after start. There is nothing on disk to tidy up.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    args = arguments()
    if not 0 < args.port < 65536:
        refuse("bad_flag", f"{args.port} is no port")
    key = read_key(args.key_file)
    check_cpu()
    try:
        xlc: Any = importlib.import_module("xllamacpp")
    except ImportError as error:
        refuse("no_environment", f"xllamacpp cannot be imported by {sys.executable}: {error}")
    params = parameters(xlc, args, key)
    if not os.path.isfile(args.model):
        refuse("model_not_found", f"there is no file {args.model}")
    try:
        server = xlc.Server(params)
    except RuntimeError as error:
        wait_for_log()
        print(f"podlab: llama.cpp gave up, the lines above say why: {error}", file=sys.stderr, flush=True)
        sys.exit(1)
    print(f"podlab: serving {args.name} on {server.listening_address}", file=sys.stderr, flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
