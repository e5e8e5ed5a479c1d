"""Bybit v5 linear contracts (settled in USDT or USDC): the spot layouts at another address, with ids that are UUIDs.

    {"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":ms,"data":[
      {"T":ms,"s":"BTCUSDT","S":"Sell","v":"0.004","p":"65114.20","L":"MinusTick","i":"a9188a0a-82bc-50de-be60-03eedbe3cdd7",
       "BT":false,"RPI":false,"seq":753843954913},…]}

A UUID says nothing of order: of trades in the same ms, the first and the last of a candle are those with the least and the
greatest id. `seq` repeats within one taker order.

Source: as `bybit`; recording in tests/data/bybit.
"""

from __future__ import annotations

from dataclasses import replace

from connectors.venues.bybit import Bybit


class BybitLinear(Bybit):
    """Bybit linear contracts, listed as `BTC/USDT`, their own instruments beside those of spot."""

    exchange = "bybit_linear"
    layout = replace(Bybit.layout, ids_are_uuids=True)
    feed = replace(Bybit.feed, websocket_url="wss://stream.bybit.com/v5/public/linear")
