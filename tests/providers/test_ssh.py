"""An SSH address, as people paste it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podlab.errors import BadArgument
from podlab.providers.ssh import SshProvider, parse_address
from podlab.types import SshAddress

GOOD = [
    ("gpu", SshAddress("gpu")),
    ("me@gpu.example", SshAddress("gpu.example", "me")),
    ("ssh me@gpu.example", SshAddress("gpu.example", "me")),
    ("me@gpu.example:2222", SshAddress("gpu.example", "me", 2222)),
    ("ssh://me@gpu.example:2222/", SshAddress("gpu.example", "me", 2222)),
    ("ssh root@1.2.3.4 -p 40022 -i ~/.ssh/id_ed25519", SshAddress("1.2.3.4", "root", 40022, ("~/.ssh/id_ed25519",))),
    (
        "ssh -p40022 -i~/.ssh/a -i 'my keys/b' root@1.2.3.4",
        SshAddress("1.2.3.4", "root", 40022, ("~/.ssh/a", "my keys/b")),
    ),
    ("ssh -A -q -l me gpu", SshAddress("gpu", "me")),
    ("ssh -J me@gate:22,other gpu", SshAddress("gpu", proxy_jump="me@gate:22,other")),
    ("a@b.example@gpu", SshAddress("gpu", "a@b.example")),
    ("::1", SshAddress("::1")),
    ("[::1]:2222", SshAddress("::1", None, 2222)),
    ("me@[fe80::1%eth0]", SshAddress("fe80::1%eth0", "me")),
    ("gpu:22 -p 22", SshAddress("gpu", None, 22)),
]


@pytest.mark.parametrize(("text", "expected"), GOOD)
def test_addresses(text: str, expected: SshAddress) -> None:
    """Every form people paste is understood, values attached to their options or not."""
    assert parse_address(text) == expected


BAD = [
    "", "ssh", " ", "@gpu", "me@", "-p 22", "gpu -p", "gpu -p 0", "gpu -p 65536", "gpu -p x", "gpu -p ²", "gpu:x",
    "gpu:", "gpu -i",
    "gpu nvidia-smi", "gpu -L 8888:localhost:8888", "gpu -o ProxyCommand=id", "gpu 'x", "-oProxyCommand=id",
    "gpu:22 -p 23",
    "me@-gpu", "a:b:c", "[::1", "[x", "fe80::1%a;b", ":x", "$(id)@gpu", "me;id@gpu", "gpu;id", "gpu\nid", "gpu\x00",
    "é", "gpu -J -oProxyCommand=id",
    "gpu -J", "gpu -J a,,b", "'me gpu'", "h" * 300,
]  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_what_no_address_is(text: str) -> None:
    """What cannot be an address is refused with the forms that can, options that would run a command included."""
    with pytest.raises(BadArgument) as caught:
        parse_address(text)
    assert caught.value.hint


words = st.sampled_from(
    ["ssh", "-p", "-i", "-l", "-J", "-o", "-A", "22", "me@gpu", "gpu:22", "[::1]:5", "-p22", "²", "'", "ssh://x"]
)


@given(st.text() | st.lists(words, max_size=6).map(" ".join))
def test_parsing_raises_nothing_else(text: str) -> None:
    """Any text is an address whose parts are plain words, or a BadArgument."""
    try:
        found = parse_address(text)
    except BadArgument:
        return
    for part in (found.host, found.user or "x", found.proxy_jump or "x"):
        assert part
        assert not part.startswith("-")
        assert not set(part) & set(" \t\n\0'\"`$;|&<>()")
    assert found.port is None or 0 < found.port < 65536


def test_adopting() -> None:
    """A pod of that name with an id of its own each time, where its models are kept, and nothing asked of anybody."""
    provider = SshProvider()
    first, second = (provider.adopt("lab", "me@gpu.invalid", models_path="/models") for _ in range(2))
    assert (first.name, first.provider, first.models_path) == ("lab", "ssh", "/models")
    assert first.address == SshAddress("gpu.invalid", "me")
    assert first.id != second.id
    assert provider.name == "ssh"
