"""One model on several pods: NAME.1, NAME.2, each an endpoint of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from podlab.errors import PodlabError
from podlab.events import Notice, Work
from podlab.lab import launch
from podlab.types import Endpoint

if TYPE_CHECKING:
    from podlab.lab.wish import Wish
    from podlab.lab.workspace import Workspace
    from podlab.types import Pod


def start(
    workspace: Workspace, places: Sequence[Pod], wish: Wish, *, host_key: str | None = None, detach: bool = False
) -> Work[tuple[Endpoint, ...]]:
    """Start a replica on each pod (one that is named twice gets two), then wait until all answer.

    What one pod refuses does not keep the others from starting: a notice tells of it, and the first such error is
    raised once the others answer. An interrupt ends the watching and not the servers.
    """
    name = launch.name_of(wish)
    begun: list[tuple[Pod, Endpoint]] = []
    failures: list[PodlabError] = []
    for number, pod in enumerate(places, 1):
        own = replace(wish, name=f"{name}.{number}")
        try:
            begun.append((pod, (yield from launch.start(workspace, pod, own, host_key=host_key, detach=True))))
        except PodlabError as error:
            yield _told(own, pod, error, failures)
        except KeyboardInterrupt:
            for other, endpoint in begun:
                left = f"{endpoint.name} goes on loading on {other.name}; end it: podlab model stop {endpoint.name}"
                yield Notice(left)
            raise
    ready = []
    for pod, endpoint in begun:
        try:
            ready.append(endpoint if detach else (yield from launch.wait(workspace, pod, endpoint)))
        except PodlabError as error:
            yield _told(replace(wish, name=endpoint.name), pod, error, failures)
    if failures:
        raise failures[0]
    return tuple(ready)


def _told(wish: Wish, pod: Pod, error: PodlabError, failures: list[PodlabError]) -> Notice:
    failures.append(error)
    return Notice(f"{wish.name} on {pod.name}: {error.message}", "warning")
