from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import polars as pl
import pyarrow as pa
from pyiceberg.expressions import AlwaysTrue

from maintenance.cold import _filter
from maintenance.stored import MINUTE, Frontier, Wanted, census, chunks
from market.schema import DEAD_LETTERS, OHLCV, SILVER_TRADES, Table, bronze_table

START = datetime(2026, 1, 1, tzinfo=UTC)
START_US = int(START.timestamp()) * 1_000_000
MINUTE_US = 60_000_000


class Listed:
    """A store out of a list of (exchange, seconds after START)."""

    name = "warm"

    def __init__(self, *trades: tuple[str, float]) -> None:
        self.trades = trades

    def frontiers(self) -> Mapping[tuple[str, str, int], Frontier]:
        return {}

    def rows(self, table: Table, wanted: Wanted, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        schema = pa.schema([table.arrow_schema().field(name) for name in columns or ()])
        for exchange, seconds in self.trades:
            yield pa.RecordBatch.from_pylist([{"exchange": exchange, "timestamp": START + timedelta(seconds=seconds)}], schema=schema)

    def close(self) -> None:
        pass


def test_census_counts_by_exchange_and_minute() -> None:
    counted = census(Listed(("b", 0), ("a", 59.9), ("a", 0), ("a", 60)), SILVER_TRADES, Wanted(), ["exchange", MINUTE])
    assert counted.rows() == [("a", START_US, 2), ("a", START_US + MINUTE_US, 1), ("b", START_US, 1)]
    assert census(Listed(), SILVER_TRADES, Wanted(), ["exchange", MINUTE]).is_empty()


def test_chunks_cover_everything_once_and_end_at_minutes() -> None:
    counted = pl.DataFrame({MINUTE: [START_US + m * MINUTE_US for m in (0, 1, 2, 5, 6)], "len": [4, 4, 4, 20, 1]})
    wanted = Wanted("a", start_us=START_US + 7, end_us=START_US + 9 * MINUTE_US)
    found = list(chunks(counted, wanted, 10))
    edges = [START_US + 7, *(START_US + m * MINUTE_US for m in (2, 5, 6)), START_US + 9 * MINUTE_US]
    assert [(c.start_us, c.end_us) for c in found] == list(pairwise(edges))
    assert list(chunks(counted.clear(), wanted, 10)) == []
    assert list(chunks(counted, Wanted(), 100)) == [Wanted()]


def test_cold_filters_name_what_is_wanted_and_nothing_else() -> None:
    assert _filter(SILVER_TRADES, Wanted()) == AlwaysTrue()
    assert _filter(bronze_table("binance"), Wanted("binance")) == AlwaysTrue()
    text = str(_filter(OHLCV["1m"], Wanted("kraken", ("BTC/USD",), START_US, START_US + 1, closed=True)))
    for part in ("kraken", "BTC/USD", "2026-01-01T00:00:00.000000+00:00", "2026-01-01T00:00:00.000001+00:00", "window_start", "is_closed"):
        assert part in text
    assert "receive_time" in str(_filter(DEAD_LETTERS, Wanted(end_us=START_US)))
