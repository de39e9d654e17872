"""REST v2 as RunPod documents it: a request in, an answer out. Knows no socket.

Source: RunPod's v2 OpenAPI document and docs.runpod.io/api-reference-v2. What it says of the account's balance only
GraphQL has (graphql.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from podlab.sandbox import bodies, desk, documents
from podlab.sandbox.asking import SIMULATED, Answer, Quota, Request, document, problem, whole_number, words
from podlab.sandbox.catalogue import PUBLIC_TEMPLATES
from podlab.sandbox.company import Company
from podlab.sandbox.faults import Faults
from podlab.sandbox.graphql import graphql
from podlab.sandbox.logbook import moment
from podlab.sandbox.meter import BUCKETS, buckets, last_buckets
from podlab.sandbox.records import Caller, Problem, invalid
from podlab.sandbox.stock import StockQuery

MOST_BUCKETS = 20_000
BEAT_S = 15.0
"""How often a log stream without lines says that it is alive."""
Handler = Callable[["Rest", Request, Caller, str], Answer]


class Rest:
    """The company's door. `answer` may be called from several threads."""

    def __init__(self, company: Company, *, requests_per_minute: int = 6000) -> None:
        self.company = company
        self.quota = Quota(company.now, requests_per_minute)
        self.faults = Faults()
        self.end: Callable[[], None] = lambda: None
        """What is done when somebody asks for the end of all this."""

    def answer(self, request: Request) -> Answer:
        """What the company says to a request."""
        try:
            if request.path.startswith(desk.ROOT):
                said = desk.answer(self, request, self._caller(request), self.end)
            else:
                said = self.faults.answer(self.company, request, lambda: self._plain(request))
        except Problem as error:
            said = problem(error)
        return replace(said, headers={SIMULATED: "1", **said.headers, **self.quota.headers()})

    def _plain(self, request: Request) -> Answer:
        try:
            return self._answer(request)
        except Problem as error:
            return problem(error)

    def _answer(self, request: Request) -> Answer:
        agent = request.headers.get("user-agent", "")
        if not agent or agent.startswith("Python-urllib"):  # as the guard before the real one does
            return Answer(403, b"error code: 1010", {"Content-Type": "text/plain; charset=UTF-8"})
        caller = self._caller(request)
        self.quota.ask()
        if request.path == "/graphql":
            return graphql(self.company, request, caller)
        methods = []
        for method, pattern, handler in ROUTES:
            found = pattern.fullmatch(request.path)
            if found and method == request.method:
                named = unquote(found[1]) if found.groups() else ""
                _allow(caller, method, request.path, named)
                return handler(self, request, caller, named)
            if found:
                methods.append(method)
        if methods:
            refused = problem(Problem(405, "The requested method is not allowed for this path."))
            return replace(refused, headers={**refused.headers, "Allow": ", ".join(methods)})
        raise Problem(404, "resource not found")

    def _caller(self, request: Request) -> Caller:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise Problem(401, "missing bearer token")
        caller = self.company.who(key.strip())
        if caller is None:
            raise Problem(401, "invalid bearer token")
        return caller

    # Pods

    def list_pods(self, request: Request, _caller: Caller, _id: str) -> Answer:
        pods = self.company.listed(cluster_pods=request.query.get("includeClusterPods") == "true")
        with self.company.lock:
            now = self.company.now()
            return document(200, {"pods": [documents.pod(pod, now) for pod in pods]})

    def create_pod(self, request: Request, _caller: Caller, _id: str) -> Answer:
        with self.company.lock:
            wanted = bodies.wanted(request.body, self.company.assets)
            if wanted.start_ssh and "PUBLIC_KEY" not in wanted.env and self.company.assets.ssh_keys:
                keys = "\n".join(self.company.assets.ssh_keys)
                wanted = replace(wanted, env={**wanted.env, "PUBLIC_KEY": keys})
            if wanted.registry is not None:
                self.company.assets.registry(wanted.registry)
            return document(201, documents.pod(self.company.create(wanted), self.company.now()))

    def get_pod(self, _request: Request, _caller: Caller, id: str) -> Answer:
        with self.company.lock:
            return document(200, documents.pod(self.company.get(id), self.company.now()))

    def update_pod(self, request: Request, _caller: Caller, id: str) -> Answer:
        asked = bodies.read(request.body, bodies.UPDATE_POD)
        with self.company.lock:
            pod = self.company.get(id)
            if pod.wanted.cluster:
                raise Problem(409, "Pod belongs to a cluster and cannot be modified via the pod endpoints.")
            if asked.get("mounts"):
                raise Problem(400, "this simulated company changes no mounts")
            pod.name = asked.get("name", pod.name)
            pod.locked = asked.get("locked", pod.locked)
            pod.image = asked.get("image", pod.image)
            pod.args = asked.get("args", pod.args)
            pod.env = asked.get("env", pod.env)
            pod.ports = tuple(asked.get("ports", pod.ports))
            pod.disk_gb = asked.get("disk", pod.disk_gb)
            return document(200, documents.pod(pod, self.company.now()))

    def delete_pod(self, _request: Request, _caller: Caller, id: str) -> Answer:
        self.company.terminate(id)
        return Answer(204)

    def act(self, request: Request, _caller: Caller, id: str) -> Answer:
        action = bodies.read(request.body, bodies.ACTION)["action"]
        with self.company.lock:
            pod = self.company.act(id, action)
            return Answer(204) if action == "terminate" else document(200, documents.pod(pod, self.company.now()))

    def logs(self, request: Request, _caller: Caller, id: str) -> Answer:
        query = request.query
        source = query.get("source")
        if source not in (None, "container", "system"):
            raise invalid("source: must be one of container, system")
        tail = whole_number(query, "tail", 100, 0, 5000)
        resumed = request.headers.get("last-event-id") or query.get("since")
        try:
            after = moment(resumed) if resumed else None
        except ValueError:
            raise invalid("since: must be an RFC 3339 time") from None
        if after is not None and "last-event-id" not in request.headers:
            after -= 1  # `since` includes its own moment
        self.company.get(id)
        lines = self.company.books[id].follow(source=source, after=after, tail=tail, beat_s=BEAT_S)  # type: ignore[arg-type]
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

        def events() -> Iterator[bytes]:
            for line in lines:
                if line is None:
                    yield b": alive\n\n"
                else:
                    said = json.dumps({"source": line.source, "line": line.text, "ts": line.id})
                    yield f"id: {line.id}\ndata: {said}\n\n".encode()

        return Answer(200, b"", headers, events())

    # Catalogue

    def list_gpus(self, request: Request, _caller: Caller, _id: str) -> Answer:
        query = self._stock_query(request)
        with self.company.lock:
            found = []
            for kind in self.company.stock.kinds.values():
                there = self.company.stock.look(kind, query) if query else None
                if query and query.countries and there and not there.places:
                    continue
                found.append(documents.gpu(kind, there))
        return document(200, {"gpus": found})

    def get_gpu(self, request: Request, _caller: Caller, id: str) -> Answer:
        query = self._stock_query(request)
        with self.company.lock:
            kind = self.company.stock.kinds.get(id)
            if kind is None:
                raise Problem(404, "gpu type not found")
            return document(200, documents.gpu(kind, self.company.stock.look(kind, query) if query else None))

    def _stock_query(self, request: Request) -> StockQuery | None:
        query = request.query
        include, product = words(query, "include"), words(query, "product")
        if bool(include) != bool(product):
            raise Problem(400, "include=AVAILABILITY and product are required together")
        wrong = [f"include: {word} is unknown" for word in include if word != "AVAILABILITY"]
        wrong += [f"product: {word} is unknown" for word in product if word not in ("POD", "CLUSTER", "SERVERLESS")]
        only_with = {"count", "cloud", "countryCodes", "cudaVersions", "minCudaVersion"} & query.keys()
        if not include:
            if only_with:
                raise Problem(400, f"{min(only_with)} is valid only with include=AVAILABILITY")
            return None
        if "cudaVersions" in query and "minCudaVersion" in query:
            raise Problem(400, "cudaVersions and minCudaVersion are mutually exclusive")
        countries, versions = words(query, "countryCodes"), words(query, "cudaVersions")
        floor = query.get("minCudaVersion")
        wrong += [f"countryCodes: {word}" for word in countries if not re.match(r"[A-Z]{2}\Z", word)]
        wrong += [f"cudaVersions: {word}" for word in versions if not bodies.CUDA.match(word)]
        if floor is not None and not re.match(r"\d+(\.\d+)?\Z", floor):
            wrong.append(f"minCudaVersion: {floor}")
        cloud = query.get("cloud", "SECURE")
        if cloud not in ("SECURE", "COMMUNITY"):
            wrong.append(f"cloud: {cloud} is unknown")
        if wrong:
            raise invalid(*wrong)
        return StockQuery(whole_number(query, "count", 1, 1, 1000), cloud, countries, versions, floor)

    def list_data_centers(self, request: Request, _caller: Caller, _id: str) -> Answer:
        with_gpus = "GPU_AVAILABILITY" in words(request.query, "include")
        regions = words(request.query, "regions")
        with self.company.lock:
            stock = self.company.stock
            found = [
                documents.data_center(center, stock if with_gpus else None)
                for center in stock.centers.values()
                if not regions or center.region in regions
            ]
        return document(200, {"dataCenters": found})

    def get_data_center(self, request: Request, _caller: Caller, id: str) -> Answer:
        with_gpus = "GPU_AVAILABILITY" in words(request.query, "include")
        with self.company.lock:
            center = self.company.stock.centers.get(id)
            if center is None:
                raise Problem(404, "data center not found")
            return document(200, documents.data_center(center, self.company.stock if with_gpus else None))

    def public_templates(self, request: Request, _caller: Caller, _id: str) -> Answer:
        official = request.query.get("source", "official") == "official"
        return document(200, {"templates": [documents.template(one) for one in PUBLIC_TEMPLATES if official]})

    # Money

    def pod_bills(self, request: Request, _caller: Caller, _id: str) -> Answer:
        query = request.query
        bucket = query.get("bucketSize", "day")
        if bucket not in BUCKETS:
            raise invalid(f"bucketSize: must be one of {', '.join(BUCKETS)}")
        if "lastN" in query and query.keys() & {"startTime", "endTime"}:
            raise Problem(400, "lastN and startTime/endTime are mutually exclusive")
        now = self.company.advance()
        try:
            begins_at = moment(query["startTime"]) / 1e9 if "startTime" in query else now - 30 * 86400
            ends_at = moment(query["endTime"]) / 1e9 if "endTime" in query else now
        except ValueError:
            raise invalid("startTime: must be an RFC 3339 time") from None
        if ends_at <= begins_at or ends_at - begins_at > MOST_BUCKETS * 3600:
            raise Problem(400, "endTime must be after startTime, and the range may not be that long")
        if "lastN" in query:
            edges = last_buckets(bucket, whole_number(query, "lastN", 1, 1, 1000), now)
        else:
            edges = buckets(bucket, begins_at, ends_at)
        pod_id = query.get("podId")
        with self.company.lock:
            pods = self.company.pods
            found = [each for each in self.company.meter.amounts(edges, pod_id) if each.id in pods]
        return document(200, documents.bills(found, edges, bucket, pod_id))

    def limits(self, _request: Request, _caller: Caller, _id: str) -> Answer:
        company = self.company
        spend = {"limit": company.spend_limit_usd_per_hour, "current": round(company.spend_usd_per_hour, 6)}
        return document(200, {"spendRate": spend, "serverlessWorkers": {"limit": 5, "current": 0}})

    # What an account keeps

    def ssh_keys(self, request: Request, _caller: Caller, _id: str) -> Answer:
        with self.company.lock:
            if request.method == "PUT":
                self.company.assets.ssh_keys = tuple(bodies.read(request.body, bodies.SSH_KEYS)["keys"])
            return document(200, {"keys": list(self.company.assets.ssh_keys)})

    def volumes(self, request: Request, _caller: Caller, id: str) -> Answer:
        company, assets = self.company, self.company.assets
        with company.lock:
            if request.method == "POST":
                asked = bodies.read(request.body, bodies.CREATE_VOLUME)
                made = company.add_volume(asked["name"], asked["size"], asked["dataCenter"], asked.get("type"))
                return document(201, documents.volume(made))
            if request.method == "PATCH":
                asked = bodies.read(request.body, bodies.UPDATE_VOLUME)
                changed = assets.change_volume(id, name=asked.get("name"), size_gb=asked.get("size"))
                return document(200, documents.volume(changed))
            if request.method == "DELETE":
                company.drop_volume(id)
                return Answer(204)
            if id:
                return document(200, documents.volume(assets.volume(id)))
            return document(200, {"networkVolumes": [documents.volume(each) for each in assets.volumes.values()]})

    def templates(self, request: Request, _caller: Caller, id: str) -> Answer:
        assets = self.company.assets
        with self.company.lock:
            if request.method == "POST":
                return document(201, documents.template(assets.add_template(bodies.template(request.body))))
            if request.method == "DELETE":
                assets.drop_template(id)
                return Answer(204)
            if id:
                return document(200, documents.template(assets.template(id)))
            return document(200, {"templates": [documents.template(one) for one in assets.own_templates.values()]})

    def registries(self, request: Request, _caller: Caller, id: str) -> Answer:
        assets = self.company.assets
        with self.company.lock:
            if request.method == "POST":
                asked = bodies.read(request.body, bodies.CREATE_REGISTRY)
                return document(201, documents.registry(assets.add_registry(asked["name"])))
            if request.method == "DELETE":
                assets.registry(id)
                if any(pod.wanted.registry == id and pod.terminated_at is None for pod in self.company.pods.values()):
                    raise Problem(400, "registry is in use by a pod")
                del assets.registries[id]
                return Answer(204)
            if id:
                return document(200, documents.registry(assets.registry(id)))
            return document(200, {"registries": [documents.registry(one) for one in assets.registries.values()]})


def _allow(caller: Caller, method: str, path: str, id: str) -> None:
    """A pod's own key is for that pod alone. Raises Problem 403."""
    if caller.pod_id is None:
        return
    own = path.startswith("/v2/pods/") and id == caller.pod_id and method in ("GET", "POST", "DELETE")
    if not own:
        raise Problem(403, "access denied")


def _route(method: str, path: str, handler: Any) -> tuple[str, re.Pattern[str], Handler]:
    return method, re.compile(path.replace("{id}", "([^/]+)")), handler


ROUTES: tuple[tuple[str, re.Pattern[str], Handler], ...] = (
    _route("GET", "/v2/pods", Rest.list_pods),
    _route("POST", "/v2/pods", Rest.create_pod),
    _route("GET", "/v2/pods/{id}", Rest.get_pod),
    _route("PATCH", "/v2/pods/{id}", Rest.update_pod),
    _route("DELETE", "/v2/pods/{id}", Rest.delete_pod),
    _route("POST", "/v2/pods/{id}/action", Rest.act),
    _route("GET", "/v2/pods/{id}/logs", Rest.logs),
    _route("GET", "/v2/catalog/gpus", Rest.list_gpus),
    _route("GET", "/v2/catalog/gpus/{id}", Rest.get_gpu),
    _route("GET", "/v2/catalog/datacenters", Rest.list_data_centers),
    _route("GET", "/v2/catalog/datacenters/{id}", Rest.get_data_center),
    _route("GET", "/v2/catalog/templates", Rest.public_templates),
    _route("GET", "/v2/billing/pods", Rest.pod_bills),
    _route("GET", "/v2/account/limits", Rest.limits),
    _route("GET", "/v2/account/ssh-keys", Rest.ssh_keys),
    _route("PUT", "/v2/account/ssh-keys", Rest.ssh_keys),
    *(_route(method, "/v2/network-volumes", Rest.volumes) for method in ("GET", "POST")),
    *(_route(method, "/v2/network-volumes/{id}", Rest.volumes) for method in ("GET", "PATCH", "DELETE")),
    *(_route(method, "/v2/templates", Rest.templates) for method in ("GET", "POST")),
    *(_route(method, "/v2/templates/{id}", Rest.templates) for method in ("GET", "DELETE")),
    *(_route(method, "/v2/registries", Rest.registries) for method in ("GET", "POST")),
    *(_route(method, "/v2/registries/{id}", Rest.registries) for method in ("GET", "DELETE")),
)
