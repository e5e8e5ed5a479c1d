from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

from simulator.block import ABSENT, IS_BUY, Block
from simulator.books import Books, ranges
from simulator.klines import filled, klines, last_before
from simulator.listing import Listing
from simulator.tape import SymbolTape, Tape
from tests.unit.simulator.venue_double import Venue, binance

MINUTE = 60_000_000
LISTING = Listing("BTC/USDT", 2, 5, 100, first_id=50)


def taped(*trades: tuple[int, int, int, int]) -> SymbolTape:
    """(time µs, price, quantity, flags) → a tape whose ids begin at 50."""
    tape = SymbolTape(LISTING, 0)
    times, prices, quantities, flags = (np.array(column, dtype=np.int64) for column in zip(*trades, strict=True))
    tape.append(times, prices, quantities, flags.astype(np.uint8))
    tape.released = len(trades)
    return tape


def test_pages_go_by_id_and_leave_out_what_is_lost() -> None:
    tape = taped(*[(n, 100, 1, 0) for n in range(10)])
    assert tape.page_from(tape.row_of(53), 3).trade_id.tolist() == [53, 54, 55]
    assert tape.page_until(tape.row_of(53), 2).trade_id.tolist() == [51, 52]
    assert tape.row_of(1) == 0
    assert tape.row_of(1000) == 10
    tape.mark_lost(np.array([51, 52, 54]))
    assert tape.page_from(0, 4).trade_id.tolist() == [50, 53, 55, 56]
    assert tape.page_until(6, 3).trade_id.tolist() == [50, 53, 55]
    assert tape.rows(0, 10, with_lost=True).trade_id.tolist() == list(range(50, 60))


def test_what_is_not_released_is_not_told() -> None:
    tape = taped(*[(n, 100, 1, 0) for n in range(10)])
    tape.released = 4
    assert tape.page_from(0, 100).trade_id.tolist() == [50, 51, 52, 53]
    assert tape.row_at(100) == 4


def test_forgetting_keeps_ids() -> None:
    tape = taped(*[(n, 100 + n, 1, 0) for n in range(10)])
    tape.forget(4)
    assert tape.page_from(tape.row_of(0), 2).trade_id.tolist() == [54, 55]
    assert tape.page_from(tape.row_of(55), 1).price.tolist() == [105]
    tape.mark_lost(np.array([51]))
    assert len(tape.rows(0, 100)) == 6


def test_a_clock_set_back_stands_still_until_it_has_caught_up() -> None:
    tape = Tape([LISTING])
    zeros = np.zeros(3, dtype=np.int64)
    block = Block(0, zeros, zeros, zeros, zeros, zeros + 1, zeros + 1, zeros.astype(np.uint8), zeros)
    assert tape.add(block, np.array([10, 30, 20]), 1).time_us.tolist() == [10, 30, 30]
    assert tape.add(block, np.array([5, 29, 40]), 1).time_us.tolist() == [30, 30, 40]
    assert tape.add(block, np.array([1999, 2001, 2002]), 1000).time_us.tolist() == [1000, 2000, 2000]


def test_a_long_tape_is_cut_at_its_old_end() -> None:
    venue = Venue("kraken", rate=4000.0)
    venue.exchange.conditions = type(venue.exchange.conditions)(kept_trades=2000)
    venue.run(2)
    assert len(venue.exchange.tape) < 4000
    state = venue.exchange.state()["symbols"]["BTC/USD"]
    assert state["first_id"] > 1_000_000


def test_candles_are_folded_exactly() -> None:
    tape = taped(
        (MINUTE, 100, 3, IS_BUY), (MINUTE + 1, 120, 1, 0), (2 * MINUTE - 1, 90, 2, IS_BUY), (2 * MINUTE, 95, 7, 0), (5 * MINUTE, 70, 1, 0)
    )
    first, second, third = klines(tape, MINUTE, 0, 1 << 60)
    assert (first.open, first.high, first.low, first.close) == (100, 120, 90, 90)
    assert (first.quantity, first.quote, first.trades) == (6, 300 + 120 + 180, 3)
    assert (first.buy_quantity, first.buy_quote) == (5, 480)
    assert (second.start_us, second.trades, third.start_us) == (2 * MINUTE, 1, 5 * MINUTE)
    assert [k.start_us for k in klines(tape, MINUTE, MINUTE + 1, 5 * MINUTE)] == [2 * MINUTE]


def test_empty_windows_are_flat_on_request() -> None:
    tape = taped((MINUTE, 100, 3, 0), (4 * MINUTE, 70, 1, 0))
    rows = list(filled(klines(tape, MINUTE, 0, 7 * MINUTE), MINUTE, last_before(tape, MINUTE, 0), 0, 7 * MINUTE))
    assert [(k.start_us // MINUTE, k.close, k.trades) for k in rows] == [
        (1, 100, 1),
        (2, 100, 0),
        (3, 100, 0),
        (4, 70, 1),
        (5, 70, 0),
        (6, 70, 0),
    ]
    later = list(
        filled(klines(tape, MINUTE, 2 * MINUTE, 4 * MINUTE), MINUTE, last_before(tape, MINUTE, 2 * MINUTE), 2 * MINUTE, 4 * MINUTE)
    )
    assert [(k.start_us // MINUTE, k.close) for k in later] == [(2, 100), (3, 100)]


def test_absent_ids_are_no_trades() -> None:
    tape = taped((MINUTE, 100, 3, 0), (MINUTE, 0, 0, ABSENT), (MINUTE + 5, 70, 1, 0))
    assert tape.rows(0, 3, with_lost=True).trade_id.tolist() == [50, 52]
    (kline,) = klines(tape, MINUTE, 0, 1 << 60)
    assert (kline.low, kline.trades) == (70, 2)


def test_books_equal_a_recount_by_decimals() -> None:
    venue = binance(rate=2000.0)
    venue.run(3)
    books = Books({"binance": venue.exchange}, [])
    table = books.trades("binance", "BTC/USDT").to_pylist()
    assert [row["trade_id"] for row in table] == venue.ids("BTC/USDT")
    (kline,) = books.klines("binance", "BTC-USDT", "1d")
    assert kline["trade_count"] == len(table)
    assert Decimal(kline["open"]) == table[0]["price"]
    assert Decimal(kline["close"]) == table[-1]["price"]
    assert Decimal(kline["high"]) == max(row["price"] for row in table)
    assert Decimal(kline["low"]) == min(row["price"] for row in table)
    assert Decimal(kline["volume"]) == sum(row["quantity"] for row in table)
    assert Decimal(kline["quote_volume"]) == sum(row["price"] * row["quantity"] for row in table)
    bought = [row for row in table if row["side"] == "buy"]
    assert Decimal(kline["taker_buy_volume"]) == sum(row["quantity"] for row in bought)
    assert Decimal(kline["taker_buy_quote_volume"]) == sum(row["price"] * row["quantity"] for row in bought)


def test_ranges_of_ids() -> None:
    assert ranges(np.array([3, 4, 5, 9, 11, 12])) == [(3, 5), (9, 9), (11, 12)]
    assert ranges(np.array([], dtype=np.int64)) == []


@pytest.mark.parametrize("value", [1, 99_999_999, 2**53 + 1, 2**62])
def test_exact_columns_hold_large_numbers(value: int) -> None:
    tape = taped((1, value, value, 0))
    listing = tape.listing
    venue = binance()
    venue.exchange.tape.symbols[0] = tape
    (row,) = Books({"binance": venue.exchange}, []).trades("binance", "BTC/USDT").to_pylist()
    assert row["price"] == Decimal(value).scaleb(-listing.price_decimals)
    assert row["quantity"] == Decimal(value).scaleb(-listing.lot_decimals)
