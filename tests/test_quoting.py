"""One argv becomes one shell line, and every shell gives the same argv back."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podlab.errors import BadArgument
from podlab.quoting import shell_line

SHELLS = [path for name in ("sh", "dash", "bash", "zsh", "busybox") if (path := shutil.which(name))]
HOSTILE = [
    "$(touch /tmp/pwned)", "`id`", "; rm -rf ~", "a\nb", "-o", "--", "'", '"', "'\"'", "\\", "*", "~", "!", "!!",
    "{a,b}",
    "#", "$HOME", "a b", "", " ", "\t", "\x01", "\x7f", "é", "\U0001f600", "&&", "|", ">", "<(x)", "=x", "\r",
]  # fmt: skip
words = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0")) | st.sampled_from(HOSTILE)
# What a shell was given, as it was given: each word, and a NUL behind it.
SHOW = "import os,sys; sys.stdout.buffer.write(b''.join(os.fsencode(a)+b'\\0' for a in sys.argv[1:]))"


def given_back(shell: str, argvs: list[list[str]]) -> list[list[str]]:
    """What `printf` and a program were given when `shell` carried out the line of each argv, one shell for all."""
    script = "".join(shell_line(["printf", r"%s\0", "x", *argv, "end"]) + "\n" for argv in argvs)
    command = [shell, "sh"] if shell.endswith("busybox") else [shell]
    done = subprocess.run([*command, "-s"], input=script.encode(), capture_output=True, check=True)
    assert done.stderr == b""
    found: list[list[str]] = []
    for word in done.stdout.decode().split("\0")[:-1]:
        if word == "x" and (not found or found[-1][-1:] == ["end"]):
            found.append([])
        else:
            found[-1].append(word)
    return [argv[:-1] for argv in found]


@pytest.mark.parametrize("shell", SHELLS)
def test_real_shells_give_the_words_back(shell: str) -> None:
    """Any words survive any POSIX shell unchanged, and nothing in them is carried out."""

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.lists(words, max_size=5).filter(lambda argv: "end" not in argv), min_size=1, max_size=20))
    def check(argvs: list[list[str]]) -> None:
        assert given_back(shell, argvs) == argvs

    check()


@pytest.mark.parametrize("shell", SHELLS)
def test_hostile_words_one_by_one(shell: str) -> None:
    """Each word that a shell could take for something else arrives at a program as it is."""
    line = shell_line([sys.executable, "-c", SHOW, *HOSTILE])
    command = [shell, "sh", "-c"] if shell.endswith("busybox") else [shell, "-c"]
    done = subprocess.run([*command, line], capture_output=True, check=True)
    assert done.stdout.decode().split("\0")[:-1] == HOSTILE


def test_undecodable_file_names_travel() -> None:
    """A file name that is no UTF-8 (as Python holds it) arrives byte for byte."""
    word = b"caf\xe9".decode("utf-8", "surrogateescape")
    done = subprocess.run(["sh", "-c", shell_line([sys.executable, "-c", SHOW, word])], capture_output=True, check=True)
    assert done.stdout == b"caf\xe9\0"


def test_nul_is_refused() -> None:
    """No argv can hold a NUL, so it is refused instead of cutting the word there."""
    with pytest.raises(BadArgument, match="NUL"):
        shell_line(["echo", "a\0b"])


def test_an_empty_command_is_refused() -> None:
    """An empty argv is no command; an empty word is one."""
    with pytest.raises(BadArgument, match="empty"):
        shell_line([])
    assert shell_line(["echo", ""]) == "echo ''"
