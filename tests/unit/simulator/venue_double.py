"""A simulated venue without a network: sockets that remember, a clock that is told the time."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from simulator.clock import Clock
from simulator.exchange import Conditions, Exchange
from simulator.faults import Fault, FaultRecord
from simulator.generator import Generator
from simulator.http import Request
from simulator.injection import Injector
from simulator.listing import listing_of
from simulator.session import Session
from simulator.venues.registry import VENUES

START_US = 1_767_000_000_000_000


@dataclass
class Socket:
    """Remembers what it was told."""

    data: bytearray = field(default_factory=bytearray)
    ended: list[str] = field(default_factory=list)
    pings: int = 0
    is_frozen: bool = False

    def write(self, data: bytes) -> None:
        self.data += data

    def waiting(self) -> int:
        return 0

    def ping(self, payload: bytes) -> None:
        assert payload
        self.pings += 1

    def close(self, code: int, reason: str = "") -> None:
        self.ended.append(f"{code} {reason}")

    def reset(self) -> None:
        self.ended.append("reset")

    def freeze(self) -> None:
        self.is_frozen = True


def frames_of(data: bytes) -> list[tuple[int, bytes]]:
    """Take server frames apart: (first byte, payload)."""
    found, at = [], 0
    while at < len(data):
        length, head = data[at + 1], 2
        if length == 126:
            length, head = int.from_bytes(data[at + 2 : at + 4], "big"), 4
        elif length == 127:
            length, head = int.from_bytes(data[at + 2 : at + 10], "big"), 10
        found.append((data[at], bytes(data[at + head : at + head + length])))
        at += head + length
    assert at == len(data)
    return found


@dataclass
class Client:
    """One client of the venue."""

    exchange: Exchange
    session: Session
    socket: Socket

    def say(self, document: Any) -> None:
        self.exchange.received(self.session, document if isinstance(document, str) else json.dumps(document))

    def texts(self) -> list[str]:
        """Return what came since the last call."""
        found = [payload.decode() for _, payload in frames_of(bytes(self.socket.data))]
        self.socket.data.clear()
        return found

    def heard(self) -> list[Any]:
        return [json.loads(text) for text in self.texts()]


class Venue:
    """A venue, its clock and its faults, moved by hand."""

    def __init__(
        self,
        name: str,
        *,
        symbols: tuple[str, ...] = ("BTC/USD", "ETH/USD"),
        rate: float = 400.0,
        seed: int = 1,
        trades: int | None = None,
        faults: tuple[Fault, ...] = (),
        conditions: Conditions | None = None,
        quiet: int = 0,
    ) -> None:
        self.now = 100.0
        self.clock = Clock(START_US, 1.0, lambda: self.now)
        kind = VENUES[name]
        listings = [
            listing_of(s, n, lot_digits=kind.lot_digits, weight=1.0, is_quiet=n >= len(symbols) - quiet) for n, s in enumerate(symbols)
        ]
        source = Generator(name, listings, seed=seed, rate=rate, trades=trades)
        self.exchange = kind(source, self.clock, conditions or Conditions())
        self.records: list[FaultRecord] = []
        self.injector = Injector({name: self.exchange}, faults, seed=seed, records=self.records)

    def connect(self, path: str, **query: str) -> Client:
        socket = Socket()
        session = self.exchange.connect(Request("GET", path, query, {}), path, socket)
        assert isinstance(session, Session), session
        self.exchange.started(session)
        return Client(self.exchange, session, socket)

    def run(self, seconds: float, *, tick: float = 0.01) -> None:
        """Let time pass."""
        for _ in range(round(seconds / tick)):
            self.now += tick
            self.injector.begin(self.clock.run_us())
            self.exchange.advance()
            self.injector.finish(self.clock.run_us())

    def rest(self, path: str, **query: str) -> Any:
        """Return the JSON of a REST answer with status 200."""
        reply = self.exchange.answer(path, query)
        assert reply.status == 200, reply
        return json.loads(reply.body)

    def ids(self, symbol: str) -> list[int]:
        """Return the ids of everything that was traded."""
        tape = next(tape for tape in self.exchange.tape.symbols if tape.listing.canonical == symbol)
        return list(range(tape.first_id, tape.first_id + tape.released))


def binance(**options: Any) -> Venue:
    return Venue("binance", **{"symbols": ("BTC/USDT", "ETH/USDT")} | options)
