"""When the switch says that it is armed, and whose certificates it believes."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import ssl
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import certifi
import pytest

from podlab.remote.provider_api import Api
from podlab.remote.roots import ROOTS
from podlab.renting import Policy
from tests.processes import wait_until
from tests.remote.company import KEY, POD, Company
from tests.remote.rented import FAST, WAIT_S, Rent, armed_line

# ------------------------------------------------------------------------------------------------ armed, or why not


def test_it_says_armed_with_what_it_will_do(rent: Rent, company: Company, python: str) -> None:
    pod = rent(Policy(deadline_at=time.time() + 5000, budget_usd=2.0, idle_s=1200.0, lease_s=700.0), python=python)
    pod.start()
    pod.until_said("podlab: armed")

    told = armed_line(pod)

    assert told["launch"] == pod.launch.id
    assert told["serial"] == -1
    assert (told["lease_s"], told["idle_s"], told["budget_usd"], told["usd_per_hour"]) == (700.0, 1200.0, 2.0, 1.0)
    assert 4000 < told["deadline_left_s"] <= 5001
    assert 500 < told["lease_left_s"] <= 600
    assert company.asked == ["look"]
    said = pod.beat()
    assert said.armed and said.policy_serial == 0 and said.detail == ""


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (401, "HTTP 401"), (403, "HTTP 403"), (404, "HTTP 404"), (500, "HTTP 500"), ("html", "no JSON"),
        ("huge", "no JSON"), ("other", "another one was shown"), ("locked", "locked"), ("hang", "did not end in time"),
        ("drip", "did not end in time"),
    ],
)  # fmt: skip
def test_it_is_not_armed_before_the_provider_accepts_it_and_tries_again(
    rent: Rent, company: Company, answer: int | str, why: str
) -> None:
    company.answers["look"] = answer
    pod = rent(pace=replace(FAST, request_s=1.0))
    pod.start()
    pod.until_said("podlab: not armed: ")
    assert any(why in line for line in pod.said()), pod.said()
    assert not pod.beat().armed
    assert why in pod.tell().detail
    assert not any("podlab: armed" in line for line in pod.said())

    del company.answers["look"]

    pod.until_said("podlab: armed")
    assert pod.tell().armed


@pytest.mark.parametrize(
    ("env", "why"),
    [
        ({"RUNPOD_API_KEY": ""}, "no RUNPOD_API_KEY"), ({"RUNPOD_POD_ID": ""}, "no RUNPOD_POD_ID"),
        ({"RUNPOD_POD_ID": "../x"}, "no RUNPOD_POD_ID"), ({"RUNPOD_API_KEY": "a\nb"}, "no RUNPOD_API_KEY"),
        ({"RUNPOD_API_BASE_URL": "http://10.0.0.1"}, "not https"), ({"RUNPOD_API_BASE_URL": "ftp://x"}, "no address"),
    ],
)  # fmt: skip
def test_it_is_not_armed_without_what_it_needs(rent: Rent, env: dict[str, str], why: str) -> None:
    pod = rent(Policy(lease_s=1.0), env=env, pace=replace(FAST, grace_s=3.0))
    pod.start()

    pod.until_said("podlab: not armed: ")
    pod.until_said("cannot end this pod, it has to be ended from outside", 2)

    assert any(why in line for line in pod.said() if "not armed" in line), pod.said()


def test_a_key_that_is_revoked_disarms_it_and_a_provider_that_is_silent_for_a_while_does_not(
    rent: Rent, company: Company
) -> None:
    pod = rent(pace=replace(FAST, check_s=0.5))
    pod.start()
    pod.until_said("podlab: armed")
    company.answers["look"] = 503
    wait_until(lambda: "HTTP 503" in pod.tell().detail, timeout_s=WAIT_S, why=str(pod.said()))

    wait_until(lambda: not pod.tell().armed, timeout_s=WAIT_S, why="silent for more than three checks")
    company.answers["look"] = 200
    pod.until_said("podlab: armed", 2)
    company.answers["look"] = 401
    pod.until_said("podlab: not armed: HTTP 401")


def test_an_image_without_python_says_so_and_its_sshd_starts(rent: Rent) -> None:
    pod = rent(python=None)
    pod.start()

    pod.until_said("sshd begins")

    assert "podlab: not armed: no python3 with zlib in this image" in pod.said()


def test_the_base_address_may_end_with_the_version(rent: Rent, company: Company) -> None:
    pod = rent(env={"RUNPOD_API_BASE_URL": company.url + "/v2/"})
    pod.start()

    pod.until_said("podlab: armed")


def test_the_key_is_nowhere_in_the_log_nor_on_a_command_line(rent: Rent, company: Company) -> None:
    company.answers = dict.fromkeys(("look", "terminate", "delete", "stop"), 403)  # which repeats the key
    pod = rent(Policy(lease_s=1.0), pace=replace(FAST, grace_s=1.0))
    pod.start()
    pod.until_said("podlab: stop")

    assert KEY not in pod.log.read_text()
    assert "\x1b" not in pod.log.read_text()
    for pid in pod.pids():
        with contextlib.suppress(OSError):
            assert KEY.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert not any(KEY in str(file.read_bytes()) for file in pod.home.rglob("*.json"))


# ------------------------------------------------------------------------------------------------ certificates


def self_signed(folder: Path, name: str) -> tuple[str, str]:
    """A certificate for a name that signs itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("install openssl")
    certificate, key = str(folder / "cert.pem"), str(folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
               "-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-addext",
               "basicConstraints=critical,CA:TRUE", "-keyout", key, "-out", certificate]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


@pytest.fixture
def authority(tmp_path: Path) -> tuple[str, str]:
    """A certificate for localhost that signs itself, and its key."""
    return self_signed(tmp_path, "localhost")


def test_a_provider_whose_certificate_nobody_signed_is_not_trusted(rent: Rent, authority: tuple[str, str]) -> None:
    with Company(authority) as company:
        pod = rent(company=company)
        pod.start()
        pod.until_said("podlab: not armed")

        assert any("CERTIFICATE_VERIFY_FAILED" in line for line in pod.said())
        assert company.asked == []


def test_a_system_with_an_authority_of_its_own_is_asked_first(rent: Rent, authority: tuple[str, str]) -> None:
    with Company(authority) as company:
        pod = rent(company=company, env={"SSL_CERT_FILE": authority[0]})
        pod.start()

        pod.until_said("podlab: armed")


ASK = """
import base64, json, os, ssl, sys
sys.path.insert(0, sys.argv[1])
from podlab.remote import provider_api, roots
own = base64.b64encode(ssl.PEM_cert_to_DER_cert(open(sys.argv[2]).read())).decode()
print(len(provider_api.context_with(roots.ROOTS).get_ca_certs()))
print(json.dumps(provider_api.Api(os.environ, own + "\\n\\n" + roots.ROOTS).look()))
print(json.dumps(provider_api.Api(os.environ, roots.ROOTS).look()))
"""


def test_where_the_system_has_no_authorities_those_sent_along_are_used(
    authority: tuple[str, str], python: str, tmp_path: Path
) -> None:
    """One that was sent along opens the connection; without it the same system refuses it."""
    root = Path(__file__).parents[2]
    with Company(authority) as company:
        env = {"PATH": "/usr/bin:/bin", "SSL_CERT_FILE": "/nowhere", "SSL_CERT_DIR": "/nowhere",
               "RUNPOD_POD_ID": POD, "RUNPOD_API_KEY": KEY, "RUNPOD_API_BASE_URL": company.url}  # fmt: skip
        done = subprocess.run(
            [python, "-c", ASK, str(root), authority[0]], env=env, capture_output=True, text=True, check=True
        )
    count, with_it, without = done.stdout.splitlines()
    assert int(count) >= 15
    assert json.loads(with_it)["status"] == 200
    assert json.loads(without)["status"] == 0
    assert "CERTIFICATE_VERIFY_FAILED" in json.loads(without)["detail"]


def test_without_an_address_in_its_environment_it_asks_the_company_itself() -> None:
    api = Api({"RUNPOD_POD_ID": POD, "RUNPOD_API_KEY": KEY}, "")

    assert api.base == "https://api.runpod.io"
    assert api.problem == ""


def test_a_name_that_cannot_be_looked_up_any_more_is_reached_where_it_answered_last(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path, "podlab-company.invalid")
    own = base64.b64encode(ssl.PEM_cert_to_DER_cert(Path(certificate[0]).read_text())).decode()
    with Company(certificate) as company:
        env = {"RUNPOD_POD_ID": POD, "RUNPOD_API_KEY": KEY,
               "RUNPOD_API_BASE_URL": f"https://podlab-company.invalid:{company.port}"}  # fmt: skip
        api = Api(env, own)
        assert "gaierror" in api.look()["detail"]

        api.known_address = "127.0.0.1"
        assert api.act("terminate")["status"] == 200
        assert company.ended_by == "terminate"

        stranger = Api(dict(env, RUNPOD_API_BASE_URL=env["RUNPOD_API_BASE_URL"].replace("company", "other")), own)
        stranger.known_address = "127.0.0.1"
        assert "CERTIFICATE_VERIFY_FAILED" in stranger.look()["detail"]


def test_the_authorities_sent_along_are_among_those_of_certifi_and_in_date() -> None:
    bundle = ssl.create_default_context(cafile=certifi.where()).get_ca_certs(binary_form=True)
    for text in ROOTS.split("\n\n"):
        assert base64.b64decode(text) in bundle, "run scripts/make-roots"
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    own.load_verify_locations(cadata=b"".join(base64.b64decode(text) for text in ROOTS.split("\n\n")))
    for each in own.get_ca_certs():
        assert ssl.cert_time_to_seconds(str(each["notAfter"])) > time.time() + 86400 * 365
