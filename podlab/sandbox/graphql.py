"""The little that only GraphQL has: who the account is, and its balance."""

from __future__ import annotations

import re
from typing import Any

from podlab.sandbox import documents
from podlab.sandbox.asking import Answer, Request, document
from podlab.sandbox.company import Company
from podlab.sandbox.records import Caller, Problem

WORD = re.compile(r"[A-Za-z_]\w*|[{}]")


def graphql(company: Company, request: Request, caller: Caller) -> Answer:
    """The answer to a query of `myself`; whatever else is asked for is an error in GraphQL's way, under status 200."""
    if caller.pod_id is not None:
        raise Problem(403, "access denied")
    asked = request.json
    query = asked.get("query") if isinstance(asked, dict) else None
    if request.method != "POST" or not isinstance(query, str):
        raise Problem(400, "POST body missing, invalid Content-Type, or JSON object has no keys.")
    try:
        tree = _selection(iter(WORD.findall(re.sub(r"#[^\n]*", "", query))))
    except (StopIteration, RecursionError):
        return _errors("Syntax Error: Expected Name, found <EOF>.")
    asked_for = next((inner for _, inner in tree if inner), [])
    fields = dict(asked_for).get("myself")
    if fields is None:
        return _errors("only the query myself is simulated here")
    with company.lock:
        known = _myself(company)
    if unknown := [name for name, _ in fields if name not in known]:
        return _errors(f'Cannot query field "{unknown[0]}" on type "User".')
    return document(200, {"data": {"myself": {name: _pick(known[name], inner) for name, inner in fields}}})


Tree = list[tuple[str, "Tree"]]


def _selection(words: Any) -> Tree:
    """The names between braces, each with those between its own."""
    found: Tree = []
    for word in words:
        if word == "}":
            return found
        if word == "{":
            inner = _selection(words)
            found.append((found.pop()[0] if found else "", inner))
        else:
            found.append((word, []))
    return found


def _pick(value: Any, inner: Tree) -> Any:
    if isinstance(value, list):
        return [{name: each.get(name) for name, _ in inner} for each in value]
    return value


def _myself(company: Company) -> dict[str, Any]:
    volumes = []
    for record in company.assets.volumes.values():
        document = documents.volume(record)
        volumes.append({**document, "dataCenterId": document["dataCenter"]})
    return {
        "id": "user_simulated", "email": "simulated@podlab.invalid", "pubKey": "\n".join(company.assets.ssh_keys),
        "networkVolumes": volumes, "clientBalance": round(company.balance_usd, 6),
        "currentSpendPerHr": round(company.spend_usd_per_hour, 6), "spendLimit": company.spend_limit_usd_per_hour,
        "minBalance": 0.0, "signedTermsOfService": True,
    }  # fmt: skip


def _errors(message: str) -> Answer:
    return document(200, {"errors": [{"message": message}]})
