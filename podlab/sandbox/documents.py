"""What the company keeps, as the JSON of the API: the schemas of RunPod's v2 OpenAPI document, field by field."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from podlab.sandbox.catalogue import DataCenter, GpuKind, TemplateEntry
from podlab.sandbox.meter import Amounts
from podlab.sandbox.records import PodRecord, RegistryRecord, Status, VolumeRecord
from podlab.sandbox.stock import Availability, Stock, StockQuery

Json = dict[str, Any]
WEB_TERMINAL = "19123/http"
"""It appears among the ports of every pod, uninvited."""


def when(at: float | None) -> str | None:
    """A time as the API writes it."""
    return None if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"


def whole_second(at: float) -> str:
    """A bucket's edge."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%S}Z"


def pod(record: PodRecord, now: float) -> Json:
    """A pod. `cost` is of its GPUs and 0 while they are not its own."""
    wanted = record.wanted
    mounts: Json = {}
    if wanted.persistent:
        mounts["persistent"] = {"size": wanted.persistent[0], "path": wanted.persistent[1]}
    if wanted.network:
        mounts["network"] = [{"volumeId": wanted.network[0], "path": wanted.network[1]}]
    found: Json = {
        "id": record.id, "name": record.name, "status": str(record.status), "actions": list(record.actions),
        "image": record.image, "args": record.args, "disk": record.disk_gb, "mounts": mounts,
        "ports": list(record.ports), "env": dict(record.env), "registry": wanted.registry,
        "gpu": {"id": wanted.gpu_id, "count": wanted.gpu_count}, "cloud": wanted.cloud,
        "dataCenterId": record.data_center, "cudaVersion": record.cuda, "ssh": _ssh(record), "template": None,
        "cost": record.usd_per_hour if record.holds_gpu else 0.0, "locked": record.locked,
        "globalNetworking": {"enabled": False}, "runtime": _runtime(record, now),
        "createdAt": when(record.created_at), "startedAt": when(record.started_at),
    }  # fmt: skip
    if wanted.cluster:
        found["cluster"] = {"id": wanted.cluster, "rank": 0}
    return found


def _ssh(record: PodRecord) -> Json:
    user = f"{record.id}-{record.host}"
    proxy = {"host": "ssh.runpod.io", "port": 22, "username": user, "command": f"ssh {user}@ssh.runpod.io"}
    public = record.public_ports.get("22/tcp") if record.up_since is not None else None
    direct = None
    if public is not None:
        command = f"ssh root@{record.ip} -p {public}"
        direct = {"host": record.ip, "port": public, "username": "root", "command": command}
    assigned = record.status not in (Status.PROVISIONING, Status.TERMINATED)
    return {"proxy": proxy if assigned else None, "direct": direct}


def _runtime(record: PodRecord, now: float) -> Json | None:
    if record.up_since is None or record.status is not Status.RUNNING:
        return None
    ports = [
        {"private": int(port), "public": public, "type": kind, "ip": record.ip}
        for (port, _, kind), public in ((asked.partition("/"), public) for asked, public in record.public_ports.items())
    ]
    port, _, kind = WEB_TERMINAL.partition("/")
    ports.append({"private": int(port), "public": None, "type": kind, "ip": None})
    return {
        "uptime": int(now - (record.running_at or now)),
        "gpus": [{"util": record.gpu_util, "memoryUtil": record.memory_util}] * record.wanted.gpu_count,
        "cpu": {"util": record.cpu_util}, "memory": {"util": record.memory_util}, "ports": ports,
    }  # fmt: skip


def gpu(kind: GpuKind, found: Availability | None) -> Json:
    """A GPU type; with what there is of it, when that was asked for."""
    community = kind.community_free > 0
    document: Json = {
        "id": kind.id, "name": kind.name, "pool": kind.pool, "manufacturer": kind.maker, "memory": kind.memory_gb,
        "secure": bool(kind.free), "community": community,
        "price": {"secure": kind.secure_usd, "community": kind.community_usd},
        "maxCount": {"secure": kind.max_count if kind.free else 0, "community": kind.max_count if community else 0},
    }  # fmt: skip
    if found is not None:
        document["availability"] = found.level
        if found.places:
            document["dataCenters"] = [
                {"id": center.id, "name": center.name, "availability": level} for center, level in found.places
            ]
        if found.cuda:
            document["cudaVersions"] = [{"version": one, "available": there} for one, there in found.cuda]
    return document


def data_center(center: DataCenter, stock: Stock | None) -> Json:
    """A data centre; with its GPUs, when that was asked for."""
    document: Json = {
        "id": center.id, "name": center.name, "region": center.region, "globalNetwork": center.region != "ASIA",
        "networkVolumeTypes": list(center.volumes), "compliance": ["SOC_2_TYPE_2"],
    }  # fmt: skip
    if stock is not None:
        offered = [
            {"id": kind.id, "name": kind.name, "availability": level}
            for kind in stock.kinds.values()
            for place, level in stock.look(kind, StockQuery()).places
            if place.id == center.id
        ]
        if offered:
            document["gpuAvailability"] = offered
    return document


def template(entry: TemplateEntry) -> Json:
    """A template."""
    mounts = {"persistent": {"size": entry.persistent[0], "path": entry.persistent[1]}} if entry.persistent else {}
    return {
        "id": entry.id, "name": entry.name, "image": entry.image, "args": entry.args, "disk": entry.disk_gb,
        "mounts": mounts, "ports": list(entry.ports), "env": dict(entry.env), "registry": entry.registry,
        "serverless": entry.serverless, "public": entry.public, "category": entry.category,
        "startSsh": entry.start_ssh, "startJupyter": entry.start_jupyter, "allowedCudaVersions": list(entry.cuda),
    }  # fmt: skip


def volume(record: VolumeRecord) -> Json:
    """A network volume."""
    return {
        "id": record.id, "name": record.name, "size": record.size_gb, "dataCenter": record.data_center,
        "type": record.tier,
    }  # fmt: skip


def registry(record: RegistryRecord) -> Json:
    """A registry login."""
    return {"id": record.id, "name": record.name}


def bills(found: Iterable[Amounts], edges: list[tuple[float, float]], bucket: str, pod_id: str | None) -> Json:
    """What pods cost, bucket by bucket, and in all."""
    found = list(found)
    records = [
        {
            "startTime": whole_second(each.begins_at), "endTime": whole_second(each.ends_at), "podId": each.id,
            "totalAmount": each.usd, "gpuAmount": each.gpu_usd, "cpuAmount": 0.0, "diskAmount": each.disk_usd,
        }
        for each in found
    ]  # fmt: skip
    query: Json = {
        "startTime": whole_second(edges[0][0]), "endTime": whole_second(edges[-1][1]), "bucketSize": bucket,
        "podId": pod_id,
    }  # fmt: skip
    totals = {
        "totalAmount": sum(each.usd for each in found), "gpuAmount": sum(each.gpu_usd for each in found),
        "cpuAmount": 0.0, "diskAmount": sum(each.disk_usd for each in found),
    }  # fmt: skip
    return {
        "records": records,
        "metadata": {
            "query": query, "recordCount": len(records), "uniquePodCount": len({each.id for each in found}),
            "totals": totals,
        },
    }  # fmt: skip
