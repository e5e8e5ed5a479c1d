from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from connectors.live.delays import Bounds
from connectors.live.feed import FLUSH_FRAMES, Feed
from connectors.live.feed_metrics import FeedCounts
from connectors.live.outbox import Outbox
from connectors.live.outgoing import Outgoing
from connectors.live.spill import Spill
from connectors.venues.registry import build_instruments, venue
from market.trade import Int64s
from tests.feeding import TOPIC, Topics

T0 = 1_700_000_000_000_000
SECOND = 1_000_000
BTC, ETH = "BTC/USDT", "ETH/USDT"


def frame(symbol: str, number: int, at_us: int) -> bytes:
    at = T0 + at_us
    body = {"e": "trade", "E": at, "s": symbol.replace("/", ""), "t": number, "p": "1.0", "q": "1.0", "T": at, "m": True, "M": True}
    return json.dumps(body, separators=(",", ":")).encode()


class Refills:
    def __init__(self) -> None:
        self.seen: list[tuple[str, list[int], list[int]]] = []
        self.subscribed: list[str] = []

    def observed(self, symbol: str, ids: Int64s, times: Int64s) -> None:
        self.seen.append((symbol, ids.tolist(), (times - T0).tolist()))

    def reconnected(self, symbols: Sequence[str]) -> None:
        self.subscribed += symbols


class Rig:
    """A feed of one partition over a topic in memory; times count from `T0`."""

    def __init__(self, folder: Path, listed: Sequence[str] = (BTC, ETH), exchange: str = "binance") -> None:
        self.at = 10 * SECOND  # long after the first trade
        self.topics = Topics(partitions=1, topics=(TOPIC.replace("binance", exchange),))
        self.outbox = Outbox(self.topics, Spill(folder))
        self.refills = Refills()
        self.counts = FeedCounts()
        self.woken = 0
        self.instruments = build_instruments(exchange, listed)
        self.feed = Feed(
            venue(exchange),
            self.instruments,
            1,
            self.outbox,
            now_us=lambda: T0 + self.at,
            counts=self.counts,
            wake=self.wake,
            refills=self.refills,
        )

    def wake(self) -> None:
        self.woken += 1

    def connect(self, name: str = "c", *, at: int = 0) -> None:
        self.feed.connected(name, self.instruments.listed, T0 + at)

    def confirm(self, *symbols: str, at: int, name: str = "c") -> None:
        self.feed.confirmed(name, symbols, T0 + at)

    def trade(self, number: int, event: int, received: int, symbol: str = BTC, name: str = "c") -> None:
        self.feed.received(name, [frame(symbol, number, event)], [T0 + received])

    def rows(self) -> list[dict[str, Any]]:
        while self.outbox.write_once():
            pass
        return self.topics.rows(self.feed.topic)

    def markers(self) -> list[tuple[int, int, list[str]]]:
        found = [json.loads(r["payload"]) for r in self.rows() if r["kind"] == "marker"]
        return [(m["from_us"] - T0, m["to_us"] - T0, m["symbols"]) for m in found]

    def events(self) -> list[tuple[str, list[str], str]]:
        found = [json.loads(r["payload"]) for r in self.rows() if r["kind"] == "event"]
        return [(e["kind"], e["symbols"], e["detail"]) for e in found]


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_frames_wait_for_the_flush_and_keep_their_order_and_receive_time(rig: Rig) -> None:
    rig.connect()
    rig.feed.received("c", [b'{"result":null}', frame(BTC, 1, 0)], [T0 + 1, T0 + 2])
    rig.feed.received("c", [frame(ETH, 1, 0)], [T0 + 3])
    assert rig.woken == 1
    assert [r for r in rig.rows() if r["kind"] is None] == []
    rig.feed.flush()
    assert [(r["key"], r["received_us"] - T0) for r in rig.rows() if r["kind"] is None] == [("", 1), ("BTC-USDT", 2), ("ETH-USDT", 3)]
    assert (rig.counts.messages, rig.counts.bytes) == (3, len(b'{"result":null}') + 2 * len(frame(BTC, 1, 0)))


def test_many_frames_are_put_at_once(rig: Rig) -> None:
    rig.connect()
    rig.feed.received("c", [b"{}"] * FLUSH_FRAMES, [T0] * FLUSH_FRAMES)
    assert len(rig.rows()) == FLUSH_FRAMES + 1


def test_there_is_no_marker_before_the_first_live_trade(rig: Rig) -> None:
    rig.connect()
    rig.confirm(BTC, ETH, at=10)
    rig.feed.alive("c", T0 + SECOND)
    rig.feed.mark()
    assert rig.markers() == []


def test_marker_runs_from_confirmation_less_smallest_to_proof_of_life_less_largest_delay(rig: Rig) -> None:
    rig.connect()
    rig.confirm(BTC, ETH, at=1_000)
    rig.trade(1, 1_900, 2_000)  # delays of 100 and 700
    rig.trade(2, 2_300, 3_000)
    rig.feed.mark()
    assert rig.markers() == [(900, 3_000 - 700 - 1, [BTC, ETH])]
    assert rig.counts.delays == Bounds(100, 700)
    rows = rig.rows()
    assert [r["kind"] for r in rows] == ["event", None, None, "marker"]
    assert rows[-1]["key"] == ""


def test_markers_of_a_symbol_follow_each_other_without_a_hole(rig: Rig) -> None:
    rig.connect()
    rig.confirm(BTC, at=0)
    rig.trade(1, 100, 100)
    rig.feed.mark()
    rig.feed.alive("c", T0 + SECOND)
    rig.feed.mark()
    rig.feed.mark()  # nothing new is known
    assert rig.markers() == [(0, 99, [BTC]), (99, SECOND - 1, [BTC])]


def test_time_alone_asserts_nothing(rig: Rig) -> None:
    rig.connect()
    rig.confirm(BTC, at=0)
    rig.trade(1, 100, 100)
    rig.feed.mark()
    rig.at = 3_600 * SECOND
    rig.feed.mark()
    assert len(rig.markers()) == 1


def test_symbol_that_is_confirmed_later_begins_later_and_only_once(rig: Rig) -> None:
    rig.connect()
    rig.confirm(BTC, at=0)
    rig.trade(1, 0, 0)
    rig.feed.alive("c", T0 + 1_000)
    rig.feed.mark()
    rig.confirm(BTC, ETH, at=2_000)  # the venue repeats itself
    rig.feed.alive("c", T0 + 3_000)
    rig.feed.mark()
    rig.feed.alive("c", T0 + 4_000)
    rig.feed.mark()
    assert rig.markers() == [(0, 999, [BTC]), (999, 2_999, [BTC]), (2_000, 2_999, [ETH]), (2_999, 3_999, [BTC, ETH])]


def test_ended_symbol_is_asserted_up_to_its_end_and_may_begin_again(rig: Rig) -> None:
    rig.connect()
    rig.confirm(BTC, ETH, at=0)
    rig.trade(1, 0, 0)
    rig.feed.alive("c", T0 + 1_000)
    rig.feed.ended("c", [ETH], T0 + 1_000, "refused")
    rig.feed.alive("c", T0 + 2_000)
    rig.feed.mark()
    rig.confirm(ETH, at=5_000)
    rig.feed.alive("c", T0 + 6_000)
    rig.feed.mark()
    assert rig.markers() == [(0, 999, [BTC, ETH]), (999, 1_999, [BTC]), (1_999, 5_999, [BTC]), (5_000, 5_999, [ETH])]
    assert ("ended", [ETH], "refused") in rig.events()


def test_disconnected_connection_asserts_what_it_received_and_no_more(rig: Rig) -> None:
    rig.connect()
    rig.confirm(BTC, at=0)
    rig.trade(1, 4_900, 5_000)
    rig.feed.disconnected("c", T0 + 9_000, "reset by peer")
    rig.feed.mark()
    assert rig.markers() == [(-100, 4_899, [BTC])]
    assert rig.events() == [("connected", [BTC, ETH], ""), ("disconnected", [BTC, ETH], "reset by peer")]
    assert (rig.counts.connects, rig.counts.disconnects, rig.counts.connections) == (1, 1, {})
    with pytest.raises(KeyError):  # nothing of it is kept
        rig.feed.alive("c", T0 + 9_000)


def test_connections_share_the_delays_and_assert_apart(rig: Rig) -> None:
    rig.connect("a")
    rig.connect("b")
    rig.confirm(BTC, at=0, name="a")
    rig.confirm(ETH, at=0, name="b")
    rig.trade(1, 0, 500, name="a")
    rig.trade(2, 500, 600, name="a")
    rig.feed.alive("b", T0 + 2_000)
    rig.feed.mark()
    assert rig.markers() == [(-100, 99, [BTC]), (-100, 1_499, [ETH])]


def test_implausible_times_do_not_move_the_bounds(rig: Rig) -> None:
    rig.connect()
    rig.confirm(BTC, at=0)
    rig.trade(1, 3_000 * 3_600 * SECOND, 100)
    rig.trade(2, -400_000 * 3_600 * SECOND, 200)
    rig.trade(3, -2 * 3_600 * SECOND, 250)
    rig.trade(4, 290, 300)
    rig.feed.mark()
    assert rig.markers() == [(-10, 289, [BTC])]


def test_snapshots_say_nothing_about_delays_but_their_ids_count(tmp_path: Path) -> None:
    rig = Rig(tmp_path, ["BTC/USD"], "kraken")
    rig.connect()

    def update(kind: str, number: int, seconds: int) -> bytes:
        at = f"2023-11-14T22:13:{20 + seconds:02d}.000000Z"
        trade = {"symbol": "BTC/USD", "side": "buy", "price": 1.5, "qty": 1.0, "ord_type": "limit", "trade_id": number, "timestamp": at}
        return json.dumps({"channel": "trade", "type": kind, "data": [trade]}, separators=(",", ":")).encode()

    rig.feed.received("c", [update("snapshot", 7, 0)], [T0 + 30 * SECOND])
    rig.feed.observe()
    rig.feed.flush()
    rig.feed.observe()
    assert rig.feed.delays.bounds is None
    rig.feed.received("c", [update("update", 8, 30)], [T0 + 30 * SECOND + 5])
    rig.feed.flush()
    rig.feed.observe()
    assert rig.feed.delays.bounds is not None
    assert rig.feed.delays.bounds.largest == 5
    assert rig.refills.seen == [("BTC/USD", [7], [0]), ("BTC/USD", [8], [30 * SECOND])]


def test_refill_hears_of_ids_by_symbol_in_order_and_of_subscriptions(rig: Rig) -> None:
    rig.connect()
    rig.confirm(BTC, ETH, at=0)
    rig.trade(5, 10, 20)
    rig.trade(1, 11, 20, ETH)
    rig.trade(4, 12, 20)
    rig.feed.flush()
    rig.feed.observe()
    assert rig.refills.seen == [(BTC, [5, 4], [10, 12]), (ETH, [1], [11])]
    assert rig.refills.subscribed == [BTC, ETH]


def test_put_records_stand_behind_the_frames_received_before(rig: Rig) -> None:
    rig.connect()
    rig.trade(1, 0, 0)
    rig.feed.put([Outgoing(BTC, b"page", T0, source="refill"), Outgoing(ETH, b"{}", T0, source=None, kind="unfillable")])
    assert [(r["key"], r["source"], r["kind"]) for r in rig.rows()[1:]] == [
        ("BTC-USDT", "live", None),
        ("BTC-USDT", "refill", None),
        ("ETH-USDT", None, "unfillable"),
    ]


def test_frames_of_symbols_that_were_taken_off_the_list_keep_their_key(rig: Rig) -> None:
    rig.connect()
    rig.feed.change(build_instruments("binance", ["SOL/USDT", BTC]))
    for symbol in (BTC, ETH, "SOL/USDT"):
        rig.trade(1, 0, 0, symbol)
    rig.feed.flush()
    assert [r["key"] for r in rig.rows()[1:]] == ["BTC-USDT", "ETH-USDT", "SOL-USDT"]
    rig.feed.observe()
    assert [s for s, *_ in rig.refills.seen] == ["SOL/USDT", BTC, ETH]


def test_bad_frames_are_counted_and_stop_nothing(rig: Rig) -> None:
    rig.connect()
    rig.feed.received("c", [b'{"e":"trade","s":"BTCUSDT","t":"x"}', b"{", frame(BTC, 1, 0)], [T0] * 3)
    rig.feed.flush()
    rig.feed.observe()
    assert (rig.counts.rejected, rig.counts.trades) == (1, 1)


def test_warm_up_leaves_no_trace(rig: Rig) -> None:
    rig.feed.warm_up()
    assert rig.rows() == []
    assert rig.counts == FeedCounts()


def test_replayed_first_trades_of_a_connection_are_no_delays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(venue("binance")), "replays_last", True)
    rig = Rig(tmp_path)
    rig.connect()
    rig.trade(1, 0, 50_000)
    rig.trade(2, 60_000, 60_007)
    rig.trade(1, 0, 60_100, ETH)
    rig.feed.flush()
    rig.feed.observe()
    assert rig.feed.delays.bounds is not None
    assert rig.feed.delays.bounds.largest == 7
    assert np.concatenate([ids for _, ids, _ in rig.refills.seen]).tolist() == [1, 2, 1]


def test_bounds_of_one_trade_wait_for_more_or_for_two_seconds(rig: Rig) -> None:
    rig.connect()
    rig.confirm(BTC, at=0)
    rig.trade(1, 0, 900)
    rig.at = 1_000
    rig.feed.mark()
    assert rig.markers() == []
    for number in range(2, 51):
        rig.trade(number, number * 10, number * 10 + 900 - number)
    rig.feed.mark()
    assert rig.markers() == [(-850, 1_350 - 900 - 1, [BTC])]


def test_a_marker_follows_a_proof_of_life_at_once_and_the_last_marker_by_a_second(rig: Rig) -> None:
    rig.connect()
    rig.confirm(BTC, at=0)
    rig.trade(1, 0, 0)
    rig.feed.alive("c", T0 + 1_000)
    rig.feed.mark_due(5.0)
    rig.feed.alive("c", T0 + 2_000)
    rig.feed.mark_due(5.9)  # too soon
    assert len(rig.markers()) == 1
    rig.feed.mark_due(6.0)
    rig.feed.mark_due(7.5)  # no proof since
    assert len(rig.markers()) == 2
    rig.feed.alive("c", T0 + 3_000)
    rig.feed.mark_due(7.55)
    assert [to for _, to, _ in rig.markers()] == [999, 1_999, 2_999]


@pytest.mark.parametrize("step", [7_200 * SECOND, -1_800 * SECOND])
def test_a_clock_that_was_set_vouches_for_nothing_by_the_delays_of_before(rig: Rig, step: int) -> None:
    rig.connect()
    rig.confirm(BTC, at=0)
    rig.trade(1, 900, 1_000)
    rig.feed.mark()
    before = rig.markers()
    assert before == [(-100, 899, [BTC])]
    rig.at += step
    rig.feed.clock_was_set()
    rig.feed.ended("c", [BTC], T0 + rig.at, "the clock was set")
    rig.confirm(BTC, at=rig.at)
    rig.feed.alive("c", T0 + rig.at + SECOND)
    rig.feed.mark_due(1e6)
    assert rig.markers() == before
    rig.trade(2, 10 * SECOND, rig.at + 5)  # the clock is off by what it was set
    rig.at += 3 * SECOND
    rig.feed.alive("c", T0 + rig.at)
    rig.feed.mark_due(2e6)
    expected = [(10 * SECOND - 5, 13 * SECOND - 6, [BTC])] if abs(step) < 3_600 * SECOND else []
    assert rig.markers() == before + expected


def test_a_clock_that_is_far_off_is_told_once(rig: Rig) -> None:
    rig.connect()
    rig.confirm(BTC, at=0)
    with capture_logs() as logs:
        for number in range(3):
            for trade in range(60):
                rig.trade(100 * number + trade, 0, 7_200 * SECOND)
            rig.feed.mark()
    assert [(entry["event"], entry["seconds"]) for entry in logs if "clock" in entry["event"]] == [("clock_far_off", 7200.0)]
    assert rig.markers() == []
