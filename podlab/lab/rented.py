"""Rented pods in the registry: entered as soon as they are known, their address kept up to date, removed when proven
gone. And podlab's own SSH key, which opens them.

A rented pod stands in `[pods.NAME]` of config.toml beside the adopted ones, so that every command takes it for a pod
like any other. Its id is its launch's, and the ledger is the truth about whether it is billed: the registry may be
edited by hand and lose nothing but a name.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podlab import settings
from podlab.durable import locked, private_folder, replace_file, translated
from podlab.errors import AlreadyExists, BadArgument, NotFound, ProviderError, StateDamaged
from podlab.lab import pods
from podlab.lab.launches import Launch, all_launches, find
from podlab.lab.market import Market
from podlab.ledger import Ledger
from podlab.renting import Rental
from podlab.types import Pod, SshAddress

if TYPE_CHECKING:
    from podlab.lab.workspace import Workspace

USER = "root"
"""As whom the images of rented pods let one in."""


def ssh_key() -> Path:
    """podlab's own private key, which only rented pods know: made once, 0600. Raises StateDamaged."""
    path = pods.rented_key()
    folder = private_folder(path.parent)
    if not (path.exists() and path.with_suffix(".pub").exists()):
        with locked(folder / "key.lock"):
            if not (path.exists() and path.with_suffix(".pub").exists()):
                _make_key(path)
    return path


def public_key() -> str:
    """Its public half, as one line for authorized_keys."""
    path = ssh_key().with_suffix(".pub")
    with translated(path):
        return path.read_text("utf-8").strip()


def _make_key(path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if path.exists():  # only its public half is missing
        key: Any = serialization.load_ssh_private_key(path.read_bytes(), password=None)
    else:
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        replace_file(path, private)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    replace_file(path.with_suffix(".pub"), public + b" podlab\n")


def is_stopped(pod: Pod) -> bool:
    """Whether a pod does not answer because it was stopped, as its company said last."""
    if pod.rental_id is None:
        return False
    try:
        launch = find(Ledger(), pod.id)
    except StateDamaged:
        return False
    return launch is not None and launch.is_stopped


def is_rented(pod: Pod) -> bool:
    """Whether a pod costs money."""
    return pod.rental_id is not None


def address_of(rental: Rental) -> SshAddress | None:
    """Where a pod answers to SSH from outside; None while it has no public port."""
    if not rental.ssh_host or not rental.ssh_port:
        return None
    return SshAddress(rental.ssh_host, USER, rental.ssh_port, (str(ssh_key()),))


def pod_of(launch: Launch) -> Pod:
    """The registry's pod of a launch. Raises NotFound when it is not (or no longer) in there."""
    for pod in pods.all_pods():
        if pod.id == launch.id:
            return pod
    raise NotFound(f"{launch.name} is not in the list of pods.", hint="See: podlab pod orphans")


def keep(launch: Launch, rental: Rental, *, name: str | None = None) -> Pod:
    """Enter a pod into the registry, or renew its address there. Raises AlreadyExists when its name went."""
    address = address_of(rental)
    kept: list[Pod] = []

    def change(document: Any) -> None:
        import tomlkit

        if "pods" not in document:
            document["pods"] = tomlkit.table(is_super_table=True)
        table = document["pods"]
        known = next((each for each, fields in table.items() if fields.get("id") == launch.id), None)
        called = known or name or launch.name
        if known is None and (called in table or called == "local"):
            raise AlreadyExists(f"There is a pod {called!r} already.", hint="Choose another name.")
        models_path = table[known].get("models_path") if known else None
        pod = Pod(called, launch.id, launch.provider, address, models_path, rental.id)
        table[called] = pods.to_table(pod)
        kept.append(pod)

    settings.update_config(change)
    return kept[0]


def drop(workspace: Workspace, pod_ids: Iterable[str]) -> list[str]:
    """Take pods out of the registry, with what is kept of them here; the names of those that stood there.

    One that is in use stays the one in use, and is told as missing: a command meant for it must not run elsewhere.
    """
    wanted = set(pod_ids)
    gone = [pod for pod in pods.all_pods() if pod.id in wanted and is_rented(pod)]
    if not gone:
        return []

    def change(document: Any) -> None:
        table = document.get("pods", {})
        for pod in gone:
            if table.get(pod.name, {}).get("id") == pod.id:
                del table[pod.name]

    settings.update_config(change)
    for pod in gone:
        pods.forget(workspace, pod)
    return [pod.name for pod in gone]


def drop_ended(workspace: Workspace, ledger: Ledger) -> list[str]:
    """Take out of the registry what is proven gone; the names. Raises StateDamaged when the ledger says nothing."""
    ended = {launch.id for launch in all_launches(ledger) if not launch.is_open}
    return drop(workspace, ended)


def moved(workspace: Workspace, launch: Launch, rental: Rental) -> Pod:
    """The pod at its address of now: entered where it was missing, its ways here and in the keeper renewed."""
    address = address_of(rental)
    known = next((pod for pod in pods.all_pods() if pod.id == launch.id), None)
    if known is not None and (address is None or (known.address, known.rental_id) == (address, rental.id)):
        return known
    pod = keep(launch, rental)
    workspace.moved(pod)
    return pod


def launch_of(market: Market, pod: Pod) -> Launch:
    """What the ledger says of a rented pod. Raises BadArgument for one that is not rented, NotFound without a row."""
    if not is_rented(pod):
        raise BadArgument(
            f"{pod.name} is not rented: there is nothing to start, stop or pay for.",
            hint="See which are: podlab pod list --all",
        )
    launch = find(market.ledger, pod.id)
    if launch is None:
        raise NotFound(f"The ledger has no row of {pod.name}.", hint="See: podlab pod orphans")
    return launch


def refreshed(workspace: Workspace, market: Market, pod: Pod) -> Pod | None:
    """The pod where its provider says it is now, when that is somewhere else than where it was looked for.

    None: it is where it was, has no address, or the provider did not answer.
    """
    launch = find(market.ledger, pod.id)
    if launch is None or not launch.is_open or launch.rental_id is None:
        return None
    try:
        rental = market.provider(pod.provider).get(launch.rental_id)
    except ProviderError:
        return None
    if rental is None or (address := address_of(rental)) is None or address == pod.address:
        return None
    return moved(workspace, launch, rental)
