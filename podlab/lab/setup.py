"""From a bare machine to one that serves: checks, a mount, the folder for models, an engine's environment.

Every part finds out what is there already, so the whole can be repeated at any time and goes on after any interruption:
the environment is made by a job on the pod, which outlives this process and the link, and which a later run of the same
setup finds and watches. Nothing that runs is touched: another version gets another folder, and what is in use is never
removed. No file of the user's own (shell start-up files, the cache of the Hub) is written.
"""

from __future__ import annotations

import secrets as random
import shlex
import sys
import time
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Literal

from podlab.engines.base import PodFacts as EngineFacts
from podlab.engines.builds import Build, build_named, present_here
from podlab.engines.repository import INSTALLER
from podlab.errors import (
    BadArgument,
    CommandFailed,
    EngineUnavailable,
    LinkLost,
    Refused,
    SupervisorError,
    Unreachable,
)
from podlab.events import Ask, Notice, Stage, Work
from podlab.lab import checks, environments, jobs, pods, wheels
from podlab.lab.checks import Measured, Place
from podlab.lab.environments import Prepared
from podlab.lab.facts import Facts, PodFacts
from podlab.lab.patience import Patience, repeated
from podlab.quoting import shell_line
from podlab.types import Check, EngineVersions, Pod, SetupReport, Step
from podlab.wire import Wire

if TYPE_CHECKING:
    from podlab.lab.workspace import Workspace

META = "setup"
"""Under this name a job says which environment it makes."""
WATCH_S = 3600.0


@dataclass(frozen=True)
class Wants:
    """What a setup is asked for. `engine` None: vLLM where there are GPUs, else llama.cpp."""

    engine: str | None = None
    models_path: str | None = None
    mount: str | None = None
    """A line for `sh`, as the person wrote it."""
    force: bool = False


@dataclass
class _Run:
    """One run of a setup: what is known, and what was done so far."""

    workspace: Workspace
    pod: Pod
    wants: Wants
    facts: PodFacts
    build: Build
    models_path: str
    mount_target: str | None
    there: Prepared | None
    needs_none: bool
    """The Python that runs podlab has the engine."""
    seen: Measured = field(default_factory=Measured)
    found: tuple[Check, ...] = ()
    done: list[Check] = field(default_factory=list)

    @property
    def to_install(self) -> bool:
        return self.there is None and not self.needs_none

    @property
    def refused(self) -> bool:
        """A check says that serving is impossible, and nobody insists."""
        return any(check.state == "failed" for check in self.found) and not self.wants.force

    @property
    def is_mounted(self) -> bool:
        """Something is mounted where the mount is to be, or where models are to be."""
        return any(place.mounted for name, place in self.seen.places.items() if name in ("mount", "models"))

    @property
    def sends_wheels(self) -> bool:
        return self.to_install and (self.seen.index is None or bool(self.seen.index.error))

    def report(self, *, ready: bool = False, installed: bool = False) -> SetupReport:
        there = self.there
        place = None if there is None else there.path or there.environment.python
        return SetupReport(
            self.pod.name, self.build.engine, self.build.version, ready, installed, place, self.models_path,
            self.found, tuple(self.done), EngineVersions() if there is None else there.versions, self.build.verified,
        )  # fmt: skip


def look(workspace: Workspace, pod: Pod, wants: Wants, *, host_key: str | None = None) -> Work[SetupReport]:
    """Only the checks; `ready` says whether an environment is there and nothing is in the way."""
    run = yield from _begin(workspace, pod, wants, host_key)
    return run.report(ready=not run.to_install and not run.refused)


def plan(workspace: Workspace, pod: Pod, wants: Wants, *, host_key: str | None = None) -> Work[tuple[str, ...]]:
    """The commands that a setup would run, stage by stage. The pod is looked at and nothing on it is changed."""
    run = yield from _begin(workspace, pod, wants, host_key)
    for check in run.found:
        if check.state == "failed":
            insisted = "goes on all the same" if wants.force else "would stop here"
            yield Notice(f"{check.name}: {check.detail}. Setup {insisted}. {check.fix}", "warning")
    lines = [f"checks: {', '.join(check.name for check in run.found)}"]
    if wants.mount is not None:
        line = shell_line(["sh", "-c", wants.mount])
        lines.append(f"mount: {'nothing: it is mounted already' if run.is_mounted else line}")
    lines.append(f"models: {shell_line(['mkdir', '-p', run.models_path])}")
    lines += _environment_plan(run)
    if wants.models_path or wants.mount:
        lines.append(f"settings: models_path = {run.models_path!r} for {pod.name} in config.toml, here")
    return tuple(lines)


def setup(workspace: Workspace, pod: Pod, wants: Wants, *, host_key: str | None = None) -> Work[SetupReport]:
    """Bring a pod to serving. Where a check failed, nothing is done but with `force`, and the report is not `ready`.

    Raises Refused when the mount was not agreed to, CommandFailed when it failed, BadArgument when models cannot be
    written where they should go, EngineUnavailable when the environment could not be made. Interrupted while that is
    being made, the job on the pod goes on.
    """
    run = yield from _begin(workspace, pod, wants, host_key)
    if run.refused:
        return run.report()
    if wants.mount is not None:
        yield from _timed(run, "mount", _mount(run, wants.mount))
    yield from _timed(run, "models", _models(run))
    installs = run.to_install
    yield from _timed(run, "environment", _environment(run) if installs else _there(run))
    return run.report(ready=True, installed=installs)


class _Clock:
    """Measures the parts of making an environment, as far as they were watched."""

    PARTS = ("environment: Python", "environment: made", "environment: installed", "environment: checked")

    def __init__(self, rows: list[Check]) -> None:
        self._rows = rows
        self._part: int | None = None
        self._began = time.monotonic()

    def at(self, part: int | None) -> None:
        """It is at this part now; None: it has ended."""
        if part == self._part:
            return
        now = time.monotonic()
        if self._part is not None and self._part < len(self.PARTS):
            state: Literal["ok", "failed"] = "ok" if part is not None else "failed"
            self._rows.append(Check(self.PARTS[self._part], state, took_s=now - self._began))
        self._part, self._began = part, now


# ------------------------------------------------------------------------------------------------ what there is


def _begin(workspace: Workspace, pod: Pod, wants: Wants, host_key: str | None) -> Work[_Run]:
    """Refuse what cannot be meant, then look at everything."""
    _refuse(pod, wants)
    build = None if wants.engine is None else build_named(wants.engine, force=wants.force)
    facts = yield from pods.reach(workspace, pod, host_key=host_key)
    if build is None:
        build = build_named("vllm" if facts.gpus else "llamacpp")
    target = None if wants.mount is None else _target_of(wants.mount)
    models_path = wants.models_path or pod.models_path or target or f"{facts.home}/models"
    local = EngineFacts(facts.os, facts.arch, (3, 8), local=pod.provider == "local")
    needs_none = present_here(build, local)
    there = None if needs_none else environments.prepared(workspace, pod, facts, build.engine, build.version)
    run = _Run(
        workspace, pod, wants, facts, build, facts.absolute(models_path), target, there, needs_none
    )  # fmt: skip
    yield Stage("checks", f"Checking {pod.name} for {build.title}")
    began = time.monotonic()
    places = {"environments": f"{facts.home}/envs", "models": run.models_path}
    if target is not None:
        places["mount"] = target
    run.seen = checks.look(workspace, pod, build, facts.home, places, to_install=run.to_install)
    run.found = checks.judged(run.seen, build, facts, there.environment if there else None, to_install=run.to_install)
    bad = sum(check.state == "failed" for check in run.found)
    state: Literal["ok", "failed"] = "failed" if bad else "ok"
    run.done.append(Check("checks", state, f"{len(run.found)}, {bad} failed", took_s=time.monotonic() - began))
    return run


def _refuse(pod: Pod, wants: Wants) -> None:
    for option, value in (("--models-path", wants.models_path), ("--mount", wants.mount)):
        if value is not None and (not value.strip() or not value.isprintable()):
            raise BadArgument(f"{option} {value!r} is empty, or holds what cannot be printed.", hint="Write it anew.")
    if pod.provider == "local" and (wants.models_path or wants.mount):
        raise BadArgument(
            "The pod local keeps models in podlab's own folder, and mounts nothing.",
            hint="Leave --models-path and --mount out; PODLAB_HOME may be a folder on another disk.",
        )
    if wants.mount is not None and wants.models_path is None and _target_of(wants.mount) is None:
        raise BadArgument(
            f"Where {wants.mount!r} mounts to cannot be seen: its last word is no absolute path.",
            hint="Say where models are to be: --models-path /PATH",
        )


def _target_of(command: str) -> str | None:
    """The folder that a mount command names: its last word."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise BadArgument(f"--mount {command!r} is no line for a shell: {error}.", hint="See its quotes.") from error
    return words[-1] if words and words[-1].startswith("/") else None


def _timed(run: _Run, name: str, work: Work[str]) -> Work[None]:
    """Do one stage, and keep what it says and how long it took."""
    began = time.monotonic()
    said = yield from work
    run.done.append(Check(name, "ok", said, took_s=time.monotonic() - began))


# ------------------------------------------------------------------------------------------------ mount and models


def _mount(run: _Run, command: str) -> Work[str]:
    """Mount before anything is installed, unless it is mounted."""
    if run.is_mounted:
        return f"{run.mount_target or run.models_path} is mounted already"
    question = f"Run this command on {run.pod.name}?"
    if not (yield Ask(question, "command", detail=f"sh -c {shlex.quote(command)}", yes="Run it")):
        raise Refused(f"Nothing was mounted on {run.pod.name}, and nothing installed.", hint="Repeat with --yes")
    target = run.mount_target or run.models_path
    _ask_place(run, "place", target)  # most mount commands want the folder to be there; those that do not make it
    yield Stage("mount", f"Mounting on {run.pod.name}")
    job = yield from jobs.run(run.workspace, run.pod, ("sh", "-c", command))
    if job.status != 0:
        status = 1 if job.status is None else job.status
        raise CommandFailed(run.pod.name, ("mount",), status, b"", _last_words(run, job.id))
    if not _ask_place(run, "where", target).mounted and not run.wants.force:
        raise EngineUnavailable(
            f"The command ended well, and nothing is mounted on {target} of {run.pod.name}.",
            hint="See what it does; --force goes on without.",
        )
    return f"{target} is mounted"


def _last_words(run: _Run, job_id: str) -> bytes:
    return run.workspace.side(run.pod).tail(job_id, "stderr", lines=3).piece.data


def _models(run: _Run) -> Work[str]:
    """The folder for models: there, writable, and remembered."""
    yield Stage("models", f"Making {run.models_path} ready")
    request: dict[str, object] = {"op": "place", "path": run.models_path}
    answer = checks.ask(run.workspace, run.pod, request)
    if reason := answer.text("reason", 600):
        raise BadArgument(
            f"Models cannot be kept in {run.models_path} of {run.pod.name}: {reason}.",
            hint="Name another folder: --models-path PATH",
        )
    if run.wants.models_path or run.wants.mount:
        run.pod = pods.keep_models_path(run.pod, run.models_path)
    return run.models_path


def _ask_place(run: _Run, op: Literal["place", "where"], path: str) -> Place:
    return checks.place_from(checks.ask(run.workspace, run.pod, {"op": op, "path": path}))


# ------------------------------------------------------------------------------------------------ the environment


def _there(run: _Run) -> Work[str]:
    yield from ()
    if run.there is None:
        return f"none is needed: the Python that runs podlab has {run.build.engine}"
    return f"{run.build.title} is there already"


def _environment_plan(run: _Run) -> list[str]:
    if not run.to_install:
        place = run.there.path or run.there.environment.python if run.there else sys.executable
        return [f"environment: nothing: {run.build.title} is there, {place}"]
    lines = []
    words = list(run.build.setup_words(home=run.facts.home, folder=run.facts.home))
    if run.sends_wheels:
        parcel = wheels.parcel_for(run.build, run.facts, run.seen)
        lines = [f"wheels, here: {shell_line(parcel.command())}", f"wheels: send them to {parcel.there}"]
        words += ["--wheels", parcel.there]
    answer = checks.ask(run.workspace, run.pod, {"op": "plan", "words": words})
    commands = answer.any("commands")
    if not isinstance(commands, list):
        raise SupervisorError(f"Pod {run.pod.name!r} told no commands.")
    rows = [Wire({"argv": command}, "a command").texts("argv", count=100) for command in commands[:20]]
    return lines + [f"environment: {shell_line(row)}" for row in rows]


def _environment(run: _Run) -> Work[str]:
    """Have the pod make it, or go on watching where it is being made already."""
    side = run.workspace.side(run.pod)
    living = next((facts for facts in side.jobs() if _makes(facts, run.build) and not facts.ended), None)
    if living is not None:
        yield Notice(f"{run.build.title} is being installed on {run.pod.name} already ({living.id}); watching that.")
        job_id = living.id
    else:
        job_id = yield from _start(run)
    last = yield from _watched(run, job_id)
    if last.exit is None or last.exit.status != 0:
        raise _failure(run, last)
    run.there = environments.prepared(run.workspace, run.pod, run.facts, run.build.engine, run.build.version)
    if run.there is None:
        raise SupervisorError(f"{run.build.title} was installed on {run.pod.name} by {job_id}, and is not there.")
    wheels.forget(run.build)
    return f"{run.build.title} was installed"


def _makes(facts: Facts, build: Build) -> bool:
    return facts.meta.get(META) == build.stem


def _start(run: _Run) -> Work[str]:
    """Start the job that makes it, with the wheels where the pod cannot fetch them."""
    sent: tuple[str, ...] = ()
    if run.sends_wheels:
        parcel = wheels.parcel_for(run.build, run.facts, run.seen)
        yield Notice(f"{run.pod.name} reaches no package index: the wheels are fetched here and sent.")
        yield from wheels.send(run.workspace, run.pod, parcel)
        sent = ("--wheels", parcel.there)
    job_id = f"j-{random.token_hex(4)}"
    python = sys.executable if run.pod.provider == "local" else run.facts.python_path
    words = run.build.setup_words(home="{home}", folder="{dir}")
    step = Step("prepare", (python, "-u", "{dir}/setup.py", *words, *sent))
    folder = resources.files("podlab.remote")
    texts = {name: (folder / name).read_text(encoding="utf-8") for name in INSTALLER}
    meta = {META: run.build.stem, "command": f"pod setup --engine {run.build.engine} {run.build.version}"}
    yield Stage("environment", f"Installing {run.build.title} on {run.pod.name}")
    side = run.workspace.side(run.pod)
    repeated(lambda: side.start(id=job_id, name=job_id, kind="job", steps=(step,), files=texts, meta=meta))
    return job_id


def _watched(run: _Run, job_id: str) -> Work[Facts]:
    """Its progress to its end, resumed when the link breaks. An interrupt ends only the watching."""
    side = run.workspace.side(run.pod)
    patience, clock = Patience(), _Clock(run.done)
    try:
        while True:
            watching = side.watch(job_id, WATCH_S, until="ended")
            try:
                while True:
                    facts = next(watching)
                    patience.heard()
                    if facts.progress is not None:
                        clock.at(facts.progress.done)
                        key = f"environment.{facts.progress.done}"
                        yield Stage(key, f"{run.build.title} on {run.pod.name}: {facts.progress.text}")
            except StopIteration as end:
                if end.value == "ended":
                    clock.at(None)
                    return facts
            except (LinkLost, Unreachable) as error:
                yield Notice(
                    f"The link to {run.pod.name} broke; the installation goes on. Connecting again.", "warning"
                )
                patience.wait(error)
            finally:
                watching.close()
    except KeyboardInterrupt:
        yield Notice(
            f"The installation goes on on {run.pod.name}. Repeat the setup to watch it, or end it: "
            f"podlab pod cancel {job_id}"
        )
        raise


def _failure(run: _Run, last: Facts) -> EngineUnavailable:
    """Why it was not made, as setup.py said it in its last line."""
    said = next((line for line in reversed(last.lines) if line.startswith("podlab: ")), "")
    cause, _, reason = said.removeprefix("podlab: ").partition(": ")
    if last.stop_at is not None:
        reason = "it was cancelled"
    hint = f"See: podlab pod attach {last.id}. Repeat the setup to go on."
    if cause == "disk_full":
        hint = f"Make room on {run.pod.name}, then repeat the setup."
    return EngineUnavailable(
        f"{run.build.title} could not be installed on {run.pod.name}: {reason or 'it ended early'}.", hint=hint
    )
