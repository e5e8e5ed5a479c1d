"""A listener that remembers what the driver said, and fails when the driver breaks its contract."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from market.instrument import Instrument


@dataclass
class Told:
    """What was said about one connection."""

    instruments: tuple[str, ...]
    frames: list[bytes] = field(default_factory=list)
    confirmed: dict[str, int] = field(default_factory=dict)  # now, and the number of frames before
    ended: list[tuple[str, str]] = field(default_factory=list)
    proofs: int = 0
    last_us: int = 0
    lost: str | None = None


class Recorder:
    """Implements `connectors.sockets.listener.Listener`."""

    def __init__(self) -> None:
        self.connections: dict[str, Told] = {}
        self.bursts: list[int] = []
        self.has_room = asyncio.Event()
        self.has_room.set()

    @property
    def asserted(self) -> list[str]:
        """Symbols asserted now, by any connection, sorted; twice if two assert one."""
        return sorted(symbol for told in self.connections.values() for symbol in told.confirmed)

    @property
    def open(self) -> list[str]:
        return [name for name, told in self.connections.items() if told.lost is None]

    @property
    def frames(self) -> list[bytes]:
        return [frame for told in self.connections.values() for frame in told.frames]

    def connected(self, connection: str, instruments: Sequence[Instrument], at_us: int) -> None:
        assert connection not in self.connections, "a connection's name came twice"
        self.connections[connection] = Told(tuple(i.canonical for i in instruments), last_us=at_us)

    def received(self, connection: str, frames: list[bytes], at_us: list[int]) -> None:
        assert frames
        assert len(frames) == len(at_us)
        told = self._told(connection, at_us[0])
        assert at_us == sorted(at_us)
        told.last_us = at_us[-1]
        told.frames += frames
        self.bursts.append(len(frames))

    def alive(self, connection: str, at_us: int) -> None:
        self._told(connection, at_us).proofs += 1

    def confirmed(self, connection: str, symbols: Sequence[str], at_us: int) -> None:
        told = self._told(connection, at_us)
        for symbol in symbols:
            assert symbol not in told.confirmed, f"{symbol} was confirmed twice"
            told.confirmed[symbol] = len(told.frames)

    def ended(self, connection: str, symbols: Sequence[str], at_us: int, reason: str) -> None:
        told = self._told(connection, at_us)
        assert symbols
        assert reason
        for symbol in symbols:
            told.confirmed.pop(symbol, None)
            told.ended.append((symbol, reason))

    def disconnected(self, connection: str, at_us: int, reason: str) -> None:
        told = self._told(connection, at_us)
        assert reason
        told.lost = reason
        told.confirmed.clear()

    async def room(self) -> None:
        await self.has_room.wait()

    def _told(self, connection: str, at_us: int) -> Told:
        told = self.connections[connection]
        assert told.lost is None, "something came after the end"
        assert at_us >= told.last_us, "time went backwards"
        told.last_us = at_us
        return told
