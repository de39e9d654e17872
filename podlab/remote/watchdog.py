"""The dead-man switch: runs on a rented pod from its first moment on, and ends the pod when it has to.

Standard library only, Python 3.8 or newer. The pod's start command (podlab/remote/start.sh) starts it before anything
else, watchdog CONFIG ROOT: base64 of a JSON object (see `Config`), and the container's first process. It ends the pod
through the provider's interface when no word came for its lease, when it was idle for too long, at its deadline, and
when its money is spent; for ever and with growing pauses where that fails, by one way after the other. Word from
outside comes through a socket (beat.py): it renews the lease and brings the policy.

What it says goes to the container's log, which anybody in the container can write to as well:

    podlab: armed {json}        it can do its work: the provider accepts the pod's key for the pod itself
    podlab: not armed: why      it cannot, and tries again
    podlab: host key TYPE SHA256:...
    podlab: ending: why         and what became of each attempt
"""

from __future__ import annotations

import base64
import json
import os
import select
import signal
import socket
import sys
import time

from podlab.remote.activity import Judge, gpu_use, look
from podlab.remote.children import Child, bury, inline, stuck
from podlab.remote.host_key_lines import host_key_lines
from podlab.remote.machine import Fault
from podlab.remote.provider_api import ACTIONS, Api, refusal
from podlab.remote.roots import ROOTS
from podlab.remote.switch import (
    PROTOCOL,
    address_of,
    clock,
    folder_of,
    is_over,
    is_trusted,
    life_of,
    read_line,
    started_at,
)
from podlab.remote.switch_rules import State, read, read_earlier, save

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from podlab.remote.machine import Json

STATUS_THERE_ALREADY, STATUS_OVER = 3, 4
"""How it ends where another one is there already; where the container it belongs to is gone."""
CLIENT_S = 2.0
SHM = "/dev/shm/podlab-switch-"
SAVE_S = 60.0
RECALL_S = 5.0
STUCK_LIMIT = 6
"""With so many children that cannot be ended, no more are begun to look what the pod does."""
LOG_LINE_BYTES = 2048
"""A pipe takes as much as this at once or not at all, so that a log nobody reads holds up nothing."""


class Config:
    """What the start command says. All but the launch has a default; the paces are for tests."""

    def __init__(self, told: Json) -> None:
        self.launch = str(told["launch"])
        self.policy: Json = told.get("policy") or {}
        pace: Json = told.get("pace") or {}
        lease_s = float(self.policy.get("lease_s") or 600.0)
        self.grace_s = float(pace.get("grace_s") or max(lease_s, 900.0))
        self.tick_s = float(pace.get("tick_s") or 1.0)
        self.look_s = float(pace.get("look_s") or 15.0)
        self.request_s = float(pace.get("request_s") or 20.0)
        self.retry_s = float(pace.get("retry_s") or 5.0)
        self.retry_limit_s = float(pace.get("retry_limit_s") or 60.0)
        self.check_s = float(pace.get("check_s") or 600.0)
        self.quiet_s = float(pace.get("quiet_s") or 3600.0)
        self.gpu_percent = float(pace.get("gpu_percent") or 5.0)


def say(text: str) -> None:
    """A line of the log. One that nobody takes is lost."""
    line = ("podlab: " + "".join(each if each.isprintable() else " " for each in text)).encode()[: LOG_LINE_BYTES - 1]
    try:
        if select.select([], [1], [], 0)[1]:
            os.write(1, line + b"\n")
    except (OSError, ValueError):
        pass  # there is no log any more


class Arming:
    """Whether the pod's end is known to be in our hands: checked, and checked again."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.armed = False
        self.why = "it has not been checked yet"
        self.due_at = 0.0
        self._fails = 0
        self._held_at = 0.0

    def problem(self, answer: Json, pod: str) -> str:
        """Why an answer about the own pod does not do, "" when it does."""
        if "failed" in answer:
            return "no answer: " + str(answer["failed"])
        if answer.get("status") != 200:
            return refusal(answer)
        if answer.get("id") != pod:
            return f"the provider knows no pod {pod} of ours: {answer.get('detail') or 'another one was shown'}"
        return "the pod is locked at the provider: it cannot be ended" if answer.get("locked") else ""

    def learn(self, problem: str, status: int, now: float) -> bool:
        """Take note of a check. Whether that is worth a line."""
        before = (self.armed, self.why)
        if not problem:
            self.armed, self.why, self._fails, self._held_at = True, "", 0, now
            self.due_at = now + self._config.check_s
            return not before[0]
        self._fails += 1
        self.due_at = now + min(self._config.retry_limit_s, self._config.retry_s * 2 ** min(self._fails - 1, 10))
        self.why = problem
        # A provider that is silent for a while has refused nothing; one that says no has.
        is_silent = status == 0 or status >= 500 or status == 429
        if not is_silent or now - self._held_at > 3 * self._config.check_s:
            self.armed = False
        return not self.armed and before != (False, problem)


class Ending:
    """The attempts to end the pod, one after the other and for ever."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.why = ""
        self.accepted = False
        self.said = ""
        self._turn = self._rounds = 0
        self.due_at = 0.0

    @property
    def action(self) -> str:
        return ACTIONS[self._turn][0]

    def learn(self, answer: Json, now: float) -> str:
        """Take note of an attempt; what to say of it."""
        config, action = self._config, self.action
        status = int(answer.get("status") or 0)
        was_accepted = 200 <= status < 300
        self._turn = (self._turn + 1) % len(ACTIONS)
        self._rounds += self._turn == 0
        pause_s = 0.0
        if was_accepted:
            self.accepted = True
            pause_s = 3 * config.retry_s  # to be ended
        elif self._turn == 0 or status == 0 or status >= 500 or status == 429:
            pause_s = min(config.retry_limit_s, config.retry_s * 2 ** min(self._rounds, 10))
        self.due_at = now + pause_s
        self.said = f"{action}: " + ("accepted" if was_accepted else str(answer.get("failed") or refusal(answer)))
        return f"{self.said}; if this is still here, {self.action} follows in {pause_s:.0f} s"


class Watchdog:
    """The loop. One thread; whatever may hang is a child."""

    def __init__(self, config: Config, root: int, listener: socket.socket) -> None:
        env = os.environ
        now = clock()
        self.config, self.root, self.listener = config, root, listener
        self.life = life_of(root)
        self.api = Api(env, ROOTS)
        self.state = State(config.launch, self.life, started_at(root, now), config.policy, now, config.grace_s)
        self.folders = [folder_of(env), SHM + config.launch]
        self.unsaved, self.save_problem = True, ""
        self.earlier: Json = {}
        """What another life kept, until it is known whether it was of the same run of the pod."""
        self.arming, self.ending = Arming(config), Ending(config)
        self.judge = Judge(config.gpu_percent, config.quiet_s)
        self.busy: list[str] = []
        self.only = f"\0HOME={env.get('HOME', '')}\0".encode() if env.get("PODLAB_SIMULATED") else b""
        # Keys that everybody has (start.sh) are not told.
        self.keys_folder = "" if env.get("PODLAB_KEYS_KNOWN") else env.get("PODLAB_ETC_SSH") or "/etc/ssh"
        self.keys_told: set[str] = set()
        self.children: dict[str, Child] = {}
        self.looked_at: float | None = None
        self.look_due_at = self.saved_at = 0.0
        self.began = (now, time.monotonic())
        self.stumbled = ""

    def recall(self) -> None:
        """Go on where an earlier switch of this life was ended. A disk that hangs holds us up for a moment only."""
        found: Json | None = None
        known = self.folders, self.config.launch, self.life
        try:
            child = Child(lambda: {"own": read(*known), "earlier": read_earlier(*known)}, RECALL_S,
                          self.listener.fileno())  # fmt: skip
            while found is None:
                select.select([child.descriptor], [], [], 0.1)
                found = child.poll()
        except OSError as error:
            self.stumble(f"its state could not be read: {error}")
        found = found or {}
        self.earlier = found.get("earlier") or {}
        if found.get("own"):
            self.state.take(found["own"])
        elif clock() >= self.state.lease_at:
            # We were here before, and nothing was kept of it: that is no reason to end at once.
            self.state.lease_at = clock() + self.state.rules.lease_s

    def run(self) -> int:
        """Until the container is gone."""
        self.recall()
        while not is_over(self.root, self.life):
            for part in (self.take_results, self.end_if_due, self.check_if_due, self.look_if_due, self.tell_keys):
                try:
                    part(clock())
                except Exception as error:  # noqa: BLE001 - nothing that goes wrong here may end what ends the pod
                    self.stumble(f"{type(error).__name__} in {part.__name__}: {error}")
            waiting = [self.listener.fileno(), *(child.descriptor for child in self.children.values())]
            if waiting[0] in select.select(waiting, [], [], self.config.tick_s)[0]:
                self.hear()
        return STATUS_OVER

    def stumble(self, what: str) -> None:
        if what != self.stumbled:
            self.stumbled = what
            say(f"the switch stumbled and goes on: {what}")

    def take_results(self, now: float) -> None:
        """What the children found. A state that has changed is saved by one of them."""
        bury()
        for name, child in list(self.children.items()):
            found = child.poll()
            if found is not None:
                del self.children[name]
                getattr(self, "took_" + name)(found, now)
        # What an earlier life kept is overwritten only once it is known whether it goes on.
        is_known = self.state.run or self.state.beats or not self.earlier
        if is_known and (self.unsaved or now - self.saved_at > SAVE_S) and "save" not in self.children:
            self.unsaved, self.saved_at = False, now
            self.begin("save", lambda: {"problem": save(self.folders, self.state.kept())}, self.config.request_s)

    def took_save(self, found: Json, now: float) -> None:
        self.save_problem = str(found.get("problem") or found.get("failed") or "")

    def look_if_due(self, now: float) -> None:
        if now >= self.look_due_at and stuck() < STUCK_LIMIT:
            self.look_due_at = now + self.config.look_s
            self.begin("look", lambda: look(self.only, now), self.config.request_s)
            self.begin("gpus", gpu_use, self.config.request_s)

    def begin(self, name: str, work: Callable[[], Json], deadline_s: float) -> None:
        """Have a child do it, unless one is at it. What ends the pod needs none."""
        if name in self.children:
            return
        try:
            self.children[name] = Child(work, deadline_s, self.listener.fileno())
        except OSError:
            if name != "act":
                raise
            self.took_act(inline(work, deadline_s), clock())

    def tell_keys(self, now: float) -> None:
        for line in host_key_lines(self.keys_folder) if self.keys_folder else ():
            if line not in self.keys_told and len(self.keys_told) < 20:
                self.keys_told.add(line)
                say(line[len("podlab: ") :])

    # -------------------------------------------------------------------------------------------- armed or not

    def check_if_due(self, now: float) -> None:
        if now < self.arming.due_at or "check" in self.children:
            return
        problem = self.api.problem or self.clock_problem(now)
        if problem:
            self.note_check(problem, 400, now)
        else:
            self.begin("check", self.api.look, self.config.request_s)
            self.arming.due_at = now + self.config.request_s + self.config.retry_s

    def clock_problem(self, now: float) -> str:
        """Whether our clock goes on as time does."""
        passed_s = time.monotonic() - self.began[1]
        return "" if now - self.began[0] >= passed_s - 1.0 else "the clock of this machine stands still"

    def took_check(self, answer: Json, now: float) -> None:
        self.api.known_address = str(answer.get("address") or self.api.known_address)
        if answer.get("status") == 200 and answer.get("id") == self.api.pod:
            had_run = self.state.run
            self.state.belong(answer["run"], answer["run_s"], self.earlier, now, self.config.grace_s)
            self.unsaved = self.unsaved or self.state.run != had_run
            self.earlier = {}
        self.note_check(self.arming.problem(answer, self.api.pod), int(answer.get("status") or 0), now)

    def note_check(self, problem: str, status: int, now: float) -> None:
        if self.arming.learn(problem, status, now):
            armed = self.arming.armed
            say(f"armed {json.dumps(self.state.told(now))}" if armed else f"not armed: {problem}")

    # -------------------------------------------------------------------------------------------- what is done here

    def took_look(self, seen: Json, now: float) -> None:
        self.busy = self.judge.busy(seen, now)
        if "unknown" not in self.busy:
            self.looked_at = now
        if self.busy:
            self.state.busy_at = now

    def took_gpus(self, seen: Json, now: float) -> None:
        self.judge.gpus(seen)

    # -------------------------------------------------------------------------------------------- the end

    def end_if_due(self, now: float) -> None:
        seen = self.looked_at is not None and now - self.looked_at < 3 * self.config.look_s + self.config.request_s
        reasons = self.state.reasons(now, seen=seen)
        if not reasons:
            if self.ending.why and not self.ending.accepted:
                say("not ending any more: " + ("word came" if self.state.beats else "there is no reason any more"))
                self.ending = Ending(self.config)
            if not self.ending.accepted:
                return
        why = "; ".join(f"{rule}: {sentence}" for rule, sentence in reasons) or self.ending.why
        if not self.ending.why:
            say(f"ending: {why}")
        self.ending.why = why
        if now < self.ending.due_at or "act" in self.children:
            return
        if self.api.problem:
            self.ending.due_at = now + self.config.retry_limit_s
            self.api = Api(os.environ, ROOTS)
            say(f"cannot end this pod, it has to be ended from outside: {self.api.problem}")
            return
        action = self.ending.action
        self.begin("act", lambda: self.api.act(action), self.config.request_s)

    def took_act(self, answer: Json, now: float) -> None:
        self.api.known_address = str(answer.get("address") or self.api.known_address)
        say(self.ending.learn(answer, now))

    # -------------------------------------------------------------------------------------------- word from outside

    def hear(self) -> None:
        """One request through the socket."""
        try:
            peer, _ = self.listener.accept()
        except OSError:
            return
        with peer:
            try:
                if not is_trusted(peer):
                    return
                request = json.loads(read_line(peer, CLIENT_S).decode("utf-8"))
                answer = self.answer(request, clock())
            except Fault as fault:
                answer = {"error": {"kind": fault.kind, "message": str(fault)}}
            except (OSError, ValueError, AttributeError, RecursionError):
                return
            try:
                peer.settimeout(CLIENT_S)
                peer.sendall(json.dumps({"v": PROTOCOL, **answer}).encode() + b"\n")
            except OSError:
                pass  # it did not wait

    def answer(self, request: Json, now: float) -> Json:
        """What a beat is answered with. Raises Fault."""
        if request.get("v") != PROTOCOL or request.get("op") not in ("beat", "tell"):
            raise Fault("bad_request", "that is no request to a switch")
        if request.get("launch") != self.state.launch:
            raise Fault("bad_request", "this pod is of another launch")
        if request["op"] == "beat":
            if self.state.hear(request, now):
                say(f"policy {json.dumps(self.state.told(now))}")
            self.unsaved = True
        detail = self.arming.why
        if self.ending.why:
            detail = f"ending: {self.ending.why}" + (f" ({self.ending.said})" if self.ending.said else "")
        return {**self.state.told(now), "armed": self.arming.armed, "detail": (detail or self.save_problem)[:600],
                "busy": self.busy, "ending": bool(self.ending.why)}  # fmt: skip


def main() -> int:
    """See the top of the file."""
    os.umask(0o077)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    for path, text in (("/proc/self/comm", "podlab-switch"), ("/proc/self/oom_score_adj", "-900")):
        try:
            with open(path, "w") as file:
                file.write(text)
        except OSError:
            pass  # a name to be seen in a list, and to be spared where memory is short: neither is needed
    config, root = Config(json.loads(base64.b64decode(sys.argv[1]))), int(sys.argv[2])
    if is_over(root, life_of(root)):
        return STATUS_OVER
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(address_of(config.launch))
    except OSError:
        return STATUS_THERE_ALREADY
    listener.listen(8)
    listener.setblocking(False)
    return Watchdog(config, root, listener).run()


if __name__ == "__main__":
    sys.exit(main())
