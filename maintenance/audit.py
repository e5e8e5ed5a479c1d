"""Do the stores hold exactly what the raw log says? Recomputes every table and compares both stores with it.

What is compared: per topic partition the records below the lowest frontier of all tables in both stores, so an audit may
run beside the flow. Rows caused by later records are left out; a candle whose newest row is later counts as present.

- bronze, silver, gaps, dead letters and feed events: by cause (partition, offset, index), and by every field. A row that is
  stored twice is a difference.
- gold: closed candles by (symbol, window start), and by every field. Late trades are merged as the sinks merge them.
- Warm bronze and silver may have passed their time to live: a row that the warm store lacks is no difference when its record
  was appended longer ago than that and every row of its partition before it is gone as well.
- Where the log's beginning has expired, or an exchange is not listed any more, nothing can be recomputed: the two stores
  are then compared with each other, and the answer says so (`raw` is none).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from connectors.topics.base import TopicLog
from dataflows.stages import VenueSetup
from maintenance.compare import Comparison, compare
from maintenance.fingerprint import HOUR, HOUR_US, empty, fingerprint, key_of
from maintenance.replay import Expected, replay
from maintenance.report import Example, Line, Report
from maintenance.stored import COLD, WARM, Frontier, Stored, Wanted
from market.errors import Refused
from market.record import topic_name
from market.schema import Layer, Table, all_tables
from sinks.clickhouse.ddl import KEPT_DAYS

_DAY_US: Final = 86_400_000_000
TIME_TO_LIVE_US: Final = {layer: days * _DAY_US for layer, days in KEPT_DAYS.items()}
Progress = Callable[[str, int, int | None], None]  # step, done, total


def audit_exchange(
    exchange: str, setup: VenueSetup | None, log: TopicLog, stores: Sequence[Stored], now_us: int, progress: Progress
) -> Report:
    """Compare both stores with the raw log of one exchange.

    Args:
        exchange: the exchange; its topic exists.
        setup: its decoder, instruments and rules; None when it is not listed any more.
        log: the raw topics.
        stores: warm and cold.
        now_us: the present, to judge what warm rows may have passed their time to live.
        progress: called with the step and how far it is.

    Raises:
        Refused: a table was filled from another topic than this one.
    """
    topic = topic_name(exchange)
    report = Report()
    limits = _limits(exchange, log, stores, report)
    if not any(limits.values()):
        return report
    expired = [p for p, start in enumerate(log.start_offsets(topic)) if start > 0 and limits[p] > 0]
    expected: Expected | None = None
    if setup is None:
        report.notes.append(f"{exchange} is not in the instruments file: warm and cold are compared with each other only")
    elif expired:
        where = ", ".join(f"partition {p} starts at {log.start_offsets(topic)[p]}" for p in expired)
        report.notes.append(f"{topic}: the log's beginning has expired ({where}): warm and cold are compared with each other only")
    else:
        moments = tuple(now_us - ttl for ttl in TIME_TO_LIVE_US.values())
        total = sum(limits.values())
        expected = replay(log, setup, exchange, limits, moments, lambda done: progress(f"{exchange}: replaying", done, total))
    counts: dict[tuple[int, str], Counter[str]] = {}
    tables = all_tables((exchange,))
    for done, table in enumerate(tables):
        progress(f"{exchange}: comparing {table.name}", done, len(tables))
        for store, found in _compare_table(exchange, table, _Reach(limits, log, topic), stores, expected, now_us).items():
            report.examples += [Example(exchange, table.name, store, kind, key) for kind, key in found.examples]
            _count(counts, table, store, found)
    report.lines = [
        Line(exchange, hour * HOUR_US, layer, None if expected is None else n["raw"], n["warm"], n["cold"], n["differences"])
        for (hour, layer), n in sorted(counts.items())
    ]
    return report


def _limits(exchange: str, log: TopicLog, stores: Sequence[Stored], report: Report) -> dict[int, int]:
    # Per partition the lowest frontier of all tables; the partition count of a topic is fixed for its life.
    topic, generation = topic_name(exchange), log.generation(topic_name(exchange))
    frontiers = {store.name: store.frontiers() for store in stores}
    limits: dict[int, int] = {}
    for partition in range(log.partitions(topic)):
        found: dict[str, Frontier | None] = {
            f"{table.name} ({name})": held.get((table.name, topic, partition))
            for name, held in frontiers.items()
            for table in all_tables((exchange,))
        }
        other = sorted(where for where, frontier in found.items() if frontier is not None and frontier.generation != generation)
        if other:
            raise Refused(
                f"{other[0]} was filled from another {topic} than the one in this log: it was deleted and created again, or the home is mixed"
            )
        lowest = min(frontier.offset if frontier is not None else 0 for frontier in found.values())
        absent = sorted(where for where, frontier in found.items() if frontier is None)
        if absent and log.end_offsets(topic)[partition] > 0:
            more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
            report.notes.append(f"{topic}/{partition}: nothing to compare yet: {absent[0]}{more} has taken nothing in")
        limits[partition] = lowest
    return limits


@dataclass(frozen=True, slots=True)
class _Reach:
    """How far rows are compared, by partition, and the log that their causes must be in."""

    limits: Mapping[int, int]
    log: TopicLog
    topic: str

    def ends(self) -> dict[int, int]:
        return dict(enumerate(self.log.end_offsets(self.topic)))


def _compare_table(
    exchange: str, table: Table, reach: _Reach, stores: Sequence[Stored], expected: Expected | None, now_us: int
) -> dict[str, Comparison]:
    found = {store.name: _stored_rows(store, table, exchange, reach, warm=store.name == WARM or expected is None) for store in stores}
    outcome: dict[str, Comparison] = {}
    for store in stores:
        rows = found[store.name]
        warm = store.name == WARM
        if expected is not None:
            wanted = expected.prints(table, warm=warm)
        elif warm:
            wanted = _once(found[COLD].rows, table)
        else:  # cold against itself: only copies can differ
            wanted = _once(rows.rows, table)
        ignored = _expired_rows(table, rows.rows, expected, now_us) if warm and table.layer in TIME_TO_LIVE_US else None
        outcome[store.name] = _with_later(
            compare(_without(wanted, rows.later, table), rows.rows, key_of(table), ignored), wanted, rows.later, table
        )
    return outcome


@dataclass(frozen=True, slots=True)
class _Rows:
    rows: pl.DataFrame  # fingerprints of rows caused below the limit
    later: pl.DataFrame  # keys of candles whose newest row is caused at or past it


def _stored_rows(store: Stored, table: Table, exchange: str, reach: _Reach, *, warm: bool) -> _Rows:
    partition, offset = table.cause_columns
    key = list(key_of(table))
    parts, later = [empty(table)], [empty(table).select(key)]
    limit = _by_partition(reach.limits)
    for batch in store.rows(table, Wanted(exchange)):
        frame = fingerprint(table, batch, warm=warm).with_columns(
            cause_partition=pl.Series(pl.from_arrow(batch.column(partition))).cast(pl.Int64),
            cause_offset=pl.Series(pl.from_arrow(batch.column(offset))),
        )
        # A record that the topic does not have is no place for a row to come from: such rows are kept, as unexpected ones.
        # Its end is read after the rows, since a flow beside the audit may have gone on.
        comes = (pl.col("cause_offset") >= limit) & (pl.col("cause_offset") < _by_partition(reach.ends()))
        if table.layer is Layer.GOLD:
            later.append(frame.filter(comes).select(key))
            frame = frame.filter(pl.Series(pl.from_arrow(batch.column("is_closed"))))
        parts.append(frame.filter(~comes).drop("cause_partition", "cause_offset"))
    return _Rows(pl.concat(parts), pl.concat(later))


def _by_partition(offsets: Mapping[int, int]) -> pl.Expr:
    return pl.col("cause_partition").replace_strict(dict(offsets), default=1 << 62, return_dtype=pl.Int64)


def _once(rows: pl.DataFrame, table: Table) -> pl.DataFrame:
    return rows.unique(subset=list(key_of(table)), keep="first")


def _without(wanted: pl.DataFrame, later: pl.DataFrame, table: Table) -> pl.DataFrame:
    return wanted.join(later, on=list(key_of(table)), how="anti") if later.height else wanted


def _with_later(found: Comparison, wanted: pl.DataFrame, later: pl.DataFrame, table: Table) -> Comparison:
    # Candles that a later record has changed since are there: they count on both sides.
    if not later.height:
        return found
    present = dict(wanted.join(later, on=list(key_of(table)), how="semi").group_by(HOUR).len().iter_rows())
    return Comparison(
        dict(Counter(found.expected) + Counter(present)), dict(Counter(found.actual) + Counter(present)), found.differences, found.examples
    )


def _expired_rows(table: Table, rows: pl.DataFrame, expected: Expected | None, now_us: int) -> pl.Expr:
    first = dict(rows.group_by("partition").agg(pl.col("offset").min()).iter_rows())
    partition, offset = pl.col("partition").cast(pl.Int64), pl.col("offset")
    gone = offset < partition.replace_strict({int(p): o for p, o in first.items()}, default=1 << 62, return_dtype=pl.Int64)
    if expected is None:
        return gone
    old = expected.before[now_us - TIME_TO_LIVE_US[table.layer]]
    return gone & (offset < partition.replace_strict(old, default=0, return_dtype=pl.Int64))


def _count(counts: dict[tuple[int, str], Counter[str]], table: Table, store: str, found: Comparison) -> None:
    for hour in found.expected.keys() | found.actual.keys() | found.differences.keys():
        line = counts.setdefault((hour, table.layer.value), Counter())
        if store == WARM:  # both stores are compared with the same rows
            line["raw"] += found.expected.get(hour, 0)
        line[store] += found.actual.get(hour, 0)
        line["differences"] += found.differences.get(hour, 0)
