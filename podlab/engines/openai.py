"""A server that somebody else runs: podlab speaks with it, and never starts or stops it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from podlab.engines.base import Diagnosis, Loading, MachineEvidence, PodFacts, SentFile, ServerMetrics, ServeSpec
from podlab.engines.diagnosis import diagnose
from podlab.errors import EngineUnavailable
from podlab.types import Step


class OpenAi:
    """Any server with OpenAI's API; see lab/attached.py."""

    name = "openai"
    health_path = "/v1/models"
    models_path = "/v1/models"
    metrics_path = None
    probe_path = ""
    verified = True

    def check_options(self, spec: ServeSpec) -> NoReturn:
        """Refuse: it is not podlab's to start."""
        raise EngineUnavailable(
            "A server of somebody else's is not started by podlab.", hint="Attach it: podlab model attach URL"
        )

    def check(self, spec: ServeSpec, facts: PodFacts) -> NoReturn:
        """Refuse: it is not podlab's to start."""
        self.check_options(spec)

    def steps(self, spec: ServeSpec, facts: PodFacts) -> tuple[Step, ...]:
        """Refuse: it is not podlab's to start."""
        self.check_options(spec)

    def files(self, spec: ServeSpec, facts: PodFacts) -> tuple[SentFile, ...]:
        """None."""
        return ()

    def diagnose(
        self, log_lines: Sequence[str], status: int | None, evidence: MachineEvidence | None = None
    ) -> Diagnosis:
        """See the contract; nobody here has its log."""
        return diagnose(log_lines, status, evidence)

    def notes(self, spec: ServeSpec) -> tuple[str, ...]:
        """None."""
        return ()

    def stage_of(self, line: str) -> Loading | None:
        """None: it is not loading for us."""
        return None

    def metrics(self, text: str) -> ServerMetrics:
        """None: its metrics are not ours to read."""
        return ServerMetrics()
