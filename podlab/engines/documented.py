"""Engines that follow their documentation and that no test of this project has run: SGLang, TGI, TensorRT-LLM.

They serve from an environment or an image that a person has made: podlab installs none of them. Their server listens on
127.0.0.1 of the pod without a key: a key would have to stand in an argv, as far as podlab knows of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from podlab.engines import documented_flags, given, metrics
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
from podlab.engines.repository import REPOSITORY_DOWNLOADER, download_step, repository_path
from podlab.errors import BadArgument, EngineUnavailable
from podlab.types import Step


@dataclass(frozen=True)
class Documented:
    """An engine as its documentation describes it. A flag that is "" does not exist there."""

    name: str
    docs: str
    """Where all of this is from."""
    program: tuple[str, ...]
    model_flag: str
    """"" when the model is an argument without a flag."""
    served_name_flag: str
    host_flag: str
    context_flag: str
    tensor_parallel_flag: str
    memory_flag: str
    health_path: str
    metrics_path: str | None
    metric_names: metrics.Names | None
    ready_words: str
    """What its log says once it serves."""
    loading_words: str
    always: tuple[str, ...] = ()
    models_path: str = "/v1/models"
    probe_path: str = "/v1/completions"
    verified: bool = False

    def check_options(self, spec: ServeSpec) -> None:
        """Refuse options that are wrong on any machine. Raises BadArgument."""
        for option, value in (
            ("--gpu-layers", spec.gpu_layers),
            ("--backend", spec.backend),
            ("threads", spec.threads),
        ):
            if value is not None:
                raise BadArgument(f"{self.name} has no {option}.", hint="Leave it out.")
        if spec.data_parallel > 1 or spec.expert_parallel:
            raise BadArgument(f"podlab splits a model of {self.name} by tensors only.", hint=f"See: {self.docs}")
        given.check_variables(spec.env)
        given.check_words(spec.extra)
        documented_flags.names_of(self.name, spec.extra)

    def check(self, spec: ServeSpec, facts: PodFacts) -> None:
        """Refuse what cannot work. Raises BadArgument, EngineUnavailable."""
        self.check_options(spec)
        if spec.hub is not None or (spec.model_path is None) == (spec.hub_repo is None):
            raise BadArgument(f"{self.name} serves a folder or a repository of the hub.", hint="Write hf:OWNER/REPO.")
        if spec.environment is None:
            raise EngineUnavailable(
                f"podlab does not install {self.name}.",
                hint="Install it on the pod, and name its Python: --python /path/to/bin/python",
            )
        if facts.gpus == 0 and not spec.force:
            raise EngineUnavailable(f"{self.name} needs an NVIDIA GPU, and this machine has none.", hint="Or: --force")

    def steps(self, spec: ServeSpec, facts: PodFacts) -> tuple[Step, ...]:
        """download (for a repository of the hub), serve."""
        self.check(spec, facts)
        assert spec.environment is not None
        download = () if spec.hub_repo is None else (download_step(spec, spec.hub_repo, facts),)
        model = spec.model_path if spec.hub_repo is None else repository_path(spec.models_dir, spec.hub_repo)
        assert model is not None
        flags: list[tuple[str, str]] = [
            (self.served_name_flag, spec.served_name), (self.host_flag, "127.0.0.1"), ("--port", spec.port),
            (self.context_flag, "" if spec.context is None else str(spec.context)),
            (self.tensor_parallel_flag, str(spec.tensor_parallel)),
            (self.memory_flag, "" if spec.memory_ratio is None else f"{spec.memory_ratio:g}"),
        ]  # fmt: skip
        theirs = documented_flags.names_of(self.name, spec.extra)
        words = [
            word for flag, value in flags
            if flag and value and documented_flags.canonical(self.name, flag) not in theirs for word in (flag, value)
        ]  # fmt: skip
        model_words = (self.model_flag, model) if self.model_flag else (model,)
        always = [flag for flag in self.always if flag not in theirs]
        argv = (*spec.environment.program, *model_words, *words, *always, *spec.extra)
        return (*download, Step("serve", argv, self._env(spec)))

    def files(self, spec: ServeSpec, facts: PodFacts) -> tuple[SentFile, ...]:
        """The programs `steps` names, from podlab.remote."""
        names = REPOSITORY_DOWNLOADER if spec.hub_repo is not None else ()
        folder = resources.files("podlab.remote")
        return tuple(SentFile(name, (folder / name).read_text(encoding="utf-8")) for name in names)

    def diagnose(
        self, log_lines: Sequence[str], status: int | None, evidence: MachineEvidence | None = None
    ) -> Diagnosis:
        """Why it ended, see engines/diagnosis.py."""
        return diagnose(log_lines, status, evidence, engine=self.name)

    def stage_of(self, line: str) -> Loading | None:
        """See the contract."""
        if self.ready_words in line[:4096]:
            return Loading(LoadStage.READY)
        return Loading(LoadStage.WEIGHTS) if self.loading_words in line[:4096] else None

    def notes(self, spec: ServeSpec) -> tuple[str, ...]:
        """A warning, until somebody has run it."""
        return (f"{self.name} follows its documentation ({self.docs}); no test of podlab has run it.",)

    def metrics(self, text: str) -> ServerMetrics:
        """See the contract."""
        return ServerMetrics() if self.metric_names is None else metrics.read(text, self.metric_names)

    def _env(self, spec: ServeSpec) -> dict[str, str]:
        env = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}
        if spec.gpus:
            env |= {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, spec.gpus))}
        return env | dict(spec.env)


SGLANG = Documented(
    name="sglang", docs="https://docs.sglang.io/advanced_features/server_arguments.html",
    program=("{python}", "-m", "sglang.launch_server"), model_flag="--model-path",
    served_name_flag="--served-model-name", host_flag="--host", context_flag="--context-length",
    tensor_parallel_flag="--tp-size", memory_flag="--mem-fraction-static", health_path="/health",
    metrics_path="/metrics", metric_names=metrics.SGLANG, ready_words="The server is fired up and ready to roll",
    loading_words="Load weight begin", always=("--enable-metrics",),
)  # fmt: skip
TGI = Documented(
    name="tgi", docs="https://huggingface.co/docs/text-generation-inference/reference/launcher",
    program=("{bin}/text-generation-launcher",), model_flag="--model-id", served_name_flag="--served-model-name",
    host_flag="--hostname", context_flag="--max-total-tokens", tensor_parallel_flag="--num-shard",
    memory_flag="--cuda-memory-fraction", health_path="/health", metrics_path="/metrics", metric_names=metrics.TGI,
    ready_words="Connected", loading_words="Starting shard",
)  # fmt: skip
TRTLLM = Documented(
    name="trtllm", docs="https://nvidia.github.io/TensorRT-LLM/commands/trtllm-serve/trtllm-serve.html",
    program=("{bin}/trtllm-serve",), model_flag="", served_name_flag="--served_model_name", host_flag="--host",
    context_flag="--max_seq_len", tensor_parallel_flag="--tp_size",
    memory_flag="--kv_cache_free_gpu_memory_fraction", health_path="/health",
    metrics_path=None,  # its /metrics answers JSON about iterations
    metric_names=None, ready_words="Application startup complete", loading_words="Loading weights",
)  # fmt: skip
