"""What the composition root itself decides: which raw records may go."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import cast

from config.settings import Settings
from connectors.topics.memory import MemoryTopics
from dataflows.composition import Platform
from dataflows.engine import Control
from dataflows.stores import ColdStore, WarmStore
from market.schema import all_tables
from tests.feeding import TOPIC
from tests.records import numbered

TABLES = [table.name for table in all_tables(("binance",))]


class Held:
    """A store that has taken in so much of a shard, in so many of its tables."""

    def __init__(self, offset: int, tables: list[str]) -> None:
        self._offset, self._tables = offset, tables

    def table_frontiers(self) -> Iterator[tuple[str, str, int]]:
        return ((table, "binance/00", self._offset) for table in self._tables)


class HeldElsewhere(Held):
    pass


def starts_after(tmp_path: Path, *, warm: Held, cold: Held, saved: dict[str, int], now_us: int = 10_000_000) -> list[int]:
    log = MemoryTopics(now_us=lambda: 1_000_000)
    log.create(TOPIC, 2)
    for first in (0, 10):
        log.append(TOPIC, {p: numbered(first, 10) for p in range(2)})
    # The instruments file is not there: who drops records asks nobody what is listed, and creates no topics.
    settings = Settings(home=tmp_path, instruments=tmp_path / "gone.yaml", raw_retention=Decimal(5))
    platform = Platform(settings, Control(saved=saved), {}, log, cast("WarmStore", warm), cast("ColdStore", cold))
    dropped = platform.expire_raw(now_us)
    assert dropped == sum(log.start_offsets(TOPIC))
    return log.start_offsets(TOPIC)


def test_raw_records_go_below_every_frontier_and_the_saved_position(tmp_path: Path) -> None:
    assert starts_after(tmp_path, warm=Held(20, TABLES), cold=HeldElsewhere(20, TABLES), saved={"binance/00": 20}) == [20, 0]
    assert starts_after(tmp_path, warm=Held(10, TABLES), cold=HeldElsewhere(20, TABLES), saved={"binance/00": 20}) == [10, 0]
    assert starts_after(tmp_path, warm=Held(20, TABLES), cold=HeldElsewhere(19, TABLES), saved={"binance/00": 20}) == [10, 0]
    assert starts_after(tmp_path, warm=Held(20, TABLES), cold=HeldElsewhere(20, TABLES), saved={"binance/00": 12}) == [10, 0]


def test_raw_records_stay_while_a_table_has_taken_nothing_in_or_they_are_young(tmp_path: Path) -> None:
    everywhere = HeldElsewhere(20, TABLES)
    assert starts_after(tmp_path, warm=Held(20, TABLES[1:]), cold=everywhere, saved={"binance/00": 20}) == [0, 0]
    assert starts_after(tmp_path, warm=Held(20, TABLES), cold=everywhere, saved={"binance/00": 20, "binance/01": 20}) == [20, 0]
    assert starts_after(tmp_path, warm=Held(20, TABLES), cold=everywhere, saved={"binance/00": 20}, now_us=6_000_000) == [0, 0]
