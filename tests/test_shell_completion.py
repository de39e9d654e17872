"""Tab completion in real shells: each one's own script, answered by the real command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from podlab import settings
from podlab.commands.shell_completion import SCRIPTS

BIN = Path(sys.executable).parent


def bash(*typed: str, cwd: Path) -> list[str]:
    """What bash would offer for a line, its words split as bash splits them, the cursor at the last one."""
    words = " ".join(f"'{word}'" for word in typed)
    script = (
        f"{SCRIPTS['bash']}\nCOMP_WORDS=(podlab {words}); COMP_CWORD={len(typed)}; compopt() {{ :; }}; _podlab\n"
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    return _shell(["bash", "--norc", "-c", script], cwd)


def _shell(argv: list[str], cwd: Path) -> list[str]:
    env = dict(os.environ, PATH=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    ended = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stderr == ""
    return ended.stdout.split("\n")[:-1]


def test_bash_offers_verbs_options_and_live_names(tmp_path: Path) -> None:
    settings.update_config(lambda table: table.update({"pods": {"cellar": {"id": "a", "host": "h"}}}))
    assert bash("mod", cwd=tmp_path) == ["model"]
    assert {"start", "stop", "list"} <= set(bash("model", "", cwd=tmp_path))
    assert bash("pod", "show", "ce", cwd=tmp_path) == ["cellar"]
    assert bash("model", "list", "--on", "", cwd=tmp_path) == ["local", "cellar"]
    assert bash("model", "list", "--o", cwd=tmp_path) == ["--on"]
    assert "tiny" in bash("model", "start", "", cwd=tmp_path)


def test_bash_s_three_words_for_an_option_and_its_value_are_one(tmp_path: Path) -> None:
    assert bash("model", "start", "tiny", "--backend", "=", "cu", cwd=tmp_path) == ["cuda"]
    assert bash("model", "start", "tiny", "--backend", "=", cwd=tmp_path) == ["cpu", "cuda", "metal"]


def test_files_come_quoted_as_the_shell_would(tmp_path: Path) -> None:
    (tmp_path / "my data").mkdir()
    assert bash("pod", "push", "my", cwd=tmp_path) == ["my\\ data/"]


HOSTILE = ["x$(touch${IFS}pwned).log", "x`touch pwned`", "x;touch pwned", "x'y", 'x"y', "x(y)", "x*", "x!y", "x&y|z"]


def test_a_file_s_name_is_never_carried_out(tmp_path: Path) -> None:
    """What is offered, put on a command line and carried out by the shell, is the file's name again."""
    for name in HOSTILE:
        (tmp_path / name).touch()
    offered = bash("pod", "push", "x", cwd=tmp_path)
    assert len(offered) == len(HOSTILE)
    echoed = _shell(["bash", "--norc", "-c", f"printf '%s\\n' {' '.join(offered)}"], tmp_path)
    assert sorted(echoed) == sorted(HOSTILE)
    assert not (tmp_path / "pwned").exists()
    assert bash("pod", "push", "x\\;to", cwd=tmp_path) == ["x\\;touch\\ pwned"]


def test_nothing_is_offered_where_nothing_fits_and_nothing_breaks(tmp_path: Path) -> None:
    assert bash("pod", "run", "ls", "", cwd=tmp_path) == [""]
    (settings.config_path()).write_text("[pods\n")
    assert bash("pod", "show", "", cwd=tmp_path)[0].startswith("--")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_one_the_shell_can_read(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed: apt-get install {shell}")
    printed = _shell([str(BIN / "podlab"), "completion", shell], tmp_path)
    assert "\n".join(printed) + "\n" == SCRIPTS[shell]
    (tmp_path / "script").write_text(SCRIPTS[shell])
    subprocess.run([shell, "-n", str(tmp_path / "script")], check=True, timeout=60)


def test_fish_offers_what_it_was_told(tmp_path: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("fish is not installed: apt-get install fish")
    script = f"{SCRIPTS['fish']}\ncomplete -C 'podlab model cata'"
    assert _shell(["fish", "--no-config", "-c", script], tmp_path) == ["catalog"]
