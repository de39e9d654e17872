"""vLLM's flags: which of a person's replace ours, which are ours alone, and which another version calls otherwise.

The table holds what old commands and recipes on the web still say and versions from 0.22 on refuse. Rows name the
change's place of record where it is known; that 0.32.0 lacks them all is tested against the real one. What is not in
the table passes as it is, unless the installed version's own list of flags is known.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from podlab.errors import BadArgument

Version = tuple[int, ...]
PULLS = "https://github.com/vllm-project/vllm/pull/"
ISSUES = "https://github.com/vllm-project/vllm/issues/"


@dataclass(frozen=True)
class Gone:
    """A flag that vLLM does not have any more: in no version that podlab starts, or with `since` from that one on.

    With `instead` the flag is written that way and keeps its value; with `drop` it is left out, because what it asked
    for is so anyway or no longer means anything; else it is refused. `why` is the reason in a sentence.
    """

    why: str
    since: Version = ()
    instead: str = ""
    drop: bool = False


GONE: dict[str, Gone] = {
    "--swap-space": Gone(f"no KV cache is swapped to the CPU since V1 ({PULLS}36216)", drop=True),
    "--disable-log-requests": Gone(
        f"requests are not logged unless --enable-log-requests is given ({PULLS}21739)", drop=True
    ),
    "--use-v2-block-manager": Gone("there is only one block manager", drop=True),
    "--worker-use-ray": Gone("it is --distributed-executor-backend ray"),
    "--enable-reasoning": Gone("--reasoning-parser alone does it", drop=True),
    "--device": Gone("the build of vLLM decides the device", drop=True),
    "--task": Gone(f"it is --runner and --convert now ({PULLS}21470)"),
    "--num-scheduler-steps": Gone("V1 has no multi-step scheduling", drop=True),
    "--multi-step-stream-outputs": Gone("V1 has no multi-step scheduling", drop=True),
    "--scheduler-delay-factor": Gone("V1's scheduler has no such delay", drop=True),
    "--preemption-mode": Gone("V1 always recomputes what it preempted", drop=True),
    "--num-lookahead-slots": Gone("it follows from --speculative-config"),
    "--max-num-partial-prefills": Gone(f"V1's scheduler has no such limit ({ISSUES}51494)", (0, 27)),
    "--max-long-partial-prefills": Gone(f"V1's scheduler has no such limit ({ISSUES}51494)", (0, 27)),
    "--guided-decoding-backend": Gone(
        "guided decoding is called structured outputs", instead="--structured-outputs-config.backend"
    ),
    "--max-seq-len-to-capture": Gone(
        f"it never counted for V1; graphs are limited by --max-cudagraph-capture-size ({PULLS}25543)", drop=True
    ),
    "--cuda-graph-sizes": Gone(f"renamed ({PULLS}26016)", instead="--cudagraph-capture-sizes"),
    "--rope-scaling": Gone(f"it goes into --hf-overrides as JSON ({PULLS}28006)"),
    "--rope-theta": Gone(f"it goes into --hf-overrides as JSON ({PULLS}28006)"),
    "--speculative-model": Gone("it goes into --speculative-config as JSON"),
    "--num-speculative-tokens": Gone("it goes into --speculative-config as JSON"),
    "--disable-mm-preprocessor-cache": Gone("it is --mm-processor-cache-gb 0"),
    "--override-pooler-config": Gone("renamed", instead="--pooler-config"),
    "--calculate-kv-scales": Gone("scales come from the checkpoint", (0, 32)),
}

OURS = {
    "--model": "the model is the command's own argument",
    "--served-model-name": "the name comes from --name",
    "--host": "a server listens on 127.0.0.1 of the pod and is reached through the tunnel",
    "--port": "give the port as an option of the command",
    "--uds": "a server is reached through its port",
    "--api-key": "podlab makes a key for each endpoint; one written here could be read by everybody on the machine",
    "--hf-token": "keep the token with: podlab secret set HF_TOKEN; only the download gets it",
    "--headless": "a server without a port cannot be reached",
    "--ssl-keyfile": "the tunnel encrypts; podlab asks the server over plain HTTP on 127.0.0.1",
    "--ssl-certfile": "the tunnel encrypts; podlab asks the server over plain HTTP on 127.0.0.1",
    "--root-path": "podlab asks the server under /",
}
_ALIASES = {
    "-tp": "--tensor-parallel-size", "-dp": "--data-parallel-size", "-pp": "--pipeline-parallel-size",
    "-q": "--quantization", "-cc": "--compilation-config", "-sc": "--speculative-config",
    "-asc": "--api-server-count", "-ac": "--attention-config", "-n": "--nnodes", "-r": "--node-rank",
}  # fmt: skip


@dataclass(frozen=True)
class Given:
    """One flag with the words that belong to it, as they were written."""

    name: str
    """Its long name, with dashes, without a value or a key behind a dot."""
    words: tuple[str, ...]


def version_of(text: str) -> Version:
    """ "0.32.0+cpu" as (0, 32, 0); () for what is no version, such as a nightly build that names none."""
    numbers: list[int] = []
    for part in text.partition("+")[0].split(".")[:3]:
        digits = "".join(letter for letter in part if letter.isdigit())
        if not part[:1].isdigit():
            break
        numbers.append(int(digits[:6]))
    return tuple(numbers)


def merged(
    ours: Sequence[tuple[str, ...]], extra: Sequence[str], version: str, known: frozenset[str] = frozenset()
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(the words behind the model, what was changed in sentences) for that version of vLLM.

    A flag of the person's replaces ours together with its value; the words themselves are passed on as they are.
    Raises BadArgument for a flag that is podlab's own, that this version has not, or for a stray word.
    """
    notes: list[str] = []
    theirs = [kept for given in _split(extra) if (kept := _fitting(given, version, notes))]
    for given in theirs:
        _check(given, version, known)
    replaced = {given.name for given in theirs} | {_opposite(given.name) for given in theirs}
    words = [word for flag in ours if flag[0] not in replaced for word in flag]
    return (*words, *(word for given in theirs for word in given.words)), tuple(notes)


def _split(extra: Sequence[str]) -> list[Given]:
    """The words as flags. A value never begins with a dash unless it is a number or JSON's own."""
    found: list[Given] = []
    for word in extra:
        if "\0" in word:
            raise BadArgument("An option holds a NUL character.", hint="Leave it out.")
        if _is_flag(word):
            found.append(Given(_canonical(word), (word,)))
        elif found:
            found[-1] = Given(found[-1].name, (*found[-1].words, word))
        else:
            raise BadArgument(f"{word!r} is no option of vLLM.", hint="Options look like --max-num-seqs 16.")
    return found


def _is_flag(word: str) -> bool:
    return len(word) > 1 and word[0] == "-" and not (word[1].isdigit() or word[1] == ".")


def _canonical(word: str) -> str:
    """vLLM takes dashes and underscores alike, `--x=1` and `--x.key 1`."""
    name = word.partition("=")[0]
    short = name.partition(".")[0]
    if short in _ALIASES:
        return _ALIASES[short]
    return short.replace("_", "-").rstrip("+") if name.startswith("--") else name


def _opposite(name: str) -> str:
    return "--" + name[5:] if name.startswith("--no-") else "--no-" + name[2:]


def _fitting(given: Given, version: str, notes: list[str]) -> Given | None:
    """The flag as that version knows it; None when it is to be left out. A version nobody knows counts as a new one."""
    gone, number = GONE.get(given.name), version_of(version)
    if gone is None or (number and number < gone.since):
        return given
    if gone.instead:
        first, joined, value = given.words[0].partition("=")
        notes.append(f"{first} is written as {gone.instead} for vLLM {version}: {gone.why}.")
        return Given(_canonical(gone.instead), (gone.instead + joined + value, *given.words[1:]))
    if gone.drop:
        notes.append(f"{given.words[0]} is left out, vLLM {version} does not have it: {gone.why}.")
        return None
    raise BadArgument(f"vLLM {version} has no {given.name}: {gone.why}.", hint="Change or leave out that option.")


def _shortened(name: str, own: str, known: frozenset[str]) -> bool:
    return name.startswith("--") and own.startswith(name) and name not in known


def _check(given: Given, version: str, known: frozenset[str]) -> None:
    # argparse completes what is unambiguous: --hos is --host.
    own = next((own for own in OURS if given.name == own or _shortened(given.name, own, known)), None)
    if own:
        raise BadArgument(f"{given.name} cannot be given here: {OURS[own]}.", hint="Leave it out.")
    if not known or not given.name.startswith("--") or given.name in known or _opposite(given.name) in known:
        return
    # A beginning that only one option has may be meant.
    if sum(flag.startswith(given.name) for flag in known) == 1:
        return
    close = difflib.get_close_matches(given.name, known, n=1, cutoff=0.6)
    raise BadArgument(
        f"vLLM {version} has no option {given.name}.",
        hint=f"Did you mean {close[0]}?" if close else "Its own list: vllm serve --help=all",
    )
