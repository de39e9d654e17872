"""vLLM: `vllm serve` in an environment of its own, that podlab makes or that a person has.

The server listens on 127.0.0.1 of the pod. Its key is in its environment (VLLM_API_KEY): an argv is for everybody on
the machine to read, and vLLM writes its arguments into its log. It serves from files that are there already and is kept
from the network, so a token for gated models reaches only the step that downloads. Facts: docs.vllm.ai, cli/serve and
configuration/env_vars; log lines of 0.32.0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources

from podlab.engines import given, metrics, vllm_flags
from podlab.engines.base import (
    Diagnosis,
    Loading,
    LoadStage,
    MachineEvidence,
    PodFacts,
    SentFile,
    ServerMetrics,
    ServeSpec,
)
from podlab.engines.diagnosis import diagnose
from podlab.engines.repository import INSTALLER, REPOSITORY_DOWNLOADER, download_step, repository_path
from podlab.errors import BadArgument, EngineUnavailable
from podlab.types import Step

VERSION = "0.32.0"
"""What podlab installs unless told otherwise: the version that its tests run (as the CPU build)."""
MINIMUM = (0, 22, 0)
MIN_PYTHON = (3, 11)
"""Of 0.32.0, by its metadata on PyPI; older ones take it too."""
NEED_BYTES = 12 * 2**30
"""What an environment takes on the disk: torch and its CUDA libraries are most of it."""
PROBE = "import vllm, vllm.entrypoints.cli.main"

_STAGES: tuple[tuple[str, LoadStage], ...] = (
    (r"Application startup complete", LoadStage.READY),
    (r"Capturing CUDA [Gg]raph|[Ww]arming up|Graph capturing finished|[Kk]ernel warmup|KV cache size: ",
     LoadStage.WARM_UP),
    (r"torch\.compile|Dynamo bytecode transform|[Cc]ompiling (a )?(function|graph)|Start compiling|Compiled graph",
     LoadStage.COMPILE),
    (r"Starting to load model|[Ll]oading .*checkpoint shards|Loading weights took|Model loading took",
     LoadStage.WEIGHTS),
    (r"vLLM API server version|Resolved architecture|Initializing a V1 LLM engine|non-default args", LoadStage.START),
)  # fmt: skip
_COMPILED = tuple((re.compile(pattern), stage) for pattern, stage in _STAGES)
_NOT_LOADING = re.compile(r"disabling torch\.compile|Inductor compilation was disabled")
_OF = re.compile(r"\b(\d{1,6})/(\d{1,6}) \[")
"""Progress bars: `67% Completed | 2/3 [00:01<...`."""


class Vllm:
    """Models in safetensors on NVIDIA GPUs, or on a CPU with an environment that holds vLLM's CPU build."""

    name = "vllm"
    health_path = "/health"
    models_path = "/v1/models"
    metrics_path = "/metrics"
    probe_path = "/v1/completions"
    verified = True

    def check_options(self, spec: ServeSpec) -> None:
        """Refuse options that are wrong on any machine. Raises BadArgument."""
        for option, value in (
            ("--gpu-layers", spec.gpu_layers),
            ("--backend", spec.backend),
            ("threads", spec.threads),
        ):
            if value is not None:
                raise BadArgument(f"vLLM has no {option}.", hint="Leave it out, or say --engine llamacpp.")
        for name, count in (("context", spec.context), ("tensor parallel size", spec.tensor_parallel),
                            ("data parallel size", spec.data_parallel), ("slots", spec.slots)):  # fmt: skip
            if count is not None and not 1 <= count < 2**31:
                raise BadArgument(f"{name} cannot be {count}.", hint="It has to be a whole number from 1.")
        if spec.memory_ratio is not None and not 0 < spec.memory_ratio <= 1:
            raise BadArgument(f"The share of memory cannot be {spec.memory_ratio}.", hint="Write 90% or 0.9.")
        given.check_variables(spec.env)
        given.check_words(spec.extra)
        self._words(spec)

    def check(self, spec: ServeSpec, facts: PodFacts) -> None:
        """Refuse what cannot work. Raises BadArgument, EngineUnavailable."""
        self.check_options(spec)
        if spec.hub is not None:
            raise BadArgument("vLLM serves a whole repository, not one GGUF file.", hint="Write hf:OWNER/REPO.")
        if (spec.model_path is None) == (spec.hub_repo is None):
            raise BadArgument("A model is either a folder on the pod or a repository of the hub.", hint="Give one.")
        version = _version(spec)
        number = vllm_flags.version_of(version)
        if number and number < MINIMUM and not spec.force:
            least = ".".join(map(str, MINIMUM))
            raise EngineUnavailable(
                f"vLLM {version} is older than {least}, the oldest that podlab knows.",
                hint=f"Take {least} or newer, or add --force.",
            )
        if spec.environment is not None:
            return
        if (facts.os, facts.arch) not in (("Linux", "x86_64"), ("Linux", "aarch64")):
            raise EngineUnavailable(
                f"vLLM has no ready-made build for {facts.os} on {facts.arch}.", hint="It needs Linux with NVIDIA GPUs."
            )
        if facts.gpus == 0 and not spec.force:
            raise EngineUnavailable(
                "This machine has no GPU, and the vLLM that podlab would install (10 GB) runs on NVIDIA GPUs only.",
                hint="If a Python there has vLLM's CPU build, name it: --python /path/to/bin/python",
            )

    def steps(self, spec: ServeSpec, facts: PodFacts) -> tuple[Step, ...]:
        """prepare (unless an environment is there), download (for a repository of the hub), serve."""
        self.check(spec, facts)
        steps = []
        if spec.environment is None:
            steps.append(self._prepare(spec, facts))
        if spec.hub_repo is not None:
            steps.append(download_step(spec, spec.hub_repo, facts))
        words, _ = self._words(spec)
        return (*steps, Step("serve", (*_program(spec), _model(spec), *words), self._env(spec)))

    def files(self, spec: ServeSpec, facts: PodFacts) -> tuple[SentFile, ...]:
        """The programs `steps` names, from podlab.remote."""
        names = [*INSTALLER] if spec.environment is None else []
        names += REPOSITORY_DOWNLOADER if spec.hub_repo is not None else ()
        folder = resources.files("podlab.remote")
        return tuple(SentFile(name, (folder / name).read_text(encoding="utf-8")) for name in names)

    def notes(self, spec: ServeSpec) -> tuple[str, ...]:
        """See the contract."""
        return self._words(spec)[1]

    def diagnose(
        self, log_lines: Sequence[str], status: int | None, evidence: MachineEvidence | None = None
    ) -> Diagnosis:
        """Why it ended, see engines/diagnosis.py."""
        return diagnose(log_lines, status, evidence, engine=self.name)

    def stage_of(self, line: str) -> Loading | None:
        """See the contract."""
        line = line[:4096]
        if _NOT_LOADING.search(line):
            return None
        for pattern, stage in _COMPILED:
            if pattern.search(line):
                count = _OF.search(line)
                return Loading(stage, int(count[1]), int(count[2])) if count else Loading(stage)
        return None

    def metrics(self, text: str) -> ServerMetrics:
        """See the contract."""
        return metrics.read(text, metrics.VLLM)

    def _prepare(self, spec: ServeSpec, facts: PodFacts) -> Step:
        argv = (
            facts.python_path, "-u", "{dir}/setup.py", "--home", "{home}", "--dir", "{dir}", "--engine", self.name,
            "--package", f"vllm=={_version(spec)}", "--min-python", ".".join(map(str, MIN_PYTHON)), "--probe", PROBE,
            "--need-bytes", str(NEED_BYTES),
        )  # fmt: skip
        return Step("prepare", argv)

    def _words(self, spec: ServeSpec) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What stands behind the model, and what was changed of a person's options."""
        ours: list[tuple[str, ...]] = [
            ("--served-model-name", spec.served_name), ("--host", "127.0.0.1"), ("--port", spec.port),
            ("--tensor-parallel-size", str(spec.tensor_parallel)),
        ]  # fmt: skip
        if spec.data_parallel > 1:
            ours.append(("--data-parallel-size", str(spec.data_parallel)))
        if spec.expert_parallel:
            ours.append(("--enable-expert-parallel",))
        if spec.context is not None:
            ours.append(("--max-model-len", str(spec.context)))
        if spec.memory_ratio is not None:
            ours.append(("--gpu-memory-utilization", f"{spec.memory_ratio:g}"))
        if spec.slots > 1:
            ours.append(("--max-num-seqs", str(spec.slots)))
        known = spec.environment.flags if spec.environment else frozenset()
        return vllm_flags.merged(ours, spec.extra, _version(spec), known)

    def _env(self, spec: ServeSpec) -> dict[str, str]:
        program = _program(spec)[0]
        env = {
            "VLLM_API_KEY": "{key}", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1",
            "PYTHONUNBUFFERED": "1", "NO_COLOR": "1",
        }  # fmt: skip
        if "/" in program:  # what compiles while it loads looks for ninja, which lies beside it
            env["PATH"] = f"{program.rpartition('/')[0]}:{{path}}"
        if spec.gpus:
            # Numbered as the driver does it: CUDA by itself puts the fastest card first.
            env |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, spec.gpus))}
        return env | dict(spec.env)


def _version(spec: ServeSpec) -> str:
    return spec.environment.version if spec.environment else spec.engine_version or VERSION


def _program(spec: ServeSpec) -> tuple[str, ...]:
    return spec.environment.program if spec.environment else ("{dir}/env/bin/vllm", "serve")


def _model(spec: ServeSpec) -> str:
    if spec.hub_repo is not None:
        return repository_path(spec.models_dir, spec.hub_repo)
    assert spec.model_path is not None
    return spec.model_path
