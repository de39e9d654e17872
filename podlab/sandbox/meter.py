"""What each thing has cost: spans of constant rates, and their sums by time bucket."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

Bucket = Literal["hour", "day", "week", "month", "year"]
BUCKETS: tuple[Bucket, ...] = ("hour", "day", "week", "month", "year")


@dataclass
class Span:
    """A time in which something cost the same each second."""

    begins_at: float
    ends_at: float
    gpu_usd_per_s: float
    disk_usd_per_s: float


@dataclass(frozen=True)
class Amounts:
    """Dollars in a time bucket."""

    begins_at: float
    ends_at: float
    id: str
    gpu_usd: float
    disk_usd: float

    @property
    def usd(self) -> float:
        """Both together."""
        return self.gpu_usd + self.disk_usd


class Meter:
    """The spans of everything, by id. Things that are gone stay in it."""

    def __init__(self) -> None:
        self._spans: dict[str, list[Span]] = {}

    def run(self, id: str, begins_at: float, ends_at: float, gpu_usd_per_s: float, disk_usd_per_s: float) -> float:
        """Note what something cost in a time; returns the dollars."""
        if ends_at <= begins_at:
            return 0.0
        spans = self._spans.setdefault(id, [])
        last = spans[-1] if spans else None
        if last and (last.ends_at, last.gpu_usd_per_s, last.disk_usd_per_s) == (
            begins_at,
            gpu_usd_per_s,
            disk_usd_per_s,
        ):
            last.ends_at = ends_at
        else:
            spans.append(Span(begins_at, ends_at, gpu_usd_per_s, disk_usd_per_s))
        return (ends_at - begins_at) * (gpu_usd_per_s + disk_usd_per_s)

    def total_usd(self, id: str) -> float:
        """What something has cost in all."""
        return sum((s.ends_at - s.begins_at) * (s.gpu_usd_per_s + s.disk_usd_per_s) for s in self._spans.get(id, ()))

    def amounts(self, edges: Iterable[tuple[float, float]], id: str | None = None) -> Iterator[Amounts]:
        """Per bucket and thing, what was billed; without the empty ones."""
        for begins_at, ends_at in edges:
            for each, spans in self._spans.items():
                if id not in (None, each):
                    continue
                gpu = disk = 0.0
                for span in spans:
                    length = min(ends_at, span.ends_at) - max(begins_at, span.begins_at)
                    if length > 0:
                        gpu += length * span.gpu_usd_per_s
                        disk += length * span.disk_usd_per_s
                if gpu or disk:
                    yield Amounts(begins_at, ends_at, each, gpu, disk)


def buckets(bucket: Bucket, begins_at: float, ends_at: float) -> list[tuple[float, float]]:
    """The whole buckets that a time touches: the API widens what is asked to their edges."""
    edge = floor(bucket, begins_at)
    found = []
    while edge.timestamp() < ends_at:
        behind = _next(bucket, edge)
        found.append((edge.timestamp(), behind.timestamp()))
        edge = behind
    return found


def last_buckets(bucket: Bucket, count: int, now: float) -> list[tuple[float, float]]:
    """The current bucket and those before it, `count` in all."""
    edge = floor(bucket, now)
    found = [(edge.timestamp(), _next(bucket, edge).timestamp())]
    while len(found) < count:
        before = floor(bucket, edge.timestamp() - 1)
        found.insert(0, (before.timestamp(), edge.timestamp()))
        edge = before
    return found


def floor(bucket: Bucket, at: float) -> datetime:
    """Where the bucket begins that holds a time, in UTC."""
    moment = datetime.fromtimestamp(at, UTC).replace(minute=0, second=0, microsecond=0)
    if bucket == "hour":
        return moment
    moment = moment.replace(hour=0)
    if bucket == "week":
        return moment - timedelta(days=moment.weekday())
    if bucket == "day":
        return moment
    return moment.replace(day=1) if bucket == "month" else moment.replace(day=1, month=1)


def _next(bucket: Bucket, edge: datetime) -> datetime:
    if bucket in ("hour", "day", "week"):
        return edge + {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1)}[bucket]
    if bucket == "year" or edge.month == 12:
        return edge.replace(year=edge.year + 1, month=1)
    return edge.replace(month=edge.month + 1)
