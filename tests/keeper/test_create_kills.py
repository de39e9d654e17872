"""kill -9 at every step boundary of a create, with real processes: the pod is adopted or ends, every time.

The boundaries are found by running one create (tests/steps.py). Each is then tried with an asker that kills itself
there, in a PODLAB_HOME of its own, against one company that outlives them all. scripts/test takes each boundary once,
by a seed with its keeper alive or killed too; PODLAB_FULL=1 takes the first and the second time, each with both.

That a row is closed takes minutes of proof: it is shown by a clock that is counted on, after the real one has shown
that the pod is adopted.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Literal

import pytest

from podlab.commands.drive import drive
from podlab.lab import ending, kernel_brake, rented
from podlab.lab.guarding import ensure_keeper, guard
from podlab.lab.launches import Launch, Phase, all_launches, find, open_launches
from podlab.lab.market import Market
from podlab.lab.steady import boot_id, steady_now
from podlab.lab.tender import tending_file
from podlab.lab.workspace import Workspace
from podlab.ledger import Ledger
from podlab.providers.companies import company
from podlab.renting import Protection, Rental, RentalState
from podlab.sandbox import serve
from podlab.sandbox.records import PodRecord
from tests import rentals
from tests.keeper.conftest import keepers
from tests.keeper.gone import wait_until_gone
from tests.steps import Step, Steps, steps_in, watch_asker

FULL = os.environ.get("PODLAB_FULL") == "1"
SEED = 4
AT_ONCE = 6
"""Cases under way: most of each is waiting for a pod."""
PARTS = 6
LEASE_S = 8.0
ADOPTED_S = 20.0
"""The lease of a pod that has to be adopted: this computer may be slow to begin again."""
GRACE_S = 20.0
"""How long a pod that never heard a word lives (rentals.BRISK)."""
SLACK = 3

FORKS = multiprocessing.get_context("forkserver")
_forking = threading.Lock()
"""Python's own book of its processes is for one thread."""
FORKS.set_forkserver_preload(["tests.keeper.test_create_kills", "httpx2", "tomlkit", "podlab.lab.crew", "paramiko"])


@dataclass(frozen=True)
class Place:
    """A computer: a home of its own, and what its one pod is called."""

    folder: Path
    name: str

    @property
    def podlab_home(self) -> Path:
        return self.folder / "podlab"

    @property
    def unreached(self) -> Path:
        """There if an asker came to its end: it was killed there instead, since it did not come by its step."""
        return self.folder / "unreached"

    def enter(self) -> None:
        """Have this process be on it."""
        os.environ |= {"HOME": str(self.folder), "PODLAB_HOME": str(self.podlab_home)}

    def is_mine(self, rental_name: str) -> bool:
        """Whether a pod of the company came of this place's order."""
        return rental_name.startswith(f"{self.name}-")


@dataclass(frozen=True)
class Case:
    """An asker that dies at `step`. `keeper`: it lives on, dies with the asker, or was not there in the first place.

    `told`: a command says what there is before anything is mended.
    """

    step: Step
    keeper: Literal["alive", "killed", "none"] = "alive"
    told: bool = False

    def __str__(self) -> str:
        return f"{self.step} (keeper: {self.keeper})"


@dataclass(frozen=True)
class World:
    """The company of all cases, and where their homes are made."""

    sandbox: serve.Running
    folder: Path

    def place(self, name: str) -> Place:
        found = Place(self.folder / name, name)
        found.podlab_home.mkdir(parents=True, mode=0o700)
        said = {"url": self.sandbox.url, "key": self.sandbox.key, "pid": 1, "lag_s": 0}
        (found.podlab_home / "sandbox.json").write_text(json.dumps(said))
        return found


# What runs in processes of its own


def asked(place: Place, step: Step | None, record: Path | None, alone: bool, lease_s: float = LEASE_S) -> None:
    """Rent a pod, until `step`. Where the asker is `alone`, no keeper and no brake was quick enough to begin."""
    os.setsid()
    place.enter()
    if alone:
        os.environ["PODLAB_KEEPER"] = "0"
        setattr(kernel_brake, "start", lambda workspace: None)  # noqa: B010  # this process is not long
    steps = Steps(step, record)
    watch_asker(steps)
    rentals.create(Workspace.open(), name=place.name, lease_s=lease_s, ttl_s=600)
    steps.at("the end")
    place.unreached.touch()
    os.kill(os.getpid(), signal.SIGKILL)


def judged(place: Place, case: Case, verdict: Path) -> None:
    """What the next load makes of what an asker left: "" if it is as it should be, else what is wrong."""
    place.enter()
    said = ""
    try:
        judge(place, case)
    except BaseException:  # noqa: BLE001  # it is what this process is for
        said = traceback.format_exc()
    verdict.write_text(said)


def judge(place: Place, case: Case) -> None:
    begun = time.monotonic()
    if case.keeper == "killed":
        kill_keepers(place)
    living = [each.name for each in mine(place) if each.state is not RentalState.TERMINATED]
    assert len(living) <= 1, f"one order, and {living}"
    if case.told:
        rows = rows_told()
        assert set(living) <= {row["order_name"] for row in rows}, "the list of pods does not show what is billed"
        unseen = [row for row in rows if row["state"] == "asked" and row["rental_id"] is None]
        assert all(row["worst_usd"] is not None for row in unseen), "nobody says what it costs at worst"
    problem = ensure_keeper(Workspace.open())
    assert not problem, problem
    launches = all_launches(Ledger())
    assert {launch.order_name for launch in launches} >= {each.name for each in mine(place)}, "nobody knows a pod"
    assert len(launches) <= 1
    for launch in launches:
        if launch.order_name in living:
            rentals.until(lambda launch=launch: is_protected(launch) or not is_there(place), 60)  # type: ignore[misc]
            if not is_there(place):  # this computer was so slow that the pod has ended itself, which is as good
                assert time.monotonic() - begun > ADOPTED_S / 2, "it was ended, and not adopted"
                continue
            known = find(Ledger(), launch.id)
            assert known is not None
            assert known.phase is Phase.LIVE
            assert rented.pod_of(known).rental_id == known.rental_id
            assert {each.id for each in mine(place)} == set(known.ids)
    kill_keepers(place)
    close(place)


def close(place: Place) -> None:
    """Every row is closed with proof, and nothing is billed: what lives is ended first, as a person would."""
    market = counted()
    for launch in open_launches(market.ledger):
        if launch.phase is Phase.LIVE:
            ending.end(market, launch, why="it was looked at", brake="person")
        drive(ending.until_proven(market, launch), rentals.Nobody())
    assert open_launches(Ledger()) == ()
    assert not is_there(place)
    ids = {id for launch in all_launches(Ledger()) for id in launch.ids}
    known = {each.id for each in mine(place)}
    bills = company("sandbox").bills(since=time.time() - 3600, until=time.time())
    assert {bill.rental_id for bill in bills} & known <= ids, "a bill that no row names"


def counted() -> Market:
    """The market by a clock that moves on where it would be waited for."""
    ahead_s = [0.0]

    def now() -> float:
        return time.time() + ahead_s[0]

    def pause(seconds: float) -> None:
        ahead_s[0] += seconds

    def stamp() -> dict[str, str]:
        return {"steady": f"{steady_now() + ahead_s[0]:.3f}", "boot": boot_id()}

    return Market(Ledger(now=now), company, now, pause, stamp)


def mine(place: Place) -> list[Rental]:
    return [each for each in company("sandbox").list() if place.is_mine(each.name)]


def is_there(place: Place) -> bool:
    """Whether the company bills a pod of this place."""
    return any(each.state is not RentalState.TERMINATED for each in mine(place))


def is_protected(launch: Launch) -> bool:
    """As the ledger has it by now."""
    known = find(Ledger(), launch.id)
    return known is not None and guard(known, tending_file()).protection is Protection.PROTECTED


def rows_told() -> list[dict[str, Any]]:
    """What `podlab pod list --all --json` shows a person of rented pods."""
    words = ("pod", "list", "--all", "--json")
    done = subprocess.run(
        [sys.executable, "-c", "import podlab.cli; podlab.cli.main()", *words],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    found: list[dict[str, Any]] = json.loads(done.stdout)["rentals"]
    return found


# The other side


def kill_keepers(place: Place) -> None:
    for process in keepers(str(place.podlab_home)):
        process.kill()
        wait_until_gone(process.pid)


def run(work: Callable[..., None], *given: Any, timeout_s: float = 100) -> int | None:
    """Do that in a process of its own; its exit status, negative for the signal that killed it."""
    process = FORKS.Process(target=work, args=given)
    with _forking:
        process.start()
    ended = wait([process.sentinel], timeout_s)
    with _forking:
        if not ended:
            process.kill()
        process.join()
        return process.exitcode if ended else None


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("kills")
    sandbox = serve.start(folder / "sandbox", seed=7, pace=rentals.QUICK)
    try:
        yield World(sandbox, folder)
    finally:
        sandbox.stop()


@dataclass(frozen=True)
class Found:
    """The boundaries of a create, in their order: with a keeper that helps, and without one."""

    kept: tuple[Step, ...]
    alone: tuple[Step, ...]

    @property
    def names(self) -> set[str]:
        return {step.name for step in (*self.kept, *self.alone)}

    def cases(self) -> list[Case]:
        """All of them, with what may become of the keeper; or each boundary once, and seldom twice."""
        if FULL:
            kept = [Case(step, keeper, told=True) for step in self.kept for keeper in ("alive", "killed")]
            return [*kept, *(Case(step, "none", told=True) for step in self.alone)]
        dice = random.Random(SEED)
        both = [(step, False) for step in self.kept] + [(step, True) for step in self.alone]
        names = {name: [each for each in both if each[0].name == name] for name in sorted(self.names)}
        picked = [dice.choice(each) for each in names.values()]
        return [
            Case(step, "none" if alone else dice.choice(("alive", "killed")), dice.random() < 0.15)
            for step, alone in picked
        ]

    def ordered(self) -> list[Case]:
        """Those of the boundaries where a pod may have come of it: from when the order has left."""
        found = [*(Case(step, "killed") for step in _from_order(self.kept))]
        found += [Case(step, "none") for step in _from_order(self.alone)]
        return found if FULL else [found[0], *random.Random(SEED).sample(found[1:], 11)]


def _from_order(steps: Sequence[Step]) -> Sequence[Step]:
    return steps[steps.index(Step("after sending the body of POST /v2/pods")) :]


@pytest.fixture(scope="module")
def found(world: World) -> Found:
    """The boundaries of a create."""
    records = {}
    for alone in (False, True):
        place = world.place(f"found-{alone}".lower())
        record = place.folder / "steps"
        assert run(asked, place, None, record, alone) == -signal.SIGKILL
        kill_keepers(place)
        records[alone] = steps_in(record)
    return Found(records[False], records[True])


def killed(place: Place, case: Case, lease_s: float = LEASE_S) -> str:
    """Have an asker die there; what is wrong with that, "" for nothing."""
    status = run(asked, place, case.step, None, case.keeper == "none", lease_s)
    if case.keeper != "alive":
        kill_keepers(place)
    return "" if status == -signal.SIGKILL else f"{case}: its asker was not killed, it ended with {status}"


def tried(world: World, case: Case, number: int) -> str:
    """What is wrong with what came of it; "" for nothing."""
    place = world.place(f"kill{number}")
    verdict = place.folder / "verdict"
    try:
        if said := killed(place, case, ADOPTED_S):
            return said
        if run(judged, place, case, verdict) != 0:
            return f"{case}: nobody could tell"
        said = verdict.read_text()
        return said and f"{case}: {said}"
    finally:
        kill_keepers(place)
        end_all(world, place)


def left_alone(world: World, case: Case, number: int) -> tuple[str, float]:
    """What is wrong with what came of it when nobody was left, and how long a pod lived then, in seconds."""
    place = world.place(f"gone{number}")
    try:
        if said := killed(place, case):
            return said, 0.0
        begun = world.sandbox.company.now()
        # The order has left; the company may still be reading it.
        with contextlib.suppress(AssertionError):
            rentals.until(lambda: _pods_of(world, place), 30)
        pods = _pods_of(world, place)
        if len(pods) != 1:
            return f"{case}: {len(pods)} pods came of it", 0.0
        rentals.until(lambda: pods[0].terminated_at is not None, SLACK * GRACE_S + 20)
        lived_s = (pods[0].terminated_at or 0.0) - begun
        # Its start takes a moment; one that was never spoken to waits for a first word for its grace.
        return ("" if lived_s < SLACK * GRACE_S else f"{case}: it lived on for {lived_s:.0f} s"), lived_s
    except AssertionError:
        return f"{case}: it does not end", 0.0
    finally:
        end_all(world, place)


def _pods_of(world: World, place: Place) -> list[PodRecord]:
    return [pod for pod in list(world.sandbox.company.pods.values()) if place.is_mine(pod.name)]


def end_all(world: World, place: Place) -> None:
    """Leave no machine of a failed case to the others."""
    for pod in list(world.sandbox.company.pods.values()):
        if place.is_mine(pod.name) and pod.terminated_at is None:
            world.sandbox.company.terminate(pod.id)


@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_the_step_the_next_load_adopts_the_pod_or_proves_that_there_is_none(
    part: int, world: World, found: Found, record_property: Callable[[str, object], None]
) -> None:
    cases = list(enumerate(found.cases()))[part::PARTS]
    record_property("boundaries of a create", len(found.names))
    record_property("with their second times", f"{len(found.kept)} beside a keeper, {len(found.alone)} without one")
    record_property("cases of this part", len(cases))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        wrong = [said for said in pool.map(lambda each: tried(world, each[1], each[0]), cases) if said]
    assert not wrong, "\n\n".join(wrong)
    missed = [str(case) for number, case in cases if (world.folder / f"kill{number}" / "unreached").exists()]
    record_property("cases that did not come by their step, and were killed at the end", ", ".join(missed) or "none")
    assert len(missed) < len(cases) / 4, missed


def test_with_the_computer_gone_for_good_the_pod_ends_itself(
    world: World, found: Found, record_property: Callable[[str, object], None]
) -> None:
    cases = found.ordered()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        ends = list(pool.map(lambda each: left_alone(world, each[1], each[0]), enumerate(cases)))
    record_property("pods left alone", len(cases))
    record_property("the longest that one lived, s", round(max(lived_s for _, lived_s in ends), 1))
    wrong = [said for said, _ in ends if said]
    assert not wrong, "\n\n".join(wrong)
