"""The simulator's books: every trade it made, the candles of those trades, what went wrong when. The oracle of tests.

    /books/state                                              the clock, what was traded, who is connected
    /books/faults                                             each fault: when, whom, which trade ids
    /books/events                                             connections that came and went
    /books/instruments                                        what is listed, in the form of config/instruments.yaml
    /books/trades?exchange=&symbol=[&format=arrow]            every trade of a symbol, ascending by id
    /books/klines?exchange=&symbol=&interval=[&obtainable=1]  its candles, exact; obtainable: without lost trades

Of windows without a trade there is no candle here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import pyarrow as pa

from simulator.block import IS_BUY, LOST, Ints, Rows
from simulator.exchange import Exchange
from simulator.faults import FaultRecord
from simulator.http import Reply, Request, json_reply
from simulator.klines import Kline, klines
from simulator.tape import SymbolTape
from simulator.text import padded

INTERVALS_US: Final = {"1m": 60, "5m": 300, "15m": 900, "30m": 1800, "1h": 3600, "1d": 86_400}
_EVER_US: Final = 1 << 62
_SCALE: Final = 18  # decimals of exact columns
_EXACT: Final = pa.decimal128(38, _SCALE)


class Books:
    """What the simulator knows of itself. Answers are of this moment."""

    def __init__(self, exchanges: Mapping[str, Exchange], faults: Sequence[FaultRecord]) -> None:
        self._exchanges = exchanges
        self._faults = faults

    def symbols(self, exchange: str) -> list[str]:
        """Return the canonical symbols of an exchange."""
        return [tape.listing.canonical for tape in self._exchanges[exchange].tape.symbols]

    def trades(self, exchange: str, symbol: str) -> pa.Table:
        """Return the released trades of a symbol, ascending by id.

        Shape: trade_id int64, timestamp int64 (epoch µs, the venue's clock), price and quantity decimal128(38, 18),
        side (the taker's: buy, sell), lost bool: no client was sent it and REST does not know it.
        """
        tape = self._tape(exchange, symbol)
        rows = tape.rows(0, tape.released, with_lost=True)
        return pa.table(
            {
                "trade_id": rows.trade_id,
                "timestamp": rows.time_us,
                "price": _exact(rows.price, tape.listing.price_decimals),
                "quantity": _exact(rows.quantity, tape.listing.lot_decimals),
                "side": pa.DictionaryArray.from_arrays(pa.array((rows.flags & IS_BUY).astype(np.int8)), pa.array(["sell", "buy"])).cast(
                    pa.string()
                ),
                "lost": pa.array((rows.flags & LOST) != 0),
            }
        )

    def klines(self, exchange: str, symbol: str, interval: str, *, obtainable: bool = False) -> list[dict[str, Any]]:
        """Return the candles of a symbol, ascending; prices and volumes as exact decimal text.

        `obtainable`: folded without the trades that are lost, which no client can have.
        """
        tape = self._tape(exchange, symbol)
        found = klines(tape, INTERVALS_US[interval] * 1_000_000, 0, _EVER_US, with_lost=not obtainable)
        return [_shown(tape, kline) for kline in found]

    def lost(self, exchange: str, symbol: str) -> list[tuple[int, int]]:
        """Return the ranges of ids that cannot be had, both ends included."""
        tape = self._tape(exchange, symbol)
        rows = tape.rows(0, tape.released, with_lost=True)
        return ranges(rows.trade_id[(rows.flags & LOST) != 0])

    def faults(self) -> list[dict[str, Any]]:
        """Return what went wrong, in the order it began."""
        return [record.shown() for record in self._faults]

    def events(self) -> list[dict[str, Any]]:
        """Return what happened to connections, by run time."""
        return sorted((asdict(event) for e in self._exchanges.values() for event in e.events), key=lambda event: event["at_us"])

    def state(self) -> dict[str, Any]:
        """Return the clock, ids and connections of now."""
        exchanges = self._exchanges.values()
        clock = next(iter(exchanges)).clock
        return {
            "start_us": clock.start_us,
            "now_us": clock.now_us(),
            "speed": clock.speed,
            "running_seconds": clock.running_seconds(),
            "from_us": clock.from_us,
            "halt_us": clock.halt_us,
            "has_ended": all(exchange.has_ended for exchange in exchanges),
            "released": sum(exchange.released for exchange in exchanges),
            "exchanges": {name: exchange.state() for name, exchange in self._exchanges.items()},
        }

    def instruments(self) -> str:
        """Return what is listed as an instruments file."""
        lines: list[str] = []
        for name in self._exchanges:
            lines += [f"{name}:", *(f"  - {symbol}" for symbol in self.symbols(name))]
        return "\n".join(lines) + "\n"

    def answer(self, request: Request) -> Reply:
        """Answer a request below /books."""
        pages: dict[str, Callable[[], Reply]] = {
            "/books/state": lambda: json_reply(self.state()),
            "/books/faults": lambda: json_reply(self.faults()),
            "/books/events": lambda: json_reply(self.events()),
            "/books/instruments": lambda: Reply(200, self.instruments().encode(), kind="application/yaml"),
            "/books/trades": lambda: self._trades_page(request.query),
            "/books/klines": lambda: self._klines_page(request.query),
        }
        if request.path not in pages:
            return json_reply({"error": f"no such page; there are {', '.join(sorted(pages))}"}, 404)
        try:
            return pages[request.path]()
        except KeyError as error:
            return json_reply({"error": f"missing or unknown: {error}"}, 400)

    def _trades_page(self, query: Mapping[str, str]) -> Reply:
        exchange, symbol = query["exchange"], query["symbol"]
        if query.get("format") == "arrow":
            table = self.trades(exchange, symbol)
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
            return Reply(200, sink.getvalue().to_pybytes(), kind="application/vnd.apache.arrow.stream")
        tape = self._tape(exchange, symbol)
        rows = tape.rows(0, tape.released, with_lost=True)
        return Reply(200, "".join(_lines(tape, rows)).encode(), kind="application/x-ndjson")

    def _klines_page(self, query: Mapping[str, str]) -> Reply:
        obtainable = query.get("obtainable", "") in ("1", "true")
        rows = self.klines(query["exchange"], query["symbol"], query["interval"], obtainable=obtainable)
        return Reply(200, "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows).encode(), kind="application/x-ndjson")

    def _tape(self, exchange: str, symbol: str) -> SymbolTape:
        for tape in self._exchanges[exchange].tape.symbols:
            if symbol in (tape.listing.canonical, tape.listing.canonical.replace("/", "-")):
                return tape
        raise KeyError(symbol)


def ranges(ids: Ints) -> list[tuple[int, int]]:
    """Return ascending ids as ranges, both ends included."""
    firsts = np.flatnonzero(np.diff(ids, prepend=ids[:1] - 2) != 1)
    lasts = np.append(firsts[1:], len(ids)) - 1
    return list(zip(ids[firsts].tolist(), ids[lasts].tolist(), strict=True)) if len(ids) else []


def _lines(tape: SymbolTape, rows: Rows) -> list[str]:
    price, lot = tape.listing.price_decimals, tape.listing.lot_decimals
    values = (getattr(rows, name).tolist() for name in ("trade_id", "time_us", "price", "quantity", "flags"))
    return [
        f'{{"trade_id":{number},"timestamp":{time},"price":"{padded(p, price)}","quantity":"{padded(q, lot)}",'
        f'"side":"{"buy" if flags & IS_BUY else "sell"}","lost":{"true" if flags & LOST else "false"}}}\n'
        for number, time, p, q, flags in zip(*values, strict=True)
    ]


def _shown(tape: SymbolTape, kline: Kline) -> dict[str, Any]:
    price, lot = tape.listing.price_decimals, tape.listing.lot_decimals
    return {
        "window_start": kline.start_us,
        **{name: padded(getattr(kline, name), price) for name in ("open", "high", "low", "close")},
        "volume": padded(kline.quantity, lot),
        "quote_volume": padded(kline.quote, price + lot),
        "trade_count": kline.trades,
        "taker_buy_volume": padded(kline.buy_quantity, lot),
        "taker_buy_quote_volume": padded(kline.buy_quote, price + lot),
    }


def _exact(values: Ints, decimals: int) -> pa.Array:
    # 64 × 64 → 128 bits by halves of 32: the mantissa times what brings it to 18 decimals.
    factor = 10 ** (_SCALE - decimals)
    mask = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    a = values.astype(np.uint64)
    a1, a0 = a >> shift, a & mask
    f1, f0 = np.uint64(factor >> 32), np.uint64(factor & 0xFFFFFFFF)
    low, cross1, cross2 = a0 * f0, a1 * f0, a0 * f1
    middle = (low >> shift) + (cross1 & mask) + (cross2 & mask)
    halves = np.empty((len(values), 2), dtype=np.uint64)
    halves[:, 0] = (low & mask) | (middle << shift)
    halves[:, 1] = a1 * f1 + (cross1 >> shift) + (cross2 >> shift) + (middle >> shift)
    return pa.Array.from_buffers(_EXACT, len(values), [None, pa.py_buffer(halves)])
