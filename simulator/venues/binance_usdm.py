"""Binance USD-M futures: spot's protocol at other paths, with another order of keys and the execution type `X`.

    {"e":"trade","E":ms,"T":ms,"s":"BTCUSDT","t":id,"p":"61837.63","q":"0.020","X":"MARKET","m":true}

Source: Binance USD-M documentation, WebSocket market streams and market data endpoints; recordings by others, as described in
the platform's own decoder.
"""

from __future__ import annotations

from typing import Any

from simulator.block import IS_BUY, Rows
from simulator.venues.binance import Binance


class BinanceUsdm(Binance):
    """Binance USD-M futures."""

    name = "binance_usdm"
    lot_digits = 6
    messages = (10, 1.0)
    requests = (2400, 60.0)
    sockets = ("/market/ws", "/market/stream")
    api = "/fapi/v1/"
    width = 0
    most_rows = 500
    row_tail = "}"
    weights = {"historicalTrades": 20.0, "trades": 5.0, "klines": 5.0}  # noqa: RUF012 - declared as a class variable

    def event_texts(self, rows: Rows, unit: int) -> list[str]:
        """Return the events of trades; times in units of so many µs."""
        symbols = self.symbols
        return [
            f'{{"e":"trade","E":{(time + push) // unit},"T":{time // unit},"s":"{symbols[s]}","t":{number},"p":"{p}","q":"{q}",'
            f'"X":"MARKET","m":{"false" if flags & IS_BUY else "true"}}}'
            for s, number, time, push, p, q, flags in self.told(rows)
        ]

    def listed_as(self, code: int) -> dict[str, Any]:
        """Return what `exchangeInfo` says of a contract."""
        return super().listed_as(code) | {"contractType": "PERPETUAL"}
