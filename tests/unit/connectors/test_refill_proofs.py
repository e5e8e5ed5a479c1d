"""Proofs that an outage was quiet: when a refill plan may vouch for a stretch without trades."""

from __future__ import annotations

from connectors.refill.known_ids import KnownIds
from connectors.refill.refill_plan import Pace, Proof
from market.interval import SECOND
from tests.refill_script import BOUNDS, NOW, PAGE, Script, ids, time_of, wanted


def reconnect(s: Script, at: float = 0.0, now_us: int = NOW) -> None:
    s.plan.reconnected(["A/B", "NEVER/SEEN"], now_us, at, BOUNDS)


# To prove the stretch up to confirmed - smallest + 1 s, a request must be sent the largest delay and 1 s later than that.
PROVED_AT = 2.0 + (BOUNDS.largest - BOUNDS.smallest) / SECOND


def test_a_quiet_symbol_is_proved_quiet_after_a_reconnect() -> None:
    s = Script()
    s.see(-60)
    reconnect(s)
    assert s.nothing_due(PROVED_AT)
    asked_us = NOW + round((PROVED_AT + 0.1) * SECOND)
    ask = s.next(PROVED_AT + 0.1, asked_us)
    assert wanted(ask) == ("A/B", -59, None, PAGE)
    assert s.page(ask, at=3.0, full=False, asked_us=asked_us) == []
    to_us = asked_us - BOUNDS.largest - SECOND
    assert to_us >= NOW - BOUNDS.smallest + SECOND
    assert s.plan.proofs(3.0, BOUNDS) == [Proof("A/B", time_of(-60), to_us)]
    assert s.plan.proofs(3.0, BOUNDS) == []
    assert s.nothing_due(1000.0)


def test_a_symbol_whose_ids_are_found_later_is_asked_for_then() -> None:
    s = Script()
    s.plan.reconnected(["A/B"], NOW, 0.0, BOUNDS)
    assert not s.plan.knows("A/B")
    assert s.nothing_due(5.0)
    known = KnownIds()
    known.add(*ids(-60))
    s.plan.begin("A/B", known, [], 5.0)
    assert s.plan.knows("A/B")
    assert wanted(s.next(5.0)) == ("A/B", -59, None, PAGE)


def test_what_the_page_brings_is_where_the_proof_begins() -> None:
    s = Script()
    s.see(-60)
    reconnect(s)
    ask = s.next(5.0, NOW + 5 * SECOND)
    s.page(ask, -59, -58, at=5.0, full=False, asked_us=NOW + 5 * SECOND)
    assert [p.from_us for p in s.plan.proofs(5.0, BOUNDS)] == [time_of(-58)]


def test_full_pages_are_followed_by_others() -> None:
    s = Script()
    s.see(-60)
    reconnect(s)
    s.page(s.next(5.0), *range(-59, -49), at=5.0)
    assert s.plan.proofs(5.0, BOUNDS) == []
    assert wanted(s.next(5.0)) == ("A/B", -49, None, PAGE)


def test_a_busy_symbol_needs_no_proof() -> None:
    s = Script()
    s.see(-3, -2)
    reconnect(s)
    s.see(-1, 0, 1, 2)
    assert s.nothing_due(1000.0)


def test_holes_are_filled_before_anything_is_proved() -> None:
    s = Script()
    s.see(-60)
    reconnect(s)
    s.see(-50)
    ask = s.next(5.0, NOW + 5 * SECOND)
    assert wanted(ask) == ("A/B", -59, -51, PAGE)
    s.page(ask, *range(-59, -50), at=5.0)
    assert wanted(s.next(5.0, NOW + 5 * SECOND)) == ("A/B", -49, None, PAGE)


def test_a_hole_that_a_live_trade_shows_meanwhile_ends_the_proof() -> None:
    s = Script()
    s.see(-60)
    reconnect(s)
    ask = s.next(5.0, NOW + 5 * SECOND)
    s.see(-40, at=5.0)
    s.page(ask, at=5.1, full=False, asked_us=NOW + 5 * SECOND)
    assert s.plan.proofs(5.1, BOUNDS) == []


def test_a_request_that_was_too_early_proves_less_and_is_repeated() -> None:
    s = Script()
    s.see(-60)
    s.plan.reconnected(["A/B"], NOW, 0.0, None)  # no live trade yet: ask for the data, prove later
    ask = s.plan.next(1.0, NOW + SECOND, None)
    assert ask is not None
    s.page(ask, at=1.0, full=False, asked_us=NOW + SECOND)
    assert s.plan.next(2.0, NOW + SECOND, None) is None
    to_us = NOW - BOUNDS.largest
    assert s.plan.proofs(2.0, BOUNDS) == [Proof("A/B", time_of(-60), to_us)]
    missing = (NOW - BOUNDS.smallest + SECOND - to_us) / SECOND
    assert s.nothing_due(2.0 + missing)
    ask = s.next(2.0 + missing + 0.11)
    s.page(ask, at=5.0, full=False, asked_us=NOW + 4 * SECOND)
    assert [p.to_us for p in s.plan.proofs(5.0, BOUNDS)] == [NOW + 3 * SECOND - BOUNDS.largest]
    assert s.nothing_due(1000.0)


def test_a_symbol_that_was_silent_beyond_the_horizon_is_left_alone() -> None:
    s = Script(Pace(horizon_us=10 * SECOND))
    s.see(-60)
    reconnect(s)
    assert s.nothing_due(1000.0)


def test_a_refused_question_for_news_is_dropped() -> None:
    s = Script()
    s.see(-60)
    reconnect(s)
    assert s.plan.refused(s.next(5.0), "x", 5.0) == []
    assert s.nothing_due(1000.0)


def test_a_full_page_without_news_is_not_asked_for_in_a_hurry() -> None:
    s = Script()
    s.see(-60)
    reconnect(s)
    s.page(s.next(5.0), -60, at=5.0)
    assert s.nothing_due(5.9)
    assert s.next(6.0).wanted.first_id == -59


def test_a_newest_page_that_meets_what_is_known_is_a_proof() -> None:
    s = Script()
    s.see(-60)
    reconnect(s)
    s.plan.answered(s.next(5.0), *ids(-50, -49), is_full=True, asked_us=NOW + 5 * SECOND, at=5.0, is_newest=True)
    assert s.plan.proofs(5.0, BOUNDS) == []
    hole = s.next(6.0)
    s.page(hole, *range(-59, -48), at=6.0)
    s.plan.answered(s.next(6.0), *ids(-50, -49), is_full=True, asked_us=NOW + 6 * SECOND, at=6.0, is_newest=True)
    assert [p.from_us for p in s.plan.proofs(6.0, BOUNDS)] == [time_of(-49)]
