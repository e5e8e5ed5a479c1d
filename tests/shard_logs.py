"""Random logs of one partition, as batches for a shard and as records for the reference model."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal, getcontext
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from market import exact
from market.gold import keys_of_deltas, merge_changes
from market.instrument import Instrument, Instruments
from market.output import TableOutput
from market.record import RAW_SCHEMA, RawBatch
from market.rules import Rules
from market.schema import OHLCV
from market.shard import Shard
from market.trade import Decoded, TradeBatch
from tests.reference_model import Symbol

getcontext().prec = 100

SECOND = 1_000_000
MINUTE = 60 * SECOND
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
START = 1_723_161_300 * SECOND  # 2024-08-08 23:55, so that a log soon sees a new day
SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDC")
INSTRUMENTS = Instruments("binance", tuple(Instrument(s, s.replace("/", "")) for s in SYMBOLS))


@dataclass(frozen=True)
class Trade:
    id: int
    time: int
    price: Decimal
    quantity: Decimal
    is_buy: bool

    def for_model(self) -> dict[str, Any]:
        return {"id": self.id, "time": self.time, "p": self.price, "q": self.quantity, "side": "buy" if self.is_buy else "sell"}


@dataclass(frozen=True)
class Record:
    """A frame with trades of one symbol, or something else with its payload."""

    symbol: int = 0
    trades: tuple[Trade, ...] = ()
    kind: str | None = None
    payload: bytes = b"{}"
    received_us: int = 0
    marker: tuple[int, int, tuple[int, ...]] | None = None
    source: str | None = "live"
    snapshot: bool = False


def trade(number: int, time: int, price: str = "100", quantity: str = "1", *, is_buy: bool = True) -> Trade:
    return Trade(number, time, Decimal(price), Decimal(quantity), is_buy)


def frame(*trades: Trade, symbol: int = 0, received_us: int | None = None, **other: Any) -> Record:
    received = max((t.time for t in trades), default=START) if received_us is None else received_us
    return Record(symbol, tuple(trades), received_us=received, **other)


def marker(from_us: int, to_us: int, symbols: Sequence[int] = (0,), feed: str = "a") -> Record:
    body = {"feed": feed, "exchange": "binance", "from_us": from_us, "to_us": to_us, "symbols": [SYMBOLS[s] for s in symbols]}
    return Record(kind="marker", payload=json.dumps(body).encode(), received_us=to_us, marker=(from_us, to_us, tuple(symbols)))


def other(kind: str, body: Any, received_us: int = START) -> Record:
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Record(kind=kind, payload=payload, received_us=received_us)


def batch_of(records: Sequence[Record], first_offset: int, *, stride: int = 1) -> tuple[RawBatch, Decoded]:
    n = len(records)
    offsets = [first_offset + stride * k for k in range(n)]
    columns = {
        "offset": offsets,
        "append_us": [r.received_us for r in records],
        "key": ["" if r.kind else SYMBOLS[r.symbol].replace("/", "-") for r in records],
        "source": [r.source for r in records],
        "received_us": [r.received_us for r in records],
        "kind": [r.kind for r in records],
        "extra_headers": [None] * n,
        "payload": [r.payload for r in records],
    }
    rows = pa.RecordBatch.from_arrays([pa.array(columns[f.name], f.type) for f in RAW_SCHEMA], schema=RAW_SCHEMA)
    return RawBatch("binance", "raw.trades.binance", 3, "g1", first_offset + stride * n, rows), decoded_of(records)


def decoded_of(records: Sequence[Record]) -> Decoded:
    found = [(row, r, t) for row, r in enumerate(records) for t in r.trades]
    price = exact.from_decimals([t.price for *_, t in found])
    quantity = exact.from_decimals([t.quantity for *_, t in found])
    times = np.array([t.time for *_, t in found], np.int64)
    trades = TradeBatch(
        row=np.array([row for row, *_ in found], np.int32),
        symbol=np.array([r.symbol for _, r, _ in found], np.int32),
        trade_id=np.array([t.id for *_, t in found], np.int64),
        time_us=times,
        event_us=times + 1,
        is_buy=np.array([t.is_buy for *_, t in found], np.bool_),
        is_snapshot=np.array([r.snapshot for _, r, _ in found], np.bool_),
        price=price,
        quantity=quantity,
        quote_volume=exact.quote_volume(price, quantity),
    )
    return Decoded(trades, [], 0)


def new_shard(rules: Rules | None = None) -> Shard:
    return Shard(exchange="binance", partition=3, instruments=INSTRUMENTS, rules=rules or Rules())


def reload(shard: Shard, rules: Rules | None = None, instruments: Instruments = INSTRUMENTS) -> Shard:
    return Shard.load(shard.dump(), exchange="binance", partition=3, instruments=instruments, rules=rules or Rules())


@dataclass
class Store:
    """What sinks make of a shard's outputs."""

    gold: dict[str, pa.Table] = field(default_factory=dict)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def take(self, outputs: list[TableOutput]) -> None:
        for output in outputs:
            if output.table.startswith("ohlcv"):
                self._merge(output)
            else:
                self.rows.setdefault(output.table, []).extend(output.rows.to_pylist())

    def _merge(self, output: TableOutput) -> None:
        if len(output.rows) == 0:
            return
        table = self.gold.setdefault(output.table, {})
        wanted = [tuple(key.values()) for key in keys_of_deltas(output.rows).to_pylist()]
        stored = pa.RecordBatch.from_pylist([table[key] for key in wanted if key in table], schema=OHLCV["1m"].arrow_schema())
        for row in merge_changes(output.rows, stored).to_pylist():
            table[row["exchange"], row["canonical_symbol"], row["window_start"]] = row

    def candle(self, interval: str = "1m", *, start: int = START, symbol: int = 0) -> dict[str, Any] | None:
        return {(k[1], micros(k[2])): v for k, v in self.gold.get(f"ohlcv_{interval}", {}).items()}.get((SYMBOLS[symbol], start))


def micros(time: Any) -> int:
    return (time - EPOCH) // timedelta(microseconds=1)


def run(
    records: Sequence[Record], *, rules: Rules | None = None, cuts: Sequence[int] = (), first_offset: int = 0, reloads: bool = False
) -> Store:
    """Put a log through a shard, cut into batches at `cuts`."""
    shard, store = new_shard(rules), Store()
    edges = [0, *cuts, len(records)]
    for low, high in pairwise(edges):
        store.take(shard.apply(*batch_of(records[low:high], first_offset + low)))
        if reloads:
            shard = reload(shard, rules)
    return store


def expected(records: Sequence[Record], rules: Rules) -> list[Symbol]:
    """Put a log through the reference model."""
    models = [Symbol(rules.contiguous_ids, rules.lateness_us, rules.gap_grace_us) for _ in SYMBOLS]
    for offset, record in enumerate(records):
        if record.marker is not None:
            for symbol in record.marker[2]:
                models[symbol].record((3, offset), marker=record.marker[:2])
        elif record.trades:
            models[record.symbol].record((3, offset), [t.for_model() for t in record.trades])
    return models


_COMPARED = (
    "open_price", "high_price", "low_price", "close_price", "volume", "quote_volume", "trade_count", "taker_buy_volume",
    "taker_buy_quote_volume", "first_trade_id", "last_trade_id", "is_closed", "is_complete", "revision", "source_partition", "source_offset",
)  # fmt: skip


def compare(store: Store, models: list[Symbol], records: Sequence[Record]) -> None:
    """Compare every column of every newest row, the accepted trades and the gaps of now."""
    found = {
        (row["canonical_symbol"], table.removeprefix("ohlcv_"), micros(row["window_start"])): row
        for table, rows in store.gold.items()
        for row in rows.values()
    }
    wanted = {(SYMBOLS[s], *key): row for s, model in enumerate(models) for key, row in model.rows()}
    assert found.keys() == wanted.keys()
    for key, row in wanted.items():
        mine = {name: found[key][name] for name in _COMPARED}
        mine |= {name: int(mine[name]) for name in ("first_trade_id", "last_trade_id")}
        assert mine == row, key
        assert micros(found[key]["updated_at"]) == records[row["source_offset"]].received_us
    silver = sorted((r["canonical_symbol"], int(r["trade_id"]), r["source_offset"]) for r in store.rows.get("silver_trades", []))
    assert silver == sorted((SYMBOLS[s], number, cause[1]) for s, model in enumerate(models) for number, cause in model.silver)
    gaps = [(SYMBOLS[s], *gap) for s, model in enumerate(models) for gap in model.gaps()]
    assert sorted(holes_of_now(store)) == sorted(gaps)


def holes_of_now(store: Store) -> list[tuple[str, int, int, int, int]]:
    """Return the gaps of now by the ledger, parts of one hole put together again."""
    now = {(row["canonical_symbol"], row["first_id"], row["last_id"]): row for row in store.rows.get("trade_gaps", [])}
    holes: list[tuple[str, int, int, int, int]] = []
    for (symbol, first, last), row in sorted(now.items()):
        if row["state"] == "filled":
            continue
        times = micros(row["after_time"]), micros(row["before_time"])
        if holes and holes[-1][0] == symbol and holes[-1][2] == first - 1:
            assert holes[-1][3:] == times
            holes[-1] = (symbol, holes[-1][1], last, *times)
        else:
            holes.append((symbol, first, last, *times))
    return holes


def random_log(dice: random.Random, *, records: int, spread: int = 20, trouble: float = 0.3, jumping: bool = False) -> list[Record]:
    """A log with reordering, duplicates, losses, refills, markers of two feeds, holes in coverage, several symbols."""
    return list(_random_records(dice, records, spread, trouble, jumping=jumping))


def stretched(log: Sequence[Record], *, grid_us: int, factor: int) -> list[Record]:
    """The same log on a coarse time line, so that times meet window edges and each other, and on a longer one, over days."""

    def moved(time: int) -> int:
        return START + (time - START) // grid_us * grid_us * factor

    found = []
    for record in log:
        times = [moved(t) for t in record.marker[:2]] if record.marker else []
        if times and times[0] == times[1]:
            continue
        received = moved(record.received_us)
        if times and record.marker:
            body = json.loads(record.payload) | {"from_us": times[0], "to_us": times[1]}
            marked = (times[0], times[1], record.marker[2])
            record = replace(record, payload=json.dumps(body).encode(), marker=marked, received_us=max(received, times[1]))  # noqa: PLW2901
        trades = tuple(replace(t, time=moved(t.time)) for t in record.trades)
        found.append(replace(record, trades=trades, received_us=received if not times else record.received_us))
    return found


def _unfillable(dice: random.Random, symbol: int, next_id: int, now: int) -> Record:
    first = dice.randrange(max(0, next_id - 60), next_id + 5)
    last = first + dice.randrange(8)
    return other("unfillable", {"symbol": SYMBOLS[symbol], "first_id": first, "last_id": last, "reason": dice.choice("xy")}, now)


def _random_records(dice: random.Random, records: int, spread: int, trouble: float, *, jumping: bool) -> Iterator[Record]:
    now = START + dice.randrange(MINUTE)
    next_id = [dice.randrange(1, 1000) for _ in SYMBOLS]
    sent: list[list[Trade]] = [[] for _ in SYMBOLS]
    held: list[tuple[int, Trade]] = []  # to be sent later
    asserted = dict.fromkeys(range(len(SYMBOLS)), now)
    late_markers: list[Record] = []
    for _ in range(records):
        now += dice.randrange(1, spread * SECOND)
        roll = dice.random()
        s = min(int(dice.expovariate(1.0)), len(SYMBOLS) - 1)
        if roll < 0.45:
            burst = []
            for _ in range(dice.choice([1, 1, 1, 2, 5])):
                if jumping and dice.random() < 0.3:
                    next_id[s] += dice.randrange(5)
                at = now - (dice.randrange(spread * SECOND) if dice.random() < trouble / 3 else 0)
                t = Trade(
                    next_id[s],
                    at,
                    Decimal(dice.randrange(1, 10**6)).scaleb(-2),
                    Decimal(dice.randrange(1, 10**9)).scaleb(-9),
                    dice.random() < 0.5,
                )
                next_id[s] += 1
                sent[s].append(t)
                if dice.random() < trouble / 3:
                    held.append((s, t))
                else:
                    burst.append(t)
                now += dice.randrange(SECOND)
            if dice.random() < trouble:
                dice.shuffle(burst)
            if burst:
                yield frame(*burst, symbol=s, received_us=now)
        elif roll < 0.45 + trouble / 4 and sent[s]:
            again = dice.sample(sent[s], min(len(sent[s]), dice.choice([1, 3])))
            yield frame(*again, symbol=s, received_us=now)
        elif roll < 0.45 + trouble / 2 and held:
            dice.shuffle(held)
            s, t = held.pop()
            more = [x for x in held if x[0] == s][: dice.randrange(3)]
            held = [x for x in held if x not in more]
            yield frame(t, *(x for _, x in more), symbol=s, received_us=now)
        elif roll > 0.97:
            yield dice.choice([_unfillable(dice, s, next_id[s], now), other("event", {"kind": "connect"}, now), other("marker", b"{", now)])
        else:
            names = tuple(k for k in range(len(SYMBOLS)) if dice.random() < 0.8)
            to_us = now - dice.randrange(3 * SECOND)
            if dice.random() < trouble / 3:  # an outage: the assertion starts anew
                for k in names:
                    asserted[k] = max(asserted[k], to_us - dice.randrange(1, 3 * SECOND))
            by_start: dict[int, list[int]] = {}
            for k in names:
                if asserted[k] < to_us:
                    by_start.setdefault(asserted[k], []).append(k)
                    asserted[k] = to_us
            for from_us, symbols in by_start.items():
                made = marker(from_us, to_us, symbols)
                if dice.random() < trouble / 4:
                    late_markers.append(made)
                else:
                    yield made
            if dice.random() < trouble / 4:  # the other feed
                yield marker(to_us - dice.randrange(1, 3 * spread * SECOND), to_us + dice.randrange(SECOND), names, "b")
            if late_markers and dice.random() < trouble / 2:
                yield late_markers.pop(dice.randrange(len(late_markers)))
