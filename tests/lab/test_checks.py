"""What is made of a machine's figures, and what vLLM's build says to simulated GPUs over SSH."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from podlab.commands.drive import drive
from podlab.engines.base import Environment
from podlab.engines.builds import Build, build_named
from podlab.errors import BadArgument, EngineUnavailable
from podlab.lab import checks
from podlab.lab import setup as use_case
from podlab.lab.checks import FoundPython, Measured, Place, Reached
from podlab.lab.facts import PodFacts
from podlab.lab.workspace import Workspace
from podlab.types import Check, GpuSample, Pod, PodSample
from tests import machines
from tests.audiences import Silent
from tests.nvml import SimulatedGpus

GIB = 2**30
FACTS = PodFacts(1, "3.10.12", "/usr/bin/python3", "m", "b", "box", "Linux", "x86_64", "/h", "/root", 0, 8, None, 0, 0)
H100 = GpuSample(0, "NVIDIA H100 80GB HBM3", memory_total_bytes=80 * GIB)


def gpus(*cards: GpuSample, driver: str = "580.65.06", cuda: str = "13.0") -> PodSample:
    return PodSample("box", 0.0, "nvml", cards, driver=driver, cuda=cuda)


def place(free_bytes: int = 200 * GIB, *, writable: bool = True, mounted: bool = False) -> Place:
    return Place("/data", True, mounted, writable, "/data", free_bytes)


GOOD = Measured(
    system="Ubuntu 24.04", glibc=(2, 39), cpu_flags=frozenset({"avx2", "f16c", "fma", "bmi2"}), memory_bytes=64 * GIB,
    shared_memory_bytes=16 * GIB, administrator="root", pythons=(FoundPython("/usr/bin/python3.12", (3, 12), True),),
    index=Reached("https://pypi.org/simple", "", 0.1, 50e6), hub=Reached("https://huggingface.co", "", 0.1),
    free_ports=32, places={"environments": place(), "models": place()}, sample=gpus(H100),
)  # fmt: skip


def by_name(seen: Measured, build: Build, there: Environment | None = None) -> dict[str, Check]:
    found = checks.judged(seen, build, FACTS, there, to_install=there is None)
    assert len({check.name for check in found}) == len(found)
    return {check.name: check for check in found}


VLLM, CUDA_12, LLAMACPP = build_named("vllm"), build_named("vllm==0.25.1+cu129"), build_named("llamacpp")
SILENT = Reached("https://pypi.org/simple", "Connection refused", 0.1)


def test_a_good_machine_has_nothing_to_mend() -> None:
    for build in (VLLM, LLAMACPP, build_named("nightly"), build_named("sglang")):
        assert {check.state for check in by_name(GOOD, build).values()} <= {"ok", "skipped"}
        assert not any(check.fix for check in by_name(GOOD, build).values())


@pytest.mark.parametrize(
    "seen, build, name, state, words",
    [
        (replace(GOOD, sample=gpus(H100, driver="570.86.15", cuda="12.8")), VLLM, "driver", "failed", "580 or newer"),
        (replace(GOOD, sample=gpus(H100, driver="570.86.15", cuda="12.8")), CUDA_12, "driver", "warning", ""),
        (replace(GOOD, sample=gpus(H100, driver="535.1", cuda="11.4")), CUDA_12, "driver", "failed", "525 or newer"),
        (replace(GOOD, sample=gpus(H100, cuda="")), VLLM, "driver", "warning", ""),
        (replace(GOOD, sample=gpus()), VLLM, "GPUs", "failed", "--engine llamacpp"),
        (replace(GOOD, sample=gpus()), LLAMACPP, "GPUs", "ok", ""),
        (replace(GOOD, sample=None, sample_error="no word"), VLLM, "GPUs", "failed", ""),
        (replace(GOOD, sample=gpus(replace(H100, lost=True, error="GPU is lost"))), VLLM, "GPUs", "warning", "anew"),
        (replace(GOOD, glibc=(2, 27)), VLLM, "C library", "failed", "Ubuntu 22.04"),
        (replace(GOOD, glibc=(2, 31)), build_named("sglang"), "C library", "failed", "Ubuntu 22.04"),
        (replace(GOOD, glibc=None), VLLM, "C library", "warning", "musl"),
        (replace(GOOD, cpu_flags=frozenset({"avx"})), LLAMACPP, "processor", "failed", "newer processor"),
        (replace(GOOD, memory_bytes=2 * GIB), VLLM, "memory", "warning", "more memory"),
        (replace(GOOD, sample=gpus(H100, replace(H100, index=1)), shared_memory_bytes=64 * 2**20), VLLM,
         "shared memory", "warning", "--shm-size"),
        (replace(GOOD, places={"environments": place(GIB), "models": place()}), VLLM, "disk for environments",
         "failed", "PODLAB_POD_HOME"),
        (replace(GOOD, places={"environments": place(GIB), "models": place()}), LLAMACPP, "disk for environments",
         "ok", ""),
        (replace(GOOD, places={"environments": place(writable=False), "models": place()}), LLAMACPP,
         "disk for environments", "failed", "PODLAB_POD_HOME"),
        (replace(GOOD, places={"environments": place(), "models": place(GIB)}), VLLM, "disk for models", "warning",
         "--models-path"),
        (replace(GOOD, places={"environments": place(), "models": place(writable=False)}), VLLM, "disk for models",
         "failed", "--models-path"),
        (replace(GOOD, places={"environments": place(), "models": place(writable=False), "mount": place()}), VLLM,
         "disk for models", "skipped", ""),
        (replace(GOOD, index=SILENT), VLLM, "package index", "warning", "sends them"),
        (replace(GOOD, index=None), VLLM, "package index", "warning", "sends them"),
        (replace(GOOD, hub=SILENT), VLLM, "model hub", "warning", "HF_ENDPOINT"),
        (replace(GOOD, index=Reached("x", "", 0.1, 2e5)), VLLM, "bandwidth", "warning", "small ones"),
        (replace(GOOD, pythons=()), VLLM, "Python", "ok", ""),
        (replace(GOOD, pythons=(), index=SILENT), VLLM, "Python", "failed", "apt-get install python3-venv"),
        (replace(GOOD, pythons=(FoundPython("/usr/bin/python3", (3, 12), False),), index=SILENT), VLLM, "Python",
         "ok", ""),
        (replace(GOOD, free_ports=0), VLLM, "ports", "failed", "loopback"),
    ],
)  # fmt: skip
def test_each_lack_is_named_with_what_to_do(
    seen: Measured, build: Build, name: str, state: str, words: str
) -> None:  # fmt: skip
    check = by_name(seen, build)[name]
    assert (check.state, words in check.fix) == (state, True), check
    assert check.state != "failed" or check.fix


def test_who_is_no_administrator_is_told_what_somebody_has_to_run() -> None:
    for who, words in (("no", "somebody with root has to): sudo apt-get"), ("perhaps", "pod: sudo apt-get")):
        check = by_name(replace(GOOD, administrator=who, pythons=(), index=SILENT), VLLM)["Python"]
        assert words in check.fix


def test_what_is_there_already_needs_no_network_and_no_room() -> None:
    there = Environment("vllm", "0.32.0", "/h/envs/v/bin/python", ("vllm", "serve"))
    assert not {"package index", "bandwidth", "model hub", "disk for environments"} & by_name(GOOD, VLLM, there).keys()
    own = replace(there, adopted=True)
    found = by_name(replace(GOOD, sample=gpus()), VLLM, own)
    assert found["GPUs"].state == "skipped", "a build of one's own may need no GPU"


@pytest.mark.parametrize(
    "text, error",
    [("vllm==../x", BadArgument), ("vllm==1; rm", BadArgument), ("vllm==0.9.0", BadArgument), ("nonsense", BadArgument),
     ("nightly==1", BadArgument), ("llamacpp==1.0", BadArgument), ("tgi", EngineUnavailable), ("", BadArgument),
     ("vllm==", BadArgument)],
)  # fmt: skip
def test_what_is_no_build_is_refused(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        build_named(text)


def test_versions_lie_side_by_side_and_a_nightly_is_of_its_day() -> None:
    day = build_named("nightly", now=datetime(2026, 3, 1, tzinfo=UTC))
    stems = [build_named(text).stem for text in ("vllm", "vllm==0.31.0", "vllm==0.25.1+cu129")]
    assert len({*stems, day.stem}) == 4
    assert day.version == "nightly-20260301"
    words = CUDA_12.setup_words(home="/h", folder="/d")
    assert words.count("--index") == 2 and "https://download.pytorch.org/whl/cu129" in words
    assert build_named("vllm==0.9.0", force=True).package == "vllm==0.9.0"


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[machines.Sshd]:
    """A machine with a simulated H100 whose driver runs CUDA 12.8, and without an index or a hub."""
    if machines.SSHD is None:
        pytest.skip(machines.WHY_SKIPPED)
    cards = SimulatedGpus(tmp_path_factory.mktemp("cards"))
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "HF_ENDPOINT": "http://127.0.0.1:9"}
    folder: Path = tmp_path_factory.mktemp("machine")
    server = machines.start_sshd(folder, environment={**cards.environment(), **nowhere})
    yield server
    server.stop()


def test_a_driver_for_cuda_12_does_not_run_vllm_s_default_build(workspace: Workspace, box: Pod) -> None:
    places = {"environments": "~/envs", "models": "~/models"}
    seen = checks.look(workspace, box, VLLM, "/nowhere", places, to_install=True)
    found = {check.name: check for check in checks.judged(seen, VLLM, FACTS, None, to_install=True)}
    assert found["GPUs"].detail.startswith("1, NVIDIA H100")
    assert found["driver"].state == "failed"
    assert "570.86.15, which runs CUDA 12.8" in found["driver"].detail
    assert "--engine vllm==0.25.1+cu129" in found["driver"].fix
    assert found["package index"].state == found["model hub"].state == "warning"
    older = {check.name: check for check in checks.judged(seen, CUDA_12, FACTS, None, to_install=True)}
    assert older["driver"].state == "warning", "a driver of the same major version runs it"


def test_the_plan_for_vllm_on_gpus_shows_every_command(workspace: Workspace, box: Pod) -> None:
    """Nothing is installed: what would be is told, and that the driver stands in the way of it."""
    audience = Silent()
    lines = drive(use_case.plan(workspace, box, use_case.Wants("vllm==0.31.0")), audience)
    assert any(notice.text.startswith("driver: 570.86.15") for notice in audience.notices)
    (fetch,) = [line for line in lines if line.startswith("wheels, here: ")]
    assert " --only-binary=:all: " in fetch and " --platform manylinux_2_28_x86_64 " in fetch
    assert fetch.endswith(" vllm==0.31.0")
    making, installing = [line for line in lines if line.startswith("environment: ")]
    assert " -m venv " in making and "/envs/vllm-0.31.0-py3" in making
    assert " --no-index --find-links " in installing and installing.endswith(" vllm==0.31.0")
    assert not Path(workspace.side(box).hello().home).exists()
    report = drive(use_case.setup(workspace, box, use_case.Wants("vllm==0.31.0")), Silent())
    assert not report.ready and [check.name for check in report.checks if check.state == "failed"] == ["driver"]
    assert not Path(workspace.side(box).hello().home).exists()
