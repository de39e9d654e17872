"""Models brought to a pod, checked, counted and deleted: on this computer and on a machine reached by SSH."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from podlab import secrets
from podlab.commands.drive import drive
from podlab.errors import BadArgument, EngineUnavailable, GatedRepo, HttpError, NotFound, Refused, TransferFailed
from podlab.events import Notice
from podlab.lab import conversion, downloads, jobs, launch, pods, weights
from podlab.lab.downloads import DownloadWish, Fetched
from podlab.lab.quota import to_evict
from podlab.lab.supervisor import result_of
from podlab.lab.weights import Shelf
from podlab.lab.wish import Wish
from podlab.lab.workspace import Workspace
from podlab.types import EndpointState, ModelDisk, Pod, StoredModel
from tests import machines, processes
from tests.audiences import Silent
from tests.standin import Repo, StandIn, standing_in

LOCAL = pods.find("local")
TINY = Path(__file__).parents[1] / "data" / "tiny"
BUILT_IN = Path(__file__).parents[2] / "podlab" / "catalog" / "data" / "tiny-q8_0.gguf"
SIZE = 40 << 20


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandIn]:
    with standing_in() as made:
        for name in ("tiny", "gguf", "large"):
            folder = tmp_path_factory.mktemp(name)
            made.repos[f"org/{name}"] = Repo(folder)
        for file in TINY.iterdir():
            shutil.copy(file, made.repos["org/tiny"].folder)
        for name in ("tiny-q8_0.gguf", "second.gguf", "other.gguf"):
            shutil.copy(BUILT_IN, made.repos["org/gguf"].folder / name)
        (made.repos["org/large"].folder / "model.safetensors").write_bytes(random.Random(5).randbytes(SIZE))
        (made.repos["org/large"].folder / "config.json").write_text("{}")
        yield made


@pytest.fixture(autouse=True)
def quiet_hub(hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.seen.clear()
    hub.faults.clear()
    hub.gate, hub.reached = None, threading.Event()
    hub.repos["org/tiny"].gated = False
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("PODLAB_BACKOFF_S", "0.01")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, hub: StandIn) -> Iterator[machines.Sshd]:
    """A machine whose hub is the stand-in."""
    if machines.SSHD is None:
        pytest.skip(machines.WHY_SKIPPED)
    server = machines.start_sshd(tmp_path_factory.mktemp("machine"), environment={"HF_ENDPOINT": hub.url})
    yield server
    server.stop()


@pytest.fixture(params=["local", "ssh"])
def pod(request: pytest.FixtureRequest, workspace: Workspace, tmp_path: Path) -> Pod:
    if request.param == "local":
        return LOCAL
    server: machines.Sshd = request.getfixturevalue("machine")
    address = f"ssh {server.user}@{server.host} -p {server.port} -i {server.identity}"
    models = str(tmp_path / "models")
    return drive(pods.add(workspace, "box", address, models_path=models, host_key=server.fingerprint()), Silent())[0]


def fetch(workspace: Workspace, pod: Pod, model: str, audience: Silent | None = None, **wish: object) -> Fetched:
    return drive(
        downloads.download(workspace, pod, DownloadWish(model, **wish)),  # type: ignore[arg-type]
        audience or Silent(), yes=False,
    )  # fmt: skip


def shelf(workspace: Workspace, pod: Pod) -> Shelf:
    return weights.shelf(workspace, pod, workspace.side(pod).hello())


def test_a_repository_arrives_checked_and_a_second_time_nothing_comes(
    workspace: Workspace, pod: Pod, hub: StandIn
) -> None:
    audience = Silent()
    fetched = fetch(workspace, pod, "org/tiny", audience)
    assert fetched.row.state == "done"
    assert fetched.model is not None and fetched.model.id == "hf:org/tiny"
    assert (fetched.model.state, fetched.model.commit) == ("whole", hub.repos["org/tiny"].commit)
    assert {file.name for file in fetched.model.files} == {file.name for file in TINY.iterdir()}
    assert all(file.checked for file in fetched.model.files)
    before = hub.gets("model.safetensors")
    assert fetch(workspace, pod, "org/tiny").row.total_bytes in (0, None)
    assert hub.gets("model.safetensors") == before


def test_a_start_finds_what_was_downloaded(workspace: Workspace, hub: StandIn) -> None:
    """The download goes to where `model start` looks, so that it downloads nothing."""
    pytest.importorskip("xllamacpp", reason="install the engine: pip install 'podlab[local]'")
    model = "hf:org/gguf/tiny-q8_0.gguf"
    fetched = fetch(workspace, LOCAL, model)
    assert fetched.model is not None and fetched.model.id == model
    before = hub.gets("tiny-q8_0.gguf")
    endpoint = drive(launch.start(workspace, LOCAL, Wish(model, name="found")), Silent())
    try:
        assert endpoint.state is EndpointState.READY
        assert hub.gets("tiny-q8_0.gguf") == before
        (stored,) = shelf(workspace, LOCAL).models
        assert stored.used_by == ("found",)
        with pytest.raises(Refused, match="used by found"):
            weights.refuse_used(stored)
    finally:
        result_of(workspace.side(LOCAL).stop(endpoint.id, grace_s=2))
    assert shelf(workspace, LOCAL).models[0].used_by == ()


def test_two_who_want_the_same_download_it_once(workspace: Workspace, pod: Pod, hub: StandIn) -> None:
    hub.gate, hub.gate_at = threading.Event(), 8 << 20
    first = drive(downloads.download(workspace, pod, DownloadWish("org/large"), detach=True), Silent())
    assert hub.reached.wait(30)
    audience = Silent()
    second = drive(downloads.download(workspace, pod, DownloadWish("org/large"), detach=True), audience)
    assert second.row.id == first.row.id
    assert "is being downloaded" in audience.notices[-1].text
    (row,) = [row for row in downloads.listing(workspace, [pod])[0] if row.state == "downloading"]
    assert row.model == "hf:org/large"
    hub.gate.set()
    last = drive(downloads.follow(workspace, pod, first.row.id, "org/large"), Silent())
    assert last.exit is not None and last.exit.status == 0


def test_an_interrupt_ends_the_watching_and_not_the_download(workspace: Workspace, pod: Pod, hub: StandIn) -> None:
    hub.gate, hub.gate_at = threading.Event(), 8 << 20
    work = downloads.download(workspace, pod, DownloadWish("org/large"))
    for event in work:
        if hub.reached.is_set() and getattr(event, "key", "") == "download":
            break
    notice = work.throw(KeyboardInterrupt)
    assert "goes on" in notice.text  # type: ignore[union-attr]
    with pytest.raises(KeyboardInterrupt):
        next(work)
    (row,) = [row for row in downloads.listing(workspace, [pod])[0] if row.state == "downloading"]
    assert {file.name for file in row.files} == {"model.safetensors", "config.json"}
    hub.gate.set()
    rows, _ = drive(downloads.live(workspace, [pod], sleep=lambda _: None), Silent())
    assert rows[0].state == "done" and rows[0].id == row.id


def test_a_link_that_breaks_does_not_end_the_download(
    workspace: Workspace, hub: StandIn, machine: machines.Sshd, tmp_path: Path
) -> None:
    address = f"ssh {machine.user}@{machine.host} -p {machine.port} -i {machine.identity}"
    models = str(tmp_path / "models")
    adding = pods.add(workspace, "cut", address, models_path=models, host_key=machine.fingerprint())
    box, _ = drive(adding, Silent())
    hub.gate, hub.gate_at = threading.Event(), 8 << 20
    work = downloads.download(workspace, box, DownloadWish("org/large"))
    told: list[str] = []
    try:
        while True:
            event = next(work)
            told += [event.text] if isinstance(event, Notice) else []
            if hub.reached.is_set() and not hub.gate.is_set() and getattr(event, "key", "") == "download":
                assert machine.kill_sessions() > 0
                hub.gate.set()
    except StopIteration as end:
        fetched = end.value
    assert any("The link to cut broke" in text for text in told)
    assert fetched.row.state == "done" and fetched.model.state == "whole"


def test_live_shows_a_bar_for_each_file_and_an_interrupt_leaves_it(workspace: Workspace, hub: StandIn) -> None:
    hub.gate, hub.gate_at = threading.Event(), 8 << 20
    begun = drive(downloads.download(workspace, LOCAL, DownloadWish("org/large"), detach=True), Silent())
    assert hub.reached.wait(30)
    watching = downloads.live(workspace, [LOCAL], sleep=time.sleep)
    for stage in watching:
        if len(stage.parts) == 3:  # type: ignore[union-attr]
            break
    assert [part.text.strip() for part in stage.parts[1:]] == ["config.json", "model.safetensors"]  # type: ignore[union-attr]
    assert "go on" in watching.throw(KeyboardInterrupt).text  # type: ignore[union-attr]
    hub.gate.set()
    drive(downloads.follow(workspace, LOCAL, begun.row.id, "org/large"), Silent())


def test_a_cancelled_download_is_said_to_be_and_goes_on_later(workspace: Workspace, hub: StandIn) -> None:
    hub.gate, hub.gate_at = threading.Event(), 30 << 20
    begun = drive(downloads.download(workspace, LOCAL, DownloadWish("org/large"), detach=True), Silent())
    assert hub.reached.wait(30)
    drive(jobs.cancel(workspace, LOCAL, begun.row.id), Silent())
    assert downloads.listing(workspace, [LOCAL])[0][0].state == "cancelled"
    hub.gate.set()
    hub.gate = None
    stored = shelf(workspace, LOCAL).models
    assert not stored or stored[0].state == "partial"
    assert fetch(workspace, LOCAL, "org/large").row.state == "done"


def test_the_token_is_in_the_downloads_environment_alone(workspace: Workspace, hub: StandIn) -> None:
    hub.repos["org/tiny"].gated = True
    with pytest.raises(GatedRepo) as caught:
        fetch(workspace, LOCAL, "org/tiny")
    assert caught.value.page == f"{hub.url}/org/tiny"
    secrets.keep("HF_TOKEN", secrets.Secret(hub.token))
    assert fetch(workspace, LOCAL, "org/tiny").row.state == "done"
    assert processes.saying(hub.token) == []
    home = Path(workspace.side(LOCAL).hello().home)
    kept = [path for path in home.rglob("*") if path.is_file() and hub.token.encode() in path.read_bytes()]
    assert kept == []


@pytest.mark.parametrize(
    "wish, error, said",
    [
        (DownloadWish("org/none"), NotFound, "no "),
        (DownloadWish("org/tiny", revision="other"), NotFound, "other"),
        (DownloadWish("org/tiny", include=("*.onnx",)), NotFound, "no file like"),
        (DownloadWish("tiny"), BadArgument, "not on the hub"),
        (DownloadWish("org/tiny", revision="../x"), BadArgument, "names nothing"),
        (DownloadWish("hf:org/gguf/tiny-q8_0.gguf", include=("*",)), BadArgument, "one file"),
    ],
)
def test_what_cannot_be_downloaded_is_refused_by_its_own_error(
    workspace: Workspace, wish: DownloadWish, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        drive(downloads.download(workspace, LOCAL, wish), Silent())


def test_without_a_network_it_says_so(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(HttpError, match="does not answer"):
        fetch(workspace, LOCAL, "org/tiny")


def test_a_damaged_file_is_named_and_the_next_download_mends_it(workspace: Workspace, pod: Pod, hub: StandIn) -> None:
    fetched = fetch(workspace, pod, "org/tiny")
    assert fetched.model is not None
    facts = workspace.side(pod).hello()
    good = drive(weights.verify(workspace, pod, facts, fetched.model), Silent())
    assert {file.state for file in good} == {"ok"}
    path = Path(fetched.model.path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    found = drive(weights.verify(workspace, pod, facts, fetched.model), Silent())
    assert [file.name for file in found if file.state == "damaged"] == ["model.safetensors"]
    fetch(workspace, pod, "org/tiny")
    assert {file.state for file in drive(weights.verify(workspace, pod, facts, fetched.model), Silent())} == {"ok"}


def test_without_the_hub_the_sums_of_the_download_count(
    workspace: Workspace, hub: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = fetch(workspace, LOCAL, "org/tiny")
    assert fetched.model is not None
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    audience = Silent()
    work = weights.verify(workspace, LOCAL, workspace.side(LOCAL).hello(), fetched.model)
    assert {file.state for file in drive(work, audience)} == {"ok"}
    assert "was not asked" in audience.notices[0].text


def test_a_quota_makes_room_only_when_that_is_agreed_to(workspace: Workspace, pod: Pod, hub: StandIn) -> None:
    facts = workspace.side(pod).hello()
    fetch(workspace, pod, "org/tiny")
    fetch(workspace, pod, "hf:org/gguf/tiny-q8_0.gguf")
    fetch(workspace, pod, "org/tiny")  # so the other is the one that was not used for longest
    weights.set_quota(workspace, pod, facts, SIZE + (8 << 20))
    wish = DownloadWish("org/large")
    nobody = Silent()
    with pytest.raises(Refused, match="has no room"):
        drive(downloads.download(workspace, pod, wish), nobody)
    (asked,) = nobody.asked
    assert asked.kind == "delete" and "tiny-q8_0.gguf" in asked.question and "hf:org/tiny (" not in asked.question
    assert len(shelf(workspace, pod).models) == 2
    drive(downloads.download(workspace, pod, wish), Silent(), yes=True)
    assert {model.id for model in shelf(workspace, pod).models} == {"hf:org/tiny", "hf:org/large"}
    weights.set_quota(workspace, pod, facts, 1 << 20)
    with pytest.raises(Refused, match="has no room"):
        drive(downloads.download(workspace, pod, DownloadWish("hf:org/gguf/tiny-q8_0.gguf")), Silent(), yes=True)


def test_a_start_makes_room_within_the_quota_when_that_is_agreed_to(
    workspace: Workspace, pod: Pod, hub: StandIn
) -> None:
    """What a start brings counts as a download does: the dry run names what would go, nobody's silence deletes it, and
    what an endpoint serves is never among it."""
    pytest.importorskip("xllamacpp", reason="install the engine: pip install 'podlab[local]'")
    facts = workspace.side(pod).hello()
    fetch(workspace, pod, "org/large")
    fetch(workspace, pod, "hf:org/gguf/tiny-q8_0.gguf")
    weights.set_quota(workspace, pod, facts, SIZE + (5 << 20))
    wish = Wish("hf:org/gguf/second.gguf", name="second")
    (said, *_) = drive(launch.plan(workspace, pod, wish), Silent())
    assert said.startswith("delete, once you agree, hf:org/large (")
    nobody = Silent()
    with pytest.raises(Refused, match="Nothing was fetched"):
        drive(launch.start(workspace, pod, wish), nobody)
    (asked,) = nobody.asked
    assert asked.kind == "delete" and "hf:org/large" in asked.question and "tiny-q8_0" not in asked.question
    assert len(shelf(workspace, pod).models) == 2 and not workspace.side(pod).list()
    endpoint = drive(launch.start(workspace, pod, wish), Silent(), yes=True)
    try:
        held = {model.id: model.used_by for model in shelf(workspace, pod).models}
        assert held == {"hf:org/gguf/tiny-q8_0.gguf": (), "hf:org/gguf/second.gguf": ("second",)}
        again = Silent()
        drive(launch.start(workspace, pod, replace(wish, name="third"), detach=True), again)
        assert again.asked == [], "what is there already needs no room"
        weights.set_quota(workspace, pod, facts, 5 << 20)
        with pytest.raises(Refused, match="the rest is in use"):
            drive(launch.start(workspace, pod, Wish("hf:org/gguf/other.gguf", name="other")), Silent(), yes=True)
        assert len(shelf(workspace, pod).models) == 2
    finally:
        for facts_of in workspace.side(pod).list():
            result_of(workspace.side(pod).stop(facts_of.id, grace_s=2))
    assert endpoint.state is EndpointState.READY


def test_a_model_that_is_sent_for_a_start_keeps_to_the_quota(
    workspace: Workspace, machine: machines.Sshd, tmp_path: Path
) -> None:
    address = f"ssh {machine.user}@{machine.host} -p {machine.port} -i {machine.identity}"
    models = tmp_path / "models"
    adding = pods.add(workspace, "full", address, models_path=str(models), host_key=machine.fingerprint())
    box, _ = drive(adding, Silent())
    models.mkdir()
    (models / "old.gguf").write_bytes(b"GGUF" * (2 << 20))
    weights.set_quota(workspace, box, workspace.side(box).hello(), 9 << 20)
    audience = Silent()
    with pytest.raises(Refused, match="Nothing was fetched"):
        drive(launch.start(workspace, box, Wish("tiny")), audience)
    assert "old.gguf" in audience.asked[0].question
    assert [path.name for path in models.glob("*.gguf")] == ["old.gguf"]


def test_what_goes_first_is_what_was_not_used_for_longest_and_nothing_in_use() -> None:
    def model(name: str, size: int, used: float, by: tuple[str, ...] = ()) -> StoredModel:
        return StoredModel(name, "p", f"/{name}", "gguf", "whole", size, used, by)

    models = (model("new", 10, 9.0), model("old", 10, 1.0), model("held", 10, 0.0, ("x",)), model("mid", 10, 5.0))
    found = Shelf(models, ModelDisk("p", "/", 40, 100, 200, 50))
    assert to_evict(found, "next", 10) == ()
    assert [each.id for each in to_evict(found, "next", 15)] == ["old"]
    assert [each.id for each in to_evict(found, "next", 25)] == ["old", "mid"]
    assert [each.id for each in to_evict(found, "old", 15)] == ["mid"], "never what is being downloaded itself"
    assert to_evict(Shelf(models, ModelDisk("p", "/", 40, 100, 200)), "next", 10**12) == ()


def test_names_of_models(workspace: Workspace) -> None:
    fetched = fetch(workspace, LOCAL, "hf:org/gguf/tiny-q8_0.gguf")
    assert fetched.model is not None
    found = shelf(workspace, LOCAL)
    for text in (fetched.model.id, "org/gguf/tiny-q8_0.gguf", fetched.model.path):
        assert weights.named(text, found) == fetched.model
    with pytest.raises(NotFound) as caught:
        weights.named("tiny-q8", found)
    assert fetched.model.id in caught.value.hint
    with pytest.raises(NotFound, match="tiny ships with podlab"):
        weights.named("tiny", found)


@pytest.mark.timeout(300)
def test_a_converted_model_says_the_same(workspace: Workspace, hub: StandIn) -> None:
    """Safetensors made a GGUF file: llama.cpp's greedy text of it is that of the built-in one, which was made from the
    same weights by the script that trains it."""
    pytest.importorskip("xllamacpp", reason="install the engine: pip install 'podlab[local]'")
    fetched = fetch(workspace, LOCAL, "org/tiny")
    assert fetched.model is not None
    facts = workspace.side(LOCAL).hello()
    path = conversion.target(shelf(workspace, LOCAL), fetched.model, "q8_0")
    try:
        made = drive(conversion.convert(workspace, LOCAL, facts, fetched.model, "q8_0", path), Silent())
    except EngineUnavailable as error:
        if "package index" in error.message:
            pytest.skip("no package index to install gguf from")
        raise
    assert made.id == f"pod:{path}" and made.format == "gguf"
    assert greedy(made.path) == greedy(str(BUILT_IN)) != ""
    audience = Silent()
    again = drive(conversion.convert(workspace, LOCAL, facts, fetched.model, "q8_0", path), audience)
    assert again.id == made.id and "is there already" in audience.notices[0].text
    (Path(fetched.model.path) / "config.json").write_text('{"architectures": ["MambaForCausalLM"]}')
    with pytest.raises(EngineUnavailable, match="MambaForCausalLM"):
        drive(conversion.convert(workspace, LOCAL, facts, fetched.model, "f16", f"{path}.2.gguf"), Silent())
    with pytest.raises(BadArgument, match="already"):
        conversion.target(shelf(workspace, LOCAL), made, "q8_0")
    assert not issubclass(EngineUnavailable, TransferFailed)


def greedy(path: str) -> str:
    """What llama.cpp says after a question, the likeliest token each time."""
    code = (
        "import sys, json, xllamacpp as x\n"
        "p = x.CommonParams(); p.model.path = sys.argv[1]; p.n_ctx = 512; p.sampling.seed = 1; p.verbosity = -1\n"
        "s = x.Server(p)\n"
        "a = s.handle_chat_completions({'messages': [{'role': 'user', 'content': 'Hello'}], 'max_tokens': 24,"
        " 'temperature': 0})\n"
        "print('SAID', json.dumps(a['choices'][0]['message']['content']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, timeout=100)
    said = [line for line in done.stdout.splitlines() if line.startswith("SAID ")]
    assert said, done.stderr[-2000:]
    return said[-1]
