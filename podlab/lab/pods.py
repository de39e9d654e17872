"""Pods: which there are, which one is meant, whether it answers. The registry is `[pods]` in config.toml."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import time
from collections.abc import Sequence
from pathlib import Path
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
    StateDamaged,
    Unreachable,
)
from podlab.events import Ask, Notice, Stage, Work
from podlab.lab.fanout import ask_all
from podlab.lab.launches import find as find_launch
from podlab.lab.launches import renamed as note_name
from podlab.ledger import Ledger
from podlab.providers.local import LOCAL
from podlab.providers.ssh import SshProvider
from podlab.types import Pod, PodState, PodStatus, SshAddress

if TYPE_CHECKING:
    from podlab.lab.facts import PodFacts
    from podlab.lab.workspace import Workspace

_CHOOSE = {
    "PODLAB_POD": "Set PODLAB_POD to a pod of `podlab pod list`, or unset it.",
    "config.toml": "Choose another one: podlab pod use NAME",
    "the default": "See: podlab pod list",
}
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.IGNORECASE)


def rented_key() -> Path:
    """Where podlab's own private key is, which opens rented pods; `rented.ssh_key` makes it."""
    return settings.home() / "ssh" / "id_ed25519"


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
    """The pod that --on names, else the one in use. Raises NotFound, saying who chose a pod that is not there."""
    if name:
        return find(name)
    chosen, source = workspace.value_and_source("pod")
    try:
        return find(chosen)
    except NotFound as error:
        if source == "flag":
            raise
        where = {"environment": "PODLAB_POD", "file": "config.toml"}.get(source, "the default")
        raise NotFound(
            f"There is no pod {chosen!r}, and {where} says that it is the one in use.",
            hint=f"{error.hint} " * error.hint.startswith("Did") + _CHOOSE[where],
        ) from error


def reach(workspace: Workspace, pod: Pod, *, host_key: str | None = None) -> Work[PodFacts]:
    """Make sure a pod answers, asking about its host key on first contact.

    Raises what the transport raises; HostKeyUnknown (with the fingerprint) where nobody could answer, Refused where
    the answer was no. A fingerprint given as `host_key` is an answer in advance.
    """
    if pod.provider != "local":
        yield Stage("reach", f"Reaching {pod.name}")
    try:
        facts = workspace.side(pod).hello()
    except Unreachable as error:
        from podlab.lab.rented import is_stopped

        if not is_stopped(pod):
            raise
        raise Unreachable(f"Pod {pod.name!r} is stopped.", hint=f"Start it: podlab pod start {pod.name}") from error
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
                yes="This is its host key",
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
    check_new(name)
    pod = SshProvider().adopt(name, address, models_path=models_path)
    try:
        facts = yield from reach(workspace, pod, host_key=host_key)
        _write([pod])
    except BaseException:
        forget(workspace, pod)  # what the keeper makes of that does not matter: what went wrong here does
        raise
    return pod, facts


def check_new(name: str) -> None:
    """Refuse what cannot be the name of one more pod. Raises BadArgument or AlreadyExists."""
    check_name(name)
    if any(pod.name == name for pod in all_pods()):
        raise _taken(name)


def check_name(name: str) -> None:
    """Refuse what cannot be any pod's name. Raises BadArgument."""
    if not _NAME.fullmatch(name):
        raise BadArgument(f"{name!r} cannot be a pod's name.", hint="Use letters, digits, dots, dashes; 63 at most.")


def adopt_all(adopted: Sequence[Pod]) -> None:
    """Add machines without asking them anything: each one's host key is asked about at first contact. All or none.

    Raises AlreadyExists when one of those names is taken.
    """
    _write(adopted)


def check_removable(pod: Pod) -> None:
    """Refuse to forget this computer. Raises BadArgument."""
    if pod is LOCAL:
        raise BadArgument(
            "The pod local is this computer, which cannot be removed.",
            hint="To have another pod in use instead: podlab pod use NAME",
        )
    if pod.rental_id is not None and ((row := find_launch(Ledger(), pod.id)) is None or row.is_open):
        raise BadArgument(
            f"{pod.name} is rented and may be billed, so it is not forgotten.",
            hint=f"End it: podlab pod terminate {pod.name}",
        )


def check_rename(old: str, new: str) -> Pod:
    """The pod `old`, if it can be called `new`. Raises NotFound, BadArgument or AlreadyExists."""
    pod = find(old)
    if pod is LOCAL:
        raise BadArgument(
            "The pod local is this computer and keeps its name.", hint="Pods that were added can be renamed."
        )
    check_new(new)
    return pod


def rename(old: str, new: str) -> Pod:
    """Give a pod another name; its id, host key and endpoints stay."""
    pod = check_rename(old, new)

    def change(document: Any) -> None:
        # Under the lock: another kernel may have renamed, removed or added since we looked.
        table = _table_of(document, pod)
        if new in table:
            raise _taken(new)
        renamed = [(new if name == old else name, fields) for name, fields in table.items()]
        for name in list(table):
            del table[name]
        for name, fields in renamed:
            table[name] = fields
        if document.get("pod") == old:
            document["pod"] = new

    settings.update_config(change)
    if pod.rental_id:
        with contextlib.suppress(StateDamaged):  # the name in the registry goes before the ledger's
            note_name(Ledger(), pod.id, new)
    return dataclasses.replace(pod, name=new)


def keep_models_path(pod: Pod, path: str) -> Pod:
    """Remember where a pod keeps its models. Raises BadArgument for this computer, NotFound when the pod went."""
    if pod is LOCAL:
        raise BadArgument(
            "The pod local keeps models in podlab's own folder.", hint="Set PODLAB_HOME to a folder on another disk."
        )

    def change(document: Any) -> None:
        _table_of(document, pod)[pod.name]["models_path"] = path

    if pod.models_path != path:
        settings.update_config(change)
    return dataclasses.replace(pod, models_path=path)


def remove(workspace: Workspace, pod: Pod) -> Work[None]:
    """Forget a pod. What runs on it goes on running there."""
    check_removable(pod)

    def change(document: Any) -> None:
        del _table_of(document, pod)[pod.name]
        if document.get("pod") == pod.name:
            del document["pod"]
        Ledger().append("pod.forget", pod.id, name=pod.name)

    settings.update_config(change)
    if (problem := forget(workspace, pod)) is not None:
        said = f"{pod.name} is forgotten, but the keeper may hold its connection until it ends by itself: {problem}"
        yield Notice(said, "warning")


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


def status_of(workspace: Workspace, pod: Pod, answer: object, *, noted: bool = False) -> PodStatus:
    """A pod's status from what asking it gave: anything but an error means that it answered, which is noted unless
    the caller has."""
    in_use = pod.name == workspace.value("pod")
    if isinstance(answer, PodlabError):
        from podlab.lab.rented import is_stopped

        seen = workspace.store.pod_seen(pod.id)
        why = f"stopped; start it: podlab pod start {pod.name}" if is_stopped(pod) else reason(pod, answer)
        return PodStatus(pod, PodState.UNREACHABLE, seen, why, in_use)
    now = time.time()
    if not noted:
        workspace.store.saw_pod(pod.id, now)
    return PodStatus(pod, PodState.REACHABLE, now, "", in_use)


def reason(pod: Pod, error: PodlabError) -> str:
    """Why a pod did not answer, for a place that names the pod already."""
    name = re.escape(repr(pod.name))
    return re.sub(rf"\APod {name}(: | (?=\w))", "", error.message)


def refuse_silent(statuses: Sequence[PodStatus]) -> None:
    """Raise Unreachable when some pod did not answer: "nothing runs" must not be said of it."""
    silent = [status for status in statuses if status.state is not PodState.REACHABLE]
    if silent:
        names = ", ".join(status.pod.name for status in silent)
        raise Unreachable(
            f"What runs on {names} is unknown: {silent[0].detail}",
            hint=f"Start or mend that machine, then repeat this. More: podlab pod show {silent[0].pod.name}",
        )


def _write(added: Sequence[Pod]) -> None:
    def change(document: Any) -> None:
        import tomlkit

        if "pods" not in document:
            document["pods"] = tomlkit.table(is_super_table=True)
        for pod in added:
            if pod.name in document["pods"]:
                raise _taken(pod.name)
            document["pods"][pod.name] = to_table(pod)
        for pod in added:
            Ledger().append("pod.adopt", pod.id, name=pod.name, host=pod.address.host if pod.address else "")

    settings.update_config(change)


def _table_of(document: Any, pod: Pod) -> Any:
    """The table of all pods, which holds this one. Raises NotFound when it was renamed or removed in the meantime."""
    table = document.get("pods")
    fields = table.get(pod.name) if isinstance(table, dict) else None
    if not isinstance(fields, dict) or fields.get("id") != pod.id:
        raise NotFound(
            f"There is no pod {pod.name!r} any more: it was renamed or removed in the meantime.",
            hint="See: podlab pod list",
        )
    return table


def _taken(name: str) -> AlreadyExists:
    if name == LOCAL.name:
        said = "The name local is taken: it means this computer, and is there without being added."
        return AlreadyExists(said, hint="Use it as it is (podlab pod use local), or choose another name.")
    return AlreadyExists(
        f"There is a pod {name!r} already.", hint=f"Choose another name, or remove that one: podlab pod remove {name}"
    )


def forget(workspace: Workspace, pod: Pod) -> PodlabError | None:
    """Drop what is kept of a pod: the files first, which must not stay for the next machine of that name, then the
    keeper's connection. Returns why the keeper did not do its part, None when it did."""
    from podlab.transport.host_keys import HostKeys

    HostKeys().forget(pod.id)
    workspace.store.forget_pod(pod.id)
    workspace.drop_transport(pod.id)
    if workspace.value("keeper"):
        from podlab.transport import kept

        try:
            kept.drop_pod(pod.id)
        except PodlabError as error:
            return error
    return None


def to_table(pod: Pod) -> dict[str, Any]:
    """A pod as its table in config.toml."""
    fields: dict[str, Any] = {"id": pod.id}
    if pod.rental_id is not None:
        fields |= {"provider": pod.provider, "rental_id": pod.rental_id}
    address = pod.address
    given = {} if address is None else {
        "host": address.host, "user": address.user, "port": address.port,
        "identity_files": list(address.identity_files) or None, "proxy_jump": address.proxy_jump,
    }  # fmt: skip
    given["models_path"] = pod.models_path
    return fields | {key: value for key, value in given.items() if value is not None}


def _from_table(name: str, fields: Any) -> Pod:
    try:
        identity_files = fields.get("identity_files", [])
        port = fields.get("port")
        rental_id, provider = fields.get("rental_id"), fields.get("provider", "ssh")
        wrong = (
            "id" if not isinstance(fields["id"], str)
            else "provider" if not isinstance(provider, str)
            else "rental_id" if rental_id is not None and not isinstance(rental_id, str)
            else "host" if not isinstance(fields["host"] if rental_id is None else fields.get("host", ""), str)
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
    if rental_id is not None:  # opened by podlab's own key, wherever PODLAB_HOME is by now
        identity_files = [str(rented_key())]
    address = None if "host" not in fields else SshAddress(
        fields["host"], fields.get("user"), port, tuple(identity_files), proxy_jump=fields.get("proxy_jump")
    )  # fmt: skip
    return Pod(name, fields["id"], provider if rental_id else "ssh", address, fields.get("models_path"), rental_id)
