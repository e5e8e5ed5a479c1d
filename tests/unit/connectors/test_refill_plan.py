from __future__ import annotations

import numpy as np

from connectors.refill.known_ids import KnownIds
from connectors.refill.refill_plan import MOST_IDS, GivenUp, Pace, RefillPlan
from market.interval import SECOND
from market.trade import Int64s
from tests.refill_script import BOUNDS, NOW, PACE, PAGE, Script, ids, time_of, wanted


def test_a_hole_is_asked_for_when_it_is_older_than_reordering() -> None:
    s = Script()
    s.see(1, 2, 6)
    assert s.sizes == [3]
    assert s.nothing_due(0.9)
    ask = s.next(1.0)
    assert wanted(ask) == ("A/B", 3, 5, 4)
    assert ask.wanted.after_us == time_of(2)
    assert s.page(ask, 3, 4, 5, 6, at=1.1) == []
    assert s.nothing_due(100.0)
    assert s.plan.waiting_ids() == 0


def test_what_was_only_late_is_not_asked_for() -> None:
    s = Script()
    s.see(1, 2, 6)
    s.see(4, 3, 5, at=0.5)
    assert s.nothing_due(100.0)


def test_nothing_is_missing_below_the_first_id() -> None:
    s = Script()
    s.see(100)
    assert s.nothing_due(100.0)


def test_ids_below_the_first_make_a_hole_of_what_is_between() -> None:
    s = Script()
    s.see(100)
    s.see(90)
    assert wanted(s.next(1.0)) == ("A/B", 91, 99, 10)


def test_a_large_hole_is_asked_for_page_by_page() -> None:
    s = Script()
    s.see(0, 25)
    ask = s.next(1.0)
    assert wanted(ask) == ("A/B", 1, 24, PAGE)
    s.page(ask, *range(1, 11), at=1.1)
    ask = s.next(1.1)
    assert wanted(ask) == ("A/B", 11, 24, PAGE)
    s.page(ask, *range(11, 21), at=1.2)
    assert wanted(s.next(1.2)) == ("A/B", 21, 24, 5)
    assert s.sizes == [24]


def test_what_pages_pass_by_is_asked_for_again_and_then_given_up() -> None:
    s = Script()
    s.see(1, 2, 8)
    ask = s.next(1.0)
    assert s.page(ask, 3, 5, 7, 8, at=1.0) == []
    assert s.nothing_due(2.9)
    first = s.next(3.0)
    assert wanted(first) == ("A/B", 4, 4, PAGE)
    assert first.wanted.after_us == time_of(3) - SECOND  # a page by time begins earlier than before
    s.page(first, 5, 6, 7, at=3.0)  # 6 was late at the venue's REST interface
    assert s.nothing_due(6.9)
    second = s.next(7.0)
    assert wanted(second) == ("A/B", 4, 4, PAGE)
    assert s.page(second, 5, at=7.0) == [GivenUp("A/B", 4, 4, "not_at_venue")]
    assert s.nothing_due(1000.0)


def test_ids_in_the_past_are_asked_for_twice() -> None:
    s = Script()
    s.see(1, 3, 100)
    s.page(s.next(1.0), 3, 4, at=1.0)
    ask = s.next(3.0)
    while ask.wanted.first_id != 2:
        s.page(ask, *range(ask.wanted.first_id, 101), at=3.0)
        ask = s.next(3.0)
    assert s.page(ask, 3, at=3.0) == [GivenUp("A/B", 2, 2, "not_at_venue")]


def test_ids_that_rest_does_not_have_yet_are_waited_for() -> None:
    s = Script()
    s.see(1, 2, 6)
    at = 1.0
    for wait in (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
        ask = s.next(at)
        assert s.page(ask, at=at, full=False) == []
        assert s.nothing_due(at + wait - 0.1)
        at += wait
    assert s.page(s.next(at), 3, 4, 5, 6, at=at) == []
    assert s.nothing_due(1000.0)


def test_a_page_below_the_hole_is_no_progress() -> None:
    s = Script()
    s.see(1, 2, 6)
    s.page(s.next(1.0), 1, 2, at=1.0)
    assert s.nothing_due(1.9)
    assert wanted(s.next(2.0)) == ("A/B", 3, 5, PAGE)


def test_a_full_page_by_time_that_ends_before_the_hole_is_gone_on_from() -> None:
    def dense(*numbers: int) -> tuple[Int64s, Int64s]:
        return np.array(numbers, np.int64), np.array([NOW + n * SECOND // 20 for n in numbers], np.int64)

    plan = RefillPlan(PAGE, PACE, by_time=True)
    plan.observed("A/B", *dense(*range(100), 105), 0.0)
    ask = plan.next(1.0, NOW, BOUNDS)
    assert ask is not None
    plan.answered(ask, *dense(), is_full=False, asked_us=NOW, at=1.0)  # nothing came: the venue's clock may have been set back
    for first, after in ((80, 79), (90, 89)):
        ask = plan.next(2.0, NOW, BOUNDS)
        assert ask is not None
        assert (ask.wanted.after_us, ask.wanted.rows) == (NOW + after * SECOND // 20, PAGE)
        plan.answered(ask, *dense(*range(first, first + PAGE)), is_full=True, asked_us=NOW, at=2.0)
    ask = plan.next(2.0, NOW, BOUNDS)
    assert ask is not None
    plan.answered(ask, *dense(*range(100, 106)), is_full=False, asked_us=NOW, at=2.0)
    assert plan.waiting_ids() == 0


def test_given_up_ids_are_not_asked_for_again_but_later_holes_are() -> None:
    s = Script()
    known = KnownIds()
    known.add(*ids(1, 2, 6, 7))
    s.plan.begin("A/B", known, [(3, 4)], 0.0)
    assert wanted(s.next(1.0)) == ("A/B", 5, 5, 2)
    s.see(9)
    s.page(s.next(1.0), 5, 6, at=1.0)
    assert wanted(s.next(2.0)) == ("A/B", 8, 8, 2)


def test_what_the_topic_holds_joins_what_was_seen_before() -> None:
    s = Script()
    s.see(8, 9)
    known = KnownIds()
    known.add(*ids(1, 2, 3))
    s.plan.begin("A/B", known, [], 0.0)
    assert wanted(s.next(1.0)) == ("A/B", 4, 7, 5)


def test_small_holes_go_first_and_then_old_ones() -> None:
    s = Script()
    s.see(0, 1000, symbol="LARGE")
    s.see(50, 52, symbol="YOUNG")
    s.see(10, 12, symbol="OLD")
    order = []
    for _ in range(3):
        ask = s.next(5.0)
        order.append(ask.symbol)
        s.plan.put_off(ask, 100.0)
    assert order == ["OLD", "YOUNG", "LARGE"]


def test_one_page_serves_the_holes_that_follow() -> None:
    s = Script()
    s.see(0, 3, 6, 8, 30, 32)
    ask = s.next(1.0)
    assert wanted(ask) == ("A/B", 1, 2, 8)
    assert s.page(ask, 1, 3, 4, 6, 8, at=1.0) == []
    assert wanted(s.next(1.0)) == ("A/B", 9, 29, PAGE)  # 2, 5 and 7 were passed by
    s.see(*range(9, 30), 31, at=1.0)
    ask = s.next(3.0)
    assert wanted(ask) == ("A/B", 2, 2, PAGE)
    s.page(ask, 3, 4, 6, *range(8, 12), at=3.0)
    assert s.plan.waiting_ids() == 3
    assert s.page(s.next(7.0), 3, 4, 6, 8, at=7.0) == [GivenUp("A/B", n, n, "not_at_venue") for n in (2, 5, 7)]


def test_a_hole_from_long_ago_is_left_to_a_backfill() -> None:
    s = Script(Pace(horizon_us=100 * SECOND))
    s.see(0, 200)
    assert s.nothing_due(5.0)
    s.see(202)
    assert wanted(s.next(50.0))[1:3] == (201, 201)


def test_a_refusal_gives_up_at_the_second_time() -> None:
    s = Script()
    s.see(1, 5)
    s.see(3)
    ask = s.next(1.0)
    assert s.plan.refused(ask, "http_404", 1.0) == []
    assert s.nothing_due(2.9)
    ask = s.next(3.0)
    assert s.plan.refused(ask, "http_404", 3.0) == [GivenUp("A/B", 2, 2, "http_404"), GivenUp("A/B", 4, 4, "http_404")]
    assert s.plan.refused(ask, "http_404", 3.0) == []
    assert s.nothing_due(1000.0)


def test_of_the_newest_page_what_is_older_is_given_up_and_the_rest_is_had() -> None:
    s = Script()
    s.see(1, 2, 30, 31)
    s.see(5)
    ask = s.next(1.0)
    page = ids(*range(21, 29), 30, 31)
    new, given = s.plan.answered(ask, *page, is_full=True, asked_us=NOW, at=1.0, is_newest=True)
    assert (new, given) == (8, [GivenUp("A/B", 3, 4, "older_than_rest"), GivenUp("A/B", 6, 20, "older_than_rest")])
    assert s.nothing_due(1.0)
    assert wanted(s.next(3.0))[1:3] == (29, 29)  # passed by like any other


def test_answers_about_forgotten_symbols_change_nothing() -> None:
    s = Script()
    s.see(1, 5)
    ask = s.next(1.0)
    s.plan.keep(["C/D"])
    assert s.page(ask, 2, 3, 4, at=1.0) == []
    assert s.plan.refused(ask, "x", 1.0) == []
    assert s.nothing_due(1000.0)


def test_hole_larger_than_any_venue_could_fill_is_told_once_and_never_asked_for() -> None:
    told: list[tuple[str, int, int]] = []
    plan = RefillPlan(PAGE, PACE, too_large=lambda *hole: told.append(hole))

    def see(*numbers: int) -> None:
        plan.observed("A/B", np.array(numbers, np.int64), np.full(len(numbers), NOW, np.int64), 0.0)

    see(5, 6, 7 + MOST_IDS)
    assert (told, plan.waiting_ids()) == ([], MOST_IDS), "so many can be had"
    far = 3 * 10**9
    see(far)
    see(far + 1, far + 3)
    assert told == [("A/B", 8 + MOST_IDS, far - 1)]
    assert plan.waiting_ids() == MOST_IDS + 1
