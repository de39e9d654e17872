"""RunPod's API v2 as JSON, read into podlab's values.

Shapes: api-reference-v2/openapi.json of github.com/runpod/docs. Unknown fields are ignored, an unknown word becomes
UNKNOWN, a field of another kind is as good as missing; only an id has to be there and has to look like one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from podlab.gpu_names import known_name
from podlab.renting import (
    Account,
    Bill,
    Cloud,
    Offer,
    OfferQuery,
    Registry,
    Rental,
    RentalState,
    Stock,
    Template,
    Volume,
)

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}")
STATES: dict[str, RentalState] = {
    "PROVISIONING": RentalState.PROVISIONING,
    "STARTING": RentalState.STARTING,
    "RUNNING": RentalState.RUNNING,
    "EXITED": RentalState.STOPPED,
    "ERROR": RentalState.ERROR,
    "TERMINATED": RentalState.TERMINATED,
}
_LEVELS: tuple[Stock, ...] = ("unknown", "none", "low", "medium", "high")
CUDA = re.compile(r"\d{1,3}\.\d{1,3}")
PORT = re.compile(r"(\d{1,5})/(tcp|http)")

ProxyUrl = Callable[[str, dict[str, Any], int], str | None]
"""Pod id, its runtime and a port of it to the address where the provider's proxy has it."""


def rental(pod: dict[str, Any], proxy: ProxyUrl) -> Rental | None:
    """A pod of the API; None for what has no id, and so is none."""
    identity = _text(pod, "id")
    if not ID.fullmatch(identity):
        return None
    said, runtime, gpu = _text(pod, "status"), _object(pod, "runtime"), _object(pod, "gpu")
    direct = _object(_object(pod, "ssh"), "direct")
    host, port = _text(direct, "host"), _whole(direct, "port")
    reached = bool(host) and port is not None and 0 < port < 65536
    mounts = _object(pod, "mounts")
    network = mounts.get("network")
    volume = network[0] if isinstance(network, list) and network and isinstance(network[0], dict) else {}
    return Rental(
        id=identity,
        name=_text(pod, "name"),
        state=STATES.get(said, RentalState.UNKNOWN),
        said=said,
        usd_per_hour=_cost(pod, STATES.get(said, RentalState.UNKNOWN)),
        gpu_id=_text(gpu, "id"),
        gpu_count=_whole(gpu, "count"),
        cloud=_cloud(_text(pod, "cloud")),
        data_center=_text(pod, "dataCenterId") or None,
        ssh_host=host if reached else None,
        ssh_port=port if reached else None,
        proxy_urls=_proxies(identity, pod, runtime, proxy),
        created_at=moment(pod.get("createdAt")),
        started_at=moment(pod.get("startedAt")),
        uptime_s=_number(runtime, "uptime"),
        image=_text(pod, "image"),
        volume_id=_text(volume, "volumeId") or None,
        persistent_gb=_whole(_object(mounts, "persistent"), "size"),
        disk_gb=_whole(pod, "disk"),
        actions=tuple(each for each in _list(pod, "actions") if isinstance(each, str)),
        locked=pod.get("locked") is True,
        cuda=_text(pod, "cudaVersion") or None,
        # A pod is called RUNNING at once, long before there is one; and {} has been seen for none.
        has_runtime=bool(runtime),
    )


def _cost(pod: dict[str, Any], state: RentalState) -> float | None:
    """What it costs an hour. Nothing is no price of a pod that has its machine: what was agreed counts on."""
    told = _number(pod, "cost")
    return None if told == 0 and state not in (RentalState.STOPPED, RentalState.TERMINATED) else told


def _proxies(
    identity: str, pod: dict[str, Any], runtime: dict[str, Any], proxy: ProxyUrl
) -> tuple[tuple[int, str], ...]:
    asked = (PORT.fullmatch(each) for each in _list(pod, "ports") if isinstance(each, str))
    ports = sorted({int(match[1]) for match in asked if match and match[2] == "http"})
    return tuple((port, url) for port in ports if (url := proxy(identity, runtime, port)))


def runpod_proxy(identity: str, runtime: dict[str, Any], port: int) -> str | None:
    """Where RunPod's proxy has a port (docs.runpod.io/pods/configuration/expose-ports)."""
    return f"https://{identity}-{port}.proxy.runpod.net"


def sandbox_proxy(identity: str, runtime: dict[str, Any], port: int) -> str | None:
    """The sandbox has no proxy of its own: what a port is mapped to on this computer."""
    for each in _list(runtime, "ports"):
        if isinstance(each, dict) and each.get("private") == port and (public := _whole(each, "public")):
            return f"http://{_text(each, 'ip') or '127.0.0.1'}:{public}"
    return None


def _names(gpus: Iterable[dict[str, Any]]) -> dict[str, str]:
    """What each kind of a catalogue is called, by its id, so that no two are called the same: an H100 PCIe costs less
    than one with SXM and is slower. podlab's own name where that is enough, else the company's, else the id."""
    theirs = {_text(gpu, "id"): _text(gpu, "name") for gpu in gpus}
    found = {identity: known_name(identity) or name or identity for identity, name in theirs.items()}
    for better in (theirs, {identity: identity for identity in theirs}):
        times = Counter(found.values())
        found = {each: (better[each] or each) if times[name] > 1 else name for each, name in found.items()}
    return found


def offers(
    gpus: Iterable[dict[str, Any]], query: OfferQuery, cloud: Cloud, *, provider: str, simulated: bool
) -> tuple[Offer, ...]:
    """The catalogue of one cloud, as it was asked for with `query`'s count, countries and CUDA."""
    found = []
    gpus = tuple(gpus)
    names = _names(gpus)
    placed = bool(query.data_centers or query.countries)
    for gpu in gpus:
        identity = _text(gpu, "id")
        each_usd = _number(_object(gpu, "price"), cloud)
        if not identity or gpu.get(cloud) is False:
            continue
        levels = {
            _text(each, "id"): _level(_text(each, "availability"))
            for each in _list(gpu, "dataCenters")
            if isinstance(each, dict)
        }
        if query.data_centers:
            levels = {place: level for place, level in levels.items() if place in query.data_centers}
        stock = _level(_text(gpu, "availability"))
        if placed:
            if cloud == "community" and not levels:
                continue  # such a machine is in no data center, and an order cannot say where it should be
            stock = max(levels.values(), key=_LEVELS.index, default="none")
        found.append(
            Offer(
                provider=provider,
                gpu_id=identity,
                gpu=names[identity],
                gpu_count=query.gpu_count,
                cloud=cloud,
                usd_per_hour=each_usd * query.gpu_count if each_usd else None,
                memory_bytes=_gib(_number(gpu, "memory")),
                stock=stock,
                data_centers=tuple(place for place, level in levels.items() if level not in ("none", "unknown")),
                cuda_versions=_cuda_versions(gpu),
                max_count=_whole(_object(gpu, "maxCount"), cloud),
                simulated=simulated,
            )
        )
    return tuple(found)


def _cuda_versions(gpu: dict[str, Any]) -> tuple[str, ...]:
    """The CUDA versions that some machine has and is free now, the lowest first."""
    given = [each for each in _list(gpu, "cudaVersions") if isinstance(each, dict) and each.get("available") is True]
    versions = {text for each in given if CUDA.fullmatch(text := _text(each, "version"))}
    return tuple(sorted(versions, key=lambda text: [int(part) for part in text.split(".")]))


def bills(records: Iterable[dict[str, Any]]) -> tuple[Bill, ...]:
    """What was billed, bucket by bucket; a record without pod, span or sum is left out."""
    found = []
    for each in records:
        pod, begins, ends = _text(each, "podId"), moment(each.get("startTime")), moment(each.get("endTime"))
        usd = _number(each, "totalAmount")
        if pod and begins is not None and ends is not None and usd is not None:
            found.append(Bill(pod, begins, ends, usd, _number(each, "gpuAmount"), _number(each, "diskAmount")))
    return tuple(found)


def volume(given: dict[str, Any]) -> Volume | None:
    """A network volume; None for what has no id."""
    identity = _text(given, "id")
    if not ID.fullmatch(identity):
        return None
    size, tier = _whole(given, "size"), _text(given, "type").lower()
    return Volume(identity, _text(given, "name"), size or 0, _text(given, "dataCenter"), tier)


def template(given: dict[str, Any], *, public: bool = False) -> Template | None:
    """A template; None for what has no id."""
    identity = _text(given, "id")
    if not ID.fullmatch(identity):
        return None
    return Template(identity, _text(given, "name"), _text(given, "image"), public or given.get("public") is True)


def registry(given: dict[str, Any]) -> Registry | None:
    """A login to a container registry; None for what has no id."""
    identity = _text(given, "id")
    return Registry(identity, _text(given, "name")) if ID.fullmatch(identity) else None


def with_balance(account: Account, given: dict[str, Any]) -> Account | None:
    """What GraphQL's `myself` says of an account; None where it says nothing."""
    myself = _object(_object(given, "data"), "myself")
    if not myself:
        return None
    return replace(
        account, email=_text(myself, "email"), balance_usd=_signed(myself, "clientBalance"),
        spend_usd_per_hour=_number(myself, "currentSpendPerHr"),
        spend_limit_usd_per_hour=_number(myself, "spendLimit"),
    )  # fmt: skip


def with_limits(account: Account, given: dict[str, Any]) -> Account | None:
    """What `/v2/account/limits` says; None where it says nothing. Its page names `spendRate` and not what is in that:
    other names than these leave the account as it is."""
    spend = given.get("spendRate")
    if not isinstance(spend, dict):
        return None
    limit, current = _number(spend, "limit"), _number(spend, "current")
    return replace(
        account,
        spend_limit_usd_per_hour=account.spend_limit_usd_per_hour if limit is None else limit,
        spend_usd_per_hour=account.spend_usd_per_hour if current is None else current,
    )


def moment(text: Any) -> float | None:
    """Seconds since the epoch of an RFC 3339 time; None for what is none."""
    if not isinstance(text, str) or len(text) > 64:
        return None
    try:
        parsed = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def stamp(at: float) -> str:
    """The other way round, in whole seconds."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _text(fields: dict[str, Any], key: str) -> str:
    value = fields.get(key)
    return value if isinstance(value, str) and len(value) <= 4096 and is_utf8(value) else ""


def _number(fields: dict[str, Any], key: str) -> float | None:
    value = fields.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 2**53:
        return None  # what is no number at all (NaN) is in no range, either
    return float(value)


def _signed(fields: dict[str, Any], key: str) -> float | None:
    """A number that may be below 0, as a balance may."""
    value = fields.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 2**53:
        return None
    return float(value)


def _whole(fields: dict[str, Any], key: str) -> int | None:
    value = fields.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


def _object(fields: dict[str, Any], key: str) -> dict[str, Any]:
    value = fields.get(key)
    return value if isinstance(value, dict) else {}


def _list(fields: dict[str, Any], key: str) -> list[Any]:
    value = fields.get(key)
    return value if isinstance(value, list) else []


def _cloud(word: str) -> Cloud | None:
    clouds: dict[str, Cloud] = {"SECURE": "secure", "COMMUNITY": "community"}
    return clouds.get(word)


def _level(word: str) -> Stock:
    return next((level for level in _LEVELS if level == word.lower()), "unknown")


def _gib(count: float | None) -> int | None:
    return int(count * 2**30) if count else None


def is_utf8(text: str) -> bool:
    """Whether UTF-8 can hold it: JSON may bring half characters."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)
