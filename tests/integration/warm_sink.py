"""The ClickHouse sink on a served engine of its own: fixtures and what its tests ask."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from market.schema import DEAD_LETTERS, OHLCV, SILVER_TRADES, Layer, Table, bronze_table
from sinks import warm_store
from sinks.clickhouse import WarmReader, prepare
from sinks.clickhouse.warm import ClickHouseWarm, WarmPartition
from sinks.endpoint import Endpoint, ask
from tests.integration.warm_outputs import (
    EXCHANGE,
    GENERATION,
    PER_RECORD,
    TABLES,
    TOPIC,
    raw_batch,
)

BRONZE = bronze_table(EXCHANGE)
CANDLES = OHLCV["1m"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("warm")
    warm_store.ensure(folder)
    yield folder
    warm_store.stop(folder)


@pytest.fixture
def endpoint(home: Path) -> Endpoint:
    found = warm_store.ensure(home)
    assert ask(found, "DROP DATABASE IF EXISTS k2 SYNC", 20) == ""
    prepare(found, TABLES)
    return found


@pytest.fixture
def reader(endpoint: Endpoint) -> Iterator[WarmReader]:
    with WarmReader(endpoint) as opened:
        yield opened


@pytest.fixture
def new_sink(endpoint: Endpoint) -> Iterator[Callable[..., ClickHouseWarm]]:
    opened = []

    def make(provider: Callable[[], Endpoint] = lambda: endpoint, **options: int) -> ClickHouseWarm:
        opened.append(ClickHouseWarm(provider, TABLES, **options))
        return opened[-1]

    yield make
    for sink in opened:
        sink.close()


Sinks = Callable[..., ClickHouseWarm]


def opened(sink: ClickHouseWarm, resume: int | None = None, partition: int = 0) -> WarmPartition:
    return sink.open(EXCHANGE, TOPIC, partition, GENERATION, resume)


def write(part: WarmPartition, first: int, count: int, partition: int = 0) -> None:
    for each in raw_batch(first, count, partition):
        part.write(each)


def causes(reader: WarmReader, table: Table, partition: int = 0) -> list[tuple[int, int]]:
    names = ("kafka_offset", "kafka_partition") if table.layer is Layer.BRONZE else ("source_offset", "source_partition")
    found = reader.read_table(table, f"{names[1]} = {{p:Int64}}", {"p": partition}, columns=[names[0], "source_index"])
    return sorted(zip(found[0].to_pylist(), found[1].to_pylist(), strict=True))


def expected(first: int, end: int) -> list[tuple[int, int]]:
    return [(offset, index) for offset in range(first, end) for index in range(PER_RECORD)]


def assert_exactly_once(reader: WarmReader, end: int, partition: int = 0) -> None:
    for table in (BRONZE, SILVER_TRADES):
        assert causes(reader, table, partition) == expected(0, end), table.name
    assert causes(reader, DEAD_LETTERS, partition) == [(offset, 0) for offset in range(0, end, 97)]


def frontiers(reader: WarmReader, partition: int = 0) -> dict[str, int]:
    return {f.table: f.offset for f in reader.frontiers() if f.partition == partition}


def newest_candles(reader: WarmReader) -> list[dict[str, object]]:
    return reader.arrow("SELECT * FROM k2.ohlcv_1m_view ORDER BY window_start").to_pylist()


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
