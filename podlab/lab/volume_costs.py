"""What the network volumes cost that were rented from here: by the ledger, from their creation to their deletion.

Lines of the ledger, by the volume's id: `volume.rent` (name, provider, usd_per_hour, simulated), `volume.end`. A volume
that somebody made elsewhere is billed, too, and is in no ledger of ours: `pod volumes` shows it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import tzinfo

from podlab.lab.money import Cost, day_begins, month_begins
from podlab.ledger import Entry, Ledger
from podlab.renting import Volume

HOURS_A_MONTH = 730.0


@dataclass(frozen=True)
class RentedVolume:
    """A volume, and since when it costs what. `ends_at` None: it is still billed."""

    id: str
    name: str
    provider: str
    usd_per_hour: float
    begins_at: float
    ends_at: float | None = None
    simulated: bool = False

    def usd(self, now: float) -> float:
        """What it has cost up to `now`."""
        ends_at = now if self.ends_at is None else min(now, self.ends_at)
        return max(0.0, ends_at - self.begins_at) / 3600 * self.usd_per_hour


def note_rented(ledger: Ledger, provider: str, volume: Volume, *, usd_per_month: float, simulated: bool) -> None:
    """Note that a volume was rented. Raises StateDamaged."""
    ledger.append(
        "volume.rent", volume.id, name=volume.name, provider=provider, simulated="yes" if simulated else "",
        usd_per_hour=repr(usd_per_month / HOURS_A_MONTH),
    )  # fmt: skip


def note_deleted(ledger: Ledger, volume_id: str) -> None:
    """Note that a volume is billed no more; nothing for one that is in no ledger of ours. Raises StateDamaged."""
    if any(each.id == volume_id and each.ends_at is None for each in rented(ledger.entries())):
        ledger.append("volume.end", volume_id)


def rented(entries: Iterable[Entry]) -> tuple[RentedVolume, ...]:
    """Every volume that was ever rented from here, oldest first."""
    found: dict[str, RentedVolume] = {}
    for entry in entries:
        told = entry.detail
        if entry.verb == "volume.rent":
            try:
                price = float(told.get("usd_per_hour", ""))
            except ValueError:
                price = 0.0
            found[entry.subject] = RentedVolume(
                entry.subject, told.get("name", ""), told.get("provider", ""), price, entry.at,
                simulated=told.get("simulated") == "yes",
            )  # fmt: skip
        elif entry.verb == "volume.end" and entry.subject in found:
            found[entry.subject] = replace(found[entry.subject], ends_at=entry.at)
    return tuple(found.values())


def costs(volumes: Iterable[RentedVolume], now: float, zone: tzinfo | None = None) -> tuple[Cost, ...]:
    """What each has cost, as rows beside those of pods."""
    day, month = day_begins(now, zone), month_begins(now, zone)
    return tuple(
        Cost(
            f"volume {each.name}", each.usd(now) - each.usd(day), each.usd(now) - each.usd(month), each.usd(now),
            each.usd_per_hour if each.ends_at is None else 0.0, pods=0, simulated=each.simulated,
        )
        for each in volumes
    )  # fmt: skip


def with_volumes(total: Cost, volumes: Iterable[Cost]) -> Cost:
    """A sum of pods, and the volumes of the same kind of money."""
    mine = [each for each in volumes if each.simulated is total.simulated]
    return replace(
        total, today_usd=total.today_usd + sum(each.today_usd for each in mine),
        month_usd=total.month_usd + sum(each.month_usd for each in mine),
        total_usd=total.total_usd + sum(each.total_usd for each in mine),
        usd_per_hour=total.usd_per_hour + sum(each.usd_per_hour for each in mine),
    )  # fmt: skip
