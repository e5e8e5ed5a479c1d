from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from connectors.live.outgoing import Outgoing, by_partition, chunks_of
from connectors.refill.known_ids import KnownIds
from connectors.refill.topic_tail import read_tail
from connectors.topics.base import TopicLog
from connectors.topics.memory import MemoryTopics
from connectors.topics.sqlite import SqliteTopics
from connectors.venues.envelope import wrap
from connectors.venues.registry import VENUES, build_instruments
from market.instrument import partition_of
from tests import frames as f

BINANCE = VENUES["binance"]
LISTED = build_instruments("binance", ["BTC/USDT", "ETH/USDT", "XRP/USDT"])
TOPIC = "raw.trades.binance"
PARTITIONS = 2


@pytest.fixture(params=["memory", "sqlite"])
def log(request: pytest.FixtureRequest, tmp_path: object) -> Iterator[TopicLog]:
    found: TopicLog = MemoryTopics() if request.param == "memory" else SqliteTopics(f"sqlite:///{tmp_path}/topics.db")
    found.create(TOPIC, PARTITIONS)
    yield found
    found.close()


def live(symbol: str, *ids: int) -> list[Outgoing]:
    name = symbol.replace("/", "")
    return [Outgoing(symbol, f.binance_frame(name, i, "1", "1", f.NOW_MS + i), f.NOW_US) for i in ids]


def refill(symbol: str, *ids: int) -> Outgoing:
    page = [{"id": i, "price": "1", "qty": "1", "time": f.NOW_MS + i, "isBuyerMaker": True} for i in ids]
    return Outgoing(symbol, wrap("/x", symbol.replace("/", ""), json.dumps(page).encode()), f.NOW_US, source="refill")


def given_up(symbol: str, first: int, last: int) -> Outgoing:
    body = {"feed": "f", "exchange": "binance", "symbol": symbol, "first_id": first, "last_id": last, "reason": "not_at_venue"}
    return Outgoing(symbol, json.dumps(body).encode(), f.NOW_US, source="refill", kind="unfillable")


def write(log: TopicLog, records: Sequence[Outgoing]) -> None:
    for chunk in chunks_of(TOPIC, PARTITIONS, records):
        log.append(TOPIC, by_partition([chunk]))


def runs(known: KnownIds) -> list[tuple[int, int]]:
    return [(run.first, run.last) for run in known.runs]


def test_the_last_ids_of_every_symbol_are_found(log: TopicLog) -> None:
    write(log, [*live("BTC/USDT", *range(100, 200)), *live("ETH/USDT", 7, 8, 11)])
    tail = read_tail(log, BINANCE, LISTED)
    assert {symbol: runs(known) for symbol, known in tail.known.items()} == {"BTC/USDT": [(100, 199)], "ETH/USDT": [(7, 8), (11, 11)]}
    newest = tail.known["ETH/USDT"].newest
    assert newest is not None
    assert newest.last_time == (f.NOW_MS + 11) * 1000


def test_symbols_that_are_not_looked_for_are_left_out(log: TopicLog) -> None:
    write(log, [*live("BTC/USDT", 5), *live("ETH/USDT", 7)])
    assert list(read_tail(log, BINANCE, LISTED, {"ETH/USDT"}).known) == ["ETH/USDT"]
    assert read_tail(log, BINANCE, LISTED, ()).known == {}


def test_refills_and_what_was_given_up_count(log: TopicLog) -> None:
    bad = Outgoing("BTC/USDT", b"{}", f.NOW_US, kind="unfillable")
    write(log, [*live("BTC/USDT", 1, 2, 6, 10), refill("BTC/USDT", 3, 4), given_up("BTC/USDT", 7, 9), bad, given_up("XRP/USDT", 1, 2)])
    tail = read_tail(log, BINANCE, LISTED)
    assert runs(tail.known["BTC/USDT"]) == [(1, 4), (6, 6), (10, 10)]
    assert tail.given_up == {"BTC/USDT": [(7, 9)]}


def test_only_so_much_is_read_as_is_needed(log: TopicLog) -> None:
    write(log, [*live("BTC/USDT", *range(30_000, 60_000))])
    tail = read_tail(log, BINANCE, build_instruments("binance", ["BTC/USDT"]), at_least=6_000, at_least_us=0)
    assert runs(tail.known["BTC/USDT"]) == [(45_000, 59_999)]


def test_a_quiet_symbol_is_looked_for_up_to_the_bound(log: TopicLog) -> None:
    quiet = next(s for s in ("ETH/USDT", "XRP/USDT") if partition_of(s, PARTITIONS) == partition_of("BTC/USDT", PARTITIONS))
    write(log, [*live(quiet, 5), *live("BTC/USDT", *range(12_000))])
    listed = build_instruments("binance", ["BTC/USDT", quiet])
    found = read_tail(log, BINANCE, listed, at_least=10, at_least_us=0, at_most=20_000)
    assert runs(found.known[quiet]) == [(5, 5)]
    assert quiet not in read_tail(log, BINANCE, listed, at_least=10, at_least_us=0, at_most=5_000).known


def test_minutes_are_read_whole_however_many_records_they_are() -> None:
    moments = iter(range(0, 1_000_000_000, 30_000_000))
    log = MemoryTopics(now_us=lambda: next(moments))
    log.create(TOPIC, PARTITIONS)
    for start in range(0, 100_000, 5_000):
        write(log, live("BTC/USDT", *range(start, start + 5_000)))
    listed = build_instruments("binance", ["BTC/USDT"])
    assert runs(read_tail(log, BINANCE, listed, at_least=10).known["BTC/USDT"]) == [(65_000, 99_999)]


def test_a_search_for_some_symbols_reads_nothing_else(log: TopicLog) -> None:
    write(log, [*live("ETH/USDT", 5), given_up("ETH/USDT", 1, 2), *live("BTC/USDT", *range(12_000)), refill("ETH/USDT", 6)])
    tail = read_tail(log, BINANCE, LISTED, {"ETH/USDT", "XRP/USDT"}, at_least=0)
    assert {symbol: runs(known) for symbol, known in tail.known.items()} == {"ETH/USDT": [(5, 6)]}
    assert tail.given_up == {"ETH/USDT": [(1, 2)]}


def test_an_old_refill_near_the_end_makes_no_hole_of_what_was_left_unread(log: TopicLog) -> None:
    write(log, [*live("BTC/USDT", *range(1_000, 21_000)), refill("BTC/USDT", 500, 501), *live("BTC/USDT", 21_000, 21_003)])
    tail = read_tail(log, BINANCE, build_instruments("binance", ["BTC/USDT"]), at_least=10, at_least_us=0, at_most=5_000)
    assert runs(tail.known["BTC/USDT"]) == [(16_003, 21_000), (21_003, 21_003)]


def test_of_a_symbol_with_refills_alone_the_newest_run_is_known(log: TopicLog) -> None:
    write(log, [refill("BTC/USDT", 5, 6), refill("BTC/USDT", 50, 51)])
    assert runs(read_tail(log, BINANCE, LISTED).known["BTC/USDT"]) == [(50, 51)]


def test_frames_of_a_producer_that_names_no_source_are_live_ones(log: TopicLog) -> None:
    named, unnamed = live("BTC/USDT", 50), [replace(record, source=None) for record in live("BTC/USDT", 5)]
    write(log, [*unnamed, *named])
    assert runs(read_tail(log, BINANCE, LISTED).known["BTC/USDT"]) == [(5, 5), (50, 50)]


def test_there_is_no_tail_without_topic_or_contiguous_ids() -> None:
    log = MemoryTopics()
    assert read_tail(log, BINANCE, LISTED).known == {}
    log.create(TOPIC, PARTITIONS)
    assert read_tail(log, BINANCE, LISTED).known == {}
    write(log, live("BTC/USDT", 1))

    class Jumping(type(BINANCE)):  # type: ignore[misc]
        contiguous_ids = False

    assert read_tail(log, Jumping(), LISTED).known == {}


def test_records_that_expired_meanwhile_are_not_missed() -> None:
    class Expiring(MemoryTopics):
        def start_offsets(self, topic: str) -> list[int]:
            found = super().start_offsets(topic)
            self.expire(topic, {partition_of("BTC/USDT", PARTITIONS): 6_000}, 1 << 62)
            return found

    log = Expiring()
    log.create(TOPIC, PARTITIONS)
    for start in range(0, 12_000, 1_000):
        write(log, live("BTC/USDT", *range(start, start + 1_000)))
    assert runs(read_tail(log, BINANCE, build_instruments("binance", ["BTC/USDT"])).known["BTC/USDT"]) == [(7_000, 11_999)]
