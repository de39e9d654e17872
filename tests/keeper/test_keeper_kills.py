"""kill -9 at every step boundary of a keeper's rounds, from the first word to a pod to its proven end.

The boundaries are found by having one keeper tend and end a pod (tests/steps.py). Each is then tried with a keeper
that kills itself there; the next load brings another one, which has to end what has to end, with proof. scripts/test
takes one boundary of each call, line and file, by a seed; PODLAB_FULL=1 takes all, the first and the second time.
"""

from __future__ import annotations

import os
import random
import signal
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from podlab.lab.guarding import ensure_keeper
from podlab.lab.launches import Launch, Phase, all_launches
from podlab.lab.workspace import Workspace
from podlab.ledger import Ledger
from podlab.renting import RentalState
from tests import rentals
from tests.keeper.test_create_kills import (
    AT_ONCE,
    FULL,
    SEED,
    Place,
    World,
    asked,
    end_all,
    kill_keepers,
    mine,
    run,
    world,
)
from tests.steps import Step, Steps, steps_in, watch_keeper

__all__ = ["world"]  # a fixture
PARTS = 2 if not FULL else 6
LIVES_S = 3.5
"""From the keeper's start to when the money for its pod is used up: some rounds."""


def tended(place: Place, step: Step | None, record: Path | None) -> None:
    """Be the keeper there, until `step`; without one until the pod's row is closed."""
    from podlab.keeper.__main__ import _serve

    os.setsid()
    place.enter()
    watch_keeper(Steps(step, record, main_only=False))
    if step is None:
        import threading

        threading.Thread(target=_die_when_closed, daemon=True).start()
    _serve()


def _die_when_closed() -> None:
    rentals.until(lambda: the_launch().phase is Phase.ENDED, 90)
    os.kill(os.getpid(), signal.SIGKILL)


def the_launch() -> Launch:
    (launch,) = all_launches(Ledger())
    return launch


def judged(place: Place, verdict: Path) -> None:
    """What the next load makes of what a keeper left: "" if it is as it should be, else what is wrong."""
    place.enter()
    said = ""
    try:
        problem = ensure_keeper(Workspace.open())
        assert not problem, problem
        rentals.until(lambda: the_launch().phase is Phase.ENDED, 60)
        launch = the_launch()
        assert launch.is_proven_absent()
        assert launch.brake == "keeper", launch.why
        assert launch.extra_ids == ()
        assert [each.name for each in mine(place) if each.state is not RentalState.TERMINATED] == []
    except BaseException:  # noqa: BLE001  # it is what this process is for
        said = traceback.format_exc()
    verdict.write_text(said)


def rented(world: World, name: str) -> Place:
    """A place with a pod that works, that nobody tends, and that has to end soon: by a cap that its switch knows
    nothing of, so that it is the keeper who ends it."""
    place = world.place(name)
    assert run(asked, place, Step("the end"), None, True) == -signal.SIGKILL
    (launch,) = all_launches(Ledger(place.podlab_home / "ledger.jsonl"))
    cap = launch.usd(time.time() + LIVES_S)
    with (place.podlab_home / "config.toml").open("a") as file:
        file.write(f"\n[money]\ntotal_usd = {cap:.6f}\n")
    return place


def tried(world: World, step: Step, number: int) -> str:
    """What is wrong with what came of it; "" for nothing."""
    place = rented(world, f"keep{number}")
    verdict = place.folder / "verdict"
    try:
        if (status := run(tended, place, step, None, timeout_s=40)) != -signal.SIGKILL:
            return f"{step}: the keeper was not killed, it ended with {status}"
        if run(judged, place, verdict) != 0:
            return f"{step}: nobody could tell"
        said = verdict.read_text()
        return said and f"{step}: {said}"
    finally:
        kill_keepers(place)
        end_all(world, place)


@pytest.fixture(scope="module")
def steps(world: World) -> tuple[Step, ...]:
    """The boundaries of a keeper's rounds, in their order."""
    place = rented(world, "rounds")
    record = place.folder / "steps"
    assert run(tended, place, None, record) == -signal.SIGKILL
    return steps_in(record)


def chosen(steps: tuple[Step, ...]) -> list[Step]:
    if FULL:
        return list(steps)
    dice = random.Random(SEED)
    around: dict[str, list[Step]] = {}
    for step in steps:
        around.setdefault(step.what, []).append(step)
    return [dice.choice(each) for each in around.values()]


@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_the_step_the_next_keeper_ends_the_pod_with_proof(
    part: int, world: World, steps: tuple[Step, ...], record_property: Callable[[str, object], None]
) -> None:
    cases = list(enumerate(chosen(steps)))[part::PARTS]
    record_property("boundaries of a keeper's rounds", len({step.name for step in steps}))
    record_property("with their second times", len(steps))
    record_property("cases of this part", len(cases))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        wrong = [said for said in pool.map(lambda each: tried(world, each[1], each[0]), cases) if said]
    assert not wrong, "\n\n".join(wrong)
