"""A rented pod as its document: what the ledger, its company, and the switch on it say together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from podlab.commands.rent_results import RentalDetail

if TYPE_CHECKING:
    from podlab.lab.launches import Launch
    from podlab.renting import Rental


def detail_of(launch: Launch, now: float, *, rental: Rental | None = None) -> RentalDetail:
    """One launch. Without `rental` its state is what was last noted."""
    from podlab.lab import money

    policy = launch.policy
    return RentalDetail(
        launch.name, launch.id, launch.provider, launch.simulated, _state(launch, rental), launch.order_name,
        launch.rental_id, launch.gpu, launch.gpu_count, launch.cloud, None if rental is None else rental.data_center,
        money.usd_per_hour(launch), money.spent_usd(launch, now), launch.billed_usd, policy.budget_usd,
        policy.deadline_at, policy.idle_s, policy.lease_s, launch.asked_at, None if rental is None else rental.uptime_s,
        ended_at=launch.ended_at, why=_why(launch), model=launch.model, notebook=launch.notebook,
    )  # fmt: skip


def _state(launch: Launch, rental: Rental | None) -> str:
    if launch.phase.value != "live":
        return launch.phase.value
    if rental is not None:
        return rental.state.value
    return launch.spans[-1].state.value if launch.spans else "asked"


def _why(launch: Launch) -> str:
    """Why it had to end, and who saw to it."""
    who = {"person": "a person", "kernel": "the notebook", "keeper": "the keeper", "pod": "the pod itself",
           "create": "its creation"}.get(launch.brake, launch.brake)  # fmt: skip
    return f"{launch.why} ({who})" if launch.why and who else launch.why
