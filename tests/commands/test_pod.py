"""`pod`, as far as it is about machines that are there anyway."""

from __future__ import annotations

import pytest

from podlab import settings
from podlab.errors import Refused
from podlab.lab import pods
from podlab.store import Store
from podlab.types import Endpoint, EndpointState
from tests.audiences import Silent
from tests.commands.conftest import Say

POD = '[pods.box]\nid = "0123456789ab"\nhost = "127.0.0.1"\nport = 9\n'


def test_a_pod_that_may_serve_is_kept_when_the_answer_is_no(say: Say) -> None:
    """A no is a failure (1) like any other no, not a command line that was not understood (2)."""
    settings.config_path().write_text(POD)
    Store().saw_endpoints(
        "0123456789ab", [Endpoint("0" * 32, "tiny", "box", "tiny", "llamacpp", EndpointState.READY, pid=7)], 1.0
    )
    for answer in (None, False):
        with pytest.raises(Refused, match="tiny may still run on it") as no:
            say("pod remove box", audience=Silent(answer))
        assert no.value.exit_code == 1 and pods.find("box").name == "box"
    say("pod remove box", yes=True)
    assert [pod.name for pod in pods.all_pods()] == ["local"]
