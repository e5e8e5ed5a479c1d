"""The adapter on the real engine, with a log in memory, a counting stage and a sink that keeps what it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import bytewax.operators as op
import pyarrow as pa
import pytest
from bytewax._bytewax import cli_main
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir

from connectors.topics.base import APPEND_SCHEMA
from connectors.topics.memory import MemoryTopics
from dataflows.engine import Control, ReadLimits, StageLogic, Tables, Topics
from market.errors import PositionLost, Refused
from market.output import TableOutput
from market.record import RawBatch

TOPIC = "raw.trades.binance"


def payloads(*values: str) -> pa.RecordBatch:
    rows = [{"key": "", "source": "live", "received_us": 1, "kind": None, "extra_headers": None, "payload": v.encode()} for v in values]
    return pa.RecordBatch.from_pylist(rows, schema=APPEND_SCHEMA)


@dataclass
class Store:
    """What survives a crash: committed rows per partition, and switches to fail."""

    rows: list[str] = field(default_factory=list)
    finished: int = 0
    fail_at: str | None = None
    on_row: Callable[[], None] = lambda: None


@dataclass
class KeepingWriter:
    store: Store
    pending: list[str] = field(default_factory=list)

    def write(self, output: TableOutput) -> None:
        for value in output.rows.column(0).to_pylist():
            if value == self.store.fail_at:
                raise Refused(f"refused {value}")
            self.pending.append(value)
            self.store.on_row()

    def snapshot(self) -> bytes:
        self.store.rows += self.pending
        self.pending = []
        return b"{}"

    def finish(self) -> None:
        self.store.finished += 1

    def abort(self) -> None:
        self.pending = []


class Numbering:
    """A stage whose rows show its state: `value@count`."""

    def __init__(self, state: bytes | None) -> None:
        self.count = int(state or b"0")

    def apply(self, batch: RawBatch) -> list[TableOutput]:
        out = []
        for payload in batch.records.column("payload").to_pylist():
            self.count += 1
            out.append(f"{payload.decode()}@{self.count}")
        rows = pa.record_batch({"value": pa.array(out, pa.string())})
        return [TableOutput("t", batch.exchange, batch.topic, batch.partition, batch.generation, 0, batch.next_offset, rows)]

    def dump(self) -> bytes:
        return str(self.count).encode()


@dataclass
class Bench:
    folder: Path
    log: MemoryTopics
    store: Store = field(default_factory=Store)

    def run(self, control: Control | None = None, **source: object) -> Control:
        control = control or Control()
        ends = {f"binance/{p:02d}": end for p, end in enumerate(self.log.end_offsets(TOPIC))}
        arguments = {"exchanges": ("binance",), "until": ends, "limits": ReadLimits(batch_records=2), **source}
        topics = Topics(open_log=lambda: self.log, control=control, partitions={"binance": 2}, **arguments)  # type: ignore[arg-type]
        flow = Dataflow("test")
        numbered = op.stateful_batch("number", op.input("in", flow, topics), lambda state: StageLogic(control, Numbering(state)))
        sink = Tables(("binance/00", "binance/01"), lambda _name, _state: KeepingWriter(self.store), control)
        op.output("out", numbered, sink)
        try:
            cli_main(flow, epoch_interval=timedelta(0), recovery_config=RecoveryConfig(self.folder, timedelta(0)))
        except BaseException:
            if control.failure is None:
                raise
        return control


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    init_db_dir(tmp_path, 1)
    log = MemoryTopics()
    log.create(TOPIC, 2)
    log.append(TOPIC, {0: payloads("a", "b", "c"), 1: payloads("x")})
    return Bench(tmp_path, log)


def test_bounded_run_reads_to_the_end_and_finishes_its_writers(bench: Bench) -> None:
    control = bench.run()
    assert control.failure is None
    assert sorted(bench.store.rows) == ["a@1", "b@2", "c@3", "x@1"]
    assert bench.store.finished == 2


def test_second_run_continues_position_and_state(bench: Bench) -> None:
    bench.run()
    bench.log.append(TOPIC, {0: payloads("d")})
    bench.run()
    assert sorted(bench.store.rows) == ["a@1", "b@2", "c@3", "d@4", "x@1"]


def test_failure_in_a_writer_is_kept_and_what_was_saved_is_not_repeated(bench: Bench) -> None:
    bench.store.fail_at = "c@3"
    control = bench.run()
    assert isinstance(control.failure, Refused)
    assert bench.store.finished == 0
    bench.store.fail_at = None
    assert bench.run().failure is None
    assert sorted(bench.store.rows) == ["a@1", "b@2", "c@3", "x@1"]


def test_drain_request_ends_an_unbounded_run_and_keeps_its_position(bench: Bench) -> None:
    control = Control()
    bench.store.on_row = control.draining.set
    bench.run(control=control, until={})
    assert bench.store.rows
    bench.store.on_row = lambda: None
    bench.run()
    assert sorted(bench.store.rows) == ["a@1", "b@2", "c@3", "x@1"]


def test_recreated_topic_is_refused_with_the_way_out(bench: Bench) -> None:
    bench.run()
    bench.log = MemoryTopics()
    bench.log.create(TOPIC, 2)
    bench.log.append(TOPIC, {0: payloads("z", "z", "z", "z")})
    control = bench.run()
    assert isinstance(control.failure, Refused)
    assert "another topic" in str(control.failure)


def test_expired_log_without_saved_state_is_refused_when_tables_hold_its_rows(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.log, "start_offsets", lambda _topic: [1, 0])
    control = bench.run(frontiers={"binance/00": 3})
    assert isinstance(control.failure, PositionLost)
    assert "k2 recover" in str(control.failure)


def test_parked_exchange_is_not_read(bench: Bench) -> None:
    control = bench.run(parked=frozenset({"binance"}))
    assert control.failure is None
    assert bench.store.rows == []
