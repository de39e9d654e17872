"""Every fault that the sandbox has a name for, and what RunPod's provider makes of it; the company's own record of what
it did says whether that is true."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest

from podlab.errors import (
    ApiRetired,
    BadOrder,
    KeyRefused,
    NotAllowed,
    OutcomeUnknown,
    OutOfFunds,
    OutOfStock,
    PodlabError,
    ProviderUnavailable,
    RateLimited,
    WrongState,
)
from podlab.providers.runpod import RunpodProvider
from podlab.renting import Order, RentalState
from podlab.sandbox.fault_names import NAMES, Ask, set_fault
from podlab.sandbox.serve import Running
from podlab.secrets import Secret
from tests.clock import Clock

ORDER = Order("lab-1a2b", "NVIDIA A40", 1, "secure", image="an/image:tag", persistent_gb=20, ports=("22/tcp",))
DEADLINE_S = 1.5


class Company:
    """A provider, and the simulated company behind it with a pod that runs."""

    def __init__(self, running: Running, clock: Clock) -> None:
        self.running, self.clock = running, clock
        self.provider = RunpodProvider(key=Secret(running.key), url=running.url, deadline_s=DEADLINE_S)
        self.pod = self.provider.create(replace(ORDER, name="lab-0"))
        self.pass_s(100)

    def pass_s(self, seconds: float) -> None:
        self.clock.turn(seconds)
        self.running.company.advance()

    def goes_wrong(self, name: str, **ask: Any) -> None:
        fault = set_fault(self.running.company, name, Ask(**({"times": None} | ask)))
        if fault is not None:
            self.running.rest.faults.add(fault)

    def is_right_again(self) -> None:
        self.running.rest.faults.clear()

    def names(self) -> list[str]:
        """The pods there really are."""
        return [pod.name for pod in self.running.company.pods.values() if pod.terminated_at is None]


@pytest.fixture
def company(running: Running, clock: Clock) -> Company:
    return Company(running, clock)


CREATES: dict[str, tuple[type[PodlabError], int]] = {
    "stock-out": (OutOfStock, 0), "sold-out": (OutOfStock, 0), "no-balance": (OutOfFunds, 0),
    "created-500": (OutcomeUnknown, 1), "created-html": (OutcomeUnknown, 1), "created-reset": (OutcomeUnknown, 1),
    "created-silence": (OutcomeUnknown, 1), "created-cut": (OutcomeUnknown, 1), "create-500": (OutcomeUnknown, 0),
    "unauthorized": (KeyRefused, 0), "forbidden": (NotAllowed, 0), "conflict": (BadOrder, 0),
    "retired": (ApiRetired, 0), "invalid": (BadOrder, 0), "rate-limited": (RateLimited, 0),
    "error-500": (OutcomeUnknown, 0), "unavailable": (OutcomeUnknown, 0), "bad-gateway": (OutcomeUnknown, 0),
    "html": (OutcomeUnknown, 0), "empty": (OutcomeUnknown, 1), "not-json": (OutcomeUnknown, 1),
    "cut": (OutcomeUnknown, 1), "huge": (OutcomeUnknown, 1), "drip": (OutcomeUnknown, 1),
    "reset": (OutcomeUnknown, 0), "silence": (OutcomeUnknown, 0),
}  # fmt: skip
ENDS: dict[str, tuple[type[PodlabError] | None, bool]] = {
    "delete-500": (OutcomeUnknown, True), "delete-done-500": (OutcomeUnknown, False),
    "delete-reset": (OutcomeUnknown, True), "delete-silence": (OutcomeUnknown, True),
    "delete-ignored": (None, True), "delete-404-back": (None, True), "delete-409": (WrongState, True),
    "locked": (WrongState, True), "vanish": (None, False), "unauthorized": (KeyRefused, True),
    "forbidden": (NotAllowed, True), "retired": (ApiRetired, True), "rate-limited": (RateLimited, True),
    "html": (OutcomeUnknown, True), "bad-gateway": (OutcomeUnknown, True), "unavailable": (OutcomeUnknown, True),
    "reset": (OutcomeUnknown, True), "silence": (OutcomeUnknown, True),
}  # fmt: skip
"""What `terminate` says, and whether the pod lives on: only a look at the company tells."""
READS: dict[str, type[PodlabError]] = {
    "unauthorized": KeyRefused, "forbidden": NotAllowed, "retired": ApiRetired, "rate-limited": RateLimited,
    "invalid": BadOrder, "error-500": ProviderUnavailable, "unavailable": ProviderUnavailable,
    "bad-gateway": ProviderUnavailable, "html": ProviderUnavailable, "empty": ProviderUnavailable,
    "not-json": ProviderUnavailable, "cut": ProviderUnavailable, "huge": ProviderUnavailable,
    "drip": ProviderUnavailable, "reset": ProviderUnavailable, "silence": ProviderUnavailable,
}  # fmt: skip


@pytest.mark.parametrize(("fault", "expected"), CREATES.items())
def test_a_create_is_told_as_certain_only_when_it_is(
    fault: str, expected: tuple[type[PodlabError], int], company: Company
) -> None:
    kind, made = expected
    company.goes_wrong(fault)

    began = time.monotonic()
    with pytest.raises(PodlabError) as refused:
        company.provider.create(ORDER)

    assert type(refused.value) is kind and time.monotonic() - began < 30
    assert company.names().count("lab-1a2b") == made  # never twice
    company.is_right_again()
    assert [pod.name for pod in company.provider.list()].count("lab-1a2b") == made


@pytest.mark.parametrize(("fault", "expected"), ENDS.items())
def test_an_end_is_told_as_certain_by_nobody(
    fault: str, expected: tuple[type[PodlabError] | None, bool], company: Company
) -> None:
    kind, lives = expected
    company.goes_wrong(fault)

    if kind is None:
        company.provider.terminate(company.pod.id)
    else:
        with pytest.raises(PodlabError) as refused:
            company.provider.terminate(company.pod.id)
        assert type(refused.value) is kind

    assert (company.names() == ["lab-0"]) is lives
    company.is_right_again()
    company.pass_s(60)
    assert bool(company.provider.list()) is lives


@pytest.mark.parametrize(("fault", "kind"), READS.items())
@pytest.mark.parametrize("call", ["get", "list"])
def test_a_read_that_cannot_be_used_shows_no_pod_as_gone(
    fault: str, kind: type[PodlabError], call: str, company: Company
) -> None:
    company.goes_wrong(fault)

    with pytest.raises(PodlabError) as refused:
        company.provider.get(company.pod.id) if call == "get" else company.provider.list()

    assert type(refused.value) is kind


def test_a_start_without_a_free_gpu_is_out_of_stock(company: Company) -> None:
    company.provider.stop(company.pod.id)
    company.goes_wrong("no-gpu-at-host")

    with pytest.raises(OutOfStock):
        company.provider.start(company.pod.id)


@pytest.mark.parametrize("change", ["start", "stop"])
def test_a_change_that_was_not_answered_is_unknown(change: str, company: Company) -> None:
    company.goes_wrong("action-500")

    with pytest.raises(OutcomeUnknown):
        getattr(company.provider, change)(company.pod.id)


ODD: dict[str, Callable[[Any], bool]] = {
    "unknown-status": lambda pod: pod.state is RentalState.UNKNOWN and pod.said == "HIBERNATING",
    "unknown-fields": lambda pod: pod.state is RentalState.RUNNING and pod.has_runtime and pod.ssh_port,
    "no-ports": lambda pod: pod.state is RentalState.RUNNING and not pod.has_runtime and pod.ssh_port is None,
    "zero-gpus": lambda pod: pod.gpu_count == 0,
    "new-port": lambda pod: pod.ssh_port is not None,
    "exited": lambda pod: pod.state is RentalState.STOPPED and pod.usd_per_hour == 0.0,
    "error": lambda pod: pod.state is RentalState.ERROR,
}  # fmt: skip


@pytest.mark.parametrize(("fault", "is_so"), ODD.items())
def test_what_is_odd_about_a_pod_is_shown_as_it_is(fault: str, is_so: Callable[[Any], bool], company: Company) -> None:
    company.goes_wrong(fault)

    assert is_so(company.provider.get(company.pod.id))
    assert all(is_so(pod) for pod in company.provider.list())


def test_a_stopped_pod_that_keeps_its_price_is_shown_with_it(company: Company) -> None:
    company.provider.stop(company.pod.id)
    company.goes_wrong("exited-cost")

    found = company.provider.get(company.pod.id)
    assert found is not None and (found.state, found.usd_per_hour) == (RentalState.STOPPED, 0.72)


def test_a_list_in_pages_is_read_to_its_end(company: Company) -> None:
    for number in range(1, 5):
        company.provider.create(replace(ORDER, name=f"lab-{number}", persistent_gb=None))
    company.goes_wrong("pages", count=2)

    assert [pod.name for pod in company.provider.list()] == company.names() == [f"lab-{number}" for number in range(5)]


def test_a_list_with_a_page_that_fails_is_no_list(company: Company) -> None:
    company.provider.create(replace(ORDER, name="lab-1", persistent_gb=None))
    company.goes_wrong("unavailable", path="/v2/pods", after=1)
    company.goes_wrong("pages", count=1)

    with pytest.raises(ProviderUnavailable):
        company.provider.list()


def test_a_log_that_breaks_off_is_followed_to_its_end(company: Company) -> None:
    book = company.running.company.books[company.pod.id]
    for number in range(20):
        book.write(company.clock(), "container", f"line {number}")
    company.goes_wrong("log-drop", count=3)

    found = company.provider.logs(company.pod.id, source="container", follow=True)
    assert [line.text for line in islice(found, 20)] == [f"line {number}" for number in range(20)]
    company.is_right_again()
    company.goes_wrong("log-500")
    with pytest.raises(ProviderUnavailable):
        list(company.provider.logs(company.pod.id))


def test_what_is_read_late_is_none_and_in_no_list_until_then(company: Company) -> None:
    company.goes_wrong("read-lag", seconds=30.0)
    company.goes_wrong("listing-lag", seconds=60.0)
    made = company.provider.create(ORDER)

    assert company.provider.get(made.id) is None and made.id not in {pod.id for pod in company.provider.list()}
    company.pass_s(31)
    assert company.provider.get(made.id) is not None and made.id not in {pod.id for pod in company.provider.list()}
    company.pass_s(30)
    assert made.id in {pod.id for pod in company.provider.list()}


def test_what_somebody_else_rents_is_listed_clusters_included(company: Company) -> None:
    company.goes_wrong("foreign-pod", count=2)
    company.goes_wrong("cluster-pod", count=1)

    assert sorted(pod.name for pod in company.provider.list()) == ["lab-0", *["somebody-elses"] * 3]


def test_a_slow_image_is_starting_and_its_layers_are_in_the_log(company: Company) -> None:
    company.goes_wrong("slow-image", seconds=400)
    made = company.provider.create(ORDER)
    company.pass_s(220)

    found = company.provider.get(made.id)
    assert found is not None and found.state is RentalState.STARTING and not found.has_runtime
    said = [line.text for line in company.provider.logs(made.id, source="system")]
    assert said[-1] == "image an/image:tag: layer 2 of 4 is there"


ELSEWHERE = {
    # What the lab judges by what the provider shows truly: the price, the GPU, whether it comes up, how long it lasts.
    "wrong-price", "wrong-gpu", "never-up", "read-404", "gone-lag", "ports-late", "stale-list", "half-list", "unlocked",
    "balance-zero", "key-revoked",
    # What happens on the pod itself: tests/lab/test_renting.py.
    "no-sshd", "no-cuda",
}  # fmt: skip


def test_every_fault_with_a_name_is_here_or_the_labs_to_judge() -> None:
    here = {
        *CREATES,
        *ENDS,
        *READS,
        *ODD,
        "no-gpu-at-host",
        "action-500",
        "exited-cost",
        "pages",
        "log-drop",
        "log-500",
        "foreign-pod",
        "cluster-pod",
        "slow-image",
    }

    assert here | ELSEWHERE | {"read-lag", "listing-lag"} == set(NAMES)
