"""The simulated company itself: accounts, pods and money, on a clock and a source of randomness that come in.

Pure logic: it opens no socket, starts no process and sleeps never. Whoever calls it moves it on: each call begins with
what should have happened since the last one. Where pods have machines (machines.py), `listen` is told what becomes of
each pod, and `came_up` says that its container runs; without a listener a container runs by itself, after the pace.
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from podlab.sandbox.assets import Assets, new_id
from podlab.sandbox.catalogue import (
    DISK_USD_PER_GB_MONTH,
    MONTH_S,
    STOPPED_DISK_USD_PER_GB_MONTH,
    VOLUME_USD_PER_GB_MONTH,
)
from podlab.sandbox.logbook import LogBook
from podlab.sandbox.meter import Meter
from podlab.sandbox.records import Caller, Pace, PodRecord, Problem, Status, VolumeRecord, Wanted
from podlab.sandbox.stock import Stock

Happening = Literal["boot", "restart", "halt", "remove", "move"]
"""What a pod's machine has to do: run its container, run it anew, end all its processes, be gone, take other ports."""
Listener = Callable[[PodRecord, Happening], None]
LAYERS = 4
"""Of every image."""
CENT_DUST = 1e-9
"""Dollars that are the rest of a rounding."""


class Company:
    """Safe from several threads. `billing_speed` 60 lets a minute cost what an hour would."""

    def __init__(
        self,
        *,
        now: Callable[[], float] = time.time,
        rng: random.Random | None = None,
        token: Callable[[], str] = lambda: secrets.token_hex(20),
        pace: Pace = Pace(),  # noqa: B008 - frozen
        balance_usd: float = 25.0,
        spend_limit_usd_per_hour: float = 80.0,
        billing_speed: float = 1.0,
        listen: Listener | None = None,
    ) -> None:
        self.now = now
        self.rng = rng or random.Random()  # noqa: S311 - ids and ports; keys come from `token`
        self.pace = self._usual_pace = pace
        self.balance_usd = balance_usd
        self.spend_limit_usd_per_hour = spend_limit_usd_per_hour
        self.billing_speed = billing_speed
        self.stock = Stock()
        self.assets = Assets(self.rng)
        self.meter = Meter()
        self.pods: dict[str, PodRecord] = {}
        """Every pod there ever was, by id."""
        self.books: dict[str, LogBook] = {}
        self.lock = threading.RLock()
        self._token = token
        self.key = f"rpa_{token()}"
        self._callers: dict[str, Caller] = {self.key: Caller()}
        self._listen = listen
        self._settled_at = now()

    # Who asks

    def who(self, key: str) -> Caller | None:
        """Whose key that is; None: nobody's, or of a pod that is gone."""
        with self.lock:
            return self._callers.get(key)

    def revoke(self, key: str) -> None:
        """A key is accepted no longer."""
        with self.lock:
            self._callers.pop(key, None)

    def calm_down(self) -> None:
        """What goes wrong for good does so no longer: pace, stock and locks are as they were. What was done stays."""
        with self.lock:
            self.pace = self._usual_pace
            self.stock.restock()
            for pod in self.pods.values():
                pod.locked = False

    # Pods

    def create(self, wanted: Wanted) -> PodRecord:
        """Rent a pod. Raises Problem: 400 for no stock or a rule broken, 402 for no money, 404 for what it names."""
        with self.lock:
            now = self.advance()
            price = self._price(wanted)
            self._afford(price)
            network = wanted.network and self.assets.volume(wanted.network[0])
            if network:
                places = wanted.data_centers or (network.data_center,)
                if network.data_center not in places:
                    raise Problem(400, f"network volume is in {network.data_center}, not in the requested data centers")
                wanted = replace(wanted, data_centers=(network.data_center,))
            place, cuda = self.stock.take(wanted)
            pod_id = new_id(self.rng)
            made = PodRecord(
                id=pod_id, wanted=wanted, name=wanted.name, image=wanted.image, args=wanted.args, env=dict(wanted.env),
                ports=wanted.ports, disk_gb=wanted.disk_gb, data_center=place, cuda=cuda, usd_per_hour=price,
                created_at=now, key=f"rpa_{self._token()}", host=f"{self.rng.randrange(16**8):08x}", boot_at=now,
                billed_until=now, hidden_until=now + self.pace.read_lag_s, unlisted_until=now + self.pace.listing_lag_s,
            )  # fmt: skip
            self.pods[pod_id] = made
            self.books[pod_id] = LogBook()
            self._callers[made.key] = Caller(pod_id)
            self._say(made, f"create pod {made.name} on {wanted.gpu_count} x {wanted.gpu_id}")
            return made

    def get(self, id: str) -> PodRecord:
        """A pod by its id. Raises Problem 404: unknown, gone, or too new to be found."""
        with self.lock:
            now = self.advance()
            found = self.pods.get(id)
            if found is None or found.status is Status.TERMINATED or now < found.hidden_until:
                raise Problem(404, "pod not found")
            return found

    def listed(self, *, cluster_pods: bool = False) -> tuple[PodRecord, ...]:
        """The pods of the account, oldest first; members of clusters only when asked for."""
        with self.lock:
            now = self.advance()
            return tuple(
                pod
                for pod in self.pods.values()
                if now >= pod.unlisted_until
                and (pod.terminated_at is None or now < pod.terminated_at + self.pace.gone_lag_s)
                and (cluster_pods or pod.wanted.cluster is None)
            )

    def act(self, id: str, action: str) -> PodRecord:
        """Start, stop, restart or terminate. Raises Problem: 404, 409 when its state does not allow it, 400 when its
        machine has no free GPU, 402."""
        with self.lock:
            pod = self._mine_to_change(id)
            if action not in pod.actions:
                raise Problem(409, f'action "{action}" is not valid for a pod in status {pod.status}')
            if pod.locked and action != "start":
                raise Problem(409, "pod is locked")
            now = self.now()
            if action == "start":
                if pod.holds_gpu:
                    self.stock.give_back(pod.wanted.gpu_id, pod.wanted.gpu_count, pod.data_center)
                    pod.status = Status.EXITED
                self._afford(pod.usd_per_hour)
                self.stock.take(pod.wanted, place=pod.data_center, at_host=True)
                pod.status, pod.boot_at, pod.why_error = Status.PROVISIONING, now, ""
                self._say(pod, "start pod")
            elif action == "stop":
                self._halt(pod, Status.EXITED, "stop container")
            elif action == "restart":
                self._down(pod)
                self._say(pod, "restart container")
                pod.running_at = pod.started_at = now
                self._tell(pod, "restart")
            else:
                self._end(pod, "remove container")
            return pod

    def terminate(self, id: str) -> None:
        """End a pod for good. Raises Problem: 404, 409 for a locked one and for a member of a cluster."""
        with self.lock:
            pod = self._mine_to_change(id)
            if pod.locked:
                raise Problem(409, "pod is locked")
            self._end(pod, "remove container")

    def came_up(self, id: str, *, ip: str, public_ports: dict[str, int]) -> None:
        """A pod's container runs. `public_ports`: the port as asked for ("22/tcp") to the one outside."""
        with self.lock:
            pod = self.pods[id]
            if pod.status is Status.RUNNING:
                pod.came_up, pod.ip, pod.public_ports = True, ip, public_ports

    def fail(self, id: str, why: str) -> None:
        """A pod breaks: status ERROR, its GPU still held and billed, as a broken machine's is."""
        with self.lock:
            pod = self.pods[id]
            if pod.live:
                self.advance()
                self._down(pod)
                pod.status, pod.why_error = Status.ERROR, why
                self._say(pod, f"error: {why}")
                self._tell(pod, "halt")

    def exit(self, id: str) -> None:
        """A pod's container ends as if somebody had stopped it in the console."""
        with self.lock:
            pod = self.pods[id]
            self.advance()
            if pod.live:
                self._halt(pod, Status.EXITED, "stop container")

    def vanish(self, id: str) -> None:
        """A pod is ended by somebody else."""
        with self.lock:
            self.advance()
            if self.pods[id].status is not Status.TERMINATED:
                self._end(self.pods[id], "remove container")

    # Money

    @property
    def spend_usd_per_hour(self) -> float:
        """What the account costs now in an hour, disks and volumes included."""
        with self.lock:
            self.advance()
            return sum(sum(rates) for _, rates in self._rates()) * 3600

    def pod_usd(self, id: str) -> float:
        """What a pod has cost in all."""
        with self.lock:
            self.advance()
            return self.meter.total_usd(id)

    def advance(self) -> float:
        """Let happen what should have happened by now; returns the time."""
        with self.lock:
            now = self.now()
            self._settle(now)
            for pod in self.pods.values():
                if pod.live:
                    self._progress(pod, now)
            return now

    def _settle(self, now: float) -> None:
        """Take the money for the time since the last look; an account that runs empty loses its pods at that moment."""
        while self._settled_at < now:
            if 0 < self.balance_usd <= CENT_DUST:
                self.balance_usd = 0.0
            rates = self._rates()
            total = sum(sum(each) for _, each in rates) * self.billing_speed
            until = now
            if total > 0 and self.balance_usd > 0:
                until = min(now, self._settled_at + self.balance_usd / total)
            for each, (gpu, disk) in rates:
                speed = self.billing_speed
                self.balance_usd -= self.meter.run(each, self._settled_at, until, gpu * speed, disk * speed)
            self._settled_at = until
            if self.balance_usd <= CENT_DUST:
                self.balance_usd = min(self.balance_usd, 0.0)
                self.foreclose()

    def foreclose(self) -> None:
        """The account is empty: what has a network volume is stopped, the rest is gone."""
        for pod in list(self.pods.values()):
            if pod.status is Status.TERMINATED:
                continue
            if pod.wanted.network is None:
                self._end(pod, "account balance is zero: remove container")
            elif pod.holds_gpu:
                self._halt(pod, Status.EXITED, "account balance is zero: stop container")

    def _rates(self) -> list[tuple[str, tuple[float, float]]]:
        """Dollars a second of everything that costs something now: GPU, disk."""
        found: list[tuple[str, tuple[float, float]]] = []
        for pod in self.pods.values():
            if pod.status is Status.TERMINATED:
                continue
            persistent = pod.wanted.persistent[0] if pod.wanted.persistent else 0
            if pod.holds_gpu:
                disk = (pod.disk_gb + persistent) * DISK_USD_PER_GB_MONTH / MONTH_S
                found.append((pod.id, (pod.usd_per_hour / 3600, disk)))
            else:
                found.append((pod.id, (0.0, (pod.disk_gb + persistent) * STOPPED_DISK_USD_PER_GB_MONTH / MONTH_S)))
        for volume in self.assets.volumes.values():
            found.append((volume.id, (0.0, volume.size_gb * VOLUME_USD_PER_GB_MONTH / MONTH_S)))
        return found

    def _price(self, wanted: Wanted) -> float:
        kind = self.stock.kinds.get(wanted.gpu_id)
        if kind is None:
            raise Problem(400, f'gpu type "{wanted.gpu_id}" not found')
        one = kind.community_usd if wanted.cloud == "COMMUNITY" else kind.secure_usd
        return round(one * wanted.gpu_count, 4)

    def _afford(self, usd_per_hour: float) -> None:
        if self.balance_usd < usd_per_hour:
            raise Problem(402, "Your account balance is insufficient to run this pod for an hour. Please add funds.")
        running = sum(pod.usd_per_hour for pod in self.pods.values() if pod.holds_gpu)
        if running + usd_per_hour > self.spend_limit_usd_per_hour:
            raise Problem(400, "Starting this pod would exceed your account's hourly spend limit.")

    # How a pod moves

    def _progress(self, pod: PodRecord, now: float) -> None:
        pace = self.pace
        placed_at = pod.boot_at + pace.provision_s
        if pod.status is Status.PROVISIONING and now >= placed_at:
            pod.status, pod.layers = Status.STARTING, 0
            self._say(pod, f"create container {pod.image}", placed_at)
        while pod.status is Status.STARTING and pod.layers < LAYERS:
            there_at = placed_at + pace.start_s * (pod.layers + 1) / LAYERS
            if now < there_at:
                break
            pod.layers += 1
            self._say(pod, f"image {pod.image}: layer {pod.layers} of {LAYERS} is there", there_at)
        if pod.status is Status.STARTING and now >= pod.boot_at + pace.provision_s + pace.start_s:
            pod.status = Status.RUNNING
            pod.running_at = pod.started_at = pod.boot_at + pace.provision_s + pace.start_s
            self._say(pod, f"start container for {pod.image}: begin", pod.running_at)
            self._tell(pod, "boot")
        if pod.status is Status.RUNNING and pod.up_since is None and not pod.stuck:
            if now < (pod.running_at or now) + pace.runtime_s:
                return
            if self._listen is None:
                self.came_up(pod.id, ip=f"203.0.113.{self.rng.randrange(1, 255)}", public_ports=self.draw_ports(pod))
            if pod.came_up:
                pod.up_since = now

    def draw_ports(self, pod: PodRecord) -> dict[str, int]:
        """A public port for each one that was asked for; another one each time."""
        return {port: self.rng.randrange(20_000, 60_000) for port in pod.ports}

    def move_ports(self, id: str) -> None:
        """A pod that runs gets other public ports."""
        with self.lock:
            pod = self.pods[id]
            if self._listen is None:
                pod.public_ports = self.draw_ports(pod)
            self._tell(pod, "move")

    def _down(self, pod: PodRecord) -> None:
        pod.came_up, pod.up_since, pod.running_at, pod.ip, pod.public_ports = False, None, None, "", {}
        pod.gpu_util = pod.memory_util = pod.cpu_util = 0

    def _halt(self, pod: PodRecord, status: Status, line: str) -> None:
        self._down(pod)
        pod.status, pod.started_at = status, None
        self.stock.give_back(pod.wanted.gpu_id, pod.wanted.gpu_count, pod.data_center)
        self._say(pod, line)
        self._tell(pod, "halt")

    def _end(self, pod: PodRecord, line: str) -> None:
        if pod.holds_gpu:
            self.stock.give_back(pod.wanted.gpu_id, pod.wanted.gpu_count, pod.data_center)
        self._down(pod)
        pod.status, pod.terminated_at = Status.TERMINATED, self._settled_at
        self._callers.pop(pod.key, None)
        self._say(pod, line)
        self.books[pod.id].close()
        self._tell(pod, "remove")

    def _mine_to_change(self, id: str) -> PodRecord:
        pod = self.get(id)
        if pod.wanted.cluster is not None:
            raise Problem(409, "Pod belongs to a cluster and cannot be modified via the pod endpoints.")
        return pod

    def _tell(self, pod: PodRecord, happening: Happening) -> None:
        if self._listen is not None:
            self._listen(pod, happening)

    def _say(self, pod: PodRecord, line: str, at: float | None = None) -> None:
        self.books[pod.id].write(self.now() if at is None else at, "system", line)

    # Network volumes, for they cost money

    def add_volume(self, name: str, size_gb: int, data_center: str, tier: str | None) -> VolumeRecord:
        """A new network volume. Raises Problem 400 for a place that has none."""
        with self.lock:
            now = self.advance()
            center = self.stock.centers.get(data_center)
            if center is None or not center.volumes or (tier is not None and tier not in center.volumes):
                raise Problem(400, f"data center {data_center} does not support this network volume")
            return self.assets.add_volume(name, size_gb, data_center, tier or center.volumes[0], now)

    def drop_volume(self, id: str) -> None:
        """Delete a network volume. Raises Problem: 404, 400 while a pod has it."""
        with self.lock:
            self.advance()
            self.assets.volume(id)
            for pod in self.pods.values():
                if pod.status is not Status.TERMINATED and pod.wanted.network and pod.wanted.network[0] == id:
                    raise Problem(400, "network volume is attached to a pod")
            del self.assets.volumes[id]
