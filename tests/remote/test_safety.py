"""What must not leak, not be followed and not be left: secrets, file modes, links, zombies."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from podlab.errors import BadArgument, SupervisorError
from podlab.lab.supervisor import result_of
from podlab.types import Step
from tests.remote.bench import KEY, Bench, processes_with

TOKEN = "hf_canary_of_the_download"
RENTAL = "rpa_canary_of_the_rental_company"


@contextlib.contextmanager
def scanning(*canaries: str) -> Iterator[dict[tuple[str, str], set[int]]]:
    """Look at all processes over and over: (file of /proc, canary) -> pids that showed it, this process left out."""
    found: dict[tuple[str, str], set[int]] = {
        (file, each): set() for file in ("cmdline", "environ") for each in canaries
    }
    over = threading.Event()

    def scan() -> None:
        while not over.wait(0.02):
            for (file, canary), pids in found.items():
                pids.update(processes_with(canary.encode(), file))

    thread = threading.Thread(target=scan)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def test_secrets_are_in_no_argv_and_only_in_the_environment_that_needs_them(
    pod: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("RUNPOD_API_KEY", "NVIDIA_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, RENTAL)
    note, gate = tmp_path / "note", tmp_path / "gate"
    script = f'echo "$$ $HF_TOKEN" > {note}; until [ -e {gate} ]; do sleep 0.02; done'
    download = Step("download", ("sh", "-c", script))
    with scanning(KEY, TOKEN, RENTAL) as found:
        one = str(uuid.uuid4())
        pod.serve("--key-env", "SERVER_KEY", id=one, steps=(download,), secrets={"download": {"HF_TOKEN": TOKEN}})
        while not found["environ", TOKEN] or not note.exists():
            pod.facts(one)
        gate.touch()
        facts = pod.until_ready(one)
        assert pod.monitor_of(one) not in processes_with(RENTAL.encode(), "environ")
    downloader, token = note.read_text().split()
    assert token == TOKEN
    for canary in (KEY, TOKEN, RENTAL):
        assert found["cmdline", canary] == set()
    assert int(downloader) in found["environ", TOKEN]
    assert facts.pid in found["environ", KEY]
    assert facts.pid not in found["environ", TOKEN] | found["environ", RENTAL]
    assert found["environ", KEY] == {facts.pid}
    for path in pod.home.rglob("*"):  # the token is nowhere on disk, the key in its own file alone
        data = path.read_bytes() if path.is_file() else b""
        assert TOKEN.encode() not in data
        assert RENTAL.encode() not in data
        assert KEY.encode() not in data or path.name == "key"


def test_a_restart_asks_for_the_secrets_again(pod: Bench) -> None:
    fetch = Step("download", ("sh", "-c", f"test ${{#HF_TOKEN}} -eq {len(TOKEN)}"))
    secrets = {"download": {"HF_TOKEN": TOKEN}}
    facts = pod.ready(steps=(fetch,), secrets=secrets)
    with pytest.raises(BadArgument, match="HF_TOKEN again"):
        result_of(pod.side.restart(facts.id, 1))
    result_of(pod.side.restart(facts.id, 1, secrets=secrets))
    assert pod.until_ready(facts.id).generation == 2


def test_a_secret_in_an_argv_is_refused(pod: Bench) -> None:
    with pytest.raises(BadArgument, match="argv"):
        pod.serve("--api-key", KEY)
    with pytest.raises(BadArgument, match="secret"):
        pod.serve("--token", TOKEN, secrets={"serve": {"HF_TOKEN": TOKEN}})


def test_a_job_gets_the_users_environment_without_the_rental_key(pod: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", RENTAL)
    monkeypatch.setenv("MY_OWN_TOKEN", "mine")
    before = os.umask(0o027)
    facts = pod.job('echo "$MY_OWN_TOKEN,$RUNPOD_API_KEY,$PODLAB_ENDPOINT,$PWD"; umask')
    os.umask(before)
    pod.until_ended(facts.id)
    words, umask = pod.side.tail(facts.id, "stdout").piece.data.decode().split()
    assert words == f"mine,,{facts.id},{os.environ['HOME']}"
    assert umask == "0027"


def test_nothing_is_open_to_others_under_umask_000(pod: Bench) -> None:
    before = os.umask(0)
    try:
        facts = pod.ready()
        job = pod.job("echo hello", files={"script.sh": "x"})
        pod.until_ended(job.id)
        result_of(pod.side.stop(facts.id))
    finally:
        os.umask(before)
    for path in (pod.home, *pod.home.rglob("*")):
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
    assert not [path for path in pod.home.rglob("*") if path.name.endswith(".part")]


def test_a_home_that_is_open_is_closed_and_a_link_is_refused(pod: Bench, tmp_path: Path) -> None:
    pod.home.mkdir(mode=0o755)
    pod.until_ended(pod.job("true").id)
    assert stat.S_IMODE(pod.home.stat().st_mode) == 0o700
    (pod.home / "endpoints").rmdir()
    (tmp_path / "elsewhere").mkdir()
    (pod.home / "endpoints").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SupervisorError, match="is not a folder"):
        pod.serve()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_planted_links_and_pipes_are_not_read(pod: Bench, tmp_path: Path) -> None:
    job = pod.until_ended(pod.job("echo hello").id)
    out = pod.folder(job.id) / "stdout.1"
    out.unlink()
    out.symlink_to("/etc/hostname")
    with pytest.raises(SupervisorError):
        pod.side.tail(job.id, "stdout")
    out.unlink()
    os.mkfifo(out)
    with pytest.raises(SupervisorError, match="not a regular file"):
        pod.side.tail(job.id, "stdout")
    run = pod.folder(job.id) / "run.json"
    run.unlink()
    os.mkfifo(run)  # reading it would wait for ever
    assert "not a regular file" in pod.side.jobs()[0].damaged


def test_steps_that_ended_leave_no_zombie(pod: Bench) -> None:
    facts = pod.ready(steps=(Step("prepare", ("true",)), Step("download", ("sh", "-c", "sleep 0 & true"))))
    monitor = pod.monitor_of(facts.id)
    children = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1] == str(monitor):
                children.append(int(name))
    assert children == [facts.pid]


def test_garbage_in_a_record_is_reported_not_raised(pod: Bench) -> None:
    ids = [pod.until_ended(pod.job("true").id).id for _ in range(4)]
    garbage = (b"[]", b"\xff\xfe", b'{"generation": 1, "boot": "x", "monitor": {}, "created_at": 1, "gpus": 5}',
               b'{"generation": {}, "boot": 1}')  # fmt: skip
    for one, data in zip(ids, garbage, strict=True):
        (pod.folder(one) / "run.json").write_bytes(data)
    assert len(pod.side.jobs()) == 4
    assert all(facts.damaged or facts.boot_changed for facts in pod.side.jobs())
