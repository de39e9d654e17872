"""Values as short text, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podlab import units
from podlab.errors import BadArgument


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"), (1, "1 B"), (999, "999 B"), (1000, "1.0 kB"), (3554304, "3.6 MB"), (99_949, "99.9 kB"),
        (99_950, "100 kB"), (999_499, "999 kB"), (999_500, "1.0 MB"), (80 * 10**9, "80.0 GB"), (10**15, "1000 TB"),
    ],
)  # fmt: skip
def test_bytes_text(count: int, text: str) -> None:
    """Three digits at most where a unit allows it, and the unit changes where rounding would give a fourth."""
    assert units.bytes_text(count) == text


@pytest.mark.parametrize(
    ("text", "count"),
    [("3.6 MB", 3_600_000), ("512MiB", 512 * 2**20), ("80G", 80 * 10**9), (" 7 ", 7), ("1tib", 2**40), ("0.5k", 500),
     ("9007199254740993", 9007199254740993)],
)  # fmt: skip
def test_parse_bytes(text: str, count: int) -> None:
    """Decimal and binary units in either case, exact to the byte."""
    assert units.parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "x", "-1", "1e3", "80 GBit", "1.2.3", "9" * 400, "٣GB", "nan"])
def test_no_size(text: str) -> None:
    """What is no size is refused with an example of one."""
    with pytest.raises(BadArgument) as caught:
        units.parse_bytes(text)
    assert "80GB" in caught.value.hint


@given(st.integers(0, 10**14))
def test_bytes_text_reads_back(count: int) -> None:
    """The text means the number it came from, within the half of its last digit."""
    assert abs(units.parse_bytes(units.bytes_text(count)) - count) <= max(0.5, count * 0.06)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ms"), (0.0123, "12 ms"), (0.9994, "999 ms"), (0.9996, "1.0 s"), (3.21, "3.2 s"), (59.94, "59.9 s"),
        (59.96, "1 min"), (754, "12 min 34 s"), (3599.6, "1 h"), (7260, "2 h 1 min"), (90061, "1 d 1 h"),
    ],
)  # fmt: skip
def test_duration_text(seconds: float, text: str) -> None:
    """Two units at most, and no 60 s or 60 min from rounding."""
    assert units.duration_text(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0),
        ("90s", 90.0),
        ("10m", 600.0),
        ("2H", 7200.0),
        ("1d", 86400.0),
        ("250 ms", 0.25),
        ("1h30m", 5400.0),
        ("1D 2h", 93600.0),
    ],
)
def test_parse_duration(text: str, seconds: float) -> None:
    """Seconds without a unit, else milliseconds to days."""
    assert units.parse_duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5s", "30m1h", "1h1h", "1h 30", "1ſ", "9" * 400, "inf", "nan"])
def test_no_duration(text: str) -> None:
    """What is no duration is refused with examples of some."""
    with pytest.raises(BadArgument) as caught:
        units.parse_duration_s(text)
    assert "10m" in caught.value.hint


@given(st.text())
def test_parsing_raises_nothing_else(text: str) -> None:
    """Any text is a finite number or a BadArgument."""
    for parse in (units.parse_bytes, units.parse_duration_s):
        try:
            assert 0 <= parse(text) < 10**40
        except BadArgument:
            pass


@pytest.mark.parametrize(
    ("then", "text"),
    [
        (None, "never"),
        (100.5, "just now"),
        (99.0, "just now"),
        (95.2, "4 s ago"),
        (40.0, "1 min ago"),
        (200.0, "just now"),
    ],
)
def test_age_text(then: float | None, text: str) -> None:
    """Whole seconds below a minute; a clock that is ahead is no age."""
    assert units.age_text(then, 100.0) == text


@pytest.mark.parametrize(("rate", "text"), [(1432.7, "1433"), (38.24, "38.2"), (0.0, "0.0"), (100.0, "100")])
def test_rate_text(rate: float, text: str) -> None:
    """One decimal below 100, none above."""
    assert units.rate_text(rate) == text


@pytest.mark.parametrize(("text", "tokens"), [("8192", 8192), ("4k", 4096), ("128K", 131072), ("1m", 1048576)])
def test_parse_tokens(text: str, tokens: int) -> None:
    assert units.parse_tokens(text) == tokens


@pytest.mark.parametrize("text", ["", "0", "-1", "4kb", "k", "1.5k", "many", "9" * 12])
def test_what_is_no_number_of_tokens(text: str) -> None:
    with pytest.raises(BadArgument, match="Write it as|is no number of tokens"):
        units.parse_tokens(text)


@pytest.mark.parametrize(("text", "share"), [("90%", 0.9), ("0.9", 0.9), ("1", 1.0), ("100%", 1.0), ("92.5%", 0.925)])
def test_parse_share(text: str, share: float) -> None:
    assert units.parse_share(text) == share


@pytest.mark.parametrize("text", ["", "0", "0%", "150%", "1.1", "90", "-5%", "half"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(BadArgument, match="is no share"):
        units.parse_share(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (342 * 2**20, "342 MiB"), (1023 * 2**20, "1023 MiB"),
     (24564 * 2**20, "24.0 GiB"), (81559 * 2**20, "79.6 GiB"), (143771 * 2**20, "140 GiB"), (2**41, "2048 GiB")],
)  # fmt: skip
def test_memory_text(count: int, text: str) -> None:
    """A card that is sold with 24 GB shows 24: memory is counted in binary units."""
    assert units.memory_text(count) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0"), (2048, "2k"), (40960, "40k"), (35552, "35552"), (2**20, "1m")])
def test_tokens_text(count: int, text: str) -> None:
    assert units.tokens_text(count) == text


@given(st.integers(1, 10**9 - 1))
def test_tokens_are_read_back_as_they_are_shown(count: int) -> None:
    assert units.parse_tokens(units.tokens_text(count)) == count
