"""Ids that are no numbers: pairs of integers stand for them exactly, in the order of their texts, all the way to the rows."""

from __future__ import annotations

import random
import uuid
from dataclasses import replace

import numpy as np
import pytest

from market.ids import id_text, id_texts, sequence_numbers, uuid_halves
from market.rules import Rules
from market.trade import NO_TAIL, Decoded
from tests.shard_logs import START, Store, batch_of, frame, marker, new_shard, random_log, reload, trade

UUIDS = [str(uuid.UUID(int=random.Random(k).getrandbits(128), version=5)) for k in range(500)]
EDGES = ["00000000-0000-0000-8000-000000000000", "00000000-0000-0001-8000-000000000000", "ffffffff-ffff-ffff-bfff-ffffffffffff"]
SECOND = 1_000_000
RULES = Rules(contiguous_ids=False)


def halves(text: str) -> tuple[int, int]:
    found = uuid_halves(text)
    assert found is not None
    return found


def test_a_uuid_is_one_pair_and_a_pair_one_uuid() -> None:
    pairs = [halves(text) for text in (*UUIDS, *EDGES)]
    assert all(0 <= half < 2**63 for pair in pairs for half in pair)
    heads, tails = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    assert id_texts(heads, tails).to_pylist() == [*UUIDS, *EDGES]
    assert id_text(*pairs[3]) == UUIDS[3]
    assert sequence_numbers(heads, tails).null_count == len(pairs)


def test_pairs_sort_as_the_texts_do() -> None:
    close = ["00000000-0000-0000-9000-000000000001", "00000000-0000-0000-a000-000000000000", "00000000-0000-0001-8000-000000000000"]
    texts = [*UUIDS, *EDGES, *close]
    assert sorted(texts) == sorted(texts, key=halves)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        UUIDS[0].upper(),
        UUIDS[0].replace("-", ""),
        "{" + UUIDS[0] + "}",
        UUIDS[0] + "0",
        UUIDS[0][:19] + "7" + UUIDS[0][20:],
        "g" + UUIDS[0][1:],
    ],
)
def test_other_texts_are_no_uuids(text: str) -> None:
    assert uuid_halves(text) is None


def test_numbers_and_uuids_stand_side_by_side() -> None:
    head, tail = halves(UUIDS[0])
    numbers, tails = np.array([7, head, 2**63 - 1], np.int64), np.array([NO_TAIL, tail, NO_TAIL], np.int64)
    assert id_texts(numbers, tails).to_pylist() == ["7", UUIDS[0], "9223372036854775807"]
    assert sequence_numbers(numbers, tails).to_pylist() == [7, None, 2**63 - 1]
    assert id_texts(numbers[:0], tails[:0]).to_pylist() == []
    assert id_text(7, NO_TAIL) == "7"


def traded(texts: list[str], second: int, offset: int):  # noqa: ANN201
    # One record whose trades, all at one time, have these ids.
    pairs = [halves(text) for text in texts]
    batch, decoded = batch_of([frame(*(trade(head, START + second * SECOND) for head, _ in pairs))], offset)
    trades = replace(decoded.trades, id_tail=np.array([tail for _, tail in pairs], np.int64))
    return batch, Decoded(trades, [], 0)


def minute(store: Store) -> dict[str, object]:
    row = store.candle()
    assert row is not None
    return row


@pytest.mark.parametrize("cut", [False, True])
def test_ids_that_share_their_heads_are_told_apart(cut: bool) -> None:
    a, b, c = (f"a9188a0a-82bc-50de-be60-03eedbe3cd{k}" for k in ("d7", "d8", "e0"))
    assert len({halves(text)[0] for text in (a, b, c)}) == 1
    shard, store = new_shard(RULES), Store()
    for offset, texts in enumerate(([b], [b, a], [c, b], [a, c])):
        store.take(shard.apply(*traded(texts, 5, offset)))
        if cut:
            shard = reload(shard, RULES)
    silver = store.rows["silver_trades"]
    assert [row["trade_id"] for row in silver] == [b, a, c]
    assert {row["sequence_number"] for row in silver} == {None}
    assert [row["trade_id"] for row in store.rows["bronze_trades_binance"]] == [b, b, a, c, b, a, c]
    row = minute(store)
    assert (row["trade_count"], row["first_trade_id"], row["last_trade_id"]) == (3, a, c)


def test_late_trades_of_an_evicted_window_are_merged_in_the_order_of_their_ids() -> None:
    shard, store = new_shard(RULES), Store()
    store.take(shard.apply(*batch_of([marker(START - SECOND, START + 3600 * SECOND)], 0)))
    late = random.Random(7).sample(UUIDS, 20)
    for offset, text in enumerate(late, 1):
        store.take(shard.apply(*traded([text], 5, offset)))
    row = minute(store)
    assert (row["trade_count"], row["first_trade_id"], row["last_trade_id"]) == (20, min(late), max(late))


def test_an_id_that_is_too_old_is_named_in_full() -> None:
    rules = Rules(contiguous_ids=False, dedup_horizon_us=10 * SECOND)
    shard, store = new_shard(rules), Store()
    for offset, (text, second) in enumerate(((UUIDS[0], 50), (UUIDS[1], 5))):
        store.take(shard.apply(*traded([text], second, offset)))
    (letter,) = store.rows["dead_letters"]
    assert letter["reason"] == "too_old_to_deduplicate"
    assert UUIDS[1] in letter["detail"]


def halved(records, offset: int):  # noqa: ANN001, ANN201
    # The same batch with each number n as the pair (n // 8, n % 8).
    batch, decoded = batch_of(records, offset)
    numbers = decoded.trades.trade_id
    return batch, Decoded(replace(decoded.trades, trade_id=numbers >> 3, id_tail=numbers & 7), [], 0)


@pytest.mark.parametrize("seed", range(12))
def test_pairs_do_what_the_numbers_do_that_they_stand_for(seed: int) -> None:
    dice = random.Random(seed)
    log = random_log(dice, records=120, trouble=0.5, jumping=True)
    rules = Rules(contiguous_ids=False, dedup_horizon_us=dice.choice((5, 60, 7200)) * SECOND)
    numbers, pairs = Store(), Store()
    shard, other = new_shard(rules), new_shard(rules)
    at = 0
    while at < len(log):
        some = log[at : at + dice.randint(1, 40)]
        numbers.take(shard.apply(*batch_of(some, at)))
        pairs.take(other.apply(*halved(some, at)))
        shard, other, at = reload(shard, rules), reload(other, rules), at + len(some)
    text = {str(n): id_text(n >> 3, n & 7) for n in (t.id for record in log for t in record.trades)}
    ids = ("trade_id", "first_trade_id", "last_trade_id", "sequence_number", "detail")

    def plain(row: dict[str, object], *, is_pair: bool) -> dict[str, object]:
        named = {k: v if is_pair else text.get(str(v), v) for k, v in row.items() if k in ids[:3]}
        return {**{k: v for k, v in row.items() if k not in ids}, **named}

    for table in ("silver_trades", "bronze_trades_binance", "dead_letters"):
        found, wanted = pairs.rows[table], numbers.rows[table]
        assert [plain(row, is_pair=True) for row in found] == [plain(row, is_pair=False) for row in wanted]
    assert numbers.gold.keys() == pairs.gold.keys()
    for name, table in numbers.gold.items():
        assert {k: plain(row, is_pair=True) for k, row in pairs.gold[name].items()} == {
            k: plain(row, is_pair=False) for k, row in table.items()
        }
