"""Faults of what is sent: each takes the frames for a client and returns those that go out now.

Control frames (acknowledgements, heartbeats) are only ever late.
"""

from __future__ import annotations

import re
from random import Random
from typing import Final

from simulator.exchange import Exchange
from simulator.faults import FaultRecord
from simulator.session import Session
from simulator.wire import payload_of, text_frame

_IDS: Final = re.compile(rb'"(?:t|trade_id)":"?(\d+)')
_SYMBOL: Final = re.compile(rb'"(?:s|symbol|product_id)":"([^"]+)"')


class Delay:
    """Keeps what is sent back for a while, in order."""

    def __init__(self, record: FaultRecord, exchange: Exchange, random: Random) -> None:
        del exchange, random
        self._by = record.fault.number("by")
        self._control = record.fault.option("control") == "yes"

    def frames(self, session: Session, frames: list[bytes], now: float, *, is_control: bool) -> list[bytes]:
        """Return what is sent now."""
        if is_control and not self._control:
            return frames
        session.control_overtakes = not self._control
        session.hold(frames, now + self._by)
        return []


class Duplicate:
    """Sends frames of trades twice."""

    def __init__(self, record: FaultRecord, exchange: Exchange, random: Random) -> None:
        del exchange
        self._share, self._random = record.fault.number("share"), random

    def frames(self, session: Session, frames: list[bytes], now: float, *, is_control: bool) -> list[bytes]:
        """Return what is sent now."""
        del session, now
        if is_control:
            return frames
        return [copy for frame in frames for copy in ((frame, frame) if self._random.random() < self._share else (frame,))]


class Reorder:
    """Sends frames of trades in any order within a window."""

    def __init__(self, record: FaultRecord, exchange: Exchange, random: Random) -> None:
        del exchange
        self._window, self._random = record.fault.number("window"), random

    def frames(self, session: Session, frames: list[bytes], now: float, *, is_control: bool) -> list[bytes]:
        """Return what is sent now."""
        if is_control:
            return frames
        session.control_overtakes = True
        for frame in frames:
            session.hold_any_order(frame, now + self._random.random() * self._window)
        return []


class _Noted:
    """A fault of frames of trades, whose ids are noted."""

    def __init__(self, record: FaultRecord, exchange: Exchange, random: Random) -> None:
        self._record, self._exchange, self._random = record, exchange, random
        self._canonical = {symbol: tape.listing.canonical for symbol, tape in zip(exchange.symbols, exchange.tape.symbols, strict=True)}
        self._left = int(record.fault.number("count"))

    def _note(self, payload: bytes) -> None:
        ids, symbol = sorted(map(int, _IDS.findall(payload))), _SYMBOL.search(payload)
        if ids and symbol is not None:
            self._record.concern(self._canonical.get(symbol[1].decode(), symbol[1].decode()), ids[0], ids[-1])


class Missed(_Noted):
    """Keeps the next frames of trades from some clients."""

    def frames(self, session: Session, frames: list[bytes], now: float, *, is_control: bool) -> list[bytes]:
        """Return what is sent now."""
        del now
        if is_control or self._left == 0 or session.name not in self._record.connections:
            return frames
        missed = min(self._left, len(frames))
        self._left -= missed
        for frame in frames[:missed]:
            self._note(payload_of(frame))
            self._exchange.frames_lost(session)
        return frames[missed:]


class Malformed(_Noted):
    """Breaks the next frames of trades, whoever they go to."""

    def frames(self, session: Session, frames: list[bytes], now: float, *, is_control: bool) -> list[bytes]:
        """Return what is sent now."""
        del session, now
        if is_control or self._left == 0:
            return frames
        broken = min(self._left, len(frames))
        self._left -= broken
        return [self._broken(frame) for frame in frames[:broken]] + frames[broken:]

    def _broken(self, frame: bytes) -> bytes:
        payload = payload_of(frame)
        self._note(payload)
        how = self._record.fault.option("how")
        if how == "truncated" or (how == "both" and self._random.random() < 0.5):
            return text_frame(payload[: self._random.randint(1, len(payload) - 1)])
        return text_frame(self._random.choice((payload.replace(b'"', b"", 1), payload + b"}", payload.replace(b":", b":,", 1))))
