"""How sure it is that a pod ends by itself: who watches it, what its switch said, and what that costs at the worst.

All of it from tending.json and the ledger, which whoever tends keeps: nobody is asked here. And how somebody is found
who tends: `ensure_keeper` before a pod is asked for (and `open_rentals.wake` whenever podlab starts).
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from podlab import secrets
from podlab.errors import PodlabError
from podlab.http import NETWORK
from podlab.lab import money
from podlab.lab.brakes import is_armed
from podlab.lab.launches import Launch
from podlab.lab.money import WorstCase
from podlab.lab.open_rentals import OpenRentals, keeper_is_wanted
from podlab.lab.tending_file import Notes, TendingFile
from podlab.renting import Armed, Protection, RentalState
from podlab.secrets import Secret
from podlab.settings import home
from podlab.units import duration_text

if TYPE_CHECKING:
    from podlab.lab.workspace import Workspace

ANSWERED_S = 300.0
"""A tender whose provider has not answered for so long could not end anything."""
LONG_AGO_S = 90.0
"""A switch is spoken to every half minute: what it said before that is told with its age."""
KEYS = ("RUNPOD_API_KEY",)
ADDRESSES = ("RUNPOD_API_BASE_URL",)
"""What the keeper takes over of a client's environment: it ends pods with the key that they were asked for with."""


@dataclass(frozen=True)
class Guard:
    """Who ends a pod, as checked. `why` says it in a sentence; `lease_left_s` is how long it lives without word."""

    protection: Protection
    why: str
    worst: WorstCase
    armed: Armed | None = None
    lease_left_s: float | None = None
    tended_by: Literal["", "keeper", "kernel"] = ""
    warnings: tuple[str, ...] = ()


def guard(launch: Launch, file: TendingFile) -> Guard:
    """How sure it is that this pod ends by itself."""
    notes = file.notes()
    tended_by, trouble = _tended_by(notes, launch, file)
    note = notes.pod(launch.id)
    heard_s = None
    if note is not None and note.heard_at is not None and note.boot == file.boot:
        heard_s = file.steady() - note.heard_at
    armed = note.armed if note is not None else None
    left_s = launch.policy.lease_s - heard_s if heard_s is not None else 0.0
    if launch.is_stopped or not is_armed(launch):  # what it said before it was stopped is a word of another life
        armed = heard_s = None
    holds = armed is not None and armed.armed and left_s > 0 and not (note and note.problem and not note.tried_since)
    broken = bool(launch.spans) and launch.spans[-1].state is RentalState.ERROR
    holds = holds and not broken
    protection, why = _protection(holds, heard_s, armed, tended_by, trouble, stopped=launch.is_stopped)
    if broken:
        why = f"its provider says that it is broken, and so its switch may be; {_watched(tended_by, trouble)}"
    if money.is_unseen(launch):
        looks = f"the {tended_by} looks for it" if tended_by else trouble
        why = f"nothing of it was seen yet, and {looks}"
    lease_left_s = left_s if holds else None
    worst = money.worst_case(launch, file.now(), protection, lease_left_s=lease_left_s)
    return Guard(protection, why, worst, armed, lease_left_s, tended_by, note.warnings if note else ())


def _protection(
    holds: bool, heard_s: float | None, armed: Armed | None, tended_by: str, trouble: str, *, stopped: bool
) -> tuple[Protection, str]:  # fmt: skip
    watched = _watched(tended_by, trouble)
    if stopped:
        switch = "it is stopped and its switch with it"
    elif armed is None or heard_s is None:
        switch = "its switch was not heard yet"
    elif not armed.armed:
        switch = f"its switch is not armed: {armed.detail or 'it does not say why'}"
    elif not holds:
        switch = f"its switch was last heard {duration_text(heard_s)} ago"
    else:
        switch = "its switch is armed"
        if heard_s > LONG_AGO_S:
            switch = f"its switch was armed when it was last heard, {duration_text(heard_s)} ago"
    said = f"{switch}, and {watched}"
    if holds and tended_by == "keeper":
        return Protection.PROTECTED, said
    return (Protection.PARTLY if holds or tended_by else Protection.UNPROTECTED), said


def _watched(tended_by: str, trouble: str) -> str:
    return f"the {tended_by} tends it" if tended_by else trouble or "nobody here tends it"


def trouble(launch: Launch, file: TendingFile) -> str:
    """Why whoever tends now could not end this pod; "": it could."""
    tended_by, why = _tended_by(file.notes(), launch, file)
    return "" if tended_by else why


def _tended_by(notes: Notes, launch: Launch, file: TendingFile) -> tuple[Literal["", "keeper", "kernel"], str]:
    """Who could end this pod from here, and why nobody can."""
    owner = file.owner()
    if owner is None:
        return "", "nobody here tends it"
    provider = notes.provider(launch.provider)
    asked = provider.answered_at is not None or provider.problem
    if asked and not (provider.answered_at and abs(file.now() - provider.answered_at) < ANSWERED_S):
        return "", f"{launch.provider} does not answer the {owner.who}: {provider.problem or 'for a while now'}"
    if provider.identity and launch.keys and provider.identity not in launch.keys:
        return "", f"the {owner.who} has another key of {launch.provider} than the one that it was rented with"
    return owner.who, ""


def ensure_keeper(workspace: Workspace) -> str:
    """Have a keeper that tends rented pods, before one is asked for. "": there is one; else why there is none.

    It gets what this process reaches providers with: the key and the way there may be in its environment only.
    """
    if not keeper_is_wanted(workspace):
        return "the keeper is switched off (PODLAB_KEEPER=0, or the setting keeper)"
    from podlab.transport import kept

    try:
        kept.tend(_environment())
    except PodlabError as error:
        return error.message
    return ""


def hand_over(workspace: Workspace, name: str, value: Secret) -> None:
    """Give the keeper a key that was set anew: the one it has from an environment may have been revoked, and goes
    before a kept one. Nothing where nothing is rented; a keeper that cannot be told finds the kept one."""
    if name not in KEYS or not keeper_is_wanted(workspace) or not OpenRentals(home()).may_be_any():
        return
    from podlab.transport import kept

    with contextlib.suppress(PodlabError):
        kept.tend({name: value.reveal()})


def _environment() -> dict[str, str]:
    """What a keeper takes over of this process, whole: "" for what is not in its environment."""
    found = {name: os.environ.get(name, "") for name in (*ADDRESSES, *NETWORK)} | dict.fromkeys(KEYS, "")
    for name in KEYS:
        try:
            secret = secrets.find(name)
        except PodlabError:
            continue  # whoever needs it says what is wrong with it
        if secret is not None and os.environ.get(name):  # one in a file is found there
            found[name] = secret.reveal()
    return found
