"""llama.cpp through the `xllamacpp` wheel: llama-server's own code, started by remote/llamacpp_server.py.

A wheel and not the llama-server binary because one `pip install` brings it to Linux (x86_64, aarch64) and macOS
(arm64) with no compiler and no dependency. The wheel on PyPI computes on the CPU, on a Mac with Metal too; CUDA needs
another build of it.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib import resources

from podlab.engines import given, metrics
from podlab.engines.base import (
    Diagnosis,
    HubFile,
    Loading,
    LoadStage,
    MachineEvidence,
    PodFacts,
    SentFile,
    ServerMetrics,
    ServeSpec,
)
from podlab.engines.diagnosis import diagnose
from podlab.engines.llamacpp_options import as_arguments, assignments
from podlab.engines.repository import DOWNLOADER, INSTALLER
from podlab.errors import BadArgument, EngineUnavailable
from podlab.types import Step

VERSION = "2026.10.11549"
"""The pinned xllamacpp: its names may move with every build of llama.cpp."""
PACKAGE = f"xllamacpp=={VERSION}"
PROBE = "import xllamacpp"
NEED_BYTES = 400 * 2**20
MIN_PYTHON = (3, 10)
MIN_CONTEXT = 256
"""llama.cpp rounds the context of a slot up to a multiple of this many tokens."""
_PLATFORMS = {("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64")}
"""What the wheels on PyPI are built for. Source: the file list of xllamacpp there."""
_STAGES = (
    ("podlab: serving ", LoadStage.READY),
    ("warming up the model", LoadStage.WARM_UP),
    ("load_tensors", LoadStage.WEIGHTS),
    ("llama_model_loader", LoadStage.WEIGHTS),
)


def _importable(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


class LlamaCpp:
    """GGUF models on CPU, CUDA or Metal, as far as the installed build can."""

    name = "llamacpp"
    health_path = "/health"
    models_path = "/v1/models"
    metrics_path = "/metrics"
    probe_path = "/v1/completions"
    verified = True

    def __init__(self, importable: Callable[[str], bool] = _importable) -> None:
        self._importable = importable

    def check_options(self, spec: ServeSpec) -> None:
        """Refuse options that are wrong on any machine. Raises BadArgument."""
        if spec.memory_ratio is not None:
            raise BadArgument("llama.cpp takes no share of a GPU's memory.", hint="Say --gpu-layers N instead.")
        if spec.gpus:
            raise BadArgument("llama.cpp's GPUs are not chosen with --gpus.", hint="Use its own: -- --main-gpu N")
        if spec.engine_version not in (None, VERSION):
            raise BadArgument(
                f"podlab runs llama.cpp with xllamacpp {VERSION} and no other version.",
                hint="Leave --engine-version out.",
            )
        given.check_variables(spec.env, own={})
        self._values(spec)

    def check(self, spec: ServeSpec, facts: PodFacts) -> None:
        """Refuse what cannot work. Raises BadArgument, EngineUnavailable."""
        self.check_options(spec)
        if spec.hub_repo is not None:
            raise BadArgument("llama.cpp serves one GGUF file.", hint="Write hf:OWNER/REPO/FILE.gguf.")
        if (spec.model_path is None) == (spec.hub is None):
            raise BadArgument("A model is either a file on the pod or one of the hub.", hint="Give one of them.")
        if spec.backend == "metal" and facts.os != "Darwin":
            raise EngineUnavailable("Metal is there on macOS only.", hint="Leave --backend out, or say --backend cpu.")
        if self.ready_here(facts):
            return
        if (facts.os, facts.arch) not in _PLATFORMS:
            raise EngineUnavailable(
                f"llama.cpp has no ready-made build for {facts.os} on {facts.arch}.",
                hint="Linux on x86_64 or aarch64 and macOS on arm64 have one.",
            )

    def steps(self, spec: ServeSpec, facts: PodFacts) -> tuple[Step, ...]:
        """prepare (unless this very Python has xllamacpp), download (for a file of the hub), serve."""
        self.check(spec, facts)
        steps = []
        python = sys.executable
        if not self.ready_here(facts):
            steps.append(self._prepare(facts))
            python = "{dir}/env/bin/python"
        model = spec.model_path
        if spec.hub is not None:
            model = hub_path(spec.models_dir, spec.hub)
            steps.append(_download(spec, spec.hub, model, facts))
        assert model is not None
        backend = ("--backend", spec.backend) if spec.backend else ()
        argv = (
            python, "-u", "{dir}/llamacpp_server.py", "--key-file", "{dir}/key", "--model", model,
            "--name", spec.served_name, "--port", spec.port, *backend, *as_arguments(self._values(spec)),
        )  # fmt: skip
        return (*steps, Step("serve", argv, dict(spec.env)))

    def files(self, spec: ServeSpec, facts: PodFacts) -> tuple[SentFile, ...]:
        """The programs `steps` names, from podlab.remote."""
        names = ["llamacpp_server.py"]
        if not self.ready_here(facts):
            names += INSTALLER
        if spec.hub is not None:
            names += DOWNLOADER
        folder = resources.files("podlab.remote")
        return tuple(SentFile(name, (folder / name).read_text(encoding="utf-8")) for name in names)

    def diagnose(
        self, log_lines: Sequence[str], status: int | None, evidence: MachineEvidence | None = None
    ) -> Diagnosis:
        """Why it ended, see engines/diagnosis.py."""
        return diagnose(log_lines, status, evidence, engine=self.name)

    def notes(self, spec: ServeSpec) -> tuple[str, ...]:
        """See the contract."""
        return ()

    def stage_of(self, line: str) -> Loading | None:
        """See the contract."""
        return next((Loading(stage) for words, stage in _STAGES if words in line[:4096]), None)

    def metrics(self, text: str) -> ServerMetrics:
        """See the contract."""
        return metrics.read(text, metrics.LLAMACPP)

    def ready_here(self, facts: PodFacts) -> bool:
        """Whether the Python that runs podlab has xllamacpp, and is the pod's: then no environment is made."""
        return facts.local and sys.version_info >= MIN_PYTHON and self._importable("xllamacpp")

    def _prepare(self, facts: PodFacts) -> Step:
        minimum = ".".join(map(str, MIN_PYTHON))
        argv = (
            facts.python_path, "-u", "{dir}/setup.py", "--home", "{home}", "--dir", "{dir}", "--engine", self.name,
            "--package", PACKAGE, "--min-python", minimum, "--probe", PROBE,
        )  # fmt: skip
        return Step("prepare", argv)

    def _values(self, spec: ServeSpec) -> dict[str, object]:
        for name, value, least in (
            ("context", spec.context, MIN_CONTEXT), ("slots", spec.slots, 1), ("threads", spec.threads, 1),
            ("gpu_layers", spec.gpu_layers, 0),
        ):  # fmt: skip
            if value is not None and not least <= value < 2**31:
                why = " llama.cpp makes any smaller one that large." if least == MIN_CONTEXT else ""
                raise BadArgument(f"{name} cannot be {value}.", hint=f"It has to be a whole number from {least}.{why}")
        if spec.backend == "cpu" and spec.gpu_layers:
            raise BadArgument("--backend cpu puts no layers on a GPU.", hint="Leave one of the two options out.")
        values: dict[str, object] = {"n_parallel": spec.slots}
        if spec.context is not None:
            values["n_ctx"] = spec.context * spec.slots  # llama.cpp divides its context among the slots
        if spec.gpu_layers is not None:
            values["n_gpu_layers"] = spec.gpu_layers
        if spec.threads is not None:
            values["cpuparams.n_threads"] = spec.threads
        return values | assignments(spec.extra)


def hub_path(models_dir: str, file: HubFile) -> str:
    """Where a file of the hub lies on a pod. The revision is part of it: another one is another file."""
    return f"{models_dir}/{file.repo}/{file.revision}/{file.file}"


def _download(spec: ServeSpec, hub: HubFile, target: str, facts: PodFacts) -> Step:
    known = (*(("--sha256", hub.sha256) if hub.sha256 else ()),
             *(("--size", str(hub.size_bytes)) if hub.size_bytes else ()))  # fmt: skip
    argv = (
        facts.python_path, "-u", "{dir}/download.py", "--dir", "{dir}", "--repo", hub.repo, "--revision", hub.revision,
        "--file", hub.file, "--to", target, *known,
    )  # fmt: skip
    return Step("download", argv, secrets=("HF_TOKEN",) if spec.hub_token else ())
