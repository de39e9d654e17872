"""The words of warnings."""

from __future__ import annotations

import re

_FIGURE = re.compile(r"\d[\d.]*(?: (?:d|h|min|s|ms)\b)?(?: \d[\d.]* (?:d|h|min|s|ms)\b)*")


def without_figures(text: str) -> str:
    """What a warning says apart from how near it is: so that it is said once, and not each time that it is looked."""
    return _FIGURE.sub("#", text)
