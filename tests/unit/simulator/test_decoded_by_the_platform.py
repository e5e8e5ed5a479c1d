"""What the simulator says, read by the decoders that read the venues: two implementations of one protocol."""

from __future__ import annotations

import json
from typing import Any

import pytest

from connectors.venues.registry import VENUES, build_instruments
from market.instrument import Instruments
from simulator.books import Books
from simulator.exchange import Conditions
from simulator.faults import parse_fault
from tests.decoding import rows
from tests.recorded import decode_frames
from tests.unit.simulator.venue_double import Client, Venue

RELAXED = Conditions(enforces_limits=False)
SYMBOLS = {
    "binance": ("BTC/USDT", "DOGE/USDT", "SOL/USDT"),
    "binance_usdm": ("BTC/USDT", "DOGE/USDT"),
    "kraken": ("BTC/USD", "DOGE/USD", "SOL/USD"),
    "coinbase": ("BTC/USD", "DOGE/USD", "SOL/USD"),
}


def connected(name: str, venue: Venue) -> Client:
    symbols = SYMBOLS[name]
    if name.startswith("binance"):
        client = venue.connect("/ws" if name == "binance" else "/market/ws")
        client.say({"method": "SUBSCRIBE", "params": [f"{s.replace('/', '').lower()}@trade" for s in symbols], "id": 1})
    elif name == "kraken":
        client = venue.connect("/v2")
        client.say({"method": "subscribe", "params": {"channel": "trade", "symbol": list(symbols), "snapshot": True}, "req_id": 1})
    else:
        client = venue.connect("/")
        client.say({"type": "subscribe", "product_ids": [s.replace("/", "-") for s in symbols], "channel": "market_trades"})
        client.say({"type": "subscribe", "channel": "heartbeats"})
    return client


def decoded(name: str, instruments: Instruments, texts: list[str]) -> dict[str, dict[int, tuple[Any, ...]]]:
    """Decode frames as a feed writes them: one record a symbol; returns trades by symbol and id."""
    router = VENUES[name].router()
    records = [(text.encode(), symbol) for text in texts for symbol in router.symbols_in(text.encode(), instruments) or [""]]
    result = decode_frames(name, instruments, [frame for frame, _ in records], [symbol.replace("/", "-") for _, symbol in records])
    assert result.rejected == []
    found: dict[str, dict[int, tuple[Any, ...]]] = {symbol: {} for symbol in SYMBOLS[name]}
    for row in rows(result.trades):
        trade = row["time_us"], row["price"], row["quantity"], "buy" if row["is_buy"] else "sell"
        before = found[instruments.listed[row["symbol"]].canonical].setdefault(row["trade_id"], trade)
        assert before == trade
    return found


@pytest.mark.parametrize("name", sorted(SYMBOLS))
def test_every_trade_is_read_as_it_is_in_the_books(name: str) -> None:
    faults = tuple(parse_fault(f"{text}:exchange={name}") for text in ("snapshot@1", "repeat@1.5", "duplicate@2:seconds=1"))
    venue = Venue(name, symbols=SYMBOLS[name], rate=1500.0, conditions=RELAXED, trades=4500, faults=faults)
    client = connected(name, venue)
    venue.run(4.5)
    instruments = build_instruments(name, list(SYMBOLS[name]))
    found = decoded(name, instruments, client.texts())
    books = Books({name: venue.exchange}, [])
    for symbol in SYMBOLS[name]:
        table = books.trades(name, symbol).to_pylist()
        assert found[symbol] == {row["trade_id"]: (row["timestamp"], row["price"], row["quantity"], row["side"]) for row in table}
        assert len(table) > 1000


@pytest.mark.parametrize("name", sorted(SYMBOLS))
def test_subscriptions_are_understood(name: str) -> None:
    venue = Venue(name, symbols=SYMBOLS[name], rate=100.0, conditions=RELAXED)
    instruments = build_instruments(name, list(SYMBOLS[name]))
    path = VENUES[name].feed.websocket_url.split("/", 3)[3:]  # type: ignore[union-attr]
    client = venue.connect("/" + "".join(path) if path else "/")
    wanted = VENUES[name].subscriptions(instruments.listed, 1)
    for subscription in wanted:
        client.say(subscription.message)
    assert client.session.wanted == len(SYMBOLS[name])
    notices = [VENUES[name].notice(text.encode()) for text in client.texts()]
    told = {symbol for notice in notices if notice is not None for symbol in notice.symbols}
    requests = {notice.request for notice in notices if notice is not None}
    assert told == {one.venue_symbol for one in instruments.listed} or requests >= {s.request for s in wanted}
    for subscription in VENUES[name].unsubscriptions(instruments.listed, 9):
        client.say(subscription.message)
    assert client.session.wanted == 0
    client.texts()
    client.say(json.dumps({"nonsense": True}))
    assert client.texts()
