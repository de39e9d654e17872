"""With what the keeper reaches a company: the key, the address and the way there, of the environment of some client.

The keeper has one of them at a time. Clients bring theirs with every command, from shells that may have the key of
another account, or none: whatever open pods were rented with stays for as long as it is accepted. What was not taken
is kept for when it is not.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Literal

from podlab import secrets
from podlab.errors import PodlabError
from podlab.http import NETWORK
from podlab.lab.launches import open_launches
from podlab.ledger import Ledger
from podlab.providers.companies import CHANGING, KEY, URL, identity
from podlab.secrets import Secret

FROM_CLIENTS = (KEY, URL, *NETWORK)
"""What is taken over of a client's environment. "": it lacks that; a key is then the kept one."""
COMPANY = "runpod"
REFUSED_S = 600.0
"""How long a key that was refused is believed to be of no use."""

_log = logging.getLogger(__name__)

Answers = Literal["", "ok", "failed", "refused"]


class Access:
    """Chooses among what clients brought. `answers` says how the company answered last to what is in use, and `now`
    is a clock that nobody sets."""

    def __init__(self, ledger: Ledger, answers: Callable[[], Answers], now: Callable[[], float]) -> None:
        self._ledger = ledger
        self._answers = answers
        self._now = now
        self._brought: deque[dict[str, str]] = deque(maxlen=32)
        self._spare: dict[str, str] | None = None
        self._refused: dict[str, float] = {}
        self._choosing = threading.Lock()

    def bring(self, environment: Mapping[str, str]) -> None:
        """What a client has; it is looked at before the next round, so that none is asked with half of it."""
        self._brought.append({name: environment[name] for name in FROM_CLIENTS if name in environment})

    def choose(self) -> bool:
        """Put the best that there is into this process's environment; whether that is another than before."""
        with self._choosing:
            before = _in_use()
            if self._answers() == "refused":
                self._refused[_whose(before)] = self._now()
            while self._brought:
                self._offer(_in_use() | self._brought.popleft(), newest=True)
            if self._spare is not None:
                self._offer(self._spare, newest=False)
            return _in_use() != before

    def _offer(self, other: dict[str, str], *, newest: bool) -> None:
        used = _in_use()
        if other == used:
            return
        if not self._is_better(other, used, newest=newest):
            if newest and _whose(other) not in ("", _whose(used)):
                self._spare = other
                _log.info("a client has another key of %s than open pods were rented with: that one stays", COMPANY)
            return
        if _whose(used) not in ("", _whose(other)):
            self._spare = used
        with CHANGING:
            for name, text in other.items():
                if text:
                    os.environ[name] = text
                else:  # https_proxy="" would mean more than that there is none
                    os.environ.pop(name, None)

    def _is_better(self, other: dict[str, str], used: dict[str, str], *, newest: bool) -> bool:
        then, now = _whose(other), _whose(used)
        if not now:
            return True
        if not then or self._was_refused(then):
            return False
        wanted = self._wanted(now)
        if then == now:
            return newest and (not wanted or self._answers() != "ok")
        if now in wanted and not self._was_refused(now):
            return False
        return newest or then in wanted or self._was_refused(now)

    def _wanted(self, now: str) -> set[str]:
        """Whose keys the open pods were rented with. Where that cannot be read nothing is changed."""
        try:
            launches = open_launches(self._ledger)
        except PodlabError:
            return {now}
        return {key for launch in launches if launch.provider == COMPANY for key in launch.keys}

    def _was_refused(self, whose: str) -> bool:
        at = self._refused.get(whose)
        return at is not None and self._now() - at < REFUSED_S


def _in_use() -> dict[str, str]:
    return {name: os.environ.get(name, "") for name in FROM_CLIENTS}


def _whose(environment: Mapping[str, str]) -> str:
    """Whose account is reached with that; "" without a usable key."""
    try:
        key = Secret(environment[KEY]) if environment[KEY] else secrets.kept(KEY)
        return "" if key is None else identity(key, environment[URL])
    except PodlabError:
        return ""
