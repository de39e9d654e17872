"""What a create needs of this computer: its registry, its SSH key, and the way to the pod."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from podlab.errors import HostKeyChanged, HostKeyUnknown, Refused
from podlab.events import Ask, Work
from podlab.lab import gpus, heartbeat, pods, readiness, rented
from podlab.lab.candidates import Candidate
from podlab.lab.launches import Launch
from podlab.lab.market import Market
from podlab.lab.money import Caps
from podlab.lab.readiness import Patience
from podlab.lab.start_command import Pace, start_command
from podlab.renting import Armed, Rental
from podlab.transport.host_keys import checked_fingerprint

if TYPE_CHECKING:
    from podlab.lab.workspace import Workspace
    from podlab.types import Pod


class Here:
    """This computer, as `attempts.Crew` wants it and as `readiness.Way` does."""

    def __init__(
        self, workspace: Workspace, market: Market, *, host_key: str | None = None, patience: Patience | None = None,
        pace: Pace | None = None,
    ) -> None:  # fmt: skip
        """`host_key` is a fingerprint that vouches for the pod's; `pace` of the switch is for tests."""
        self._workspace = workspace
        self._market = market
        self._host_key = None if host_key is None else checked_fingerprint(host_key)
        self._patience = patience or Patience()
        self._pace = pace

    def taken(self) -> Collection[str]:
        """The names of all pods."""
        return {pod.name for pod in pods.all_pods()}

    def caps(self) -> Caps:
        """As the settings say."""
        return Caps.of(self._workspace.value)

    def watched(self) -> str:
        """The keeper does, or this kernel where there is none."""
        from podlab.lab.guarding import ensure_keeper

        self._workspace.brake()
        return ensure_keeper(self._workspace)

    def start(self, launch: Launch, candidate: Candidate) -> tuple[tuple[str, ...], Mapping[str, str]]:
        """podlab's own start command, with its dead-man switch; and the key that opens the pod."""
        made = start_command(
            launch.id, launch.policy, now=self._believed(launch), usd_per_hour=candidate.usd_per_hour,
            stopped_usd_per_hour=candidate.stopped_usd_per_hour, pace=self._pace,
        )  # fmt: skip
        return made.argv, made.env | {"PUBLIC_KEY": rented.public_key()}

    def _believed(self, launch: Launch) -> float:
        """The time for what travels as seconds left: a clock that was set since the intent must not change them."""
        return launch.asked.at + self._market.moment().since(launch.asked)

    def keep(self, launch: Launch, rental: Rental) -> None:
        """Into config.toml."""
        rented.keep(launch, rental)

    def drop(self, launch: Launch) -> None:
        """Out of config.toml."""
        rented.drop(self._workspace, [launch.id])

    def arrive(self, launch: Launch, rental: Rental, check: Callable[[Rental], None]) -> Work[None]:
        """Until it works."""
        yield from readiness.arrive(self._market, launch, rental, check, self, self._patience)

    def moved(self, launch: Launch, rental: Rental) -> None:
        """Its address into config.toml."""
        rented.moved(self._workspace, launch, rental)

    def knock(self, launch: Launch, fingerprints: tuple[str, ...]) -> Work[str]:
        """Say hello by SSH, with its host key confirmed."""
        pod = rented.pod_of(launch)
        try:
            self._workspace.side(pod).hello()
            return "pinned"
        except HostKeyUnknown as unknown:
            how = yield from self._confirmed(unknown, fingerprints)
            self._pin(pod, unknown)
        except HostKeyChanged:
            how = self._renewed(pod, fingerprints)
        self._workspace.side(pod).hello()
        return how

    def beat(self, launch: Launch) -> Armed:
        """A word to its switch."""
        pod = rented.pod_of(launch)
        return heartbeat.beat(self._workspace.transport(pod), launch, now=self._believed(launch))

    def cuda(self, launch: Launch) -> str:
        """As the driver's own library tells its cards."""
        found = gpus.cards(self._workspace, rented.pod_of(launch))
        usable = [gpu for gpu in found.gpus if not gpu.lost and not gpu.mig]
        if len(usable) >= launch.gpu_count:
            return ""
        why = found.detail or next((gpu.error for gpu in found.gpus if gpu.error), "")
        return f"{len(usable)} of {launch.gpu_count} GPUs can be used{why and f': {why}'}"

    def _confirmed(self, unknown: HostKeyUnknown, fingerprints: tuple[str, ...]) -> Work[str]:
        """Who vouches for a host key. Raises HostKeyChanged for another one than the pod told, Refused for a no."""
        if self._host_key is not None:
            if self._host_key != unknown.fingerprint:
                raise Refused(f"It shows the host key {unknown.fingerprint}, not {self._host_key}.")
            return "given"
        if fingerprints:
            if unknown.fingerprint not in fingerprints:
                # Not a bad machine yet: a public port may lead to another one for a minute and a half.
                told = " or ".join(fingerprints)
                raise HostKeyChanged(unknown.pod, unknown.host, told, unknown.fingerprint) from unknown
            return "log"
        answer = yield Ask(
            f"Is {unknown.fingerprint} the host key of {unknown.pod} ({unknown.host})?", "host_key",
            detail=f"Its log at the provider does not show one. The key is of type {unknown.key_type}.",
            yes="This is its host key",
        )  # fmt: skip
        if answer is None:
            raise unknown
        if not answer:
            raise Refused(f"The host key of {unknown.pod!r} was not accepted. Nothing was sent.")
        return "person"

    def _renewed(self, pod: Pod, fingerprints: tuple[str, ...]) -> str:
        """A pod that was started anew may have made new host keys: they count when its log tells them."""
        from podlab.transport.host_keys import HostKeys

        before = HostKeys().pinned(pod.id)
        HostKeys().forget(pod.id)
        try:
            self._workspace.side(pod).hello()
            return "pinned"
        except HostKeyUnknown as unknown:
            if unknown.fingerprint in fingerprints:
                self._pin(pod, unknown)
                return "log"
            told = before.fingerprint if before is not None else "another"
            raise HostKeyChanged(pod.name, unknown.host, told, unknown.fingerprint) from unknown
        finally:
            if before is not None and HostKeys().pinned(pod.id) is None:
                HostKeys().pin(pod.id, before.type, before.base64)

    def _pin(self, pod: Pod, unknown: HostKeyUnknown) -> None:
        from podlab.transport.host_keys import HostKeys

        HostKeys().pin(pod.id, unknown.key_type, unknown.key_base64)
