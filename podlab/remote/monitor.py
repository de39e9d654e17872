"""What watches one endpoint or job on the pod: runs its steps in order and records how it ended.

Standard library only, Python 3.8 or newer; the supervisor writes it into the endpoint's folder, machine.py included,
and starts it in a session of its own: monitor.py FOLDER TELL. What must not be on disk or in an argv comes as one JSON
object on standard input; a byte goes to descriptor TELL once the first step runs or could not be started.

The steps write the log themselves and live in sessions of their own: when the monitor is killed, the engine serves on,
and only its exit status is lost.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time

from podlab.remote.evidence import Witness
from podlab.remote.machine import (
    MARK,
    MARK_HOME,
    Table,
    answers,
    ask_port,
    boot_id,
    gives_a_token,
    one_process,
    read_json,
    write_json,
)
from podlab.remote.streams import end_of, shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from podlab.remote.machine import Json

CHECKS_S = 0.1
"""Between looks at an endpoint that is not ready. While nobody listens on its port, that is one refused connection."""
NOTE_SIZES_S = 5.0
LOOK_S, HURRIED_S = 1.0, 0.1
"""Between looks at how much the streams take, and when one of them grows fast."""
LEFTOVER_GRACE_S = 5.0
RECORD_TRIES = 120


class Monitor:
    """One generation of one endpoint or job."""

    def __init__(self, folder: str, tell: int, given: Json) -> None:
        self.folder, self.tell, self.given = folder, tell, given
        self.spec: Json = read_json(self.file("spec.json")) or {}
        self.run: Json = read_json(self.file("run.json")) or {}
        self.generation = self.run["generation"]
        self.streams = ("log",) if given["kind"] == "endpoint" else ("stdout", "stderr")
        self.noted: list[int] = []
        self.noted_at = 0.0
        self.ends: list[int] = []
        self.witness: Witness | None = None
        # A signal that a child ended wakes the select of `attend` through this pipe: no polling, no waiting thread.
        self.woken, wake = os.pipe()
        for descriptor in (self.woken, wake):
            os.set_blocking(descriptor, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake)

    def file(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def main(self) -> None:
        """Run the steps."""
        me = one_process(os.getpid())
        self.run["monitor"] = {"pid": os.getpid(), "start": me.start if me else ""}
        self.run["boot"] = boot_id()
        for number, step in enumerate(self.spec["steps"], 1):
            if self.stop_is_asked():
                self.record(step["name"], None, None, "stopped before it began")
                return
            last = number == len(self.spec["steps"])
            try:
                child = self.begin(step)
            except OSError as error:
                self.refuse(step, error)
                return
            status = self.attend(child, ready_check=last and bool(self.spec.get("health")))
            if last or status != 0:
                self.record(step["name"], *((status, None) if status >= 0 else (None, -status)))
            if self.given["kind"] == "endpoint":
                self.end_leftovers(child.pid)
            if status != 0:
                return

    def stop_is_asked(self) -> bool:
        asked = read_json(self.file("stop.json"))
        return asked is not None and asked.get("generation") == self.generation

    def begin(self, step: Json) -> subprocess.Popen[bytes]:
        """Start a step in a session of its own and put it on record."""
        argv = [self.filled(word) for word in step["argv"]]
        if os.path.exists(self.file("progress.json")):
            os.unlink(self.file("progress.json"))  # of the step before
        append = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        outputs = [os.open(self.file(f"{name}.{self.generation}"), append, 0o600) for name in self.streams]
        given = self.file("stdin") if os.path.exists(self.file("stdin")) else os.devnull
        source = os.open(given, os.O_RDONLY)
        try:
            os.umask(self.given["umask"])
            env = self.environment(step)
            child = subprocess.Popen(
                argv, stdin=source, stdout=outputs[0], stderr=outputs[-1], start_new_session=True,
                cwd=self.spec["cwd"] or self.folder, env=env,
            )  # fmt: skip
        finally:
            os.umask(0o077)
            for descriptor in (source, *outputs):
                os.close(descriptor)
        process = one_process(child.pid)
        self.run.update(step=step["name"], argv=argv, pid=child.pid, start=process.start if process else "")
        try:
            write_json(self.file("run.json"), self.run)
        except OSError:
            os.killpg(child.pid, signal.SIGKILL)  # what is on no record must not run
            child.wait()
            raise
        if given != os.devnull:
            os.unlink(given)  # whoever reads it has it open, and nobody else is meant to
        self.say_begun()
        if self.given["kind"] == "endpoint":
            places = [self.given["home"], *(env[name] for name in ("HOME", "HF_HOME", "HF_HUB_CACHE") if name in env)]
            self.witness = Witness(child.pid, self.spec.get("gpus") or [], places)
        return child

    def filled(self, text: str) -> str:
        """`text` with our placeholders replaced, and nothing else that looks like one."""
        values = {"{port}": str(self.run["port"]), "{dir}": self.folder, "{home}": self.given["home"]}
        for token, value in values.items():
            text = text.replace(token, value)
        return text

    def environment(self, step: Json) -> dict[str, str]:
        env = dict(self.given["fetch_env" if step["name"] in ("prepare", "download") else "env"])
        for name, value in step["env"].items():
            env[name] = self.filled(value).replace("{path}", env.get("PATH", "")).replace("{key}", self.key())
        env.update(self.given["secrets"].get(step["name"], {}))
        env.update({MARK: self.spec["id"], MARK_HOME: self.given["home"]})
        return env

    def key(self) -> str:
        try:
            with open(self.file("key"), encoding="ascii") as file:
                return file.read().strip()
        except FileNotFoundError:
            return ""

    def say_begun(self) -> None:
        if self.tell >= 0:
            os.close(self.tell)  # whoever waits reads the end of the pipe
            self.tell = -1

    def attend(self, child: subprocess.Popen[bytes], ready_check: bool) -> int:
        """Wait for its end, and meanwhile see to the streams: note how long they are, and that they do not fill the
        disk."""
        ended = threading.Event()
        if ready_check:
            threading.Thread(target=self.note_ready, args=(child.pid, ended), daemon=True).start()
        while child.poll() is None:
            pause_s = self.see_to_streams()
            if select.select([self.woken], [], [], pause_s)[0]:
                os.read(self.woken, 512)
        ended.set()
        self.see_to_streams()
        return child.returncode

    def see_to_streams(self) -> float:
        """Keep them below the cap; returns how long they may be left alone."""
        paths = [self.file(f"{name}.{self.generation}") for name in self.streams]
        cap_bytes = self.spec.get("log_cap_bytes")
        before, self.ends = self.ends, [end_of(path) for path in paths]
        try:
            if time.monotonic() - self.noted_at >= NOTE_SIZES_S:
                self.noted_at = time.monotonic()
                self.note_sizes()
            if cap_bytes:
                for path in paths:
                    shorten(path, cap_bytes)
        except OSError:
            pass  # a full disk, a folder that was deleted: no reason to leave our child
        if self.witness is not None:
            self.witness.look()
        grown = max(end - then for end, then in zip(self.ends, before or self.ends))
        return HURRIED_S if cap_bytes and grown > cap_bytes // 16 else LOOK_S

    def note_sizes(self) -> None:
        """So that a time can be found in a log whose lines tell none."""
        if self.ends != self.noted:
            self.noted = self.ends
            descriptor = os.open(self.file(f"marks.{self.generation}"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.write(descriptor, " ".join([f"{time.time():.3f}", *map(str, self.ends)]).encode() + b"\n")
            os.close(descriptor)

    def note_ready(self, pid: int, ended: threading.Event) -> None:
        """Record when it is first seen ready."""
        while not ended.wait(CHECKS_S):
            if not answers(self.run["port"]):
                continue
            pids = sorted(Table(self.given["home"]).of(self.spec["id"], pid), key=lambda each: each != pid)
            if ask_port(self.run["port"], self.spec["health"], self.key, pids)["answers_as_ready"]:
                health = self.spec["health"]
                if health.get("probe") and not gives_a_token(self.run["port"], health, self.key()):
                    continue
                try:
                    return write_json(self.file(f"ready.{self.generation}.json"), {"v": 1, "at": time.time()})
                except OSError:
                    continue  # a full disk may have room later
        return None

    def record(self, step: str, status: int | None, number: int | None, error: str = "") -> None:
        """How it ended."""
        facts = {"v": 1, "step": step, "status": status, "signal": number, "at": time.time(), "error": error}
        if self.witness is not None and not self.stop_is_asked():
            facts["evidence"] = self.witness.tell()
        for _ in range(RECORD_TRIES):
            try:
                write_json(self.file(f"exit.{self.generation}.json"), facts)
                break
            except FileNotFoundError:
                break  # the folder was deleted: nobody is left to tell
            except OSError:
                time.sleep(1.0)  # a full disk may have room later
        self.say_begun()

    def refuse(self, step: Json, error: OSError) -> None:
        """A step that cannot be started: as a shell would put it, 127 for what is not there, else 126."""
        message = f"{self.filled(step['argv'][0])}: {error.strerror}"
        path = self.file(f"{self.streams[-1]}.{self.generation}")
        with open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "w") as log:
            log.write(f"podlab: {message}\n")
        self.run.update(step=step["name"], argv=[self.filled(word) for word in step["argv"]])
        write_json(self.file("run.json"), self.run)
        self.record(step["name"], 127 if isinstance(error, FileNotFoundError) else 126, None, message)

    def end_leftovers(self, group: int) -> None:
        """Workers of an engine that outlive it hold the GPU's memory: end its group. Its number is free for others
        only when nobody is left in it, and then there is nobody to signal."""
        began = time.monotonic()
        number: int = signal.SIGTERM
        while time.monotonic() - began < 2 * LEFTOVER_GRACE_S:  # a zombie that init never reaps stays in it for ever
            try:
                os.killpg(group, number)
            except (ProcessLookupError, PermissionError):
                return
            time.sleep(0.05)
            number = 0 if time.monotonic() - began < LEFTOVER_GRACE_S else signal.SIGKILL  # 0 only asks


def main() -> None:
    """See the top of the file."""
    os.umask(0o077)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # whatever a nohup somewhere above us ignores, an engine must not
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    given = json.loads(sys.stdin.buffer.read())
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    Monitor(sys.argv[1], int(sys.argv[2]), given).main()


if __name__ == "__main__":
    main()
