"""The exception tree: drawn as it is, short in a notebook, and whole on the other side of a process border."""

from __future__ import annotations

import inspect
import pickle
import re
from collections.abc import Iterator

import pytest

from podlab import errors
from podlab.errors import PodlabError

KINDS = [kind for kind in vars(errors).values() if inspect.isclass(kind) and issubclass(kind, PodlabError)]
SAMPLES = [
    PodlabError("It failed.", hint="Try again."),
    errors.BadArgument("No."),
    errors.Unreachable("Nothing there.", pod="lab", hint="Is it on?"),
    errors.HostKeyUnknown("lab", "gpu.example", "ssh-ed25519", "AAAA", "SHA256:abc"),
    errors.HostKeyChanged("lab", "gpu.example", "SHA256:abc", "SHA256:def"),
    errors.CommandFailed("lab", ("nvidia-smi",), 9, b"", b"one\nNo devices were found\n"),
    errors.CommandTimeout("lab", ("sleep", "9"), 1.5),
    errors.EngineCrashed("It ended.", cause="oom", status=1, log=("first", "last"), hint="Use less."),
    errors.HttpError("502", status=502, body="bad gateway"),
    errors.StreamBroken("It broke off.", partial="Hello"),
]


@pytest.fixture(autouse=True)
def short_errors() -> Iterator[None]:
    errors.show_tracebacks(False)
    yield
    errors.show_tracebacks(False)


def drawn() -> dict[str, str]:
    """Each class of the drawing at the top of the file, and the class it hangs from."""
    parents: list[str] = []
    tree: dict[str, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"    ([│├└─ ]*)(\w+)  +\S", line):
            depth = len(match[1]) // 4
            tree[match[2]] = parents[depth - 1] if depth else "Exception"
            parents[depth:] = [match[2]]
    return tree


def test_the_drawing_is_the_tree() -> None:
    """The tree in the docstring names every class once, under the class it derives from."""
    assert drawn() == {kind.__name__: kind.__mro__[1].__name__ for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_class_says_what_it_is(kind: type[PodlabError]) -> None:
    """Each class has a docstring of its own that ends in a sentence."""
    own = vars(kind).get("__doc__")
    assert own
    assert own.strip().endswith(".")


def test_exit_codes() -> None:
    """A command line that cannot be carried out ends with 2, everything else with 1."""
    assert {kind.__name__: kind.exit_code for kind in KINDS if kind.exit_code != 1} == {"BadArgument": 2}


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_a_notebook_shows_one_to_three_lines(error: PodlabError) -> None:
    """IPython gets one to three lines; the first begins with the class and the message, the hint is the last."""
    lines = error._render_traceback_()
    assert 1 <= len(lines) <= 3
    assert lines[0] == f"{type(error).__name__}: {error}"
    assert not error.hint or lines[-1] == error.hint


def test_foreign_text_stays_on_its_line() -> None:
    """Line ends, escapes and reversed writing from a pod or a server change neither the line count nor the terminal."""
    error = errors.EngineCrashed("a\nb\x1b[2J\u202e", log=("c\r\nd",), hint="e\x9bf")
    lines = error._render_traceback_()
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)


def test_whole_tracebacks_can_be_asked_for() -> None:
    """`show_tracebacks(True)` brings the traceback with its cause, and it can be taken back."""
    errors.show_tracebacks(True)
    assert errors.tracebacks_shown()
    try:
        try:
            raise OSError("below")
        except OSError as cause:
            raise errors.Unreachable("above") from cause
    except errors.Unreachable as error:
        text = "".join(error._render_traceback_())
    assert "OSError: below" in text
    assert "test_errors.py" in text


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_errors_cross_processes(error: PodlabError) -> None:
    """Pickled and read back, an error is of its class, says the same and carries the same evidence."""
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), vars(again), again.lines()) == (str(error), vars(error), error.lines())


def test_a_failed_command_carries_its_evidence() -> None:
    """Status, streams and argv are on the error, stderr's last line is in the message, an empty argv is no trap."""
    error = errors.CommandFailed("lab", ("nvidia-smi", "-L"), 9, b"out", b"one\nNo devices\n")
    assert (error.argv, error.status) == (("nvidia-smi", "-L"), 9)
    assert (error.stdout, error.stderr) == (b"out", b"one\nNo devices\n")
    assert str(error) == "nvidia-smi on pod 'lab' ended with status 9: No devices"
    assert "it said nothing" in str(errors.CommandFailed("lab", (), 9))
