"""All simulated machines of a company: what becomes of its pods becomes of them, in one thread of their own."""

from __future__ import annotations

import contextlib
import queue
import shutil
import threading
import time
from pathlib import Path

from podlab.sandbox.company import Company, Happening
from podlab.sandbox.logbook import Source
from podlab.sandbox.machine import Machine
from podlab.sandbox.nvml_library import compiled
from podlab.sandbox.processes import table
from podlab.sandbox.records import PodRecord, Status

TICK_S = 0.05
MEASURE_S = 0.5


class Machines:
    """Give `listen` to the company, then `open`. `home` is a folder of its own; what is left in it is removed."""

    def __init__(self, home: Path, *, gpu_library: bool = True) -> None:
        """Without `gpu_library` GPUs are read by the simulated nvidia-smi alone, as where no C compiler is."""
        self._gpu_library = gpu_library
        self._home = home
        self._todo: queue.Queue[tuple[str, Happening]] = queue.Queue()
        self.machines: dict[str, Machine] = {}
        self._company: Company | None = None
        self._url = ""
        self._library: Path | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sandbox machines", daemon=True)

    def listen(self, pod: PodRecord, happening: Happening) -> None:
        """What becomes of a pod. Called by the company with its lock held, so it only takes note."""
        self._todo.put((pod.id, happening))

    def open(self, company: Company, url: str) -> None:
        """Begin. `url` is where pods reach the company."""
        self._company, self._url = company, url
        shutil.rmtree(self._home / "pods", ignore_errors=True)
        self._thread.start()

    def close(self) -> None:
        """End every machine; returns when no process of theirs is left."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()
        enders = [threading.Thread(target=machine.end) for machine in self.machines.values()]
        for each in enders:
            each.start()
        for each in enders:
            each.join()
        self.machines.clear()
        shutil.rmtree(self._home / "pods", ignore_errors=True)

    def _run(self) -> None:
        self._library = compiled(self._home / "nvml") if self._gpu_library else None
        measured_at = 0.0
        while not self._over.is_set():
            with contextlib.suppress(queue.Empty):
                self._do(*self._todo.get(timeout=TICK_S))
            now = time.monotonic()
            due = now - measured_at >= MEASURE_S
            seen = table() if due and self.machines else []
            for machine in self.machines.values():
                machine.look(now)
                if due:
                    machine.measure(now, seen)
                    self._report(machine)
            if due:
                measured_at = now

    def _do(self, pod_id: str, happening: Happening) -> None:
        assert self._company is not None
        machine = self.machines.get(pod_id)
        if happening == "move" and machine:
            machine.move_ports()
            self._company.came_up(pod_id, ip="127.0.0.1", public_ports=machine.public_ports)
            return
        if machine is not None:
            self.machines.pop(pod_id).end()
        if happening in ("boot", "restart"):
            self._boot(pod_id)
        elif happening == "remove":
            shutil.rmtree(self._home / "pods" / pod_id, ignore_errors=True)

    def _boot(self, pod_id: str) -> None:
        company = self._company
        assert company is not None
        pod = company.pods[pod_id]
        if pod.stuck or pod.status is not Status.RUNNING:
            return  # it has been stopped meanwhile: that is next in the queue
        book = company.books[pod_id]

        def say(source: Source, text: str) -> None:
            book.write(company.now(), source, text)

        folder = self._home / "pods" / pod_id
        network = pod.wanted.network
        workspace = self._home / "volumes" / network[0] if network else folder / "workspace"
        kind = company.stock.kinds[pod.wanted.gpu_id]
        try:
            machine = Machine(folder, pod, kind, url=self._url, library=self._library, workspace=workspace, say=say)
        except (OSError, ValueError) as error:  # no room on this computer; a start command that is no command line
            company.fail(pod_id, f"cannot start the container: {error}")
            return
        self.machines[pod_id] = machine
        company.came_up(pod_id, ip="127.0.0.1", public_ports=machine.public_ports)

    def _report(self, machine: Machine) -> None:
        """What the company shows of a pod's use."""
        assert self._company is not None
        with self._company.lock:
            pod = self._company.pods[machine.pod_id]
            total = machine.gpus.kind.memory_gb * 1024
            pod.gpu_util = max(machine.gpus.percent, default=0)
            pod.memory_util = round(100 * max(machine.gpus.used_mib, default=0) / total)
            pod.cpu_util = pod.gpu_util
