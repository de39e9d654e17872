"""`pod doctor`: whether pods can be rented safely from here."""

from __future__ import annotations

import time
from argparse import Namespace
from typing import TYPE_CHECKING

from podlab.commands.rent_results import DoctorReport
from podlab.commands.results import Outcome
from podlab.errors import HttpError
from podlab.events import Work

if TYPE_CHECKING:
    from podlab.lab.doctor import Word
    from podlab.lab.workspace import Workspace


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
    except HttpError:
        return Word({}, asked_at, time.time())
    finally:
        http.close()
    return Word(answer.headers, asked_at, time.time())
