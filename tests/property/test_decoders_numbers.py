"""The compiled readers of numbers and times agree with the complete ones, or leave the frame to them."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.venues import scan
from connectors.venues.text import Unusable, digits, mantissa, rfc3339_us
from market.exact import to_ints

DIGITS = st.text("0123456789", max_size=22)
DECIMALS = st.one_of(
    st.builds("{}.{}".format, DIGITS, DIGITS),
    DIGITS,
    st.decimals(min_value=0, max_value=10**16, places=18).map(lambda d: f"{d:f}"),
    st.text("0123456789.eE+- ", max_size=24),
)
PARTS = st.tuples(*(st.integers(0, top) for top in (9999, 13, 32, 24, 60, 60)), st.text("0123456789", max_size=10))
TIMES = st.one_of(
    PARTS.map(lambda p: "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}".format(*p) + (f".{p[6]}" if p[6] else "") + "Z"),
    st.datetimes().map(lambda d: d.isoformat() + "Z"),
    st.from_regex(r"[0-9]{4}.[0-9]{2}-[0-9]{2}T[0-9:.]{0,16}[Zz0]", fullmatch=True),
)


def text_or_none(text: str) -> int | None:
    try:
        return mantissa(text, str, "price")
    except Unusable:
        return None


@settings(max_examples=1500, deadline=None)
@given(DECIMALS)
def test_decimals(text: str) -> None:
    data, out = scan.plain(f"x{text}9"), np.zeros((2, 2), np.uint64)
    if scan.decimal(data, 1, len(data) - 1, out, 1):
        assert to_ints(out)[1] == text_or_none(text)
    else:
        # What it leaves alone is bad, or unusual: an exponent, or more digits than fit into a word.
        assert text_or_none(text) is None or len(text) > 18 or "e" in text.lower()


@settings(max_examples=500, deadline=None)
@given(st.one_of(DIGITS, st.text("0123456789-. ", max_size=4)))
def test_integers(text: str) -> None:
    data = scan.plain(f"x{text}9")
    value = scan.integer(data, 1, len(data) - 1)
    assert value == (digits(text) if digits(text) is not None and len(text) <= 18 else scan.FAILED)


@settings(max_examples=1500, deadline=None)
@given(TIMES)
def test_times(text: str) -> None:
    data = scan.plain(f"x{text}9")
    if not text.isascii():
        return
    value = scan.rfc3339(data, 1, len(data) - 1)
    assert value == (scan.NO_TIME if rfc3339_us(text) is None else rfc3339_us(text))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.text("ABC/1", min_size=1, max_size=6), min_size=1, max_size=30, unique=True),
    st.text("ABC/1", max_size=7),
    st.integers(-1, 29),
)
def test_symbols_are_found_in_any_table(names: list[str], wanted: str, likely: int) -> None:
    from connectors.venues.columns import symbols_of
    from market.instrument import Instrument, Instruments

    table = symbols_of(Instruments("x", tuple(Instrument(f"{n}/{k}", n) for k, n in enumerate(names))))
    data = scan.plain(wanted + "!")
    expected = names.index(wanted) if wanted in names else scan.FAILED
    assert scan.symbol_code(data, 0, len(data) - 1, table, min(likely, len(names) - 1)) == expected
