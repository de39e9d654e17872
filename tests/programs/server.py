"""A model server without a model: real sockets, real processes, and it does what a test tells it.

server.py --port P --name MODEL [--gate FILE] [--deaf] [--ignore-term] [--stray FILE] [--count FILE] [--key-env NAME]

It says a line, is ready once FILE of --gate exists, and then answers GET /health and /v1/models. It is told more by
GET: /exit/N ends it with status N, /sick and /well change its health, /name/X its model's name, /say/WORDS writes to
its log. --deaf never listens. --hungry takes memory
until it is ended. --stray starts a grandchild in a session of its own that ignores TERM and writes its pid
to FILE. --count appends its pid to FILE. --key-env names the variable with the key that /v1/models asks for. What
--metrics names is answered to /metrics.
"""

import argparse
import http.server
import json
import os
import signal
import subprocess
import sys
import time

STRAY = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
with open(sys.argv[1] + ".part", "w") as file:
    file.write(str(os.getpid()))
os.rename(sys.argv[1] + ".part", sys.argv[1])
time.sleep(600)
"""


def say(words: str) -> None:
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


class Answers(http.server.BaseHTTPRequestHandler):
    disable_nagle_algorithm = True
    sick = False
    name = ""
    key = ""
    metrics = ""

    def do_GET(self) -> None:
        verb, _, word = self.path[1:].partition("/")
        if verb == "exit":
            os._exit(int(word))
        if verb in ("sick", "well"):
            Answers.sick = verb == "sick"
        if verb == "name":
            Answers.name = word
        if verb == "say":
            say(word)
        if self.path == "/health":
            return self.answer(500 if Answers.sick else 200, {})
        if self.path == "/v1/models":
            if Answers.key and self.headers["Authorization"] != f"Bearer {Answers.key}":
                return self.answer(401, {})
            return self.answer(200, {"data": [{"id": Answers.name}]})
        if self.path == "/metrics" and Answers.metrics:
            with open(Answers.metrics, "rb") as file:
                return self.answer(200, file.read())
        return self.answer(200, {})

    def answer(self, status: int, value: object) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the log is for what tests look at."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--name", required=True)
    for option in ("--gate", "--stray", "--count", "--key-env", "--metrics"):
        parser.add_argument(option)
    for option in ("--deaf", "--ignore-term", "--hungry"):
        parser.add_argument(option, action="store_true")
    told = parser.parse_args()
    if told.ignore_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if told.count:
        with open(told.count, "a") as file:
            file.write(f"{os.getpid()}\n")
    if told.stray:
        subprocess.Popen([sys.executable, "-I", "-S", "-c", STRAY, told.stray], start_new_session=True)
        while not os.path.exists(told.stray):
            time.sleep(0.01)
    say("loading the model")
    held = []
    while told.hungry:
        held.append(bytearray(b"x") * (8 << 20))
        time.sleep(0.01)
    while told.deaf or (told.gate and not os.path.exists(told.gate)):
        time.sleep(0.02)
    Answers.name, Answers.key = told.name, os.environ.get(told.key_env, "") if told.key_env else ""
    Answers.metrics = told.metrics or ""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", told.port), Answers)
    say("listening")
    server.serve_forever()


if __name__ == "__main__":
    main()
