from __future__ import annotations

import csv
import gzip
import json
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest

from market.errors import ConfigError
from simulator.block import Rows
from simulator.clock import Clock
from simulator.exchange import Conditions, Exchange
from simulator.klines import klines
from simulator.recording import Recording
from simulator.venues.binance import Binance
from simulator.venues.coinbase import Coinbase
from simulator.venues.kraken import Kraken
from simulator.venues.registry import VENUES
from simulator.wire import payload_of

DATA = Path(__file__).parents[2] / "data"
FILES = {
    "binance": ("btcusdt_20240808.gz", "btcusdt_20240809.gz"),
    "kraken": ("live-btc-eth_20260707.ndjson.gz",),
    "coinbase": ("COINBASE_part1.jsonl.gz",),
}


def replayed(name: str, *, blocks: int | None = None, once: bool = True) -> tuple[Exchange, list[Rows]]:
    recording = Recording([DATA / name / file for file in FILES[name]], VENUES[name].recorded, once=once)
    exchange = VENUES[name](recording, Clock(recording.first_us, 1.0, lambda: 0.0), Conditions())
    rows: list[Rows] = []
    while (block := recording.next_block()) is not None and (blocks is None or blocks > 0):
        rows.append(exchange.tape.add(block, exchange._times(block), exchange.resolution_us))
        exchange.tape.release(block.symbol)
        blocks = None if blocks is None else blocks - 1
    return exchange, [part for part in rows if len(part)]


def lines(name: str) -> list[str]:
    return [line for file in FILES[name] for line in gzip.open(DATA / name / file, "rt").read().splitlines()]


def test_binance_frames_are_those_that_were_recorded() -> None:
    exchange, rows = replayed("binance")
    assert isinstance(exchange, Binance)
    told = [payload_of(frame).decode() for part in rows for frame in exchange.frames(part, combined=True)]
    assert told == [line.partition(" ")[2] for line in lines("binance") if '"btcusdt@trade"' in line]


def test_kraken_frames_are_those_that_were_recorded() -> None:
    exchange, rows = replayed("kraken")
    assert isinstance(exchange, Kraken)
    told = [payload_of(frame).decode() for part in rows for frame in exchange.frames(part)[0]]
    assert told == [line for line in lines("kraken") if line.startswith('{"channel":"trade"')]


def test_coinbase_trades_are_those_that_were_recorded() -> None:
    exchange, rows = replayed("coinbase")
    assert isinstance(exchange, Coinbase)
    told = {text for part in rows for text in exchange._told(part)}
    frames = [json.loads(line)["data"] for line in lines("coinbase") if '"recv"' in line]
    recorded = {
        json.dumps(trade, separators=(",", ":"))
        for frame in frames
        if frame.startswith('{"channel":"market_trades"')
        for event in json.loads(frame)["events"]
        for trade in event["trades"]
    }
    assert told == recorded
    assert len(told) == 256


def test_candles_of_recorded_trades_are_the_venues_own() -> None:
    exchange, _ = replayed("binance")
    assert isinstance(exchange, Binance)
    tape = exchange.tape.symbols[0]
    path = DATA / "binance" / "BTCUSDT-5m-20240808T2340_20240809T0020_official_rows.csv"
    official = {int(row[0]): row for row in csv.reader(path.read_text().splitlines())}
    whole = [kline for kline in klines(tape, 300_000_000, 0, 1 << 60) if kline.start_us in (1723161300000000, 1723161600000000)]
    assert len(whole) == 2
    for kline in whole:
        row = json.loads(exchange.kline_row(tape, kline, 300_000_000))
        wanted = official[kline.start_us // 1000]
        assert [Decimal(value) for value in row[:11]] == [Decimal(value) for value in wanted[:11]]


def test_a_recording_starts_over_with_ids_that_go_on() -> None:
    exchange, rows = replayed("kraken", once=False, blocks=250)
    tape = exchange.tape.symbols[1]
    ids = [number for part in rows for number in part.trade_id[part.symbol == 1].tolist()]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert len(ids) > 2 * 12
    assert tape.last_time_us > 0
    times = [time for part in rows for time in part.time_us[part.symbol == 1].tolist()]
    assert times == sorted(times)


def test_ids_that_were_not_recorded_are_no_trades(tmp_path: Path) -> None:
    frame = '{"e":"trade","E":%d,"s":"BTCUSDT","t":%d,"p":"1.50000000","q":"2.00000000","T":%d,"m":false,"M":true}'
    texts = [frame % (1000 + n, n, 1000 + n) for n in (5, 6, 9)]
    path = tmp_path / "frames.ndjson"
    path.write_text("\n".join(['{"e":"kline"}', "no frame", *texts, texts[0]]) + "\n")
    recording = Recording([path], Binance.recorded, once=True)
    exchange = Binance(recording, Clock(0, 1.0, lambda: 0.0), Conditions())
    block = recording.next_block()
    assert block is not None
    exchange.tape.add(block, exchange._times(block), 1000)
    exchange.tape.release(block.symbol)
    tape = exchange.tape.symbols[0]
    assert tape.rows(0, 99, with_lost=True).trade_id.tolist() == [5, 6, 9]
    assert exchange.state()["symbols"]["BTC/USDT"]["next_id"] == 10


def test_files_without_trades_are_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text("{}\n")
    with pytest.raises(ConfigError, match="no trade of this venue"):
        Recording([empty], Binance.recorded, once=True)
    with pytest.raises(ConfigError, match="No such file"):
        Recording([tmp_path / "missing"], Binance.recorded, once=True)
    damaged = tmp_path / "damaged.gz"
    damaged.write_bytes((DATA / "kraken" / FILES["kraken"][0]).read_bytes()[:2000])
    with pytest.raises(ConfigError, match=r"damaged\.gz"):
        Recording([damaged], Kraken.recorded, once=True)
    strange = tmp_path / "strange"
    strange.write_text('{"e":"trade","s":"BTCUSDT"}\n')
    with pytest.raises(ConfigError, match="cannot be read"):
        Recording([strange], Binance.recorded, once=True)
    two = tmp_path / "two"
    frame = '{"e":"trade","E":1,"s":"BTCUSDT","t":%d,"p":"1.5","q":"2.0","T":1,"m":false}'
    two.write_text(frame % 1 + "\n" + frame % 10_000_000 + "\n")
    with pytest.raises(ConfigError, match="two recordings"):
        Recording([two], Binance.recorded, once=True)


def test_recordings_start_over_together() -> None:
    kraken, coinbase = (
        Recording([DATA / name / file for file in FILES[name]], VENUES[name].recorded, once=False) for name in ("kraken", "coinbase")
    )
    longest = coinbase.span_us
    assert kraken.span_us < longest
    for recording in (kraken, coinbase):
        recording.start_over_with([kraken, coinbase])
        assert recording.span_us == longest
    exchange = Kraken(kraken, Clock(kraken.first_us, 1.0, lambda: 0.0), Conditions())
    starts: list[int] = []
    while len(starts) < 3 and (block := kraken.next_block()) is not None:
        starts += block.run_us[block.order % kraken._orders == 0].tolist()[:1]
        exchange.tape.add(block, exchange._times(block), 1)
    assert [b - a for a, b in pairwise(starts)] == [longest, longest]
