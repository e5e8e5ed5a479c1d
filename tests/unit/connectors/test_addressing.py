from __future__ import annotations

import json
from typing import Any

import pytest

from connectors.live.addressing import Addressing, Arrivals
from connectors.venues.base import Router
from connectors.venues.registry import build_instruments, venue
from market.instrument import Instruments, partition_of

PARTITIONS = 4
LISTED = ["BTC/USDT", "ETH/USDT", "SOL/USDT"]


def binance(symbol: str, number: int = 1, stream: str = "trade") -> bytes:
    body = {"e": stream, "E": 1, "s": symbol, ("t" if stream == "trade" else "a"): number, "p": "1", "q": "1", "T": 1, "m": True}
    return json.dumps(body, separators=(",", ":")).encode()


def kraken(*symbols: str) -> bytes:
    trades = [{"symbol": s, "side": "sell", "price": 1.1, "qty": 0.5, "trade_id": 7, "timestamp": "2026-01-01T00:00:00Z"} for s in symbols]
    return json.dumps({"channel": "trade", "type": "update", "data": trades}, separators=(",", ":")).encode()


def arrivals(exchange: str, *frames: bytes, router: Router | None = None) -> Arrivals:
    return Arrivals(router or venue(exchange).router(), list(frames), list(range(1, len(frames) + 1)), set())


def rows(exchange: str, *frames: bytes, listed: list[str] = LISTED) -> list[dict[str, Any]]:
    addressing = Addressing(venue(exchange), build_instruments(exchange, listed), PARTITIONS)
    found: list[dict[str, Any]] = addressing.addressed([arrivals(exchange, *frames)]).records.to_pylist()
    return found


def test_frame_goes_verbatim_to_the_partition_of_its_symbol() -> None:
    frames = [binance("ETHUSDT"), b'{"stream":"btcusdt@trade","data":' + binance("BTCUSDT") + b"}"]
    assert rows("binance", *frames) == [
        {
            "partition": partition_of(symbol, PARTITIONS),
            "key": symbol.replace("/", "-"),
            "source": "live",
            "received_us": at,
            "kind": None,
            "extra_headers": None,
            "payload": frame,
        }
        for at, (symbol, frame) in enumerate(zip(("ETH/USDT", "BTC/USDT"), frames, strict=True), 1)
    ]


@pytest.mark.parametrize(
    "frame", [b'{"result":null,"id":1}', b"", b"\xff", b"{", binance("XRPUSDT"), binance("BTCUSDT", stream="aggTrade"), b'{"e":"trade",']
)
def test_frame_of_no_listed_symbol_has_no_key_and_goes_to_partition_0(frame: bytes) -> None:
    (row,) = rows("binance", frame)
    assert (row["partition"], row["key"], row["payload"]) == (0, "", frame)


@pytest.mark.parametrize("spelled", [b'{"e": "trade", "s": "BTCUSDT"}', b'{"e":"trade","s":"\\u0042TCUSDT"}'])
def test_layouts_that_bytes_leave_open_are_parsed(spelled: bytes) -> None:
    (row,) = rows("binance", spelled)
    assert row["key"] == "BTC-USDT"


def test_frame_of_several_symbols_is_there_once_for_each() -> None:
    both = kraken("BTC/USDT", "ETH/USDT", "BTC/USDT")
    found = rows("kraken", kraken("SOL/USDT"), both, kraken("BTC/USDT"))
    assert [r["key"] for r in found] == ["SOL-USDT", "BTC-USDT", "ETH-USDT", "BTC-USDT"]
    assert [r["received_us"] for r in found] == [1, 2, 2, 3]
    assert [r["payload"] for r in found][1:3] == [both, both]


def test_ack_that_names_a_symbol_is_no_trade_frame() -> None:
    ack = b'{"method":"subscribe","result":{"channel":"trade","symbol":"BTC/USDT"},"success":true}'
    (row,) = rows("kraken", ack)
    assert row["key"] == ""


def test_more_frames_than_any_constant_are_addressed() -> None:
    found = rows("binance", *(binance("BTCUSDT", n) for n in range(10_000)))
    assert len(found) == 10_000
    assert {r["source"] for r in found} == {"live"}


class ByOrder:
    """A venue whose frames do not name their symbol: the connection knows."""

    def symbols_in(self, frame: bytes, instruments: Instruments) -> list[str]:
        return [frame.decode()] if frame.decode() in instruments.by_canonical else []


def test_routers_of_connections_are_asked_for_all_their_frames() -> None:
    addressing = Addressing(venue("binance"), build_instruments("binance", LISTED), PARTITIONS)
    both = [arrivals("binance", binance("BTCUSDT")), arrivals("binance", b"SOL/USDT", binance("BTCUSDT"), router=ByOrder())]
    assert addressing.addressed(both).records.column("key").to_pylist() == ["BTC-USDT", "SOL-USDT", ""]
