"""What RunPod publishes of its API, and what is wrong with a request or an answer by it.

`tests/data/runpod_v2.json` is RunPod's own OpenAPI document without its prose (scripts/runpod-schema), as it stood in
github.com/runpod/docs (api-reference-v2/openapi.json) on 2026-08-18. That repository names no licence: kept are names,
types and limits, which are facts about the interface.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from podlab.sandbox.asking import Answer, Request

jsonschema = pytest.importorskip("jsonschema")
NEWER = {"/v2/account/limits"}
"""Documented after the document was published."""


@cache
def published() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "runpod_v2.json").read_text())
    return found


def problems(value: Any, schema: Any) -> list[str]:
    """What is wrong with a value, by a schema of the document."""
    checker = jsonschema.Draft202012Validator(
        {"allOf": [schema], "components": published()["components"]},
        format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER,
    )
    return [f"{error.json_path}: {error.message[:200]}" for error in checker.iter_errors(value)]


@dataclass(frozen=True)
class Exchange:
    request: Request
    answer: Answer


def route_of(path: str) -> str:
    """The published path that a real one is of."""
    for known in published()["paths"]:
        if re.fullmatch(known.replace("{id}", "[^/{}]+"), path):
            return str(known)
    raise AssertionError(f"{path} is not published")


def as_sent(text: str, schema: Any) -> Any:
    """A query parameter in the kind its schema says."""
    kind = schema.get("type")
    if "$ref" in schema:
        return text
    if kind == "integer":
        return int(text)
    if kind == "boolean":
        return {"true": True, "false": False}[text]
    return text.split(",") if kind == "array" else text


def check(exchange: Exchange) -> list[str]:
    """What is wrong with a request and its answer."""
    request, answer = exchange.request, exchange.answer
    if request.path == "/graphql" or request.path in NEWER:
        return []
    route = published()["paths"][route_of(request.path)][request.method.lower()]
    found = [f"{name}: no such parameter" for name in request.query if name not in route["parameters"]]
    for name, text in request.query.items():
        if name in route["parameters"]:
            found += problems(as_sent(text, route["parameters"][name]), route["parameters"][name])
    if route["body"] is None:
        found += ["a body where none is taken"] if request.body else []
    elif answer.status != 422:
        found += problems(request.json, route["body"])
    status = str(answer.status)
    schema = route["answers"].get(status, route["answers"]["default"])
    if answer.events is None and schema is not None:
        found += problems(answer.json, schema)
    if schema is None and answer.body:
        found.append(f"a body with {status}")
    return [f"{request.method} {request.path} -> {status}: {each}" for each in found]
