"""Make a GGUF file of a model in safetensors on a pod, in an environment of its own there."""

from __future__ import annotations

import re
import secrets as random
from importlib import resources
from typing import TYPE_CHECKING

from podlab.engines.repository import INSTALLER
from podlab.errors import BadArgument, EngineUnavailable, LinkLost, NotFound, TransferFailed, Unreachable
from podlab.events import Notice, Stage, Work
from podlab.lab import weights
from podlab.lab.downloads import WATCH_S, last_words
from podlab.lab.facts import Facts
from podlab.lab.patience import Patience, abandon, repeated
from podlab.types import Pod, Step, StoredModel

if TYPE_CHECKING:
    from podlab.lab.facts import PodFacts
    from podlab.lab.weights import Shelf
    from podlab.lab.workspace import Workspace

PACKAGE = "gguf==0.19.0"
"""llama.cpp's own writer of GGUF files; it brings numpy. The version that the tests convert with."""
NEED_BYTES = 400 << 20
CONVERTER = ("safetensors_files.py", "gguf_kinds.py", "gguf_sentencepiece.py", "gguf_tokenizer.py", "convert.py")
"""The files of podlab/remote that convert, beside each other in a folder on the pod."""


def target(found: Shelf, model: StoredModel, quant: str) -> str:
    """Where the file goes on the pod: beside the other models there, named for its model and its type.

    Raises BadArgument for a model that is a GGUF file already, or not whole.
    """
    if model.format == "gguf":
        raise BadArgument(f"{model.id} is a GGUF file already.", hint="Name a model in safetensors.")
    if model.state == "partial":
        raise BadArgument(f"{model.id} is not whole.", hint=f"Fetch the rest: podlab model download {model.id}")
    name = re.sub(r"[^A-Za-z0-9._-]+", "--", model.id.partition(":")[2].strip("/"))
    if model.id.startswith("pod:"):
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", model.path.rstrip("/").rpartition("/")[2])
    return f"{found.disk.path}/{name}-{quant}.gguf"


def convert(
    workspace: Workspace, pod: Pod, facts: PodFacts, model: StoredModel, quant: str, path: str, *, force: bool = False
) -> Work[StoredModel]:
    """The model made of another's weights. One that is there is not made again without `force`. An interrupt ends it.

    Raises EngineUnavailable where the converter does not know the model, or cannot be installed; TransferFailed when it
    fails otherwise (no room, damaged weights).
    """
    known = _at(workspace, pod, facts, path)
    if known is not None and not force:
        yield Notice(f"{known.id} is there already; nothing was converted. With --force it is made anew.")
        return known
    side = workspace.side(pod)
    job_id = f"c-{random.token_hex(4)}"
    folder = resources.files("podlab.remote")
    files = {name: (folder / name).read_text(encoding="utf-8") for name in (*INSTALLER, *CONVERTER)}
    try:
        repeated(
            lambda: side.start(
                id=job_id, name=job_id, kind="job", steps=_steps(facts, model, quant, path), files=files,
                model=model.id, meta={"command": f"model convert {model.id} --quant {quant}"},
            )
        )  # fmt: skip
        last = yield from _followed(workspace, pod, job_id, model)
    except KeyboardInterrupt:
        yield from abandon(side, job_id, "the conversion")
        raise
    if last.exit is None or last.exit.status != 0:
        cause, reason = last_words(last)
        said = f"{model.id} could not be converted on {pod.name}: {reason}."
        if cause in ("unsupported_architecture", "missing_tokenizer", "no_environment", "bad_config"):
            hint = "Look for a GGUF file of it that somebody made: podlab model search NAME --format gguf"
            raise EngineUnavailable(said, hint=hint if cause != "no_environment" else "")
        raise TransferFailed(said, pod=pod.name, hint=f"See: podlab pod attach {job_id} --on {pod.name}")
    made = _at(workspace, pod, facts, path)
    if made is None:
        raise NotFound(f"The converter wrote no file {path} on {pod.name}.")
    return made


def _steps(facts: PodFacts, model: StoredModel, quant: str, path: str) -> tuple[Step, ...]:
    prepare = (
        facts.python_path, "-u", "{dir}/setup.py", "--home", "{home}", "--dir", "{dir}", "--engine", "gguf",
        "--package", PACKAGE, "--min-python", "3.8", "--probe", "import gguf, numpy", "--need-bytes", str(NEED_BYTES),
    )  # fmt: skip
    work = (
        "{dir}/env/bin/python", "-u", "{dir}/convert.py", "--dir", "{dir}", "--model", model.path, "--to", path,
        "--name", model.id.partition(":")[2].strip("/").rpartition("/")[2], "--quant", quant,
    )  # fmt: skip
    return Step("prepare", prepare), Step("run", work)


def _followed(workspace: Workspace, pod: Pod, job_id: str, model: StoredModel) -> Work[Facts]:
    """Until it has ended, over breaks of the link."""
    last: Facts | None = None
    patience = Patience()
    while True:
        watching = workspace.side(pod).watch(job_id, WATCH_S, "ended")
        try:
            while True:
                last = next(watching)
                patience.heard()
                words = "Preparing the converter" if last.step == "prepare" else f"Converting {model.id} on {pod.name}"
                yield Stage(last.step or "start", words)
        except StopIteration as end:
            if last is not None and end.value == "ended":
                return last
        except (LinkLost, Unreachable) as error:
            yield Notice(f"The link to {pod.name} broke; it goes on there. Connecting again.", "warning")
            patience.wait(error)
        finally:
            watching.close()


def _at(workspace: Workspace, pod: Pod, facts: PodFacts, path: str) -> StoredModel | None:
    models = weights.shelf(workspace, pod, facts).models
    return next((model for model in models if model.path == path), None)
