"""Pods rented from a sandbox that runs in the test's own process, as a crashed create leaves them: in the ledger, at
the provider, and with nobody who waits for them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from podlab.commands.drive import drive
from podlab.events import Ask, Chunk, Notice, Stage
from podlab.lab import renting
from podlab.lab import start_command as switch
from podlab.lab.crew import Here
from podlab.lab.launches import Launch, find, new_id, policy_fields
from podlab.lab.market import Market
from podlab.lab.readiness import Patience
from podlab.lab.rent_wish import RentWish
from podlab.lab.workspace import Workspace
from podlab.ledger import Ledger
from podlab.providers.companies import company
from podlab.renting import Order, Policy, RentalState
from podlab.sandbox.records import Pace
from podlab.sandbox.serve import Running, start
from podlab.settings import home

QUICK = Pace(provision_s=0.05, start_s=0.05, runtime_s=0.05)
GPU = "NVIDIA A40"


@contextmanager
def open_sandbox(folder: Path, *, pace: Pace = QUICK) -> Iterator[Running]:
    """A company that every process of this PODLAB_HOME finds as the provider `sandbox`."""
    opened = start(folder, seed=7, pace=pace)
    (home() / "sandbox.json").write_text(json.dumps({"url": opened.url, "key": opened.key, "pid": 1}))
    try:
        yield opened
    finally:
        opened.stop()


def ask(policy: Policy, *, price: float = 1.0) -> tuple[str, Order]:
    """Write an intent; the launch's id, and what is then to be ordered."""
    id = new_id()
    Ledger().append(
        "rent.ask", id, name=f"pod-{id}", order=f"order-{id}", provider="sandbox", gpu="A40", gpu_count="1",
        cloud="secure", usd_per_hour=str(price), disk_usd_per_hour="0.01", stopped_usd_per_hour="0.02",
        simulated="yes", **policy_fields(policy),
    )  # fmt: skip
    return id, Order(f"order-{id}", GPU, 1, "secure", image="runpod/pytorch:2.8.0")


def rent(policy: Policy, *, price: float = 1.0) -> Launch:
    """A pod that lives."""
    id, order = ask(policy, price=price)
    rental = company("sandbox").create(order)
    Ledger().append("rent.live", id, rental=rental.id, usd_per_hour=str(price))
    launch = find(Ledger(), id)
    assert launch is not None
    return launch


def is_billed(launch: Launch) -> bool:
    """Whether the company still has it."""
    return any(
        rental.name == launch.order_name and rental.state is not RentalState.TERMINATED
        for rental in company("sandbox").list()
    )


def until(true: Callable[[], object], timeout_s: float = 40.0) -> None:
    """Return when it is true. Nobody tells of what another process writes, so it is looked at again and again."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it did not come to be in time"
        time.sleep(0.05)


BRISK = switch.Pace(grace_s=20, tick_s=0.2, look_s=0.5, request_s=5, retry_s=0.5, retry_limit_s=1, check_s=1)
"""A switch that looks often, for tests that wait for it."""


def create(workspace: Workspace, *, pace: switch.Pace = BRISK, **wish: object) -> Launch:
    """A pod as a person rents it, ready: with its own switch, spoken to by SSH."""
    market = Market.of(workspace)
    asked = RentWish(provider="sandbox", gpus=("A40",), **wish)  # type: ignore[arg-type]
    crew = Here(workspace, market, patience=Patience(poll_s=0.2), pace=pace)
    return drive(renting.create(market, asked, crew), Nobody(), yes=True)


class Nobody:
    """An audience that answers nothing and shows nothing."""

    def stage(self, stage: Stage) -> None:
        pass

    def chunk(self, chunk: Chunk) -> None:
        pass

    def notice(self, notice: Notice) -> None:
        pass

    def ask(self, ask: Ask) -> None:
        return None
