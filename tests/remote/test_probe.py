"""The probe on this computer: the real pynvml on simulated GPUs, nvidia-smi in its place, and neither."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from podlab.errors import BadArgument
from podlab.lab import gpus
from podlab.lab.supervisor import PodSide
from podlab.lab.talk import Talk
from podlab.telemetry.lines import sample_from
from podlab.transport.local import LocalTransport
from podlab.types import GpuSample, PodSample
from tests.nvml import DRIVER_NOT_LOADED, MISMATCH, UNKNOWN, Gpu, SimulatedGpus
from tests.processes import marked, wait_until
from tests.remote.bench import PYTHON38

MIB = 2**20
GONE_S = 15.0
"""Three times what a probe may take to notice that nobody listens."""


@pytest.fixture(params=["own", "3.8"])
def side(request: pytest.FixtureRequest) -> PodSide:
    """A pod's side with our own Python and with the oldest there may be."""
    python = sys.executable if request.param == "own" else PYTHON38
    if python is None:
        pytest.skip("no Python 3.8 here: set PODLAB_TEST_PYTHON38, or install one with pyenv")
    return PodSide(LocalTransport(), python=python)


@pytest.fixture
def own() -> PodSide:
    return PodSide(LocalTransport(), python=sys.executable)


@pytest.fixture
def simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., SimulatedGpus]:
    """Make the cards this computer has."""

    def make(*cards: Gpu, **machine: object) -> SimulatedGpus:
        made = SimulatedGpus(tmp_path / "cards", cards, **machine)  # type: ignore[arg-type]
        for name, value in made.environment().items():
            monkeypatch.setenv(name, value)
        return made

    return make


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder at the front of the search path."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def once(side: PodSide) -> PodSample:
    with gpus.start(side, 0.0) as talk:
        for line in talk:
            return sample_from(line, "here")
    raise talk.broken_off()


def samples(talk: Talk) -> Iterator[PodSample]:
    for line in talk:
        yield sample_from(line, "here")


def until(talk: Iterator[PodSample], what: Callable[[tuple[GpuSample, ...]], bool]) -> PodSample:
    """The first of the next samples of which that holds."""
    for _, sample in zip(range(40), talk, strict=False):
        if what(sample.gpus):
            return sample
    raise AssertionError("40 samples, and it did not come")


def test_several_gpus_with_every_figure(side: PodSide, simulated: Callable[..., SimulatedGpus]) -> None:
    simulated(
        Gpu(used_mib=4096, utilization=50, celsius=61, reasons=0x1 | 0x4 | 0x20),
        Gpu(name="NVIDIA GeForce RTX 4090, special edition", total_mib=24564),
    )
    sample = once(side)
    assert (sample.source, sample.driver, sample.cuda, sample.detail) == ("nvml", "570.86.15", "12.8", "")
    first, second = sample.gpus
    assert first == GpuSample(
        index=0, name="NVIDIA H100 80GB HBM3", uuid="GPU-00000000-0000-0000-0000-000000000000",
        utilization_percent=50, memory_utilization_percent=25, memory_total_bytes=81559 * MIB,
        memory_used_bytes=4096 * MIB, memory_free_bytes=(81559 - 4096) * MIB, temperature_celsius=61, power_w=71.25,
        power_limit_w=700, energy_j=1234.5, sm_clock_mhz=1980, memory_clock_mhz=2619, fan_percent=30, ecc_errors=0,
        throttle_reasons=("power_cap", "software_thermal"), processes=(),
    )  # fmt: skip
    assert (second.name, second.memory_total_bytes) == ("NVIDIA GeForce RTX 4090, special edition", 24564 * MIB)


def test_a_figure_the_card_lacks_is_none(own: PodSide, simulated: Callable[..., SimulatedGpus]) -> None:
    lacking = ("memory", "utilization", "temperature", "power", "energy", "clocks", "fan", "ecc", "reasons")
    simulated(Gpu(without=(*lacking, "processes")))
    (gpu,) = once(own).gpus
    assert gpu == GpuSample(0, "NVIDIA H100 80GB HBM3", "GPU-00000000-0000-0000-0000-000000000000")


def test_a_driver_that_answers_with_an_error_is_quoted(own: PodSide, simulated: Callable[..., SimulatedGpus]) -> None:
    simulated(Gpu(error=UNKNOWN), Gpu())
    broken, fine = once(own).gpus
    assert broken.error == "nvmlDeviceGetUtilizationRates: Unknown Error"
    assert broken.memory_total_bytes is None
    assert not fine.error


def test_a_lost_gpu_is_said_so_and_found_again(own: PodSide, simulated: Callable[..., SimulatedGpus]) -> None:
    machine = simulated(Gpu(), Gpu())
    with gpus.start(own, 0.25) as talk:
        stream = samples(talk)
        assert not any(gpu.lost for gpu in next(stream).gpus)
        machine.change([Gpu(used_mib=5), Gpu(lost=True)])
        fine, lost = until(stream, lambda found: found[1].lost).gpus
        assert fine.memory_used_bytes == 5 * MIB
        assert lost == GpuSample(1, fine.name, lost.uuid, lost=True, error="GPU is lost")
        machine.change([Gpu(), Gpu(used_mib=7)])
        back = until(stream, lambda found: not found[1].lost).gpus[1]
        assert back.memory_used_bytes == 7 * MIB


def test_a_gpu_that_hangs_does_not_hold_up_the_others(own: PodSide, simulated: Callable[..., SimulatedGpus]) -> None:
    machine = simulated(Gpu(), Gpu())
    with gpus.start(own, 0.25) as talk:
        stream = samples(talk)
        next(stream)
        machine.change([Gpu(hang=True), Gpu(used_mib=9)])
        silent, fine = until(stream, lambda found: bool(found[0].error)).gpus
        assert silent.error.startswith("the driver has not answered for ")
        assert silent.name == "NVIDIA H100 80GB HBM3"
        assert silent.memory_total_bytes is None
        assert fine.memory_used_bytes == 9 * MIB
        ticks = [next(stream).at for _ in range(5)]
        assert all(later > earlier for earlier, later in pairwise(ticks))
        machine.change([Gpu(used_mib=1), Gpu()])
        assert until(stream, lambda found: not found[0].error).gpus[0].memory_used_bytes == MIB


def test_a_slow_gpu_is_late_and_comes(own: PodSide, simulated: Callable[..., SimulatedGpus]) -> None:
    machine = simulated(Gpu(), Gpu())
    with gpus.start(own, 0.25) as talk:
        stream = samples(talk)
        next(stream)
        machine.change([Gpu(latency_s=0.03, used_mib=3), Gpu(used_mib=4)])  # times the calls of a reading: 0.5 s
        late = until(stream, lambda found: bool(found[0].error))
        assert not late.gpus[1].error
        assert until(stream, lambda found: found[0].memory_used_bytes == 3 * MIB).gpus[1].memory_used_bytes == 4 * MIB


def test_mig_instances_follow_their_card(own: PodSide, simulated: Callable[..., SimulatedGpus]) -> None:
    simulated(Gpu(), Gpu(name="NVIDIA A100-SXM4-80GB", mig=2))
    found = once(own).gpus
    assert [(gpu.parent, gpu.index, gpu.mig) for gpu in found] == [
        (None, 0, False), (None, 1, False), (1, 0, True), (1, 1, True),
    ]  # fmt: skip
    assert found[3].name == "NVIDIA A100-SXM4-80GB MIG 1g.10gb"
    assert found[3].uuid.startswith("MIG-")
    assert found[3].memory_total_bytes == 81559 // 7 * MIB
    assert found[3].utilization_percent is None


def test_processes_say_whose_they_are(own: PodSide, simulated: Callable[..., SimulatedGpus]) -> None:
    script, env = "env -u PODLAB_ENDPOINT sleep 60 & echo $!; wait", os.environ | {"PODLAB_ENDPOINT": "e-1"}
    marked_one = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True, env=env)
    try:
        assert marked_one.stdout is not None
        child = int(marked_one.stdout.readline())
        machine = simulated(Gpu(processes=((os.getpid(), 100), (2**22 + 1, 300))))
        machine.hold(0, child, 2000)
        machine.hold(0, marked_one.pid, 10)
        (gpu,) = once(own).gpus
        assert gpu.memory_used_bytes == (100 + 300 + 2000 + 10) * MIB
        assert gpu.processes is not None
        by_pid = {process.pid: process for process in gpu.processes}
        assert by_pid[marked_one.pid].owner == "e-1"
        assert by_pid[child].owner == "e-1"  # by its parent: what renames itself overwrites its environment
        assert by_pid[child].name == "sleep"
        assert by_pid[child].memory_bytes == 2000 * MIB
        assert by_pid[os.getpid()].owner == by_pid[2**22 + 1].owner == by_pid[2**22 + 1].name == ""
    finally:
        marked_one.kill()
        os.kill(child, 9)
        marked_one.wait()


def test_memory_comes_back_when_its_process_ends(own: PodSide, simulated: Callable[..., SimulatedGpus]) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as holder:
        simulated(Gpu()).hold(0, holder.pid, 2000)
        assert once(own).gpus[0].memory_used_bytes == 2000 * MIB
    assert once(own).gpus[0].memory_used_bytes == 0


@pytest.mark.parametrize(
    "code,detail",
    [(MISMATCH, "until the machine is started anew"), (DRIVER_NOT_LOADED, "is not loaded"), (3, "Not Sup")],
)
def test_a_driver_that_cannot_be_used_says_why(
    own: PodSide, simulated: Callable[..., SimulatedGpus], code: int, detail: str
) -> None:
    simulated(Gpu(), init=code)
    sample = once(own)
    assert (sample.source, sample.gpus) == ("none", ())
    assert detail in sample.detail
    assert sample.host.cpus


def test_without_a_gpu_the_machine_is_still_told(side: PodSide, own_home: Path) -> None:
    sample = once(side)
    if sample.source != "none":
        pytest.skip("this computer has a GPU")
    assert sample.gpus == ()
    assert sample.detail.startswith("no NVIDIA driver was found (libnvidia-ml.so.1")
    host = sample.host
    assert host.cpus == len(os.sched_getaffinity(0))
    assert host.cpu_percent is not None
    assert 0 <= host.cpu_percent <= 100
    assert host.memory_total_bytes is not None
    assert host.memory_available_bytes is not None
    assert 0 < host.memory_available_bytes <= host.memory_total_bytes
    assert host.disk_total_bytes == os.statvfs(own_home).f_blocks * os.statvfs(own_home).f_frsize
    assert host.received_bytes_per_s is not None
    assert list(own_home.iterdir()) == []


SMI = """#!/bin/sh
case "$*" in
*query-gpu*) cat "$SMI_ANSWERS/gpus"; exit "$(cat "$SMI_ANSWERS/status")" ;;
*query-compute*) cat "$SMI_ANSWERS/processes" ;;
*) echo "| NVIDIA-SMI 550.54.14   Driver Version: 550.54.14   CUDA Version: 12.4     |" ;;
esac
"""
CARDS = """\
0, NVIDIA L4, GPU-a, 7, 3, 23034, 1034, 22000, 40, 28.51, 72.00, 210, 405, [N/A], 0
1, NVIDIA Odd, with a comma, GPU-b, [N/A], [N/A], 16384, 0, 16384, 33, [Not Supported], [N/A], 1, 2, 55, [N/A]
"""


@pytest.fixture
def smi(tools: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An nvidia-smi that prints what is in a folder."""
    answers = tmp_path / "answers"
    answers.mkdir()
    monkeypatch.setenv("SMI_ANSWERS", str(answers))
    (answers / "gpus").write_text(CARDS)
    (answers / "status").write_text("0")
    (answers / "processes").write_text(f"GPU-a, {os.getpid()}, 1034\nGPU-a, 4194305, [N/A]\n")
    (tools / "nvidia-smi").write_text(SMI)
    (tools / "nvidia-smi").chmod(0o755)
    return answers


def test_nvidia_smi_stands_in_for_the_library(side: PodSide, smi: Path) -> None:
    sample = once(side)
    assert (sample.source, sample.driver, sample.cuda) == ("nvidia-smi", "550.54.14", "12.4")
    assert sample.detail.startswith("NVML was not used: ")
    first, second = sample.gpus
    assert (first.utilization_percent, first.memory_used_bytes, first.power_w) == (7, 1034 * MIB, 28.51)
    assert first.fan_percent is None
    assert first.processes is not None
    assert [(process.pid, process.memory_bytes) for process in first.processes] == [
        (os.getpid(), 1034 * MIB), (4194305, None),
    ]  # fmt: skip
    assert (second.name, second.uuid, second.fan_percent) == ("NVIDIA Odd, with a comma", "GPU-b", 55)
    assert second.power_w is second.utilization_percent is None
    assert second.processes == ()


def test_nvidia_smi_that_fails_later_is_said_so(own: PodSide, smi: Path) -> None:
    with gpus.start(own, 0.25) as talk:
        stream = samples(talk)
        assert next(stream).gpus[0].memory_total_bytes is not None
        (smi / "gpus").write_text("Unable to determine the device handle for GPU 0000:17:00.0: GPU is lost.\n")
        (smi / "status").write_text("15")
        sample = until(stream, lambda found: bool(found[0].error))
        assert [gpu.name for gpu in sample.gpus] == ["NVIDIA L4", "NVIDIA Odd, with a comma"]
        assert "GPU is lost" in sample.detail


def test_a_program_that_hangs_is_ended_with_the_probe(own: PodSide, smi: Path, tools: Path) -> None:
    with gpus.start(own, 0.25) as talk:
        stream = samples(talk)
        next(stream)
        (tools / "nvidia-smi").write_text("#!/bin/sh\nexec sleep 600\n")
        sample = until(stream, lambda found: bool(found[0].error))
        assert "has not answered for" in sample.detail
    wait_until(lambda: not marked(f"SMI_ANSWERS={smi}"), timeout_s=GONE_S, why="the probe and its child are gone")


@pytest.mark.parametrize("interval_s", [0.25, 60.0])
def test_it_ends_when_who_asked_is_killed(
    own: PodSide, simulated: Callable[..., SimulatedGpus], interval_s: float
) -> None:
    machine = simulated(Gpu(), Gpu(hang=True))
    mark = f"PODLAB_NVML_STATE={machine.environment()['PODLAB_NVML_STATE']}"
    code = (
        "import sys\nfrom podlab.lab import gpus\nfrom podlab.lab.supervisor import PodSide\n"
        "from podlab.transport.local import LocalTransport\n"
        f"for line in gpus.start(PodSide(LocalTransport(), python=sys.executable), {interval_s}): print(1, flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as watcher:
        assert watcher.stdout is not None
        watcher.stdout.readline()
        assert len(marked(mark)) == 2  # who watches, and the probe
        watcher.kill()
    wait_until(lambda: not marked(mark), timeout_s=GONE_S, why="the probe ended with who had asked for it")


def test_the_library_is_found_where_containers_mount_it(
    simulated: Callable[..., SimulatedGpus], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session over SSH has no LD_LIBRARY_PATH, and pynvml asks for the library by its name alone."""
    folder = simulated(Gpu(), Gpu()).environment()["LD_LIBRARY_PATH"]
    monkeypatch.delenv("LD_LIBRARY_PATH")
    code = (
        "from podlab.remote import nvml\n"
        f"nvml.DIRECTORIES = ({folder!r},)\n"
        "assert nvml.load_library() == ''\n"
        "import pynvml; pynvml.nvmlInit(); print(pynvml.nvmlDeviceGetCount())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "2"


def test_a_driver_that_takes_its_time_to_open_comes_later(simulated: Callable[..., SimulatedGpus]) -> None:
    machine = simulated(Gpu(), init="hang")
    code = (
        "import zlib, pathlib, importlib.util\nfrom podlab.remote import probe\n"
        "text = pathlib.Path(importlib.util.find_spec('pynvml').origin).read_bytes()\n"
        "probe.FIRST_S, probe.BEAT_S = 0.3, 0.1\n"
        "probe.Probe({'interval_s': 0.25}, zlib.compress(text)).run()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as it:
        assert it.stdout is not None
        lines = map(json.loads, it.stdout)
        assert "beat" in next(lines)
        first = next(line for line in lines if "beat" not in line)
        assert (first["source"], first["gpus"]) == ("none", [])
        assert first["detail"] == "the driver has not let itself be opened for 0.3 s"
        machine.change([Gpu(used_mib=6)])
        late = next(line for line in lines if line["source"] == "nvml")
        assert late["gpus"][0]["memory_used_bytes"] == 6 * MIB
        assert it.stdin is not None
        it.stdin.close()  # the end of its link


def test_a_disk_that_hangs_does_not_hold_up_the_cards(own_home: Path) -> None:
    """In a process of its own: the thread that hangs stays."""
    code = (
        "import threading\nfrom podlab.remote import probe\n"
        "probe.Host.read = lambda self: threading.Event().wait()\n"
        "it = probe.Probe({'interval_s': 1}, b'')\n"
        "lines = [it.line(probe.NoGpus('none'), 0.05) for _ in range(3)]\n"
        "print([line['host'] for line in lines])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[{}, {}, {}]"


def test_memory_stays_bounded(own: PodSide, simulated: Callable[..., SimulatedGpus]) -> None:
    """Threads that hang are not added to, and what nobody takes is not kept."""
    machine = simulated(*(Gpu(hang=index % 2 == 0) for index in range(8)))
    mark = f"PODLAB_NVML_STATE={machine.environment()['PODLAB_NVML_STATE']}"
    with gpus.start(own, 0.25) as talk:
        stream = samples(talk)
        next(stream)
        (pid,) = marked(mark)
        before = len(os.listdir(f"/proc/{pid}/task"))
        for _ in range(4):
            next(stream)
        assert len(os.listdir(f"/proc/{pid}/task")) == before <= 8 + 4


@pytest.mark.parametrize("interval_s", [0.1, 61.0, -1.0])
def test_a_rate_no_probe_keeps_is_refused_there_too(own: PodSide, interval_s: float) -> None:
    with pytest.raises(BadArgument, match="an interval of"), gpus.start(own, interval_s) as talk:
        next(iter(talk))


def test_lines_are_versioned_and_small(own: PodSide, simulated: Callable[..., SimulatedGpus]) -> None:
    simulated(*(Gpu(used_mib=100 * index) for index in range(8)))
    with gpus.start(own, 0.0) as talk:
        (line,) = talk
    assert line["v"] == 1
    assert len(json.dumps(line)) < 8 * 1024


def test_pynvml_is_never_loaded_here() -> None:
    code = "import sys, podlab.lab.gpus as g; g._pynvml(); print('pynvml' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.gpu
def test_a_real_driver(own: PodSide) -> None:
    sample = once(own)
    if sample.source == "none":
        pytest.skip(f"no NVIDIA GPU here: {sample.detail}")
    assert sample.driver
    for gpu in sample.gpus:
        assert gpu.name
        assert not gpu.error
        assert gpu.memory_total_bytes is not None
        assert gpu.memory_free_bytes is not None
        assert 0 < gpu.memory_free_bytes <= gpu.memory_total_bytes
