"""The documents keep their word: commands exist verbatim, links lead somewhere, pages made from code are in step."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podlab.commands import rent_results, results
from podlab.commands.parsing import called
from podlab.commands.table import VERBS

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    page for place in ("*.md", "docs/**/*.md", "podlab/**/*.md", "scripts/**/*.md") for page in ROOT.glob(place)
)
QUICKSTART = ROOT / "notebooks" / "00_quickstart.ipynb"
SELLING = (
    "blazing", "seamless", "effortless", "cutting-edge", "state-of-the-art", "revolutionary", "world-class", "powerful",
    "game-changing", "supercharge", "simply ", "robust and", "next-generation", "lightning",
)  # fmt: skip
UNFINISHED = ("todo", "fixme", "lorem ipsum", "coming soon")
SOMEBODYS_MACHINE = re.compile(r"/(?:home|Users|root|work|workspace)/\w|C:\\Users")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def code_cells() -> list[str]:
    cells = json.loads(QUICKSTART.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def anchors(text: str) -> set[str]:
    """The anchors a page's headings get: lower case, punctuation gone, spaces as dashes."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            if "://" not in target and not target.startswith("mailto:"):
                yield page, target


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def podlab(*argv: str) -> Any:
    """The document a verb prints."""
    done = subprocess.run([sys.executable, "-c", "import podlab.cli; podlab.cli.main()", *argv, "--json"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    return json.loads(done.stdout)


def test_the_readme_begins_with_the_two_commands() -> None:
    first = blocks((ROOT / "README.md").read_text(), "[a-z]*")[:3]

    assert first[0] == "scripts/quickstart\n"
    assert first[1] == "scripts/test\n"
    assert len(first[2].splitlines()) == 5


def test_the_five_lines_of_the_readme_are_the_notebook() -> None:
    *single, magic, said = blocks((ROOT / "README.md").read_text(), "[a-z]*")[2].splitlines()
    wanted = [*single, f"{magic}\n{said}"]

    cells = [cell for cell in code_cells() if cell in wanted]

    assert cells == wanted


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/security.md", ".ci/run"]
)
def test_every_chore_that_is_named_is_there_and_can_be_run(page: str) -> None:
    for script in set(re.findall(r"\bscripts/[a-z-]+\b(?![./_])", (ROOT / page).read_text())):
        assert os.access(ROOT / script, os.X_OK), script


def chores() -> list[str]:
    return sorted(file.name for file in (ROOT / "scripts").iterdir() if file.is_file() and not file.suffix)


@pytest.mark.parametrize("chore", chores())
def test_every_chore_is_in_the_readme_and_explains_itself(chore: str) -> None:
    done = subprocess.run([ROOT / "scripts" / chore, "--help"], capture_output=True, text=True, check=True)

    assert f"scripts/{chore}" in done.stdout
    assert f"`scripts/{chore}`" in (ROOT / "README.md").read_text()
    assert done.stderr == ""


def test_a_chore_refuses_an_option_it_does_not_know() -> None:
    for chore in ("quickstart", "check", "bench", "docs", "install"):
        done = subprocess.run([ROOT / "scripts" / chore, "--nonsense"], capture_output=True, text=True, check=False)

        assert done.returncode == 2, chore
        assert "--nonsense" in done.stderr


def test_ci_runs_the_checks_and_the_tests() -> None:
    assert re.findall(r"^scripts/\w+", (ROOT / ".ci" / "run").read_text(), re.MULTILINE) == [
        "scripts/check",
        "scripts/test",
    ]


def test_pages_made_from_the_code_are_in_step() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "pages.py", "--check"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.words)
def test_every_verb_has_a_summary_an_example_and_a_place_in_the_reference(verb: Any) -> None:
    reference = (ROOT / "docs" / "reference.md").read_text()

    assert verb.summary.endswith(".")
    assert verb.words in verb.example
    assert f"\n{called(verb, magic=bool(verb.in_terminal))} " in reference
    assert verb.example.splitlines()[0] in reference
    assert f"| `{verb.words}` |" in (ROOT / "docs" / "json.md").read_text()


def test_every_document_is_described() -> None:
    text = (ROOT / "docs" / "json.md").read_text()
    kinds = [
        kind
        for room in (results, rent_results)
        for kind in vars(room).values()
        if dataclasses.is_dataclass(kind) and kind.__module__ == room.__name__
    ]

    assert {kind.__name__ for kind in kinds} - {"Outcome"} == {
        kind.__name__ for kind in kinds if f"\n### {kind.__name__}\n" in text
    }


def described(kind: str) -> list[str]:
    section = (ROOT / "docs" / "json.md").read_text().partition(f"\n### {kind}\n")[2].partition("\n### ")[0]
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


@pytest.mark.parametrize(
    "argv, kind, rows, row_kind",
    [
        (("pod", "list"), "PodList", "pods", "PodStatus"),
        (("pod", "show", "local"), "PodDetail", None, None),
        (("pod", "jobs"), "JobList", None, None),
        (("pod", "tunnel", "list"), "TunnelList", None, None),
        (("model", "list"), "EndpointList", "pods", "PodStatus"),
        (("model", "catalog"), "ModelList", "models", "ModelRow"),
        (("config", "show"), "SettingList", "settings", "SettingRow"),
        (("config", "path"), "Done", None, None),
        (("secret", "list"), "SecretList", None, None),
        (("logs",), "LogLines", None, None),
        (("pod", "push", "a", "b", "--dry-run"), "Plan", None, None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_a_verb_prints_is_what_is_described(
    argv: tuple[str, ...], kind: str, rows: str | None, row_kind: str | None
) -> None:
    document = podlab(*argv)

    assert list(document) == described(kind)
    if rows is not None and row_kind is not None:
        assert [list(row) for row in document[rows]] == [described(row_kind)] * len(document[rows])
        assert document[rows]


def test_every_link_leads_somewhere() -> None:
    broken = []
    for page, target in links():
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        if not there.exists() or (anchor and anchor not in anchors(there.read_text())):
            broken.append(f"{name(page)}: {target}")

    assert not broken


def test_the_map_names_every_room_that_is_a_folder() -> None:
    readme = (ROOT / "README.md").read_text()
    rooms = {folder.name for folder in (ROOT / "podlab").iterdir() if (folder / "__init__.py").exists()}

    assert {room for room in rooms if f"(podlab/{room}/)" not in readme} <= {"keeper", "providers"}


def test_the_changelog_has_a_place_for_what_comes() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)

    assert headings[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", heading) for heading in headings[1:])
    kinds = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_page_sells_promises_or_names_a_machine(page: Path) -> None:
    text = page.read_text()
    words = text.lower()

    assert [word for word in (*SELLING, *UNFINISHED) if word in words] == []
    assert SOMEBODYS_MACHINE.findall(text) == []


def test_the_locked_lists_name_no_address() -> None:
    for file in (ROOT / "requirements").glob("*.txt"):
        text = file.read_text()

        assert "://" not in text
        assert not re.search(r"^-", text, re.MULTILINE), "an option of pip"
        packages = re.findall(r"^\S+==\S+.*\\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n?)+", text, re.MULTILINE)
        assert len(packages) == len(re.findall(r"^\S+==", text, re.MULTILINE)), "a package without a hash"


def test_the_licence_is_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text()

    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
