"""The composition root of the flow: settings in, the parts of a flow out. Nothing below it reads settings or the environment."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from config.run_file import update_run
from config.settings import Settings, load_settings
from connectors.instruments import load_instruments
from connectors.topics.base import TopicLog
from connectors.topics.registry import open_log
from connectors.venues.registry import venue
from dataflows import stages
from dataflows.draining import drain_on_signals
from dataflows.engine import Control, ReadLimits, StageLogic, Tables, Topics, sorted_parts
from dataflows.listing import Listing
from dataflows.stores import ColdStore, WarmStore
from market.ahead import compile_ahead
from market.record import RawBatch, exchange_of, shard_key, topic_name
from market.schema import all_tables

Parts = tuple[Topics, Callable[[RawBatch], stages.DecodedBatch], Callable[[bytes | None], StageLogic], Tables, Tables]
"""What a flow connects: the source, the decoder, the shards, both stores."""


@dataclass(slots=True)
class Platform:
    """Everything one process needs to run the flow.

    Attributes:
        control: shared with the running flow: progress, drain request, first failure.
        until: end offset by shard, when the run is bounded.
    """

    settings: Settings
    control: Control = field(default_factory=Control)
    until: dict[str, int] = field(default_factory=dict)
    _log: TopicLog | None = None
    _warm: WarmStore | None = None
    _cold: ColdStore | None = None

    @classmethod
    def from_environment(cls) -> Platform:
        """Build from `K2_*` and config/k2.yaml, draining on SIGTERM and SIGINT."""
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
        platform = cls(load_settings())
        drain_on_signals(platform.control)
        return platform

    @property
    def log(self) -> TopicLog:
        """The topic log, opened once."""
        if self._log is None:
            self._log = open_log(self.settings)
        return self._log

    @property
    def warm(self) -> WarmStore:
        """The warm store, started when it is the embedded one."""
        if self._warm is None:
            self._warm = WarmStore(self.settings, self.exchanges())
        return self._warm

    @property
    def cold(self) -> ColdStore:
        """The cold store."""
        if self._cold is None:
            self._cold = ColdStore(self.settings, self.exchanges())
        return self._cold

    def setups(self) -> dict[str, stages.VenueSetup]:
        """Return decoder, instruments and rules of every exchange in the instruments file."""
        listed = load_instruments(self.settings)
        return {
            name: stages.VenueSetup(venue(name), instruments, self.settings.rules(venue(name).contiguous_ids))
            for name, instruments in listed.items()
        }

    def exchanges(self) -> tuple[str, ...]:
        """Return listed exchanges and those whose topics are still there: saved state of a partition must find it again."""
        held = {exchange for name in self.log.topics() if (exchange := exchange_of(name)) is not None}
        return tuple(sorted(held | set(load_instruments(self.settings))))

    def shards(self) -> dict[str, tuple[str, int]]:
        """Return (exchange, partition) by shard of every topic partition, creating topics that do not exist yet."""
        setups = self.setups()
        for name in setups:
            if topic_name(name) not in self.log.topics():
                self.log.create(topic_name(name), self.settings.partitions)
        return {shard_key(e, p): (e, p) for e in self.exchanges() for p in range(self.log.partitions(topic_name(e)))}

    def frontiers(self) -> dict[str, int]:
        """Return the highest frontier that any table of either store holds, by shard."""
        highest: dict[str, int] = {}
        for _table, shard, offset in [*self.warm.table_frontiers(), *self.cold.table_frontiers()]:
            highest[shard] = max(highest.get(shard, 0), offset)
        return highest

    def expire_raw(self, now_us: int) -> int:
        """Drop raw records that are older than `raw_retention`, below every table's frontier and below the saved position.

        Returns:
            How many; 0 where the broker does this itself or nothing is to be dropped.
        """
        age_us = int(self.settings.raw_retention * 1_000_000)
        saved = dict(self.control.saved)
        if age_us <= 0 or not saved:
            return 0
        lowest = self._lowest_frontiers()
        before: dict[str, dict[int, int]] = {}
        for shard, position in saved.items():
            exchange, partition = shard.rsplit("/", 1)
            before.setdefault(exchange, {})[int(partition)] = min(lowest.get(shard, 0), position)
        return sum(self.log.expire(topic_name(exchange), offsets, now_us - age_us) for exchange, offsets in before.items())

    def _lowest_frontiers(self) -> dict[str, int]:
        # A table without a frontier for a partition has taken nothing in: it counts as 0.
        by_shard: dict[str, dict[str, int]] = {}
        for store in (self.warm, self.cold):
            for table, shard, offset in store.table_frontiers():
                by_shard.setdefault(shard, {})[f"{type(store).__name__} {table}"] = offset
        tables = 2 * len(all_tables(("one",)))
        return {shard: min(held.values()) if len(held) == tables else 0 for shard, held in by_shard.items()}

    def expired_shards(self) -> dict[str, int]:
        """Return the start offset of shards that tables hold rows of and whose log no longer begins at its beginning."""
        frontiers = self.frontiers()
        starts = {shard: self.log.start_offsets(topic_name(e))[p] for shard, (e, p) in self.shards().items()}
        return {shard: start for shard, start in starts.items() if start > 0 and frontiers.get(shard, 0) > 0}

    def parts(self, *, until_end: bool = False) -> Parts:
        """Prepare both stores and return what the flow connects; `until_end`: it ends where the topics end now."""
        compile_ahead()
        listing, shards = Listing(self.settings.instruments, self.setups), self.shards()
        setups = listing.setups
        exchanges = self.exchanges()
        partitions = {e: self.log.partitions(topic_name(e)) for e in exchanges}
        generations = {topic_name(e): self.log.generation(topic_name(e)) for e in exchanges}
        if until_end:
            ends = {e: self.log.end_offsets(topic_name(e)) for e in exchanges}
            self.until = {shard: ends[e][p] for shard, (e, p) in shards.items()}
        self.warm.prepare()
        self.cold.prepare()
        topics = Topics(
            open_log=functools.partial(open_log, self.settings),
            exchanges=exchanges,
            control=self.control,
            limits=ReadLimits(
                self.settings.batch_records, self.settings.epoch_records, timedelta(seconds=float(self.settings.poll_interval))
            ),
            until=self.until,
            parked=frozenset(exchanges) - frozenset(setups),
            frontiers=self.frontiers(),
            partitions=partitions,
        )
        return (
            topics,
            listing.decode,
            functools.partial(stages.shard_logic, setups, self.control),
            Tables(sorted_parts(list(shards)), functools.partial(self.warm.open_writer, generations), self.control),
            Tables(sorted_parts([t.name for t in all_tables(exchanges)]), self.cold.open_writer, self.control),
        )

    @contextlib.contextmanager
    def registered(self) -> Iterator[None]:
        """Keep this process's id in the home's run file while the flow runs."""
        home = self.settings.home
        update_run(home, topics=self.settings.topics_url, cold=self.settings.cold_url, pids={"flow": [os.getpid()]})
        try:
            yield
        finally:
            update_run(home, pids={"flow": []})

    def close(self) -> None:
        """Release connections and threads."""
        for part in (self._warm, self._cold, self._log):
            if part is not None:
                part.close()
