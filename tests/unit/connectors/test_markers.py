from __future__ import annotations

import json

from connectors.markers import Assertion
from market.instrument import partition_of

SYMBOLS = [f"{c}{d}/USDT" for c in "ABCDEF" for d in "ABCDEF"]
TOGETHER = [s for s in SYMBOLS if partition_of(s, 4) == 2][:3]
ELSEWHERE = next(s for s in SYMBOLS if partition_of(s, 4) == 0)


def assertion() -> Assertion:
    return Assertion(feed="f", exchange="binance", partitions=4)


def advanced(a: Assertion, to_us: int) -> list[tuple[int, int, int, list[str]]]:
    found = [(p, json.loads(m)) for p, m in a.advance(to_us)]
    assert all(m["feed"] == "f" and m["exchange"] == "binance" for _, m in found)
    return [(p, m["from_us"], m["to_us"], m["symbols"]) for p, m in found]


def test_stretches_follow_each_other_without_a_hole() -> None:
    a = assertion()
    a.begin(TOGETHER[0], 100)
    assert [advanced(a, to) for to in (150, 150, 140, 151)] == [[(2, 100, 150, TOGETHER[:1])], [], [], [(2, 150, 151, TOGETHER[:1])]]


def test_symbols_that_begin_apart_share_a_marker_from_their_first_common_stretch() -> None:
    a = assertion()
    a.begin(TOGETHER[0], 100)
    a.begin(TOGETHER[1], 180)
    a.begin(TOGETHER[2], 100)
    assert advanced(a, 150) == [(2, 100, 150, [TOGETHER[0], TOGETHER[2]])]
    assert advanced(a, 200) == [(2, 150, 200, [TOGETHER[0], TOGETHER[2]]), (2, 180, 200, [TOGETHER[1]])]
    assert advanced(a, 250) == [(2, 200, 250, TOGETHER)]


def test_every_partition_gets_its_own_marker() -> None:
    a = assertion()
    for symbol in (TOGETHER[0], ELSEWHERE):
        a.begin(symbol, 100)
    assert advanced(a, 150) == [(0, 100, 150, [ELSEWHERE]), (2, 100, 150, [TOGETHER[0]])]


def test_nothing_is_asserted_before_the_beginning() -> None:
    a = assertion()
    a.begin(TOGETHER[0], 100)
    assert advanced(a, 100) == []
