"""The failures of vLLM that its CPU build shows with the tiny model of tests/data/tiny."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hub import Hub, Mood
from run import TINY, Case, Scene, Start, Unmakeable

READY = "Application startup complete"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "podlab" / "failure-logs"
"""What vLLM remembers between starts (the classes of models); without it each start takes seconds longer."""


def serve(
    here: Scene,
    model: object,
    *more: str,
    env: dict[str, str | None] | None = None,
    limits: Callable[[], None] | None = None,
) -> Start:
    """`vllm serve MODEL ...` as podlab would start it, offline."""
    words = [
        "serve",
        str(model),
        "--served-model-name",
        "tiny",
        "--host",
        "127.0.0.1",
        "--port",
        str(here.port),
        "--enforce-eager",
        *more,
    ]
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CACHE_ROOT": str(CACHE / "vllm"),
             "HF_HOME": str(here.folder / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1"}  # fmt: skip
    if here.vllm_python is None:
        raise Unmakeable("there is no vLLM")
    CACHE.mkdir(parents=True, exist_ok=True)
    command = Path(here.vllm_python).with_name("vllm")
    argv = [str(command)] if command.exists() else [here.vllm_python, "-m", "vllm.entrypoints.cli.main"]
    return Start([*argv, *words], ["vllm", *words], _set(quiet | (env or {})), limits)


def _set(env: Mapping[str, str | None]) -> dict[str, str]:
    """Without the variables that are to be unset."""
    return {name: value for name, value in env.items() if value is not None}


def good(
    *more: str, env: dict[str, str | None] | None = None, limits: Callable[[], None] | None = None
) -> Callable[[Scene], Start]:
    """A start of the model as it is."""
    return lambda here: serve(here, here.model(), *more, env=env, limits=limits)


def spoiled(spoil: Callable[[Path], None], *more: str) -> Callable[[Scene], Start]:
    """A start of a copy of the model, spoiled."""

    def prepare(here: Scene) -> Start:
        model = here.model()
        spoil(model)
        return serve(here, model, *more)

    return prepare


def absent(name: str) -> Callable[[Scene], Start]:
    """A start of a folder that is not there."""
    return lambda here: serve(here, here.folder / "models" / name)


def without(name: str) -> Callable[[Path], None]:
    return lambda model: (model / name).unlink()


def holding(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda model: (model / name).write_bytes(data) and None


def config(**changes: Any) -> Callable[[Path], None]:
    """Other values in config.json."""

    def spoil(model: Path) -> None:
        path = model / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return spoil


def cut(model: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])


def missing_shard(model: Path) -> None:
    """An index that names two shards, of which one is there."""
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    index = {"metadata": {}, "weight_map": {"model.embed_tokens.weight": "model-00001-of-00002.safetensors",
                                           "model.norm.weight": "model-00002-of-00002.safetensors"}}  # fmt: skip
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


def holed(model: Path) -> None:
    """A table of tensors that leaves out some of the file's bytes."""
    path = model / "model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + length])
    kept = {name: entry for name, entry in table.items() if not name.startswith("model.layers.3")}
    end = max(entry["data_offsets"][1] for name, entry in kept.items() if name != "__metadata__")
    head = json.dumps(kept).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + data[8 + length : 8 + length + end])


def no_tokenizer(model: Path) -> None:
    for path in model.glob("tokenizer*"):
        path.unlink()


def with_file(name: str, text: str, option: str) -> Callable[[Scene], Start]:
    """A start with an option that names a file of ours."""

    def prepare(here: Scene) -> Start:
        (here.folder / name).write_text(text)
        return serve(here, here.model(), option, str(here.folder / name))

    return prepare


def listening(here: Scene) -> None:
    """Take the scene's port, until it is over."""
    holder = here.closing.enter_context(socket.socket())
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", here.port))
    holder.listen()


def taken(here: Scene) -> Start:
    listening(here)
    return serve(here, here.model())


def from_hub(mood: Mood) -> Callable[[Scene], Start]:
    """A start of a repository of a hub in that mood."""

    def prepare(here: Scene) -> Start:
        hub = Hub(TINY, mood)
        here.closing.callback(hub.close)
        return serve(here, "example/tiny", env={"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url})

    return prepare


def unreachable(here: Scene) -> Start:
    return serve(here, "example/tiny", env={"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"})


def full_disk(here: Scene) -> Start:
    """The hub's cache on a disk of two megabytes."""
    disk = here.folder / "hf"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(disk)], check=False, capture_output=True
    ).returncode:
        raise Unmakeable("no file system can be mounted here")
    here.closing.callback(lambda: subprocess.run(["umount", "-l", str(disk)], check=False))
    hub = Hub(TINY, "serves")
    here.closing.callback(hub.close)
    return serve(here, "example/tiny", env={"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.url})


def small_memory(limit_bytes: int) -> Callable[[], None]:
    """At most so much address space for every process."""
    return lambda: resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))


def small_files() -> None:
    """No file larger than a megabyte, as a quota does it."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))


def in_group(here: Scene, limit_bytes: int) -> Callable[[], None]:
    """What puts a child into a memory group of that size: the kernel kills what goes beyond."""
    group = Path("/sys/fs/cgroup/memory") / here.folder.name
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(limit_bytes))
    except OSError as error:
        raise Unmakeable(f"no memory group can be made: {error}") from error

    def leave() -> None:
        for _ in range(50):  # until the last of its processes is gone
            with contextlib.suppress(OSError):
                group.rmdir()
                return
            time.sleep(0.1)

    here.closing.callback(leave)
    return lambda: (group / "cgroup.procs").write_text(str(os.getpid())) and None


def in_cgroup(limit_bytes: int) -> Callable[[Scene], Start]:
    return lambda here: serve(here, here.model(), limits=in_group(here, limit_bytes))


def ready(here: Scene) -> None:
    here.said(READY)


def cut_when_ready(here: Scene) -> None:
    ready(here)


def killed_when_ready(title: str) -> Callable[[Scene], int]:
    """`kill -9` of one of its processes once it serves."""

    def drive(here: Scene) -> int:
        ready(here)
        os.kill(here.child(title), signal.SIGKILL)
        return here.end()

    return drive


def killed_while_loading(title: str) -> Callable[[Scene], int]:
    def drive(here: Scene) -> int:
        pid = here.child(title)
        here.said("Initializing a V1 LLM engine")
        os.kill(pid, signal.SIGKILL)
        return here.end()

    return drive


def signalled(number: signal.Signals, after: str) -> Callable[[Scene], int]:
    """A signal to the server itself, once its log says `after`."""

    def drive(here: Scene) -> int:
        here.said(after)
        here.running.send_signal(number)
        return here.end()

    return drive


def stuck(here: Scene) -> None:
    """The engine stopped in the middle of its start: nothing ends, nothing goes on."""
    pid = here.child("EngineCore")
    here.said("Initializing a V1 LLM engine")
    os.kill(pid, signal.SIGSTOP)
    time.sleep(15)


def cut_while_loading(here: Scene) -> None:
    here.said("Starting to load model")


def asked_to_chat(here: Scene) -> int | None:
    """One chat request once it serves, whatever comes of it."""
    ready(here)
    body = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{here.port}/v1/chat/completions", body, {"Content-Type": "application/json"}
    )
    with contextlib.suppress(OSError):
        urllib.request.urlopen(request, timeout=60).read()
    return None


def case(
    name: str,
    cause: str,
    words: str,
    prepare: Callable[[Scene], Start],
    drive: Callable[[Scene], int | None] = Scene.end,
    **more: Any,
) -> Case:
    return Case("vllm", name, cause, words, prepare, drive, **more)


CASES = (
    case("ready", "none", READY, good(), cut_when_ready),
    case("bad_flag", "bad_flag", "unrecognized arguments: --swap-spaces 4", good("--swap-spaces", "4")),
    case("bad_value", "bad_flag", "argument --max-model-len", good("--max-model-len", "banana")),
    case("bad_choice", "bad_flag", "argument --dtype: invalid choice", good("--dtype", "float99")),
    case("bad_json", "bad_flag", "argument --speculative-config", good("--speculative-config", "{method: ngram")),
    case("bad_ratio", "bad_flag", "gpu_memory_utilization", good("--gpu-memory-utilization", "1.7")),
    case("bad_tool_parser", "bad_flag", "invalid tool call parser", good("--enable-auto-tool-choice", "--tool-call-parser", "nonesuch")),
    case("missing_folder", "model_not_found", "Repo id must be in the form", absent("nowhere")),
    case("no_config", "bad_config", "Invalid repository ID or local directory", spoiled(without("config.json"))),
    case("broken_config", "bad_config", "is not a valid JSON file", spoiled(holding("config.json", b'{"architectures": ["LlamaForCausalLM"],'))),
    case("bad_config_value", "bad_config", "expected int, got str", spoiled(config(num_attention_heads="four"))),
    case("unknown_architecture", "unsupported_architecture", "are not supported for now", spoiled(config(architectures=["NoSuchForCausalLM"]))),
    case("unknown_model_type", "unsupported_architecture", "Transformers does not recognize", spoiled(config(model_type="nosuch", architectures=["NoSuchForCausalLM"]))),
    case("truncated_weights", "corrupt_weights", "Error while deserializing header", spoiled(cut)),
    case("garbage_weights", "corrupt_weights", "parse_safetensors_file_metadata", spoiled(holding("model.safetensors", b"no model at all\n" * 999))),
    case("missing_shard", "corrupt_weights", "referenced in index but missing", spoiled(missing_shard)),
    case("no_weights", "corrupt_weights", "Cannot find any model weights", spoiled(without("model.safetensors"))),
    case("wrong_offsets", "corrupt_weights", "invalid offset for tensor", spoiled(holed)),
    case("no_tokenizer", "missing_tokenizer", "instantiate the backend tokenizer", spoiled(no_tokenizer)),
    case("broken_tokenizer", "missing_tokenizer", "tokenization_utils_base.py", spoiled(holding("tokenizer.json", b'{"version": "1.0", "model": '))),
    case("no_template_file", "template_error", "The supplied chat template", good("--chat-template", "/home/user/nowhere.jinja")),
    case("broken_template", "template_error", "TemplateSyntaxError", with_file("chat.jinja", "{% for message in %}{{ message }}", "--chat-template"), asked_to_chat),
    case("port_in_use", "port_in_use", "ddress already in use", taken),
    case("context_too_long", "context_too_long", "is greater than the derived max_model_len", good("--max-model-len", "65536")),
    case("tp_numa", "tp_mismatch", "Not enough allowed NUMA nodes", good("--tensor-parallel-size", "2")),
    case("tp_heads", "tp_mismatch", "must be divisible by tensor parallel size", good("--tensor-parallel-size", "3")),
    case("kv_too_small", "out_of_memory_kv", "estimated maximum model length is", good("--kv-cache-memory-bytes", "3000000", "--block-size", "32", env={"VLLM_CPU_KVCACHE_SPACE": None})),
    case("no_cache_blocks", "out_of_memory_kv", "No available memory for the cache blocks", good("--kv-cache-memory-bytes", "1000", env={"VLLM_CPU_KVCACHE_SPACE": None}), held_out=True),
    case("kv_too_large", "out_of_memory_kv", "", good(env={"VLLM_CPU_KVCACHE_SPACE": "4000"})),
    case("memory_busy", "out_of_memory_weights", "less than desired CPU memory utilization", good("--gpu-memory-utilization", "0.999", env={"VLLM_CPU_KVCACHE_SPACE": None})),
    case("memory_limit", "out_of_memory_kv", "DefaultCPUAllocator", good(limits=small_memory(2_600 << 20))),
    case("oom_kill", "killed", "", in_cgroup(700 << 20), evidence="evidence = { oom_kills = 1 }"),
    case("worker_killed", "worker_died", "died unexpectedly", good(), killed_when_ready("VLLM::Worker")),
    case("engine_killed", "worker_died", "", good(), killed_when_ready("VLLM::EngineCore")),
    case("engine_killed_loading", "killed", "", good(), killed_while_loading("EngineCore")),
    case("server_killed", "killed", "", good(), signalled(signal.SIGKILL, READY)),
    case("server_terminated", "killed", "signal=SIGTERM", good(), signalled(signal.SIGTERM, READY)),
    case("disk_full", "disk_full", "", full_disk),
    case("no_network", "no_network", "", unreachable),
    case("offline", "no_network", "", lambda here: serve(here, "example/tiny")),
    case("gated", "gated_or_unauthorized", "", from_hub("gated")),
    case("forbidden", "gated_or_unauthorized", "", from_hub("forbidden")),
    case("repo_missing", "model_not_found", "", from_hub("missing")),
    case("quantization", "bad_flag", "Cannot find the config file for", good("--quantization", "awq_marlin")),
    case("stuck", "hang", "", good(), stuck),
    # Made only after the rules stood.
    case("empty_config", "bad_config", "Unrecognized model in", spoiled(holding("config.json", b"{}")), held_out=True),
    case("bad_rope", "bad_config", "Unknown RoPE scaling type", spoiled(config(rope_scaling={"rope_type": "nosuch", "factor": 2.0})), held_out=True),
    case("empty_tokenizer", "missing_tokenizer", "tokenization_utils_base.py", spoiled(holding("tokenizer.json", b"")), held_out=True),
    case("bad_cache_type", "bad_flag", "argument --kv-cache-dtype", good("--kv-cache-dtype", "fp99"), held_out=True),
    case("bad_port", "bad_flag", "port must be 0-65535", lambda here: serve(here, here.model(), "--port", "99999"), held_out=True),
    case("lora_missing", "model_not_found", "No adapter found for", good("--enable-lora", "--lora-modules", "extra=/home/user/models/nowhere"), held_out=True),
    case("hub_busy", "no_network", "", from_hub("busy"), held_out=True),
)  # fmt: skip
