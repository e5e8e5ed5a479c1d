"""Damaged frames: nothing crashes, everything is accounted for, the scanners agree with the reader, neighbours are unharmed."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from functools import partial
from itertools import islice, pairwise

import pytest

from connectors.venues.registry import VENUES, build_instruments
from tests import frames as f
from tests.decoding import Row, assert_accounted, decode_slowly, rejects, rows
from tests.mutations import mutated
from tests.table_frames import TABLE_MAKERS, recorded_frames

ENTRIES = {
    "binance": ["BTC/USDT", "ETH/USDT", {"symbol": "XRP/ETH", "stream": "aggTrade"}],
    "binance_usdm": ["BTC/USDT", "ETH/USDT"],
    "kraken": ["BTC/USD", "ETH/USD"],
    "coinbase": ["BTC/USD", "ETH/USD"],
    **{exchange: ["BTC/USD", "ETH/USD"] for exchange in TABLE_MAKERS},
}
BATCH = 500
_WRAPPED = re.compile(rb'{"stream":"[^"]*","data":')
Made = tuple[bytes, str]  # frame, key


def _price(rng: random.Random) -> str:
    return f"{rng.uniform(0.0001, 90_000):.{rng.choice((1, 2, 8))}f}".lstrip() if rng.random() < 0.9 else str(rng.randint(1, 10**9))


def _binance(rng: random.Random) -> Made:
    symbol = rng.choice(("BTCUSDT", "ETHUSDT", "XRPETH"))
    make = f.binance_agg_frame if symbol == "XRPETH" else f.binance_frame
    frame = make(
        symbol,
        rng.randrange(10**10),
        _price(rng),
        _price(rng),
        f.NOW_MS - rng.randrange(9999),
        rng.random() < 0.5,
        combined=rng.random() < 0.5,
    )
    return frame, {"BTCUSDT": "BTC-USDT", "ETHUSDT": "ETH-USDT", "XRPETH": "XRP-ETH"}[symbol]


def _usdm(rng: random.Random) -> Made:
    symbol = rng.choice(("BTCUSDT", "ETHUSDT"))
    kind = "MARKET" if rng.random() < 0.9 else rng.choice(("ADL", "INSURANCE_FUND", "NA"))
    return f.usdm_frame(symbol, rng.randrange(10**10), _price(rng), _price(rng), kind=kind), f"{symbol[:3]}-USDT"


def _several(rng: random.Random, separator: str) -> tuple[list[f.T], str]:
    base = rng.choice(("BTC", "ETH"))
    trades = []
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        name = base if rng.random() < 0.95 else rng.choice(("BTC", "ETH"))
        time = f.NOW_US - rng.randrange(10**7)
        trades.append(f.T(f"{name}{separator}USD", rng.randrange(10**10), _price(rng), _price(rng), time, rng.random() < 0.5))
    return trades, f"{base}-USD"


def _kraken(rng: random.Random) -> Made:
    trades, key = _several(rng, "/")
    return f.kraken_frame(trades, kind=rng.choice(("update", "update", "snapshot")), ord_type=rng.choice(("limit", "market"))), key


def _coinbase(rng: random.Random) -> Made:
    trades, key = _several(rng, "-")
    return f.coinbase_frame(trades, kind=rng.choice(("update", "update", "snapshot")), client=rng.random() < 0.2), key


def _table(exchange: str, rng: random.Random) -> Made:
    trades, key = _several(rng, "")
    make = TABLE_MAKERS[exchange]
    return make(trades, rng), key


MAKERS: dict[str, Callable[[random.Random], Made]] = {
    "binance": _binance,
    "binance_usdm": _usdm,
    "kraken": _kraken,
    "coinbase": _coinbase,
    **{exchange: partial(_table, exchange) for exchange in TABLE_MAKERS},
}
RECORDED = {
    "binance": lambda: f.recorded_binance(300),
    "binance_usdm": lambda: f.recorded_binance(300),
    "kraken": f.recorded_kraken,
    "coinbase": lambda: ((t, frame) for t, frame in f.recorded_coinbase() if len(frame) < 1000),
    **{exchange: partial(recorded_frames, exchange) for exchange in TABLE_MAKERS},
}


def _without_row(row: Row) -> Row:
    return {name: value for name, value in row.items() if name != "row"}


def fuzz(exchange: str, frames: int, seed: int) -> None:
    rng = random.Random(f"{exchange}/{seed}")
    venue, instruments = VENUES[exchange], build_instruments(exchange, ENTRIES[exchange])
    others = [frame for _, frame in islice(RECORDED[exchange](), 300)]
    skipped = bytes(venue.other_channels.data).rstrip(b"\0")
    starts = venue.other_channels.starts.tolist()
    beginnings = tuple(skipped[a:b] for a, b in pairwise(starts))
    for _ in range(frames // BATCH):
        made = [MAKERS[exchange](rng) for _ in range(BATCH // 5)]
        clean = f.raw_batch(exchange, [frame for frame, _ in made], [key for _, key in made])
        expected = venue.decode(clean, instruments)
        assert_accounted(expected, len(made))
        batch, keys, places = [], [], []
        for frame, key in made:
            for _ in range(4):
                base = rng.choice(others) if rng.random() < 0.1 else frame
                batch.append(mutated(base, rng))
                keys.append(key if rng.random() < 0.95 else rng.choice(("", "XYZ-USD", *instruments.by_key)))
            places.append(len(batch))
            batch.append(frame)
            keys.append(key)
        raw = f.raw_batch(exchange, batch, keys)
        decoded, slow = venue.decode(raw, instruments), decode_slowly(venue, raw, instruments)
        assert_accounted(decoded, len(batch))
        assert rows(decoded.trades) == rows(slow.trades)
        # A damaged frame of another channel may count as one of that channel or be rejected.
        other = {row for row, frame in enumerate(batch) if _is_other(frame, beginnings)}
        assert [r for r in rejects(decoded) if r[0] not in other] == [r for r in rejects(slow) if r[0] not in other]
        untouched = dict(zip(places, range(len(made)), strict=True))
        kept = [{**r, "row": untouched[r["row"]]} for r in rows(decoded.trades) if r["row"] in untouched]
        assert kept == rows(expected.trades)


def _is_other(frame: bytes, beginnings: tuple[bytes, ...]) -> bool:
    wrapped = _WRAPPED.match(frame)
    return frame[wrapped.end() if wrapped else 0 :].startswith(beginnings)


@pytest.mark.parametrize("exchange", list(MAKERS))
def test_damaged_frames_are_accounted_for_and_hurt_no_neighbour(exchange: str) -> None:
    fuzz(exchange, 30_000, seed=1)


@pytest.mark.prove
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("exchange", list(MAKERS))
def test_a_million_damaged_frames(exchange: str) -> None:
    fuzz(exchange, 1_000_000, seed=2)
