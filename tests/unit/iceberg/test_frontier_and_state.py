"""Frontiers in snapshot summaries, and what waits in saved state."""

from __future__ import annotations

import json

import pytest

from market.errors import SchemaMismatch
from sinks.iceberg.frontier import Position, from_json, to_json
from sinks.iceberg.parquet import FileNote
from sinks.iceberg.state import Pending, SavedState

FRONTIER = {("raw.trades.binance", 0): Position("g-1", 12), ("raw.trades.binance_usdm", 11): Position("Zm9v/YmFy", 1 << 40)}
NOTE = FileNote("file:///a/b=1/c.parquet", 3, 1000, 19000, "binance", "raw.trades.binance", {0: (5, 9), 3: (1, 1)})


def test_a_frontier_survives_json() -> None:
    text = json.dumps(to_json(FRONTIER))
    assert from_json(json.loads(text)) == FRONTIER
    assert json.loads(text)["raw.trades.binance_usdm/11"] == {"generation": "Zm9v/YmFy", "offset": 1 << 40}


def test_saved_state_survives_its_bytes() -> None:
    pending = (
        Pending(FRONTIER, (NOTE,), (), 3, 2),
        Pending(FRONTIER, (), (b"one", b"", b"three" * 1000), 7),
    )
    state = SavedState("cold.x", "uuid", {("raw.trades.binance", 0): Position("g-1", 2)}, pending)
    back = SavedState.decode(state.encode())
    assert (back.table, back.uuid, back.base, tuple(back.pending)) == (state.table, state.uuid, state.base, pending)


@pytest.mark.parametrize("data", [b"", b"K2I", b"PAR1\x01\x02\x00\x00\x00{}", b"K2IC\x02\x02\x00\x00\x00{}"])
def test_other_bytes_are_refused_and_the_way_out_is_named(data: bytes) -> None:
    with pytest.raises(SchemaMismatch, match="k2 recover"):
        SavedState.decode(data)


def test_epochs_are_joined_in_order() -> None:
    later = {("raw.trades.binance", 0): Position("g-1", 20)}
    joined = Pending(FRONTIER, (NOTE,), (b"a",), 3).then(Pending(later, (), (b"b",), 2))
    assert joined == Pending(later, (NOTE,), (b"a", b"b"), 5, 2)


def test_epochs_without_rows_only_move_the_frontier() -> None:
    # However long a table stays quiet, nothing piles up.
    joined = Pending(FRONTIER, (NOTE,), (), 3)
    for _ in range(100):
        joined = joined.then(Pending(FRONTIER))
    assert joined.epochs == 1
