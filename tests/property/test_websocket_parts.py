"""The driver's pure parts: shards, limits, proofs."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.pacing import Backoff, Pacer, Turns
from connectors.sockets.proofs import FrameNumbers, Pings, Pulse
from connectors.sockets.sharding import resharded
from connectors.venues.feeding import Limit
from market.instrument import Instrument
from tests.virtual_time import run_virtual

ALL = [Instrument(f"A{n}/USD", f"A{n}-USD") for n in range(30)]
LISTS = st.lists(st.sampled_from(ALL), unique=True)


@given(lists=st.lists(LISTS, min_size=1, max_size=5), capacity=st.integers(1, 12))
def test_each_instrument_has_one_shard_of_the_fewest_and_evenly_filled(lists: list[list[Instrument]], capacity: int) -> None:
    shards: list[list[Instrument]] = []
    for wanted in lists:
        before = {instrument: index for index, shard in enumerate(shards) for instrument in shard}
        shards = resharded(shards, wanted, capacity)
        held = [instrument for shard in shards for instrument in shard]
        assert sorted(held, key=ALL.index) == sorted(wanted, key=ALL.index)
        used = [shard for shard in shards if shard]
        assert len(used) == -(-len(wanted) // capacity)
        assert all(len(shard) <= capacity for shard in used)
        # Only what stood in a shard that is given up has moved.
        moved = {before[i] for index, shard in enumerate(shards) for i in shard if before.get(i, index) != index}
        assert all(not shards[index] for index in moved)


@given(count=st.integers(1, 6), seconds=st.integers(1, 20), gaps=st.lists(st.integers(0, 8), max_size=30))
def test_no_window_holds_more_than_the_limit(count: int, seconds: int, gaps: list[int]) -> None:
    pacer, now, went = Pacer(Limit(count, float(seconds))), 0.0, []
    for gap in gaps:
        now += gap
        now += pacer.wait_seconds(now)
        assert pacer.wait_seconds(now) == 0
        pacer.take(now)
        went.append(now)
    assert all(later - earlier >= seconds for earlier, later in zip(went, went[count:], strict=False))


@settings(deadline=None)
@given(count=st.integers(1, 9), seconds=st.integers(1, 20), gaps=st.lists(st.integers(0, 8), max_size=30))
def test_turns_keep_the_limit_and_always_leave_some(count: int, seconds: int, gaps: list[int]) -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        turns, went = Turns(Limit(count, float(seconds))), []
        for gap in gaps:
            await asyncio.sleep(gap)
            asked = loop.time()
            await turns.turn()
            went.append(loop.time())
            # Never much more than the even share of the limit's second half.
            assert went[-1] - asked <= seconds / max(1, count - max(1, count // 2)) + 0.001
        assert all(later - earlier >= seconds - 0.001 for earlier, later in zip(went, went[count:], strict=False))

    run_virtual(story())


@given(dice=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=50), first=st.floats(0.1, 2.0), cap=st.floats(2.0, 60.0))
def test_waits_stay_below_their_doubling_bound_and_the_cap(dice: list[float], first: float, cap: float) -> None:
    throws = iter(dice)
    backoff = Backoff(first, cap, lambda: next(throws))
    for failures in range(len(dice)):
        assert 0 <= backoff.next_seconds() <= min(cap, first * 2.0**failures)


@given(sizes=st.lists(st.integers(0, 4), max_size=20), missing=st.integers(0, 60), start=st.integers(0, 9))
def test_exactly_a_number_left_out_is_a_loss(sizes: list[int], missing: int, start: int) -> None:
    numbers, at = FrameNumbers(), start
    for size in sizes:
        burst: list[int | None] = [None]
        skipped = False
        for _ in range(size):
            if at != missing or at == start:
                burst += [at, at, None]  # repeated ones lose nothing
                skipped |= missing == at - 1 and missing != start and missing > start
            at += 1
        lost = numbers.lost_in(burst)
        assert bool(lost) == skipped
        if lost:
            assert lost == f"frames {missing} to {missing} were lost"
            return


def test_an_answer_to_an_older_ping_forgets_the_pings_before_it() -> None:
    pings = Pings()
    payloads = [pings.next_payload(at_us) for at_us in (10, 20, 30)]
    assert pings.last == 3
    assert pings.answered(payloads[1]) == (2, 20)
    assert pings.answered(payloads[0]) is None
    assert pings.answered(payloads[1]) is None
    assert pings.answered(b"of somebody else") is None
    assert pings.answered(payloads[2]) == (3, 30)


def test_a_standstill_shows_on_either_clock() -> None:
    pulse = Pulse()
    pulse.beat(100.0, 5_000_000)
    assert not pulse.is_stalled(100.5, 5_500_000)
    assert pulse.is_stalled(102.0, 5_500_000)
    assert pulse.is_stalled(100.0, 65_000_000)  # a suspended machine: only the wall clock went on
