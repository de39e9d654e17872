"""Text that came from a pod, a model or a provider, made harmless for a terminal and for a page.

It may hold anything: escape sequences that move the cursor, rename the window or write the clipboard (OSC 52),
C1 controls that do the same in one character, and bidirectional overrides that show a line in another order than it
has. All of them are taken out; letters, emoji and combining marks stay. HTML still has to be escaped after this.
"""

from __future__ import annotations

import re

# Strings (OSC, DCS, SOS, PM, APC) end at BEL, ST or the end of their line: an unfinished one must not swallow the rest.
_STRING = r"(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c\n\r]*(?:\x07|\x1b\\|\x9c)?"
_CSI = r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
_OTHER = r"\x1b[ -/]*[0-~]?"
_ESCAPE = re.compile(f"{_STRING}|{_CSI}|{_OTHER}")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SUSPECT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def stream(text: str) -> str:
    """Whole lines of output with newlines, tabs and carriage returns (progress bars), and nothing else special."""
    if _SUSPECT.search(text) is None:
        return text
    text = _BIDI.sub("", _CONTROL.sub("", _ESCAPE.sub("", text)))
    return _SURROGATE.sub("\ufffd", text)


def block(text: str) -> str:
    """Text of several lines; a carriage return ends a line too, so that nothing overwrites what it follows."""
    return stream(text).replace("\r\n", "\n").replace("\r", "\n")


def line(text: str) -> str:
    """Text of one line: every run of newlines and tabs becomes one space."""
    return " ".join(part for part in re.split(r"[\n\r\t\u2028\u2029\x85]+", stream(text)) if part)
