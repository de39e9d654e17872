"""Renting over real sockets: podlab's provider, the sandbox's company, its pods with their real SSH servers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from podlab.commands.drive import drive
from podlab.errors import (
    AlreadyExists,
    BadArgument,
    BadOrder,
    OutOfFunds,
    OutOfStock,
    Refused,
    RentalFailed,
    StateDamaged,
)
from podlab.events import Answer, Ask, Stage
from podlab.lab import ending, pods, rented, renting, tenure
from podlab.lab.launches import Phase, find
from podlab.lab.readiness import Patience
from podlab.sandbox.faults import Fault, refused
from podlab.sandbox.records import Status
from podlab.settings import home
from podlab.transport import kept
from podlab.transport.base import Process
from podlab.transport.host_keys import HostKeys
from tests.audiences import Silent
from tests.lab.shop import WISH, Alone, Shop, shop
from tests.machines import free_port
from tests.processes import wait_until

QUICK = 20.0
"""How fast time passes where something has to be waited for."""


@pytest.fixture
def open_shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setenv("PODLAB_KEEPER", "0")
    with shop(tmp_path) as opened:
        yield opened


@pytest.fixture
def quick_shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setenv("PODLAB_KEEPER", "0")
    with shop(tmp_path, speed=QUICK) as opened:
        yield opened


@pytest.fixture
def paper_shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """Its pods are words only."""
    monkeypatch.setenv("PODLAB_KEEPER", "0")
    with shop(tmp_path, speed=QUICK, machines=False) as opened:
        yield opened


@pytest.fixture(params=["with the keeper", "without"])
def either_shop(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setenv("PODLAB_KEEPER", "1" if request.param == "with the keeper" else "0")
    with shop(tmp_path) as opened:
        yield opened
        kept.stop_keeper()


def verbs(opened: Shop) -> list[str]:
    return [entry.verb for entry in opened.market.ledger.entries()]


def test_a_create_ends_in_a_pod_that_works(open_shop: Shop) -> None:
    """The price is asked about, the host key is confirmed by the log, every command takes it for a pod like others."""
    audience = Silent(True)

    launch = open_shop.create(replace(WISH, name="lab"), audience)

    (asked,) = audience.asked
    assert asked.kind == "price"
    assert "$0.406/h" in asked.question and "(simulated)" in asked.question
    facts = dict(asked.facts)
    assert list(facts) == ["price", "cap", "deadline", "ends too", "worst case"]
    assert "at most" in facts["cap"] and "if this computer died right after" in facts["worst case"]
    assert asked.yes.startswith("Rent for ") and asked.yes.endswith("/h")
    keys = [stage.key for stage in audience.stages]
    assert [key for key in dict.fromkeys(keys) if key not in ("image", "armed")] == [
        "reconcile", "offers", "rented", "sshd", "cuda", "setup",
    ]  # fmt: skip
    pod = pods.find("lab")
    assert (pod.id, pod.provider, pod.rental_id) == (launch.id, "sandbox", launch.rental_id)
    assert open_shop.workspace.side(pod).hello().uid == 0
    assert HostKeys().pinned(pod.id) is not None
    assert launch.phase is Phase.LIVE and launch.armed_at is not None
    assert verbs(open_shop)[:3] == ["rent.ask", "rent.live", "rent.armed"]
    assert (home() / "ssh" / "id_ed25519").stat().st_mode & 0o777 == 0o600
    assert [pod.name for pod in open_shop.living()] == [launch.order_name]


def test_where_there_is_no_stock_the_next_candidate_is_tried(quick_shop: Shop) -> None:
    quick_shop.fault("stock-out")
    audience = Silent(True)

    launch = quick_shop.create(audience=audience)

    assert launch.gpu == "RTX A6000"
    first, second = quick_shop.launches()
    assert (first.gpu, first.phase, second.phase) == ("A40", Phase.REFUSED, Phase.LIVE)
    assert any("no longer any instances" in notice.text for notice in audience.notices)


UNHEARD_OF = "the requested configuration cannot be scheduled at present"


def unheard_of(opened: Shop, times: int | None) -> None:
    opened.running.rest.faults.add(Fault(refused(400, UNHEARD_OF), method="POST", path="/v2/pods", times=times))


def test_a_refusal_in_words_that_nobody_knows_is_followed_by_the_next_candidate(paper_shop: Shop) -> None:
    """400 is a broken rule or no free machine, and only its words tell which: they may be others tomorrow."""
    unheard_of(paper_shop, 1)
    patient = Interrupter("rented", of="RTX A6000")

    with pytest.raises(KeyboardInterrupt):
        paper_shop.create(audience=patient)

    first, second = paper_shop.launches()
    assert (first.gpu, first.phase, second.gpu) == ("A40", Phase.REFUSED, "RTX A6000")
    assert any(UNHEARD_OF in notice.text for notice in patient.notices)


def test_an_order_that_no_machine_is_given_for_is_told_as_such(paper_shop: Shop) -> None:
    unheard_of(paper_shop, None)

    with pytest.raises(BadOrder, match=UNHEARD_OF):
        paper_shop.create()

    assert {row.phase for row in paper_shop.launches()} == {Phase.REFUSED}
    assert len(paper_shop.launches()) > 1


@pytest.mark.parametrize("fault", ["created-500", "created-html", "created-reset", "created-cut"])
def test_a_pod_whose_answer_was_lost_is_found_and_never_asked_for_again(quick_shop: Shop, fault: str) -> None:
    quick_shop.fault(fault)

    launch = quick_shop.create()

    (pod,) = quick_shop.running.company.pods.values()
    assert (pod.id, pod.name) == (launch.rental_id, launch.order_name)
    assert launch.unclear and launch.phase is Phase.LIVE and launch.why == ""
    assert verbs(quick_shop)[:3] == ["rent.ask", "rent.unclear", "rent.live"]


def test_only_after_the_proof_that_nothing_came_is_it_asked_for_again(quick_shop: Shop) -> None:
    quick_shop.fault("create-500")

    launch = quick_shop.create()

    first, second = quick_shop.launches()
    assert (first.phase, len(first.absent_at), second.id) == (Phase.ENDED, 2, launch.id)
    assert first.absent_at[0] - first.asked_at >= first.lag_s + ending.SENT_S
    assert first.order_name != second.order_name
    assert len(quick_shop.running.company.pods) == 1


@pytest.mark.parametrize(("fault", "said"), [("wrong-price", "was agreed|were agreed"), ("wrong-gpu", "was ordered")])
def test_what_was_not_ordered_is_ended_and_told_with_its_ids(paper_shop: Shop, fault: str, said: str) -> None:
    paper_shop.fault(fault)

    with pytest.raises(RentalFailed, match=said) as failed:
        paper_shop.create()

    (pod,) = paper_shop.running.company.pods.values()
    assert failed.value.rental_id == pod.id
    assert pod.status is Status.TERMINATED
    assert find(paper_shop.market.ledger, failed.value.launch) is not None


@pytest.mark.parametrize("fault", ["never-up", "no-sshd", "no-cuda"])
def test_a_bad_machine_is_ended_before_the_next_one_is_rented(quick_shop: Shop, fault: str) -> None:
    quick_shop.fault(fault)
    patience = Patience(image_s=60.0, armed_s=200.0, sshd_s=100.0, poll_s=0.2 * QUICK)
    crew = Alone(quick_shop.workspace, quick_shop.market, patience=patience)

    launch = drive(renting.create(quick_shop.market, replace(WISH, name="lab"), crew), Silent(True))

    first, second = quick_shop.running.company.pods.values()
    assert first.terminated_at is not None
    assert second.created_at >= first.terminated_at
    assert second.data_center != first.data_center
    assert (launch.rental_id, pods.find("lab").rental_id) == (second.id, second.id)


def test_without_money_nothing_else_is_tried(paper_shop: Shop) -> None:
    paper_shop.fault("no-balance", times=None)

    with pytest.raises(OutOfFunds):
        paper_shop.create()

    (row,) = paper_shop.launches()
    assert row.phase is Phase.REFUSED


@pytest.mark.parametrize(("answer", "said"), [(False, "The answer was no"), (None, "Nobody could be asked")])
def test_without_a_yes_nothing_is_rented(paper_shop: Shop, answer: Answer, said: str) -> None:
    with pytest.raises(Refused, match=said):
        paper_shop.create(audience=Silent(answer))

    assert paper_shop.market.ledger.entries() == []
    assert paper_shop.living() == []


class Ponderer(Silent):
    """Takes a while to say yes; meanwhile the price rises."""

    def __init__(self, opened: Shop) -> None:
        super().__init__(True)
        self.opened = opened

    def ask(self, ask: Ask) -> Answer:
        stock = self.opened.running.company.stock
        stock.kinds["NVIDIA A40"] = replace(stock.kinds["NVIDIA A40"], secure_usd=0.52)
        self.opened.market.pause(renting.FRESH_S + 1)
        return super().ask(ask)


def test_a_price_that_rose_since_it_was_quoted_is_refused(paper_shop: Shop) -> None:
    with pytest.raises(Refused, match=r"costs \$0.526/h by now, and \$0.406/h was agreed"):
        paper_shop.create(audience=Ponderer(paper_shop))

    assert paper_shop.living() == []


class Interrupter(Silent):
    """Presses Ctrl-C at the first of these stages that is told, of the pod that it names."""

    def __init__(self, *keys: str, of: str = "") -> None:
        super().__init__(True)
        self.keys = keys
        self.of = of

    def stage(self, stage: Stage) -> None:
        super().stage(stage)
        if stage.key in self.keys and self.of in stage.text:
            self.keys = ()
            raise KeyboardInterrupt


@pytest.mark.parametrize("key", ["image", "rented"])
def test_an_interrupt_ends_the_pod_that_is_not_ready(paper_shop: Shop, key: str) -> None:
    paper_shop.fault("slow-image", seconds=500.0)  # which is seen, however slowly this computer looks
    with pytest.raises(KeyboardInterrupt):
        paper_shop.create(audience=Interrupter(key))

    assert paper_shop.living() == []
    (row,) = paper_shop.launches()
    assert row.phase is (Phase.ENDING if key == "image" else Phase.REFUSED)
    assert "interrupted" in row.why


class Somebody(Silent):
    """Does something when a stage is told the first time, as another terminal would."""

    def __init__(self, key: str, does: Callable[[], None]) -> None:
        super().__init__(True)
        self.key: str | None = key
        self.does = does

    def stage(self, stage: Stage) -> None:
        super().stage(stage)
        if stage.key == self.key:
            self.key = None
            self.does()


def test_what_somebody_ends_while_it_is_looked_for_is_not_rented_anew(quick_shop: Shop) -> None:
    quick_shop.fault("create-500")

    def end() -> None:
        (row,) = quick_shop.launches()
        ending.end(quick_shop.market, row, why="it is not wanted any more", brake="person")

    with pytest.raises(RentalFailed, match="asked for while it was being rented") as failed:
        quick_shop.create(audience=Somebody("settle", end))

    (row,) = quick_shop.launches()
    assert (row.phase, failed.value.ended) == (Phase.ENDED, True)
    assert quick_shop.running.company.pods == {}


def test_a_price_that_rises_by_less_than_the_disk_costs_is_a_risen_price(paper_shop: Shop) -> None:
    """Providers bill the disk beside what they call the price; what was agreed is both together."""
    stock = paper_shop.running.company.stock

    def rise() -> None:
        stock.kinds["NVIDIA A40"] = replace(stock.kinds["NVIDIA A40"], secure_usd=0.404)

    with pytest.raises(RentalFailed, match=r"costs \$0.410/h, and \$0.406/h were agreed"):
        paper_shop.create(audience=Somebody("rented", rise))

    assert paper_shop.living() == []


def test_a_bad_machine_that_only_seems_gone_keeps_the_next_one_from_being_rented(paper_shop: Shop) -> None:
    """Two are never billed at once, whatever a provider says of the first one for a while."""
    paper_shop.fault("never-up")
    paper_shop.fault("delete-404-back", seconds=30.0)
    patience = Patience(image_s=150.0, poll_s=0.2 * QUICK)
    crew = Alone(paper_shop.workspace, paper_shop.market, patience=patience)

    with pytest.raises(KeyboardInterrupt):
        drive(renting.create(paper_shop.market, WISH, crew), Interrupter("image", "armed", of="-002"))

    first, second = paper_shop.running.company.pods.values()
    assert first.terminated_at is not None
    assert second.created_at >= first.terminated_at


def test_without_a_ledger_that_can_be_trusted_nothing_is_rented(paper_shop: Shop) -> None:
    (home() / "ledger.jsonl").write_text("damaged\nlines\n")

    with pytest.raises(StateDamaged):
        paper_shop.create()

    assert paper_shop.living() == []


def test_a_name_that_is_taken_is_refused_before_anything_is_asked(paper_shop: Shop) -> None:
    (home() / "config.toml").write_text('[pods.lab]\nid = "x"\nhost = "example.org"\n')

    with pytest.raises(AlreadyExists):
        paper_shop.create(replace(WISH, name="lab"))

    assert paper_shop.living() == []


def test_a_gpu_that_is_nowhere_is_told_with_the_reasons(paper_shop: Shop) -> None:
    paper_shop.fault("sold-out")

    with pytest.raises(OutOfStock, match="A40, secure: no stock now"):
        paper_shop.create()


def test_one_waits_for_stock_up_to_a_price(quick_shop: Shop) -> None:
    quick_shop.fault("sold-out")
    restock = threading.Timer(1.0, lambda: quick_shop.running.company.stock.free.update({("NVIDIA A40", "EU-SE-1"): 2}))
    restock.start()
    audience = Silent(True)

    launch = quick_shop.create(replace(WISH, wait_s=3600.0, max_usd_per_hour=0.45), audience)

    assert launch.gpu == "A40"
    assert "Wait for a machine up to $0.450/h" in audience.asked[0].question
    assert "stock" in {stage.key for stage in audience.stages}


def test_one_who_waits_no_longer_is_told_that_nothing_was_rented(paper_shop: Shop) -> None:
    paper_shop.fault("sold-out")

    class Impatient(Silent):
        def stage(self, stage: Stage) -> None:
            super().stage(stage)
            if stage.key == "stock":
                raise KeyboardInterrupt

    audience = Impatient(True)
    with pytest.raises(KeyboardInterrupt):
        paper_shop.create(replace(WISH, wait_s=3600.0, max_usd_per_hour=0.45), audience)

    assert audience.notices[-1].text == "It is waited for no longer, and nothing was rented."
    assert paper_shop.living() == []


def test_a_network_volume_decides_where_it_is_rented(paper_shop: Shop) -> None:
    volume = paper_shop.running.company.add_volume("models", 20, "EU-RO-1", None)

    found = drive(renting.plan(paper_shop.market, replace(WISH, volume="models")), Silent())

    assert found.wish.volume == volume.id
    assert [(each.offer.gpu, each.data_centers) for each in found.candidates] == [("RTX A6000", ("EU-RO-1",))]
    with pytest.raises(BadArgument, match="is in EU-RO-1, and --region says US"):
        drive(renting.plan(paper_shop.market, replace(WISH, volume="models", regions=("US",))), Silent())


def serve(opened: Shop, port: int) -> Process:
    """Have the pod answer "hello" on a port for as long as the process is held; it does when this returns."""
    program = (
        "import socketserver,sys\n"
        "class H(socketserver.BaseRequestHandler):\n"
        "    def handle(self): self.request.sendall(b'hello')\n"
        "socketserver.TCPServer.allow_reuse_address = True\n"
        "s=socketserver.TCPServer(('127.0.0.1',int(sys.argv[1])),H)\n"
        "print('ready',flush=True)\n"
        "s.serve_forever()\n"
    )
    process = opened.workspace.transport(pods.find("lab")).start(["python3", "-c", program, str(port)])
    said = process.read(30.0)
    assert said == ("stdout", b"ready\n"), said
    return process


def answer_at(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        return connection.recv(100)


def test_a_tunnel_leads_there_again_after_a_stop_and_a_start(either_shop: Shop) -> None:
    """The port outside is another one after each start, and so are the host keys of an image: both are followed."""
    launch = either_shop.create(replace(WISH, name="lab"))
    before, key, port = pods.find("lab"), HostKeys().pinned(launch.id), free_port()
    first = serve(either_shop, port)
    local_port = either_shop.workspace.local_port(before, port)
    assert answer_at(local_port) == b"hello"

    stopped = drive(tenure.stop(either_shop.market, launch), Silent())
    launch = drive(tenure.start(either_shop.market, launch, either_shop.crew), Silent(True))

    after = pods.find("lab")
    assert stopped.state.value == "stopped"
    assert after.address != before.address
    assert HostKeys().pinned(launch.id) not in (None, key)
    second = serve(either_shop, port)
    assert answer_at(local_port) == b"hello"
    first.close()
    second.close()


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def test_a_pod_that_moved_is_followed_where_it_is_now(open_shop: Shop) -> None:
    """Its public port changes while nobody looks: the next command asks the provider where it is."""
    launch = open_shop.create(replace(WISH, name="lab"))
    before = pods.find("lab")
    open_shop.workspace.drop_transport(before.id)
    open_shop.fault("new-port")
    assert before.address is not None
    port = before.address.port or 0
    (pod,) = open_shop.living()
    wait_until(
        lambda: pod.public_ports.get("22/tcp", port) != port and not answers(port), timeout_s=30,
        why="the old port leads nowhere any more, and the company names another one",
    )  # fmt: skip

    assert open_shop.workspace.side(before).hello().uid == 0
    assert pods.find("lab").address != before.address
    assert rented.pod_of(launch) == pods.find("lab")


@pytest.mark.parametrize("at", ["start", "armed", "sshd"])
@pytest.mark.parametrize("how", ["interrupted", "closed"])
def test_a_pod_whose_start_is_given_up_is_stopped_again(open_shop: Shop, at: str, how: str) -> None:
    """Ctrl-C, or a kernel that drops the cell: nobody has a use for what would be billed from now on."""
    launch = open_shop.create(replace(WISH, name="lab"))
    drive(tenure.stop(open_shop.market, launch), Silent())
    work = tenure.start(open_shop.market, launch, open_shop.crew)
    event = next(work)
    while not (isinstance(event, Stage) and event.key == at):
        event = work.send(True if isinstance(event, Ask) else None)

    if how == "closed":
        work.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            work.throw(KeyboardInterrupt())
            drive(work, Silent())

    (pod,) = open_shop.living()
    wait_until(lambda: pod.status is Status.EXITED, timeout_s=30, why="the pod is stopped again")
    if how == "interrupted":
        row = find(open_shop.market.ledger, launch.id)
        assert row is not None and row.is_stopped


def test_a_machine_without_a_free_gpu_stays_stopped_and_its_disk_is_kept(open_shop: Shop) -> None:
    launch = open_shop.create(replace(WISH, name="lab"))
    drive(tenure.stop(open_shop.market, launch), Silent())
    open_shop.fault("no-gpu-at-host")

    with pytest.raises(OutOfStock, match="has no free GPU, and its disk is on that machine"):
        drive(tenure.start(open_shop.market, launch, open_shop.crew), Silent(True))

    (pod,) = open_shop.living()
    assert pod.status is Status.EXITED
    row = find(open_shop.market.ledger, launch.id)
    assert row is not None and row.spans[-1].state.value == "stopped"


def test_with_its_files_on_a_volume_it_is_rented_anew_where_the_volume_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old one is ended with proof before the new one is asked for; the price is asked about once more."""
    monkeypatch.setenv("PODLAB_KEEPER", "0")
    with shop(tmp_path, lag_s=0.0) as opened:
        volume = opened.running.company.add_volume("models", 20, "EU-RO-1", None)
        launch = opened.create(replace(WISH, name="lab", volume="models"))
        drive(tenure.stop(opened.market, launch), Silent())
        opened.fault("no-gpu-at-host")
        audience = Silent(True)

        again = drive(tenure.start(opened.market, launch, opened.crew), audience)

        assert [asked.kind for asked in audience.asked] == ["price", "delete", "price"]
        first, second = opened.running.company.pods.values()
        assert first.terminated_at is not None
        assert second.created_at >= first.terminated_at
        assert second.wanted.network == (volume.id, "/workspace")
        assert (again.name, pods.find("lab").rental_id) == ("lab", second.id)
