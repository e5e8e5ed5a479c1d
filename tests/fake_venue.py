"""A venue whose frames say plainly what they are, for tests of what stands between files and topics."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from market.instrument import Instrument, Instruments

LISTED = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT", "ADA/USDT")
INSTRUMENTS = Instruments("binance", tuple(Instrument(s, s.replace("/", "")) for s in LISTED))


def trade_frame(times: Mapping[str, Sequence[int]], *, snapshot: bool = False) -> bytes:
    """A frame with trades at these event times (µs) by canonical symbol."""
    return json.dumps({"snapshot": snapshot, "trades": {s: list(t) for s, t in times.items()}}).encode()


def ack_frame(*symbols: str) -> bytes:
    """A frame that confirms the trade subscription of these symbols."""
    return json.dumps({"ack": symbols}).encode()


HEARTBEAT = b'{"heartbeat": 1}'


def _read(frame: bytes) -> dict[str, Any]:
    try:
        found = json.loads(frame)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


class FakeVenue:
    """Reads the frames above."""

    replays_last = False

    def router(self) -> FakeVenue:
        return self

    def symbols_in(self, frame: bytes, instruments: Instruments) -> list[str]:
        return [s for s in _read(frame).get("trades", {}) if s in instruments.by_canonical]

    def confirmed_by(self, frame: bytes, instruments: Instruments) -> list[str]:
        return [s for s in _read(frame).get("ack", []) if s in instruments.by_canonical]

    def event_times(self, frame: bytes) -> list[int]:
        found = _read(frame)
        return [] if found.get("snapshot") else [t for times in found.get("trades", {}).values() for t in times]
