"""The flow: raw topics in, bronze, silver, candles and the truth tables out, to both stores.

    read_raw ──▶ decode_frames ──▶ sequence_and_fold ──┬▶ write_warm   ClickHouse, one partition per topic partition
                                                       └▶ write_cold   Iceberg, one partition per table

One item is one Arrow batch of one topic partition. Run it with `python -m bytewax.run dataflows.ohlcv` (settings from `K2_*`
and config/k2.yaml) or with `k2 run`, which adds the recovery folder, the lock and the wait for the last commits.
"""

from __future__ import annotations

from collections.abc import Callable

import bytewax.operators as op
from bytewax.dataflow import Dataflow

from dataflows.composition import Platform
from dataflows.engine import StageLogic, Tables, Topics
from dataflows.stages import DecodedBatch
from market.output import TableOutput
from market.record import RawBatch


def wire(
    topics: Topics,
    decode: Callable[[RawBatch], DecodedBatch],
    shards: Callable[[bytes | None], StageLogic],
    warm: Tables,
    cold: Tables,
) -> Dataflow:
    """Connect sources, steps and sinks; step ids are part of the saved state's key."""
    flow = Dataflow("ohlcv")
    raw = op.input("read_raw", flow, topics)
    decoded = op.map_value("decode_frames", raw, decode)
    tables = op.stateful_batch("sequence_and_fold", decoded, shards)
    op.output("write_warm", tables, warm)
    op.output("write_cold", op.map("key_by_table", tables, key_by_table), cold)
    return flow


def key_by_table(item: tuple[str, TableOutput]) -> tuple[str, TableOutput]:
    """Route an output to the one writer of its table."""
    return item[1].table, item[1]


def build_flow(platform: Platform, *, until_end: bool = False) -> Dataflow:
    """Prepare both stores of a platform and connect its parts."""
    return wire(*platform.parts(until_end=until_end))


def flow() -> Dataflow:
    """Build the flow from the environment: what `python -m bytewax.run dataflows.ohlcv` calls."""
    return build_flow(Platform.from_environment())
