"""Pods: which there are, which one is meant, whether it answers. The registry is `[pods]` in config.toml."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from podlab import settings
from podlab.errors import (
    AlreadyExists,
    BadArgument,
    BadSettings,
    HostKeyUnknown,
    NotFound,
    PodlabError,
    Refused,
    Unreachable,
)
from podlab.events import Ask, Stage, Work
from podlab.lab.fanout import ask_all
from podlab.ledger import Ledger
from podlab.providers.local import LOCAL
from podlab.providers.ssh import SshProvider
from podlab.types import Pod, PodState, PodStatus, SshAddress

if TYPE_CHECKING:
    from podlab.lab.facts import PodFacts
    from podlab.lab.workspace import Workspace

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.IGNORECASE)


def all_pods() -> list[Pod]:
    """Every pod, `local` first, the others in the order they were added. Raises BadSettings naming a wrong entry."""
    table = settings.read_config().get("pods", {})
    if not isinstance(table, dict):
        raise BadSettings("[pods] in config.toml is not a table.", hint="Mend it with: podlab config edit")
    return [LOCAL, *(_from_table(name, fields) for name, fields in table.items())]


def find(name: str) -> Pod:
    """The pod of that name. Raises NotFound with the nearest name."""
    pods = all_pods()
    for pod in pods:
        if pod.name == name:
            return pod
    from difflib import get_close_matches

    near = get_close_matches(name, [pod.name for pod in pods], n=1)
    raise NotFound(
        f"There is no pod {name!r}.",
        hint=f"Did you mean {near[0]}?" if near else "See: podlab pod list, or add it: podlab pod add NAME user@host",
    )


def meant(workspace: Workspace, name: str | None) -> Pod:
    """The pod that --on names, else the one in use."""
    return find(name or workspace.value("pod"))


def reach(workspace: Workspace, pod: Pod, *, host_key: str | None = None) -> Work[PodFacts]:
    """Make sure a pod answers, asking about its host key on first contact.

    Raises what the transport raises; HostKeyUnknown (with the fingerprint) where nobody could answer, Refused where
    the answer was no. A fingerprint given as `host_key` is an answer in advance.
    """
    if pod.provider != "local":
        yield Stage("reach", f"Reaching {pod.name}")
    try:
        facts = workspace.side(pod).hello()
    except HostKeyUnknown as unknown:
        if host_key is not None and host_key != unknown.fingerprint:
            raise Refused(
                f"Pod {pod.name!r} shows {unknown.fingerprint}, not {host_key}. Nothing was sent.",
                hint="Ask the machine's owner for its fingerprint: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
            ) from unknown
        if host_key is None:
            answer = yield Ask(
                f"Is {unknown.fingerprint} the host key of {pod.name} ({unknown.host})?",
                "host_key",
                detail=f"This is the first contact. The key is of type {unknown.key_type}.",
            )
            if answer is None:
                raise
            if not answer:
                raise Refused(f"The host key of {pod.name!r} was not accepted. Nothing was sent.") from unknown
        from podlab.transport.host_keys import HostKeys

        HostKeys().pin(pod.id, unknown.key_type, unknown.key_base64)
        workspace.drop_transport(pod.id)
        facts = workspace.side(pod).hello()
    workspace.store.saw_pod(pod.id, time.time())
    return facts


def add(
    workspace: Workspace, name: str, address: str, *, models_path: str | None, host_key: str | None
) -> Work[tuple[Pod, PodFacts]]:
    """Adopt a machine once it has answered. Nothing is written when it does not."""
    if not _NAME.fullmatch(name):
        raise BadArgument(f"{name!r} cannot be a pod's name.", hint="Use letters, digits, dots, dashes; 63 at most.")
    if any(pod.name == name for pod in all_pods()):
        raise AlreadyExists(f"There is a pod {name!r} already.", hint=f"Remove it first: podlab pod remove {name}")
    pod = SshProvider().adopt(name, address, models_path=models_path)
    try:
        facts = yield from reach(workspace, pod, host_key=host_key)
        Ledger().append("pod.adopt", pod.id, name=name, host=pod.address.host if pod.address else "")
        _write(pod, name)
    except BaseException:
        _forget(workspace, pod)
        raise
    return pod, facts


def rename(old: str, new: str) -> Pod:
    """Give a pod another name; its id, host key and endpoints stay."""
    pod = find(old)
    if pod is LOCAL:
        raise BadArgument("The pod local keeps its name.")
    if not _NAME.fullmatch(new):
        raise BadArgument(f"{new!r} cannot be a pod's name.", hint="Use letters, digits, dots, dashes; 63 at most.")
    if any(other.name == new for other in all_pods()):
        raise AlreadyExists(f"There is a pod {new!r} already.")

    def change(document: Any) -> None:
        renamed = [(new if name == old else name, fields) for name, fields in document["pods"].items()]
        for name in list(document["pods"]):
            del document["pods"][name]
        for name, fields in renamed:
            document["pods"][name] = fields
        if document.get("pod") == old:
            document["pod"] = new

    settings.update_config(change)
    return dataclasses.replace(pod, name=new)


def remove(workspace: Workspace, pod: Pod) -> None:
    """Forget a pod. What runs on it goes on running there."""
    if pod is LOCAL:
        raise BadArgument("The pod local cannot be removed.", hint="It is this computer.")

    def change(document: Any) -> None:
        del document["pods"][pod.name]
        if document.get("pod") == pod.name:
            del document["pod"]

    Ledger().append("pod.forget", pod.id, name=pod.name)
    settings.update_config(change)
    _forget(workspace, pod)


def use(workspace: Workspace, name: str) -> Pod:
    """Make a pod the one that commands without --on mean, here and in processes started from now on."""
    pod = find(name)
    settings.store("pod", pod.name)
    workspace.override("pod", pod.name)
    return pod


def check(workspace: Workspace, pods: list[Pod]) -> list[PodStatus]:
    """What each pod answers, asked at the same time."""
    answers = ask_all(pods, lambda pod: workspace.side(pod).hello(), deadline_s=workspace.value("deadline_s"))
    return [status_of(workspace, pod, answer) for pod, answer in zip(pods, answers, strict=True)]


def status_of(workspace: Workspace, pod: Pod, answer: object) -> PodStatus:
    """A pod's status from what asking it gave: anything but an error means that it answered."""
    in_use = pod.name == workspace.value("pod")
    if isinstance(answer, PodlabError):
        seen = workspace.store.pod_seen(pod.id)
        return PodStatus(pod, PodState.UNREACHABLE, seen, answer.message, in_use)
    now = time.time()
    workspace.store.saw_pod(pod.id, now)
    return PodStatus(pod, PodState.REACHABLE, now, "", in_use)


def refuse_silent(statuses: Sequence[PodStatus]) -> None:
    """Raise Unreachable when some pod did not answer: "nothing runs" must not be said of it."""
    silent = [status for status in statuses if status.state is not PodState.REACHABLE]
    if silent:
        names = ", ".join(status.pod.name for status in silent)
        raise Unreachable(
            f"What runs on {names} is unknown: {silent[0].detail}", hint=f"See: podlab pod show {silent[0].pod.name}"
        )


def _write(pod: Pod, name: str) -> None:
    def change(document: Any) -> None:
        import tomlkit

        if "pods" not in document:
            document["pods"] = tomlkit.table(is_super_table=True)
        if name in document["pods"]:
            raise AlreadyExists(f"There is a pod {name!r} already.")
        document["pods"][name] = _to_table(pod)

    settings.update_config(change)


def _forget(workspace: Workspace, pod: Pod) -> None:
    from podlab.transport.host_keys import HostKeys

    workspace.drop_transport(pod.id)
    if workspace.value("keeper"):
        from podlab.transport import kept

        kept.drop_pod(pod.id)
    HostKeys().forget(pod.id)
    workspace.store.forget_pod(pod.id)


def _to_table(pod: Pod) -> dict[str, Any]:
    assert pod.address is not None
    address = pod.address
    fields: dict[str, Any] = {"id": pod.id, "host": address.host}
    given = {"user": address.user, "port": address.port, "identity_files": list(address.identity_files) or None,
             "proxy_jump": address.proxy_jump, "models_path": pod.models_path}  # fmt: skip
    return fields | {key: value for key, value in given.items() if value is not None}


def _from_table(name: str, fields: Any) -> Pod:
    try:
        identity_files = fields.get("identity_files", [])
        port = fields.get("port")
        wrong = (
            "id" if not isinstance(fields["id"], str)
            else "host" if not isinstance(fields["host"], str)
            else "port" if port is not None and not isinstance(port, int)
            else "identity_files" if not all(isinstance(path, str) for path in identity_files)
            else None
        )  # fmt: skip
    except (KeyError, TypeError, AttributeError) as error:
        raise BadSettings(f"[pods.{name}] lacks {error}.", hint="Mend it with: podlab config edit") from error
    if wrong:
        raise BadSettings(
            f"[pods.{name}] {wrong} = {fields[wrong]!r} is of the wrong kind.", hint="Mend it with: podlab config edit"
        )
    address = SshAddress(
        fields["host"], fields.get("user"), port, tuple(identity_files), proxy_jump=fields.get("proxy_jump")
    )
    return Pod(name, fields["id"], "ssh", address, fields.get("models_path"))
