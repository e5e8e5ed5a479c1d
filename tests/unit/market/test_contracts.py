"""The shapes that parts exchange: they travel between processes and name things the same way everywhere."""

from __future__ import annotations

import pickle

import pyarrow as pa
import pytest

from market.columns import int64_view
from market.errors import Refused, SinkUnavailable
from market.instrument import Instrument, partition_of
from market.interval import BY_NAME
from market.record import shard_key, topic_name
from market.schema import OHLCV, SILVER_TRADES, bronze_table
from tests.shard_logs import INSTRUMENTS, START, batch_of, frame, marker, new_shard, trade


def test_raw_batch_travels_without_its_parent() -> None:
    batch, _ = batch_of([frame(trade(k, START), payload=b"x" * 1000) for k in range(100)], 0)
    part = type(batch)(batch.exchange, batch.topic, batch.partition, batch.generation, batch.next_offset, batch.records.slice(3, 2))
    data = pickle.dumps(part)
    assert len(data) < 5_000
    assert pickle.loads(data) == part


def test_table_output_travels_as_it_is() -> None:
    for output in new_shard().apply(*batch_of([frame(trade(1, START)), marker(START, START + 1)], 0)):
        assert pickle.loads(pickle.dumps(output)) == output


def test_partitions_are_named_by_exchange_and_number() -> None:
    batch, _ = batch_of([], 0)
    assert batch.shard == shard_key("binance", 3) == "binance/03"
    assert topic_name("binance") == "raw.trades.binance"


def test_partition_of_a_symbol_never_changes() -> None:
    assert [partition_of(symbol, 4) for symbol in ("BTC/USDT", "ETH/USDT", "SOL/USDC", "XRP/USD")] == [3, 1, 0, 0]


def test_instruments_are_found_by_every_name() -> None:
    assert len(INSTRUMENTS) == 3
    assert (INSTRUMENTS.by_canonical["ETH/USDT"], INSTRUMENTS.by_venue_symbol["ETHUSDT"], INSTRUMENTS.by_key["ETH-USDT"]) == (1, 1, 1)
    assert Instrument("BTC/USD", "XBTUSD").key == "BTC-USD"


def test_windows_begin_at_multiples_of_their_length() -> None:
    assert BY_NAME["5m"].window_start(START + 299_999_999) == START
    assert BY_NAME["1d"].window_start(START) % 86_400_000_000 == 0


def test_payload_is_kept_cold_only() -> None:
    table = bronze_table("kraken")
    assert "payload" in table.arrow_schema().names
    assert "payload" not in table.arrow_schema(warm=True).names
    assert (table.cold_name, OHLCV["1h"].cold_name, SILVER_TRADES.cold_name) == ("bronze_trades_kraken", "gold_ohlcv_1h", "silver_trades")


def test_errors_say_how_to_react() -> None:
    assert SinkUnavailable("down", retry_after=2.5).retry_after == 2.5
    assert Refused.exit_code == 3


def test_columns_with_nulls_are_no_numbers() -> None:
    with pytest.raises(TypeError):
        int64_view(pa.array([1, None]))
