"""Where feeds connect to: the venues, or what stands in for all of them (setting `venues_url`)."""

from __future__ import annotations

from urllib.parse import urlsplit


def websocket_url(own: str, exchange: str, venues_url: str = "") -> str:
    """Return a venue's WebSocket: `wss://host/path?query`, or `ws://stand-in/exchange/path?query`."""
    return _moved(own, exchange, venues_url, {"http": "ws", "https": "wss"})


def rest_url(own: str, exchange: str, venues_url: str = "") -> str:
    """Return a venue's REST base: `https://host/path`, or `http://stand-in/exchange/path`."""
    return _moved(own, exchange, venues_url, {})


def _moved(own: str, exchange: str, venues_url: str, schemes: dict[str, str]) -> str:
    if not venues_url:
        return own
    base, parts = urlsplit(venues_url), urlsplit(own)
    return parts._replace(scheme=schemes.get(base.scheme, base.scheme), netloc=base.netloc, path=f"/{exchange}{parts.path}").geturl()
