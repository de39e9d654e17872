"""Fetch a whole model repository from the Hugging Face Hub to this pod. Standard library, Python 3.8.

    snapshot.py --dir D --repo OWNER/REPO --revision REV --to FOLDER [--include GLOB]... [--exclude GLOB]... [--force]
                [--plan]

What is listed by the hub's API (HF_ENDPOINT names another hub) is fetched file by file as download.py does it, which
lies beside this file: resumed, checked against the hub's digests, under its name only when whole. The same weights
in another form are left out. FOLDER/podlab-snapshot.json is written last and names the commit and the files, so that a
second start asks the hub once, and none at all when the hub cannot be reached. With --include only what matches is
fetched, whatever form it has; that file is then not written, for not all is there. Progress goes to D/progress.json
with bytes of all files; a failure is one line, `podlab: <cause>: <reason>`, and exit status 1.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import fnmatch
import json
import os
import shutil
import urllib.error
import urllib.parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from podlab.remote import download
    from podlab.remote.hub_requests import HUB, Failure, Remote, ask, explain, host_of
else:
    import download
    from hub_requests import HUB, Failure, Remote, ask, explain, host_of

LISTING_LIMIT_BYTES = 32 << 20
MANIFEST = "podlab-snapshot.json"
ASKING = 8
"""Files that the hub is asked about at the same time."""
# Weights in forms that vLLM does not read, or has already: PyTorch's pickles, Meta's own, GGUF, ONNX, TensorFlow, Flax.
LEFT_OUT = (
    "*.pth", "*.pt", "original/*", "*.gguf", "onnx/*", "*.onnx", "*.onnx_data", "*.h5", "*.msgpack", "*.tflite", "*.ot",
    "*.mlpackage/*", "coreml/*", "openvino/*", ".git*", "metal/*",
)  # fmt: skip


class Meter(download.Meter):
    """Also says how fast it goes and how long it will take."""

    def show(self, now: bool = False) -> None:
        """See download.Meter."""
        rate = self.rate()
        done = self.before + self.have
        plain = self.text
        if rate and self.total:
            left_s = int((self.total - done) / rate)
            self.text = f"{plain} ({rate / 1e6:.1f} MB/s, {left_s // 60}:{left_s % 60:02} left)"
        super().show(now)
        self.text = plain


def listing(repo: str, revision: str) -> tuple[str, list[str]]:
    """(commit, names of all files) of a repository. Source: the Hub's API, GET /api/models/REPO/revision/REV."""
    url = f"{HUB}/api/models/{repo}/revision/{urllib.parse.quote(revision, safe='')}"
    try:
        with ask("GET", url, {}) as answer:
            data = answer.read(LISTING_LIMIT_BYTES + 1)
    except urllib.error.HTTPError as error:
        raise explain(error, repo, f"revision {revision}")
    try:
        if len(data) > LISTING_LIMIT_BYTES:
            raise ValueError("too long")
        told = json.loads(data)
        commit, names = str(told["sha"]), [str(entry["rfilename"]) for entry in told["siblings"]]
    except (ValueError, KeyError, TypeError) as error:
        raise Failure("no_network", f"the hub's list of {repo} makes no sense: {error}")
    for name in names:
        if name.startswith("/") or "\\" in name or "\0" in name or {"", ".", ".."} & set(name.split("/")):
            raise Failure("no_network", f"the hub lists {name!r:.100}, which is no file of a repository")
    return commit, names


def wanted(names: list[str]) -> list[str]:
    """The files that are needed to serve it. Pickles only where there are no safetensors."""
    kept = [name for name in names if not any(fnmatch.fnmatch(name, pattern) for pattern in LEFT_OUT)]
    if any(name.endswith(".safetensors") for name in kept):
        kept = [name for name in kept if not (name.endswith(".bin") and "pytorch_model" in name)]
    return sorted(kept)


def chosen(names: list[str], include: list[str], exclude: list[str]) -> list[str]:
    """What is meant of all files: what `include` matches, else what serving needs, without what `exclude` matches.

    A pattern is a glob over the whole name, `*` matching slashes too, as in huggingface_hub.
    """
    some = [name for name in names if any(fnmatch.fnmatchcase(name, each) for each in include)]
    kept = some if include else wanted(names)
    return sorted(name for name in kept if not any(fnmatch.fnmatchcase(name, each) for each in exclude))


def described(args: argparse.Namespace, commit: str, name: str) -> Remote:
    """The hub's description of a file at that very commit."""
    part = os.path.join(args.to, name) + ".part"
    found: Remote = download.persist(lambda: download.head(args.repo, commit, name), part)
    return found


def run(args: argparse.Namespace, meter: Meter) -> None:
    """Fetch what is missing."""
    if host_of(HUB)[0] not in ("http", "https"):
        raise Failure("bad_flag", f"HF_ENDPOINT is {HUB}, which is no web address")
    os.makedirs(args.to, exist_ok=True)
    held = download.lock(os.path.join(args.to, ".podlab.lock"), meter)
    meter.say(f"asking {host_of(HUB)[1]} about {args.repo}")
    manifest_path = os.path.join(args.to, MANIFEST)
    manifest = download.read_json(manifest_path)
    try:
        commit, names = download.persist(lambda: listing(args.repo, args.revision), manifest_path)
    except Failure as failure:
        if failure.cause != "no_network" or not complete(args.to, manifest):
            raise
        print(f"{failure}; using {args.to}, which was checked before", flush=True)
        return
    needed = wanted(names)
    names = chosen(names, args.include, args.exclude)
    whole = names == needed
    if args.include and not names:
        raise Failure("model_not_found", f"{args.repo} holds no file like {', '.join(args.include)}")
    if not args.include and not any(name.endswith((".safetensors", ".bin")) for name in names):
        raise Failure("model_not_found", f"{args.repo} holds no weights in safetensors")
    if (
        not args.force
        and manifest.get("commit") == commit
        and manifest.get("files") == names
        and complete(args.to, manifest)
    ):
        print(f"{args.repo} is there, commit {commit}", flush=True)
        if args.plan:
            download.tell_need(meter)
        return
    fetch(args, meter, commit, names)
    if whole and not args.plan:
        download.replace_json(manifest_path, {"repo": args.repo, "commit": commit, "files": names})
    held.close()


def fetch(args: argparse.Namespace, meter: Meter, commit: str, names: list[str]) -> None:
    """Bring every file that is not there as the hub has it. Raises Failure."""
    with concurrent.futures.ThreadPoolExecutor(ASKING) as pool:
        remotes = dict(zip(names, pool.map(lambda name: described(args, commit, name), names)))
    missing = [
        name for name in names if args.force or not download.verified(os.path.join(args.to, name), remotes[name])
    ]
    meter.total = sum(remotes[name].size or 0 for name in missing)
    for name in missing:
        meter.expect(name, had(args, name), remotes[name].size)
    if args.plan:
        download.tell_need(meter)
        return
    refuse_too_large(args, meter.total - sum(had(args, name) for name in missing))
    pinned = argparse.Namespace(repo=args.repo, revision=commit, size=None, sha256=None)
    for name in missing:
        target = os.path.join(args.to, name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        # Such a file is also fetched by itself, and download.py then holds this lock.
        alone = download.lock(target + ".lock", meter) if name.endswith(".gguf") else None
        download.bring(pinned, name, target, remotes[name], meter)
        meter.finish(os.path.getsize(target))
        if alone is not None:
            alone.close()


def had(args: argparse.Namespace, name: str) -> int:
    """Bytes of a file that a download before this one has brought."""
    part = os.path.join(args.to, name) + ".part"
    return os.path.getsize(part) if os.path.exists(part) else 0


def refuse_too_large(args: argparse.Namespace, need: int) -> None:
    """Raise Failure when the disk has no room for all that is missing, before any of it is fetched."""
    free = shutil.disk_usage(args.to).free
    if need > 0 and free < need + download.SPARE_BYTES:
        raise Failure(
            "disk_full", f"{args.repo} needs {need / 1e9:.2f} GB more, and {args.to} has {free / 1e9:.2f} GB free"
        )


def complete(folder: str, manifest: dict[str, Any]) -> bool:
    """Whether all files of a manifest are what was checked once."""
    names = manifest.get("files")
    if not isinstance(names, list) or not names:
        return False
    return all(download.verified(os.path.join(folder, str(name)), None) for name in names)


def main() -> None:
    """See the top of this file."""
    parser = argparse.ArgumentParser()
    for option in ("--dir", "--repo", "--revision", "--to"):
        parser.add_argument(option, required=True)
    for option in ("--include", "--exclude"):
        parser.add_argument(option, action="append", default=[])
    for switch in ("--force", "--plan"):
        parser.add_argument(switch, action="store_true")
    args = parser.parse_args()
    download.carry_out(lambda: run(args, Meter(args.dir)))


if __name__ == "__main__":
    main()
