"""A rented pod from its creation to the request for its end, with a real machine behind it and no keeper beside it."""

from __future__ import annotations

import errno
import os
import threading

import pytest

from podlab import settings
from podlab.display.text import text
from podlab.errors import AlreadyExists, BadArgument, NotFound, Refused, StateDamaged, Unreachable
from podlab.events import Answer, Ask
from podlab.lab import ending, pods
from podlab.lab.launches import all_launches
from podlab.ledger import Ledger
from podlab.sandbox.serve import Running
from podlab.settings import home
from podlab.types import GpuSample
from tests.audiences import Silent
from tests.commands.conftest import Say
from tests.sandbox_pods import until

pytestmark = [pytest.mark.usefixtures("sandbox"), pytest.mark.timeout(240)]


class Choosing(Silent):
    """Takes the second machine that is offered, and says yes to its price."""

    def ask(self, ask: Ask) -> Answer:
        super().ask(ask)
        return 1 if ask.kind == "choice" else True


def test_a_price_needs_a_yes_and_a_dry_run_rents_nothing(say: Say, sandbox: Running) -> None:
    """What it costs, its cap, its deadline and the worst case are said before anything is rented."""
    plan = say("pod create lab --dry-run --ttl 1h")
    assert plan.name == "lab" and plan.cap_usd is not None
    audience = Silent(False)
    with pytest.raises(Refused, match="nothing was rented"):
        say("pod create lab --gpu A40 --ttl 1h", audience=audience)
    asked = audience.asked[0]
    assert asked.kind == "price" and "A40" in asked.question and "/h" in asked.question
    assert "(simulated)" in asked.question
    facts = dict(asked.facts)
    assert (
        "at most" in facts["cap"] and facts["deadline"] == "in 1 h" and "if this computer died" in facts["worst case"]
    )
    with pytest.raises(Refused, match="No machine was chosen"):
        say("pod create lab --interactive", audience=Silent(None))
    assert sandbox.company.pods == {}
    assert all(not launch.is_open for launch in all_launches(Ledger()))


@pytest.mark.parametrize("trouble", ["full", "damaged"])
def test_every_pod_is_asked_to_end_where_the_ledger_cannot_be_written(
    say: Say, sandbox: Running, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    """A disk that is full, or a line that was changed: what a person wants ended is not billed on because of it."""
    for name in ("one", "two"):
        say(f"pod create {name} --gpu A40 --ttl 1h", yes=True)
    if trouble == "full":

        def no_room(self: Ledger, line: bytes, intact_bytes: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(Ledger, "_write", no_room)
    else:
        place = home() / "ledger.jsonl"
        lines = place.read_bytes().splitlines(keepends=True)
        place.write_bytes(b"".join([*lines[:-1], b'{"broken": true}\n', lines[-1]]))
        assert {row.name for row in say("pod list", code=1).rentals} == {"one", "two"}
    audience = Silent(True)

    with pytest.raises(
        StateDamaged, match="end of one could not .* asked for all the same.* The end of two could"
    ) as no:
        say("pod terminate --all", audience=audience)

    assert "podlab pod terminate" in no.value.hint
    assert ("What can still be read" in "".join(each.text for each in audience.notices)) is (trouble == "damaged")
    until(lambda: all(pod.terminated_at is not None for pod in sandbox.company.pods.values()))


def test_from_a_choice_to_an_end_that_was_asked_for(say: Say, sandbox: Running) -> None:
    audience = Choosing()
    made = say("pod create lab --interactive --ttl 1h", audience=audience)
    choice, price = audience.asked[0], audience.asked[-1]
    assert [choice.kind, price.kind] == ["choice", "price"], "nobody is asked about a host key that the log vouches for"
    assert choice.choices[1].startswith("RTX A6000, secure: $0.")
    assert made.rental.gpu == "RTX A6000" and made.rental.simulated and made.gpus and made.rental.state == "running"
    assert made.rental.protection and made.rental.worst
    stages = [stage.key for stage in audience.stages]
    assert [key for key in ("rented", "image", "container", "sshd", "cuda") if key in stages][-1] == "cuda"
    (row,) = say("pod list").rentals
    assert (row.name, row.state) == ("lab", "running")
    assert say("pod show lab").rental.rental_id == made.rental.rental_id
    assert say("pod wait lab").rental.state == "running"
    assert say("pod run --on lab -- nvidia-smi").status == 0
    with pytest.raises(AlreadyExists):
        say("pod create lab --gpu A40", yes=True)
    with pytest.raises(BadArgument, match="may be billed") as refused:
        say("pod remove lab")
    assert "podlab pod terminate" in refused.value.hint
    assert "A6000" in text(say("pod gpu lab"))
    audience = Silent(False)
    with pytest.raises(Refused, match="the bill goes on"):
        say("pod stop lab", audience=audience)
    assert [(each.kind, "files are lost" in each.question) for each in audience.asked] == [("delete", True)]
    stopped = say("pod stop lab", yes=True)
    assert stopped.state == "stopped" and 0 < stopped.usd_per_hour < 0.1
    with pytest.raises(Unreachable, match="is stopped") as gone:
        say("pod gpu lab")
    assert gone.value.hint == "Start it: podlab pod start lab"
    assert [row.detail for row in say("pod list").pods if row.pod.name == "lab"] == [
        "stopped; start it: podlab pod start lab"
    ]
    started = say("pod start lab", yes=True)
    assert started.rental.state == "running" and started.rental.usd_per_hour > 0.3
    (ended,) = say("pod terminate lab --no-wait", yes=True).rentals
    assert ended.state == "ending"
    assert not [pod for pod in sandbox.company.pods.values() if pod.terminated_at is None], "nothing is billed there"


def test_a_pod_that_is_in_no_list_is_claimed_back(say: Say) -> None:
    """As after a kernel that was killed in the middle of a create: the ledger knows it, the list of pods does not."""
    say("pod create lab --gpu A5000", yes=True)
    settings.update_config(lambda document: document["pods"].pop("lab"))
    assert [pod.name for pod in pods.all_pods()] == ["local"]
    assert say("pod show lab").protection, "it can still be shown"
    (lost,) = (row for row in say("pod orphans", code=1).orphans if row.owner == "ours")
    assert lost.name == "lab"
    assert say("pod claim lab").state == "running"
    assert say("pod orphans").orphans == () and say("pod show lab").rental is not None
    with pytest.raises(NotFound):
        say("pod claim nobody")
    say("pod terminate --all --no-wait", yes=True)


def test_a_gpu_shows_the_engine_that_works_on_it_and_falls_when_that_is_stopped(say: Say) -> None:
    """Its use is what the engine's processes take of the processors, its memory what they hold."""
    say("pod create lab --gpu A40", yes=True)
    assert say("model start tiny --on lab").endpoint.state == "ready"
    over = threading.Event()

    def speak() -> None:
        while not over.is_set():
            say('chat tiny "Tell me a story." --new --max-tokens 400')

    speaker = threading.Thread(target=speak)
    speaker.start()
    try:
        busy = until(lambda: card if (card := look(say)).utilization_percent and card.memory_used_bytes else None)
    finally:
        over.set()
        speaker.join()
    assert busy.processes and any(process.owner == "tiny" for process in busy.processes)
    say("model stop tiny", yes=True)
    until(lambda: (card := look(say)).memory_used_bytes == 0 and card.utilization_percent == 0)


def look(say: Say) -> GpuSample:
    (card,) = say("pod gpu lab").gpus
    assert isinstance(card, GpuSample)
    return card


def test_a_name_means_the_pod_that_has_it_now(say: Say, sandbox: Running) -> None:
    """Two pods that swapped their names: what is said to one must not end the other."""
    blue = say("pod create blue --gpu A40 --ttl 1h", yes=True).rental.rental_id
    green = say("pod create green --gpu A40 --ttl 1h", yes=True).rental.rental_id
    for old, new in (("blue", "old"), ("green", "blue")):
        say(f"pod rename {old} {new}")
    assert {row.name: row.rental_id for row in say("pod list").rentals} == {"old": blue, "blue": green}
    assert say("pod show blue").rental.rental_id == green
    assert "blue" in text(say("pod terminate blue --dry-run"))
    assert say("pod cost blue").costs[0].of == "blue"
    (ended,) = say("pod terminate blue --no-wait", yes=True).rentals
    assert (ended.name, ended.rental_id) == ("blue", green)
    assert sandbox.company.pods[blue].terminated_at is None
    # Where no pod is called so now, the name that it was rented by will do.
    say("pod rename blue new")
    with pytest.raises(Refused):
        say("pod stop green")
    assert say("pod stop old", yes=True).rental_id == blue


def test_a_slip_of_the_pen_in_the_settings_keeps_no_meter_running(say: Say, sandbox: Running) -> None:
    say("pod create lab --gpu A40 --ttl 1h", yes=True)
    with settings.config_path().open("a") as config:
        config.write("\nbroken = = 3\n")
    (row,) = say("pod list", code=1).rentals
    assert (row.name, row.state) == ("lab", "running")
    assert say("pod show lab").state == "running"
    assert say("pod stop lab", yes=True).state == "stopped"
    with pytest.raises(NotFound, match="pod is in use|is called"):
        say("pod terminate other", yes=True)
    audience = Silent()
    (ended,) = say("pod terminate lab --no-wait", yes=True, audience=audience).rentals
    assert ended.state == "ending"
    found = say("pod orphans", code=1)
    assert "cannot be read" in found.problems[-1] and not found.orphans


def test_who_interrupts_a_terminate_is_told_that_it_goes_on(
    say: Say, sandbox: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*of: object, **how: object) -> None:
        raise KeyboardInterrupt

    say("pod create lab --gpu A40 --ttl 1h", yes=True)
    monkeypatch.setattr(ending, "until_proven", interrupted)
    audience = Silent(True)

    with pytest.raises(KeyboardInterrupt):
        say("pod terminate lab", audience=audience)

    assert audience.notices[-1].text.startswith("lab was asked to end, which is not proven yet")
    until(lambda: all(pod.terminated_at is not None for pod in sandbox.company.pods.values()))
