"""How fast weights come from a hub, and how fast they are hashed.

A hub on this computer serves one large file and a few small ones, as the real hub does: a redirect to a store that
gives ranges. Ours (with the SHA-256 of every byte) and `hf download` of huggingface_hub (without) fetch the same in
turn. Then a large file that is in memory is hashed as `model verify` does it, beside `openssl speed sha256`, again in
turn, by the clock on the wall. Prints ours, the peer, the ratio, from one run. `--check` ends with status 1 when a goal
is missed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import resources
from pathlib import Path

from podlab.engines.repository import REPOSITORY_DOWNLOADER
from podlab.remote.hashing import hash_file
from tests.standin import Repo, StandIn, standing_in

DOWNLOAD_GOAL, HASH_GOAL = 1.0, 0.7
MIB = 1 << 20


def made(folder: Path, size_bytes: int) -> Path:
    """A repository: random bytes, and small files beside them."""
    folder.mkdir()
    with (folder / "model.safetensors").open("wb") as file:
        for _ in range(size_bytes // (16 * MIB)):
            file.write(os.urandom(16 * MIB))
    for number in range(4):
        (folder / f"config{number}.json").write_text("{}" * 100)
    return folder


def timed(argv: list[str], env: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(argv, env={**os.environ, **env}, check=True, capture_output=True)
    return time.perf_counter() - began


def ours_s(hub: StandIn, work: Path) -> float:
    """Seconds to fetch and check it with the pod's own program."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    for name in REPOSITORY_DOWNLOADER:
        (work / name).write_text((resources.files("podlab.remote") / name).read_text())
    argv = [sys.executable, str(work / "snapshot.py"), "--dir", str(work), "--repo", "org/model", "--revision", "main",
            "--to", str(work / "to")]  # fmt: skip
    return timed(argv, {"HF_ENDPOINT": hub.url})


def theirs_s(hub: StandIn, work: Path) -> float:
    """Seconds to fetch it with the hub's own command."""
    shutil.rmtree(work, ignore_errors=True)
    argv = [str(Path(sys.executable).with_name("hf")), "download", "org/model", "--local-dir", str(work / "to")]
    env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(work / "home"), "HF_XET_HIGH_PERFORMANCE": "1",
           "HF_HUB_DISABLE_TELEMETRY": "1"}  # fmt: skip
    return timed(argv, env)


def hash_rate(path: Path) -> float:
    """Bytes a second of our reading and hashing."""
    began = time.perf_counter()
    hash_file(str(path), hashlib.sha256())
    return path.stat().st_size / (time.perf_counter() - began)


def openssl_rate() -> float | None:
    """Bytes a second of `openssl speed`, blocks of 1 MiB; None without openssl."""
    if shutil.which("openssl") is None:
        return None
    argv = ["openssl", "speed", "-elapsed", "-seconds", "1", "-bytes", str(MIB), "sha256"]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    found = re.search(r"^sha256\s+([\d.]+)k", said, re.MULTILINE)
    return float(found[1]) * 1000 if found else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=512, help="MiB of the large file")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument("--check", action="store_true", help="status 1 when a goal is missed")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, standing_in() as hub:
        folder = made(Path(scratch) / "repo", args.size * MIB)
        hub.repos["org/model"] = Repo(folder)
        ours, theirs, hashed, openssl = [], [], [], []
        for _ in range(args.rounds):
            ours.append(ours_s(hub, Path(scratch) / "ours"))
            theirs.append(theirs_s(hub, Path(scratch) / "theirs"))
            hashed.append(hash_rate(folder / "model.safetensors"))
            openssl += [rate for rate in [openssl_rate()] if rate]
    figures = {
        "ours_s": statistics.median(ours), "hf_s": statistics.median(theirs),
        "download_ratio": statistics.median(theirs) / statistics.median(ours), "download_goal": DOWNLOAD_GOAL,
        "sha256_bytes_per_s": statistics.median(hashed),
        "openssl_bytes_per_s": statistics.median(openssl) if openssl else None,
        "sha256_ratio": statistics.median(hashed) / statistics.median(openssl) if openssl else None,
        "sha256_goal": HASH_GOAL,
    }  # fmt: skip
    reached = figures["download_ratio"] >= DOWNLOAD_GOAL and (figures["sha256_ratio"] or 1.0) >= HASH_GOAL
    if args.json:
        print(json.dumps(figures | {"reached": reached}, indent=2))
    else:
        print(f"{args.size} MiB from a hub on this computer, median of {args.rounds}:")
        print(f"  ours {figures['ours_s']:.2f} s, checked; hf download {figures['hf_s']:.2f} s, not checked")
        print(f"  {figures['download_ratio']:.2f} times its speed; goal >= {DOWNLOAD_GOAL:g}")
        if figures["sha256_ratio"]:
            print(f"  SHA-256 {figures['sha256_bytes_per_s'] / 1e9:.2f} GB/s, openssl speed "
                  f"{figures['openssl_bytes_per_s'] / 1e9:.2f} GB/s")  # fmt: skip
            print(f"  ratio {figures['sha256_ratio']:.2f}; goal >= {HASH_GOAL:g}")
    return int(args.check and not reached)


if __name__ == "__main__":
    raise SystemExit(main())
