"""`model`: from a name in the catalog to a running endpoint, and back."""

from __future__ import annotations

from argparse import Namespace
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from podlab.commands.results import (
    Done,
    EndpointDetail,
    EndpointList,
    MetricsReport,
    Outcome,
    Plan,
    UrlDetail,
)
from podlab.errors import BadArgument, PodlabError
from podlab.events import Chunk, Notice, Stage, Work
from podlab.types import ALIVE, EndpointState, LogLines, PodState

if TYPE_CHECKING:
    from podlab.lab.wish import Wish
    from podlab.lab.workspace import Workspace
    from podlab.types import Pod

LOG_LINES = 50
"""What `logs` shows unless --lines or --since says otherwise."""
COUNT_S, LONGEST_COUNT_S = 1.0, 3600.0
"""What `metrics` counts for unless --over says otherwise, and the most."""
SEEN_PIECES = 1000
"""A followed log that is to be a document keeps its last pieces, 48 KiB each at most."""


def start(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.catalog.wishes import parse_gpu_choice
    from podlab.lab import launch, pods
    from podlab.lab.wish import Wish
    from podlab.units import parse_share, parse_tokens

    places = [pods.find(name.strip()) for name in args.on.split(",")] if args.on else [pods.meant(workspace, None)]
    pod = places[0]
    wish = Wish(
        model=args.model, name=args.name, port=0 if args.port is None else args.port,
        context=None if args.context is None else parse_tokens(args.context),
        gpus=None if args.gpus is None else parse_gpu_choice(args.gpus),
        memory_ratio=None if args.memory is None else parse_share(args.memory),
        slots=args.slots, gpu_layers=args.gpu_layers, backend=args.backend, extra=tuple(args.rest),
        engine=args.engine, engine_version=args.engine_version, python=args.python, env=tuple(args.env or ()),
        force=args.force,
    )  # fmt: skip
    if len(places) > 1:
        return (yield from _replicas(workspace, places, wish, args))
    if args.dry_run:
        return Outcome(Plan((yield from launch.plan(workspace, pod, wish))))
    endpoint = yield from launch.start(workspace, pod, wish, host_key=args.host_key, detach=args.detach)
    return Outcome(EndpointDetail(endpoint))


def _replicas(workspace: Workspace, places: list[Pod], wish: Wish, args: Namespace) -> Work[Outcome]:
    from podlab.lab import launch, pods, replicas

    if args.dry_run:
        would: list[str] = []
        for number, pod in enumerate(places, 1):
            own = replace(wish, name=f"{launch.name_of(wish)}.{number}")
            would += [f"{pod.name}: {line}" for line in (yield from launch.plan(workspace, pod, own))]
        return Outcome(Plan(tuple(would)))
    started = yield from replicas.start(workspace, places, wish, host_key=args.host_key, detach=args.detach)
    distinct = list({pod.id: pod for pod in places}.values())
    return Outcome(EndpointList(started, tuple(pods.check(workspace, distinct))))


def attach(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import attached, names

    yield from ()
    if args.dry_run:
        asked = attached.candidate(args.url, name=args.name, key_name=args.key_env, key_in_clear=args.key_in_clear)
        if args.name is not None:
            names.refuse_taken(workspace, args.name)
        return Outcome(Plan((f"ask {asked.url} what it serves", "keep its address in config.toml")))
    made = attached.attach(
        workspace, args.url, name=args.name, model=args.model, key_name=args.key_env, key_in_clear=args.key_in_clear
    )
    return Outcome(EndpointDetail(attached.checked(made)))


def adopt(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import adoption, endpoints

    yield from ()
    pod, orphan = adoption.wanted(workspace, args.orphan, args.pid, args.on)
    if args.dry_run:
        what = f"process {args.pid}" if orphan is None else orphan.name or orphan.id
        return Outcome(Plan((f"ask {what} on {pod.name} which model it serves", "put it on record there")))
    facts = adoption.adopt(workspace, pod, orphan, args.pid, args.name, args.key_env)
    return Outcome(EndpointDetail(endpoints.endpoint_of(workspace, pod, facts), facts.argv))


def detach(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import attached

    yield from ()
    found = attached.find(args.name)
    if args.dry_run:
        return Outcome(Plan((f"forget {found.name} at {found.url}; it goes on",)))
    attached.detach(workspace, found.name)
    return Outcome(Done(f"{found.name} is forgotten. The server itself goes on.", {"endpoint": found.name}))


def list_endpoints(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import attached, endpoints, holders, pods

    if args.files:
        from podlab.commands.handlers.weights import files

        return (yield from files(workspace, args))
    asked = [pods.meant(workspace, args.on)] if args.on else pods.all_pods()
    looks = holders.Looks(workspace)
    found, statuses = endpoints.listing(workspace, asked, looks)
    foreign = holders.foreign(looks, {endpoint.pod for endpoint in found if endpoint.state in ALIVE})
    if not args.on:
        found = [*found, *attached.listing(attached.all_attached())]
    shown = found if args.all else [endpoint for endpoint in found if endpoint.state is not EndpointState.STOPPED]
    return Outcome(EndpointList(tuple(shown), tuple(statuses), foreign))


def show(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import attached, endpoints

    yield from ()
    if not args.on and (theirs := attached.named(args.name)) is not None:
        return Outcome(EndpointDetail(attached.checked(theirs)))
    pod, facts = endpoints.find(workspace, args.name, args.on)
    endpoint = endpoints.endpoint_of(workspace, pod, facts)
    explains = endpoint.state not in (EndpointState.READY, EndpointState.STOPPED)
    return Outcome(EndpointDetail(endpoint, facts.argv, facts.lines[-20:] if explains else ()))


def metrics(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.engines import metrics as counted
    from podlab.engines.base import ServerMetrics
    from podlab.lab import endpoints
    from podlab.units import duration_text, parse_duration_s

    over_s = COUNT_S if args.over is None else parse_duration_s(args.over)
    if not 0 < over_s <= LONGEST_COUNT_S:
        raise BadArgument(f"--over {args.over} cannot be.", hint="Give a time up to an hour, such as 5s.")
    reached = endpoints.reach(workspace, args.name, args.on)
    endpoint = reached.endpoint
    yield Stage("metrics", f"Counting the tokens of {endpoint.name} for {duration_text(over_s)}")
    before, now, took_s = endpoints.metrics_over(reached, over_s)
    if now == ServerMetrics():
        yield Notice(f"{endpoint.engine} tells nothing of what {endpoint.name} does.")
    return Outcome(
        MetricsReport(
            endpoint.name,
            endpoint.model,
            endpoint.engine,
            endpoint.pod,
            now.running,
            now.waiting,
            now.kv_used_ratio,
            now.prompt_tokens,
            now.generation_tokens,
            counted.rate_per_s(before.prompt_tokens, now.prompt_tokens, took_s),
            counted.rate_per_s(before.generation_tokens, now.generation_tokens, took_s),
            took_s,
        )
    )


def logs(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import endpoints
    from podlab.units import parse_duration_s

    if args.lines is not None and args.lines < 1:
        raise BadArgument(f"--lines {args.lines} shows nothing.", hint="Give a number from 1.")
    since_s = None if args.since is None else parse_duration_s(args.since)
    pod, facts = endpoints.find(workspace, args.name, args.on)
    lines = LOG_LINES if args.lines is None and since_s is None else args.lines
    if not args.follow:
        return Outcome(endpoints.log(workspace, pod, facts, lines=lines, since_s=since_s))
    following = endpoints.follow_log(workspace, pod, facts, lines=lines, since_s=since_s)
    end = LogLines(())
    seen: deque[str] = deque(maxlen=SEEN_PIECES)
    try:
        for end, text in following:  # noqa: B007  # where it was when it ended
            seen.append(text)
            yield Chunk(text)
    except KeyboardInterrupt:
        if not args.json:  # else nothing was shown yet, and the interrupt is what asks for it
            raise
    finally:
        following.close()
    return Outcome(replace(end, lines=tuple("".join(seen).splitlines())) if args.json else end)


def stop(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import endpoints, pods

    if bool(args.name) == args.all:
        raise BadArgument("Say which: model stop NAME, or model stop --all.", hint="See: podlab model list")
    if args.all:
        asked = [pods.meant(workspace, args.on)] if args.on else pods.all_pods()
        found, statuses = endpoints.listing(workspace, asked)
        running = [e for e in found if e.state in ALIVE or e.state is EndpointState.ORPHAN]
        if args.dry_run:
            return Outcome(Plan(tuple(f"stop {e.name or e.id} on {e.pod}" for e in running)))
        failures: list[PodlabError] = []
        held = False
        for endpoint in running:
            try:
                _, freed = yield from endpoints.stop_and_look(workspace, endpoint.id, endpoint.pod)
                if freed is not None:
                    held = held or bool(freed.left)
                    said = f"{endpoint.name or endpoint.id} on {endpoint.pod}: {freed.text}."
                    yield Notice(said, "warning" if freed.left else "info")
            except PodlabError as error:  # the others are stopped all the same
                yield Notice(f"{endpoint.name or endpoint.id} on {endpoint.pod}: {error.message}", "warning")
                failures.append(error)
        if failures:
            raise failures[0]
        names = [e.name or e.id for e in running]
        text = f"Stopped {', '.join(names)}." if names else "Nothing was running."
        if any(status.state is not PodState.REACHABLE for status in statuses):
            yield Notice(text if names else "Nothing was running where that is known.")
            if unknown := [f"{e.name} on {e.pod}" for e in found if e.state is EndpointState.UNREACHABLE]:
                yield Notice(f"Seen last, and unknown now: {', '.join(unknown)}.", "warning")
            pods.refuse_silent(statuses)
        return Outcome(Done(text, {e.id: e.pod for e in running}), exit_code=1 if held else 0)
    if args.dry_run:
        pod_of, facts = endpoints.find(workspace, args.name, args.on)
        return Outcome(Plan((f"stop {facts.name} on {pod_of.name}, and see that none of its processes is left",)))
    endpoint, freed = yield from endpoints.stop_and_look(workspace, args.name, args.on)
    return Outcome(EndpointDetail(endpoint, freed=freed), exit_code=1 if freed and freed.left else 0)


def restart(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import endpoints, launch

    pod, facts = endpoints.find(workspace, args.name, args.on)
    if args.dry_run:
        return Outcome(Plan((f"stop {facts.name} on {pod.name}", "start it again as it was")))
    endpoint = yield from launch.restart(workspace, pod, facts)
    return Outcome(EndpointDetail(endpoint))


def url(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import attached, endpoints, pods, tunnels

    yield from ()
    reached = endpoints.reach(workspace, args.name, args.on)
    if args.show_key:
        return Outcome(Done(reached.key.reveal() if reached.key else ""))
    name = reached.endpoint.name
    exports = (
        f"export OPENAI_BASE_URL={reached.base_url}",
        f'export OPENAI_API_KEY="$(podlab model url {name} --show-key)"',
        f"export OPENAI_MODEL={reached.model}",
    )
    snippet = (
        "from openai import OpenAI\n"
        f'client = OpenAI(**podlab.connection("{name}"))\n'
        "client.chat.completions.create(\n"
        f'    model="{reached.model}", messages=[{{"role": "user", "content": "Say hello."}}]\n'
        ")"
    )
    theirs = reached.endpoint.engine == attached.ENGINE
    works = "" if theirs else tunnels.lasting(workspace, pods.find(reached.endpoint.pod))
    return Outcome(
        UrlDetail(name, reached.base_url, reached.key, reached.model, exports, "import podlab\n" + snippet, works)
    )
