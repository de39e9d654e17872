"""docs/json.md, made from the dataclasses that verbs return."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from enum import Enum
from typing import Any

from podlab import renting
from podlab import types as nouns
from podlab.commands import rent_results, results
from podlab.commands.table import VERBS
from podlab.types import Pod, PodStatus

INTRODUCTION = """\
# The documents of --json

Written by `scripts/docs` from `results.py` and `rent_results.py` of `podlab/commands/`, `podlab/types.py` and `podlab/renting.py`; do not edit it by hand.

With `--json` a verb prints exactly one JSON document on standard output; progress and warnings go to standard error.
In a notebook `value.to_dict()` is the same document.
The documents are a promise: fields are added, never renamed or removed within a major version, so a reader should ignore fields it does not know.
`null` means not known.
Times are seconds since the epoch, durations are in seconds, sizes in bytes.
A secret's value is in no document.

A verb that fails prints `{"error": {"kind": ..., "message": ..., "hint": ...}}` and ends with the exit code it has without `--json`; `kind` is a class of `podlab/errors.py`.
A verb that is called with `--dry-run` prints a [Plan](#plan).
"""

RETURNS: dict[str, str] = {
    "pod add": "PodDetail",
    "pod import": "ImportList",
    "pod list": "PodList",
    "pod use": "PodDetail",
    "pod show": "PodDetail",
    "pod gpu": "PodSample",
    "pod setup": "SetupReport",
    "pod run": "JobRow",
    "pod jobs": "JobList",
    "pod attach": "JobRow",
    "pod cancel": "JobRow",
    "pod shell": "Interactive",
    "pod push": "Transfer",
    "pod pull": "Transfer",
    "pod tunnel open": "TunnelList",
    "pod tunnel list": "TunnelList",
    "pod tunnel close": "Done",
    "pod rename": "Done",
    "pod remove": "Done",
    "pod offers": "OfferList",
    "pod plan": "PodPlan",
    "pod create": "PodDetail",
    "pod start": "PodDetail",
    "pod resume": "PodDetail",
    "pod stop": "RentalDetail",
    "pod terminate": "RentalList",
    "pod wait": "PodDetail",
    "pod extend": "Done",
    "pod panel": "RentalPanel",
    "pod cost": "CostList",
    "pod orphans": "OrphanList",
    "pod claim": "RentalDetail",
    "pod logs": "RentalLog",
    "pod doctor": "DoctorReport",
    "pod volumes": "VolumeList",
    "pod volumes create": "VolumeList",
    "pod volumes delete": "Done",
    "pod templates": "TemplateList",
    "pod templates create": "TemplateList",
    "pod templates delete": "Done",
    "pod registries": "RegistryList",
    "pod registries add": "RegistryList",
    "pod registries delete": "Done",
    "pod keys": "AccountKeyList",
    "pod keys add": "AccountKeyList",
    "pod account": "AccountDetail",
    "model catalog": "ModelList",
    "model register": "Done",
    "model unregister": "Done",
    "model fit": "FitReport",
    "model start": "EndpointDetail",
    "model attach": "EndpointDetail",
    "model adopt": "EndpointDetail",
    "model detach": "Done",
    "model list": "EndpointList",
    "model show": "EndpointDetail",
    "model logs": "LogLines",
    "model stop": "EndpointDetail",
    "model restart": "EndpointDetail",
    "model metrics": "MetricsReport",
    "model bench": "BenchReport",
    "model smoke": "SmokeReport",
    "model matrix": "MatrixList",
    "model explain": "Explanation",
    "model url": "UrlDetail",
    "model search": "HubModelList",
    "model download": "DownloadDetail",
    "model downloads": "DownloadList",
    "model files": "FileList",
    "model verify": "VerifyReport",
    "model delete": "Done",
    "model usage": "DiskUsage",
    "model cache": "CacheQuota",
    "model convert": "FileList",
    "chat": "Reply",
    "chat show": "ConversationDetail",
    "chat reset": "Done",
    "chat save": "Done",
    "chat load": "ConversationDetail",
    "infer": "Reply",
    "sandbox up": "SandboxDetail",
    "sandbox down": "Done",
    "sandbox status": "SandboxDetail",
    "sandbox fault": "SandboxDetail",
    "sandbox money": "SandboxDetail",
    "init": "InitReport",
    "config show": "SettingList",
    "config set": "Done",
    "config edit": "Interactive",
    "config path": "Done",
    "secret set": "Done",
    "secret list": "SecretList",
    "secret remove": "Done",
    "completion": "ShellScript",
    "logs": "LogLines",
}
NOTES = {
    "model start": "with `--on A,B` an [EndpointList](#endpointlist)",
    "model catalog": "with a model's name a [ModelDetail](#modeldetail)",
    "model list": "with `--files` a [FileList](#filelist)",
    "model stop": "with `--all` a [Done](#done)",
    "pod show": "of a pod that only the ledger knows a [RentalDetail](#rentaldetail)",
    "pod logs": "with `--follow` a [Done](#done), unless it is followed with `--json`",
    "pod create": "with `--dry-run` a [PodPlan](#podplan)",
    "sandbox fault": "without a name a [FaultList](#faultlist)",
    "model url": "with `--show-key` a [Done](#done)",
}


def class_of(name: str) -> type[Any]:
    rooms = (results, rent_results, nouns, renting)
    return next(found for room in rooms if (found := getattr(room, name, None)) is not None)  # type: ignore[no-any-return]


def field_notes(kind: type[Any]) -> dict[str, str]:
    """The string below a field, which Python itself forgets."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    notes = {}
    for above, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(above, ast.AnnAssign) and isinstance(above.target, ast.Name) and isinstance(below, ast.Expr):
            if isinstance(below.value, ast.Constant):
                notes[above.target.id] = " ".join(str(below.value.value).split())
    return notes


def link(kind: type[Any]) -> str:
    return f"[{kind.__name__}](#{kind.__name__.lower()})"


def shape(hint: Any) -> str:
    """A type as JSON knows it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is type(None):
        return "null"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(shape(argument) for argument in arguments)
    if origin is typing.Literal:
        return ", ".join(f'"{value}"' for value in arguments)
    if origin is tuple:
        return f"list of {shape(arguments[0])}"
    if origin is dict:
        return f"object, {shape(arguments[0])} to {shape(arguments[1])}"
    if dataclasses.is_dataclass(hint):
        return link(typing.cast("type[Any]", hint))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return ", ".join(f'"{member.value}"' for member in hint)
    return {str: "string", int: "integer", float: "number", bool: "boolean"}.get(hint, "any")


def fields_of(kind: type[Any]) -> list[tuple[str, str, str]]:
    """Name, shape and note of each field, in the order of the document."""
    hints, notes = typing.get_type_hints(kind), field_notes(kind)
    own = [(each.name, shape(hints[each.name]), notes.get(each.name, "")) for each in dataclasses.fields(kind)]
    if kind is PodStatus:  # one flat object: see results.document
        return fields_of(Pod) + [row for row in own if row[0] != "pod"]
    return own


def mentioned(kind: type[Any]) -> list[type[Any]]:
    """The dataclasses that a document of this kind holds."""
    found: list[type[Any]] = []

    def look(hint: Any) -> None:
        if dataclasses.is_dataclass(hint) and hint is not Pod:
            found.append(typing.cast("type[Any]", hint))
        for argument in typing.get_args(hint):
            look(argument)

    for owner in (Pod, kind) if kind is PodStatus else (kind,):
        for hint in typing.get_type_hints(owner).values():
            look(hint)
    return found


def documents() -> str:
    lines = [INTRODUCTION, "## By verb", "", "| verb | document |", "| --- | --- |"]
    for verb in VERBS:
        note = f", {NOTES[verb.words]}" if verb.words in NOTES else ""
        lines.append(f"| `{verb.words}` | {link(class_of(RETURNS[verb.words]))}{note} |")
    lines += ["", "## By name", ""]

    todo = [class_of(RETURNS[verb.words]) for verb in VERBS] + [
        results.Plan,
        results.ModelDetail,
        rent_results.PodPlan,
        rent_results.FaultList,
    ]
    seen: list[type[Any]] = []
    while todo:
        kind = todo.pop(0)
        if kind not in seen:
            seen.append(kind)
            todo += mentioned(kind)
    for kind in sorted(seen, key=lambda each: each.__name__.lower()):
        lines += [
            f"### {kind.__name__}",
            "",
            " ".join((inspect.getdoc(kind) or "").replace("None", "null").split()),
            "",
        ]
        lines += ["| field | type | |", "| --- | --- | --- |"]
        lines += [f"| `{name}` | {hint} | {note} |" for name, hint, note in fields_of(kind)]
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"
