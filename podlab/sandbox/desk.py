"""The sandbox's own routes, beside the company's: what is going on, faults, money, the end. For the account's key."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from podlab.sandbox import bodies
from podlab.sandbox.asking import Answer, Request, document
from podlab.sandbox.fault_names import NAMES, Ask, set_fault
from podlab.sandbox.records import Caller, Problem, Status

if TYPE_CHECKING:
    from podlab.sandbox.rest import Rest

ROOT = "/sandbox/"
FAULT = bodies.thing(
    {
        "name": bodies.text(shortest=1), "times": bodies.or_null(bodies.whole(1)), "after": bodies.whole(0),
        "seconds": bodies.number, "count": bodies.whole(1), "pod": bodies.text(),
        "method": bodies.or_null(bodies.text()), "path": bodies.text(),
    },
    "name",
)  # fmt: skip
MONEY = bodies.thing({"usd": bodies.number}, "usd")


def answer(rest: Rest, request: Request, caller: Caller, end: Callable[[], None]) -> Answer:
    """The answer of one of these routes. Raises Problem."""
    if caller.pod_id is not None:
        raise Problem(403, "access denied")
    route = (request.method, request.path.removeprefix(ROOT))
    if route == ("GET", "status"):
        return document(200, _status(rest))
    if route == ("GET", "faults"):
        return document(200, _faults(rest))
    if route == ("POST", "faults"):
        asked = bodies.read(request.body, FAULT)
        name = asked.pop("name")
        if fault := set_fault(rest.company, name, Ask(**asked)):
            rest.faults.add(fault)
        return document(200, _faults(rest))
    if route == ("DELETE", "faults"):
        rest.faults.clear()
        rest.company.calm_down()
        return Answer(204)
    if route == ("POST", "money"):
        with rest.company.lock:
            rest.company.advance()
            rest.company.balance_usd += bodies.read(request.body, MONEY)["usd"]
        return document(200, _status(rest))
    if route == ("POST", "stop"):
        end()
        return Answer(204)
    raise Problem(404, "resource not found")


def _status(rest: Rest) -> dict[str, object]:
    company = rest.company
    with company.lock:
        company.advance()
        pods = [pod for pod in company.pods.values() if pod.status is not Status.TERMINATED]
        return {
            "simulated": True, "balanceUsd": company.balance_usd, "spendUsdPerHour": company.spend_usd_per_hour,
            "speed": company.billing_speed, "pods": len(pods), "running": sum(pod.live for pod in pods),
        }  # fmt: skip


def _faults(rest: Rest) -> dict[str, object]:
    return {
        "faults": [
            {"name": one.name, "times": one.times, "struck": one.struck, "method": one.method, "path": one.path}
            for one in rest.faults.listed()
        ],
        "names": {name: named.help for name, named in NAMES.items()},
    }
