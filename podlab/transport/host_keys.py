"""Which host key a pod must show: pinned per pod, never accepted silently.

Pins live in `PODLAB_HOME/known_hosts` in OpenSSH's format under the host name `podlab-<pod id>`, so that
`ssh -o HostKeyAlias=podlab-<id> -o UserKnownHostsFile=...` trusts exactly what podlab trusts.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
import re
from dataclasses import dataclass
from pathlib import Path

from podlab import settings
from podlab.durable import locked, private_folder, replace_file
from podlab.errors import BadArgument, HostKeyChanged, HostKeyUnknown, StateDamaged

SSH_PORT = 22
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_POD_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class HostKey:
    """A public host key: its type ("ssh-ed25519") and its blob in base64."""

    type: str
    base64: str

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -lf` prints it: "SHA256:..."."""
        digest = hashlib.sha256(base64.b64decode(self.base64)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


@dataclass(frozen=True)
class KnownHost:
    """One line of a known_hosts file. `marker` is "", "@revoked" or "@cert-authority"."""

    marker: str
    patterns: str
    key: HostKey

    def matches(self, name: str) -> bool:
        """Whether the line speaks about `name` ("host" or "[host]:port")."""
        if self.patterns.startswith("|1|"):
            return _hashed_name_matches(self.patterns, name)
        found = False
        for pattern in self.patterns.lower().split(","):
            if pattern.startswith("!"):
                if _pattern_matches(pattern[1:], name.lower()):
                    return False
            elif _pattern_matches(pattern, name.lower()):
                found = True
        return found


class HostKeys:
    """The pins of all pods, and what the user's own known_hosts says. Safe to use from several processes."""

    def __init__(self, path: Path | None = None, *, user_known_hosts: Path | None = None) -> None:
        """`path` defaults to PODLAB_HOME/known_hosts, `user_known_hosts` to ~/.ssh/known_hosts."""
        self._path = path or settings.home() / "known_hosts"
        self._user_path = user_known_hosts or Path.home() / ".ssh" / "known_hosts"

    def pin(self, pod_id: str, key_type: str, key_base64: str) -> None:
        """Remember `key` as the only one that pod may show, in place of an earlier one."""
        key = _checked_key(key_type, key_base64)
        self._rewrite(_alias(pod_id), f"{_alias(pod_id)} {key.type} {key.base64}\n")

    def forget(self, pod_id: str) -> None:
        """Remove the pin of that pod; nothing happens when there is none."""
        self._rewrite(_alias(pod_id), "")

    def pinned(self, pod_id: str) -> HostKey | None:
        """The key that pod must show, None when none is pinned."""
        name = _alias(pod_id)
        for entry in read_known_hosts(self._path):
            if entry.patterns == name and not entry.marker:
                return entry.key
        return None

    def key_types(self, pod_id: str | None, host: str, port: int) -> tuple[str, ...]:
        """Types of the keys that are trusted for it, to be asked for first: a server with several has not changed."""
        if pod_id is not None and (pinned := self.pinned(pod_id)):
            return (pinned.type,)
        return tuple(dict.fromkeys(entry.key.type for entry in self._user_entries(host, port) if not entry.marker))

    def verify(
        self,
        pod: str,
        pod_id: str | None,
        host: str,
        port: int,
        key_type: str,
        key_base64: str,
        *,
        expected: str | None = None,
    ) -> None:
        """Return when the key may be trusted, raise otherwise. `pod` is a name for messages, `expected` a fingerprint.

        1. The user's known_hosts revokes it: HostKeyChanged.
        2. A key is pinned for this pod: it must be that one, else HostKeyChanged.
        3. `expected` is given: a match is pinned, a mismatch is HostKeyChanged.
        4. The user's known_hosts has entries for host and port: a match is pinned, a mismatch is HostKeyChanged.
        5. HostKeyUnknown, with the fingerprint.

        With `pod_id` None (a machine on the way to the pod) only 1, 4 and 5 apply, and nothing is pinned.
        """
        shown = _checked_key(key_type, key_base64)
        entries = self._user_entries(host, port)
        if any(entry.marker == "@revoked" and entry.key == shown for entry in entries):
            raise HostKeyChanged(pod, host, f"a key that {self._user_path} does not revoke", shown.fingerprint)
        if pod_id is not None:
            if pinned := self.pinned(pod_id):
                if pinned != shown:
                    raise HostKeyChanged(pod, host, pinned.fingerprint, shown.fingerprint)
                return
            if expected is not None:
                if not hmac.compare_digest(checked_fingerprint(expected), shown.fingerprint):
                    raise HostKeyChanged(pod, host, checked_fingerprint(expected), shown.fingerprint)
                self.pin(pod_id, shown.type, shown.base64)
                return
        known = [entry.key for entry in entries if not entry.marker]
        if not known:
            raise HostKeyUnknown(pod, host, shown.type, shown.base64, shown.fingerprint)
        if shown not in known:
            raise HostKeyChanged(pod, host, known[0].fingerprint, shown.fingerprint)
        if pod_id is not None:
            self.pin(pod_id, shown.type, shown.base64)

    def _user_entries(self, host: str, port: int) -> list[KnownHost]:
        # Certificates are never asked for, so an authority's line proves nothing here.
        name = host if port == SSH_PORT else f"[{host}]:{port}"
        entries = read_known_hosts(self._user_path)
        return [entry for entry in entries if entry.marker != "@cert-authority" and entry.matches(name)]

    def _rewrite(self, name: str, line: str) -> None:
        private_folder(self._path.parent)
        with locked(self._path.with_name(self._path.name + ".lock")):
            old = self._text()
            kept = [text for text in old.splitlines(keepends=True) if text.split(maxsplit=1)[:1] != [name]]
            replace_file(self._path, ("".join(kept) + line).encode("utf-8", "surrogateescape"))

    def _text(self) -> str:
        try:
            return self._path.read_text("utf-8", "surrogateescape")
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise StateDamaged(
                f"{self._path} cannot be read: {error.strerror}.", hint="It holds the pods' host keys. Is it yours?"
            ) from error


def read_known_hosts(path: Path) -> list[KnownHost]:
    """The entries of a known_hosts file. A missing file has none; comments and lines that are no entry are skipped."""
    try:
        text = path.read_text("utf-8", errors="replace")
    except OSError:
        return []
    entries = []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        marker = words.pop(0) if words[0].startswith("@") else ""
        if len(words) >= 3 and marker in ("", "@revoked", "@cert-authority"):
            entries.append(KnownHost(marker, words[0], HostKey(words[1], words[2])))
    return entries


def checked_fingerprint(text: str) -> str:
    """`text` as "SHA256:..." without padding. Raises BadArgument when it is no such fingerprint."""
    fingerprint = text.strip().rstrip("=")
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise BadArgument(
            f"{text!r} is not a host key's fingerprint.",
            hint="It looks like SHA256:47DEQpj8HBSa... : ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
        )
    return fingerprint


def _hashed_name_matches(field: str, name: str) -> bool:
    # |1|base64(salt)|base64(HMAC-SHA1(salt, name)), see HASHED HOSTS in sshd(8).
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in field.split("|")[2:4])
    except ValueError:
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), "sha1").digest(), digest)


def _pattern_matches(pattern: str, name: str) -> bool:
    # Only * and ? are wildcards to OpenSSH; the brackets of [host]:port are letters.
    return fnmatch.fnmatchcase(name, pattern.replace("[", "[[]"))


def _checked_key(key_type: str, key_base64: str) -> HostKey:
    try:
        blob = base64.b64decode(key_base64, validate=True)
    except binascii.Error as error:
        raise BadArgument("That is not a host key: its base64 is damaged.") from error
    if not re.fullmatch(r"[a-z0-9@.-]+", key_type) or not blob[4:].startswith(key_type.encode()):
        raise BadArgument(f"That is not a host key of type {key_type!r}.")
    return HostKey(key_type, key_base64)


def _alias(pod_id: str) -> str:
    if not _POD_ID.fullmatch(pod_id):
        raise BadArgument(f"{pod_id!r} cannot be a pod's id.")
    return f"podlab-{pod_id}"
