"""What a rented pod runs first, and what is heard of it."""

from __future__ import annotations

import base64
import json
import shlex
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from podlab.errors import BadArgument, HostKeyChanged
from podlab.lab import heartbeat
from podlab.lab.start_command import LIMIT_BYTES, Heard, Pace, heard, start_command
from podlab.lab.talk import program
from podlab.renting import Policy, RentalLine
from podlab.transport.host_keys import HostKeys
from podlab.transport.ssh import SshTransport
from podlab.types import SshAddress
from tests import machines
from tests.processes import wait_until
from tests.remote.company import Company
from tests.remote.rented import FAST, LONG, WAIT_S, Rented

PRINT_A, PRINT_B = "SHA256:" + "a" * 43, "SHA256:" + "b" * 43


def line(text: str, at: float | None = 100.0, source: str = "container") -> RentalLine:
    return RentalLine("1", at, source, text)  # type: ignore[arg-type]


def test_it_is_one_word_for_sh_that_every_way_of_splitting_words_gives_back() -> None:
    told = start_command("abc123", Policy(), now=time.time(), usd_per_hour=0.5)

    assert told.argv[:2] == ("sh", "-c")
    assert len(told.argv) == 3
    assert len(told.argv[2]) < LIMIT_BYTES
    assert not set(told.argv[2]) & set("'\\\n\r\0")
    assert told.argv[2].isascii()
    assert tuple(shlex.split(shlex.join(told.argv))) == told.argv


def test_it_carries_the_policy_as_seconds_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_the-owners-own-key")
    policy = Policy(deadline_at=5000.0, budget_usd=3.0, idle_s=60.0, lease_s=300.0)
    told = start_command("abc123", policy, now=2000.0, usd_per_hour=0.5, pace=Pace(grace_s=99.0))

    (config,) = (
        json.loads(base64.b64decode(word.rstrip(";")))
        for word in told.argv[2].split()
        if word.startswith(base64.b64encode(b'{"la').decode()[:5])
    )
    assert config == {
        "launch": "abc123", "pace": {"grace_s": 99.0},
        "policy": {"lease_s": 300.0, "idle_s": 60.0, "budget_usd": 3.0, "deadline_left_s": 3000.0, "usd_per_hour": 0.5},
    }  # fmt: skip
    assert told.env == {"PODLAB_LAUNCH": "abc123"}
    assert "rpa_the" not in told.argv[2]


@pytest.mark.parametrize("launch", ["", "a b", "$(x)", "a'b", "-x", "x" * 65])
def test_a_name_that_is_no_launch_is_refused(launch: str) -> None:
    with pytest.raises(BadArgument):
        start_command(launch, Policy(), now=0.0, usd_per_hour=1.0)


@pytest.mark.parametrize(
    "policy",
    [Policy(lease_s=0.5), Policy(idle_s=0.0), Policy(budget_usd=-1.0), Policy(deadline_at=1e18),
     Policy(lease_s=float("nan")), Policy(budget_usd=float("inf"))],
)  # fmt: skip
def test_a_policy_that_the_switch_would_not_take_is_refused_here(policy: Policy) -> None:
    with pytest.raises(BadArgument):
        start_command("abc123", policy, now=0.0, usd_per_hour=1.0)


def test_what_is_for_readers_only_is_left_out_and_every_line_keeps_its_number() -> None:
    whole, bare = (program("switch_rules", "machine", bare=each) for each in (False, True))

    assert len(bare) < len(whole) * 0.8
    assert "# ----" in whole and "# ----" not in bare
    compile(bare, "bare", "exec")
    assert bare.count("\\n") == whole.count("\\n")


# ------------------------------------------------------------------------------------------------ what is heard


def test_of_each_type_the_first_key_counts_and_nothing_that_is_written_later() -> None:
    said = heard(
        [line("booting"), line(f"podlab: host key ssh-ed25519 {PRINT_A}"), line(f"podlab: host key ssh-rsa {PRINT_A}"),
         line(f"podlab: host key ssh-ed25519 {PRINT_B}"), line(f"podlab: host key ssh-ed25519 {PRINT_A}")]
    )  # fmt: skip

    assert said.fingerprints == (PRINT_A, PRINT_A)
    assert said.armed is None


def test_a_key_of_a_type_that_the_start_command_never_makes_does_not_count() -> None:
    said = heard([line(f"podlab: host key ssh-ed25519 {PRINT_A}"),
                  *(line(f"podlab: host key ecdsa-sha2-nistp{bits} {PRINT_B}") for bits in (384, 521))])  # fmt: skip

    assert said.fingerprints == (PRINT_A,)


def test_no_key_counts_that_is_told_once_all_are_told_until_the_next_start() -> None:
    lines = [
        line(f"podlab: host key ssh-ed25519 {PRINT_A}", at=99.0), line("podlab: host keys are told", at=99.0),
        line(f"podlab: host key ssh-rsa {PRINT_B}", at=99.5), line('podlab: armed {"serial": -1}', at=101.0),
        line(f"podlab: host key ecdsa-sha2-nistp256 {PRINT_A}", at=102.0), line("podlab: host keys are told", at=102.0),
        line(f"podlab: host key ssh-ed25519 {PRINT_B}", at=103.0),
    ]  # fmt: skip

    assert heard(lines).fingerprints == (PRINT_A,)
    assert heard(lines, since=100.0).fingerprints == (PRINT_A,)
    assert heard(lines[:4]).fingerprints == (PRINT_A,)


def test_lines_of_an_earlier_start_and_of_the_machine_do_not_count() -> None:
    lines = [
        line(f"podlab: host key ssh-ed25519 {PRINT_A}", at=99.0),
        line(f"podlab: host key ssh-ed25519 {PRINT_A}", source="system"),
        line(f"podlab: host key ssh-ed25519 {PRINT_B}", at=101.0),
    ]

    assert heard(lines, since=100.0).fingerprints == (PRINT_B,)


@pytest.mark.parametrize(
    "text",
    [
        "podlab: host key ssh-ed25519 SHA256:short", f"podlab: host key ssh-dss {PRINT_A}",
        f"x podlab: host key ssh-ed25519 {PRINT_A}", f"podlab: host key ssh-ed25519 {PRINT_A} and more",
        "podlab: host key", "podlab: armed", "podlab: armed maybe", "\0" * 100_000, "",
    ],
)  # fmt: skip
def test_what_is_not_understood_says_nothing(text: str) -> None:
    assert heard([line(text)]) == Heard()


def test_the_last_word_on_being_armed_counts_and_is_plain_text() -> None:
    lines = [line("podlab: not armed: HTTP 401: \x1b[31mno" + "x" * 9000)]

    assert heard(lines).armed is False
    assert heard(lines).detail.startswith("HTTP 401:  [31mno")
    assert len(heard(lines).detail) <= 300
    assert heard([*lines, line('podlab: armed {"serial": -1}')]) == Heard((), True, "")


def test_a_log_without_an_end_is_read_up_to_a_size() -> None:
    def endless() -> Iterator[RentalLine]:
        while True:
            yield line("x")

    assert heard(endless()) == Heard()


# ------------------------------------------------------------------------------------------------ run by real shells


@pytest.fixture
def company() -> Iterator[Company]:
    with Company() as made:
        yield made


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_it_runs_in_every_shell(own_home: Path, company: Company, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    pod = Rented(own_home, company, LONG)
    if shell == "busybox":
        pod.argv = (shutil.which("busybox") or "", "sh", *pod.argv[1:])
    else:
        pod.argv = (shutil.which(shell) or "", *pod.argv[1:])
    try:
        machines.make_key(pod.keys / "ssh_host_ed25519_key")
        pod.start()
        pod.until_said("podlab: armed")
        pod.until_said("sshd begins")
        pod.until_said("podlab: host key ssh-ed25519 SHA256:", 2)  # the start command, and the switch
        said = heard(line(text) for text in pod.said())
        assert len(said.fingerprints) == 1
        assert said.armed
    finally:
        pod.kill()


@pytest.mark.parametrize("shell", ["dash", "bash"])
@pytest.mark.parametrize("hole", ["no folder", "no mark"])
def test_where_nothing_can_be_written_among_the_host_keys_the_switch_and_the_image_start_all_the_same(
    own_home: Path, company: Company, shell: str, hole: str
) -> None:
    if shutil.which(shell) is None or shutil.which("ssh-keygen") is None:
        pytest.skip(f"no {shell} or no ssh-keygen here")
    pod = Rented(own_home, company, LONG, shell=shell)
    if shell == "bash":  # as it is where it is the sh: a failed redirection of `:` ends it
        pod.argv = (pod.argv[0], "--posix", *pod.argv[1:])
    del pod.env["PODLAB_SIMULATED"]
    if hole == "no folder":  # root cannot make one where a file is
        pod.keys.rmdir()
        pod.keys.write_text("")
    else:
        (pod.keys / ".podlab").mkdir()
    try:
        pod.start()
        assert pod.process is not None
        pod.until_said("podlab: armed")
        pod.until_said("sshd begins")
        assert pod.process.poll() is None
    finally:
        pod.kill()


def test_keys_of_an_image_that_cannot_be_removed_are_not_vouched_for(own_home: Path, company: Company) -> None:
    """Whoever has the image has them: another machine could show them. The pod is started, and asked about."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("no ssh-keygen here")
    pod = Rented(own_home, company, LONG)
    del pod.env["PODLAB_SIMULATED"]
    machines.make_key(pod.keys / "ssh_host_ed25519_key")
    tools = own_home / "tools"
    tools.mkdir()
    (tools / "rm").write_text("#!/bin/sh\nexit 1\n")  # root can remove anything, so it is hindered like this
    (tools / "rm").chmod(0o755)
    pod.env["PATH"] = f"{tools}:{pod.env['PATH']}"
    try:
        pod.start()
        pod.until_said("podlab: armed")
        pod.until_said("sshd begins")
        pod.until_said("podlab: the host keys are those of the image")
        pod.beat()
        assert heard(line(text) for text in pod.said()).fingerprints == ()
    finally:
        pod.kill()


def test_an_image_with_a_start_of_its_own_is_started_by_it_behind_the_switch(own_home: Path, company: Company) -> None:
    pod = Rented(own_home, company, LONG)
    start = own_home / "image-start"
    start.write_text("#!/bin/sh\necho the image begins as $$\nexec sleep 900\n")
    start.chmod(0o755)
    try:
        pod.start()
        assert pod.process is not None
        pod.until_said(f"the image begins as {pod.process.pid}")
        pod.until_said("podlab: armed")
        assert "sshd begins" not in pod.said()
    finally:
        pod.kill()


@pytest.fixture
def real(own_home: Path, company: Company) -> Iterator[tuple[Rented, SshAddress]]:
    """A pod whose image has a real sshd, and no keys yet."""
    if machines.SSHD is None:
        pytest.skip(machines.WHY_SKIPPED)
    pod, port = Rented(own_home, company, LONG), machines.free_port()
    config = own_home / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {pod.keys}/ssh_host_ed25519_key\nPidFile none\n"
        f"AuthorizedKeysFile {own_home}/.ssh/authorized_keys\nStrictModes no\nUsePAM no\n"
    )
    (pod.programs / "sshd").write_text(f'#!/bin/sh\nexec {machines.SSHD} -f {config} "$@"\n')
    identity = machines.make_key(own_home / "id_podlab")
    pod.env["PUBLIC_KEY"] = identity.with_suffix(".pub").read_text().strip() + "\nssh-ed25519 AAAA another"
    del pod.env["PODLAB_SIMULATED"]
    (pod.keys / "ssh_host_ed25519_key").write_text("a private key that everybody has")
    yield pod, SshAddress("127.0.0.1", "root", port, (str(identity),))
    pod.kill()


def answers(address: SshAddress) -> bool:
    try:
        with socket.create_connection((address.host, address.port or 22), 1.0):
            return True
    except OSError:
        return False


def test_the_first_login_is_checked_against_the_log_and_its_word_reaches_the_switch(
    real: tuple[Rented, SshAddress],
) -> None:
    pod, address = real
    pod.start()
    wait_until(lambda: answers(address), timeout_s=WAIT_S, why="sshd answers")
    said = heard(line(text) for text in pod.said())
    end = pod.said().index("podlab: host keys are told")
    assert len(heard(line(text) for text in pod.said()[: end + 1]).fingerprints) == 3
    assert len(said.fingerprints) == 3  # told before sshd listened, one of each type
    shown = machines.subprocess.run(["ssh-keygen", "-lf", str(pod.keys / "ssh_host_ed25519_key.pub")],
                                    capture_output=True, text=True, check=True).stdout.split()[1]  # fmt: skip
    assert shown in said.fingerprints

    with SshTransport("pod", address, HostKeys(), pod_id=pod.launch.id, expected_host_key=shown) as transport:
        wait_until(lambda: heartbeat.beat(transport, pod.launch, now=time.time()).armed, timeout_s=WAIT_S,
                   why=str(pod.said()))  # fmt: skip
        told = heartbeat.beat(transport, pod.launch, now=time.time())
        assert told.armed
        assert heartbeat.difference(told, pod.launch, now=time.time()) == ""

    other = HostKeys(pod.home / "other")
    with SshTransport("pod", address, other, pod_id="x", expected_host_key=PRINT_B) as transport:
        with pytest.raises(HostKeyChanged):
            heartbeat.beat(transport, pod.launch, now=time.time())


def test_a_password_is_never_asked_for_and_each_key_is_authorised_once(real: tuple[Rented, SshAddress]) -> None:
    pod, address = real
    pod.start()
    wait_until(lambda: answers(address), timeout_s=WAIT_S, why="sshd answers")

    authorised = (pod.home / ".ssh" / "authorized_keys").read_text().splitlines()
    assert len(authorised) == 2
    done = machines.subprocess.run(
        ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "PubkeyAuthentication=no", "-o",
         "UserKnownHostsFile=/dev/null", "-p", str(address.port), "root@127.0.0.1", "true"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 255
    assert "Permission denied (publickey)" in done.stderr


def test_a_restarted_container_keeps_the_keys_it_made(real: tuple[Rented, SshAddress]) -> None:
    pod, address = real
    pod.start()
    wait_until(lambda: answers(address), timeout_s=WAIT_S, why="sshd answers")
    public = (pod.keys / "ssh_host_ed25519_key.pub").read_bytes()
    pod.kill()

    pod.start()
    wait_until(lambda: answers(address), timeout_s=WAIT_S, why="sshd answers again")

    assert (pod.keys / "ssh_host_ed25519_key.pub").read_bytes() == public


# ------------------------------------------------------------------------------------------------ comparing


def test_a_policy_on_the_pod_that_is_not_the_ledgers_is_seen(own_home: Path, company: Company) -> None:
    pod = Rented(own_home, company, LONG, pace=FAST)
    try:
        pod.start()
        pod.until_said("podlab: armed")
        now = time.time()
        first = replace(pod.launch, policy=Policy(now + 500, 4.0, 60.0, 700.0), policy_serial=2)
        pod.launch = first
        assert heartbeat.difference(pod.beat(), first, now=now) == ""

        pod.launch = replace(first, policy=Policy(now + 5000, 4.0, 60.0, 700.0), policy_serial=3)
        pod.beat()
        pod.launch = first  # somebody else's newer policy is there
        said = pod.beat()
        assert "the pod keeps policy 3, the ledger has 2" in heartbeat.difference(said, first, now=now)
        for policy, words in (
            (Policy(now + 5000, 4.0, 99.0, 700.0), "when idle"), (Policy(now + 5000, 5.0, 60.0, 700.0), "USD"),
            (Policy(now + 9000, 4.0, 60.0, 700.0), "deadline is in"),
            (Policy(None, 4.0, 60.0, 700.0), "the ledger none"),
            (Policy(now + 5000, 4.0, 60.0, 800.0), "without word"),
        ):  # fmt: skip
            assert words in heartbeat.difference(said, replace(first, policy=policy, policy_serial=3), now=now)
    finally:
        pod.kill()


def test_a_pod_without_a_switch_answers_that_it_has_none(own_home: Path, company: Company) -> None:
    pod = Rented(own_home, company, LONG)

    said = pod.beat()

    assert not said.armed
    assert not said.has_switch
    assert heartbeat.difference(said, pod.launch, now=time.time()) == "there is no switch on the pod"
