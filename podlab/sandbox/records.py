"""What the simulated company knows of each thing it keeps, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Status(StrEnum):
    """A pod's status, in the API's words."""

    PROVISIONING = "PROVISIONING"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    EXITED = "EXITED"
    ERROR = "ERROR"
    TERMINATED = "TERMINATED"


ACTIONS: dict[Status, tuple[str, ...]] = {
    Status.PROVISIONING: ("stop", "terminate"),
    Status.STARTING: ("stop", "terminate"),
    Status.RUNNING: ("stop", "restart", "terminate"),
    Status.EXITED: ("start", "terminate"),
    Status.ERROR: ("start", "terminate"),
    Status.TERMINATED: (),
}
"""What is allowed in each status (the `podAction` operation of the OpenAPI document)."""


class Problem(Exception):
    """What the company refuses, as RFC 9457 says it: status, title, detail, and what is wrong with each field."""

    TITLES = {  # noqa: RUF012 - never changed
        400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found",
        405: "Method Not Allowed", 409: "Conflict", 410: "Gone", 422: "Unprocessable Entity", 429: "Too Many Requests",
        500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable",
    }  # fmt: skip

    def __init__(self, status: int, detail: str, *, errors: tuple[str, ...] = (), retry_after_s: int | None = None):
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors
        self.retry_after_s = retry_after_s

    @property
    def title(self) -> str:
        """The HTTP status in words."""
        return self.TITLES.get(self.status, "Error")


def invalid(*errors: str) -> Problem:
    """The Problem of a request that does not fit: what is wrong with each of its fields."""
    return Problem(422, "Request validation failed.", errors=errors)


@dataclass(frozen=True)
class Pace:
    """How long things take, in seconds of the company's clock."""

    provision_s: float = 0.2
    start_s: float = 0.2
    runtime_s: float = 0.2
    """After the status says RUNNING: how much later there is a runtime and a public port."""
    listing_lag_s: float = 0.0
    """How much later a new pod is in the list."""
    read_lag_s: float = 0.0
    """For how long after its creation a pod is not found by its id."""
    gone_lag_s: float = 0.0
    """For how long a terminated pod is still listed as it was."""


@dataclass(frozen=True)
class Wanted:
    """What a create asks for, whole and checked."""

    name: str
    image: str
    gpu_id: str
    gpu_count: int = 1
    cloud: str = "SECURE"
    data_centers: tuple[str, ...] = ()
    args: str = ""
    disk_gb: int = 20
    env: dict[str, str] = field(default_factory=dict)
    ports: tuple[str, ...] = ()
    registry: str | None = None
    persistent: tuple[int, str] | None = None
    """GB and path."""
    network: tuple[str, str] | None = None
    """Volume and path."""
    allowed_cuda: tuple[str, ...] = ()
    min_cuda: str | None = None
    start_ssh: bool = False
    cluster: str | None = None
    """Set for a member of a cluster, which somebody made elsewhere."""


@dataclass
class PodRecord:
    """A pod as the company keeps it. Times are of the company's clock."""

    id: str
    wanted: Wanted
    name: str
    image: str
    args: str
    env: dict[str, str]
    ports: tuple[str, ...]
    disk_gb: int
    data_center: str | None
    cuda: str | None
    usd_per_hour: float
    created_at: float
    key: str
    """The key that only this pod has."""
    host: str
    """The machine it sits on, as in the proxy's user name."""
    status: Status = Status.PROVISIONING
    boot_at: float = 0.0
    running_at: float | None = None
    """When the status became RUNNING."""
    started_at: float | None = None
    came_up: bool = False
    """Whether the container runs: only then there is a runtime and a public port."""
    up_since: float | None = None
    ip: str = ""
    public_ports: dict[str, int] = field(default_factory=dict)
    """Port as asked for ("22/tcp") to the one outside."""
    locked: bool = False
    terminated_at: float | None = None
    why_error: str = ""
    stuck: bool = False
    """Its container never runs, whatever its status says."""
    deaf: bool = False
    """No SSH server ever listens in it."""
    gpu_error: int = 0
    """What initialising its GPU driver answers (nvml.h); 0: it works."""
    layers: int = 0
    """Of its image, how many are there."""
    billed_until: float = 0.0
    hidden_until: float = 0.0
    """Not found by its id before."""
    unlisted_until: float = 0.0
    """Not in the list before."""
    gpu_util: int = 0
    memory_util: int = 0
    cpu_util: int = 0

    @property
    def live(self) -> bool:
        """Whether it runs or is about to."""
        return self.status in (Status.PROVISIONING, Status.STARTING, Status.RUNNING)

    @property
    def holds_gpu(self) -> bool:
        """Whether its GPU is nobody else's, and billed."""
        return self.live or self.status is Status.ERROR

    @property
    def actions(self) -> tuple[str, ...]:
        """What may be asked of it now."""
        return ACTIONS[self.status]


@dataclass(frozen=True)
class VolumeRecord:
    """A network volume."""

    id: str
    name: str
    size_gb: int
    data_center: str
    tier: str
    created_at: float


@dataclass(frozen=True)
class RegistryRecord:
    """A login to a container registry. The password is not kept: nothing here ever pulls."""

    id: str
    name: str


@dataclass(frozen=True)
class Caller:
    """Whose key a request carries: the account's, or a pod's own."""

    pod_id: str | None = None
