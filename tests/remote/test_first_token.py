"""Ready means that a first token came, where the engine can be asked for one: a server that is healthy long before."""

from __future__ import annotations

import uuid
from pathlib import Path

from podlab.lab.facts import HealthCheck
from podlab.types import Step
from tests.processes import wait_until
from tests.remote.bench import KEY, Bench

SERVER = """
import http.server, json, os, sys
port, gate = int(sys.argv[1]), sys.argv[2]
class Answers(http.server.BaseHTTPRequestHandler):
    def say(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.say(200, {"data": [{"id": "tiny-1"}]})
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        open(gate + ".asked", "a").write(json.dumps([self.path, asked, self.headers["Authorization"]]) + "\\n")
        self.say(200 if os.path.exists(gate) else 500, {})
    def log_message(self, *args):
        pass
print("PATH", os.environ["PATH"], flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", port), Answers).serve_forever()
"""


def start(pod: Bench, gate: Path, probe: str) -> str:
    step = Step("serve", (pod.python, "-I", "-S", "-c", SERVER, "{port}", str(gate)), {"PATH": "/first:{path}"})
    health = HealthCheck("tiny-1", probe=probe)
    return pod.side.start(id=uuid.uuid4().hex, name="tiny", steps=(step,), health=health, key=KEY).facts.id


def test_it_is_not_ready_before_it_gave_a_token(pod: Bench, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    asked = tmp_path / "gate.asked"
    id = start(pod, gate, "/v1/completions")
    wait_until(lambda: asked.exists() and asked.read_text().count("\n") > 1, timeout_s=20, why="it is asked again")
    facts = pod.facts(id)
    assert facts.ready_at is None
    assert facts.health is not None
    assert (facts.health.status, facts.health.models) == (None, ())
    assert "first token" in facts.health.error
    gate.touch()
    ready = pod.until_ready(id)
    assert ready.ready_at is not None
    line = asked.read_text().splitlines()[0]
    assert '"/v1/completions"' in line
    assert '"max_tokens": 1' in line
    assert f"Bearer {KEY}" in line
    count = asked.read_text().count("\n")
    assert pod.facts(id).health is not None
    assert asked.read_text().count("\n") == count, "once it has been ready, a look costs no token"


def test_without_a_place_to_ask_its_health_is_enough(pod: Bench, tmp_path: Path) -> None:
    id = start(pod, tmp_path / "gate", "")
    assert pod.until_ready(id).ready_at is not None
    assert not (tmp_path / "gate.asked").exists()


def test_a_step_s_path_can_begin_with_a_folder_and_go_on_with_the_pod_s(pod: Bench, tmp_path: Path) -> None:
    id = start(pod, tmp_path / "gate", "")
    pod.until_ready(id)
    (line,) = [line for line in (pod.folder(id) / "log.1").read_text().splitlines() if line.startswith("PATH ")]
    assert line.startswith("PATH /first:/")
