"""What a person asked to be started, and what of it is kept on the pod beside the endpoint."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from podlab.engines.base import ServeSpec
from podlab.errors import BadArgument
from podlab.lab.facts import Facts

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_SECRET = re.compile(r"(?i).*(API_?KEY|TOKEN|SECRET|PASSW).*")
KEPT_CHARS = 8192
"""Of one option's value; what is longer is not kept, and then not compared either."""


@dataclass(frozen=True)
class Wish:
    """What a person asked to be started. None leaves a choice to the engine or the model, port 0 to the pod."""

    model: str
    name: str | None = None
    port: int = 0
    context: int | None = None
    slots: int | None = None
    gpu_layers: int | None = None
    backend: str | None = None
    extra: tuple[str, ...] = ()
    engine: str | None = None
    engine_version: str | None = None
    python: str | None = None
    """An environment on the pod that has the engine."""
    env: tuple[str, ...] = ()
    """NAME=VALUE, for the engine's environment."""
    gpus: int | tuple[int, ...] | None = None
    """How many, or which, as the driver numbers them."""
    memory_ratio: float | None = None
    """The share of each GPU's memory the engine may take, 0 to 1."""
    force: bool = False

    def check(self) -> None:
        """Refuse what no pod could do; the engine checks its own options. Raises BadArgument."""
        if not 0 <= self.port < 65536:
            raise BadArgument(f"--port {self.port} is no port.", hint="Ports go from 1 to 65535; leave it out for any.")
        for pair in self.env:
            name = pair.partition("=")[0]
            if "=" not in pair or "\0" in pair or not _VARIABLE.fullmatch(name):
                raise BadArgument(f"--env {name[:80]!r} is no NAME=VALUE.", hint="Write --env NAME=VALUE.")
            if _SECRET.fullmatch(name):
                raise BadArgument(
                    f"--env {name} looks like a secret, and what stands on a command line is none.",
                    hint="An engine needs no key of yours: podlab makes one for each endpoint.",
                )

    def variables(self) -> tuple[tuple[str, str], ...]:
        """The variables as (name, value)."""
        return tuple((name, value) for name, _, value in (pair.partition("=") for pair in self.env))

    def options(self) -> dict[str, str]:
        """The options that were given, as a person writes them; what was left open is not among them."""
        given = {
            "--port": self.port or None, "--context": self.context, "--slots": self.slots,
            "--gpu-layers": self.gpu_layers, "--backend": self.backend, "--memory": self.memory_ratio,
            "--engine": self.engine, "--engine-version": self.engine_version, "--python": self.python,
            "--env": shlex.join(sorted(self.env)) or None, "--gpus": self._gpus(),
            "--": shlex.join(self.extra) or None,
        }  # fmt: skip
        return {option: str(value) for option, value in given.items() if value is not None}

    def _gpus(self) -> str | None:
        """As a person writes them: how many as '2', which as '0,1' and '0,'."""
        if self.gpus is None:
            return None
        return str(self.gpus) if isinstance(self.gpus, int) else _listed(self.gpus)


def meta_of(spec: ServeSpec, wish: Wish, *, fetched: bool) -> dict[str, object]:
    """What is kept beside an endpoint: its options in force, and whether the pod `fetched` the weights by itself.

    Of the environment's variables, those that were asked for: a recipe's own come with every start of the model.
    """
    own = spec.environment
    in_force = {
        "--context": spec.context, "--slots": spec.slots, "--gpu-layers": spec.gpu_layers, "--backend": spec.backend,
        "--memory": spec.memory_ratio, "--": shlex.join(spec.extra),
        "--engine-version": own.version if own else spec.engine_version, "--python": own.python if own else None,
        "--env": shlex.join(sorted(wish.env)), "--gpus": _listed(spec.gpus),
    }  # fmt: skip
    texts = {option: "" if value is None else str(value) for option, value in in_force.items()}
    kept = {option: text for option, text in texts.items() if len(text) <= KEPT_CHARS}
    return {"options": kept, "fetched": fetched}


def was_fetched(facts: Facts) -> bool:
    """Whether the pod fetched an endpoint's weights by itself, so that it would fetch them again."""
    return facts.meta.get("fetched") is True


def differences(wish: Wish, facts: Facts) -> list[str]:
    """The given options that an endpoint does not run with, a phrase each. What was not kept is not compared."""
    kept = facts.meta.get("options")
    running: dict[object, object] = {
        **(kept if isinstance(kept, dict) else {}),
        "--port": str(facts.port),
        "--engine": facts.engine,
    }
    return [
        f"{'engine options' if option == '--' else option} {running[option] or 'left open'} (asked: {asked})"
        for option, asked in wish.options().items()
        if option in running and not _same(option, str(running[option]), asked)
    ]


def _same(option: str, running: str, asked: str) -> bool:
    """Whether what runs is what was asked for, in other words perhaps."""
    match option:
        case "--engine-version":  # 0.32.0 is 0.32.0+cpu too
            return asked in (running, running.partition("+")[0])
        case "--python" if not asked.startswith("/"):
            return running.endswith("/" + asked.removeprefix("~").lstrip("/"))
        case "--gpus" if asked.isdigit():  # how many, whichever
            return len([card for card in running.split(",") if card]) == int(asked)
    return running == asked


def _listed(gpus: tuple[int, ...]) -> str:
    return ",".join(map(str, gpus)) + ("," if len(gpus) == 1 else "")
