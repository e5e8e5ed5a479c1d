"""Saved state: what it holds and what refuses it."""

from __future__ import annotations

import random
import struct

import pytest

from market import layout
from market.errors import SchemaMismatch
from market.instrument import Instrument, Instruments
from market.rules import Rules
from market.shard import Shard
from tests.shard_logs import (
    INSTRUMENTS,
    SECOND,
    START,
    SYMBOLS,
    Record,
    Store,
    batch_of,
    frame,
    marker,
    new_shard,
    random_log,
    reload,
    run,
    trade,
)


def load(data: bytes, *, exchange: str = "binance", partition: int = 3) -> Shard:
    return Shard.load(data, exchange=exchange, partition=partition, instruments=INSTRUMENTS, rules=Rules())


def test_new_state_can_be_saved_and_loaded() -> None:
    shard = reload(new_shard())
    assert shard.dump() == new_shard().dump()


def test_loaded_state_is_saved_as_it_was() -> None:
    shard = new_shard()
    shard.apply(*batch_of(random_log(random.Random(1), records=150), 0))
    data = shard.dump()
    assert load(data).dump() == load(load(data).dump()).dump()
    assert len(load(data).dump()) == len(data)


def test_state_says_what_it_is() -> None:
    data = new_shard().dump()
    assert data[:8] == b"K2SHARD\0"
    assert struct.unpack_from("<I", data, 8) == (2,)


@pytest.mark.parametrize("data", [b"", b"{}", b"\x80\x04" + bytes(50)])
def test_what_is_no_state_is_refused(data: bytes) -> None:
    with pytest.raises(SchemaMismatch, match="k2 recover"):
        load(data)


def test_unknown_version_names_the_way_out() -> None:
    data = bytearray(new_shard().dump())
    struct.pack_into("<I", data, 8, 1)
    with pytest.raises(SchemaMismatch, match=r"version 1, this program reads 2.*k2 recover"):
        load(bytes(data))


@pytest.mark.parametrize("where", [{"partition": 4}, {"exchange": "kraken"}])
def test_state_of_another_partition_is_refused(where: dict[str, object]) -> None:
    with pytest.raises(SchemaMismatch, match="binance/03"):
        load(new_shard().dump(), **where)  # type: ignore[arg-type]


def test_state_does_not_depend_on_the_order_of_the_instruments() -> None:
    log = random_log(random.Random(3), records=200)
    shuffled = Instruments("binance", tuple(reversed(INSTRUMENTS.listed)))
    straight, turned = run(log), Store()
    shard = new_shard()
    turned.take(shard.apply(*batch_of(log[:100], 0)))
    shard = reload(shard, instruments=shuffled)
    for offset in range(100, len(log)):
        batch, decoded = batch_of([log[offset]], offset)
        decoded.trades.symbol[:] = 2 - decoded.trades.symbol
        turned.take(shard.apply(batch, decoded))
    assert turned.gold == straight.gold
    assert turned.rows["silver_trades"] == straight.rows["silver_trades"]


def test_symbol_that_is_not_listed_for_a_while_keeps_its_state() -> None:
    shard = new_shard()
    shard.apply(*batch_of([marker(START, START + SECOND, (0, 1)), frame(trade(5, START + SECOND), symbol=1)], 0))
    without = Instruments("binance", (INSTRUMENTS.listed[0], Instrument("ADA/USDT", "ADAUSDT")))
    shard = reload(shard, instruments=without)
    shard.apply(*batch_of([marker(START + SECOND, START + 2 * SECOND, (0, 1))], 2))
    shard = reload(shard)
    outputs = shard.apply(*batch_of([frame(trade(5, START + SECOND), trade(7, START + 3 * SECOND), symbol=1)], 3))
    assert outputs[1].rows.column("trade_id").to_pylist() == ["7"]
    (row,) = outputs[2].rows.to_pylist()
    assert (row["canonical_symbol"], row["trade_count"]) == (SYMBOLS[1], 2)


def test_shorter_lateness_after_a_restart_closes_at_the_next_marker() -> None:
    shard, store = new_shard(Rules(lateness_us=100 * SECOND)), Store()
    store.take(shard.apply(*batch_of([marker(START - 1, START + 1), frame(trade(1, START + 1)), marker(START, START + 120 * SECOND)], 0)))
    shard = reload(shard, Rules(lateness_us=2 * SECOND, horizon_us=0))
    store.take(shard.apply(*batch_of([], 3)))
    row = store.candle()
    assert row is not None
    assert not row["is_closed"]
    store.take(shard.apply(*batch_of([marker(START + 120 * SECOND, START + 121 * SECOND)], 3)))
    row = store.candle()
    assert row is not None
    assert (row["is_closed"], row["is_complete"], row["revision"], row["source_offset"]) == (True, True, 0, 3)


def test_a_candle_that_is_born_closed_leaves_the_state_when_it_is_old() -> None:
    shard = new_shard(Rules(lateness_us=0, horizon_us=600 * SECOND))

    def starts(*records: Record) -> list[int]:
        shard.apply(*batch_of(records, 0))
        state = shard._book.state
        slot, found = int(state.symbols[0, layout.HEADS]), []
        while slot >= 0:
            found.append(int(state.candles[slot, layout.START]))
            slot = int(state.candles[slot, layout.NEXT])
        return found

    late = START + 60 * SECOND
    assert starts(marker(START - 1, START + 130 * SECOND), frame(trade(1, late))) == [late]
    assert starts(marker(START, START + 719 * SECOND)) == [late]
    assert starts(marker(START, START + 720 * SECOND)) == []
