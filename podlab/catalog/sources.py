"""Where a model's file comes from, and how that is written: builtin:NAME, hf:OWNER/REPO/FILE, file:/PATH, pod:/PATH."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from podlab.errors import BadArgument

# What goes into a URL, a path on the pod and an argv starts with a letter or digit: no option, no "..", no hidden file.
_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_HUB = re.compile(rf"({_WORD}/{_WORD})(?:@({_WORD}))?/((?:{_WORD}/)*{_WORD}\.gguf)")


@dataclass(frozen=True)
class BuiltinSource:
    """A file that ships in the package's catalog/data."""

    name: str

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem


@dataclass(frozen=True)
class FileSource:
    """A file on this computer."""

    path: Path

    @property
    def stem(self) -> str:
        return self.path.stem


@dataclass(frozen=True)
class PodSource:
    """A file that is on the pod already."""

    path: str

    @property
    def stem(self) -> str:
        return PurePosixPath(self.path).stem


@dataclass(frozen=True)
class HubSource:
    """A file of a repository on the Hugging Face Hub. Of a split file, the first part.

    `revision` is a branch, a tag or a commit; `sha256` and `size_bytes` are checked where they are known.
    """

    repo: str
    file: str
    revision: str = "main"
    sha256: str | None = None
    size_bytes: int | None = None

    @property
    def stem(self) -> str:
        return PurePosixPath(self.file).stem


@dataclass(frozen=True)
class HubRepo:
    """A whole repository on the Hugging Face Hub: weights in safetensors, configuration and tokenizer."""

    repo: str
    revision: str = "main"

    @property
    def stem(self) -> str:
        return self.repo.rpartition("/")[2]


@dataclass(frozen=True)
class FolderSource:
    """A folder with a model in safetensors: on this computer, or with `on_pod` on the pod already."""

    path: str
    on_pod: bool = False

    @property
    def stem(self) -> str:
        return PurePosixPath(self.path).name


Source = BuiltinSource | FileSource | PodSource | HubSource


def parse_source(text: str, sha256: str | None = None, size_bytes: int | None = None) -> Source:
    """Raises BadArgument with the right form. `sha256` and `size_bytes` belong to hf: only."""
    kind, _, rest = text.partition(":")
    if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise BadArgument(f"sha256 is {sha256!r}.", hint="It has to be 64 hexadecimal digits.")
    if kind == "hf":
        match = _HUB.fullmatch(rest)
        if match is None:
            raise BadArgument(f"{text!r} names no file on the hub.", hint="Write hf:OWNER/REPO/FILE.gguf")
        return HubSource(match[1], match[3], match[2] or "main", sha256, size_bytes)
    if kind == "builtin" and re.fullmatch(_WORD, rest):
        return BuiltinSource(rest)
    if kind == "file" and rest.endswith(".gguf"):
        return FileSource(Path(rest).expanduser())
    if kind == "pod" and rest.startswith("/") and rest.endswith(".gguf") and not re.search(r"[\0-\x1f]", rest):
        return PodSource(rest)
    raise BadArgument(
        f"{text!r} says not where a model's file is.",
        hint="Write hf:OWNER/REPO/FILE.gguf, file:/PATH.gguf or pod:/PATH.gguf",
    )
