"""What a person gives to any engine: the variables that are not theirs to set, and the words that a pod would rewrite.

The pod's monitor fills in `{port}` and the like in every word of a step, wherever it stands. A person's words have to
arrive as they were written, so one that holds such a token is refused; other braces, as in JSON, pass untouched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from podlab.errors import BadArgument

FILLED_IN = ("{port}", "{dir}", "{home}", "{key}", "{path}")
"""What remote/monitor.py fills in."""
OWN_VARIABLES = {
    "CUDA_VISIBLE_DEVICES": "the GPUs are chosen with --gpus",
    "CUDA_DEVICE_ORDER": "GPUs are numbered as the driver numbers them, or --gpus would name others",
    "NVIDIA_VISIBLE_DEVICES": "the GPUs are chosen with --gpus",
    "HF_HUB_OFFLINE": "a server is kept from the network; the download before it is not",
    "HF_TOKEN": "keep the token with podlab secret set HF_TOKEN; only the download gets it",
    "HUGGING_FACE_HUB_TOKEN": "keep the token with podlab secret set HF_TOKEN; only the download gets it",
    "VLLM_API_KEY": "podlab makes a key for each endpoint",
}


def check_words(words: Sequence[str]) -> None:
    """Refuse what would not arrive as it was written. Raises BadArgument."""
    for word in words:
        if "\0" in word:
            raise BadArgument("An option holds a NUL character.", hint="Leave it out.")
        token = next((token for token in FILLED_IN if token in word), None)
        if token:
            raise BadArgument(
                f"{word[:80]!r} holds {token}, which the pod would fill in.",
                hint="Reword it.",
            )


def check_variables(env: Sequence[tuple[str, str]], own: Mapping[str, str] = OWN_VARIABLES) -> None:
    """Refuse variables that are podlab's `own`, and values that the pod would rewrite. Raises BadArgument."""
    for name, _ in env:
        if name in own:
            raise BadArgument(f"{name} cannot be given here, podlab sets it: {own[name]}.", hint="Leave it out.")
    check_words([value for _, value in env])
