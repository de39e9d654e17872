"""The real vLLM (its CPU build, an adopted environment) on a machine reached by SSH: one server for most of this file.

The tests stand in an order: the last ones restart that server and kill its worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from podlab.commands.drive import drive
from podlab.engines import engine_named
from podlab.engines.base import LoadStage
from podlab.errors import BadArgument, EngineCrashed, EngineUnavailable
from podlab.lab import chats, endpoints, environments, launch, pods, smoke
from podlab.lab.supervisor import result_of
from podlab.lab.wish import Wish
from podlab.lab.workspace import Workspace
from podlab.types import Endpoint, EndpointState, Pod
from tests import processes, vllm_cpu
from tests.audiences import Silent
from tests.machines import Sshd

pytestmark = pytest.mark.timeout(600)
HEARD_S = 21.0
"""Three times what the real server needs to end after its worker was killed."""


@dataclass
class Served:
    """A machine, and a model that was started on it once for the whole file."""

    podlab_home: Path
    box: Pod
    endpoint: Endpoint
    audience: Silent
    key: str
    folder: Path
    """The endpoint's folder on the machine."""


def wish(python: str | None, name: str = "tiny", *extra: str) -> Wish:
    return Wish(
        str(vllm_cpu.MODEL), name=name, engine="vllm", python=python, env=vllm_cpu.ENV, context=1024,
        extra=(*vllm_cpu.SMALL, *extra),
    )  # fmt: skip


def family(leader: int | None) -> dict[int, str]:
    """What is left of a server's processes by their session and group, with what each calls itself.

    Not by their mark: vLLM's processes write their names over their environment.
    """
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state, _, group, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                if state != "Z" and str(leader) in (group, session):
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    return found


def open_lab(patch: pytest.MonkeyPatch, home: Path) -> Workspace:
    patch.setenv("PODLAB_HOME", str(home))
    patch.setenv("PODLAB_KEEPER", "0")
    return Workspace.open()


@pytest.fixture(scope="module")
def served(vllm_python: str, sshd: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("podlab")
    home.chmod(0o700)
    with pytest.MonkeyPatch.context() as patch:
        workspace = open_lab(patch, home)
        address = f"ssh {sshd.user}@{sshd.host} -p {sshd.port} -i {sshd.identity}"
        added = pods.add(workspace, "box", address, models_path=None, host_key=sshd.fingerprint())
        box, facts = drive(added, Silent())
        audience = Silent()
        try:
            endpoint = drive(launch.start(workspace, box, wish(vllm_python)), audience)
            key = workspace.endpoint_key(box, endpoint.id)
            assert key is not None
            folder = Path(facts.home) / "endpoints" / endpoint.id
            yield Served(home, box, endpoint, audience, key.reveal(), folder)
        finally:
            patch.setenv("PODLAB_HOME", str(home))
            for found in workspace.side(box).list():
                result_of(workspace.side(box).stop(found.id, grace_s=5))
            workspace.close()
    assert processes.marked(f"PODLAB_POD_HOME={facts.home}") == []


@pytest.fixture
def lab(served: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A workspace of another process, as it were, on the machine of this file."""
    workspace = open_lab(monkeypatch, served.podlab_home)
    yield workspace
    workspace.close()


def test_it_is_ready_and_its_stages_were_shown_in_order(served: Served) -> None:
    assert (served.endpoint.state, served.endpoint.engine) == (EndpointState.READY, "vllm")
    assert served.endpoint.url is not None
    keys = list(dict.fromkeys(stage.key for stage in served.audience.stages))
    assert keys[:2] == ["reach", "environment"]
    loading = [key for key in keys if key in list(LoadStage)]
    assert loading == [stage.value for stage in LoadStage if stage.value in loading]
    assert "weights" in loading or "warm-up" in loading


def test_a_first_token_was_asked_for_before_it_counted_as_ready(served: Served) -> None:
    log = (served.folder / "log.1").read_text()
    assert log.index('"POST /v1/completions') > log.index("Application startup complete")


def test_it_streams_an_answer(served: Served, lab: Workspace) -> None:
    audience = Silent()
    answer, _ = drive(chats.say(lab, "tiny", "Say hello.", chats.Sampling(max_tokens=24, temperature=0)), audience)
    assert answer.message.content.strip()
    assert len(audience.chunks) > 1


def test_list_and_show_tell_what_runs(served: Served, lab: Workspace) -> None:
    (found,), _ = endpoints.listing(lab, [served.box])
    assert (found.id, found.state, found.engine) == (served.endpoint.id, EndpointState.READY, "vllm")
    _, facts = endpoints.find(lab, "tiny")
    assert facts.argv[1] == "serve"
    assert facts.argv[facts.argv.index("--host") + 1] == "127.0.0.1"


def test_its_metrics_are_read(served: Served, lab: Workspace) -> None:
    read = endpoints.metrics(endpoints.reach(lab, "tiny"))
    assert (read.running, read.waiting) == (0, 0)
    assert read.kv_used_ratio is not None
    assert read.prompt_tokens and read.generation_tokens


def test_the_trial_finds_what_metrics_show(served: Served, lab: Workspace) -> None:
    _, checks = drive(smoke.smoke(lab, "tiny"), Silent())
    found = {check.name: check for check in checks}
    assert {check.name for check in checks if check.state == "failed"} == set(), checks
    read = endpoints.metrics(endpoints.reach(lab, "tiny"))
    assert found["metrics"].detail.startswith(f"{read.generation_tokens} tokens written, ")
    assert "0 requests running, 0 waiting, KV cache " in found["metrics"].detail


def test_the_key_is_in_the_engine_s_own_environment_and_nowhere_else(served: Served) -> None:
    assert processes.saying(served.key) == []
    holders = processes.marked(served.key)
    assert holders and set(holders) <= set(processes.marked(f"PODLAB_ENDPOINT={served.endpoint.id}"))
    for file in served.folder.iterdir():
        if file.name != "key":
            assert served.key not in file.read_text(errors="replace"), file.name


def test_without_the_key_it_says_nothing(served: Served) -> None:
    from podlab.errors import HttpError
    from podlab.http import Http

    assert served.endpoint.url is not None
    http = Http(served.endpoint.url, key=None)
    try:
        with pytest.raises(HttpError) as caught:
            http.get_json("/models")
    finally:
        http.close()
    assert caught.value.status == 401


def test_the_environment_is_on_record_and_was_not_written_to(served: Served, lab: Workspace, vllm_python: str) -> None:
    facts = lab.side(served.box).hello()
    (found,) = environments.listed(lab, served.box, facts)
    assert (found.engine, found.version, found.python, found.adopted) == ("vllm", "0.32.0", vllm_python, True)
    assert "--max-num-seqs" in found.flags
    assert not list(Path(vllm_python).parents[1].glob("*podlab*"))
    chosen = drive(environments.chosen(lab, served.box, facts, "vllm", version=None, python=None), Silent())
    assert chosen == found, "the next start needs no --python"
    assert drive(environments.chosen(lab, served.box, facts, "vllm", version="0.31.0", python=None), Silent()) is None


def test_a_flag_that_this_version_lacks_is_refused_before_anything_starts(served: Served, lab: Workspace) -> None:
    with pytest.raises(BadArgument, match="--max-num-sex"):
        drive(launch.start(lab, served.box, wish(None, "other", "--max-num-sex", "4")), Silent())
    assert [found.name for found in endpoints.listing(lab, [served.box])[0]] == ["tiny"]


def test_a_python_without_vllm_is_told_apart(served: Served, lab: Workspace) -> None:
    with pytest.raises(EngineUnavailable, match="cannot import vllm"):
        drive(launch.start(lab, served.box, wish("/usr/bin/python3", "other")), Silent())


def test_a_value_that_vllm_refuses_is_a_bad_flag(served: Served, lab: Workspace) -> None:
    with pytest.raises(EngineCrashed) as caught:
        drive(launch.start(lab, served.box, wish(None, "other", "--max-num-batched-tokens", "many")), Silent())
    assert caught.value.cause == "bad_flag"
    assert any("many" in line for line in caught.value.log)


def test_an_interrupt_while_it_loads_ends_the_watching_only(served: Served, lab: Workspace) -> None:
    starting = launch.start(lab, served.box, wish(None, "other"))
    while "Starting vllm" not in getattr(next(starting), "text", ""):
        pass
    (begun,) = [found for found in lab.side(served.box).list() if found.name == "other" and not found.ended]
    assert begun.pid in family(begun.pid)
    heard = []
    with pytest.raises(KeyboardInterrupt):
        heard.append(starting.throw(KeyboardInterrupt))
        while True:
            heard.append(next(starting))
    assert any("goes on loading" in getattr(event, "text", "") for event in heard)
    assert begun.pid in family(begun.pid)
    drive(endpoints.stop(lab, "other"), Silent())
    assert family(begun.pid) == {}


def test_a_restart_ends_every_process_and_begins_a_log_of_its_own(served: Served, lab: Workspace) -> None:
    _, facts = endpoints.find(lab, "tiny")
    before = family(facts.pid)
    assert {"VLLM::EngineCore", "VLLM::Worker"} <= set(before.values())
    endpoint = drive(launch.restart(lab, served.box, facts), Silent())
    assert (endpoint.state, endpoint.generation) == (EndpointState.READY, 2)
    assert family(facts.pid) == {}
    first, second = ((served.folder / f"log.{number}").read_text() for number in (1, 2))
    assert first.count("Application startup complete") == second.count("Application startup complete") == 1
    ready = json.loads((served.folder / "ready.2.json").read_text())
    assert ready["at"] > (served.folder / "log.1").stat().st_mtime


def test_a_killed_worker_is_a_crash_although_the_server_ends_with_status_0(served: Served, lab: Workspace) -> None:
    _, facts = endpoints.find(lab, "tiny")
    leader = facts.pid
    (worker,) = [pid for pid, name in family(leader).items() if name == "VLLM::Worker"]
    os.kill(worker, signal.SIGKILL)
    watching = lab.side(served.box).watch(served.endpoint.id, HEARD_S, "ended")
    try:
        while True:
            facts = next(watching)
    except StopIteration as end:
        assert end.value == "ended"
    state, cause, detail = endpoints.judge(facts)
    assert (state, cause) == (EndpointState.CRASHED, "worker_died"), detail
    assert family(leader) == {}


def test_every_engine_of_the_catalog_has_its_knowledge() -> None:
    from podlab.catalog.catalog import ENGINES

    assert [engine_named(name).name for name in ENGINES] == list(ENGINES)
