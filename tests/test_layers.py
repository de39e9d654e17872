"""The house of docs/architecture.md: a room imports only from lower floors, and no room of its own floor.

Every import counts, inside functions and under TYPE_CHECKING too. `DOORS` are the few openings between rooms of one
floor, each with its reason.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "podlab"

FLOORS: dict[str, int] = {
    "errors": 0,
    "events": 0,
    "types": 0,
    "renting": 0,
    "units": 0,
    "quoting": 0,
    "durable": 0,
    "settings": 1,
    "gpu_names": 1,
    "wire": 1,
    "secrets": 2,
    "store": 2,
    "ledger": 2,
    "http": 2,
    "logs": 3,
    "providers": 3,
    "transport": 3,
    "remote": 3,
    "engines": 3,
    "catalog": 3,
    "telemetry": 3,
    "chat": 3,
    "loadtest": 3,
    "lab": 4,
    "keeper": 5,
    "gateway": 5,
    "sandbox": 5,
    "commands": 6,
    "display": 7,
    "notebook": 8,
    "server": 8,
    "terminal": 8,
    "dialogue": 8,
    "cli": 8,
    "__main__": 8,
    "__init__": 8,
}
NOT_BUILT_YET = {"gateway", "server", "__main__"}

DOORS: dict[tuple[str, str], str] = {
    ("units", "errors"): "text that is no size or duration is refused with an error of the tree",
    ("quoting", "errors"): "what no shell can carry is refused with an error of the tree",
    ("durable", "errors"): "a file that cannot be trusted is an error of the tree",
    ("http", "secrets"): "a key is a Secret until the request is made, and is masked in what an error quotes",
    ("cli", "terminal"): "the terminal is the audience of the command line",
    ("cli", "dialogue"): "podlab chat is a conversation where a person sits at the terminal",
    ("__init__", "notebook"): "%load_ext podlab",
}

PARAMIKO = {"transport/ssh.py", "transport/tunnel.py", "sandbox/ssh_server.py"}
PRINTS = {"cli.py"}
HTML_TAG = re.compile(
    r"</(?:a|b|br|code|div|em|h[1-6]|hr|i|img|input|li|ol|p|pre|script|span|strong|style|svg|table|tbody|td|th|thead|tr|ul)>"
    r"|<(?:br|hr|img|input|script|style|svg|div|span|table)\b[^>]*>",
    re.IGNORECASE,
)


class Import(NamedTuple):
    file: str
    line: int
    target: str
    """The whole dotted name: podlab.lab.pods, paramiko.message."""


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def name_of(file: Path) -> str:
    return file.relative_to(PACKAGE).as_posix()


def room_of(file: str) -> str:
    return file.split("/", maxsplit=1)[0].removesuffix(".py")


def imports_in(source: str, file: str) -> Iterator[Import]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are absolute here"
            for alias in node.names:
                yield Import(file, node.lineno, f"{node.module}.{alias.name}")
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module":
            if node.args and isinstance(node.args[0], ast.Constant):
                yield Import(file, node.lineno, str(node.args[0].value))


def all_imports() -> list[Import]:
    return [found for file in sources() for found in imports_in(file.read_text(), name_of(file))]


def target_room(target: str) -> str | None:
    """The room of podlab that a dotted name is in; None for other packages and for podlab's own public names."""
    parts = target.split(".")
    if parts[0] != "podlab" or len(parts) == 1:
        return None
    return parts[1] if parts[1] in FLOORS else None


def wrong(found: Import) -> str | None:
    """What is wrong with an import, or None."""
    room, target = room_of(found.file), target_room(found.target)
    if target is None or target == room or (room, target) in DOORS:
        return None
    if target == "remote":
        return f"{found.file}:{found.line} imports {found.target}: remote/ is sent to a pod and imported nowhere"
    if FLOORS[target] < FLOORS[room]:
        return None
    relation = "its own floor" if FLOORS[target] == FLOORS[room] else "a floor above"
    return f"{found.file}:{found.line} (floor {FLOORS[room]}) imports {found.target} from {relation}"


def test_every_room_stands_on_a_floor() -> None:
    here = {room_of(name_of(file)) for file in sources()}

    assert here - FLOORS.keys() == set(), "name the new room in FLOORS, in docs/architecture.md and in its floor's row"
    assert FLOORS.keys() - here - NOT_BUILT_YET == set(), "FLOORS names rooms that are not there"
    assert here & NOT_BUILT_YET == set(), "these rooms are built now: take them out of NOT_BUILT_YET"


def test_rooms_import_only_from_lower_floors() -> None:
    problems = [problem for found in all_imports() if (problem := wrong(found))]

    assert not problems, "\n" + "\n".join(problems)


def test_every_door_between_rooms_of_one_floor_is_used() -> None:
    used = {(room_of(found.file), target_room(found.target)) for found in all_imports()}

    assert DOORS.keys() - used == set()
    assert all(FLOORS[room] == FLOORS[target] for room, target in DOORS), "a door leads to the same floor, never up"


@pytest.mark.parametrize(
    "file, source, wanted",
    [
        ("types.py", "from podlab.lab import pods", "a floor above"),
        ("chat.py", "def f():\n    import podlab.transport.ssh", "its own floor"),
        ("display/html.py", "if TYPE_CHECKING:\n    from podlab.notebook.cell import Cell", "a floor above"),
        ("lab/pods.py", "import importlib\nimportlib.import_module('podlab.cli')", "a floor above"),
        ("lab/pods.py", "from podlab.remote import supervisor", "imported nowhere"),
        ("lab/pods.py", "from podlab import errors", None),
        ("lab/pods.py", "from podlab import __version__", None),
    ],
)
def test_the_rule_sees_every_kind_of_import(file: str, source: str, wanted: str | None) -> None:
    problems = [problem for found in imports_in(source, file) if (problem := wrong(found))]

    assert bool(problems) == bool(wanted)
    assert wanted is None or wanted in problems[0]


def test_what_runs_on_a_pod_needs_nothing_but_its_python() -> None:
    """The server of an engine needs that engine; it runs in the engine's own environment. What fetches a repository
    stands on what fetches a file, which is sent into the same folder."""
    known = sys.stdlib_module_names | {"podlab"}
    strangers = {
        (found.file, found.target.partition(".")[0])
        for found in all_imports()
        if room_of(found.file) == "remote" and found.target.partition(".")[0] not in known
    }

    beside = {"hashing", "hub_requests", "pieces", "download"}
    installing = {("remote/setup.py", "package_index"), ("remote/setup.py", "pythons")}
    fetching = {(f"remote/{file}.py", other) for file in ("download", "pieces", "snapshot") for other in beside}
    makers = {"safetensors_files", "gguf_kinds", "gguf_sentencepiece", "gguf_tokenizer", "convert"}
    converting = {(f"remote/{file}.py", other) for file in makers for other in (*makers, "gguf", "numpy")}
    assert strangers <= {("remote/llamacpp_server.py", "xllamacpp"), *fetching, *installing, *converting}
    rooms = {target_room(found.target) for found in all_imports() if room_of(found.file) == "remote"}
    assert rooms <= {"remote", None}


def test_paramiko_is_imported_where_design_says() -> None:
    found = {each.file for each in all_imports() if each.target.split(".")[0] == "paramiko"}

    assert found <= PARAMIKO


def test_nothing_prints_but_the_command_line_and_the_pod() -> None:
    problems = [
        f"{name_of(file)}:{node.lineno}"
        for file in sources()
        if name_of(file) not in PRINTS and room_of(name_of(file)) != "remote"
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]

    assert not problems


def test_html_is_written_in_display_and_notebook_only() -> None:
    problems = [
        f"{name_of(file)}:{node.lineno}: {node.value[:60]!r}"
        for file in sources()
        if room_of(name_of(file)) not in ("display", "notebook")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and HTML_TAG.search(node.value)
    ]

    assert not problems


def test_the_table_in_the_documentation_is_this_one() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    floors = {
        room.strip("/").removesuffix(".py"): int(row[1])
        for row in re.finditer(r"^\| (\d) \| ([^|]+) \|", text, re.MULTILINE)
        for room in re.findall(r"`([\w/.]+)`", row[2])
    }

    assert floors == {room: floor for room, floor in FLOORS.items() if room not in NOT_BUILT_YET}
