"""The downloader as a process of its own against a hub that fails in every way of the list."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

from podlab.engines.base import Cause
from podlab.engines.diagnosis import diagnose
from tests.remote.bench import PYTHON38
from tests.remote.hub import COMMIT, Hub, Request

PROGRAM = str(resources.files("podlab.remote") / "download.py")
TOKEN = "hf_canary_4d2a"
SIZE = 300_000


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub(random.Random(7).randbytes(SIZE))
    yield made
    made.stop()


class Here:
    """Where files land, and one way to run the program."""

    def __init__(self, folder: Path, hub: Hub) -> None:
        self.folder, self.hub = folder, hub
        self.to = folder / "models" / "a" / "b" / "main" / "m.gguf"
        self.part = Path(f"{self.to}.part")

    def start(self, *more: str, python: str = sys.executable, **env: str | None) -> subprocess.Popen[str]:
        argv = [python, "-u", PROGRAM, "--dir", str(self.folder), "--repo", "a/b", "--revision", "main"]
        argv += ["--file", "m.gguf", "--to", str(self.to), *more]
        given = os.environ | {"HF_ENDPOINT": self.hub.hub_url, "PODLAB_BACKOFF_S": "0.001", "HF_TOKEN": TOKEN} | env
        environment = {name: value for name, value in given.items() if value is not None}
        return subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def run(self, *more: str, python: str = sys.executable, **env: str | None) -> tuple[int, list[str]]:
        child = self.start(*more, python=python, **env)
        said, _ = child.communicate(timeout=60)
        assert TOKEN not in said
        return child.returncode, said.splitlines()

    def fetch(self, *more: str, **env: str | None) -> list[str]:
        """Run, and find the whole file and nothing half."""
        status, said = self.run(*more, **env)
        assert status == 0, said
        assert self.to.read_bytes() == self.hub.data
        assert not self.part.exists()
        return said

    def refuse(self, *more: str, **env: str | None) -> tuple[Cause, str]:
        """Run, and find no file; the client's diagnosis of the last line."""
        status, said = self.run(*more, **env)
        assert status == 1, said
        assert not self.to.exists()
        found = diagnose(said, status)
        return found.cause, found.lines[-1]

    def progress(self) -> dict[str, object]:
        return dict(json.loads((self.folder / "progress.json").read_text()))


@pytest.fixture
def here(tmp_path: Path, hub: Hub) -> Here:
    return Here(tmp_path, hub)


@pytest.mark.parametrize("python", [sys.executable, pytest.param(PYTHON38, marks=pytest.mark.skipif(
    PYTHON38 is None, reason="no Python 3.8 here"))], ids=["own", "3.8"])  # fmt: skip
def test_a_file_arrives_checked_and_is_not_fetched_again(here: Here, hub: Hub, python: str) -> None:
    assert here.run(python=python)[0] == 0
    assert here.to.read_bytes() == hub.data
    told = here.progress()
    assert (told["text"], told["done"], told["total"], told["unit"]) == ("checking m.gguf", SIZE, SIZE, "bytes")
    assert told["files"] == [["m.gguf", SIZE, SIZE]]
    record = json.loads(Path(f"{here.to}.podlab.json").read_text())
    assert (record["digest"], record["commit"], record["size"]) == (f"sha256:{hub.sha256}", COMMIT, SIZE)
    assert here.run(python=python)[0] == 0
    assert (hub.count("hub", "HEAD"), hub.count("store", "GET")) == (2, 1)


def test_the_token_goes_to_the_hub_and_to_no_other_host(here: Here, hub: Hub) -> None:
    here.fetch()
    tokens = {(seen.host, seen.headers.get("Authorization")) for seen in hub.seen}
    assert tokens == {("hub", f"Bearer {TOKEN}"), ("store", None)}


def test_the_token_is_not_sent_in_the_clear(here: Here) -> None:
    cause, line = here.refuse(HF_ENDPOINT="http://hub.example")
    assert cause is Cause.NO_NETWORK
    assert "not https" in line


def test_the_hubs_own_redirects_are_followed(here: Here, hub: Hub) -> None:
    hub.says("hub", "HEAD", 307, Location="/a/renamed/resolve/main/m.gguf")
    here.fetch()
    assert hub.seen[1].path == "/a/renamed/resolve/main/m.gguf"


def test_a_circle_of_redirects_ends(here: Here, hub: Hub) -> None:
    hub.says("hub", "HEAD", 302, times=99, Location="/round")
    assert here.refuse() == (Cause.NO_NETWORK, "the hub redirects in a circle")


def test_a_cut_download_goes_on_where_it_stopped(here: Here, hub: Hub) -> None:
    hub.cuts(100_000)
    hub.cuts(200_000)
    here.fetch()
    ranges = [seen.headers.get("Range") for seen in hub.seen if seen.method == "GET"]
    assert ranges == [None, "bytes=100000-", "bytes=200000-"]
    assert hub.seen[-1].headers["If-Range"] == '"tag-1"'


def test_a_download_that_was_given_up_goes_on_in_the_next_start(here: Here, hub: Hub) -> None:
    hub.cuts(100_000)
    hub.says("store", "GET", 503, times=99)
    here.refuse()
    hub.faults.clear()
    here.fetch()
    assert hub.seen[-1].headers["Range"] == "bytes=100000-"


def test_a_process_killed_half_way_leaves_no_file_and_is_resumed(here: Here, hub: Hub) -> None:
    hub.gate = threading.Event()
    child = here.start()
    assert hub.half.wait(30)
    while not here.part.exists() or not here.part.stat().st_size:
        pass  # the first bytes are on their way from the socket to the file
    child.kill()
    child.communicate()
    assert not here.to.exists()
    hub.gate.set()
    hub.gate = None
    here.fetch()
    assert hub.seen[-1].headers.get("Range", "").startswith("bytes=")


def test_another_content_behind_the_same_link_starts_from_the_beginning(here: Here, hub: Hub) -> None:
    hub.cuts(100_000)

    def change(request: Request) -> bool:
        hub.etag = '"tag-2"'
        return False

    hub.fail("hub", "HEAD", lambda request: False)
    hub.fail("hub", "HEAD", change)
    here.fetch()
    gets = [seen for seen in hub.seen if seen.method == "GET"]
    assert gets[-1].headers["If-Range"] == '"tag-1"', "and the store answered 200 with the whole file"


def test_a_file_that_changes_on_the_hub_meanwhile_is_not_mixed(here: Here, hub: Hub) -> None:
    def change(request: Request) -> bool:
        request.send_data(100_000)
        hub.data = hub.data[::-1]
        return True

    hub.fail("store", "GET", change)
    cause, line = here.refuse()
    assert cause is Cause.NO_NETWORK
    assert "changed on the hub" in line
    here.fetch()


def test_a_wrong_checksum_is_tried_once_more(here: Here, hub: Hub) -> None:
    hub.fail("store", "GET", lambda request: request.send_data(data=bytes(SIZE)) is None)
    assert "is not what the hub says it is" in "\n".join(here.fetch())
    assert hub.count("store", "GET") == 2


def test_a_checksum_that_stays_wrong_leaves_nothing(here: Here, hub: Hub) -> None:
    hub.fail("store", "GET", lambda request: request.send_data(data=bytes(SIZE)) is None, times=9)
    cause, line = here.refuse()
    assert cause is Cause.NO_NETWORK
    assert "another checksum" in line
    assert not here.part.exists()
    assert hub.count("store", "GET") == 2


def test_more_bytes_than_named_are_refused(here: Here, hub: Hub) -> None:
    hub.fail("store", "GET", lambda request: request.send_data(data=hub.data * 2) is None, times=9)
    assert here.refuse() == (Cause.NO_NETWORK, f"the server sends more than the {SIZE} bytes it named")


def test_fewer_bytes_than_named_are_refused(here: Here, hub: Hub) -> None:
    hub.fail("store", "GET", lambda request: request.send_data(data=hub.data[:1000]) is None, times=99)
    cause, line = here.refuse()
    assert cause is Cause.NO_NETWORK
    assert f"of {SIZE}" in line or "refuses" in line or "somewhere else" in line


def test_a_server_that_cannot_go_on_gives_it_from_the_beginning(here: Here, hub: Hub) -> None:
    hub.cuts(100_000)
    hub.fail("store", "GET", lambda request: bool(request.headers.get("Range")) and request.send(416, {}) is None)
    here.fetch()
    assert [seen.headers.get("Range") for seen in hub.seen if seen.method == "GET"] == [None, "bytes=100000-", None]


def test_a_server_that_goes_on_elsewhere_is_not_believed(here: Here, hub: Hub) -> None:
    hub.cuts(100_000)
    fields = {"Content-Range": f"bytes 0-{SIZE - 1}/{SIZE}", "ETag": hub.etag}
    hub.fail("store", "GET", lambda request: request.send(206, fields, hub.data) is None)
    here.fetch()


@pytest.mark.parametrize("status,code", [(401, "GatedRepo"), (403, "GatedRepo"), (401, ""), (403, "")])
def test_a_gated_model_names_the_page(here: Here, hub: Hub, status: int, code: str) -> None:
    hub.says("hub", "HEAD", status, times=9, X_Error_Code=code)
    assert here.refuse() == (Cause.GATED_OR_UNAUTHORIZED, f"a/b wants its terms accepted: see {hub.hub_url}/a/b")
    assert here.refuse(HF_TOKEN=None)[1].startswith("a/b wants a token (HF_TOKEN)")


@pytest.mark.parametrize("status,code", [(404, "EntryNotFound"), (401, "RepoNotFound"), (404, "")])
def test_a_file_that_is_not_there_is_told_at_once(here: Here, hub: Hub, status: int, code: str) -> None:
    hub.says("hub", "HEAD", status, times=9, X_Error_Code=code)
    cause, line = here.refuse()
    assert cause is Cause.MODEL_NOT_FOUND
    assert "no m.gguf in a/b" in line
    assert len(hub.seen) == 1


def test_a_hub_in_trouble_is_asked_again(here: Here, hub: Hub) -> None:
    hub.says("hub", "HEAD", 503)
    hub.says("hub", "HEAD", 429, Retry_After="0")
    hub.says("store", "GET", 500)
    hub.says("store", "GET", 403)  # an expired signed link: the hub gives another
    here.fetch()


def test_a_hub_that_stays_in_trouble_is_given_up(here: Here, hub: Hub) -> None:
    hub.says("hub", "HEAD", 503, times=99)
    assert here.refuse() == (Cause.NO_NETWORK, "the hub answers 503")
    assert len(hub.seen) == 6


def test_a_hub_out_of_reach_does_not_matter_once_the_file_was_checked(here: Here) -> None:
    here.fetch()
    assert "checked before" in "\n".join(here.fetch(HF_ENDPOINT="http://127.0.0.1:9"))
    here.to.write_bytes(b"x" * SIZE)
    status, said = here.run(HF_ENDPOINT="http://127.0.0.1:9")
    assert status == 1, "a file that was touched since is not taken for checked"
    assert diagnose(said, 1).cause is Cause.NO_NETWORK


def test_a_new_version_on_the_hub_replaces_the_file(here: Here, hub: Hub) -> None:
    here.fetch()
    hub.data, hub.etag = hub.data[::-1], '"tag-2"'
    here.fetch()


def test_a_file_put_there_by_hand_is_checked_and_kept(here: Here, hub: Hub) -> None:
    here.to.parent.mkdir(parents=True)
    here.to.write_bytes(hub.data)
    here.fetch()
    assert hub.count("store", "GET") == 0


def test_what_the_catalog_knows_is_held_against_the_hub(here: Here, hub: Hub) -> None:
    assert "the hub's file is another one" in here.refuse("--sha256", "0" * 64)[1]
    assert "not 5 as it should" in here.refuse("--size", "5")[1]
    here.fetch("--sha256", hub.sha256, "--size", str(SIZE))


def test_a_plain_file_is_checked_by_its_git_name(here: Here, hub: Hub) -> None:
    def plain(request: Request) -> bool:
        name = hashlib.sha1(b"blob %d\0" % SIZE + hub.data).hexdigest()
        request.send(200, {"ETag": f'"{name}"', "X-Repo-Commit": COMMIT, "Content-Length": str(SIZE)}, hub.data)
        return True

    hub.fail("hub", "HEAD", plain, times=9)
    hub.fail("hub", "GET", plain)
    here.fetch()
    assert json.loads(Path(f"{here.to}.podlab.json").read_text())["digest"].startswith("git:")


def test_a_disk_without_room_is_told_before_a_byte_is_fetched(here: Here, hub: Hub) -> None:
    huge = {"X-Linked-Size": str(10**18), "X-Linked-ETag": hub.sha256, "Location": f"{hub.store_url}/x"}
    hub.fail("hub", "HEAD", lambda request: request.send(302, huge) is None)
    cause, line = here.refuse()
    assert cause is Cause.DISK_FULL
    assert "GB more" in line
    assert hub.count("store", "GET") == 0


def test_a_disk_that_gets_full_half_way_is_told(here: Here) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # children inherit it
    try:
        cause, _ = here.refuse()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert cause is Cause.DISK_FULL
    here.fetch()


def test_two_starts_at_once_fetch_once(here: Here, hub: Hub) -> None:
    hub.gate = threading.Event()
    first = here.start()
    assert hub.half.wait(30)
    second = here.start()
    assert second.stdout is not None
    assert "waiting for another start" in second.stdout.readline()
    hub.gate.set()
    assert [child.wait(30) for child in (first, second)] == [0, 0]
    for child in (first, second):
        child.communicate()
    assert here.to.read_bytes() == hub.data
    assert hub.count("store", "GET") == 1


def test_all_parts_of_a_split_file_are_fetched(here: Here, hub: Hub) -> None:
    target = here.to.with_name("m-00001-of-00003.gguf")
    status, said = here.run("--file", "q/m-00001-of-00003.gguf", "--to", str(target))
    assert status == 0, said
    assert sorted(path.name for path in target.parent.glob("*.gguf")) == [f"m-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    assert here.progress()["total"] == here.progress()["done"] == 3 * SIZE


@pytest.mark.parametrize("file", ["../m.gguf", "/etc/m.gguf", "x/../../m.gguf"])
def test_a_name_that_leaves_the_repository_is_refused(here: Here, hub: Hub, file: str) -> None:
    assert here.refuse("--file", file)[0] is Cause.BAD_FLAG
    assert hub.seen == []
