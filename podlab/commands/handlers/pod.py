"""`pod`: the machines, and what is done on them by hand."""

from __future__ import annotations

import time
from argparse import Namespace
from dataclasses import replace
from typing import TYPE_CHECKING

from podlab.commands.results import (
    Done,
    JobList,
    Outcome,
    Plan,
    PodDetail,
    PodList,
    Transfer,
    TunnelList,
)
from podlab.errors import (
    BadArgument,
    BadSettings,
    LinkLost,
    NotFound,
    PodlabError,
    Refused,
    StateDamaged,
    Unreachable,
)
from podlab.events import Ask, Notice, Stage, Work
from podlab.types import JobRow, PodState, PodStatus

if TYPE_CHECKING:
    from podlab.lab.facts import PodFacts
    from podlab.lab.workspace import Workspace
    from podlab.types import Pod


def _detail(status: PodStatus, facts: PodFacts | None) -> PodDetail:
    if facts is None:
        return PodDetail(status)
    return PodDetail(
        status, facts.hostname, f"{facts.os} {facts.arch}", facts.python, facts.cpus, facts.memory_bytes,
        facts.free_bytes, facts.home,
    )  # fmt: skip


def add(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import pods
    from podlab.providers.ssh import parse_address

    address = " ".join(args.address)
    if args.dry_run:
        pods.check_new(args.name)
        parsed = parse_address(address)
        return Outcome(Plan((f"reach {parsed.host}", "pin its host key", f"add it as {args.name!r} to config.toml")))
    pod, facts = yield from pods.add(
        workspace, args.name, address, models_path=args.models_path, host_key=args.host_key
    )
    return Outcome(_detail(pods.status_of(workspace, pod, facts), facts))


def list_pods(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.commands.handlers import rentals
    from podlab.lab import pods

    try:
        pods.meant(workspace, None)
    except NotFound as error:  # the list is what helps to choose another one
        yield Notice(f"{error.message} {error.hint}", "warning")
    except BadSettings as error:  # what is billed stands in the ledger
        yield Notice(f"{error.message} {error.hint}", "warning")
        found, left_out = rentals.list_of(workspace, ended=args.all, limit=args.limit)
        return Outcome(PodList((), found, args.limit, left_out, error.message), 1)
    status = 0
    try:
        rentals.drop_ended(workspace)
    except StateDamaged as error:
        yield Notice(f"{error.message} {error.hint}", "warning")
        status = 1
    checked = tuple(pods.check(workspace, pods.all_pods()))
    found, left_out = rentals.list_of(workspace, ended=args.all, limit=args.limit)
    return Outcome(PodList(checked, found, args.limit, left_out), status)


def use(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import pods

    if args.dry_run:
        return Outcome(Plan((f"make {args.pod or workspace.value('pod')!r} the pod in use",)))
    pod = pods.use(workspace, args.pod) if args.pod else pods.meant(workspace, None)
    (status,) = pods.check(workspace, [pod])
    if status.state is PodState.UNREACHABLE:
        yield Notice(f"{pod.name} does not answer now: {status.detail} See: podlab pod show {pod.name}", "warning")
    return Outcome(_detail(status, None))


def show(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.commands.handlers import rentals
    from podlab.lab import pods

    try:
        pod = pods.meant(workspace, args.pod or args.on)
    except (NotFound, BadSettings):
        # In no list of pods, and perhaps billed all the same: the ledger knows every pod that was ever asked for.
        if (found := rentals.in_ledger(workspace, args.pod or args.on)) is None:
            raise
        return Outcome(found)
    detail = yield from detail_of_pod(workspace, pod, host_key=args.host_key)
    if pod.rental_id is None:
        return Outcome(detail)
    return Outcome(replace(detail, rental=(yield from rentals.of_pod(workspace, pod))))


def detail_of_pod(workspace: Workspace, pod: Pod, *, host_key: str | None) -> Work[PodDetail]:
    """A pod and its machine, as far as it answers now."""
    from podlab.lab import gpus, pods

    try:
        facts = yield from pods.reach(workspace, pod, host_key=host_key)
    except (LinkLost, Unreachable) as error:
        if error.hint and pod.rental_id is None:  # of a rented one its company says more
            yield Notice(error.hint)
        return _detail(pods.status_of(workspace, pod, error), None)
    detail = _detail(pods.status_of(workspace, pod, facts), facts)
    try:
        found = gpus.sample(workspace, pod)
    except PodlabError as error:
        yield Notice(f"Its GPUs could not be read: {error.message}", "warning")
        return detail
    return replace(detail, gpus=found.gpus, driver=found.driver, cuda=found.cuda)


def gpu(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import gpus, pods

    pod = pods.meant(workspace, args.pod or args.on)
    yield from pods.reach(workspace, pod, host_key=args.host_key)
    yield Stage("gpu", f"Reading the GPUs of {pod.name}")
    found = gpus.with_owners(workspace, pod, gpus.sample(workspace, pod))
    return Outcome(found, 1 if gpus.has_silent(found) else 0)


def run(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import jobs, pods

    pod = pods.meant(workspace, args.on)
    if args.cell is not None:
        argv = jobs.interpreter(args.lang or "bash")
        script: str | None = args.cell
        if args.command:
            raise BadArgument("%%pod run takes its command from the cell.", hint="Use %pod run for one command.")
    else:
        argv, script = tuple(args.command[1:] if args.command[:1] == ["--"] else args.command), None
        if not argv:
            raise BadArgument("There is no command to run.", hint="Write: podlab pod run nvidia-smi")
        if args.lang:
            raise BadArgument("--lang is for %%pod run, whose cell is the script.", hint="Leave --lang away.")
    if args.dry_run:
        return Outcome(Plan((f"run {' '.join(argv)} on {pod.name}",)))
    stdin = b"" if args.stdin is None else (yield from jobs.read_input(args.stdin))
    if args.detach:
        return Outcome((yield from jobs.start(workspace, pod, argv, script, stdin)))
    finished = yield from jobs.run(workspace, pod, argv, script, stdin)
    return Outcome(finished, _exit_code(finished))


def _exit_code(job: JobRow) -> int:
    """A command's own status; an end that nobody saw is not a success."""
    return 1 if job.status is None else job.status


def list_jobs(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import jobs, pods

    yield from ()
    asked = [pods.meant(workspace, args.on)] if args.on else pods.all_pods()
    rows, statuses = jobs.listing(workspace, asked)
    return Outcome(JobList(tuple(rows), tuple(statuses)))


def attach(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import jobs

    pod, job_id = jobs.find(workspace, args.job, args.on)
    finished = yield from jobs.follow(workspace, pod, job_id, stop_on_interrupt=False)
    return Outcome(finished, _exit_code(finished))


def cancel(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import jobs

    pod, job_id = jobs.find(workspace, args.job, args.on)
    if args.dry_run:
        return Outcome(Plan((f"end job {job_id} on {pod.name}",)))
    job: JobRow = yield from jobs.cancel(workspace, pod, job_id)
    return Outcome(job)


def shell(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import pods, shells

    pod = pods.meant(workspace, args.pod or args.on)
    yield from pods.reach(workspace, pod, host_key=args.host_key)
    return Outcome(shells.shell_of(pod))


def push(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    return (yield from _transfer(workspace, args, "push"))


def pull(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    return (yield from _transfer(workspace, args, "pull"))


def _transfer(workspace: Workspace, args: Namespace, way: str) -> Work[Outcome]:
    from podlab.lab import files, pods

    pod = pods.meant(workspace, args.on)
    if args.dry_run:
        return Outcome(Plan((f"{way} {args.source} to {args.target or '.'}, {pod.name}",)))
    began = time.monotonic()
    move = files.push if way == "push" else files.pull
    moved = yield from move(workspace, pod, args.source, args.target)
    took_s = time.monotonic() - began
    return Outcome(Transfer(moved.files, moved.total_bytes, moved.sent_bytes, took_s, moved.left_out))


def tunnel_open(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import pods, tunnels

    pod, port = pods.meant(workspace, args.on), tunnels.port(args.port)
    local_port = None if args.local_port is None else tunnels.port(str(args.local_port))
    if args.dry_run:
        return Outcome(Plan((f"lead a port of this computer to port {port} of {pod.name}",)))
    yield from pods.reach(workspace, pod)
    return Outcome(TunnelList((tunnels.open_port(workspace, pod, port, local_port),)))


def tunnel_list(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import tunnels

    yield from ()
    return Outcome(TunnelList(tunnels.listing(workspace)))


def tunnel_close(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import pods, tunnels

    yield from ()
    pod, port = pods.meant(workspace, args.on), tunnels.port(args.port)
    if args.dry_run:
        return Outcome(Plan((f"close the tunnel to port {port} of {pod.name}",)))
    tunnels.close(workspace, pod, port)
    return Outcome(Done(f"Closed the tunnel to port {port} of {pod.name}.", {"tunnel": str(port)}))


def rename(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import pods

    yield from ()
    if args.dry_run:
        pods.check_rename(args.name, args.new_name)
        return Outcome(Plan((f"rename pod {args.name!r} to {args.new_name!r}",)))
    pod = pods.rename(args.name, args.new_name)
    workspace.drop_transport(pod.id)
    if workspace.value("pod") == args.name:
        workspace.override("pod", pod.name)
    return Outcome(Done(f"{args.name} is now called {pod.name}.", {"pod": pod.name}))


def remove(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import pods

    pod = pods.find(args.name)
    pods.check_removable(pod)
    if args.dry_run:
        return Outcome(Plan((f"forget pod {pod.name!r} and its host key; what runs on it goes on",)))
    alive = [endpoint.name for endpoint in workspace.store.endpoints_of(pod.id) if endpoint.pid is not None]
    if alive:
        answer = yield Ask(f"Forget {pod.name}? {', '.join(alive)} may still run on it.", "delete", yes="Forget it")
        if not answer:
            raise Refused(
                f"{pod.name} was not removed: {', '.join(alive)} may still run on it.",
                hint=f"Stop it first (podlab model stop {alive[0]}), or repeat with --yes",
            )
    yield from pods.remove(workspace, pod)
    if workspace.value("pod") == pod.name:
        workspace.override("pod", None)
    return Outcome(Done(f"{pod.name} is forgotten. The machine itself was not touched.", {"pod": pod.name}))
