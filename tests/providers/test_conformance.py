"""What the contract in podlab/providers/base.py promises, of every provider there is."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from podlab.errors import BadArgument, BadOrder, NotFound, OutOfStock
from podlab.providers.base import Belongings, Provider
from podlab.renting import OfferQuery, Order, RentalState, TemplateDraft
from podlab.types import Pod
from tests.providers.conftest import Desk

OWNED = ("local", "ssh")
RENTING = ("runpod", "sandbox")
Opening = Callable[[str], Desk]
everyone = pytest.mark.parametrize("name", OWNED + RENTING)
owned = pytest.mark.parametrize("name", OWNED)
renting = pytest.mark.parametrize("name", RENTING)
ORDER = Order(
    "lab-1a2b", "NVIDIA A40", 1, "secure", image="runpod/pytorch:tag", disk_gb=20, persistent_gb=30,
    ports=("22/tcp", "8000/http"), env={"PUBLIC_KEY": "ssh-ed25519 AAAA me"}, command=("sh", "-c", "echo it's up"),
    min_cuda="12.4",
)  # fmt: skip


@everyone
def test_it_says_who_it_is(name: str, open_desk: Opening) -> None:
    provider: Provider = open_desk(name).provider

    assert provider.name == name
    assert provider.rents is (name in RENTING)
    assert provider.simulated is (name == "sandbox")
    assert isinstance(provider, Belongings) is provider.rents
    assert provider.account().provider == name


@everyone
def test_an_unknown_pod_is_none_and_starting_it_is_refused(name: str, open_desk: Opening) -> None:
    provider = open_desk(name).provider

    assert provider.get("nobody0") is None
    assert provider.list() == ()
    for change in (provider.start, provider.stop):
        with pytest.raises(NotFound if provider.rents else BadArgument) as refused:
            change("nobody0")
        assert refused.value.hint


@everyone
def test_what_is_adopted_costs_nothing_and_asks_nobody(name: str, open_desk: Opening) -> None:
    provider = open_desk(name).provider

    if name == "ssh":
        assert isinstance(provider.adopt("lab", "me@gpu.invalid"), Pod)
        return
    with pytest.raises(BadArgument) as refused:
        provider.adopt("lab", "me@gpu.invalid")
    assert refused.value.hint


@owned
def test_machines_that_somebody_owns_are_neither_offered_nor_ended(name: str, open_desk: Opening) -> None:
    provider = open_desk(name).provider

    assert provider.offers(OfferQuery()) == ()
    assert provider.bills(since=0.0, until=1e9) == ()
    assert list(provider.logs("nobody0", follow=True)) == []
    with pytest.raises(BadArgument, match="can be rented") as refused:
        provider.create(ORDER)
    assert "--provider" in refused.value.hint
    with pytest.raises(BadArgument, match="not rented"):
        provider.terminate("nobody0")


@renting
def test_offers_have_a_price_for_all_gpus_and_say_where(name: str, open_desk: Opening) -> None:
    provider = open_desk(name).provider

    found = provider.offers(OfferQuery(gpu_count=2))

    assert {offer.cloud for offer in found} == {"secure", "community"}
    a40 = next(offer for offer in found if offer.gpu_id == "NVIDIA A40" and offer.cloud == "secure")
    assert (a40.provider, a40.gpu, a40.gpu_count, a40.usd_per_hour) == (name, "A40", 2, 0.80)
    assert a40.stock in ("low", "medium", "high") and set(a40.data_centers) == {"CA-MTL-1", "EU-SE-1"}
    assert a40.memory_bytes == 48 * 2**30 and "12.8" in a40.cuda_versions and a40.max_count == 8
    assert {offer.simulated for offer in found} == {name == "sandbox"}
    named = {offer.gpu_id: offer.gpu for offer in found}
    assert named["NVIDIA RTX A4000"] == "RTX A4000" and named["NVIDIA L40S"] == "L40S" and named["NVIDIA L4"] == "L4"


@renting
def test_offers_are_narrowed_to_a_cloud_a_country_and_a_data_center(name: str, open_desk: Opening) -> None:
    provider = open_desk(name).provider

    swedish = provider.offers(OfferQuery(countries=("SE",)))
    montreal = provider.offers(OfferQuery(cloud="secure", data_centers=("CA-MTL-1",)))

    assert swedish and {place for offer in swedish for place in offer.data_centers} == {"EU-SE-1"}
    assert {offer.cloud for offer in swedish + montreal} == {"secure"}  # others cannot be placed
    assert {offer.gpu for offer in montreal if offer.stock != "none"} == {"A40", "RTX 3090"}
    with pytest.raises(BadArgument, match="country"):
        provider.offers(OfferQuery(countries=("Sweden",)))


@renting
def test_a_pod_is_rented_stopped_started_and_ended(name: str, open_desk: Opening) -> None:
    desk = open_desk(name)
    provider = desk.provider

    made = provider.create(ORDER)

    assert (made.name, made.gpu_id, made.gpu_count, made.cloud) == ("lab-1a2b", "NVIDIA A40", 1, "secure")
    assert made.state is RentalState.PROVISIONING and not made.has_runtime and made.ssh_host is None
    assert made.usd_per_hour == 0.40 and made.data_center in ("CA-MTL-1", "EU-SE-1")
    assert (made.disk_gb, made.persistent_gb, made.volume_id) == (20, 30, None)
    assert made.created_at == desk.clock() if desk.clock else False
    desk.pass_s(100)
    up = provider.get(made.id)
    assert up is not None and up.state is RentalState.RUNNING and up.has_runtime and "stop" in up.actions
    assert up.ssh_host and up.ssh_port and [port for port, _ in up.proxy_urls] == [8000]
    assert provider.list() == (up,)
    provider.start(made.id)  # what runs is left alone

    provider.stop(made.id)
    provider.stop(made.id)
    stopped = provider.get(made.id)
    assert stopped is not None and stopped.state is RentalState.STOPPED and stopped.ssh_port is None

    provider.start(made.id)
    desk.pass_s(100)
    again = provider.get(made.id)
    assert again is not None and again.state is RentalState.RUNNING and again.ssh_port != up.ssh_port

    provider.terminate(made.id)
    provider.terminate(made.id)  # it knows no such pod, which is no error and no proof
    assert provider.get(made.id) is None and provider.list() == ()
    desk.pass_s(3600)
    billed = provider.bills(since=made.created_at or 0.0, until=desk.clock() if desk.clock else 0.0)
    assert {bill.rental_id for bill in billed} == {made.id}
    assert 0 < sum(bill.usd for bill in billed) < 0.40


@renting
def test_the_command_reaches_the_container_as_the_argv_it_was(name: str, open_desk: Opening) -> None:
    import shlex

    desk = open_desk(name)
    assert desk.behind is not None
    provider = desk.provider

    made = provider.create(ORDER)

    kept = desk.behind.company.pods[made.id]
    assert tuple(shlex.split(kept.args)) == ORDER.command
    assert kept.wanted.min_cuda == "12.4" and kept.wanted.start_ssh is False
    assert kept.env["PUBLIC_KEY"] == "ssh-ed25519 AAAA me"


@renting
def test_no_stock_and_a_bad_order_are_told_apart(name: str, open_desk: Opening) -> None:
    desk = open_desk(name)
    provider = desk.provider

    with pytest.raises(OutOfStock) as gone:
        provider.create(replace(ORDER, gpu_id="NVIDIA RTX A2000"))
    assert gone.value.status == 400 and "data centers" in gone.value.hint
    with pytest.raises(BadOrder):
        provider.create(replace(ORDER, image="", template_id="nosuchtemplate"))
    assert provider.list() == ()


@renting
def test_a_log_is_read_and_read_on(name: str, open_desk: Opening) -> None:
    desk = open_desk(name)
    assert desk.behind is not None
    provider = desk.provider
    made = provider.create(ORDER)
    book = desk.behind.company.books[made.id]
    for number in range(5):
        book.write(desk.behind.company.now(), "container", f"line {number}")

    whole = list(provider.logs(made.id, source="container"))
    last_two = list(provider.logs(made.id, source="container", tail=2))
    behind = list(provider.logs(made.id, source="container", after=whole[2].id))

    assert [line.text for line in whole] == [f"line {number}" for number in range(5)]
    assert last_two == whole[3:] and behind == whole[3:]
    assert next(iter(provider.logs(made.id))).source == "system"
    stream = provider.logs(made.id, source="container", follow=True, after=whole[3].id)
    assert next(stream) == whole[4]
    book.write(desk.behind.company.now(), "container", "later")
    assert next(stream).text == "later"
    stream.close()  # type: ignore[attr-defined]
    with pytest.raises(NotFound):
        list(provider.logs("nobody0"))


@renting
def test_an_account_says_its_balance_and_its_limit(name: str, open_desk: Opening) -> None:
    account = open_desk(name).provider.account()

    assert account.balance_usd == 25.0 and account.spend_usd_per_hour == 0.0 and account.spend_limit_usd_per_hour
    assert account.detail == ""


@renting
def test_every_call_may_come_from_any_thread(name: str, open_desk: Opening) -> None:
    desk = open_desk(name)
    provider = desk.provider
    failed: list[Exception] = []

    def rent(number: int) -> None:
        try:
            made = provider.create(replace(ORDER, name=f"lab-{number}", persistent_gb=None))
            assert provider.get(made.id) is not None
            provider.stop(made.id)
            provider.terminate(made.id)
        except Exception as error:  # noqa: BLE001 - shown by the assertion below
            failed.append(error)

    threads = [threading.Thread(target=rent, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert failed == [] and provider.list() == ()
    assert desk.behind is not None and len(desk.behind.company.pods) == 6


def test_two_companies_in_one_process_are_never_taken_for_each_other(
    open_desk: Opening, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    """Each with its key and address, whatever the environment says while a call is under way."""
    from pathlib import Path

    from podlab.sandbox.serve import start
    from podlab.secrets import Secret

    assert isinstance(tmp_path, Path)
    sandbox = open_desk("sandbox")
    other = start(tmp_path / "other", seed=8, machines=False)
    try:
        monkeypatch.setenv("RUNPOD_API_KEY", other.key)
        monkeypatch.setenv("RUNPOD_API_BASE_URL", other.url)
        from podlab.providers.companies import company

        runpod = company("runpod")
        here, there = sandbox.provider.create(ORDER), runpod.create(ORDER)
        for change in ("stop", "start", "terminate"):
            getattr(sandbox.provider, change)(here.id)
            assert runpod.get(there.id) is not None and sandbox.provider.get(there.id) is None
        assert [pod.id for pod in runpod.list()] == [there.id]
        assert Secret(other.key) and repr(runpod).count(other.key) == 0
    finally:
        other.stop()


@renting
def test_what_an_account_keeps_is_listed_added_and_deleted(name: str, open_desk: Opening) -> None:
    from podlab.secrets import Secret

    kept = open_desk(name).provider
    assert isinstance(kept, Belongings)

    volume = kept.create_volume("data", size_gb=50, data_center="EU-RO-1", tier="high_performance")
    assert kept.volumes() == (volume,) and (volume.size_gb, volume.tier) == (50, "high_performance")
    kept.delete_volume(volume.id)
    kept.delete_volume(volume.id)
    assert kept.volumes() == ()
    with pytest.raises(BadOrder, match="size_gb"):
        kept.create_volume("data", size_gb=5, data_center="EU-RO-1")

    registry = kept.add_registry("hub", user="me", password=Secret("a-password-1234"))
    assert kept.registries() == (registry,)
    draft = TemplateDraft("mine", "me/image:1", 30, 20, "/data", ("8000/http",), {"A": "b"}, registry.id)
    template = kept.create_template(draft)
    assert kept.templates() == (template,) and (template.name, template.image) == ("mine", "me/image:1")
    for wrong in (replace(draft, image=""), replace(draft, disk_gb=0), replace(draft, mount_path="data")):
        with pytest.raises(BadOrder):
            kept.create_template(wrong)
    kept.delete_template(template.id)
    kept.delete_registry(registry.id)
    kept.delete_registry(registry.id)
    assert kept.registries() == () and kept.templates() == ()
    assert all(template.public for template in kept.templates(public=True))


@renting
def test_an_account_key_is_added_beside_the_others(name: str, open_desk: Opening) -> None:
    kept = open_desk(name).provider
    assert isinstance(kept, Belongings)
    one = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILXGDN/SclOozk1xsDztpmhGiKkkrfQB9SKoO8dSIQQZ me@example.com"
    two = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOtherOtherOtherOtherOtherOtherOtherOther1 work"

    kept.add_account_key(one)
    both = kept.add_account_key(two + "\n")
    again = kept.add_account_key(one.rpartition(" ")[0] + " renamed")

    assert [key.text for key in both] == [one, two] and again == both == kept.account_keys()
    assert both[0].fingerprint.startswith("SHA256:") and both[0].comment == "me@example.com"
    with pytest.raises(BadArgument, match="public key"):
        kept.add_account_key("-----BEGIN OPENSSH PRIVATE KEY-----")
