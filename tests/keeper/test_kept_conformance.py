"""The contract of the transports, kept through the keeper: the same tests, another way to the pod."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from podlab.transport.base import Transport
from podlab.transport.host_keys import HostKeys
from podlab.transport.kept import KeptTransport
from tests import machines
from tests.transport.test_conformance import *  # noqa: F403  # the tests are what is wanted
from tests.transport.test_conformance import Way


@pytest.fixture
def way(sshd: machines.Sshd, tmp_path: Path) -> Iterator[Way]:
    sshd.pin(HostKeys(), "pod-1")
    with KeptTransport("pod", "pod-1", sshd.address) as kept:
        yield Way(kept, tmp_path, sshd.home)


@pytest.fixture
def transport(way: Way) -> Transport:
    return way.transport
