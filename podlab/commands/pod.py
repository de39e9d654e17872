"""`pod`: the machines, and what is done on them by hand."""

from __future__ import annotations

import time
from argparse import Namespace
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
from podlab.commands.verb import Operand, Option, Verb
from podlab.errors import BadArgument, PodlabError
from podlab.events import Ask, Notice, Work
from podlab.types import JobRow, PodState, PodStatus

if TYPE_CHECKING:
    from podlab.lab.facts import PodFacts
    from podlab.lab.workspace import Workspace

POD = Operand("pod", "the pod's name (default: the pod in use)", "?", values="pods")
HOST_KEY = Option("--host-key", "the fingerprint the machine must show on first contact", metavar="SHA256:...")


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
        parsed = parse_address(address)
        return Outcome(Plan((f"reach {parsed.host}", "pin its host key", f"add it as {args.name!r} to config.toml")))
    pod, facts = yield from pods.add(
        workspace, args.name, address, models_path=args.models_path, host_key=args.host_key
    )
    return Outcome(_detail(pods.status_of(workspace, pod, facts), facts))


def list_pods(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import pods

    yield from ()
    return Outcome(PodList(tuple(pods.check(workspace, pods.all_pods()))))


def use(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import pods

    if args.dry_run:
        return Outcome(Plan((f"make {args.pod or workspace.value('pod')!r} the pod in use",)))
    pod = pods.use(workspace, args.pod) if args.pod else pods.meant(workspace, None)
    (status,) = pods.check(workspace, [pod])
    if status.state is PodState.UNREACHABLE:
        yield Notice(f"{pod.name} does not answer now: {status.detail}", "warning")
    return Outcome(_detail(status, None))


def show(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import pods

    pod = pods.meant(workspace, args.pod or args.on)
    try:
        facts = yield from pods.reach(workspace, pod, host_key=args.host_key)
    except PodlabError as error:
        if args.host_key is not None:
            raise
        return Outcome(_detail(pods.status_of(workspace, pod, error), None))
    return Outcome(_detail(pods.status_of(workspace, pod, facts), facts))


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
    job = yield from jobs.start(workspace, pod, argv, script)
    if args.detach:
        return Outcome(job)
    finished = yield from jobs.follow(workspace, pod, job.id, stop_on_interrupt=True)
    return Outcome(finished, finished.status or 0)


def list_jobs(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import jobs, pods

    yield from ()
    asked = [pods.meant(workspace, args.on)] if args.on else pods.all_pods()
    rows, problems = jobs.listing(workspace, asked)
    for problem in problems:
        yield Notice(problem, "warning")
    return Outcome(JobList(tuple(rows)))


def attach(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import jobs

    pod, job_id = jobs.find(workspace, args.job, args.on)
    finished = yield from jobs.follow(workspace, pod, job_id, stop_on_interrupt=False)
    return Outcome(finished, finished.status or 0)


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
    return Outcome(Transfer(moved.files, moved.total_bytes, moved.sent_bytes, time.monotonic() - began))


def tunnel_open(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import pods, tunnels

    pod = pods.meant(workspace, args.on)
    if args.dry_run:
        return Outcome(Plan((f"lead a port of this computer to port {args.port} of {pod.name}",)))
    yield from pods.reach(workspace, pod)
    return Outcome(TunnelList((tunnels.open_port(workspace, pod, tunnels.port(args.port), args.local_port),)))


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
        pods.find(args.name)
        return Outcome(Plan((f"rename pod {args.name!r} to {args.new_name!r}",)))
    pod = pods.rename(args.name, args.new_name)
    workspace.drop_transport(pod.id)
    if workspace.value("pod") == args.name:
        workspace.override("pod", pod.name)
    return Outcome(Done(f"{args.name} is now called {pod.name}.", {"pod": pod.name}))


def remove(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import pods

    pod = pods.find(args.name)
    if args.dry_run:
        return Outcome(Plan((f"forget pod {pod.name!r} and its host key; what runs on it goes on",)))
    alive = [endpoint.name for endpoint in workspace.store.endpoints_of(pod.id) if endpoint.pid is not None]
    if alive:
        answer = yield Ask(f"Forget {pod.name}? {', '.join(alive)} may still run on it.", "delete")
        if not answer:
            raise BadArgument(
                f"{pod.name} was not removed: {', '.join(alive)} may still run on it.",
                hint=f"Stop it first (podlab model stop {alive[0]}), or repeat with --yes",
            )
    pods.remove(workspace, pod)
    if workspace.value("pod") == pod.name:
        workspace.override("pod", None)
    return Outcome(Done(f"{pod.name} is forgotten. The machine itself was not touched.", {"pod": pod.name}))


VERBS = (
    Verb(
        "pod", "add", "Add a machine reached by SSH.", add,
        operands=(
            Operand("name", "what to call it"),
            Operand("address", 'user@host, "ssh user@host -p 22 -i KEY", or an alias of ~/.ssh/config', "*"),
        ),
        options=(HOST_KEY, Option("--models-path", "where models are kept on it", metavar="PATH")),
        example='%pod add lab "ssh me@gpu.example -p 2222 -i ~/.ssh/id_ed25519"', changes=True,
    ),
    Verb("pod", "list", "List the pods, and whether each answers now.", list_pods, example="%pod list"),
    Verb(
        "pod", "use", "Choose the pod that commands without --on mean, or show it.", use,
        operands=(Operand("pod", "the pod's name", "?", values="pods"),), example="%pod use local", changes=True,
    ),
    Verb(
        "pod", "show", "Show a pod: its machine, its disk, whether it answers.", show,
        operands=(POD,), options=(HOST_KEY,), example="%pod show local", on_pod=True,
    ),
    Verb(
        "pod", "run", "Run a command on a pod and show what it says. It goes on there when the link breaks.", run,
        operands=(Operand("command", "the command; the first operand ends our options", "..."),),
        options=(
            Option("--detach", "do not wait: give the job's name", kind=bool),
            Option("--lang", "what the cell is written in", values=("bash", "python")),
        ),
        example="%pod run --on lab nvidia-smi\n%%pod run --lang python\n  print('hello from the pod')",
        on_pod=True, changes=True, cell="may",
    ),
    Verb("pod", "jobs", "List the commands that were run on pods.", list_jobs, example="%pod jobs", on_pod=True),
    Verb(
        "pod", "attach", "Show what a job says, from its start to its end.", attach,
        operands=(Operand("job", "the job", values="jobs"),), example="%pod attach j-3f9a2c", on_pod=True,
    ),
    Verb(
        "pod", "cancel", "End a job.", cancel,
        operands=(Operand("job", "the job", values="jobs"),), example="%pod cancel j-3f9a2c", on_pod=True, changes=True,
    ),
    Verb(
        "pod", "shell", "Open an interactive terminal on a pod.", shell,
        operands=(POD,), options=(HOST_KEY,), example="%pod shell lab", on_pod=True,
    ),
    Verb(
        "pod", "push", "Send a file or a folder to a pod, verified by its SHA-256.", push,
        operands=(
            Operand("source", "a file or folder here", values="files"),
            Operand("target", "where it goes there (default: the home folder)", "?"),
        ),
        example="%pod push data/ work/data", on_pod=True, changes=True,
    ),
    Verb(
        "pod", "pull", "Bring a file or a folder from a pod, verified by its SHA-256.", pull,
        operands=(
            Operand("source", "a file or folder there"),
            Operand("target", "where it goes here (default: this folder)", "?", values="files"),
        ),
        example="%pod pull work/results .", on_pod=True, changes=True,
    ),
    Verb(
        "pod", "tunnel open", "Lead a port of this computer to a port of a pod.", tunnel_open,
        operands=(Operand("port", "the port on the pod"),),
        options=(Option("--local-port", "the port here (default: any free one)", kind=int, metavar="PORT"),),
        example="%pod tunnel open 6006 --on lab", on_pod=True, changes=True,
    ),
    Verb("pod", "tunnel list", "List the open tunnels.", tunnel_list, example="%pod tunnel list"),
    Verb(
        "pod", "tunnel close", "Close a tunnel.", tunnel_close,
        operands=(Operand("port", "the port on the pod"),), example="%pod tunnel close 6006", on_pod=True, changes=True,
    ),
    Verb(
        "pod", "rename", "Give a pod another name.", rename,
        operands=(Operand("name", "its name now", values="pods"), Operand("new_name", "its new name")),
        example="%pod rename lab attic", changes=True,
    ),
    Verb(
        "pod", "remove", "Forget a pod. The machine itself is not touched.", remove,
        operands=(Operand("name", "the pod's name", values="pods"),), example="%pod remove lab", changes=True,
    ),
)  # fmt: skip
