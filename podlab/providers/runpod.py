"""RunPod, and the sandbox that pretends to be it: pods rented over REST v2.

`get`, `start`, `stop` and `terminate` are the official SDK's functions on podlab's line (runpod_sdk.py says how, and
why its other functions are not used); the rest goes over the line directly. GraphQL is asked for one thing, the
balance, which v2 does not tell (github.com/runpod/docs/issues/807).
"""

from __future__ import annotations

import base64
import hashlib
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeVar

from podlab import __version__
from podlab.errors import (
    ApiRetired,
    BadArgument,
    BadOrder,
    KeyRefused,
    NotAllowed,
    NotFound,
    OutcomeUnknown,
    PodlabError,
    WrongState,
)
from podlab.http import Answer, Http
from podlab.providers import runpod_logs, runpod_order, runpod_sdk, runpod_wire
from podlab.providers.base import DEADLINE_S
from podlab.providers.runpod_line import Line
from podlab.renting import (
    Account,
    AccountKey,
    Bill,
    Cloud,
    Offer,
    OfferQuery,
    Order,
    Registry,
    Rental,
    RentalLine,
    RentalState,
    Template,
    TemplateDraft,
    Volume,
)
from podlab.secrets import Secret
from podlab.types import Pod

URL = "https://api.runpod.io"
LAG_S = 120.0
"""New pods were seen to be missing from lists for a minute (reports of 2026)."""
CLOUDS: tuple[Cloud, ...] = ("secure", "community")
BALANCE = "query { myself { id email clientBalance currentSpendPerHr spendLimit } }"
HOURLY_S = 31 * 86400.0
"""A longer span is asked for by days."""
_PUBLIC_KEY = re.compile(r"((?:ssh|ecdsa|sk)-[^\s]+) ([A-Za-z0-9+/=]+)(?:[ \t]+([^\r\n]*))?")
_UP = (RentalState.PROVISIONING, RentalState.STARTING, RentalState.RUNNING)
T = TypeVar("T")


def identity_of(key: Secret, url: str) -> str:
    """What tells an account's key from another's, as ledgers have it, and nothing of the key.

    At another address than RunPod's own it is another one: what lists nothing there proves nothing about real pods.
    """
    where = "" if url.rstrip("/") == URL else f" {url.rstrip('/')}"
    return hashlib.sha256(f"podlab {key.reveal()}{where}".encode()).hexdigest()[:16]


class RunpodProvider:
    """One account, by its key. `url` is the API's base; `simulated` is for the sandbox, which needs no SDK."""

    rents = True

    def __init__(
        self, *, key: Secret, url: str = URL, name: str = "runpod", simulated: bool = False,
        deadline_s: float = DEADLINE_S, lag_s: float = LAG_S,
    ) -> None:  # fmt: skip
        self.name = name
        self.simulated = simulated
        self.lag_s = lag_s
        # A sandbox that is opened anew has another key, and nothing of the old one is left to be mixed up.
        self.identity = "" if simulated else identity_of(key, url)
        http = Http(url, key=key, user_agent=f"podlab/{__version__} (+https://pypi.org/project/podlab)")
        label = "The sandbox (simulated)" if simulated else "RunPod"
        self._line = Line(http, provider=name, label=label, deadline_s=deadline_s)
        self._proxy = runpod_wire.sandbox_proxy if simulated else runpod_wire.runpod_proxy
        self._sdk: runpod_sdk.Call | None = None
        self._plain: runpod_sdk.Call | None = None
        self._keys = threading.Lock()

    def __repr__(self) -> str:
        return f"RunpodProvider({self.name!r}, {self._line.http.base_url!r})"

    def adopt(self, name: str, address: str, *, models_path: str | None = None) -> Pod:
        raise BadArgument(
            f"A pod of {self._line.label} is not added by its address.",
            hint=f"Rent one: podlab pod create --provider {self.name}",
        )

    def offers(self, query: OfferQuery) -> tuple[Offer, ...]:
        found: tuple[Offer, ...] = ()
        line = self._line.within()
        for cloud in CLOUDS if query.cloud is None else (query.cloud,):
            asked = runpod_order.catalog_query(query, cloud)
            gpus = line.pages("/v2/catalog/gpus", "gpus", doing="list GPUs", query=asked)
            found += runpod_wire.offers(gpus, query, cloud, provider=self.name, simulated=self.simulated)
        return found

    def create(self, order: Order) -> Rental:
        doing = f"create pod {order.name}"
        body = runpod_order.order_body(order, provider=self.name)
        if not self.simulated:
            self._functions(needed=True)  # what could not be ended by its functions is not begun
        try:
            answer = self._line.write("POST", "/v2/pods", doing=doing, body=body)
        except NotFound as error:  # something that the order names
            named = tuple(each for each in ("template_id", "volume_id", "registry_id") if getattr(order, each))
            raise BadOrder(error.message, provider=self.name, status=404, fields=named or ("gpu_id",)) from error
        except WrongState as error:
            raise BadOrder(error.message, provider=self.name, status=409) from error
        made = self._rental(self._line.object_in(answer, doing=doing, write=True), doing, write=True)
        if made.name != order.name:
            what = f"it is about pod {made.id}, named {made.name!r}"
            raise self._line.unusable(doing, what, write=True, status=answer.status)
        return made

    def get(self, rental_id: str) -> Rental | None:
        doing = f"show pod {rental_id}"
        try:
            answer = self._functions()("get_pod", _checked(rental_id))
        except NotFound:
            return None
        return self._about(rental_id, answer or Answer(204, {}, b""), doing)

    def list(self) -> tuple[Rental, ...]:
        doing = "list pods"
        pods = self._line.pages("/v2/pods", "pods", doing=doing, query={"includeClusterPods": "true"})
        # A pod left out for its looks would be taken for gone.
        return tuple({(rental := self._rental(pod, doing)).id: rental for pod in pods}.values())

    def start(self, rental_id: str) -> None:
        self._change("resume_pod", rental_id, right=_UP)

    def stop(self, rental_id: str) -> None:
        self._change("stop_pod", rental_id, right=(RentalState.STOPPED, RentalState.TERMINATED))

    def terminate(self, rental_id: str) -> None:
        try:
            self._functions()("terminate_pod", _checked(rental_id))
        except NotFound:
            return

    def logs(
        self, rental_id: str, *, source: Literal["container", "system"] | None = None, tail: int = 100,
        after: str | None = None, since: float | None = None, follow: bool = False,
    ) -> Iterator[RentalLine]:  # fmt: skip
        return runpod_logs.lines(
            self._line, _checked(rental_id), source=source, tail=tail, after=after, since=since, follow=follow
        )  # fmt: skip

    def bills(self, *, since: float, until: float) -> tuple[Bill, ...]:
        query = {
            "startTime": runpod_wire.stamp(since), "endTime": runpod_wire.stamp(until),
            "bucketSize": "hour" if until - since <= HOURLY_S else "day",
        }  # fmt: skip
        return runpod_wire.bills(self._line.pages("/v2/billing/pods", "records", doing="show bills", query=query))

    def account(self) -> Account:
        """The balance by GraphQL, the limit by REST; each may fail alone."""
        account = Account(self.name)
        problems = []
        line = self._line.within()
        for ask in (_balance, _limits):
            try:
                account = ask(line, account)
            except PodlabError as error:
                problems.append(error)
        if len(problems) == 2:
            # A key that may see neither is accepted all the same; one that nobody looked at is not.
            for problem in sorted(problems, key=lambda each: not isinstance(each, KeyRefused)):
                if not isinstance(problem, (NotAllowed, NotFound, ApiRetired)):
                    raise problem
        return replace(account, detail=" ".join(problem.message for problem in problems))

    def volumes(self) -> tuple[Volume, ...]:
        doing = "list network volumes"
        found = self._line.pages("/v2/network-volumes", "networkVolumes", doing=doing)
        return tuple(self._known(runpod_wire.volume(each), doing) for each in found)

    def create_volume(self, name: str, *, size_gb: int, data_center: str, tier: str = "") -> Volume:
        doing = f"create volume {name}"
        body = runpod_order.volume_body(name, size_gb, data_center, tier, provider=self.name)
        answer = self._line.write("POST", "/v2/network-volumes", doing=doing, body=body)
        made = runpod_wire.volume(self._line.object_in(answer, doing=doing, write=True))
        return self._known(made, doing, write=True)

    def delete_volume(self, volume_id: str) -> None:
        self._delete("/v2/network-volumes", volume_id, "volume")

    def templates(self, *, public: bool = False) -> tuple[Template, ...]:
        doing = "list templates"
        path = "/v2/catalog/templates" if public else "/v2/templates"
        read = partial(runpod_wire.template, public=public)
        return tuple(self._known(read(each), doing) for each in self._line.pages(path, "templates", doing=doing))

    def create_template(self, draft: TemplateDraft) -> Template:
        doing = f"create template {draft.name}"
        body = runpod_order.template_body(draft, provider=self.name)
        answer = self._line.write("POST", "/v2/templates", doing=doing, body=body)
        made = runpod_wire.template(self._line.object_in(answer, doing=doing, write=True))
        return self._known(made, doing, write=True)

    def delete_template(self, template_id: str) -> None:
        self._delete("/v2/templates", template_id, "template")

    def registries(self) -> tuple[Registry, ...]:
        doing = "list registries"
        found = self._line.pages("/v2/registries", "registries", doing=doing)
        return tuple(self._known(runpod_wire.registry(each), doing) for each in found)

    def add_registry(self, name: str, *, user: str, password: Secret) -> Registry:
        doing = f"add registry {name}"
        body = {"name": name, "username": user, "password": password.reveal()}
        answer = self._line.write("POST", "/v2/registries", doing=doing, body=body)
        made = runpod_wire.registry(self._line.object_in(answer, doing=doing, write=True))
        return self._known(made, doing, write=True)

    def delete_registry(self, registry_id: str) -> None:
        self._delete("/v2/registries", registry_id, "registry")

    def account_keys(self) -> tuple[AccountKey, ...]:
        return tuple(_account_key(text) for text in _key_texts(self._line))

    def add_account_key(self, text: str) -> tuple[AccountKey, ...]:
        text = text.strip()
        if not _PUBLIC_KEY.fullmatch(text):
            raise BadArgument("That is no public key.", hint="Give one line, as in ~/.ssh/id_ed25519.pub.")
        line = self._line.within()
        with self._keys:
            # PUT replaces all keys: from a list that could not be read for certain, nothing is sent.
            there = _key_texts(line)
            blob = text.split()[1]
            if any(blob in each.split() for each in there):
                return tuple(_account_key(each) for each in there)
            wanted = [*there, text]
            line.write("PUT", "/v2/account/ssh-keys", doing="add an SSH key", body={"keys": wanted})
            now = _key_texts(line)
        if missing := [each for each in wanted if each not in now]:
            raise OutcomeUnknown(
                f"{self._line.label} does not list {len(missing)} of the account's SSH keys after one was added.",
                provider=self.name, hint="Look at them: https://console.runpod.io/user/settings",
            )  # fmt: skip
        return tuple(_account_key(each) for each in now)

    def _functions(self, *, needed: bool = False) -> runpod_sdk.Call:
        """The pod functions; the SDK's where it is installed. Raises SdkMissing when it is `needed` and is not."""
        if self._sdk is None and (needed or self._plain is None):
            try:
                self._sdk = runpod_sdk.on_line(self._carry)
            except runpod_sdk.SdkMissing:
                if needed:
                    raise
                self._plain = runpod_sdk.without_sdk(self._carry)
        found = self._sdk or self._plain
        assert found is not None
        return found

    def _carry(self, method: str, path: str, body: dict[str, str] | None) -> Answer:
        """Send what a pod function asks for."""
        rental_id = path.split("/")[3]
        if method == "GET":
            return self._line.read(path, doing=f"show pod {rental_id}")
        what = "end" if method == "DELETE" else (body or {}).get("action", "change")
        return self._line.write(method, path, doing=f"{what} pod {rental_id}", body=body)

    def _change(self, function: runpod_sdk.Function, rental_id: str, *, right: tuple[RentalState, ...]) -> None:
        """Start or stop; a refusal is no error where the pod is as it should be already."""
        began = time.monotonic()
        try:
            answer = self._functions()(function, _checked(rental_id))
        except WrongState as refused:
            doing = f"show pod {rental_id}"
            try:
                answer = self._line.within(began).read(f"/v2/pods/{rental_id}", doing=doing)
                now = self._about(rental_id, answer, doing).state
            except PodlabError:
                raise refused from None
            if now not in right:
                raise
            return
        if answer is not None:
            self._about(rental_id, answer, f"change pod {rental_id}", write=True)

    def _delete(self, path: str, identity: str, what: str) -> None:
        try:
            self._line.write("DELETE", f"{path}/{_checked(identity)}", doing=f"delete {what} {identity}")
        except NotFound:
            return

    def _rental(self, pod: dict[str, Any], doing: str, *, write: bool = False) -> Rental:
        return self._known(runpod_wire.rental(pod, self._proxy), doing, write=write)

    def _about(self, rental_id: str, answer: Answer, doing: str, *, write: bool = False) -> Rental:
        """The pod in an answer about that one."""
        found = self._rental(self._line.object_in(answer, doing=doing, write=write), doing, write=write)
        if found.id != rental_id:
            raise self._line.unusable(doing, f"it is about pod {found.id}", write=write, status=answer.status)
        return found

    def _known(self, found: T | None, doing: str, *, write: bool = False) -> T:
        if found is None:
            raise self._line.unusable(doing, "something in it has no usable id", write=write)
        return found


def _key_texts(line: Line) -> tuple[str, ...]:
    doing = "list SSH keys"
    keys = line.document("/v2/account/ssh-keys", doing=doing).get("keys")
    if not isinstance(keys, list) or not all(isinstance(each, str) for each in keys):
        raise line.unusable(doing, "there is no list of keys in it")
    return tuple(keys)


def _balance(line: Line, account: Account) -> Account:
    doing = "show the balance"
    answer = line.sent("POST", "/graphql", doing=doing, body={"query": BALANCE}, changes=False)
    if answer.status != 200:
        raise line.refused(answer, doing=doing)
    found = runpod_wire.with_balance(account, line.object_in(answer, doing=doing))
    if found is None:  # GraphQL says its errors under a status of 200
        raise line.refused(answer, doing=doing)
    return found


def _limits(line: Line, account: Account) -> Account:
    doing = "show the account's limits"
    found = runpod_wire.with_limits(account, line.document("/v2/account/limits", doing=doing))
    if found is None:
        raise line.unusable(doing, "there is no limit in it")
    return found


def _checked(identity: str) -> str:
    """An id as it may stand in a path. Raises BadArgument: what is none must not become another request."""
    if not runpod_wire.ID.fullmatch(identity):
        raise BadArgument(f"{identity[:40]!r} is no id of RunPod's.", hint="See: podlab pod list --all")
    return identity


def _account_key(text: str) -> AccountKey:
    match = _PUBLIC_KEY.match(text)
    kind, blob, comment = match.groups() if match else (text.partition(" ")[0], "", None)
    try:
        digest = hashlib.sha256(base64.b64decode(blob)).digest()
    except ValueError:
        return AccountKey(kind, "", comment or "", text)
    return AccountKey(kind, "SHA256:" + base64.b64encode(digest).decode().rstrip("="), comment or "", text)
