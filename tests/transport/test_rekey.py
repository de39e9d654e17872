"""A connection must survive the new keys that a server asks for while data flows and channels come and go.

paramiko is known to die when *it* asks (issue 822), so podlab never does; this is the proof for the other direction.
"""

from __future__ import annotations

import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from podlab.transport.host_keys import HostKeys
from podlab.transport.ssh import SshTransport
from tests import machines

MB = 1_000_000
TOTAL_BYTES = 1000 * MB if os.environ.get("PODLAB_FULL") == "1" else 160 * MB

pytestmark = pytest.mark.skipif(machines.SSHD is None, reason=machines.WHY_SKIPPED)


def _down(transport: SshTransport, total: int) -> int:
    count = 0
    with transport.start(["head", "-c", str(total), "/dev/zero"]) as process:
        while (piece := process.read(60)) is not None:
            count += len(piece[1])
        assert process.wait(60) == 0
    return count


def _up(transport: SshTransport, total: int) -> int:
    with transport.start(["wc", "-c"]) as process:
        block = bytes(MB)
        for _ in range(total // MB):
            process.write(block)
        process.close_stdin()
        piece = process.read(60)
        assert piece is not None
    return int(piece[1])


@pytest.mark.parametrize("limit", ["16M", "1M"])
def test_new_keys_while_data_flows_and_channels_come_and_go(
    tmp_path: Path, limit: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "paramiko.transport")
    total = TOTAL_BYTES if limit == "16M" else 40 * MB
    server = machines.start_sshd(tmp_path, rekey_limit=limit)
    pins = HostKeys()
    server.pin(pins, "pod")
    stop = threading.Event()

    def channels_come_and_go(transport: SshTransport) -> int:
        count = 0
        while not stop.is_set():
            assert transport.run(["echo", str(count)]).text == f"{count}\n"
            count += 1
        return count

    try:
        with SshTransport("pod", server.address, pins) as transport, ThreadPoolExecutor(4) as pool:
            transport.connect()
            connection = server.connections()
            try:
                talkers = [pool.submit(channels_come_and_go, transport) for _ in range(2)]
                down, up = pool.submit(_down, transport, total // 2), pool.submit(_up, transport, total // 2)
                assert (down.result(), up.result()) == (total // 2, total // 2)
            finally:
                stop.set()
            assert all(talker.result() > 0 for talker in talkers)
            assert server.connections() == connection  # it is still the first one
    finally:
        server.stop()
    renewals = sum("Switch to new keys" in record.getMessage() for record in caplog.records) - 1
    assert renewals >= 4
