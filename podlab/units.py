"""Values as short text, and back: bytes, money, durations, rates, ages."""

from __future__ import annotations

import re
from decimal import Decimal

from podlab.errors import BadArgument

_BYTE_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
               "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}  # fmt: skip
_TIME_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_TIME_PART = r"([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*(ms|s|m|h|d)"
_ANY_CASE = re.IGNORECASE | re.ASCII


def bytes_text(count: int) -> str:
    """3554304 -> '3.6 MB' (decimal units, as disks and networks are sold)."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(value) < 999.5 or unit == "TB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("the loop always returns")


def memory_text(count: int) -> str:
    """25769803776 -> '24.0 GiB' (binary units, as memory is built and as nvidia-smi and vLLM count it)."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1023.5 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("the loop always returns")


def parse_bytes(text: str) -> int:
    """'3.6 MB', '512MiB', '80G' -> bytes. Raises BadArgument."""
    match = re.fullmatch(r"\s*([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([kmgt]i?)?b?\s*", text, re.IGNORECASE)
    if match is None:
        raise BadArgument(f"{text!r} is not a size.", hint="Write it as 500MB, 80GB or 512MiB.")
    return round(Decimal(match[1]) * _BYTE_UNITS[(match[2] or "").lower()])


def parse_tokens(text: str) -> int:
    """'4096', '4k', '128K', '1m' -> tokens, of which k are 1024 and m 1024 times 1024. Raises BadArgument."""
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*([km]?)\s*", text, re.IGNORECASE)
    if match is None or int(match[1]) == 0:
        raise BadArgument(f"{text!r} is no number of tokens.", hint="Write it as 8192, 32k or 1m.")
    return int(match[1]) * {"": 1, "k": 2**10, "m": 2**20}[match[2].lower()]


def tokens_text(count: int) -> str:
    """131072 -> '128k', 1048576 -> '1m', 35552 -> '35552': exact, and what `parse_tokens` reads back."""
    for unit, size in (("m", 2**20), ("k", 2**10)):
        if count and count % size == 0:
            return f"{count // size}{unit}"
    return str(count)


def parse_share(text: str) -> float:
    """'90%', '0.9' -> 0.9, a share above 0 and up to 1. Raises BadArgument."""
    match = re.fullmatch(r"\s*([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*(%?)\s*", text)
    value = float(match[1]) / (100 if match[2] else 1) if match else 0.0
    if not 0 < value <= 1:
        raise BadArgument(f"{text!r} is no share.", hint="Write it as 90% or 0.9.")
    return value


def duration_text(seconds: float) -> str:
    """0.0123 -> '12 ms', 3.21 -> '3.2 s', 754 -> '12 min 34 s', 90061 -> '1 d 1 h'."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit_s, unit, below_s, below in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit_s:
            rest = whole % unit_s // below_s
            return f"{whole // unit_s} {unit} {rest} {below}" if rest else f"{whole // unit_s} {unit}"
    return f"{whole} s"


def parse_duration_s(text: str) -> float:
    """'90', '90s', '10m', '2h', '1h30m', '1d' -> seconds. Raises BadArgument."""
    bare = text.strip()
    if re.fullmatch(r"[0-9]{1,18}(?:\.[0-9]{1,18})?", bare):
        return float(bare)
    parts = [(float(number), unit.lower()) for number, unit in re.findall(_TIME_PART, bare, _ANY_CASE)]
    units = [unit for _, unit in parts]
    falling = units == sorted(set(units), key=_TIME_UNITS_S.__getitem__, reverse=True)
    if not parts or not falling or not re.fullmatch(rf"(?:{_TIME_PART}\s*)+", bare, _ANY_CASE):
        raise BadArgument(f"{text!r} is not a duration.", hint="Write it as 30s, 10m, 2h, 1h30m or 1d.")
    return sum(number * _TIME_UNITS_S[unit] for number, unit in parts)


def age_text(then: float | None, now: float) -> str:
    """Seconds since the epoch -> '3 min ago', '5 s ago', 'just now', 'never'."""
    if then is None:
        return "never"
    age_s = int(max(0.0, now - then))
    if age_s < 2:
        return "just now"
    return f"{age_s} s ago" if age_s < 60 else f"{duration_text(age_s)} ago"


def rate_text(per_second: float) -> str:
    """1432.7 -> '1433', 38.24 -> '38.2': a rate without its unit, to three or four digits."""
    return f"{per_second:.0f}" if per_second >= 100 else f"{per_second:.1f}"


def usd_text(usd: float) -> str:
    """3.4 -> '$3.40', 0.0055 -> '$0.0055', -1 -> '-$1.00': two digits of cents, or of what is less than ten cents."""
    sign, amount = "-" if usd < 0 else "", abs(usd)
    if amount >= 0.0995 or amount == 0:
        return f"{sign}${amount:,.2f}"
    return (
        f"{sign}${amount:.3f}"
        if amount >= 0.00995
        else f"{sign}${amount:.4f}"
        if amount >= 0.0001
        else f"{sign}$0.0001"
    )


def parse_usd(text: str) -> float:
    """'5', '$2.50', '0.4' -> dollars above 0. Raises BadArgument."""
    match = re.fullmatch(r"\s*\$?\s*([0-9]{1,6}(?:\.[0-9]{1,6})?)\s*", text)
    if match is None or float(match[1]) == 0:
        raise BadArgument(f"{text!r} is no amount of dollars.", hint="Write it as 5 or 2.50.")
    return float(match[1])
