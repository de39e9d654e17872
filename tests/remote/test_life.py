"""An endpoint's life on a pod, with real processes: what is started, what is seen, what is left."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from podlab.engines.base import Cause, Diagnosis
from podlab.errors import AlreadyExists, BadArgument, NotFound, SupervisorError
from podlab.lab.facts import Facts
from podlab.lab.states import classify
from podlab.lab.supervisor import PodSide, result_of
from podlab.transport.base import Process
from podlab.transport.local import LocalProcess, LocalTransport
from podlab.types import EndpointState, Step
from tests.remote.bench import Bench, bench, running


def state(facts: Facts) -> EndpointState:
    return classify(facts, lambda *_: Diagnosis(Cause.OTHER))[0]


def edit(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_it_starts_gets_ready_and_stops_without_leaving_a_process(pod: Bench) -> None:
    facts = pod.ready("--key-env", "SERVER_KEY")
    assert state(facts) is EndpointState.READY
    assert facts.socket_ours is True
    assert facts.health is not None
    assert facts.health.models == ("tiny-1",)
    assert pod.processes_of(facts.id) == [facts.pid]
    work = pod.side.stop(facts.id)
    stages = [stage.stage for stage in iter(lambda: next(work, None), None)]
    assert (stages[0], stages[1], stages[-1]) == ("intent", "term", "proof")
    after = pod.facts(facts.id)
    assert state(after) is EndpointState.STOPPED
    assert after.exit is not None
    assert after.exit.signal == signal.SIGTERM
    assert pod.processes_of(facts.id) == []


def test_four_starts_of_one_id_at_once_run_one_process(pod: Bench, tmp_path: Path) -> None:
    one, count = str(uuid.uuid4()), tmp_path / "count"
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: pod.serve("--count", str(count), id=one), range(4)))
    assert sorted(answer.existed for answer in answers) == [False, True, True, True]
    ready = pod.until_ready(one)
    assert count.read_text().split() == [str(ready.pid)]
    assert pod.serve(id=one).facts.pid == ready.pid


class Cut(LocalTransport):
    """Kills the pod's side a moment after it was started."""

    def __init__(self, after_s: float) -> None:
        super().__init__()
        self._after_s = after_s

    def start(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: str | None = None) -> Process:
        process = super().start(argv, env=env, cwd=cwd)
        assert isinstance(process, LocalProcess)
        threading.Timer(self._after_s, process._child.kill).start()
        return process


def test_a_start_that_is_killed_anywhere_and_repeated_runs_one_process(pod: Bench, tmp_path: Path) -> None:
    for after_ms in range(30, 190, 20):
        count, one = tmp_path / f"count-{after_ms}", f"cut-{after_ms}"
        cut = bench(pod.home, pod.python)
        cut.side = PodSide(Cut(after_ms / 1000), str(pod.home), pod.python)
        with contextlib.suppress(SupervisorError):
            cut.serve("--count", str(count), "--deaf", id=one, name=one)
        facts = pod.serve("--count", str(count), "--deaf", id=one, name=one).facts
        seen = pod.side.watch(facts.id, 10.0)
        while "loading the model" not in next(seen).lines:
            pass
        seen.close()
        facts = pod.facts(one)
        assert count.read_text().split() == [str(facts.pid)], after_ms
        assert pod.processes_of(one) == [facts.pid]


def test_a_name_that_lives_is_refused_and_free_again_after_its_end(pod: Bench) -> None:
    first = pod.serve("--deaf")
    with pytest.raises(AlreadyExists, match="tiny"):
        pod.serve()
    result_of(pod.side.stop(first.facts.id))
    assert not pod.serve("--deaf").existed


def test_loading_shows_the_log_until_it_is_ready(pod: Bench, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    facts = pod.serve("--gate", str(gate)).facts
    for seen in pod.side.watch(facts.id, 20.0):
        assert state(seen) in (EndpointState.LOADING, EndpointState.READY)
        if seen.lines == ("loading the model",):
            gate.touch()
    assert state(seen) is EndpointState.READY
    assert seen.ready_at is not None


def test_kill_9_of_the_engine_is_a_crash_by_signal_9(pod: Bench) -> None:
    facts = pod.ready()
    assert facts.pid is not None
    os.kill(facts.pid, signal.SIGKILL)
    ended = pod.until_ended(facts.id)
    assert state(ended) is EndpointState.CRASHED
    assert ended.exit is not None
    assert (ended.exit.signal, ended.exit.status) == (9, None)


def test_ending_by_itself_with_status_0_is_a_crash(pod: Bench) -> None:
    facts = pod.ready()
    pod.tell(facts, "/exit/0")
    ended = pod.until_ended(facts.id)
    assert state(ended) is EndpointState.CRASHED
    assert ended.exit is not None
    assert ended.exit.status == 0
    assert result_of(pod.side.stop(facts.id)).was_running is False
    assert state(pod.facts(facts.id)) is EndpointState.CRASHED  # a stop after the end does not make it a stop


def test_an_engine_outlives_its_monitor_and_then_its_end_is_unknown(pod: Bench) -> None:
    facts = pod.ready()
    os.kill(pod.monitor_of(facts.id), signal.SIGKILL)
    alone = pod.facts(facts.id)
    assert state(alone) is EndpointState.READY
    assert not alone.monitor_alive
    pod.tell(facts, "/exit/3")
    ended = pod.until_ended(facts.id)
    assert state(ended) is EndpointState.CRASHED
    assert ended.exit is None


def test_a_stop_works_without_the_monitor(pod: Bench) -> None:
    facts = pod.ready()
    os.kill(pod.monitor_of(facts.id), signal.SIGKILL)
    stopped = result_of(pod.side.stop(facts.id))
    assert state(stopped.facts) is EndpointState.STOPPED
    assert pod.processes_of(facts.id) == []


@pytest.mark.parametrize("field,value", [("start", "1"), ("boot", "another-boot.1")])
def test_another_process_of_that_pid_is_not_taken_for_it(pod: Bench, field: str, value: str) -> None:
    stranger = pod.job("exec sleep 60")
    facts = pod.ready()
    result_of(pod.side.stop(facts.id))
    folder = pod.folder(facts.id)
    for name in ("exit.1.json", "stop.json"):
        (folder / name).unlink()
    start = json.loads((pod.folder(stranger.id) / "run.json").read_text())["start"]
    edit(folder / "run.json", lambda run: run.update({"pid": stranger.pid, "start": start, field: value}))
    found = pod.facts(facts.id)
    assert not found.alive
    assert found.boot_changed == (field == "boot")
    assert state(found) is EndpointState.CRASHED
    result_of(pod.side.stop(facts.id))
    assert pod.facts(stranger.id).alive


class Foreign(http.server.BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self) -> None:
        Foreign.asked += 1
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"data": [{"id": "tiny-1"}]}')

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_stranger_on_the_port_is_never_ready_and_never_asked(pod: Bench, tmp_path: Path) -> None:
    gate, Foreign.asked = tmp_path / "gate", 0
    wait = Step("prepare", ("sh", "-c", f"until [ -e {gate} ]; do sleep 0.02; done"))
    facts = pod.serve("--deaf", steps=(wait,)).facts
    assert state(facts) is EndpointState.DOWNLOADING
    assert facts.port is not None
    with http.server.HTTPServer(("127.0.0.1", facts.port), Foreign) as stranger:
        threading.Thread(target=stranger.serve_forever, daemon=True).start()
        gate.touch()
        seen = [each for each in pod.side.watch(facts.id, 0.6) if each.step == "serve"]
        stranger.shutdown()
    assert all(each.socket_ours is False and state(each) is EndpointState.LOADING for each in seen)
    assert f"(pid {os.getpid()})" in seen[-1].socket_owner
    assert seen[-1].ready_at is None
    assert Foreign.asked == 0


def test_a_busy_port_that_was_asked_for_is_refused_by_name(pod: Bench) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), Foreign) as stranger:
        port = stranger.server_address[1]
        with pytest.raises(AlreadyExists, match=rf"port {port} is taken by .*\(pid {os.getpid()}\)"):
            pod.serve(port=port)
    first = pod.serve("--deaf", port=port).facts
    assert first.port == port
    with pytest.raises(AlreadyExists, match=f"port {port} belongs to endpoint tiny"):
        pod.serve("--deaf", port=port, name="other")


def test_another_model_on_the_port_is_not_ready(pod: Bench) -> None:
    facts = pod.ready()
    pod.tell(facts, "/name/other")
    sick = pod.facts(facts.id)
    assert classify(sick, lambda *_: Diagnosis(Cause.OTHER)) == (
        EndpointState.UNHEALTHY, None, "it serves other instead of tiny-1",
    )  # fmt: skip
    pod.tell(facts, "/name/tiny-1")
    pod.tell(facts, "/sick")
    assert state(pod.facts(facts.id)) is EndpointState.UNHEALTHY
    pod.tell(facts, "/well")
    assert state(pod.facts(facts.id)) is EndpointState.READY


def test_ignoring_term_ends_in_kill(pod: Bench) -> None:
    facts = pod.ready("--ignore-term")
    stopped = result_of(pod.side.stop(facts.id, grace_s=0.3))
    assert stopped.killed == (facts.pid,)
    assert state(stopped.facts) is EndpointState.STOPPED
    assert pod.processes_of(facts.id) == []


def test_a_grandchild_in_another_session_does_not_survive_a_stop(pod: Bench, tmp_path: Path) -> None:
    note = tmp_path / "stray"
    facts = pod.ready("--stray", str(note))
    stray = int(note.read_text())
    assert os.getsid(stray) == stray
    stopped = result_of(pod.side.stop(facts.id, grace_s=0.3))
    assert stray in stopped.killed
    assert not running(stray)


def test_strays_of_a_crash_are_seen_and_stopped(pod: Bench, tmp_path: Path) -> None:
    note = tmp_path / "stray"
    facts = pod.ready("--stray", str(note))
    stray = int(note.read_text())
    pod.tell(facts, "/exit/1")
    assert pod.until_ended(facts.id).strays == (stray,)
    with pytest.raises(SupervisorError, match="runs"):
        pod.side.remove(facts.id)
    result_of(pod.side.stop(facts.id, grace_s=0.1))
    assert not running(stray)
    assert state(pod.facts(facts.id)) is EndpointState.CRASHED
    pod.side.remove(facts.id)
    with pytest.raises(NotFound):
        pod.facts(facts.id)


def test_an_orphan_is_listed_and_can_be_stopped(pod: Bench, tmp_path: Path) -> None:
    facts = pod.ready()
    pod.folder(facts.id).rename(tmp_path / "gone")
    (orphan,) = pod.side.list()
    assert (state(orphan), orphan.id, orphan.strays) == (EndpointState.ORPHAN, facts.id, (facts.pid,))
    with pytest.raises(SupervisorError, match="without a record"):
        pod.serve(id=facts.id)
    stopped = result_of(pod.side.stop(facts.id))
    assert stopped.was_running
    assert pod.side.list() == ()
    with pytest.raises(NotFound):
        result_of(pod.side.stop(facts.id))


def test_a_torn_record_damages_only_its_own_endpoint(pod: Bench) -> None:
    torn, whole = pod.ready(), pod.ready(name="other")
    path = pod.folder(torn.id) / "run.json"
    path.write_text(path.read_text()[:40])
    found = {facts.id: facts for facts in pod.side.list()}
    assert state(found[whole.id]) is EndpointState.READY
    assert state(found[torn.id]) is EndpointState.ORPHAN
    assert found[torn.id].name == "tiny"
    result_of(pod.side.stop(torn.id))
    assert pod.processes_of(torn.id) == []
    assert state(pod.facts(torn.id)) is EndpointState.CRASHED
    pod.side.remove(torn.id)
    assert [facts.id for facts in pod.side.list()] == [whole.id]


def test_a_failed_step_ends_the_sequence_under_its_name(pod: Bench) -> None:
    bad = Step("download", ("sh", "-c", "echo no such model; exit 22"))
    ended = pod.until_ended(pod.serve(steps=(bad,)).facts.id)
    assert ended.exit is not None
    assert (ended.exit.step, ended.exit.status, ended.lines) == ("download", 22, ("no such model",))
    detail = classify(ended, lambda *_: Diagnosis(Cause.OTHER))[2]
    assert detail == "download ended with status 22: no such model"


def test_a_program_that_is_not_there_is_status_127(pod: Bench) -> None:
    ended = pod.until_ended(pod.serve(steps=(Step("prepare", ("/no/such/program",)),)).facts.id)
    assert ended.exit is not None
    assert (ended.exit.step, ended.exit.status) == ("prepare", 127)
    assert "No such file" in ended.exit.error
    assert ended.lines == ("podlab: /no/such/program: No such file or directory",)


def test_progress_of_a_download_shows(pod: Bench, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    said = json.dumps({"text": "tiny.gguf", "done": 1_500_000, "total": 3_000_000, "unit": "bytes"})
    script = f"echo '{said}' > {{dir}}/progress.json; until [ -e {gate} ]; do sleep 0.02; done"
    facts = pod.serve(steps=(Step("download", ("sh", "-c", script)),)).facts
    for seen in pod.side.watch(facts.id, 20.0):
        if seen.progress is not None:
            shown = classify(seen, lambda *_: Diagnosis(Cause.OTHER))
            assert shown == (EndpointState.DOWNLOADING, None, "tiny.gguf: 1.5 MB of 3.0 MB")
            gate.touch()
    assert state(seen) is EndpointState.READY
    assert seen.progress is None


def test_stopping_between_steps_starts_no_further_one(pod: Bench, tmp_path: Path) -> None:
    count = tmp_path / "count"
    wait = Step("prepare", ("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done"))
    facts = pod.serve("--count", str(count), steps=(wait,)).facts
    stopped = result_of(pod.side.stop(facts.id))
    assert state(stopped.facts) is EndpointState.STOPPED
    assert not count.exists()


def test_a_start_that_comes_after_its_cancel_is_refused(pod: Bench) -> None:
    """The stop overtook it: nothing is started under that id, however often it is asked; other ids are free."""
    one = str(uuid.uuid4())
    stopped = result_of(pod.side.stop(one, cancel=True))
    assert (stopped.was_running, stopped.killed) == (False, ())
    for _ in range(2):
        with pytest.raises(SupervisorError, match="cancelled"):
            pod.serve(id=one)
    assert pod.side.list() == () and pod.processes_of(one) == []
    with pytest.raises(NotFound):
        result_of(pod.side.stop(str(uuid.uuid4())))
    mark = pod.home / f".cancelled-{one}"
    os.utime(mark, (0, 0))
    other = pod.ready()
    assert not mark.exists(), "what is old is swept"
    result_of(pod.side.stop(other.id, cancel=True))
    assert state(pod.facts(other.id)) is EndpointState.STOPPED


def test_starts_and_cancels_at_once_leave_nothing(pod: Bench) -> None:
    """Whichever comes first: after both nothing runs."""
    ids = [str(uuid.uuid4()) for _ in range(4)]

    def start(one: str) -> None:
        with contextlib.suppress(SupervisorError):
            pod.serve(id=one, name=one[:8])

    with ThreadPoolExecutor(8) as pool:
        starting = [pool.submit(start, one) for one in ids]
        list(pool.map(lambda one: result_of(pod.side.stop(one, cancel=True)), ids))
        for each in starting:
            each.result()
    assert [facts.id for facts in pod.side.list() if not facts.ended] == []
    assert [pod.processes_of(one) for one in ids] == [[]] * 4


def test_a_restart_that_could_not_start_again_stops_nothing(pod: Bench, tmp_path: Path) -> None:
    """The port it was wished on went to somebody else before its server took it: what runs goes on."""
    gate = tmp_path / "gate"
    wait = Step("prepare", ("sh", "-c", f"until [ -e {gate} ]; do sleep 0.02; done"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    facts = pod.serve(port=port, steps=(wait,)).facts
    with socket.create_server(("127.0.0.1", port)), pytest.raises(AlreadyExists, match=str(port)):
        result_of(pod.side.restart(facts.id, 1))
    after = pod.facts(facts.id)
    assert (after.generation, after.alive, after.stop_at) == (1, True, None)
    gate.touch()
    assert pod.until_ready(facts.id).pid is not None
    result_of(pod.side.restart(facts.id, 1))  # its own server on that port is no hindrance
    assert pod.until_ready(facts.id).port == port


def test_restart_is_the_next_generation_on_the_same_port_and_happens_once(pod: Bench) -> None:
    first = pod.ready()
    again = result_of(pod.side.restart(first.id, 1))
    assert (again.existed, again.facts.generation, again.facts.port) == (False, 2, first.port)
    second = pod.until_ready(first.id)
    assert second.pid != first.pid
    assert second.name == first.name
    assert result_of(pod.side.restart(first.id, 1)).existed
    assert pod.facts(first.id).pid == second.pid
    assert pod.processes_of(first.id) == [second.pid]


def test_only_the_newest_ended_are_kept(pod: Bench) -> None:
    first = pod.job("true").id
    pod.until_ended(first)
    top, kept = pod.folder(first).parent, pod.folder(first)
    for number in range(25):
        shutil.copytree(kept, top / f"copy-{number:02}")
        edit(top / f"copy-{number:02}" / "run.json", lambda run, at=1000 + number: run.update(created_at=at))  # type: ignore[misc]
    alive = pod.job("exec sleep 60").id
    names = {folder.name for folder in top.iterdir()}
    assert len(names) == 20
    assert {alive, first, "copy-24"} <= names
    assert "copy-05" not in names


def test_requests_that_make_no_sense_are_refused(pod: Bench) -> None:
    run = (Step("run", ("true",)),)
    for bad_id, name in (("../../x", "a"), ("a/b", "a"), ("x\n", "a"), ("ok", "a b"), ("ok", "-x"), ("ok", "")):
        with pytest.raises(BadArgument):
            pod.side.start(id=bad_id, name=name, kind="job", steps=run)
    with pytest.raises(BadArgument, match="file"):
        pod.side.start(id="ok", name="a", kind="job", steps=run, files={"../x": ""})
    with pytest.raises(BadArgument, match="file"):
        pod.side.start(id="ok", name="a", kind="job", steps=run, files={"run.json": ""})
    with pytest.raises(BadArgument, match="outside"):
        pod.serve(cwd="/etc")
    with pytest.raises(NotFound):
        pod.side.status(["nobody"])
