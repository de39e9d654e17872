"""`podlab` as a person runs it: a process, its output, its exit code."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import shlex
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from tests import processes

CLI = [sys.executable, "-c", "from podlab.cli import main; main()"]
ENDPOINT_KEYS = {
    "name", "id", "model", "pod", "engine", "state", "cause", "pid", "port", "gpus", "url", "started_at",
}  # fmt: skip


def podlab(*words: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command line; without `stdin` it has none."""
    source: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    done = subprocess.run([*CLI, *words], capture_output=True, text=True, timeout=120, check=False, **source)
    assert not check or done.returncode == 0, done.stderr
    return done


@pytest.fixture
def tiny() -> Any:
    """The built-in model, serving on this computer; stopped afterwards."""
    pytest.importorskip("xllamacpp", reason="install the engine: pip install 'podlab[local]'")
    podlab("model", "start", "tiny")
    yield "tiny"
    podlab("model", "stop", "--all")
    assert processes.saying(f"{os.environ['PODLAB_HOME']}/pod/endpoints") == []


def test_version_and_help() -> None:
    """The two that have to be fast also have to be right."""
    assert podlab("--version").stdout.startswith("podlab 0.")
    said = podlab("--help").stdout
    assert all(group in said for group in ("pod", "model", "chat", "config", "secret", "infer", "logs"))
    assert "example" in podlab("model", "start", "--help").stdout


@pytest.mark.parametrize(
    ("words", "meant"),
    [(["modle"], "model"), (["pod", "lst"], "list"), (["pod", "list", "--jsn"], "--json"),
     (["model", "start", "tniy"], "tiny"), (["pod", "use", "locl"], "local")],
)  # fmt: skip
def test_did_you_mean(words: list[str], meant: str) -> None:
    """A misspelt verb, option or name is refused with what was probably meant."""
    done = podlab(*words, check=False)
    assert done.returncode in (1, 2)
    assert f"Did you mean {meant}?" in done.stderr


def test_exit_codes() -> None:
    """0 done, 1 failed, 2 not understood; `pod run` gives the command's own."""
    assert podlab("pod", "list").returncode == 0
    assert podlab("model", "stop", "nobody", check=False).returncode == 1
    assert podlab("model", "stop", check=False).returncode == 2
    assert podlab("pod", "run", "sh", "-c", "exit 7", check=False).returncode == 7
    assert podlab("pod", "run", "sh", "-c", "kill -9 $$", check=False).returncode == 137


def test_run_keeps_the_streams_apart() -> None:
    """stdout and stderr of a command come out where a pipe expects them; options end at the first operand."""
    done = podlab("pod", "run", "--on", "local", "sh", "-c", "echo out; echo err >&2", "--on", "x", "--help")
    assert done.stdout == "out\n"
    assert "err\n" in done.stderr


def test_run_reads_what_is_piped_into_it(tmp_path: Path) -> None:
    """A file and a pipe reach the command, detached too; without either it reads nothing."""
    assert podlab("pod", "run", "cat", stdin="piped\n").stdout == "piped\n"
    assert podlab("pod", "run", "cat").stdout == ""
    (tmp_path / "file").write_text("from a file\n")
    with (tmp_path / "file").open() as source:
        done = subprocess.run([*CLI, "pod", "run", "cat"], stdin=source, capture_output=True, text=True, check=True)
    assert done.stdout == "from a file\n"
    job = json.loads(podlab("pod", "run", "--detach", "--json", "cat", stdin="later\n").stdout)["id"]
    assert podlab("pod", "attach", job).stdout == "later\n"


def test_interrupt_ends_with_130() -> None:
    """Ctrl-C ends the command on the pod and gives the exit code that shells know."""
    with processes.silent_command() as line:
        words = ["pod", "run", *line.split()]
        process = subprocess.Popen([*CLI, *words], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        processes.wait_until(lambda: processes.running(line), timeout_s=60, why="the command runs")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130, said
        assert not processes.running(line)


def test_the_whole_way(tiny: str) -> None:
    """Start, list, show, chat by operand and by pipe, infer, url, logs, restart, stop: all as documents too."""
    (listed,) = json.loads(podlab("model", "list", "--json").stdout)["endpoints"]
    assert listed.keys() >= ENDPOINT_KEYS
    assert (listed["name"], listed["state"], listed["pod"]) == ("tiny", "ready", "local")
    (pod,) = json.loads(podlab("model", "list", "--json").stdout)["pods"]
    assert (pod["name"], pod["state"]) == ("local", "reachable")
    said = podlab("chat", "tiny", "What is podlab?")
    assert "podlab" in said.stdout and "tokens" in said.stderr
    assert podlab("chat", "What", "is", "podlab?", "--temperature", "0").stdout.strip()
    assert podlab("chat", stdin="Say hello.").stdout.strip()
    reply = json.loads(podlab("chat", "tiny", "Say hello.", "--json", "--seed", "1", "--max-tokens", "5").stdout)
    assert reply["usage"]["completion_tokens"] <= 5
    worker = f"127.0.0.1:{listed['port']}"
    assert podlab("infer", "--worker", worker, "--prompt", "Say hello.", "--max-tokens", "20").stdout.strip()
    key = podlab("model", "url", "tiny", "--show-key").stdout.strip()
    shown = podlab("model", "url", "tiny")
    assert key.startswith("sk-podlab-") and key not in shown.stdout + shown.stderr
    exports = json.loads(podlab("model", "url", "tiny", "--json").stdout)["exports"]
    assert any(listed["url"] in line for line in exports)
    assert len(podlab("model", "logs", "tiny", "-n", "3").stdout.splitlines()) == 3
    podlab("model", "restart", "tiny")
    (again,) = json.loads(podlab("model", "list", "--json").stdout)["endpoints"]
    assert (again["id"], again["state"]) == (listed["id"], "ready")
    assert again["pid"] != listed["pid"]


def test_starting_twice_starts_one(tiny: str) -> None:
    """A second `model start` shows what runs; another model under that name is refused."""
    done = podlab("model", "start", "tiny")
    assert "runs already" in done.stderr
    assert len(json.loads(podlab("model", "list", "--json").stdout)["endpoints"]) == 1
    assert podlab("model", "start", "tiny", "--name", "second").returncode == 0
    names = {endpoint["name"] for endpoint in json.loads(podlab("model", "list", "--json").stdout)["endpoints"]}
    assert names == {"tiny", "second"}


def test_dry_run_changes_nothing() -> None:
    """--dry-run says what would be done, and does none of it."""
    said = podlab("model", "start", "tiny", "--dry-run").stdout
    assert "serve: " in said
    assert "have tiny on local" in said
    assert json.loads(podlab("model", "list", "--json").stdout)["endpoints"] == []
    podlab("config", "set", "chat.max_tokens", "9", "--dry-run")
    (row,) = json.loads(podlab("config", "show", "chat.max_tokens", "--json").stdout)["settings"]
    assert (row["value"], row["source"]) == (512, "default")


def test_errors_as_documents() -> None:
    """With --json an error is a document on stdout, and the exit code still tells."""
    done = podlab("model", "show", "nobody", "--json", check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["kind"] == "NotFound"


def test_secrets_are_shown_nowhere(tmp_path: Path) -> None:
    """A secret given on standard input is kept privately, listed by name, and never printed."""
    canary = "hf_canary0123456789"
    podlab("secret", "set", "HF_TOKEN", stdin=canary + "\n")
    home = Path(os.environ["PODLAB_HOME"])
    assert (home / "keys" / "HF_TOKEN").stat().st_mode & 0o777 == 0o600
    for words in (["secret", "list"], ["secret", "list", "--json"], ["config", "show"], ["logs"]):
        done = podlab(*words)
        assert canary not in done.stdout + done.stderr
    assert podlab("secret", "remove", "HF_TOKEN", check=False).returncode == 1
    podlab("secret", "remove", "HF_TOKEN", "--yes")
    assert json.loads(podlab("secret", "list", "--json").stdout)["secrets"] == []


def test_a_key_of_config_that_is_none_stops_what_is_not_meant_to_mend_it() -> None:
    """A misspelt setting is no setting in disguise: verbs refuse and say what was meant; `config` shows and mends."""
    podlab("config", "set", "rent.ttl", "2h")
    config = Path(podlab("config", "path").stdout.strip())
    config.write_text(config.read_text() + "bugdet_usd = 5\n")
    refused = podlab("model", "catalog", check=False)
    assert (
        refused.returncode == 1 and f"{config} has a key that podlab does not know: rent.bugdet_usd." in refused.stderr
    )
    assert "Did you mean rent.budget_usd?" in refused.stderr
    shown = podlab("config", "show", "rent.ttl")
    assert "2h" in shown.stdout and "rent.bugdet_usd" in shown.stderr
    config.write_text(config.read_text().replace("bugdet", "budget"))
    assert "$5" in podlab("config", "show").stdout
    assert json.loads(podlab("config", "show", "rent.ttl", "--json").stdout)["settings"][0]["value"] == 7200


def test_config_in_a_terminal() -> None:
    """set, show, path; a wrong value names the setting, the value and the fix."""
    podlab("config", "set", "chat.temperature", "0")
    (row,) = json.loads(podlab("config", "show", "chat.temperature", "--json").stdout)["settings"]
    assert (row["value"], row["source"]) == (0.0, "file")
    done = podlab("config", "set", "chat.temperature", "hot", check=False)
    assert done.returncode == 2
    assert "chat.temperature" in done.stderr and "hot" in done.stderr and "from 0 to 2" in done.stderr
    assert podlab("config", "path").stdout.strip().endswith("config.toml")


def test_a_document_and_the_output(tmp_path: Path) -> None:
    """With --json the document stands alone on stdout, and what the command said goes to stderr; an end that nobody
    saw is no success."""
    done = podlab("pod", "run", "--json", "sh", "-c", "echo said; echo --json")
    assert json.loads(done.stdout)["state"] == "succeeded"
    assert "said\n--json\n" in done.stderr
    job = json.loads(podlab("pod", "run", "--detach", "--json", "sleep", "8765").stdout)["id"]
    ours = processes.marked(job)
    assert ours
    for pid in processes.saying(job) + ours:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert podlab("pod", "attach", job, check=False).returncode != 0


def test_settings_that_cannot_be_read_can_be_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken config.toml stops every verb but the ones that mend it and those that end what costs money."""
    Path(os.environ["PODLAB_HOME"], "config.toml").write_text("broken = [")
    done = podlab("pod", "list", check=False)
    assert done.returncode == 1 and "podlab config edit" in done.stderr
    assert "No rented pods" in podlab("pod", "terminate", "--all", "--yes").stdout, "nor those that end what is billed"
    monkeypatch.setenv("EDITOR", "true")
    assert json.loads(podlab("config", "edit", "--json").stdout)["argv"][0] == "true"
    monkeypatch.setenv("EDITOR", "no-such-editor")
    assert "no-such-editor" in podlab("config", "edit", check=False).stderr


def test_numbers_are_checked() -> None:
    """A number that means nothing is refused by name, wherever it is given."""
    for line in ("chat x --temperature -3", "chat x --max-tokens 0", "infer --url x --prompt x --max-tokens 0",
                 "model start tiny --port 99999", "model start tiny --slots 0",
                 "model start tiny --context 0"):  # fmt: skip
        words = line.split()
        done = podlab(*words, check=False)
        assert done.returncode == 2, (words, done.stderr)


def test_two_starts_at_the_same_moment() -> None:
    """Two people start the same model at once: both end with the one endpoint that runs."""
    pytest.importorskip("xllamacpp", reason="install the engine: pip install 'podlab[local]'")
    both = [
        subprocess.Popen([*CLI, "model", "start", "tiny", "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for _ in range(2)
    ]
    ids = {json.loads(each.communicate(timeout=90)[0])["endpoint"]["id"] for each in both}
    assert [each.returncode for each in both] == [0, 0] and len(ids) == 1
    podlab("model", "stop", "--all")


def test_a_conversation_in_a_terminal(tiny: str) -> None:
    """Without a prompt `podlab chat` is a conversation that ends at end of input."""
    main, child = pty.openpty()
    process = subprocess.Popen([*CLI, "chat", "tiny"], stdin=child, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    os.close(child)
    os.write(main, b"Say hello.\nWhat did I just ask you?\n\n")
    said, _ = process.communicate(timeout=60)
    os.close(main)
    assert process.returncode == 0
    assert len(said.decode().strip()) > 20


@pytest.mark.parametrize("words", [["show"], ["reset"], ["save", "x.json"], ["load", "x.json"]])
def test_what_only_a_notebook_keeps(words: list[str]) -> None:
    """No conversation outlives a command: these words are refused, with what works in a terminal."""
    done = podlab("chat", *words, check=False)
    assert done.returncode == 2
    assert "Begin a conversation with podlab chat" in done.stderr and f"/{words[0]}" in done.stderr


def test_a_mistyped_endpoint_is_no_prompt(tiny: str) -> None:
    """Two words are a name and a prompt; one that is nearly a name is not said to a model."""
    for words, hint in ((["nope", "hi"], "podlab model list"), (["tniy", "hi"], "Did you mean tiny?"),
                        (["tniy"], "Did you mean tiny?"), (["tniy", "how", "are", "you"], "tiny")):  # fmt: skip
        done = podlab("chat", *words, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"There is no endpoint {words[0]!r}." in done.stderr and hint in done.stderr


def test_switches_and_help_before_the_verb() -> None:
    """-v and --json may come first, and help is a word."""
    assert json.loads(podlab("--json", "pod", "list").stdout)["pods"]
    assert "local" in podlab("-v", "pod", "list").stdout
    assert podlab("pod", "help").stdout == podlab("pod", "--help").stdout
    assert podlab("help", "pod", "list").stdout == podlab("pod", "list", "--help").stdout


def _shell(line: str) -> subprocess.CompletedProcess[str]:
    """A line of bash in which $podlab is the command line."""
    environment = {**os.environ, "podlab": " ".join(map(shlex.quote, CLI))}
    line = f'podlab() {{ {environment["podlab"]} "$@"; }}; {line}'
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, check=False)


def test_output_that_nobody_reads() -> None:
    """A pipe that was closed ends the command quietly, with the exit code of a broken pipe."""
    done = _shell("podlab pod list | true; echo ${PIPESTATUS[0]}")
    assert (done.stdout, done.stderr) == ("141\n", "")
    done = _shell("podlab pod list >&- 2>&- <&-; echo $?")
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_output_that_cannot_be_written() -> None:
    """A full disk is said in one line, and is a failure."""
    for line in ("podlab pod list", "podlab --help", "podlab config show --json"):
        done = _shell(f"{line} >/dev/full")
        assert (done.returncode, done.stderr) == (1, "podlab: The output cannot be written: No space left on device.\n")
    assert _shell("podlab pod lst 2>/dev/full").returncode == 1


def test_a_command_whose_output_nobody_reads_is_ended() -> None:
    """`pod run` stops what it started when its reader leaves; it would fill the pod's disk with its log."""
    done = _shell("podlab pod run seq 1 999999999 | head -n 1; echo ${PIPESTATUS[0]}")
    assert (done.stdout, done.stderr) == ("1\n141\n", "")
    (job,) = json.loads(podlab("pod", "jobs", "--json").stdout)["jobs"]
    assert job["state"] == "cancelled"


def test_text_that_the_terminal_has_no_sign_for_is_written_as_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command or a model may say anything: in a narrow encoding that is no traceback, and JSON keeps all of it."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    assert podlab("pod", "run", "printf", "\u00fc\u2713").stdout == "\\xfc\\u2713"
    done = podlab("pod", "run", "--json", "printf", "\u00fc\u2713")
    assert done.stdout.isascii() and "\u00fc\u2713" in json.loads(done.stdout)["command"]


def test_a_files_name_that_is_no_text_is_shown(tmp_path: Path) -> None:
    """Linux has names of any bytes; what cannot be read in one is written as its code."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "plain").write_text("x")
    Path(os.fsdecode(os.fsencode(source) + b"/odd\xff")).symlink_to("nowhere")
    done = podlab("pod", "push", str(source), str(tmp_path / "target"))
    assert "1 left out" in done.stdout
    assert json.loads(podlab("pod", "push", str(source), str(tmp_path / "other"), "--json").stdout)["left_out"]


def test_what_the_disk_refuses_is_an_error_of_ours() -> None:
    """A file where a folder should be, or the other way round, is named, and there is no traceback."""
    home = Path(os.environ["PODLAB_HOME"])
    (home / "config.toml").symlink_to(home / "nowhere" / "config.toml")
    done = podlab("config", "edit", check=False)
    assert done.returncode == 1 and done.stderr.startswith(f"podlab: {home}/config.toml cannot be used")
    (home / "config.toml").unlink()
    (home / "logs").mkdir(exist_ok=True)
    (home / "logs" / "podlab.log").unlink(missing_ok=True)
    (home / "logs" / "podlab.log").mkdir()
    done = podlab("logs", check=False)
    assert done.returncode == 1 and done.stderr.startswith(f"podlab: {home}/logs/podlab.log cannot be used")
    (home / "config.lock").mkdir()
    done = podlab("config", "set", "pod", "local", check=False)
    assert done.returncode == 1 and done.stderr.startswith(f"podlab: {home}/config.lock cannot be used")
    assert "Traceback" not in done.stderr


def test_a_terminal_gets_no_word_in_two_pieces() -> None:
    """Errors, notices and questions are broken between words there; where nobody looks a line stays a line."""
    words = ["model", "show", "an-endpoint-with-quite-a-long-name", "--on", "a-pod-with-a-long-name-that-is-not-there"]
    plain = podlab(*words, check=False).stderr
    assert max(map(len, plain.splitlines())) > 60
    main, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 50, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen([*CLI, *words], stdin=child, stdout=child, stderr=child, env=environment)
    os.close(child)
    said = b""
    with contextlib.suppress(OSError):  # how a terminal ends that nobody writes to any more
        while piece := os.read(main, 65536):
            said += piece
    process.wait(timeout=60)
    os.close(main)
    assert max(map(len, said.decode().splitlines())) < 50
    assert said.decode().split() == plain.split()


def test_slashes_in_a_conversation(tiny: str, tmp_path: Path) -> None:
    """/save, /reset, /load and /show work on the conversation; what is no such word is an error, and ends nothing."""
    kept = tmp_path / "talk it over.json"
    lines = ["/show", "Say hello.", f"/save '{kept}'", "/reset", "/show", f"/load '{kept}'", "/sohw", "/save", "/help",
             "/show '", "What did I just ask you?", f"/save '{kept}.2'", ""]  # fmt: skip
    main, child = pty.openpty()
    process = subprocess.Popen([*CLI, "chat", tiny], stdin=child, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.close(child)
    os.write(main, "\n".join([*lines, ""]).encode())
    said, complaints = (stream.decode() for stream in process.communicate(timeout=60))
    os.close(main)
    assert process.returncode == 0
    saved, later = (json.loads(Path(path).read_text())["messages"] for path in (kept, f"{kept}.2"))
    assert [message["role"] for message in saved] == ["user", "assistant"]
    assert later[:2] == saved and later[2]["content"] == "What did I just ask you?" and len(later) == 4
    assert f"Saved 2 messages to {kept}." in said and f"The conversation with {tiny} is forgotten." in said
    assert said.count("user: Say hello.") == 1  # /load shows it; the second /show had nothing to show
    assert complaints.count("There is no conversation with 'tiny' here.") == 2
    for complaint in ("Did you mean /show?", "Write it as /save FILE", "/load FILE  go on with", "Close the quote."):
        assert complaint in complaints
