"""One regression test per row of the defects found in pi pods; the number in a test's name is its row.

Rows 1 to 5, 10 and 18 are about planning, 3, 15 and 18 about setting up, the others about what runs on a pod. What is
proven in full elsewhere is named in ELSEWHERE.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import uuid
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import pytest

from podlab.catalog import recipes
from podlab.catalog.catalog import find, recipes_of
from podlab.catalog.gpus import gpu_types, parse_gpus, type_of
from podlab.catalog.planner import ServePlan, plan
from podlab.catalog.wishes import ServeWish
from podlab.commands.drive import drive
from podlab.commands.handlers import model
from podlab.engines import engine_named
from podlab.engines.base import PodFacts, ServeSpec
from podlab.engines.builds import build_named
from podlab.errors import BadArgument, CommandFailed, NotFound, Unreachable
from podlab.http import Http
from podlab.lab import endpoints, files, gpus, jobs, pods
from podlab.lab.facts import Facts, HealthCheck
from podlab.lab.supervisor import result_of
from podlab.lab.workspace import Workspace
from podlab.quoting import shell_line
from podlab.types import Endpoint, EndpointState, Pod, Step
from tests import machines
from tests.audiences import Silent
from tests.machines import Sshd
from tests.nvml import Gpu, SimulatedGpus
from tests.processes import marked, saying, wait_until
from tests.remote.bench import SERVER

ELSEWHERE = {
    9: "tests/lab/test_imports.py::test_pi_s_pods_come_with_their_address_key_and_models_path",
    14: "tests/transport/test_bad_input.py::test_arguments_arrive_byte_for_byte",
    15: "tests/lab/test_setup.py::test_a_bare_machine_serves_and_a_second_run_finds_it_so",
    16: "tests/remote/test_life.py::test_a_grandchild_in_another_session_does_not_survive_a_stop",
    19: "tests/lab/test_launch.py::test_only_loopback_and_only_with_the_key",
}


def planned(model: str, gpus: str, wish: ServeWish | None = None) -> ServePlan:
    entry = find(model)
    return plan(entry, entry.geometry, recipes_of(entry), parse_gpus(gpus), wish or ServeWish())


@pytest.mark.parametrize("wish", [ServeWish(gpus=2), ServeWish(gpus=(2, 3)), ServeWish(extra=("-tp", "2")), None])
def test_row_1_the_engine_is_told_its_gpus_whatever_their_number(wish: ServeWish | None) -> None:
    found = planned("Qwen/Qwen3-Coder-30B-A3B-Instruct", "4x H100", wish)
    assert dict(found.env)["CUDA_VISIBLE_DEVICES"] == ",".join(map(str, found.gpus))
    assert len(found.gpus) == found.tensor_parallel == (2 if wish else 1)
    if wish and wish.gpus == (2, 3):
        assert found.gpus == (2, 3)


def test_row_2_the_smallest_that_fits_is_the_default() -> None:
    assert planned("Qwen/Qwen2.5-Coder-32B-Instruct", "2x H100").gpus == (0,)
    assert len(planned("openai/gpt-oss-120b", "8x H100").gpus) == 1


@pytest.mark.parametrize("form", [("--max-model-len", "8192"), ("--max-model-len=8192",)])
@pytest.mark.parametrize(
    "model, gpus",
    [("openai/gpt-oss-120b", "H100"), ("openai/gpt-oss-120b", "2x H100"), ("zai-org/GLM-4.5-Air", "2x H200"),
     ("Qwen/Qwen3-Coder-480B-A35B-Instruct", "8x H200"), ("Qwen/Qwen3-Coder-480B-A35B-Instruct-FP8", "8x H200")],
)  # fmt: skip
def test_row_4_an_override_takes_flag_and_value_together(model: str, gpus: str, form: tuple[str, ...]) -> None:
    asked = planned(model, gpus, ServeWish(context=8192, memory_ratio=0.93))
    assert (asked.context, asked.memory_ratio) == (8192, 0.93)
    values = [word for word in asked.args if not word.startswith("-")]
    assert not {"32000", "131072", "0.95", "0.94"} & set(values), "no stray value of a flag that went"

    raw = planned(model, gpus, ServeWish(extra=(*form, "--max-num-batched-tokens", "2048")))
    assert raw.context == 8192
    assert raw.args.count("--max-num-batched-tokens") == 1
    assert "1024" not in raw.args


def test_row_5_json_and_quotes_survive() -> None:
    extra = ("--speculative-config", '{"method": "mtp", "n": [1, 2]}', "--chat-template", "a 'b' $HOME `id`\n")
    assert planned("zai-org/GLM-4.5-Air", "4x H100", ServeWish(extra=extra)).args[-4:] == extra


def test_row_10_gpus_are_told_apart_token_by_token() -> None:
    pairs = [("NVIDIA H20", "NVIDIA H200"), ("NVIDIA L4", "NVIDIA L40S"), ("NVIDIA A40", "NVIDIA RTX A4000"),
             ("NVIDIA RTX A6000", "NVIDIA RTX 6000 Ada Generation")]  # fmt: skip
    for one, other in pairs:
        assert type_of(one) is not None
        assert type_of(one) != type_of(other)
    assert type_of("") is None, "a name that is not known matches nothing"
    assert not any(kind.is_one_of(("",)) for kind in gpu_types())
    mixed = planned("Qwen/Qwen3-Coder-30B-A3B-Instruct", "L4, H100")
    assert mixed.gpus == (1,), "a pod is not judged by its first GPU"


def test_row_18_no_recipe_sets_what_is_no_longer_read() -> None:
    gone = {"HF_HUB_ENABLE_HF_TRANSFER", "VLLM_ATTENTION_BACKEND", "VLLM_USE_TRTLLM_ATTENTION"}
    for recipe in recipes.packaged():
        assert not gone & dict(recipe.env).keys(), recipe.title


def test_row_3_a_version_reaches_pip_as_one_word(tmp_path: Path) -> None:
    """Unquoted, `vllm>=0.10.0` is a redirection in a shell: no floor, and a file called `=0.10.0`."""
    words = build_named("vllm==0.25.1+cu129").setup_words(home="/h", folder="/d")
    assert words[words.index("--package") + 1] == "vllm==0.25.1+cu129"
    argv = ("pip", "install", "vllm>=0.10.0", "a b", "$(touch x)")
    said = subprocess.run(
        ["sh", "-c", f"printf '%s\\n' {shell_line(argv)}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert said.stdout.splitlines() == list(argv), "what a dry run shows can be pasted"
    assert list(tmp_path.glob("*0.10*")) == list(tmp_path.glob("x")) == []


def test_row_15_an_environment_in_use_is_not_removed(tmp_path: Path) -> None:
    """Not even one that does not work any more. tests/lab/test_setup.py has the server that lives through a setup."""
    home = tmp_path / "pod"
    home.mkdir()
    program = str(resources.files("podlab.remote") / "setup.py")
    argv = [sys.executable, program, "--home", str(home), "--dir", str(home), "--engine", "demo", "--package",
            "iniconfig==2.1.0", "--min-python", "3.10", "--probe", "import iniconfig"]  # fmt: skip
    assert subprocess.run(argv, capture_output=True).returncode == 0
    env = (home / "env").resolve()
    python = str(env / "bin" / "python")
    server = subprocess.Popen([python, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        (module,) = env.glob("lib/python3*/site-packages/iniconfig/__init__.py")
        module.write_text("raise SystemExit(3)")
        again = subprocess.run(argv, capture_output=True, text=True)
        assert again.returncode == 1
        assert f"python ({server.pid}) uses it" in again.stderr
        assert server.poll() is None and (env / "podlab.json").exists()
    finally:
        server.communicate(b"\n")
    assert subprocess.run(argv, capture_output=True).returncode == 0, "nobody uses it now"
    assert module.read_text() != "raise SystemExit(3)"


def test_row_18_setup_installs_and_sets_nothing_that_is_no_longer_read() -> None:
    for text in ("vllm", "nightly", "sglang", "llamacpp"):
        words = build_named(text).setup_words(home="/h", folder="/d")
        assert not any("transfer" in word.lower() for word in words)
    sources = (Path(__file__).parents[1] / "podlab").rglob("*.py")
    assert not [path for path in sources if "HF_TRANSFER" in path.read_text().upper()]


@dataclass(frozen=True)
class Lab:
    """A workspace and two pods: this computer, and a machine with simulated GPUs that is reached by SSH."""

    workspace: Workspace
    box: Pod
    sshd: Sshd
    cards: SimulatedGpus

    def serve(self, pod: Pod, name: str, *options: str, ready: bool = True) -> Facts:
        side = self.workspace.side(pod)
        argv = (sys.executable, "-I", "-S", str(SERVER), "--port", "{port}", "--name", name, *options)
        step = Step("serve", argv, {"SERVER_KEY": "{key}"})
        id = side.start(id=uuid.uuid4().hex, name=name, steps=(step,), model=name, engine="llamacpp",
                        key="sk-of-row-20", health=HealthCheck(name)).facts.id  # fmt: skip
        *_, last = side.watch(id, 20.0, "ready" if ready else "ended")
        return last

    def folder(self, pod: Pod, facts: Facts) -> Path:
        return Path(self.workspace.side(pod).hello().home) / "endpoints" / facts.id

    def state(self, name: str) -> Endpoint:
        value = drive(model.list_endpoints(self.workspace, asking(all=True)), Silent()).value
        (found,) = (endpoint for endpoint in value.endpoints if endpoint.name == name)
        assert isinstance(found, Endpoint)
        return found


def asking(**given: object) -> Namespace:
    return Namespace(**{"name": None, "on": None, "all": False, "files": False, "dry_run": False, **given})


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    if machines.SSHD is None:
        pytest.skip(machines.WHY_SKIPPED)
    monkeypatch.setenv("PODLAB_KEEPER", "0")
    cards = SimulatedGpus(tmp_path, [Gpu()])
    sshd = machines.start_sshd(tmp_path, environment=cards.environment())
    workspace = Workspace.open()
    made = Lab(workspace, added(workspace, sshd), sshd, cards)
    yield made
    for pod in pods.all_pods():
        side = workspace.side(pod)
        for facts in side.list():
            result_of(side.stop(facts.id, grace_s=2.0))
    workspace.close()
    sshd.stop()


def added(workspace: Workspace, sshd: Sshd) -> Pod:
    address = f"ssh {sshd.user}@{sshd.host} -p {sshd.port} -i {sshd.identity}"
    work = pods.add(workspace, "box", address, models_path=None, host_key=sshd.fingerprint())
    return drive(work, Silent())[0]


@pytest.mark.parametrize("how", ["refused", "frozen"])
def test_row_8_a_pod_that_does_not_answer_is_unknown_and_nothing_is_forgotten(lab: Lab, how: str) -> None:
    far, near = lab.serve(lab.box, "far"), lab.serve(pods.find("local"), "near")
    assert lab.state("far").state is EndpointState.READY
    if how == "refused":
        lab.sshd.stop()
    else:
        lab.workspace.override("deadline_s", "1.5")
        lab.sshd.freeze_sessions()
    seen = lab.state("far")
    assert (seen.state, seen.pid) == (EndpointState.UNREACHABLE, None), "neither verified nor gone"
    with pytest.raises(Unreachable, match="What runs on box is unknown"):
        drive(model.stop(lab.workspace, asking(name="far")), Silent())
    audience = Silent()
    with pytest.raises(Unreachable, match="box is unknown") as caught:
        drive(model.stop(lab.workspace, asking(all=True)), audience)
    assert caught.value.exit_code == 1
    said = " ".join(notice.text for notice in audience.notices)
    assert "Stopped near." in said, "the others are stopped all the same"
    assert "far on box" in said
    assert lab.state("near").state is EndpointState.STOPPED
    assert [endpoint.name for endpoint in lab.workspace.store.endpoints_of(lab.box.id)] == ["far"], "it is on record"
    if how == "refused":
        lab.sshd.start()
    else:
        lab.sshd.thaw_sessions()
        lab.workspace.override("deadline_s", None)
    again = lab.state("far")
    assert (again.state, again.pid) == (EndpointState.READY, far.pid), "it served on, and is found again"
    assert near.pid is not None


@pytest.mark.parametrize(
    "field, value, cause", [("start", "1", "other"), ("boot", "another", "rebooted")], ids=["pid reused", "rebooted"]
)
def test_row_11_a_pid_alone_is_not_believed(lab: Lab, field: str, value: str, cause: str) -> None:
    """A living process of that number, but started at another time or before a reboot: not the server."""
    facts = lab.serve(lab.box, "tiny")
    run = lab.folder(lab.box, facts) / "run.json"
    told = json.loads(run.read_text())
    assert {"pid", "start", "boot"} <= told.keys()
    os.kill(marked_monitor(facts.id), signal.SIGKILL)
    run.write_text(json.dumps({**told, field: value}))
    found = lab.state("tiny")
    assert (found.state, found.cause, found.pid) == (EndpointState.CRASHED, cause, None)
    run.write_text(json.dumps(told))
    assert lab.state("tiny").state is EndpointState.READY


def marked_monitor(id: str) -> int:
    (pid,) = saying(f"/{id}/monitor.py")
    return pid


def test_row_16_workers_that_ignore_term_end_and_their_memory_comes_back(lab: Lab, tmp_path: Path) -> None:
    worker = tmp_path / "worker"
    facts = lab.serve(lab.box, "tiny", "--stray", str(worker), "--ignore-term")
    pid = int(worker.read_text())
    lab.cards.hold(0, pid, 5000)
    gpus.sample(lab.workspace, lab.box)
    value = drive(model.stop(lab.workspace, asking(name="tiny")), Silent()).value
    assert (value.endpoint.state, value.freed.freed_bytes, value.freed.left) == (
        EndpointState.STOPPED, 5000 * 2**20, ())  # fmt: skip
    assert marked(f"PODLAB_ENDPOINT={facts.id}") == []
    assert gpus.sample(lab.workspace, lab.box).gpus[0].memory_used_bytes == 0


def test_row_17_what_a_failed_start_leaves_is_on_record_and_ended(lab: Lab, tmp_path: Path) -> None:
    worker = tmp_path / "worker"
    side = lab.workspace.side(lab.box)
    script = f"{sys.executable} -I -S {SERVER} --port 1 --name x --stray {worker} --deaf & "
    script += f"while ! [ -e {worker} ]; do sleep 0.05; done; exit 3"
    id = side.start(id=uuid.uuid4().hex, name="tiny", steps=(Step("serve", ("sh", "-c", script)),)).facts.id
    list(side.watch(id, 20.0, "ended"))
    failed = lab.state("tiny")
    assert (failed.state, failed.exit_status) == (EndpointState.CRASHED, 3)
    stray = int(worker.read_text())
    wait_until(lambda: marked(f"PODLAB_ENDPOINT={id}") == [stray], timeout_s=15.0, why="its own group is ended")
    assert f"pid {stray}" in lab.state("tiny").detail, "what went its own way is named"
    drive(model.stop(lab.workspace, asking(name="tiny")), Silent())
    assert marked(f"PODLAB_ENDPOINT={id}") == []


def test_row_20_another_computer_sees_and_stops_it(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = lab.serve(lab.box, "tiny", "--key-env", "SERVER_KEY")
    other = tmp_path / "laptop"
    other.mkdir(mode=0o700)
    with monkeypatch.context() as there:
        there.setenv("PODLAB_HOME", str(other))
        laptop = Workspace.open()
        try:
            added(laptop, lab.sshd)
            (found,) = endpoints.listing(laptop, pods.all_pods())[0]
            assert (found.id, found.state, found.pid) == (facts.id, EndpointState.READY, facts.pid)
            reached = endpoints.reach(laptop, "tiny")
            assert reached.key is not None and reached.key.reveal() == "sk-of-row-20"
            assert drive(endpoints.stop(laptop, "tiny"), Silent()).state is EndpointState.STOPPED
        finally:
            laptop.close()
    assert lab.state("tiny").state is EndpointState.STOPPED


def test_row_6_a_status_is_the_commands_own(lab: Lab) -> None:
    for pod in (pods.find("local"), lab.box):
        assert drive(jobs.run(lab.workspace, pod, ("sh", "-c", "exit 7")), Silent()).status == 7
        assert drive(jobs.run(lab.workspace, pod, ("sh", "-c", "kill -9 $$")), Silent()).status == 137
    with pytest.raises(CommandFailed) as caught:
        lab.workspace.transport(lab.box).run(["sh", "-c", "exit 3"])
    assert caught.value.status == 3


def test_row_7_a_download_that_fails_is_told_as_one(lab: Lab) -> None:
    """Which step failed, how, and what it said last; and nothing is served."""
    side = lab.workspace.side(lab.box)
    script = "echo fetching; echo 'podlab: model_not_found: there is no org/nothing'; exit 4"
    steps = (Step("download", ("sh", "-c", script)), Step("serve", ("sh", "-c", "echo served")))
    id = side.start(id=uuid.uuid4().hex, name="tiny", steps=steps, engine="llamacpp").facts.id
    *_, last = side.watch(id, 20.0, "ended")
    failed = lab.state("tiny")
    assert (failed.state, failed.cause) == (EndpointState.CRASHED, "model_not_found")
    assert failed.detail == "download ended with status 4: there is no org/nothing"
    assert "served" not in last.lines


def test_row_9_a_port_and_a_key_hold_for_files_and_urls_too(lab: Lab, tmp_path: Path) -> None:
    """The address as rental companies show it, with its options first."""
    address = f"ssh -p {lab.sshd.port} -i {lab.sshd.identity} {lab.sshd.user}@{lab.sshd.host}"
    work = pods.add(lab.workspace, "rented", address, models_path=None, host_key=lab.sshd.fingerprint())
    rented = drive(work, Silent())[0]
    (tmp_path / "file").write_bytes(b"bytes")
    drive(files.push(lab.workspace, rented, str(tmp_path / "file"), "there"), Silent())
    assert (lab.sshd.home / "there").read_bytes() == b"bytes"
    lab.serve(rented, "tiny")
    reached = endpoints.reach(lab.workspace, "tiny", "rented")
    assert reached.base_url.startswith("http://127.0.0.1:")
    http = Http(reached.base_url, key=reached.key)
    assert http.get_json("/models")["data"][0]["id"] == "tiny"
    http.close()


def test_row_12_the_last_runs_success_is_not_this_ones(lab: Lab, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    facts = lab.serve(lab.box, "tiny", "--gate", str(gate))
    assert lab.state("tiny").state is EndpointState.READY
    gate.unlink()
    side = lab.workspace.side(lab.box)
    result_of(side.restart(facts.id, 1))
    again = lab.state("tiny")
    assert (again.state, again.generation) == (EndpointState.LOADING, 2)
    assert "listening" not in side.tail(facts.id).piece.data.decode(), "its log is its own"
    gate.touch()
    *_, last = side.watch(facts.id, 20.0)
    assert lab.state("tiny").state is EndpointState.READY
    assert last.generation == 2


def test_row_13_what_is_cut_between_two_pieces_is_whole_again(lab: Lab) -> None:
    """Readiness is asked for, not read from a log; and what is read of one is put together, letters too."""
    script = (
        "for part in 'Application start' 'up \\342\\202' '\\254 comp' 'lete\\n'; do printf \"$part\"; sleep 0.3; done"
    )
    audience = Silent()
    drive(jobs.run(lab.workspace, lab.box, ("sh", "-c", script)), audience)
    said = [chunk.text for chunk in audience.chunks]
    assert "".join(said) == "Application startup \u20ac complete\n"
    assert len(said) > 1, "it came in pieces"


def test_row_14_no_name_is_read_by_a_shell(lab: Lab, tmp_path: Path) -> None:
    hostile = f"a b'\"$(touch {tmp_path}/hacked)`touch {tmp_path}/hacked`; touch {tmp_path}/hacked #"
    facts = lab.serve(lab.box, "tiny", "--count", str(tmp_path / hostile.replace("/", "_")))
    assert (tmp_path / hostile.replace("/", "_")).read_text() == f"{facts.pid}\n"
    with pytest.raises(BadArgument):
        lab.serve(lab.box, hostile)
    with pytest.raises(NotFound):
        pods.find(hostile)
    assert not (tmp_path / "hacked").exists()


def test_row_19_it_listens_here_only_and_its_key_is_in_no_command_line() -> None:
    for name, spec in (("vllm", ServeSpec("m", model_path="/m")), ("llamacpp", ServeSpec("m", model_path="/m.gguf"))):
        engine = engine_named(name)
        serve = engine.steps(spec, PodFacts("Linux", "x86_64", (3, 11), gpus=1))[-1]
        assert not any("{key}" in word for word in serve.argv)
        assert "0.0.0.0" not in serve.argv


def test_every_row_has_a_test() -> None:
    root = Path(__file__).parents[1]
    here = {int(row) for row in re.findall(r"def test_row_(\d+)_", Path(__file__).read_text())}
    for place in ELSEWHERE.values():
        file, _, name = place.partition("::")
        assert f"def {name}(" in (root / file).read_text(), place
    assert here | set(ELSEWHERE) == set(range(1, 21))
