from __future__ import annotations

import random

from market import ahead, candle, exact, gold, seen, walk
from market.rules import Rules
from tests.shard_logs import random_log, run

LOOPS = (
    walk.walk, candle.fold, candle.find, candle.create, candle.mark, candle.close, candle.closed_between, candle.evict,
    seen.is_seen, seen.remember, seen.move_live, gold._merge_groups, exact.multiply, exact.divide, exact.scale_up, exact.too_large,
)  # fmt: skip


def test_nothing_is_left_to_compile_when_trades_come() -> None:
    ahead.compile_ahead()
    before = {loop.__name__: len(loop.signatures) for loop in LOOPS}  # type: ignore[attr-defined]
    assert all(before.values()), before
    for contiguous in (True, False):
        run(random_log(random.Random(1), records=150, trouble=0.8), rules=Rules(contiguous_ids=contiguous), cuts=[20, 60], reloads=True)
    assert {loop.__name__: len(loop.signatures) for loop in LOOPS} == before  # type: ignore[attr-defined]
