"""What is asked of RunPod's API v2, built from podlab's values and checked before anything is sent.

An order that the provider would refuse costs a request and tells less; these errors name field, value and fix. Limits:
api-reference-v2/openapi.json (CreatePodRequest) and pods/templates/environment-variables of github.com/runpod/docs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from podlab.errors import BadArgument, BadOrder
from podlab.providers.runpod_wire import CUDA, ID, PORT, is_utf8
from podlab.quoting import shell_line
from podlab.renting import Cloud, OfferQuery, Order, TemplateDraft
from podlab.secrets import redact

MOST_ENV = 50
MOST_HTTP_PORTS = 10
MOST_VOLUME_GB = 4096
SECRET_FIX = "Secrets reach a pod over SSH; leave it out here."
"""For the provider repeats environment and command in every listing of the account's pods."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_PLACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,39}")


def catalog_query(query: OfferQuery, cloud: Cloud) -> dict[str, str]:
    """What to ask the catalogue of GPUs. Raises BadArgument."""
    if query.gpu_count < 1:
        raise BadArgument(f"{query.gpu_count} GPUs cannot be offered.", hint="Ask for 1 or more.")
    asked = {
        "include": "AVAILABILITY", "product": "POD", "count": str(query.gpu_count), "cloud": cloud.upper(),
    }  # fmt: skip
    if query.countries:
        for country in query.countries:
            if not re.fullmatch("[A-Z]{2}", country):
                raise BadArgument(f"{country!r} is no country.", hint="Write it as its two letters: FR, DE, US.")
        asked["countryCodes"] = ",".join(query.countries)
    if query.min_cuda is not None:
        if not re.fullmatch(r"\d{1,3}(\.\d{1,3})?", query.min_cuda):
            raise BadArgument(f"{query.min_cuda!r} is no version of CUDA.", hint="Write it as 12.8.")
        asked["minCudaVersion"] = query.min_cuda
    return asked


Check = Callable[[bool, str, object, str], None]
"""Whether a field is right, its name, its value, and what to do where it is not."""


def _checking(provider: str) -> Check:
    def check(right: bool, name: str, value: object, fix: str) -> None:
        if not right:
            message = redact(f"{name} cannot be {str(value)[:80]!r} in an order.")
            raise BadOrder(message, provider=provider, fields=(name,), hint=fix)

    return check


def volume_body(name: str, size_gb: int, data_center: str, tier: str, *, provider: str) -> dict[str, Any]:
    """The body that creates a network volume. Raises BadOrder."""
    check = _checking(provider)
    check(bool(name) and name.isprintable(), "name", name, "Give a name.")
    check(10 <= size_gb <= MOST_VOLUME_GB, "size_gb", size_gb, f"Give 10 to {MOST_VOLUME_GB} GB.")
    check(bool(_PLACE.fullmatch(data_center)), "data_center", data_center, "Name one as the provider does: EU-RO-1")
    check(tier in ("", "standard", "high_performance"), "tier", tier, "It is standard or high_performance.")
    body = {"name": name, "size": size_gb, "dataCenter": data_center}
    return body | ({"type": tier.upper()} if tier else {})


def template_body(draft: TemplateDraft, *, provider: str) -> dict[str, Any]:
    """The body that creates a template. Raises BadOrder."""
    check = _checking(provider)
    check(bool(draft.name.strip()) and draft.name.isprintable(), "name", draft.name, "Give a name.")
    check(bool(draft.image) and _is_word(draft.image), "image", draft.image, "Write it as runpod/pytorch:TAG.")
    check((draft.disk_gb or 1) >= 1, "disk_gb", draft.disk_gb, "Give 1 GB or more.")
    body: dict[str, Any] = {
        "name": draft.name, "image": draft.image, "ports": _ports(draft.ports, check), "env": _env(draft.env, check),
        "startJupyter": False,  # which the company would open to the whole net
    }  # fmt: skip
    if draft.disk_gb is not None:
        body["disk"] = draft.disk_gb
    if draft.registry_id is not None:
        body["registry"] = _registry(draft.registry_id, check)
    if draft.persistent_gb is not None:
        body["mounts"] = _persistent(draft.persistent_gb, draft.mount_path, check)
    return body


def order_body(order: Order, *, provider: str) -> dict[str, Any]:
    """The body that creates what `order` says. Raises BadOrder naming field, value and fix; nothing is sent then."""
    check = _checking(provider)
    check(bool(order.name) and order.name.isprintable() and len(order.name) <= 191, "name", order.name, "Give a name.")
    check(bool(order.gpu_id), "gpu_id", order.gpu_id, "Name a GPU as the provider does: podlab pod offers")
    check(1 <= order.gpu_count <= 64, "gpu_count", order.gpu_count, "Ask for 1 GPU or more.")
    check(order.cloud in ("secure", "community"), "cloud", order.cloud, "It is secure or community.")
    template = order.template_id or ""
    check(
        bool(order.image) != bool(template), "image", order.image or "nothing", "Give an image or a template, not both."
    )
    check(_is_word(order.image or "x"), "image", order.image, "Write it as runpod/pytorch:TAG.")
    check(bool(ID.fullmatch(template or "x")), "template_id", template, "See: podlab pod templates")
    check(order.disk_gb >= 1, "disk_gb", order.disk_gb, "Give 1 GB or more.")
    check(order.min_cuda is None or bool(CUDA.fullmatch(order.min_cuda)), "min_cuda", order.min_cuda, "Write 12.8.")
    for place in order.data_centers:
        check(bool(_PLACE.fullmatch(place)), "data_centers", place, "Name them as the provider does: EU-RO-1")
    body: dict[str, Any] = {
        "name": order.name,
        "gpu": {"id": order.gpu_id, "count": order.gpu_count},
        "cloud": order.cloud.upper(),
        "disk": order.disk_gb,
        "ports": _ports(order.ports, check),
        "env": _env(order.env, check),
    }
    if order.min_cuda is not None:
        body["gpu"]["minCudaVersion"] = order.min_cuda
    body |= {"templateId": template} if template else {"image": order.image}
    if order.data_centers:
        body["dataCenterIds"] = list(order.data_centers)
    if order.command:
        try:
            body["args"] = shell_line(order.command)
        except BadArgument as error:
            raise BadOrder(error.message, provider=provider, fields=("command",), hint=error.hint) from error
        check(redact(body["args"]) == body["args"], "command", "one with a secret", SECRET_FIX)
    if order.registry_id is not None:
        body["registry"] = _registry(order.registry_id, check)
    if "22/tcp" in order.ports and "PUBLIC_KEY" not in order.env:
        body["startSsh"] = True  # with the account's keys, for the order brings none
    return body | _mounts(order, check)


def _registry(identity: str, check: Check) -> str:
    check(bool(ID.fullmatch(identity)), "registry_id", identity, "See: podlab pod registries")
    return identity


def _ports(ports: Sequence[str], check: Check) -> list[str]:
    for port in ports:
        match = PORT.fullmatch(port)
        check(match is not None and 0 < int(match[1]) < 65536, "ports", port, "Write it as 22/tcp or 8000/http.")
    check(len(set(ports)) == len(ports), "ports", ", ".join(ports), "Name each once.")
    public = sum(port.endswith("/http") for port in ports)
    check(public <= MOST_HTTP_PORTS, "ports", f"{public} http ports", f"{MOST_HTTP_PORTS} can be had.")
    return list(ports)


def _env(env: Mapping[str, str], check: Check) -> dict[str, str]:
    check(len(env) <= MOST_ENV, "env", f"{len(env)} variables", f"{MOST_ENV} can be had.")
    for name, value in env.items():
        check(bool(_VARIABLE.fullmatch(name)), "env", name, "A variable's name has letters, digits and _.")
        check("\0" not in value and is_utf8(value), f"env.{name}", value, "It has to be text without a NUL.")
        check(redact(value) == value, f"env.{name}", "a secret", SECRET_FIX)
    return dict(env)


def _mounts(order: Order, check: Check) -> dict[str, Any]:
    if order.volume_id is None and order.persistent_gb is None:
        return {}
    if order.volume_id is None:
        return {"mounts": _persistent(order.persistent_gb or 0, order.mount_path, check)}
    path = _path(order.mount_path, check)
    check(order.persistent_gb is None, "persistent_gb", order.persistent_gb, "Not together with a network volume.")
    check(order.cloud == "secure", "cloud", order.cloud, "A network volume is in the secure cloud only.")
    check(bool(ID.fullmatch(order.volume_id)), "volume_id", order.volume_id, "See: podlab pod volumes")
    return {"mounts": {"network": [{"volumeId": order.volume_id, "path": path}]}}


def _persistent(size_gb: int, path: str, check: Check) -> dict[str, Any]:
    path = _path(path, check)
    check(size_gb >= 10, "persistent_gb", size_gb, "RunPod gives 10 GB or more.")
    return {"persistent": {"size": size_gb, "path": path}}


def _path(path: str, check: Check) -> str:
    check(path.startswith("/") and path != "/" and path.isprintable(), "mount_path", path, "Give a path: /workspace")
    return path


def _is_word(text: str) -> bool:
    return text.isprintable() and " " not in text
