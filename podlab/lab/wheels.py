"""Wheels for a pod that reaches no package index: resolved and downloaded here for the pod's own platform and Python,
then sent, each file resumable and verified.

pip decides by this computer's own platform which packages depend on a platform; it is told the pod's for which wheels
to take. Source: pip.pypa.io, "pip download", --platform and --python-version.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from podlab import settings
from podlab.durable import private_folder
from podlab.engines.builds import Build
from podlab.errors import EngineUnavailable
from podlab.events import Notice, Stage, Work
from podlab.lab import files
from podlab.lab.checks import Measured
from podlab.lab.facts import PodFacts
from podlab.types import Pod

if TYPE_CHECKING:
    from podlab.lab.workspace import Workspace

_TELLS = re.compile(r"\s*(?:Downloading|Collecting|Saved) (\S{1,160})")
_LOGIN = re.compile(r"(https?://)[^/@\s]+@")
_OLD = ("manylinux2014", "manylinux2010", "manylinux1", "linux")


@dataclass(frozen=True)
class Parcel:
    """The wheels one environment needs: where they lie here and there, and for what they are made."""

    build: Build
    here: Path
    there: str
    """Their folder on the pod, absolute."""
    os: str
    """Of the pod, as uname says it."""
    python: tuple[int, int]
    platforms: tuple[str, ...]
    uv: bool
    """The pod has no Python with pip, so uv goes along."""

    def command(self) -> list[str]:
        """What fetches them here."""
        platforms = [word for each in self.platforms for word in ("--platform", each)]
        indexes = [word for index in self.build.indexes for word in ("--extra-index-url", index)]
        early = ["--pre"] if self.build.prerelease == "all" else []
        return [
            sys.executable, "-m", "pip", "download", "--dest", str(self.here), "--only-binary=:all:", "--no-input",
            "--disable-pip-version-check", "--progress-bar", "off", "--implementation", "cp",
            "--python-version", ".".join(map(str, self.python)), *platforms, *indexes, *early, self.build.package,
            *(["uv"] if self.uv else []),
        ]  # fmt: skip


def parcel_for(build: Build, facts: PodFacts, seen: Measured) -> Parcel:
    """What a pod needs. Raises EngineUnavailable when it has no Python that can be used, for none can be sent."""
    python = next(iter(seen.pythons or ()), None)  # the one setup.py takes
    if python is None:
        least = ".".join(map(str, build.min_python))
        raise EngineUnavailable(
            f"There is no Python {least} or newer on the pod, and no index to bring one from.",
            hint="Install one there, for example, as root: apt-get install python3 python3-venv",
        )
    name = f"{build.stem}{python.version[1]}"
    return Parcel(
        build, settings.home() / "wheels" / name, f"{facts.home}/wheels/{name}", facts.os, python.version,
        _platforms(facts, seen), uv=not python.pip,
    )  # fmt: skip


def send(workspace: Workspace, pod: Pod, parcel: Parcel) -> Work[None]:
    """Fetch what is not here yet, and send what is not there yet. Raises EngineUnavailable when pip cannot."""
    if platform.system() != parcel.os:
        yield Notice(
            f"pip here decides for {platform.system()} what is needed on {parcel.os}: something may be missing.",
            "warning",
        )
    private_folder(parcel.here)
    yield from _download(parcel)
    found = sorted(parcel.here.glob("*.whl"))
    for number, wheel in enumerate(found, 1):
        what = f"Sending {wheel.name} to {pod.name} ({number} of {len(found)})"
        yield from files.send_file(workspace, pod, wheel, f"{parcel.there}/{wheel.name}", what=what)


def forget(build: Build) -> None:
    """Remove what lies here for an environment that is made."""
    for folder in (settings.home() / "wheels").glob(f"{build.stem}*"):
        shutil.rmtree(folder, ignore_errors=True)


def _download(parcel: Parcel) -> Work[None]:
    yield Stage("wheels", f"Resolving {parcel.build.title} for Python {'.'.join(map(str, parcel.python))}")
    said: list[str] = []
    with subprocess.Popen(
        parcel.command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace",
    ) as pip:  # fmt: skip
        assert pip.stdout is not None
        try:
            for line in pip.stdout:
                said = [*said[-20:], _LOGIN.sub(r"\1***@", line.rstrip())]
                if told := _TELLS.match(said[-1]):
                    yield Stage("wheels", f"Fetching {told[1].rpartition('/')[2]} for {parcel.build.title}")
        except BaseException:
            pip.terminate()
            raise
    if pip.returncode != 0:
        raise EngineUnavailable(
            f"The wheels of {parcel.build.title} could not be fetched here either: {_reason(said)}",
            hint="Give this computer or the pod a package index: PIP_INDEX_URL, or pip's own configuration.",
        )


def _reason(said: Sequence[str]) -> str:
    errors = [line for line in said if "ERROR" in line or "No module named" in line]
    return (errors or list(said) or ["pip said nothing"])[-1][:300]


def _platforms(facts: PodFacts, seen: Measured) -> tuple[str, ...]:
    """The tags of wheels that the pod takes, newest first: a glibc takes what was made for an older one (PEP 600)."""
    if facts.os != "Linux" or seen.glibc is None:
        raise EngineUnavailable(
            f"There are no ready-made wheels for {facts.os} without glibc.", hint="Take a pod with Ubuntu or Debian."
        )
    newer = [f"manylinux_2_{minor}" for minor in range(seen.glibc[1], 4, -1)]
    return tuple(f"{tag}_{facts.arch}" for tag in (*newer, *_OLD))
