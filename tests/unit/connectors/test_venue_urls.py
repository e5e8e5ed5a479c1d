from __future__ import annotations

import pytest

from connectors.live.venue_urls import rest_url, websocket_url


def test_venues_themselves_are_asked_without_a_stand_in() -> None:
    assert websocket_url("wss://ws.example/v2", "kraken") == "wss://ws.example/v2"
    assert rest_url("https://api.example", "kraken") == "https://api.example"


@pytest.mark.parametrize(("base", "ws", "http"), [("http://127.0.0.1:9100", "ws", "http"), ("https://proxy.example", "wss", "https")])
def test_stand_in_gets_exchange_path_and_query(base: str, ws: str, http: str) -> None:
    host = base.partition("://")[2]
    assert websocket_url("wss://stream.example:9443/stream?x=1", "binance", base) == f"{ws}://{host}/binance/stream?x=1"
    assert rest_url("https://api.example/api/v3", "binance", base) == f"{http}://{host}/binance/api/v3"
    assert rest_url("https://api.example", "binance", base) == f"{http}://{host}/binance"
