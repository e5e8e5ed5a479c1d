"""The Bytewax adapter: the only place, with the flow files, that knows which engine runs us.

What we need from an engine is little: aligned epochs; the positions, states and sinks of an epoch saved together before the
next one is read; restart from the last saved epoch. Four operators give that: an input with partitions, a map, a keyed
stateful step and outputs with partitions. Built-in windows are not used, since here time is data (docs/decisions/0002).

Step ids are constants and part of the saved state's key: renaming one is a migration.
"""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol, TypeVar

import structlog
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from connectors.topics.base import TopicLog
from market.errors import PipelineError, PositionLost, Refused, SchemaMismatch
from market.output import TableOutput
from market.record import RawBatch, shard_key, topic_name

log = structlog.get_logger()
POSITION_VERSION: Final = 1
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(slots=True)
class Control:
    """What the process tells its partitions, and they it: drain request, first failure, progress."""

    draining: threading.Event = field(default_factory=threading.Event)
    failure: BaseException | None = None
    position: dict[str, int] = field(default_factory=dict)  # shard -> next offset to read
    saved: dict[str, int] = field(default_factory=dict)  # shard -> a position that the engine has certainly saved
    records: int = 0  # records read in this run

    def failed(self, error: BaseException) -> None:
        """Keep the first failure: the engine wraps or loses it on its way out."""
        if self.failure is None:
            self.failure = error


def _guarded(method: _F) -> _F:
    # In a cluster the engine prints no traceback of user code, so it is logged where it happens.
    @functools.wraps(method)
    def inner(self: Any, *args: Any) -> Any:
        try:
            return method(self, *args)
        except StopIteration:
            raise
        except BaseException as error:
            self.control.failed(error)
            if not isinstance(error, PipelineError):
                log.exception("step_failed", step=method.__qualname__)
            raise

    return inner  # type: ignore[return-value]


# ---------------------------------------------------------------------------------------------------------------- input


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """How a source partition reads."""

    batch_records: int = 20_000
    epoch_records: int = 1_000_000  # there is no back-pressure between workers inside an epoch
    poll_interval: timedelta = timedelta(milliseconds=50)


@dataclass(frozen=True, slots=True)
class Topics(FixedPartitionedSource[RawBatch, bytes]):
    """All partitions of the raw topics of some exchanges, each one source partition `binance/03`.

    `until` gives, per shard, the offset at which the run ends; empty: follow for ever. `parked` exchanges have a topic but
    are not listed any more: their partitions stay known to the engine and are not read.
    """

    open_log: Callable[[], TopicLog]
    exchanges: tuple[str, ...]
    control: Control
    limits: ReadLimits = ReadLimits()
    until: dict[str, int] = field(default_factory=dict)
    parked: frozenset[str] = frozenset()
    frontiers: dict[str, int] = field(default_factory=dict)  # highest stored frontier per shard, to judge an expired log
    partitions: dict[str, int] = field(default_factory=dict)  # exchange -> count, asked when the flow is built
    _shared: list[TopicLog] = field(default_factory=list)

    def list_parts(self) -> list[str]:
        """Return every topic partition; fixed for the life of a topic."""
        return [shard_key(exchange, p) for exchange in self.exchanges for p in range(self.partitions[exchange])]

    def build_part(self, step_id: str, for_part: str, resume_state: bytes | None) -> TopicPart:
        """Open one partition at its saved position, or at the start of the log."""
        del step_id
        if not self._shared:
            self._shared.append(self.open_log())
        exchange, number = for_part.rsplit("/", 1)
        try:
            return TopicPart(self, self._shared[0], exchange, int(number), resume_state)
        except BaseException as error:
            self.control.failed(error)
            raise


class TopicPart(StatefulSourcePartition[RawBatch, bytes]):
    """One topic partition. Never blocks for new records; its state is the position of the next read."""

    def __init__(self, source: Topics, topics: TopicLog, exchange: str, partition: int, state: bytes | None) -> None:
        self.source, self.topics, self.control = source, topics, source.control
        self.exchange, self.partition, self.topic = exchange, partition, topic_name(exchange)
        self.shard = shard_key(exchange, partition)
        self.generation = topics.generation(self.topic)
        self.parked = exchange in source.parked
        self.offset = self._resume(state)
        self.epoch_records = 0
        self.idle = False
        self.snapshotted: int | None = None
        self.control.position[self.shard] = self.offset

    def _resume(self, state: bytes | None) -> int:
        count = self.topics.partitions(self.topic)
        if state is None:
            start = self.topics.start_offsets(self.topic)[self.partition]
            if self.source.frontiers.get(self.shard, 0) > 0 and start > 0:
                raise PositionLost(
                    f"{self.topic} partition {self.partition} starts at offset {start}, tables already hold rows of it, and there is no saved "
                    "state to continue from: which trade ids were seen is lost. Restore the recovery folder from its backup (see `k2 recover --help`)"
                )
            log.info("started_at_log_start", shard=self.shard, offset=start, stored=self.source.frontiers.get(self.shard, 0))
            return start
        saved = json.loads(state)
        if saved["version"] != POSITION_VERSION:
            raise SchemaMismatch(
                f"saved position of {self.shard} has version {saved['version']}, this is {POSITION_VERSION}: run `k2 recover`"
            )
        if saved["generation"] != self.generation:
            raise Refused(
                f"{self.topic} is another topic than the one the saved state comes from (generation {self.generation}, saved "
                f"{saved['generation']}): it was deleted and created again. Point K2_TOPICS_URL at the old log, or use a new K2_HOME for the new one"
            )
        if saved["partitions"] != count:
            raise Refused(
                f"{self.topic} has {count} partitions, the saved state was made with {saved['partitions']}: the count is fixed for a "
                "topic's life. Create a new topic, or restore the old count"
            )
        return int(saved["offset"])

    @_guarded
    def next_batch(self) -> Iterable[tuple[str, RawBatch]]:
        """Return at most one batch; raises `StopIteration` when draining or at the requested end."""
        if self.control.draining.is_set():
            raise StopIteration
        end = self.source.until.get(self.shard)
        if end is not None and self.offset >= end:
            raise StopIteration
        limits = self.source.limits
        room = min(limits.batch_records, limits.epoch_records - self.epoch_records)
        if end is not None:
            room = min(room, end - self.offset)
        records = None if self.parked or room <= 0 else self.topics.read(self.topic, self.partition, self.offset, room)
        self.idle = records is None or records.num_rows < room  # all there was: what comes next is gathered until the next instant
        if records is None:
            if self.parked and self.source.until:
                raise StopIteration
            return []
        self.offset = records.column("offset")[-1].as_py() + 1
        self.epoch_records += records.num_rows
        self.control.records += records.num_rows
        self.control.position[self.shard] = self.offset
        return [(self.shard, RawBatch(self.exchange, self.topic, self.partition, self.generation, self.offset, records))]

    def next_awake(self) -> datetime | None:
        """Poll again at once after a full batch, else at the next multiple of the poll interval.

        All partitions wait for the same instants, so that what they find goes into the same inserts.
        """
        if not self.idle:
            return None
        interval = self.source.limits.poll_interval
        return EPOCH + ((datetime.now(UTC) - EPOCH) // interval + 1) * interval

    @_guarded
    def snapshot(self) -> bytes:
        """Return the position of the next read; a new epoch's quota begins."""
        self.epoch_records = 0
        if self.snapshotted is not None:
            self.control.saved[self.shard] = self.snapshotted  # another epoch has begun since, so that one was saved
        self.snapshotted = self.offset
        count = self.source.partitions[self.exchange]
        return json.dumps({"version": POSITION_VERSION, "generation": self.generation, "partitions": count, "offset": self.offset}).encode()


# --------------------------------------------------------------------------------------------------------------- stages


class Stage(Protocol):
    """Keyed state: batches in, table outputs out, state as bytes."""

    def apply(self, batch: Any) -> list[TableOutput]:
        """Take one batch in."""

    def dump(self) -> bytes:
        """Return the whole state; not changed by anything that happens later."""


class StageLogic(StatefulBatchLogic[Any, TableOutput, bytes]):
    """Runs a `Stage` in a keyed stateful step; keys are few and permanent, so none is ever discarded."""

    def __init__(self, control: Control, stage: Stage) -> None:
        self.control, self.stage = control, stage

    @_guarded
    def on_batch(self, values: list[Any]) -> tuple[list[TableOutput], bool]:
        """Apply the batches in order."""
        return [output for value in values for output in self.stage.apply(value)], StatefulBatchLogic.RETAIN

    @_guarded
    def snapshot(self) -> bytes:
        """Return the state at the end of the epoch."""
        return self.stage.dump()


# -------------------------------------------------------------------------------------------------------------- outputs


class Writer(Protocol):
    """One sink partition: takes outputs, makes them durable at the barrier."""

    def write(self, output: TableOutput) -> None:
        """Take rows; may block for back-pressure only."""

    def snapshot(self) -> bytes:
        """Make what was written durable, or describe it in the returned state; part of the engine's barrier."""

    def finish(self) -> None:
        """The run ended well: bring everything to the store."""

    def abort(self) -> None:
        """The run failed: let go of everything. Never raises."""


@dataclass(frozen=True, slots=True)
class Tables(FixedPartitionedSink[TableOutput, bytes]):
    """A destination whose partitions are named; an item's key names its partition."""

    parts: tuple[str, ...]  # sorted
    open_writer: Callable[[str, bytes | None], Writer]
    control: Control

    def list_parts(self) -> list[str]:
        """Return the names; fixed, so that saved state always finds its partition."""
        return list(self.parts)

    def part_fn(self, item_key: str) -> int:
        """Return the position of the named partition."""
        return self.parts.index(item_key)

    def build_part(self, step_id: str, for_part: str, resume_state: bytes | None) -> TablesPart:
        """Open the writer; claims what it writes to."""
        del step_id
        try:
            return TablesPart(self.control, self.open_writer(for_part, resume_state))
        except BaseException as error:
            self.control.failed(error)
            raise


class TablesPart(StatefulSinkPartition[TableOutput, bytes]):
    """One sink partition. Delivery: exactly once, by the writer's frontier."""

    def __init__(self, control: Control, writer: Writer) -> None:
        self.control, self.writer = control, writer

    @_guarded
    def write_batch(self, values: list[TableOutput]) -> None:
        """Hand the outputs to the writer."""
        for value in values:
            self.writer.write(value)

    @_guarded
    def snapshot(self) -> bytes:
        """Close the epoch in this partition."""
        return self.writer.snapshot()

    def close(self) -> None:
        """Finish after a good run, abort while an exception unwinds; must not raise (the process would abort)."""
        try:
            if self.control.failure is None:
                self.writer.finish()
            else:
                self.writer.abort()
        except BaseException as error:
            self.control.failed(error)
            log.error("finish_failed", error=str(error))  # noqa: TRY400 the traceback is kept in `failure`


def sorted_parts(names: Sequence[str]) -> tuple[str, ...]:
    """Return sink partition names in the order in which the engine counts them."""
    return tuple(sorted(names))
