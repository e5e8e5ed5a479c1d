"""The gap ledger, coverage holes and feed events, one rule at a time."""

from __future__ import annotations

import pytest

from market.rules import Rules
from tests.shard_logs import SECOND, START, SYMBOLS, Record, Store, frame, marker, micros, other, run, trade


def at(seconds: float) -> int:
    return START + round(seconds * SECOND)


def traded(number: int, seconds: float, symbol: int = 0) -> Record:
    return frame(trade(number, at(seconds)), symbol=symbol)


def covered(seconds_from: float, seconds_to: float, *symbols: int) -> Record:
    return marker(at(seconds_from), at(seconds_to), symbols or (0,))


def unfillable(first: int, last: int, reason: str = "expired", **fields: object) -> Record:
    body = {"feed": "a", "exchange": "binance", "symbol": SYMBOLS[0], "first_id": first, "last_id": last, "reason": reason}
    return other("unfillable", {**body, **fields})


def ledger(store: Store) -> list[tuple[int, int, str, int]]:
    return [(r["first_id"], r["last_id"], r["state"], r["source_offset"]) for r in store.rows["trade_gaps"]]


GAP = [covered(-10, 1), traded(10, 1), traded(20, 5), covered(1, 6)]


def test_hole_becomes_a_gap_with_the_times_that_bound_it() -> None:
    store = run(GAP)
    (row,) = store.rows["trade_gaps"]
    assert (row["exchange"], row["canonical_symbol"], row["first_id"], row["last_id"]) == ("binance", "BTC/USDT", 11, 19)
    assert (micros(row["after_time"]), micros(row["before_time"]), micros(row["event_time"])) == (at(1), at(5), at(6))
    assert (row["state"], row["reason"], row["source_partition"], row["source_offset"], row["source_index"]) == ("open", "", 3, 3, 0)


def test_reordering_within_the_grace_is_not_in_the_ledger() -> None:
    assert ledger(run([covered(-10, 1), traded(1, 1), traded(3, 3), covered(1, 3.9), traded(2, 2), covered(3.9, 10)])) == []


def test_part_of_a_gap_closes_the_whole_and_opens_the_rest() -> None:
    store = run([*GAP, frame(trade(15, at(3)), trade(12, at(2)))])
    rest = [(11, 19, "filled", 4), (11, 11, "open", 4), (13, 14, "open", 4), (16, 19, "open", 4)]
    assert ledger(store)[1:] == rest
    assert [row["source_index"] for row in store.rows["trade_gaps"]] == [0, 0, 1, 2, 3]


def test_rest_that_is_within_the_grace_opens_later() -> None:
    store = run([*GAP, traded(15, 5.5), covered(6, 7)])
    assert ledger(store)[1:] == [(11, 19, "filled", 4), (16, 19, "open", 4), (11, 14, "open", 5)]


def test_whole_refill_closes_the_gap() -> None:
    assert ledger(run([*GAP, frame(*(trade(n, at(2)) for n in range(11, 20)))]))[1:] == [(11, 19, "filled", 4)]


def test_older_history_below_the_baseline_opens_a_gap() -> None:
    assert ledger(run([*GAP, traded(5, 0.5)]))[1:] == [(6, 9, "open", 4)]


def test_several_gaps_of_a_record_come_in_rising_order() -> None:
    log = [covered(-10, 1), traded(30, 3), traded(20, 2), traded(10, 1), covered(1, 6), frame(trade(15, at(2)), trade(25, at(3)))]
    rows = ledger(run(log))[2:]
    assert [row[:3] for row in rows] == [
        (11, 19, "filled"), (11, 14, "open"), (16, 19, "open"), (21, 29, "filled"), (21, 24, "open"), (26, 29, "open"),
    ]  # fmt: skip


def test_unfillable_gap_says_why() -> None:
    store = run([*GAP, unfillable(11, 19)])
    assert ledger(store)[1:] == [(11, 19, "unfillable", 4)]
    assert store.rows["trade_gaps"][1]["reason"] == "expired"


def test_unfillable_part_splits_the_gap() -> None:
    rows = ledger(run([*GAP, unfillable(13, 15)]))[1:]
    assert rows == [(11, 19, "filled", 4), (11, 12, "open", 4), (13, 15, "unfillable", 4), (16, 19, "open", 4)]


def test_unfillable_said_twice_changes_nothing() -> None:
    assert ledger(run([*GAP, unfillable(11, 19), unfillable(11, 19, "again")]))[2:] == []


def test_overlapping_unfillable_ranges_keep_their_first_reason() -> None:
    store = run([*GAP, unfillable(12, 13, "x"), unfillable(16, 17, "y"), unfillable(11, 19, "z")])
    now = {(r["first_id"], r["last_id"]): r for r in store.rows["trade_gaps"]}
    states = {key: (r["state"], r["reason"]) for key, r in sorted(now.items()) if r["state"] != "filled"}
    assert states == {
        (11, 11): ("unfillable", "z"), (12, 13): ("unfillable", "x"), (14, 15): ("unfillable", "z"),
        (16, 17): ("unfillable", "y"), (18, 19): ("unfillable", "z"),
    }  # fmt: skip


def test_ids_given_up_before_the_hole_is_a_gap_open_as_unfillable() -> None:
    log = [covered(-10, 1), unfillable(11, 19), traded(10, 1), traded(20, 5), covered(1, 6)]
    assert ledger(run(log, cuts=[2], reloads=True)) == [(11, 19, "unfillable", 4)]


def test_trade_in_an_unfillable_gap_is_accepted() -> None:
    store = run([*GAP, unfillable(11, 19), traded(15, 3)])
    assert ledger(store)[2:] == [(11, 19, "filled", 5), (11, 14, "unfillable", 5), (16, 19, "unfillable", 5)]
    assert len(store.rows["silver_trades"]) == 3


def test_part_that_is_still_unfillable_is_told_again_with_its_new_bounds() -> None:
    store = run([*GAP, unfillable(16, 19), traded(15, 3)])
    assert ledger(store)[4:] == [(11, 15, "filled", 5), (11, 14, "open", 5), (16, 19, "unfillable", 5)]
    assert micros(store.rows["trade_gaps"][-1]["after_time"]) == at(3)


def test_unfillable_gap_keeps_its_window_incomplete() -> None:
    store = run([*GAP, covered(6, 100), unfillable(11, 19)])
    row = store.candle()
    assert row is not None
    assert (row["is_closed"], row["is_complete"], row["revision"], row["source_offset"]) == (True, False, 0, 4)


def test_unfillable_ids_of_a_venue_without_gaps_change_nothing() -> None:
    assert ledger(run([*GAP, unfillable(11, 19)], rules=Rules(contiguous_ids=False))) == []


def events(store: Store) -> list[tuple[str, list[str], int, int, int]]:
    return [
        (r["kind"], r["symbols"], micros(r["from_time"]) - START, micros(r["to_time"]) - START, r["source_offset"])
        for r in store.rows["feed_events"]
    ]


def test_hole_in_coverage_is_told_once_for_all_its_symbols() -> None:
    store = run([covered(-10, 1, 0, 1), covered(-10, 2, 2), covered(5, 9, 0, 1, 2), covered(9, 10, 0, 1, 2)])
    assert events(store) == [
        ("uncovered", ["BTC/USDT", "ETH/USDT"], 1 * SECOND, 5 * SECOND, 2),
        ("uncovered", ["SOL/USDC"], 2 * SECOND, 5 * SECOND, 2),
    ]
    assert {row["feed"] for row in store.rows["feed_events"]} == {"a"}


def test_closed_part_of_a_coverage_hole_is_told() -> None:
    store = run([covered(-10, 1), covered(5, 9), covered(2, 4), covered(-20, 20)])
    assert [(kind, low, high, offset) for kind, _, low, high, offset in events(store)] == [
        ("uncovered", 1 * SECOND, 5 * SECOND, 1),
        ("covered", 2 * SECOND, 4 * SECOND, 2),
        ("covered", 1 * SECOND, 2 * SECOND, 3),
        ("covered", 4 * SECOND, 5 * SECOND, 3),
    ]


def test_earlier_stretch_shows_the_hole_before_the_first_one() -> None:
    assert events(run([covered(5, 9), covered(-10, 1)])) == [("uncovered", ["BTC/USDT"], 1 * SECOND, 5 * SECOND, 1)]


def test_events_of_feeds_are_kept() -> None:
    body = {
        "feed": "f",
        "exchange": "binance",
        "kind": "disconnect",
        "symbols": ["BTC/USDT"],
        "from_us": at(1),
        "to_us": at(2),
        "detail": "x",
    }
    store = run([covered(-10, 1), other("event", body, at(3)), other("event", {"kind": "connect"}, at(4)), covered(2, 3)])
    found = [
        (r["feed"], r["kind"], r["symbols"], micros(r["from_time"]), micros(r["to_time"]), r["detail"]) for r in store.rows["feed_events"]
    ]
    assert found == [
        ("f", "disconnect", ["BTC/USDT"], at(1), at(2), "x"),
        ("", "connect", [], at(4), at(4), ""),
        ("a", "uncovered", ["BTC/USDT"], at(1), at(2), ""),
    ]
    assert [r["source_offset"] for r in store.rows["feed_events"]] == [1, 2, 3]


MARKER = {"feed": "a", "exchange": "binance", "from_us": at(-10), "to_us": at(1), "symbols": ["BTC/USDT"]}


@pytest.mark.parametrize(
    ("kind", "body", "reason"),
    [
        ("marker", b"{", "bad_marker"),
        ("marker", b"\xff", "bad_marker"),
        ("marker", b"[" * 100_000, "bad_marker"),
        ("marker", [], "bad_marker"),
        ("marker", {**MARKER, "exchange": "kraken"}, "bad_marker"),
        ("marker", {**MARKER, "to_us": at(-10)}, "bad_marker"),
        ("marker", {**MARKER, "to_us": str(at(1))}, "bad_marker"),
        ("marker", {**MARKER, "from_us": True}, "bad_marker"),
        ("marker", {**MARKER, "from_us": float(at(-10))}, "bad_marker"),
        ("marker", {**MARKER, "to_us": 2**70}, "bad_marker"),
        ("marker", {**MARKER, "symbols": "BTC/USDT"}, "bad_marker"),
        ("marker", {**MARKER, "symbols": [1]}, "bad_marker"),
        ("marker", {**MARKER, "feed": 1}, "bad_marker"),
        ("marker", {**MARKER, "from_us": 5}, "implausible_time"),
        ("marker", {**MARKER, "to_us": at(3600.000001)}, "implausible_time"),
        ("unfillable", {"symbol": "BTC/USDT", "first_id": 5, "last_id": 4}, "bad_record"),
        ("unfillable", {"symbol": "BTC/USDT", "first_id": -1, "last_id": 4}, "bad_record"),
        ("unfillable", {"symbol": "BTC/USDT", "first_id": 1}, "bad_record"),
        ("unfillable", {"symbol": "XRP/USDT", "first_id": 1, "last_id": 2}, "unknown_symbol"),
        ("event", {}, "bad_record"),
        ("event", {"kind": "x", "symbols": "BTC/USDT"}, "bad_record"),
        ("event", {"kind": "x", "from_us": "now"}, "bad_record"),
        ("surprise", {}, "unknown_kind"),
        ("", {}, "unknown_kind"),
    ],
)
def test_record_that_is_not_what_its_kind_says_is_a_dead_letter(kind: str, body: object, reason: str) -> None:
    bad = other(kind, body)
    store = run([covered(-10, 1), bad, traded(1, 1), covered(1, 2)])
    (row,) = store.rows["dead_letters"]
    assert (row["reason"], row["payload"], row["topic"], row["exchange"]) == (reason, bad.payload, "raw.trades.binance", "binance")
    assert (micros(row["receive_time"]), row["source_partition"], row["source_offset"], row["source_index"]) == (START, 3, 1, 0)
    assert len(row["detail"]) <= 200
    assert store.rows["feed_events"] == []
    assert len(store.rows["silver_trades"]) == 1


def test_half_a_surrogate_pair_in_a_feed_event_is_replaced() -> None:
    (row,) = run([other("event", b'{"kind": "a\\ud800", "detail": "\\udfff", "symbols": ["\\ud800"]}')]).rows["feed_events"]
    assert (row["kind"], row["detail"], row["symbols"]) == ("a?", "?", ["?"])


def test_symbols_of_a_marker_that_are_not_listed_are_left_out() -> None:
    body = {**MARKER, "symbols": ["XRP/USDT", "BTC/USDT", "BTC/USDT"]}
    store = run([traded(1, 1), other("marker", body, at(1)), covered(1, 70)])
    assert store.rows["dead_letters"] == []
    row = store.candle()
    assert row is not None
    assert row["is_complete"]
