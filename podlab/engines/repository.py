"""What a step needs of podlab/remote; and a whole repository of the Hub: where it lies, and the step that brings it."""

from __future__ import annotations

from podlab.engines.base import HubRepository, PodFacts, ServeSpec
from podlab.types import Step

DOWNLOADER = ("hashing.py", "hub_requests.py", "pieces.py", "download.py")
"""The files of podlab/remote that fetch one file of the Hub, beside each other in a folder on the pod."""
REPOSITORY_DOWNLOADER = (*DOWNLOADER, "snapshot.py")
"""Those that fetch a whole repository."""
INSTALLER = ("package_index.py", "pythons.py", "setup.py")
"""Those that make an engine's environment."""


def repository_path(models_dir: str, repository: HubRepository) -> str:
    """Where a repository lies on a pod. The revision is part of it: another one is another model."""
    return f"{models_dir}/{repository.repo}/{repository.revision}"


def download_step(spec: ServeSpec, repository: HubRepository, facts: PodFacts) -> Step:
    """The step that fetches what is missing of a repository; see remote/snapshot.py.

    The token of the hub is in the environment of this step and of no other.
    """
    argv = (
        facts.python_path, "-u", "{dir}/snapshot.py", "--dir", "{dir}", "--repo", repository.repo,
        "--revision", repository.revision, "--to", repository_path(spec.models_dir, repository),
    )  # fmt: skip
    return Step("download", argv, secrets=("HF_TOKEN",) if spec.hub_token else ())
