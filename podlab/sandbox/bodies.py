"""What a request's body may hold: every key, its type and its limits, as the OpenAPI document has them.

What does not fit is a Problem 422 that names each field; what fits the form and breaks a rule is a 400.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from podlab.sandbox.assets import Assets
from podlab.sandbox.catalogue import TemplateEntry
from podlab.sandbox.records import Problem, Wanted, invalid

Check = Callable[[Any, str], list[str]]
"""A value and where it stands, to what is wrong with it."""
CUDA = re.compile(r"\d+\.\d+\Z")
SSH_KEY = re.compile(r"(ssh|ecdsa|sk)-[^\s]+ [^\s]+([ \t][^\n\r]*)?\Z")
MOST_ENV = 50


def text(*, shortest: int = 0, pattern: re.Pattern[str] | None = None, words: tuple[str, ...] = ()) -> Check:
    """A string, of some length, form or list of words."""

    def check(value: Any, at: str) -> list[str]:
        if not isinstance(value, str):
            return [f"{at}: must be a string"]
        if len(value) < shortest:
            return [f"{at}: minimum length is {shortest}"]
        if words and value not in words:
            return [f"{at}: must be one of {', '.join(words)}"]
        return [f"{at}: does not match {pattern.pattern}"] if pattern and not pattern.match(value) else []

    return check


def whole(lowest: int, highest: int = 10**9) -> Check:
    """A whole number in a range."""

    def check(value: Any, at: str) -> list[str]:
        if isinstance(value, bool) or not isinstance(value, int):
            return [f"{at}: must be an integer"]
        return [] if lowest <= value <= highest else [f"{at}: must be from {lowest} to {highest}"]

    return check


def number(value: Any, at: str) -> list[str]:
    """A number from 0."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9
    return [] if good else [f"{at}: must be a number from 0"]


def flag(value: Any, at: str) -> list[str]:
    """True or false."""
    return [] if isinstance(value, bool) else [f"{at}: must be a boolean"]


def or_null(check: Check) -> Check:
    """The same, or null."""
    return lambda value, at: [] if value is None else check(value, at)


def many(check: Check, most: int = 1000) -> Check:
    """An array of such values."""

    def whole_array(value: Any, at: str) -> list[str]:
        if not isinstance(value, list):
            return [f"{at}: must be an array"]
        if len(value) > most:
            return [f"{at}: maximum number of items is {most}"]
        return [wrong for nth, each in enumerate(value) for wrong in check(each, f"{at}[{nth}]")]

    return whole_array


def texts(value: Any, at: str) -> list[str]:
    """An object whose values are strings."""
    if not isinstance(value, dict):
        return [f"{at}: must be an object"]
    return [f"{at}.{key}: must be a string" for key, each in value.items() if not isinstance(each, str)]


def thing(fields: dict[str, Check], *required: str) -> Check:
    """An object of these keys and no others."""

    def check(value: Any, at: str) -> list[str]:
        if not isinstance(value, dict):
            return [f"{at or 'body'}: must be an object"]
        dot = f"{at}." if at else ""
        wrong = [f"{dot}{key}: unknown property" for key in value if key not in fields]
        wrong += [f"{dot}{key}: is required" for key in required if key not in value]
        return wrong + [each for key, one in fields.items() if key in value for each in one(value[key], f"{dot}{key}")]

    return check


PERSISTENT = thing({"size": whole(10), "path": text()}, "size", "path")
NETWORK = thing({"volumeId": text(), "path": text()}, "volumeId", "path")
CONTAINER: dict[str, Check] = {
    "image": text(), "args": text(), "disk": whole(1), "env": texts, "ports": many(text()), "registry": or_null(text()),
}  # fmt: skip
GPU = thing(
    {
        "id": text(), "count": whole(1), "allowedCudaVersions": many(text(pattern=CUDA)),
        "minCudaVersion": text(pattern=CUDA), "minRamPerGpu": whole(1), "minVcpuCountPerGpu": whole(1),
    },
    "id",
)  # fmt: skip
CREATE_POD = thing(
    {
        **CONTAINER, "name": text(shortest=1), "cloud": text(words=("SECURE", "COMMUNITY")), "gpu": GPU,
        "cpu": thing({"id": text(shortest=1), "vcpuCount": whole(2)}, "id", "vcpuCount"),
        "dataCenterIds": many(text()), "globalNetworking": flag, "startJupyter": flag, "startSsh": flag,
        "templateId": text(shortest=1), "mounts": thing({"persistent": PERSISTENT, "network": many(NETWORK, 1)}),
    },
    "name",
)  # fmt: skip
UPDATE_POD = thing(
    {
        **CONTAINER, "name": text(shortest=1), "locked": flag, "globalNetworking": flag, "templateId": text(),
        "mounts": thing({"persistent": PERSISTENT, "network": many(NETWORK, 1)}),
    }
)  # fmt: skip
ACTION = thing({"action": text(words=("start", "stop", "restart", "terminate"))}, "action")
SSH_KEYS = thing({"keys": many(text(pattern=SSH_KEY))}, "keys")
CREATE_VOLUME = thing(
    {
        "name": text(shortest=1), "size": whole(10, 4096), "dataCenter": text(shortest=1),
        "type": text(words=("STANDARD", "HIGH_PERFORMANCE")),
    },
    "name", "size", "dataCenter",
)  # fmt: skip
UPDATE_VOLUME = thing({"name": text(shortest=1), "size": whole(10, 4096)})
CREATE_REGISTRY = thing(
    {"name": text(shortest=1), "username": text(shortest=1), "password": text(shortest=1)},
    "name", "username", "password",
)  # fmt: skip
CREATE_TEMPLATE = thing(
    {
        **CONTAINER, "name": text(shortest=1), "mounts": thing({"persistent": PERSISTENT}), "public": flag,
        "serverless": flag, "startSsh": flag, "startJupyter": flag, "allowedCudaVersions": many(text(pattern=CUDA)),
        "category": text(words=("CPU", "NVIDIA", "AMD")),
    },
    "name", "image",
)  # fmt: skip


def read(body: bytes, check: Check) -> dict[str, Any]:
    """A body as an object that fits. Raises Problem: 400 for what is no JSON, 422 naming each field."""
    try:
        value = json.loads(body or b"null")
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"request body is not valid JSON: {type(error).__name__}") from error
    if wrong := check(value, ""):
        raise invalid(*wrong)
    found: dict[str, Any] = value
    return found


def wanted(body: bytes, assets: Assets) -> Wanted:
    """What a create asks for. Raises Problem: 422, 400, and 404 for a template nobody has."""
    asked = read(body, CREATE_POD)
    template = assets.template(asked["templateId"]) if "templateId" in asked else None
    if template is None and not asked.get("image"):
        raise invalid("image: is required unless templateId is set")
    if template and template.serverless:
        raise invalid("templateId: is a serverless template")
    if ("gpu" in asked) == ("cpu" in asked):
        raise Problem(400, "exactly one of gpu or cpu must be set")
    if "cpu" in asked:
        raise Problem(400, "this simulated company rents no CPU pods")
    gpu, mounts = asked["gpu"], asked.get("mounts", {})
    if gpu.get("allowedCudaVersions") and "minCudaVersion" in gpu:
        raise Problem(400, "allowedCudaVersions and minCudaVersion are mutually exclusive")
    if mounts.get("persistent") and mounts.get("network"):
        raise Problem(400, "at most one of mounts.persistent and mounts.network may be set")
    env = {**dict(template.env if template else ()), **asked.get("env", {})}
    if len(env) > MOST_ENV:
        raise Problem(400, f"at most {MOST_ENV} environment variables may be set")
    ports = tuple(asked.get("ports", template.ports if template else ()))
    if wrong := [port for port in ports if not re.match(r"\d{1,5}/(tcp|http|udp)\Z", port)]:
        raise Problem(400, f'port "{wrong[0]}" is not of the form 8000/http')
    persistent, network = mounts.get("persistent"), mounts.get("network")
    template_cuda = template.cuda if template and "minCudaVersion" not in gpu else ()
    return Wanted(
        name=asked["name"],
        image=asked.get("image") or (template.image if template else ""),
        gpu_id=gpu["id"],
        gpu_count=gpu.get("count", 1),
        cloud=asked.get("cloud", "SECURE"),
        data_centers=tuple(asked.get("dataCenterIds", ())),
        args=asked.get("args", template.args if template else ""),
        disk_gb=asked.get("disk", template.disk_gb if template else 20),
        env=env,
        ports=ports,
        registry=asked.get("registry", template.registry if template else None),
        persistent=_mount(persistent) or (template.persistent if template and not network else None),
        network=(network[0]["volumeId"], network[0]["path"]) if network else None,
        allowed_cuda=tuple(gpu.get("allowedCudaVersions", template_cuda)),
        min_cuda=gpu.get("minCudaVersion"),
        start_ssh=asked.get("startSsh", template.start_ssh if template else False),
    )


def template(body: bytes) -> TemplateEntry:
    """The template that a body describes. Raises Problem."""
    asked = read(body, CREATE_TEMPLATE)
    persistent = asked.get("mounts", {}).get("persistent")
    return TemplateEntry(
        id="",
        name=asked["name"],
        image=asked["image"],
        args=asked.get("args", ""),
        disk_gb=asked.get("disk", 20),
        ports=tuple(asked.get("ports", ())),
        env=tuple(asked.get("env", {}).items()),
        persistent=_mount(persistent),
        registry=asked.get("registry"),
        serverless=asked.get("serverless", False),
        public=asked.get("public", False),
        category=asked.get("category", "NVIDIA"),
        start_ssh=asked.get("startSsh", True),
        start_jupyter=asked.get("startJupyter", True),
        cuda=tuple(asked.get("allowedCudaVersions", ())),
    )


def _mount(asked: dict[str, Any] | None) -> tuple[int, str] | None:
    return (asked["size"], asked["path"]) if asked else None
