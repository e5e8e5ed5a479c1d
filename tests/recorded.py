"""Recordings of several connections through a venue as a feed would route them, and what every venue's tests ask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from connectors.files.capture import read_chunks
from connectors.venues.base import Router
from connectors.venues.registry import VENUES
from market.instrument import Instruments
from market.record import RawBatch
from market.trade import Decoded
from tests import frames as f
from tests.decoding import assert_accounted, decode_slowly, rows


@dataclass(frozen=True, slots=True)
class Recorded:
    """One frame: which connection it came from, when, and the keys it is written under."""

    connection: int
    received_us: int
    payload: bytes
    symbols: list[str]


def recording_of(exchange: str) -> Path:
    """The venue's recording; that of Bybit has both its markets."""
    (path,) = (f.DATA / exchange.removesuffix("_linear")).glob("*.gz")
    return path


def recorded(exchange: str, instruments: Instruments) -> list[Recorded]:
    """Every frame of the venue's recording, routed."""
    routers: dict[int, Router] = {}
    found = []
    for chunk in read_chunks(recording_of(exchange)):
        for time, payload, connection in zip(chunk.receive_us, chunk.payloads, chunk.connections, strict=True):
            assert time is not None
            router = routers.setdefault(connection, VENUES[exchange].router())
            found.append(Recorded(connection, time, payload, router.symbols_in(payload, instruments)))
    return found


def decode(exchange: str, instruments: Instruments, frames: Sequence[Recorded]) -> Decoded:
    """Decode recorded frames with scanner and reader, which must agree, and see every frame accounted for."""
    records = [(one.payload, symbol.replace("/", "-"), one.received_us) for one in frames for symbol in one.symbols or [""]]
    payloads, keys, times = (list(column) for column in zip(*records, strict=True))
    batch = f.raw_batch(exchange, payloads, keys, received_us=times)
    return both_ways(exchange, batch, instruments)


def decode_frames(exchange: str, instruments: Instruments, frames: Sequence[bytes], keys: str | Sequence[str]) -> Decoded:
    """Decode frames with scanner and reader, which must agree."""
    return both_ways(exchange, f.raw_batch(exchange, frames, keys), instruments)


def both_ways(exchange: str, batch: RawBatch, instruments: Instruments) -> Decoded:
    """Decode a batch with scanner and reader, which must agree."""
    venue = VENUES[exchange]
    decoded, slow = venue.decode(batch, instruments), decode_slowly(venue, batch, instruments)
    assert_accounted(decoded, len(batch.records))
    assert rows(decoded.trades) == rows(slow.trades)
    assert (decoded.rejected, decoded.control_frames) == (slow.rejected, slow.control_frames)
    return decoded
