"""Where a model comes from, and how that is written.

A file: builtin:NAME, hf:OWNER/REPO/FILE.gguf, file:/PATH.gguf, pod:/PATH.gguf. A folder of safetensors: hf:OWNER/REPO,
folder:/PATH, pod:/PATH/ with a slash at its end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from podlab.errors import BadArgument

# What goes into a URL, a path on the pod and an argv starts with a letter or digit: no option, no "..", no hidden file.
_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_HUB = re.compile(rf"({_WORD}/{_WORD})(?:@({_WORD}))?/((?:{_WORD}/)*{_WORD}\.gguf)")
_REPO = re.compile(rf"({_WORD}/(?!.*\.gguf$){_WORD})(?:@({_WORD}))?")
_CONTROL = re.compile(r"[\0-\x1f]")


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


Source = BuiltinSource | FileSource | PodSource | HubSource | HubRepo | FolderSource


def is_repo(text: str) -> bool:
    """Whether `text` reads as OWNER/REPO or OWNER/REPO@REVISION: a repository of the Hub, named without hf:."""
    return _REPO.fullmatch(text) is not None


def parse_source(text: str, sha256: str | None = None, size_bytes: int | None = None) -> Source:
    """Raises BadArgument with the right form. `sha256` and `size_bytes` belong to a file of the hub only."""
    kind, _, rest = text.partition(":")
    if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise BadArgument(f"sha256 is {sha256!r}.", hint="It has to be 64 hexadecimal digits.")
    if kind == "hf":
        if match := _HUB.fullmatch(rest):
            return HubSource(match[1], match[3], match[2] or "main", sha256, size_bytes)
        if match := _REPO.fullmatch(rest):
            return HubRepo(match[1], match[2] or "main")
        raise BadArgument(
            f"{text!r} names nothing on the hub.", hint="Write hf:OWNER/REPO/FILE.gguf, or hf:OWNER/REPO for all of it."
        )
    if kind == "builtin" and re.fullmatch(_WORD, rest):
        return BuiltinSource(rest)
    if kind == "file" and rest.endswith(".gguf"):
        return FileSource(Path(rest).expanduser())
    absolute = rest.startswith("/") and rest.strip("/") != "" and not _CONTROL.search(rest)
    if kind == "pod" and absolute and rest.endswith(".gguf"):
        return PodSource(rest)
    if (kind == "pod" and absolute and rest.endswith("/")) or (kind == "folder" and absolute):
        return FolderSource(rest.rstrip("/"), on_pod=kind == "pod")
    if is_repo(text):
        raise BadArgument(f"{text!r} does not say where it is.", hint=f"If it is a repository of the hub: hf:{text}")
    raise BadArgument(
        f"{text!r} does not say where a model is.",
        hint="Write hf:OWNER/REPO/FILE.gguf, file:/PATH.gguf or pod:/PATH.gguf; for safetensors hf:OWNER/REPO, "
        "folder:/PATH or pod:/PATH/",
    )


def source_text(source: Source) -> str:
    """A source as `parse_source` takes it, without its checksum."""
    match source:
        case BuiltinSource():
            return f"builtin:{source.name}"
        case HubSource() | HubRepo():
            revision = "" if source.revision == "main" else f"@{source.revision}"
            return f"hf:{source.repo}{revision}" + (f"/{source.file}" if isinstance(source, HubSource) else "")
        case FileSource():
            return f"file:{source.path}"
        case PodSource():
            return f"pod:{source.path}"
        case FolderSource():
            return f"pod:{source.path}/" if source.on_pod else f"folder:{source.path}"
