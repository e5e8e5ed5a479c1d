"""What is listed may change while a flow runs: nothing of a new symbol is lost, nothing of an old one either."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
from structlog.testing import capture_logs

from config.settings import Settings
from connectors.instruments import load_instruments
from connectors.venues.registry import venue
from dataflows.listing import Listing
from dataflows.stages import ShardStage, VenueSetup
from market.record import RAW_SCHEMA, RawBatch
from market.rules import Rules
from market.schema import DEAD_LETTERS, SILVER_TRADES

TIME_MS = 1_700_000_000_000


def frame(symbol: str, number: int) -> bytes:
    at = TIME_MS + number
    return (f'{{"e":"trade","E":{at},"s":"{symbol}","t":{number},"p":"1.00000000","q":"2.00000000","T":{at},"m":true,"M":true}}').encode()


def batch(first: int, *keys: str) -> RawBatch:
    rows = [
        {
            "offset": first + k,
            "append_us": TIME_MS * 1000,
            "key": key,
            "source": "live",
            "received_us": TIME_MS * 1000,
            "kind": None,
            "extra_headers": None,
            "payload": frame(key.replace("-", ""), first + k),
        }
        for k, key in enumerate(keys)
    ]
    records = pa.RecordBatch.from_pylist(rows, schema=RAW_SCHEMA)
    return RawBatch("binance", "raw.trades.binance", 0, "g", first + len(keys), records)


class Flow:
    """Decoder and shard over an instruments file."""

    def __init__(self, file: Path, *symbols: str) -> None:
        self.file = file
        self.list(*symbols)
        settings = Settings(instruments=file)
        self.listing = Listing(file, lambda: {e: VenueSetup(venue(e), found, Rules()) for e, found in load_instruments(settings).items()})
        self.stage = ShardStage(self.listing.setups, None)

    def list(self, *symbols: str) -> None:
        new = self.file.with_suffix(".new")
        new.write_text("binance:\n" + "".join(f"  - {symbol}\n" for symbol in symbols))
        new.replace(self.file)

    def take(self, raw: RawBatch) -> tuple[list[tuple[str, str]], list[str]]:
        """Return what silver got (symbol, id) and the reasons of dead letters."""
        rows = {output.table: pl.DataFrame(output.rows) for output in self.stage.apply(self.listing.decode(raw))}
        return rows[SILVER_TRADES.name].select("canonical_symbol", "trade_id").rows(), rows[DEAD_LETTERS.name]["reason"].to_list()


def test_a_symbol_that_was_listed_before_its_first_trade_is_taken_in(tmp_path: Path) -> None:
    flow = Flow(tmp_path / "instruments.yaml", "BTC/USDT")
    assert flow.take(batch(1, "BTC-USDT", "ETH-USDT")) == ([("BTC/USDT", "1")], ["unknown_symbol"])
    flow.list("ETH/USDT", "BTC/USDT")
    assert flow.take(batch(3, "BTC-USDT", "ETH-USDT")) == ([("BTC/USDT", "3"), ("ETH/USDT", "4")], [])
    assert flow.take(batch(3, "BTC-USDT", "ETH-USDT")) == ([], []), "what was accepted before the change is known after it"


def test_a_symbol_that_was_taken_off_the_list_is_taken_in_until_the_flow_starts_again(tmp_path: Path) -> None:
    flow = Flow(tmp_path / "instruments.yaml", "BTC/USDT", "ETH/USDT")
    flow.list("ETH/USDT")
    assert flow.take(batch(1, "BTC-USDT", "ETH-USDT")) == ([("BTC/USDT", "1"), ("ETH/USDT", "2")], [])
    assert Flow(flow.file, "ETH/USDT").take(batch(1, "BTC-USDT"))[1] == ["unknown_symbol"]


def test_a_list_with_a_mistake_changes_nothing(tmp_path: Path) -> None:
    flow = Flow(tmp_path / "instruments.yaml", "BTC/USDT")
    flow.list("BTC/USDX")
    assert flow.take(batch(1, "BTC-USDT"))[0] == [("BTC/USDT", "1")]
    flow.file.unlink()
    assert flow.take(batch(2, "BTC-USDT"))[0] == [("BTC/USDT", "2")]
    flow.list("BTC/USDT", "ETH/USDT")
    assert flow.take(batch(3, "ETH-USDT"))[0] == [("ETH/USDT", "3")]


def test_list_that_changes_a_symbols_stream_changes_nothing(tmp_path: Path) -> None:
    flow = Flow(tmp_path / "instruments.yaml", "BTC/USDT")
    flow.list("{symbol: BTC/USDT, stream: aggTrade}", "ETH/USDT")
    with capture_logs() as logs:
        assert flow.take(batch(1, "BTC-USDT", "ETH-USDT")) == ([("BTC/USDT", "1")], ["unknown_symbol"])
    assert [entry["event"] for entry in logs] == ["instruments_refused"]
    assert "stream aggTrade, but what is stored of it is trade" in logs[0]["reason"]
