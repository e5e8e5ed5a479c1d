"""Both stores as the engine's writers: opened from settings, positions in saved state, finished at the end of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Final

from pyiceberg.catalog import Catalog

from config.settings import Settings
from dataflows.engine import Writer
from dataflows.opening import Opener
from market.errors import SchemaMismatch
from market.output import TableOutput
from market.record import shard_of, topic_name
from market.schema import all_tables
from sinks.clickhouse import WarmReader
from sinks.clickhouse import prepare as prepare_warm
from sinks.clickhouse.warm import ClickHouseWarm, WarmPartition
from sinks.endpoint import Endpoint
from sinks.iceberg import ColdReader, open_catalog
from sinks.iceberg import prepare as prepare_cold
from sinks.iceberg.table import ColdTable
from sinks.warm_store import ensure

STATE_VERSION: Final = 1
DRAIN_SECONDS: Final = 300.0  # how long the end of a run waits for the catalog
WARM_OPENED_AT_ONCE: Final = 4
COLD_OPENED_AT_ONCE: Final = 6  # mostly waiting for the catalog


def warm_endpoint(settings: Settings) -> Endpoint:
    """Return the ClickHouse server of the settings; the embedded one is started unless it runs."""
    if settings.warm_is_embedded:
        return ensure(settings.home)
    password = settings.warm_password.get_secret_value()
    return Endpoint(settings.warm_url, settings.warm_user, password, settings.warm_user, password)


class WarmStore:
    """ClickHouse: one writer per topic partition."""

    def __init__(self, settings: Settings, exchanges: tuple[str, ...]) -> None:
        self._settings = settings
        self._tables = all_tables(exchanges)
        self._warm: ClickHouseWarm | None = None
        self._opener = Opener(WARM_OPENED_AT_ONCE, "warm-open")

    def prepare(self) -> None:
        """Create what is missing; raises `SchemaMismatch` where a table has another shape."""
        prepare_warm(warm_endpoint(self._settings), self._tables)

    def table_frontiers(self) -> Iterator[tuple[str, str, int]]:
        """Yield (table, shard, offset) of every table."""
        with WarmReader(warm_endpoint(self._settings)) as reader:
            rows = reader.frontiers()
        for row in rows:
            yield row.table, shard_of(row.topic, row.partition), row.offset

    def open_writer(self, generations: Mapping[str, str], shard: str, state: bytes | None) -> Writer:
        """Claim a topic partition of all tables."""
        warm = self._warm = self._warm or ClickHouseWarm(lambda: warm_endpoint(self._settings), self._tables)
        exchange, partition = shard.rsplit("/", 1)
        topic = topic_name(exchange)
        offset = _load_position(state) if state is not None else None
        return self._opener.submit(lambda: _WarmWriter(warm.open(exchange, topic, int(partition), generations[topic], offset), offset or 0))

    def close(self) -> None:
        """Open nothing more and stop the inserters."""
        self._opener.close()
        if self._warm is not None:
            self._warm.close()


class _WarmWriter:
    def __init__(self, partition: WarmPartition, position: int) -> None:
        self._partition, self._position = partition, position

    def write(self, output: TableOutput) -> None:
        self._partition.write(output)
        self._position = output.next_offset

    def snapshot(self) -> bytes:
        self._partition.commit()
        return json.dumps({"version": STATE_VERSION, "offset": self._position}).encode()

    def finish(self) -> None:
        self._partition.abort()  # every epoch was committed at its barrier

    def abort(self) -> None:
        self._partition.abort()


def _load_position(state: bytes) -> int:
    saved = json.loads(state)
    if saved["version"] != STATE_VERSION:
        raise SchemaMismatch(f"saved state of the warm sink has version {saved['version']}, this is {STATE_VERSION}: run `k2 recover`")
    return int(saved["offset"])


class ColdStore:
    """Iceberg: one writer per table."""

    def __init__(self, settings: Settings, exchanges: tuple[str, ...]) -> None:
        self._settings = settings
        self._tables = {t.name: t for t in all_tables(exchanges)}
        self._opener = Opener(COLD_OPENED_AT_ONCE, "cold-open")
        self._shared: Catalog | None = None

    def prepare(self) -> None:
        """Create what is missing; raises `SchemaMismatch` where a table has another shape."""
        prepare_cold(open_catalog(self._settings.cold_url), tuple(self._tables.values()))

    def table_frontiers(self) -> Iterator[tuple[str, str, int]]:
        """Yield (table, shard, offset) of every table."""
        for row in ColdReader(open_catalog(self._settings.cold_url)).frontiers():
            yield row.table, shard_of(row.topic, row.partition), row.offset

    def open_writer(self, name: str, state: bytes | None) -> Writer:
        """Claim a table and bring what its saved state still owes it."""
        url = self._settings.cold_url
        if url.startswith("sqlite:") and self._shared is None:
            # One for all threads: each of its own would compile every statement again. The session of a REST catalog is for one.
            self._shared = open_catalog(url)

        def opened() -> Writer:
            interval = float(self._settings.commit_interval)
            table = ColdTable(self._shared or open_catalog(url), self._tables[name], commit_interval_s=interval)
            table.open(state)
            return _ColdWriter(table)

        return self._opener.submit(opened)

    def close(self) -> None:
        """Open nothing more."""
        self._opener.close()


class _ColdWriter:
    def __init__(self, table: ColdTable) -> None:
        self._table = table
        self.write = table.write
        self.snapshot = table.snapshot

    def finish(self) -> None:
        try:
            self._table.drain(DRAIN_SECONDS)
        finally:
            self._table.close()

    def abort(self) -> None:
        self._table.close()
