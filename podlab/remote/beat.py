"""Word for the switch of a rented pod: one request in on standard input, its answer out, nothing kept running.

Standard library only, Python 3.8 or newer. The request is a line {"v": 1, "op": "beat"|"tell", "launch": ..., ...}; the
answer is what the switch says, or {"v": 1, "there": false, "detail": ...} where none is to be found.
"""

from __future__ import annotations

import json
import socket
import sys
import time

from podlab.remote.machine import Fault
from podlab.remote.switch import PROTOCOL, address_of, is_trusted, read_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from podlab.remote.machine import Json

TRIES, PAUSE_S = 8, 0.5
"""A switch that was killed is back within seconds."""
DEADLINE_S = 5.0


def asked(request: Json) -> Json:
    """What the switch answers. Raises Fault, or OSError where none does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
        link.settimeout(DEADLINE_S)
        link.connect(address_of(str(request.get("launch"))))
        if not is_trusted(link):
            raise Fault("not_ours", "another user's program took the place of the switch")
        link.sendall(json.dumps(request).encode() + b"\n")
        answer = json.loads(read_line(link, DEADLINE_S).decode("utf-8"))
        if not isinstance(answer, dict):
            raise ValueError("it answered with no object")
        return {name: value for name, value in answer.items() if name != "v"}


def main() -> None:
    """Read the request, ask, answer."""
    answer: Json = {}
    try:
        request = json.loads(sys.stdin.buffer.readline().decode("utf-8"))
        for turn in range(TRIES):
            try:
                answer = {"there": True, **asked(request)}
                break
            except (OSError, ValueError) as error:
                answer = {"there": False, "detail": f"no switch answers on the pod: {error}"[:300]}
            if turn + 1 < TRIES:
                time.sleep(PAUSE_S)
    except Fault as fault:
        answer = {"error": {"kind": fault.kind, "message": str(fault)}}
    except (ValueError, AttributeError) as error:
        answer = {"error": {"kind": "bad_request", "message": f"{error!r:.300}"}}
    print(json.dumps({"v": PROTOCOL, **answer}), flush=True)


if __name__ == "__main__":
    main()
