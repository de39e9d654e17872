"""What llama.cpp makes of GGUF files, held against references of random_models.py: one JSON line for each.

llamacpp_says.py FILE.gguf REFERENCE.json [FILE.gguf REFERENCE.json]...     with a Python that has xllamacpp
"""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

import xllamacpp


def asked(address: str, route: str, body: dict[str, Any]) -> Any:
    """The answer of a server of llama.cpp."""
    request = urllib.request.Request(address + route, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def main() -> None:
    """One after the other."""
    for file, beside in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        params = xllamacpp.CommonParams()
        params.model.path, params.n_ctx, params.n_parallel, params.verbosity, params.warmup = file, 512, 1, -1, False
        params.hostnames, params.port = ["127.0.0.1"], 0
        server = xllamacpp.Server(params)
        reference = json.loads(Path(beside).read_text())
        count = len(reference["greedy"])
        said = asked(
            server.listening_address, "/completion",
            {"prompt": reference["prompt"], "n_predict": count, "temperature": 0, "n_probs": 5, "ignore_eos": False,
             "return_tokens": True},
        )  # fmt: skip
        first = said["completion_probabilities"][0]["top_logprobs"]
        tokens = asked(server.listening_address, "/tokenize", {"content": reference["text"], "add_special": False})
        told = {"file": file, "greedy": said["tokens"], "tokens": tokens["tokens"],
                "likeliest": {str(each["id"]): each["logprob"] for each in first}}  # fmt: skip
        print("SAID", json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
