"""What podlab installs of each engine, and what a machine needs for it.

A build is a package with a version, and the facts by which `lab/checks.py` judges a machine before anything is
installed. Where its figures are from:

- vLLM 0.32.0 and SGLang 0.5.23: the wheels' own names and metadata on PyPI. Both want nvidia-cutlass-dsl[cu13]. That
  vLLM's plain wheels are for CUDA 13.0: github.com/vllm-project/vllm/pull/47628 and issues/44335 (0.22.0). Builds
  for CUDA 12.9 have a version of their own and lie elsewhere: issues/44335, the comment on 0.25.1.
- SGLang wants CUDA 13 and, with uv, pre-releases of what it depends on: docs.sglang.io, "Installation".
- Which driver runs which CUDA: docs.nvidia.com/deploy/cuda-compatibility, "Minor Version Compatibility".
- xllamacpp: its wheels' names; xllamacpp.get_system_info() names the instructions it was built for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from podlab.engines import llamacpp, vllm, vllm_flags
from podlab.engines.base import PodFacts
from podlab.errors import BadArgument, EngineUnavailable

SETUP_NAMES = ("vllm", "nightly", "sglang", "llamacpp")
"""What `--engine` takes; all but `nightly` (vLLM's) also with `==VERSION`."""
SGLANG_VERSION = "0.5.23"
MIN_DRIVERS = {13: 580, 12: 525, 11: 450}
"""Major version of CUDA -> the first Linux driver that runs any of its minor versions."""
_GIB = 2**30
_VERSION = re.compile(r"[0-9][0-9A-Za-z.!+-]{0,40}")
_CUDA_12 = re.compile(r"\+cu12\d$")


@dataclass(frozen=True)
class Build:
    """An engine's package and what it needs. Versions are (major, minor), sizes bytes."""

    engine: str
    version: str
    """Of the engine; it is part of the environment's name, so that versions lie side by side."""
    package: str
    """As pip takes it."""
    probe: str
    """Python that fails where the engine does not work."""
    min_python: tuple[int, int]
    min_glibc: tuple[int, int]
    need_bytes: int
    """What the environment takes on the disk."""
    max_python: tuple[int, int] | None = None
    min_cuda: tuple[int, int] | None = None
    """What it was built with; a driver of the same major version runs it. None: it needs no GPU."""
    cpu_flags: tuple[str, ...] = ()
    """Instructions that it uses without asking, as /proc/cpuinfo names them; only x86_64 has any."""
    memory_bytes: int = _GIB
    """Of the machine. A rule of thumb: with less, loading a model is likely to be ended by the kernel."""
    shared_memory_bytes: int = 0
    """In /dev/shm, for the exchange between the processes of several GPUs."""
    indexes: tuple[str, ...] = ()
    """Where to look for packages besides the pod's own index."""
    prerelease: Literal["", "uv", "all"] = ""
    """Who is to take pre-releases, too: uv, which else takes none of what a package depends on, or pip as well."""
    otherwise: str = ""
    """What to install where the driver is too old."""
    verified: bool = True

    @property
    def title(self) -> str:
        """'vllm 0.32.0'."""
        return f"{self.engine} {self.version}"

    @property
    def stem(self) -> str:
        """How the name of its environment begins; what follows is the Python's version."""
        return f"{self.engine}-{self.version}-py3"

    def setup_words(self, *, home: str, folder: str) -> tuple[str, ...]:
        """The arguments of remote/setup.py that make its environment."""
        given = ("--home", home, "--dir", folder, "--engine", self.engine, "--package", self.package, "--version",
                 self.version, "--min-python", _dotted(self.min_python), "--probe", self.probe, "--need-bytes",
                 str(self.need_bytes))  # fmt: skip
        most = ("--max-python", _dotted(self.max_python)) if self.max_python else ()
        indexes = tuple(word for index in self.indexes for word in ("--index", index))
        return (*given, *most, *indexes, *(("--pre", self.prerelease) if self.prerelease else ()))


def build_named(text: str, *, force: bool = False, now: datetime | None = None) -> Build:
    """The build that `vllm`, `vllm==0.31.0`, `nightly`, `sglang`, `llamacpp` or the like means.

    Raises BadArgument for what is none, EngineUnavailable for an engine that podlab does not install.
    """
    name, equals, version = (part.strip() for part in text.partition("=="))
    if equals and not _VERSION.fullmatch(version):
        raise BadArgument(f"--engine {text}: {version!r} is no version.", hint="Write it as vllm==0.32.0.")
    match name:
        case "vllm":
            return _vllm(version or vllm.VERSION, force=force)
        case "nightly" if not version:
            return _nightly(now or datetime.now(UTC))
        case "sglang":
            return _sglang(version or SGLANG_VERSION)
        case "llamacpp":
            return _llamacpp(version)
        case "tgi" | "trtllm":
            raise EngineUnavailable(
                f"podlab does not install {name}: it is made to be run as a container.",
                hint="Install it on the pod, and name its Python: podlab model start MODEL --engine "
                f"{name} --python PATH",
            )
    raise BadArgument(
        f"--engine {text}: there is no such engine to install.",
        hint=f"Take one of {', '.join(SETUP_NAMES)}, or a version of it: vllm=={vllm.VERSION}",
    )


def present_here(build: Build, facts: PodFacts) -> bool:
    """Whether the very Python that runs podlab serves with this engine, so that no environment is needed."""
    return build.engine == "llamacpp" and llamacpp.LlamaCpp().ready_here(facts)


def _vllm(version: str, *, force: bool) -> Build:
    number = vllm_flags.version_of(version)
    if number < vllm.MINIMUM and not force:
        least = _dotted(vllm.MINIMUM)
        raise BadArgument(
            f"vLLM {version} is older than {least}, the oldest that podlab knows.",
            hint=f"Take {least} or newer, or add --force.",
        )
    public, _, variant = version.partition("+")
    of_cuda_12 = _CUDA_12.search(version) is not None
    indexes = (f"https://wheels.vllm.ai/{public}/{variant}", f"https://download.pytorch.org/whl/{variant}")
    return Build(
        "vllm", version, f"vllm=={version}", vllm.PROBE, vllm.MIN_PYTHON, (2, 28), vllm.NEED_BYTES,
        # Python 3.10 to 3.13 by the documentation of 0.26, 3.11 to 3.14 by the metadata of 0.32.0.
        max_python=(3, 14) if number >= (0, 32) else (3, 13),
        min_cuda=(12, 9) if of_cuda_12 else (13, 0), memory_bytes=8 * _GIB, shared_memory_bytes=_GIB,
        indexes=indexes if variant.startswith("cu") else (),
        otherwise="" if of_cuda_12 else "a build for CUDA 12.9, such as --engine vllm==0.25.1+cu129",
    )  # fmt: skip


def _nightly(now: datetime) -> Build:
    """The day is its version: tomorrow's is another environment beside it."""
    return Build(
        "vllm", f"nightly-{now:%Y%m%d}", "vllm", vllm.PROBE, vllm.MIN_PYTHON, (2, 28), vllm.NEED_BYTES,
        min_cuda=(13, 0), memory_bytes=8 * _GIB, shared_memory_bytes=_GIB, prerelease="all",
        indexes=("https://wheels.vllm.ai/nightly",), verified=False,
        otherwise="a release for CUDA 12.9, such as --engine vllm==0.25.1+cu129",
    )  # fmt: skip


def _sglang(version: str) -> Build:
    return Build(
        "sglang", version, f"sglang=={version}", "import sglang", (3, 11), (2, 34), vllm.NEED_BYTES,
        min_cuda=(13, 0), memory_bytes=8 * _GIB, shared_memory_bytes=_GIB, prerelease="uv", verified=False,
    )  # fmt: skip


def _llamacpp(version: str) -> Build:
    if version not in ("", llamacpp.VERSION):
        raise BadArgument(
            f"podlab runs llama.cpp with xllamacpp {llamacpp.VERSION} and no other version.",
            hint="Write --engine llamacpp.",
        )
    return Build(
        "llamacpp", llamacpp.VERSION, llamacpp.PACKAGE, llamacpp.PROBE, llamacpp.MIN_PYTHON, (2, 17),
        llamacpp.NEED_BYTES, cpu_flags=("avx2", "f16c", "fma", "bmi2"),
    )  # fmt: skip


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
