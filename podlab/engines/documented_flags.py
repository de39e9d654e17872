"""Options of the documented engines: which of a person's replace ours, which are ours alone, and their other names.

An engine that listens elsewhere than on 127.0.0.1 serves without a key to the whole network, so what would make it do
so is refused under each of its names. None of it was held against a running engine, and no page was opened for it:
like the rest of documented.py it is unverified.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from podlab.errors import BadArgument

_HOST = "a server listens on 127.0.0.1 of the pod and is reached through the tunnel"
_PORT = "give the port as an option of the command"
_KEY = "a key on a command line can be read by everybody on the machine; the tunnel keeps others out"
_MODEL = "the model is the command's own argument"
_NAME = "the name comes from --name"
_PLAIN = "the tunnel encrypts; podlab asks the server over plain HTTP on 127.0.0.1"
_TUNNEL = "it would open the server to the internet without a key"
_COMMON = {"--host": _HOST, "--port": _PORT, "--api-key": _KEY, "--served-model-name": _NAME}

OURS: dict[str, Mapping[str, str]] = {
    "sglang": _COMMON | {
        "--model-path": _MODEL, "--admin-api-key": _KEY, "--ssl-keyfile": _PLAIN, "--ssl-certfile": _PLAIN,
        "--ssl-keyfile-password": _PLAIN, "--fastapi-root-path": "podlab asks the server under /",
    },
    "tgi": _COMMON | {
        "--hostname": _HOST, "--model-id": _MODEL, "--ngrok": _TUNNEL, "--ngrok-authtoken": _TUNNEL,
        "--ngrok-edge": _TUNNEL,
    },
    "trtllm": _COMMON | {"--model": _MODEL},
}  # fmt: skip
ALIASES: dict[str, Mapping[str, str]] = {
    "sglang": {
        "--model": "--model-path", "--tp": "--tp-size", "--tensor-parallel-size": "--tp-size", "--dp": "--dp-size",
        "--data-parallel-size": "--dp-size",
    },
    "tgi": {"-p": "--port"},
    "trtllm": {
        "--tensor-parallel-size": "--tp-size", "--tp": "--tp-size",
        "--free-gpu-memory-fraction": "--kv-cache-free-gpu-memory-fraction",
    },
}  # fmt: skip


def canonical(engine: str, word: str) -> str:
    """The name of the option that a word begins: with dashes, without a value, and by one of its names only."""
    if not word.startswith("--"):  # -p8080 is -p 8080
        return ALIASES[engine].get(word[:2], word)
    name = word.partition("=")[0].replace("_", "-")
    return ALIASES[engine].get(name, name)


def names_of(engine: str, extra: Sequence[str]) -> frozenset[str]:
    """The options that a person gives, by their canonical names. Raises BadArgument for one that is podlab's own.

    A beginning of such an option is refused too: argparse completes what is unambiguous.
    """
    if extra and not _is_option(extra[0]):
        raise BadArgument(
            f"{extra[0]!r} is no option of {engine}.", hint="Options look like --max-running-requests 16."
        )
    names = frozenset(canonical(engine, word) for word in extra if _is_option(word))
    for name in sorted(names):
        own = next((own for own in OURS[engine] if name == own or _shortened(engine, name, own)), None)
        if own:
            raise BadArgument(f"{name} cannot be given here: {OURS[engine][own]}.", hint="Leave it out.")
    return names


def _shortened(engine: str, name: str, own: str) -> bool:
    return name.startswith("--") and own.startswith(name) and name not in ALIASES[engine].values()


def _is_option(word: str) -> bool:
    return len(word) > 1 and word[0] == "-" and not (word[1].isdigit() or word[1] == ".")
