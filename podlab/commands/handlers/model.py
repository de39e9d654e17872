"""`model`: from a name in the catalog to a running endpoint, and back."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from podlab.commands.results import (
    Done,
    EndpointDetail,
    EndpointList,
    ModelList,
    ModelRow,
    Outcome,
    Plan,
    UrlDetail,
)
from podlab.errors import BadArgument, PodlabError
from podlab.events import Chunk, Notice, Work
from podlab.types import ALIVE, EndpointState, LogLines, PodState

if TYPE_CHECKING:
    from podlab.catalog.catalog import ModelEntry
    from podlab.lab.workspace import Workspace


def catalog(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.catalog import catalog as models

    yield from ()
    entries = (models.find(args.id),) if args.id else models.entries()
    return Outcome(ModelList(tuple(_row(entry) for entry in entries)))


def _row(entry: ModelEntry) -> ModelRow:
    from podlab.catalog import catalog as models
    from podlab.catalog.sources import HubSource

    source = models.resolve(entry)
    where = f"hf:{source.repo}/{source.file}" if isinstance(source, HubSource) else str(source.path)
    size_bytes = getattr(source, "size_bytes", None)
    return ModelRow(
        entry.id, entry.summary, entry.engine, where, entry.parameters, size_bytes, entry.context,
        entry.licence or None,
    )  # fmt: skip


def start(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import launch, pods

    pod = pods.meant(workspace, args.on)
    wish = launch.Wish(
        model=args.model, name=args.name, port=0 if args.port is None else args.port, context=args.context,
        slots=args.slots, gpu_layers=args.gpu_layers, backend=args.backend, extra=tuple(args.rest),
    )  # fmt: skip
    if args.dry_run:
        return Outcome(Plan(launch.plan(workspace, pod, wish)))
    endpoint = yield from launch.start(workspace, pod, wish, host_key=args.host_key)
    return Outcome(EndpointDetail(endpoint))


def list_endpoints(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import endpoints, pods

    yield from ()
    asked = [pods.meant(workspace, args.on)] if args.on else pods.all_pods()
    found, statuses = endpoints.listing(workspace, asked)
    shown = found if args.all else [endpoint for endpoint in found if endpoint.state is not EndpointState.STOPPED]
    return Outcome(EndpointList(tuple(shown), tuple(statuses)))


def show(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import endpoints

    yield from ()
    pod, facts = endpoints.find(workspace, args.name, args.on)
    endpoint = endpoints.endpoint_of(workspace, pod, facts)
    explains = endpoint.state not in (EndpointState.READY, EndpointState.STOPPED)
    return Outcome(EndpointDetail(endpoint, facts.argv, facts.lines[-20:] if explains else ()))


def logs(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import endpoints
    from podlab.units import parse_duration_s

    pod, facts = endpoints.find(workspace, args.name, args.on)
    since_s = None if args.since is None else parse_duration_s(args.since)
    if args.lines < 1:
        raise BadArgument(f"--lines {args.lines} shows nothing.", hint="Give a number from 1.")
    if not args.follow:
        return Outcome(endpoints.log(workspace, pod, facts, lines=args.lines, since_s=since_s))
    end = LogLines(())
    for position, text in endpoints.follow_log(workspace, pod, facts, lines=args.lines, since_s=since_s):
        yield Chunk(text)
        end = position
    return Outcome(end)


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
        for endpoint in running:
            try:
                yield from endpoints.stop(workspace, endpoint.id, endpoint.pod)
            except PodlabError as error:  # the others are stopped all the same
                yield Notice(f"{endpoint.name or endpoint.id} on {endpoint.pod}: {error.message}", "warning")
                failures.append(error)
        if failures:
            raise failures[0]
        names = [e.name or e.id for e in running]
        text = f"Stopped {', '.join(names)}." if names else "Nothing was running."
        if any(status.state is not PodState.REACHABLE for status in statuses):
            yield Notice(text if names else "Nothing was running where that is known.")
            pods.refuse_silent(statuses)
        return Outcome(Done(text, {e.id: e.pod for e in running}))
    if args.dry_run:
        pod_of, facts = endpoints.find(workspace, args.name, args.on)
        return Outcome(Plan((f"stop {facts.name} on {pod_of.name}, and see that none of its processes is left",)))
    endpoint = yield from endpoints.stop(workspace, args.name, args.on)
    return Outcome(EndpointDetail(endpoint))


def restart(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import endpoints, launch

    pod, facts = endpoints.find(workspace, args.name, args.on)
    if args.dry_run:
        return Outcome(Plan((f"stop {facts.name} on {pod.name}", "start it again as it was")))
    endpoint = yield from launch.restart(workspace, pod, facts)
    return Outcome(EndpointDetail(endpoint))


def url(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import endpoints

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
    return Outcome(UrlDetail(name, reached.base_url, reached.key, reached.model, exports, "import podlab\n" + snippet))
