"""RunPod's JSON read into values, and orders made into bodies that its API takes."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from podlab import secrets
from podlab.errors import BadArgument, BadOrder
from podlab.lab.candidates import matching
from podlab.providers import runpod_order, runpod_wire
from podlab.renting import BILLING, Account, OfferQuery, Order, RentalState
from podlab.sandbox.catalogue import GPU_KINDS
from podlab.secrets import Secret

POD: dict[str, Any] = {
    "id": "7h9k2m4n6p", "name": "lab-1a2b", "image": "an/image:tag", "args": "", "disk": 50,
    "ports": ["8888/http", "22/tcp", "19123/http"], "env": {"A": "b"}, "registry": None, "status": "RUNNING",
    "actions": ["stop", "restart", "terminate"], "mounts": {"persistent": {"size": 20, "path": "/workspace"}},
    "gpu": {"id": "NVIDIA GeForce RTX 4090", "count": 2}, "cloud": "SECURE", "dataCenterId": "US-KS-2",
    "cudaVersion": "12.8", "cost": 0.88, "locked": True, "globalNetworking": {"enabled": False}, "template": None,
    "ssh": {
        "proxy": {"host": "ssh.runpod.io", "port": 22, "username": "7h9k2m4n6p-64411eb2", "command": "ssh ..."},
        "direct": {"host": "195.26.233.3", "port": 34446, "username": "root", "command": "ssh ..."},
    },
    "runtime": {"uptime": 3600, "ports": [{"private": 22, "public": 34446, "type": "tcp", "ip": "195.26.233.3"}]},
    "createdAt": "2026-06-01T12:00:00Z", "startedAt": "2026-06-01T12:02:00.123456789Z",
}  # fmt: skip
ORDER = Order("lab-1a2b", "NVIDIA A40", 1, "secure", image="an/image:tag")


def read(pod: dict[str, Any]) -> Any:
    return runpod_wire.rental(pod, runpod_wire.runpod_proxy)


def test_a_pod_is_read_whole() -> None:
    found = read(POD)

    assert (found.id, found.name, found.state, found.said) == ("7h9k2m4n6p", "lab-1a2b", RentalState.RUNNING, "RUNNING")
    assert (found.usd_per_hour, found.gpu_id, found.gpu_count) == (0.88, "NVIDIA GeForce RTX 4090", 2)
    assert (found.cloud, found.data_center, found.cuda) == ("secure", "US-KS-2", "12.8")
    assert (found.ssh_host, found.ssh_port) == ("195.26.233.3", 34446)
    assert found.proxy_urls[0] == (8888, "https://7h9k2m4n6p-8888.proxy.runpod.net")
    assert (found.disk_gb, found.persistent_gb, found.volume_id) == (50, 20, None)
    assert found.created_at == 1780315200.0 and found.started_at == pytest.approx(1780315320.123456)
    assert found.actions == ("stop", "restart", "terminate") and found.locked and found.has_runtime


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"status": "HIBERNATING"}, {"state": RentalState.UNKNOWN, "said": "HIBERNATING"}),
        ({"status": None}, {"state": RentalState.UNKNOWN, "said": ""}),
        ({"status": "EXITED", "cost": 0.72}, {"state": RentalState.STOPPED, "usd_per_hour": 0.72}),
        ({"runtime": None, "ssh": {"proxy": None, "direct": None}}, {"has_runtime": False, "ssh_host": None}),
        ({"runtime": {}, "ssh": None}, {"has_runtime": False, "ssh_port": None}),
        ({"ssh": {"direct": {"host": "1.2.3.4", "port": 0}}}, {"ssh_host": None, "ssh_port": None}),
        ({"ssh": {"direct": {"host": "", "port": 22}}}, {"ssh_host": None, "ssh_port": None}),
        ({"gpu": None, "cpu": {"id": "cpu3c"}}, {"gpu_id": "", "gpu_count": None}),
        ({"cost": "0.5"}, {"usd_per_hour": None}), ({"cost": float("nan")}, {"usd_per_hour": None}),
        ({"cost": 0}, {"usd_per_hour": None}), ({"status": "EXITED", "cost": 0}, {"usd_per_hour": 0.0}),
        ({"cost": -1}, {"usd_per_hour": None}), ({"cost": True}, {"usd_per_hour": None}),
        ({"cloud": "MARS"}, {"cloud": None}), ({"name": 7}, {"name": ""}),
        ({"createdAt": "yesterday"}, {"created_at": None}), ({"createdAt": 1}, {"created_at": None}),
        ({"mounts": {"network": [{"volumeId": "vol1", "path": "/w"}]}}, {"volume_id": "vol1", "persistent_gb": None}),
        ({"newField": {"deep": [1]}}, {"id": "7h9k2m4n6p"}), ({"actions": ["fly", 7]}, {"actions": ("fly",)}),
        ({"locked": "yes"}, {"locked": False}),
    ],
)  # fmt: skip
def test_what_is_odd_in_a_pod_costs_that_field_alone(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    found = read(POD | changes)

    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize("identity", [None, "", 7, "../x", "a/b", "a b", "a\n", "é", "x" * 100, "-rf"])
def test_what_has_no_id_is_no_pod(identity: Any) -> None:
    assert read(POD | {"id": identity}) is None


def test_a_state_nobody_knows_counts_as_billing() -> None:
    assert read(POD | {"status": "NEW"}).state in BILLING
    assert RentalState.TERMINATED not in BILLING


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(POD)) | st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a loaded machine is no failure
@given(st.dictionaries(st.sampled_from(sorted(POD)), json_values))
def test_reading_a_pod_never_fails(fields: dict[str, Any]) -> None:
    found = read(POD | fields)

    assert found is None or found.id
    runpod_wire.volume(fields)
    runpod_wire.template(fields)
    runpod_wire.registry(fields)
    runpod_wire.bills([fields])
    runpod_wire.with_limits(Account("runpod"), {"spendRate": fields})
    runpod_wire.offers([fields], OfferQuery(), "secure", provider="runpod", simulated=False)


def test_the_sandbox_shows_where_a_port_really_is() -> None:
    runtime = {"ports": [{"private": 8888, "public": 40123, "type": "http", "ip": "127.0.0.1"}]}
    found = runpod_wire.rental(POD | {"runtime": runtime}, runpod_wire.sandbox_proxy)

    assert found is not None and found.proxy_urls == ((8888, "http://127.0.0.1:40123"),)


GPU: dict[str, Any] = {
    "id": "NVIDIA GeForce RTX 4090", "name": "RTX 4090", "memory": 24, "secure": True, "community": True,
    "price": {"secure": 0.44, "community": 0.31}, "maxCount": {"secure": 8, "community": 4}, "availability": "HIGH",
    "dataCenters": [
        {"id": "US-KS-2", "name": "US Kansas 2", "availability": "LOW"},
        {"id": "EU-RO-1", "name": "Romania 1", "availability": "HIGH"},
        {"id": "EU-SE-1", "name": "Sweden 1", "availability": "NONE"},
    ],
    "cudaVersions": [
        {"version": "12.11", "available": True}, {"version": "12.8", "available": True},
        {"version": "12.4", "available": False}, {"version": "latest", "available": True},
    ],
}  # fmt: skip


def offer(query: OfferQuery = OfferQuery(), cloud: Any = "secure", **changes: Any) -> Any:  # noqa: B008 - frozen
    found = runpod_wire.offers([GPU | changes], query, cloud, provider="runpod", simulated=False)
    return found[0] if found else None


def test_no_two_kinds_of_a_catalogue_are_called_the_same_and_each_name_leads_back() -> None:
    """An H100 PCIe is not the H100 with SXM, at another price; what a person reads can be typed as --gpu."""
    kinds = {kind.id: kind.name for kind in GPU_KINDS} | {"NVIDIA H100 XYZ": "H100 SXM", "NVIDIA H100": ""}
    gpus = [GPU | {"id": identity, "name": name} for identity, name in kinds.items()]
    found = runpod_wire.offers(gpus, OfferQuery(), "secure", provider="runpod", simulated=False)

    names = {each.gpu_id: each.gpu for each in found}
    assert len(set(names.values())) == len(names) == len(kinds)
    assert (names["NVIDIA H100 PCIe"], names["NVIDIA H100 NVL"], names["NVIDIA H100"]) == (
        "H100 PCIe", "H100 NVL", "NVIDIA H100",
    )  # fmt: skip
    assert names["NVIDIA H100 80GB HBM3"] == "NVIDIA H100 80GB HBM3", "the company's own name is another one's, too"
    assert (names["NVIDIA A100-SXM4-80GB"], names["NVIDIA GeForce RTX 4090"]) == ("A100 SXM", "RTX 4090")
    for identity, name in names.items():
        assert matching(name, list(names)) == (identity,), name


def test_an_offer_is_read_whole() -> None:
    found = offer(OfferQuery(gpu_count=2))

    assert (found.gpu_id, found.gpu, found.gpu_count, found.usd_per_hour) == (GPU["id"], "RTX 4090", 2, 0.88)
    assert (found.stock, found.data_centers) == ("high", ("US-KS-2", "EU-RO-1"))
    assert found.cuda_versions == ("12.8", "12.11") and (found.memory_bytes, found.max_count) == (24 * 2**30, 8)
    assert offer(cloud="community").usd_per_hour == 0.31


def test_a_data_center_that_is_asked_for_decides_about_the_stock() -> None:
    assert offer(OfferQuery(data_centers=("US-KS-2",))).stock == "low"
    nowhere = offer(OfferQuery(data_centers=("EU-SE-1",)))
    assert (nowhere.stock, nowhere.data_centers) == ("none", ())
    assert offer(OfferQuery(data_centers=("XX-1",)), "community") is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"availability": "PLENTY", "dataCenters": None}, {"stock": "unknown", "data_centers": ()}),
        ({"price": {"secure": 0}}, {"usd_per_hour": None}), ({"price": None}, {"usd_per_hour": None}),
        ({"cudaVersions": None}, {"cuda_versions": ()}), ({"memory": None}, {"memory_bytes": None}),
        ({"id": "AMD Instinct MI300X OAM", "name": "MI300X"}, {"gpu": "MI300X"}),
        ({"id": "NVIDIA Z9", "name": None}, {"gpu": "NVIDIA Z9"}),
        ({"id": "NVIDIA RTX PRO 6000 Blackwell Server Edition MIG 1g.24gb", "name": "PRO 6000 MIG 24GB"},
         {"gpu": "PRO 6000 MIG 24GB"}),
    ],
)  # fmt: skip
def test_what_is_odd_in_an_offer_costs_that_field_alone(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    found = offer(**changes)

    assert {name: getattr(found, name) for name in expected} == expected
    assert offer(secure=False) is None


def test_an_order_becomes_a_body() -> None:
    whole = replace(
        ORDER, gpu_count=2, data_centers=("EU-RO-1", "EU-SE-1"), volume_id="vol1", ports=("22/tcp", "8000/http"),
        env={"A": '{"b": 1}\n', "_x": ""}, command=("sh", "-c", "echo \"it's\" $HOME; exec x"), min_cuda="12.8",
        registry_id="reg1", disk_gb=50,
    )  # fmt: skip
    body = runpod_order.order_body(whole, provider="runpod")

    assert shlex.split(body.pop("args")) == list(whole.command)
    assert body == {
        "name": "lab-1a2b", "image": "an/image:tag", "cloud": "SECURE", "disk": 50,
        "gpu": {"id": "NVIDIA A40", "count": 2, "minCudaVersion": "12.8"},
        "dataCenterIds": ["EU-RO-1", "EU-SE-1"], "ports": ["22/tcp", "8000/http"],
        "env": {"A": '{"b": 1}\n', "_x": ""}, "registry": "reg1", "startSsh": True,
        "mounts": {"network": [{"volumeId": "vol1", "path": "/workspace"}]},
    }  # fmt: skip
    assert (
        runpod_order.order_body(replace(ORDER, image="", template_id="tpl1"), provider="runpod")["templateId"] == "tpl1"
    )


def test_an_order_with_its_own_key_asks_for_no_other() -> None:
    body = runpod_order.order_body(replace(ORDER, env={"PUBLIC_KEY": "ssh-ed25519 AAAA"}), provider="runpod")

    assert "startSsh" not in body and "args" not in body and "mounts" not in body


BAD_ORDERS: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "name"), ({"name": "a\nb"}, "name"), ({"name": "x" * 200}, "name"), ({"gpu_id": ""}, "gpu_id"),
    ({"gpu_count": 0}, "gpu_count"), ({"cloud": "mars"}, "cloud"), ({"image": ""}, "image"),
    ({"image": "a", "template_id": "b"}, "image"), ({"image": "a b"}, "image"),
    ({"image": "", "template_id": "../x"}, "template_id"), ({"disk_gb": 0}, "disk_gb"),
    ({"persistent_gb": 9}, "persistent_gb"), ({"persistent_gb": 20, "volume_id": "v"}, "persistent_gb"),
    ({"volume_id": "v", "cloud": "community"}, "cloud"), ({"volume_id": "a/b"}, "volume_id"),
    ({"volume_id": "v", "mount_path": "work"}, "mount_path"), ({"volume_id": "v", "mount_path": "/"}, "mount_path"),
    ({"ports": ("22",)}, "ports"), ({"ports": ("0/tcp",)}, "ports"), ({"ports": ("70000/tcp",)}, "ports"),
    ({"ports": ("22/udp",)}, "ports"), ({"ports": ("22/tcp", "22/tcp")}, "ports"),
    ({"ports": tuple(f"{port}/http" for port in range(8000, 8011))}, "ports"),
    ({"env": {f"V{number}": "" for number in range(51)}}, "env"), ({"env": {"1A": ""}}, "env"),
    ({"env": {"A=B": ""}}, "env"), ({"env": {"A": "x\0"}}, "env.A"), ({"env": {"A": "\ud800"}}, "env.A"),
    ({"min_cuda": "12"}, "min_cuda"), ({"min_cuda": "new"}, "min_cuda"), ({"data_centers": ("EU RO",)}, "data_centers"),
    ({"command": ("sh", "a\0b")}, "command"), ({"registry_id": "a b"}, "registry_id"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "field"), BAD_ORDERS)
def test_a_bad_order_names_field_and_fix_before_anything_is_sent(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(BadOrder) as refused:
        runpod_order.order_body(replace(ORDER, **changes), provider="runpod")

    assert refused.value.fields == (field,)
    assert refused.value.hint and refused.value.provider == "runpod"


def test_a_secret_does_not_go_into_an_environment_that_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "_known", set())
    token = Secret("hf_0123456789abcdef")

    with pytest.raises(BadOrder) as refused:
        runpod_order.order_body(replace(ORDER, env={"HF_TOKEN": token.reveal()}), provider="runpod")
    assert token.reveal() not in str(refused.value) + refused.value.hint
    with pytest.raises(BadOrder):
        runpod_order.order_body(replace(ORDER, command=("sh", "-c", f"login {token.reveal()}")), provider="runpod")


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (OfferQuery(gpu_count=0), "0 GPUs"), (OfferQuery(countries=("se",)), "'se'"),
        (OfferQuery(countries=("SE", "UK1")), "'UK1'"), (OfferQuery(min_cuda="new"), "'new'"),
    ],
)  # fmt: skip
def test_a_bad_question_is_refused_before_it_is_asked(query: OfferQuery, words: str) -> None:
    with pytest.raises(BadArgument, match=words):
        runpod_order.catalog_query(query, "secure")


def test_bills_without_a_pod_a_span_or_a_sum_are_left_out() -> None:
    good = {
        "podId": "p1", "startTime": "2026-06-01T00:00:00Z", "endTime": "2026-06-01T01:00:00Z", "totalAmount": 1.5,
        "gpuAmount": 1.25, "diskAmount": 0.25,
    }  # fmt: skip
    odd = [good | {name: None} for name in ("podId", "startTime", "endTime", "totalAmount")]

    (found,) = runpod_wire.bills([*odd, good])

    assert (found.rental_id, found.usd, found.gpu_usd, found.disk_usd) == ("p1", 1.5, 1.25, 0.25)
    assert found.ends_at - found.begins_at == 3600


@given(st.integers(min_value=0, max_value=2**34))
def test_a_time_goes_both_ways(at: int) -> None:
    assert runpod_wire.moment(runpod_wire.stamp(at)) == at
