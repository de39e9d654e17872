"""The failures of llama.cpp (xllamacpp) with podlab's built-in model, and those of podlab's own programs around it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gguf_edit import Gguf
from hub import Hub, Mood
from run import ROOT, Case, Scene, Start, Unmakeable
from vllm_cases import in_group, listening

BUILT_IN = ROOT / "podlab" / "catalog" / "data" / "tiny-q8_0.gguf"
REMOTE = ROOT / "podlab" / "remote"
READY = "podlab: serving"
BARE = """\
import sys, xllamacpp as x
p = x.CommonParams()
p.model.path, p.hostnames, p.port, p.n_ctx, p.cpuparams.n_threads = sys.argv[1], ["127.0.0.1"], int(sys.argv[2]), 512, 1
x.Server(p)
"""


def serve(
    here: Scene, model: Path | str, *more: str, python: tuple[str, ...] = (), limits: Callable[[], None] | None = None
) -> Start:
    """podlab's server program, as the pod's monitor starts it."""
    (here.folder / "key").write_text("sk-not-a-secret\n")
    words = ["llamacpp_server.py", "--key-file", str(here.folder / "key"), "--model", str(model), "--name", "tiny",
             "--port", str(here.port), "--set", "cpuparams.n_threads=1", *more]  # fmt: skip
    return Start(
        [sys.executable, *python, "-u", str(REMOTE / words[0]), *words[1:]], ["python3", *python, *words], {}, limits
    )


def good(
    *more: str, python: tuple[str, ...] = (), limits: Callable[[], None] | None = None
) -> Callable[[Scene], Start]:
    return lambda here: serve(here, copied(here), *more, python=python, limits=limits)


def copied(here: Scene) -> Path:
    """The model under a name that says nothing of this machine."""
    path = here.folder / "models" / "tiny.gguf"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(BUILT_IN.read_bytes())
    return path


def made_of(data: Callable[[bytes], bytes]) -> Callable[[Scene], Start]:
    """A start of a file made of the model's bytes."""

    def prepare(here: Scene) -> Start:
        path = copied(here)
        path.write_bytes(data(BUILT_IN.read_bytes()))
        return serve(here, path)

    return prepare


def edited(old: str, new: str) -> Callable[[Scene], Start]:
    """A start of the model with other words in its header."""

    def prepare(here: Scene) -> Start:
        path = copied(here)
        gguf = Gguf(path)
        gguf.replace(old.encode(), new.encode())
        path.write_bytes(gguf.data)
        return serve(here, path)

    return prepare


def huge(*more: str) -> Callable[[Scene], Start]:
    """A start of a model of many gigabytes, most of them a hole, with less memory than that."""

    def prepare(here: Scene) -> Start:
        path = copied(here)
        Gguf(path).grow(1_600_000, path)
        return serve(here, path, *more, limits=address_space(2 << 30))

    return prepare


def address_space(limit_bytes: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))


def bare(model: str) -> Callable[[Scene], Start]:
    """llama.cpp without podlab's program around it."""
    return lambda here: Start(
        [sys.executable, "-c", BARE, model, str(here.port)], ["llama-server", "-m", model, "--port", str(here.port)]
    )


def taken(here: Scene) -> Start:
    listening(here)
    return serve(here, copied(here))


def no_key(here: Scene) -> Start:
    start = serve(here, copied(here))
    (here.folder / "key").unlink()
    return start


def download(mood: Mood | None, space_bytes: int = 0) -> Callable[[Scene], Start]:
    """podlab's download step, from a hub in that mood (None: nobody listens), to a disk of that size."""

    def prepare(here: Scene) -> Start:
        hub_url = "http://127.0.0.1:9"
        if mood is not None:
            hub = Hub(BUILT_IN.parent, mood)
            here.closing.callback(hub.close)
            hub_url = hub.url
        models = here.folder / "models"
        models.mkdir()
        if space_bytes:
            if subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={space_bytes}", "none", str(models)],
                check=False,
                capture_output=True,
            ).returncode:
                raise Unmakeable("no file system can be mounted here")
            here.closing.callback(lambda: subprocess.run(["umount", "-l", str(models)], check=False))
        words = ["download.py", "--dir", str(here.folder), "--repo", "example/tiny", "--revision", "main",
                 "--file", BUILT_IN.name, "--to", str(models / "tiny.gguf")]  # fmt: skip
        env = {"HF_ENDPOINT": hub_url, "PODLAB_BACKOFF_S": "0.01"}
        return Start([sys.executable, "-u", str(REMOTE / words[0]), *words[1:]], ["python3", *words], env)

    return prepare


def spoiled_mmproj(here: Scene) -> Start:
    """The part of the model that sees is no model."""
    path = here.folder / "mmproj.gguf"
    path.write_text("no model at all\n" * 99)
    return serve(here, copied(here), "--set", f'mmproj.path="{path}"')


def killed(number: signal.Signals, after: str) -> Callable[[Scene], int]:
    def drive(here: Scene) -> int:
        here.said(after)
        here.running.send_signal(number)
        return here.end()

    return drive


def cut_when_ready(here: Scene) -> None:
    here.said(READY)


def stopped_while_loading(here: Scene) -> None:
    """Stopped by a signal before it was ready, and left so."""
    here.said("srv          init: init")
    os.kill(here.running.pid, signal.SIGSTOP)


def in_cgroup(here: Scene) -> Start:
    return serve(here, copied(here), "--set", "n_ctx=4000000", limits=in_group(here, 400 << 20))


def case(
    name: str,
    cause: str,
    words: str,
    prepare: Callable[[Scene], Start],
    drive: Callable[[Scene], int | None] = Scene.end,
    **more: Any,
) -> Case:
    return Case("llamacpp", name, cause, words, prepare, drive, **more)


CASES = (
    case("ready", "none", READY, good(), cut_when_ready),
    case("missing_file", "model_not_found", "there is no file", lambda here: serve(here, "/home/user/models/missing.gguf")),
    case("missing_file_raw", "model_not_found", "failed to open GGUF file", bare("nope.gguf")),
    case("garbage_file", "corrupt_weights", "invalid magic characters", made_of(lambda data: b"no model at all\n" * 99)),
    case("truncated_file", "corrupt_weights", "not within the file bounds", made_of(lambda data: data[: len(data) // 3])),
    case("header_only_file", "corrupt_weights", "failed to read key-value pairs", made_of(lambda data: data[:300])),
    case("empty_file", "corrupt_weights", "failed to read magic", made_of(lambda data: b"")),
    case("new_version", "unsupported_architecture", "only supports up to version", made_of(lambda data: data[:4] + b"\x63\0\0\0" + data[8:])),
    case("missing_tensor", "corrupt_weights", "not found", edited("blk.3.attn_q.weight", "blk.3.attn_x.weight")),
    case("unknown_architecture", "unsupported_architecture", "unknown model architecture", edited("\x05\0\0\0\0\0\0\0llama", "\x05\0\0\0\0\0\0\0llamq")),
    case("unknown_pretokenizer", "missing_tokenizer", "unknown pre-tokenizer type", edited("\x05\0\0\0\0\0\0\0gpt-2", "\x05\0\0\0\0\0\0\0gpt-9")),
    case("no_tokenizer", "missing_tokenizer", "cannot find tokenizer vocab", edited("tokenizer.ggml.tokens", "tokenizer.ggml.nothin")),
    case("port_in_use", "port_in_use", "couldn't bind HTTP server socket", taken),
    case("kv_too_large", "out_of_memory_kv", "failed to allocate buffer for kv cache", good("--set", "n_ctx=4000000", limits=address_space(900 << 20))),
    case("weights_too_large", "out_of_memory_weights", "unable to allocate CPU buffer", huge("--set", 'load_mode="LLAMA_LOAD_MODE_NONE"')),
    case("weights_not_mapped", "out_of_memory_weights", "mmap failed", huge()),
    case("oom_kill", "killed", "", in_cgroup, evidence="evidence = { oom_kills = 1 }"),
    case("bad_cache_type", "bad_flag", "requires flash_attn", good("--set", 'cache_type_v="GGML_TYPE_Q4_0"', "--set", 'flash_attn_type="LLAMA_FLASH_ATTN_TYPE_DISABLED"')),
    case("bad_flag", "bad_flag", "n_ctxx", good("--set", "n_ctxx=1")),
    case("bad_value", "bad_flag", "many", good("--set", 'n_ctx="many"')),
    case("bad_template", "template_error", "chat template parsing error", good("--set", 'chat_template="{% for %}"')),
    case("mmproj_missing", "model_not_found", "No such file or directory", good("--set", 'mmproj.path="/home/user/models/mmproj.gguf"')),
    case("no_cuda", "driver_or_device", "no cuda device", good("--backend", "cuda")),
    case("no_gpu_layers", "driver_or_device", "no GPU to put 5 layers on", good("--set", "n_gpu_layers=5")),
    case("no_module", "no_environment", "No module named", good(python=("-S",))),
    case("no_key", "other", "the endpoint's key cannot be read", no_key),
    case("killed", "killed", "", good(), killed(signal.SIGKILL, READY)),
    case("terminated", "killed", "", good(), killed(signal.SIGTERM, READY)),
    case("crashed", "other", "", good(), killed(signal.SIGSEGV, READY)),
    case("stuck", "hang", "", good(), stopped_while_loading),
    case("download_gated", "gated_or_unauthorized", "wants a token", download("gated")),
    case("download_missing", "model_not_found", "the hub has no", download("missing")),
    case("download_no_network", "no_network", "does not answer", download(None)),
    case("download_disk_full", "disk_full", "GB more", download("serves", 1 << 20)),
    # Made only after the rules stood.
    case("no_merges", "missing_tokenizer", "cannot find tokenizer merges", edited("tokenizer.ggml.merges", "tokenizer.ggml.mergex"), held_out=True),
    case("no_context_length", "corrupt_weights", "key not found in model", edited("llama.context_length", "llama.context_lengtx"), held_out=True),
    case("mmproj_garbage", "corrupt_weights", "invalid magic characters", spoiled_mmproj, held_out=True),
    case("killed_loading", "killed", "", good(), killed(signal.SIGKILL, "srv          init: init"), held_out=True),
    case("download_forbidden", "gated_or_unauthorized", "wants a token", download("forbidden"), held_out=True),
    case("download_busy", "no_network", "the hub answers 503", download("busy"), held_out=True),
)  # fmt: skip
