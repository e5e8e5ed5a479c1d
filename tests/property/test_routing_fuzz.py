"""Damaged frames on their way into the topic: nothing crashes, and bytes say the same as parsing wherever they say anything."""

from __future__ import annotations

import random

import numpy as np
import orjson
import pytest

from connectors.live.addressing import Addressing, Arrivals
from connectors.live.feed import Feed
from connectors.live.feed_metrics import FeedCounts
from connectors.live.outgoing import Chunk
from connectors.venues.registry import VENUES, build_instruments
from connectors.venues.routing import UNSURE
from tests.mutations import mutated
from tests.property.test_decoders_fuzz import ENTRIES, MAKERS

FRAMES = 2_000


def damaged(exchange: str, seed: int) -> list[bytes]:
    """Frames of a venue, half of them damaged, and a few that are nothing."""
    rng = random.Random(f"{exchange}{seed}")
    made = [MAKERS[exchange](rng)[0] for _ in range(FRAMES)]
    frames = [mutated(frame, rng) if rng.random() < 0.5 else frame for frame in made]
    return [
        *frames,
        b"",
        b"\0",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"1",
        b'"',
        b"{" * 2_000,
        b"[" * 2_000 + b"]" * 2_000,
        b'{"stream":"',
        *glances(exchange),
    ]


def glances(exchange: str) -> list[bytes]:
    """Frames that look like trades to a quick glance and are none."""
    return [b"[%s]" % mark for mark in VENUES[exchange].trade_marks] + [b'{"x":%s}' % mark for mark in VENUES[exchange].trade_marks]


@pytest.mark.parametrize("exchange", list(ENTRIES))
def test_bytes_and_parsing_agree_on_readable_frames(exchange: str) -> None:
    one, instruments = VENUES[exchange], build_instruments(exchange, ENTRIES[exchange])
    frames = damaged(exchange, 1)
    starts = np.cumsum([0, *map(len, frames)]).astype(np.int32)
    starts.flags.writeable = False
    codes = one.route_codes(np.frombuffer(b"".join(frames), np.uint8), starts, instruments).tolist()
    for frame, code in zip(frames, codes, strict=True):
        if code != UNSURE and is_json(frame):
            found = one.symbols_in(frame, instruments)
            # A frame whose trades cannot be read is a dead letter under any key.
            assert found in ([instruments.listed[code].canonical], []), frame
    assert exchange not in {"binance", "kraken", "coinbase"} or sum(code >= 0 for code in codes) > FRAMES / 3


def is_json(frame: bytes) -> bool:
    try:
        orjson.loads(frame)
    except orjson.JSONDecodeError:
        return False
    return True


class Box:
    """Takes what a feed puts."""

    def __init__(self) -> None:
        self.records = 0

    def put(self, chunk: Chunk) -> None:
        self.records += chunk.records.num_rows


@pytest.mark.parametrize("exchange", list(ENTRIES))
def test_a_feed_takes_any_frame(exchange: str) -> None:
    now_us, box, counts = 1_767_225_700_000_000, Box(), FeedCounts()
    instruments = build_instruments(exchange, ENTRIES[exchange])
    feed = Feed(VENUES[exchange], instruments, 4, box, now_us=lambda: now_us, counts=counts)  # type: ignore[arg-type]
    frames = damaged(exchange, 2)
    feed.connected("c", instruments.listed, now_us)
    feed.received("c", frames, [now_us] * len(frames))
    feed.flush()
    feed.mark()
    assert box.records >= len(frames) + 1
    assert counts.messages == len(frames)


@pytest.mark.parametrize("exchange", list(ENTRIES))
def test_every_frame_is_kept_as_it_came(exchange: str) -> None:
    frames = damaged(exchange, 3)
    addressing = Addressing(VENUES[exchange], build_instruments(exchange, ENTRIES[exchange]), 4)
    arrivals = Arrivals(VENUES[exchange].router(), frames, list(range(len(frames))), set())
    records = addressing.addressed([arrivals]).records
    first_of_each = dict(zip(records.column("received_us").to_pylist(), records.column("payload").to_pylist(), strict=True))
    assert list(first_of_each.values()) == frames
