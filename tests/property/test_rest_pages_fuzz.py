"""Pages of past trades that are damaged in any way: every record is trades, a control frame or rejected, and nothing raises."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.refill.refill import _read_page
from connectors.venues.envelope import wrap
from connectors.venues.registry import VENUES, build_instruments
from tests import frames as f
from tests.decoding import assert_accounted

ROWS = {
    "binance": {"id": 7, "price": "1.5", "qty": "2", "quoteQty": "3", "time": f.NOW_MS, "isBuyerMaker": True, "isBestMatch": True},
    "binance_usdm": {"a": 7, "p": "1.5", "q": "2", "f": 1, "l": 2, "T": f.NOW_MS, "m": False},
    "kraken": ["1.5", "2", f.NOW_MS / 1000, "b", "l", "", 7],
    "coinbase": {"trade_id": 7, "side": "buy", "size": "1", "price": "2", "time": f.rfc3339(f.NOW_US)},
}
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def pages(draw: st.DrawFn, exchange: str) -> object:
    """A page whose rows, or parts of them, or itself, are anything."""
    rows: list[object] = []
    for _ in range(draw(st.integers(0, 4))):
        row = ROWS[exchange]
        if isinstance(row, list):
            row = [draw(JUNK) if draw(st.integers(0, 9)) == 0 else value for value in row][: draw(st.integers(5, 9))]
        else:
            row = {k: draw(JUNK) if draw(st.integers(0, 9)) == 0 else v for k, v in row.items() if draw(st.integers(0, 15))}
        rows.append(draw(JUNK) if draw(st.integers(0, 9)) == 0 else row)
    page: object = {"error": draw(st.just([]) | JUNK), "result": {"XXBTZUSD": rows, "last": "1"}} if exchange == "kraken" else rows
    return draw(JUNK) if draw(st.integers(0, 9)) == 0 else page


@pytest.mark.parametrize("exchange", ROWS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_pages_are_accounted_for(exchange: str, data: st.DataObject) -> None:
    listed = build_instruments(exchange, ["BTC/USD" if exchange in ("kraken", "coinbase") else "BTC/USDT"])
    instrument = listed.listed[0]
    body = json.dumps(data.draw(pages(exchange))).encode()
    if data.draw(st.integers(0, 9)) == 0:
        body = body[: data.draw(st.integers(0, len(body)))]
    batch = f.raw_batch(exchange, [wrap("/x", instrument.venue_symbol, body)], instrument.key)
    assert_accounted(VENUES[exchange].decode(batch, listed), 1)
    page = _read_page(VENUES[exchange], listed, instrument, "/x", body, f.NOW_US)
    assert bool(page.error) or page.rows >= len(page.ids)
