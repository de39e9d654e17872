"""Whether pods can be rented safely from here: each thing that renting stands on, looked at one by one.

`examine` asks the company and the network; the judgements (`clock`, `sunset`, `funds` ...) are pure. A check that
breaks is a row that says so, and never the end of the others.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib import metadata
from typing import TYPE_CHECKING

from podlab import __version__, settings
from podlab.errors import BadSettings, KeyRefused, PodlabError
from podlab.events import Stage, Work
from podlab.lab.launches import Launch, open_launches
from podlab.lab.market import Market
from podlab.lab.pods import rented_key
from podlab.providers.companies import URL
from podlab.renting import Account
from podlab.types import Check
from podlab.units import duration_text, usd_text

if TYPE_CHECKING:
    from podlab.lab.workspace import Workspace
    from podlab.providers.base import Provider

SKEW_OK_S, SKEW_BAD_S = 15.0, 300.0
"""A clock that is wrong by less costs nothing; one that is wrong by more makes deadlines and bills nonsense."""
SUNSET_SOON_S = 60 * 86400.0
REACH_S = 5.0
SSH_GATE = ("ssh.runpod.io", 22)
"""RunPod's SSH proxy (docs.runpod.io/pods/configuration/use-ssh)."""
SDK, SDK_NEEDED = "runpod", (2, 0)


@dataclass(frozen=True)
class Word:
    """What the company's interface says without words: headers of an answer (names in lower case), and when it came.

    `asked_at` and `answered_at` are by the clock of this computer.
    """

    headers: Mapping[str, str]
    asked_at: float
    answered_at: float


def reach(host: str, port: int) -> str:
    """Why no SSH server answers there, or ""."""
    try:
        with socket.create_connection((host, port), timeout=REACH_S) as link:
            link.settimeout(REACH_S)
            greeting = link.recv(64)
    except OSError as error:
        return error.strerror or str(error)
    return "" if greeting.startswith(b"SSH-") else "something else than SSH answers"


@dataclass(frozen=True)
class Asked:
    """What a doctor asks of the world, as functions, so that a test can be the world."""

    headers: Callable[[str], Word | None]
    """The headers of an answer of a company; None where it has no interface, or gave no answer."""
    reach: Callable[[str, int], str] = reach
    which: Callable[[str], str | None] = shutil.which


def examine(workspace: Workspace, market: Market, provider: str, asked: Asked) -> Work[tuple[Check, ...]]:
    """Every check, in the order a person would mend them."""
    found: list[Check] = []
    for name, look in _looks(workspace, market, provider, asked):
        yield Stage("doctor", f"Looking at {name}")
        try:
            found += look()
        except PodlabError as error:
            found.append(Check(name, "failed", error.message, error.hint))
    return tuple(found)


def _looks(
    workspace: Workspace, market: Market, provider: str, asked: Asked
) -> Iterator[tuple[str, Callable[[], list[Check]]]]:  # fmt: skip
    yield "configuration", lambda: [configuration()]
    yield "versions", lambda: versions(provider)
    yield "key", lambda: key(market, provider)
    yield "interface", lambda: interface(asked.headers(provider), market.now())
    yield "SSH", lambda: ssh(asked.which)
    gate = SSH_GATE if provider == "runpod" and not os.environ.get(URL) else None
    yield "port 22", lambda: [egress(market, asked.reach, gate)]
    yield "ledger", lambda: [ledger(market)]
    yield "keeper", lambda: [keeper(workspace, market)]
    yield "orphans", lambda: [orphans(market, provider)]


def configuration() -> Check:
    """Whether config.toml holds only what it may."""
    try:
        settings.check()
    except BadSettings as error:
        return Check("configuration", "failed", error.message, error.hint)
    there = settings.config_path().exists()
    return Check("configuration", "ok", str(settings.config_path()) if there else "none: every setting has its default")


def versions(provider: str) -> list[Check]:
    """podlab's own version, and the company's SDK."""
    found = [Check("podlab", "ok", __version__)]
    if provider == "sandbox":
        return found
    try:
        version = metadata.version(SDK)
    except metadata.PackageNotFoundError:
        return [*found, Check("SDK", "failed", f"{SDK} is not installed", "Install it: pip install 'podlab[runpod]'")]
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if numbers < SDK_NEEDED:
        return [*found, Check("SDK", "failed", f"{SDK} {version} speaks a retired interface",
                              "Install a newer one: pip install 'podlab[runpod]'")]  # fmt: skip
    return [*found, Check("SDK", "ok", f"{SDK} {version}")]


def key(market: Market, provider: str) -> list[Check]:
    """Whether the key is accepted, what it may do, and what the account can pay."""
    company = market.provider(provider)
    if not company.rents:
        return [Check("key", "skipped", f"{provider} rents nothing")]
    try:
        account = company.account()
    except KeyRefused as error:
        return [Check("key", "failed", error.message, error.hint or "Make another one, and give it to: podlab init")]
    who = f" ({account.email})" if account.email else ""
    allowed = scope(account) if not company.simulated else Check("key scope", "ok", "everything there (simulated)")
    return [Check("key", "ok", f"accepted{who}"), allowed, *funds(account, _preferred_price(company))]


def scope(account: Account) -> Check:
    """What the key may do, as far as the company says."""
    if account.scopes:
        return Check("key scope", "ok", ", ".join(account.scopes))
    said = account.detail or f"{account.provider} does not say what the key may do"
    return Check("key scope", "warning", said, "See on its page that the key may create and end pods, and no more.")


def funds(account: Account, usd_per_hour: float | None) -> list[Check]:
    """The balance against an hour of the usual GPU, and the spending limit against what is spent now."""
    found = []
    if account.balance_usd is None:
        said = account.detail or "not told to this key"
        found.append(Check("balance", "warning", said, "See it on the company's page."))
    else:
        needed = usd_per_hour or 0.5
        state = "failed" if account.balance_usd < needed else "warning" if account.balance_usd < 5 * needed else "ok"
        lasts = f", {duration_text(account.balance_usd / needed * 3600)} of a GPU at {usd_text(needed)}/h"
        fix = "" if state == "ok" else "Add credit: at a balance of nothing pods are ended, whatever runs on them."
        found.append(Check("balance", state, usd_text(account.balance_usd) + lasts, fix))  # type: ignore[arg-type]
    limit, spent = account.spend_limit_usd_per_hour, account.spend_usd_per_hour
    if limit is None:
        found.append(Check("spending limit", "skipped", "not told to this key"))
    else:
        close = spent is not None and spent > 0.8 * limit
        now = "" if spent is None else f", {usd_text(spent)}/h are spent now"
        fix = "End something, or ask the company for a higher limit." if close else ""
        found.append(Check("spending limit", "warning" if close else "ok", f"{usd_text(limit)}/h{now}", fix))
    return found


def _preferred_price(company: Provider) -> float | None:
    """What the first preferred GPU costs now."""
    from podlab.lab.candidates import matching
    from podlab.renting import OfferQuery

    offers = company.offers(OfferQuery())
    for name in str(settings.value("rent.gpu_preferences")[0]).split(","):
        meant = matching(name.strip(), [offer.gpu_id for offer in offers])
        prices = [each.usd_per_hour for each in offers if each.gpu_id in meant and each.usd_per_hour is not None]
        if prices:
            return min(prices)
    return None


def interface(word: Word | None, now: float) -> list[Check]:
    """The version of the company's interface, when it is to end, and its clock against ours."""
    if word is None:
        return [Check("interface", "skipped", "nothing answered that could be looked at")]
    return [sunset(word.headers, now), clock(word)]


def sunset(headers: Mapping[str, str], now: float) -> Check:
    """What an answer says of the end of its interface: Sunset (RFC 8594) and Deprecation (RFC 9745)."""
    ends_at = _date(headers.get("sunset", ""))
    if ends_at is None:
        if headers.get("deprecation"):
            return Check("interface", "warning", "REST v2, which the company calls deprecated",
                         "Install a newer podlab: pip install -U podlab")  # fmt: skip
        return Check("interface", "ok", "REST v2; no end of it is announced")
    when = time.strftime("%Y-%m-%d", time.gmtime(ends_at))
    if ends_at <= now:
        return Check("interface", "failed", f"REST v2 ended on {when}", "Install a newer podlab.")
    if ends_at - now < SUNSET_SOON_S:
        return Check("interface", "warning", f"REST v2 until {when}", "Install a newer podlab before.")
    return Check("interface", "ok", f"REST v2 until {when}")


def clock(word: Word) -> Check:
    """This computer's clock against the Date of an answer, which is cut to whole seconds and took a while to come."""
    theirs = _date(word.headers.get("date", ""))
    if theirs is None:
        return Check("clock", "skipped", "the company does not say what time it is")
    slack_s = 1.0 + word.answered_at - word.asked_at
    skew_s = (word.asked_at + word.answered_at) / 2 - theirs - 0.5
    off_s = max(0.0, abs(skew_s) - slack_s)
    if off_s < SKEW_OK_S:
        return Check("clock", "ok", f"within {duration_text(max(1.0, abs(skew_s) + slack_s))} of the company's")
    way = "ahead of" if skew_s > 0 else "behind"
    said = f"{duration_text(abs(skew_s))} {way} the company's"
    fix = "Set the clock: deadlines are by this computer's (on Linux: timedatectl set-ntp true)."
    return Check("clock", "failed" if off_s >= SKEW_BAD_S else "warning", said, fix)


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except (ValueError, TypeError, IndexError):
        return None


def ssh(which: Callable[[str], str | None]) -> list[Check]:
    """OpenSSH's client, which only `pod shell` needs, and podlab's own key."""
    program = which("ssh")
    client = (
        Check("SSH client", "ok", program) if program
        else Check("SSH client", "warning", "there is no ssh program here", "For pod shell: install openssh-client")
    )  # fmt: skip
    path = rented_key()
    try:
        mode = stat.S_IMODE(path.lstat().st_mode)
    except FileNotFoundError:
        return [client, Check("SSH key", "warning", "none yet", "podlab init makes one, and so does the first create.")]
    if mode & 0o077:
        return [client, Check("SSH key", "failed", f"{path} can be read by others", f"chmod 600 {path}")]
    return [client, Check("SSH key", "ok", str(path))]


def egress(market: Market, reach: Callable[[str, int], str], gate: tuple[str, int] | None) -> Check:
    """Whether SSH gets out of this network, tried with a rented pod's own port, else with the company's `gate`."""
    for launch, host, port in _addresses(market):
        problem = reach(host, port)
        if not problem:
            return Check("port 22", "ok", f"{launch.name} answers at {host}:{port}")
        fix = "See that this network lets connections out to any port: pods have SSH on ports above 1024."
        return Check("port 22", "failed", f"{launch.name} at {host}:{port}: {problem}", fix)
    if gate is None:
        return Check("port 22", "skipped", "not checked: nothing is rented that it could be tried with")
    problem, where = reach(*gate), f"{gate[0]}:{gate[1]}"
    if not problem:
        return Check("port 22", "ok", f"{where} answers; nothing is rented that its own port could be tried with")
    fix = "SSH may be blocked here: see that this network lets connections out to any port."
    return Check("port 22", "warning", f"{where}: {problem}", fix)


def _addresses(market: Market) -> Iterator[tuple[Launch, str, int]]:
    for launch in open_launches(market.ledger):
        if launch.rental_id is None:
            continue
        rental = market.provider(launch.provider).get(launch.rental_id)
        if rental is not None and rental.ssh_host and rental.ssh_port:
            yield launch, rental.ssh_host, rental.ssh_port


def ledger(market: Market) -> Check:
    """Whether the ledger can be trusted: without it nothing is rented."""
    launches = open_launches(market.ledger)
    said = f"readable; {len(launches)} pod{'' if len(launches) == 1 else 's'} may be billed"
    return Check("ledger", "ok", said)


def keeper(workspace: Workspace, market: Market) -> Check:
    """Whether the background process lives that ends pods when no notebook does."""
    from podlab.transport import kept

    open_ones = open_launches(market.ledger)
    if not workspace.value("keeper"):
        fix = "podlab config set keeper on"
        state = "failed" if open_ones else "warning"
        return Check("keeper", state, "it is switched off: no kernel, no brake on this computer", fix)  # type: ignore[arg-type]
    status = kept.status()
    if status is None:
        if not open_ones:
            return Check("keeper", "ok", "none is needed: nothing is rented")
        return Check(
            "keeper", "failed", "it does not run, and pods are rented", "Any verb on a pod starts it: podlab pod list"
        )
    return Check("keeper", "ok", f"process {status.pid} since {duration_text(status.up_s)}")


def orphans(market: Market, provider: str) -> Check:
    """Whether the ledger and the company agree."""
    from podlab.lab import pods
    from podlab.lab.reconcile import reconcile

    found = reconcile(market, providers=(provider,))
    here = {pod.id for pod in pods.all_pods()}
    lost = [owned.launch.name for owned in found.ours if owned.launch.id not in here]
    lost += [rental.name for _, rental in found.duplicates]
    if lost:
        return Check("orphans", "failed", f"of ours, and in no list here: {', '.join(lost)}", "See: podlab pod orphans")
    if found.problems:
        return Check("orphans", "warning", found.problems[0], "See: podlab pod orphans")
    others = f"; {len(found.foreign)} of others are in the account" if found.foreign else ""
    return Check("orphans", "ok", f"none{others}")
