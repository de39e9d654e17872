"""Which environment of a pod a start takes: real Pythons with very small packages, on this computer."""

from __future__ import annotations

from pathlib import Path

import pytest

from podlab.commands.drive import drive
from podlab.engines.base import Environment
from podlab.lab import environments, launch, pods
from podlab.lab.facts import PodFacts
from podlab.lab.wish import Wish
from podlab.lab.workspace import Workspace
from tests import vllm_cpu
from tests.audiences import Silent
from tests.remote.test_environments import made_environment, own_environment

LOCAL = pods.find("local")


@pytest.fixture
def facts(workspace: Workspace) -> PodFacts:
    return drive(pods.reach(workspace, LOCAL), Silent())


def chosen(
    workspace: Workspace, facts: PodFacts, engine: str = "sglang", audience: Silent | None = None, *, keep: bool = True,
    python: str | None = None,
) -> Environment | None:  # fmt: skip
    work = environments.chosen(workspace, LOCAL, facts, engine, version=None, python=python, keep=keep)
    return drive(work, audience or Silent())


def changed(python: Path, text: str) -> None:
    next((python.parents[1] / "lib").glob("python3*/site-packages/sglang/__init__.py")).write_text(text)


def test_one_that_works_no_more_is_passed_over_with_a_word(
    workspace: Workspace, facts: PodFacts, tmp_path: Path
) -> None:
    first, second = own_environment(tmp_path / "a", "sglang"), own_environment(tmp_path / "b", "sglang")
    for python in (first, second):
        drive(environments.adopt(workspace, LOCAL, facts, "sglang", str(python)), Silent())
    changed(second, "import nothing_such\n")
    heard = Silent()
    found = chosen(workspace, facts, audience=heard)
    assert found is not None
    assert found.python == str(first)
    (said,) = [notice.text for notice in heard.notices if notice.level == "warning"]
    assert "nothing_such" in said
    changed(first, "import nothing_such\n")
    assert chosen(workspace, facts) is None


def records(facts: PodFacts) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(facts.home, "envs").rglob("*.json")}


def test_a_look_before_a_dry_run_leaves_the_records_as_they_are(
    workspace: Workspace, facts: PodFacts, tmp_path: Path
) -> None:
    python = own_environment(tmp_path / "a", "sglang")
    found = chosen(workspace, facts, python=str(python), keep=False)
    assert found is not None
    assert records(facts) == {}
    drive(environments.adopt(workspace, LOCAL, facts, "sglang", str(python)), Silent())
    before = records(facts)
    changed(python, "__version__ = '2.0'\n")
    found = chosen(workspace, facts, keep=False)
    assert found is not None
    assert found.version == "2.0"
    assert records(facts) == before


def test_a_plan_writes_no_record(workspace: Workspace, facts: PodFacts, tmp_path: Path) -> None:
    python, _ = made_environment(tmp_path)
    wish = Wish(str(vllm_cpu.MODEL), python=str(python), force=True)
    assert any("serve: " in line for line in drive(launch.plan(workspace, LOCAL, wish), Silent()))
    assert records(facts) == {}


def test_what_podlab_made_has_its_options_asked_for_at_its_first_use(workspace: Workspace, facts: PodFacts) -> None:
    made_environment(Path(facts.home))
    for keep in (False, True):
        found = chosen(workspace, facts, "vllm", keep=keep)
        assert found is not None
        assert found.flags == {"--seed", "--max-model-len"}
        (kept,) = environments.listed(workspace, LOCAL, facts)
        assert bool(kept.flags) is keep


def test_one_that_does_not_tell_its_options_is_used_all_the_same(workspace: Workspace, facts: PodFacts) -> None:
    made_environment(Path(facts.home), "raise RuntimeError('no such thing')\n")
    heard = Silent()
    found = chosen(workspace, facts, "vllm", heard)
    assert found is not None
    assert found.flags == frozenset()
    assert any("options" in notice.text for notice in heard.notices)
