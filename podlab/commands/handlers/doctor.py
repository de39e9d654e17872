"""`pod doctor` and `init`: whether pods can be rented safely from here, and making it so."""

from __future__ import annotations

import time
from argparse import Namespace
from typing import TYPE_CHECKING

from podlab.commands.rent_results import DoctorReport, InitReport
from podlab.commands.results import Outcome, Plan
from podlab.errors import HttpError
from podlab.events import Work

if TYPE_CHECKING:
    from podlab.lab.doctor import Word
    from podlab.lab.workspace import Workspace
    from podlab.providers.base import Provider
    from podlab.secrets import Secret


def doctor(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from podlab.lab import doctor as examining
    from podlab.lab.market import Market

    provider = args.provider or workspace.value("provider")
    checks = yield from examining.examine(workspace, Market.of(workspace), provider, examining.Asked(_headers))
    ok = all(check.state != "failed" for check in checks)
    return Outcome(DoctorReport(ok, provider, provider == "sandbox", checks), 0 if ok else 1)


def _headers(provider: str) -> Word | None:
    """The headers of an answer of a company's interface, whatever the answer says."""
    from podlab.http import Http
    from podlab.lab.doctor import Word
    from podlab.providers import companies

    if provider not in ("runpod", "sandbox"):
        return None
    url, key = companies.address(provider)
    http = Http(url, key=key)
    asked_at = time.time()
    try:
        answer = http.get_bytes("/v2/account/limits")
    except HttpError as error:
        return Word({}, asked_at, time.time()) if error.status else None
    finally:
        http.close()
    return Word(answer.headers, asked_at, time.time())


def init(workspace: Workspace, args: Namespace) -> Work[Outcome]:
    from functools import partial

    from podlab.lab import guarding
    from podlab.lab.first_setup import Doors, prepare

    given = {
        "provider": args.provider, "rent.gpu_preferences": ", ".join(args.gpu) if args.gpu else None,
        "rent.budget_usd": args.budget, "rent.ttl": args.ttl, "rent.idle": args.idle,
    }  # fmt: skip
    known = {name: value for name, value in given.items() if value is not None}
    if args.dry_run:
        return Outcome(Plan(("check a key against its company and keep it", "make an SSH key where there is none",
                             "write what pods may cost to config.toml")))  # fmt: skip
    doors = Doors(_company, _ssh_key, hand_over=partial(guarding.hand_over, workspace))
    made = yield from prepare(workspace, known, doors)
    return Outcome(InitReport(made.provider, made.simulated, made.checks, made.settings, made.next))


def _company(name: str, key: Secret | None) -> Provider:
    """A company with this key; the sandbox is opened when it is not."""
    from podlab.providers import companies

    if key is not None:
        return companies.with_key(key)
    from podlab.sandbox import control

    control.up()
    return companies.company(name)


def _ssh_key() -> tuple[str, bool]:
    """podlab's own key for rented pods, and whether it was made just now."""
    from podlab.lab import pods, rented

    there = pods.rented_key().exists()
    return str(rented.ssh_key()), not there
