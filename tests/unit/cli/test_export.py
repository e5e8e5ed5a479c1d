from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from cli import export
from cli.reading import newest_gaps
from cli.screen import Meter
from maintenance.stored import Frontier, Wanted
from market.errors import ConfigError
from market.schema import OHLCV, SILVER_TRADES, TRADE_GAPS, Kind, Table

START = datetime(2026, 1, 1, tzinfo=UTC)
EVERYTHING = Wanted()
VALUES: dict[Kind, Any] = {
    Kind.TEXT: "t", Kind.CODE: "c", Kind.INT: 7, Kind.DECIMAL: Decimal("1.5"), Kind.TIME: START, Kind.BOOL: True,
    Kind.LIST: [], Kind.MAP: [("k", "v")], Kind.BYTES: b"",
}  # fmt: skip


def row(table: Table, **changed: Any) -> dict[str, Any]:
    return {c.name: VALUES[c.kind] for c in table.warm_columns} | changed


class Listed:
    """A store out of a list of rows; notes what it is asked for."""

    name = "warm"

    def __init__(self, table: Table, rows: list[dict[str, Any]]) -> None:
        self.table, self.held = table, rows
        self.asked: list[Wanted] = []

    def frontiers(self) -> Mapping[tuple[str, str, int], Frontier]:
        return {}

    def rows(self, table: Table, wanted: Wanted, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        schema = table.arrow_schema(warm=True)
        chosen = pa.schema([schema.field(name) for name in columns or schema.names])
        if len(chosen) == len(schema):
            self.asked.append(wanted)
        for held in self.held:
            time_us = int(held[table.time_column].timestamp() * 1_000_000)
            if (
                wanted.exchange in {None, held["exchange"]}
                and (wanted.symbols is None or held["canonical_symbol"] in wanted.symbols)
                and (wanted.start_us is None or time_us >= wanted.start_us)
                and (wanted.end_us is None or time_us < wanted.end_us)
            ):
                yield pa.RecordBatch.from_pylist([{name: held[name] for name in chosen.names}], schema=chosen)

    def close(self) -> None:
        pass


def exported(store: Listed, what: str, wanted: Wanted = EVERYTHING) -> pa.Table:
    batches = export._ordered(store, store.table, wanted, export._ORDER[what], Meter(None, 0))  # type: ignore[arg-type]
    return pa.Table.from_batches(batches, store.table.arrow_schema(warm=True))


def test_candles_ascend_by_exchange_symbol_window_in_bounded_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_CHUNK_ROWS", 5)
    table = OHLCV["1m"]
    rows = [
        row(table, exchange=e, canonical_symbol=s, window_start=START + timedelta(minutes=m))
        for m in reversed(range(4)) for e in ("kraken", "binance") for s in ("B/USD", "A/USD", "C/USD")
    ]  # fmt: skip
    rows += [row(table, exchange="binance", canonical_symbol="D/USD", window_start=START + timedelta(minutes=m)) for m in range(12)]
    store = Listed(table, rows)
    found = pl.DataFrame(exported(store, "candles").select(["exchange", "canonical_symbol", "window_start"]))
    assert found.rows() == sorted((r["exchange"], r["canonical_symbol"], r["window_start"]) for r in rows)
    assert len(store.asked) > 6


def test_trades_ascend_by_exchange_and_time_and_keep_every_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_CHUNK_ROWS", 10)
    rows = [
        row(SILVER_TRADES, exchange=e, trade_id=str(n), sequence_number=n, timestamp=START + timedelta(seconds=n * 7 % 300))
        for n in range(60) for e in ("b", "a")
    ]  # fmt: skip
    found = exported(Listed(SILVER_TRADES, rows), "trades")
    key = ("exchange", "timestamp", "canonical_symbol", "sequence_number", "trade_id")
    assert found.to_pylist() == sorted(rows, key=lambda r: tuple(r[k] for k in key))
    one = exported(Listed(SILVER_TRADES, rows), "trades", Wanted("a", start_us=int(START.timestamp()) * 1_000_000 + 60_000_000))
    assert one.num_rows == len([r for r in rows if r["exchange"] == "a" and r["timestamp"] >= START + timedelta(seconds=60)])


def test_gaps_of_now_are_the_newest_events_that_are_not_filled() -> None:
    def event(first: int, last: int, state: str, offset: int, index: int = 0) -> dict[str, Any]:
        return row(
            TRADE_GAPS,
            exchange="b",
            canonical_symbol="A/USD",
            first_id=first,
            last_id=last,
            state=state,
            source_offset=offset,
            source_index=index,
        )

    events = [
        event(9, 12, "open", 5), event(1, 4, "open", 1), event(1, 4, "filled", 3), event(3, 4, "open", 3, 1), event(20, 20, "unfillable", 9), event(9, 12, "open", 4),
    ]  # fmt: skip
    frames = [pl.DataFrame(pa.Table.from_pylist([e], schema=TRADE_GAPS.arrow_schema())) for e in events]
    now = newest_gaps(frames)
    assert now.select("first_id", "last_id", "state", "source_offset").rows() == [
        (3, 4, "open", 3),
        (9, 12, "open", 5),
        (20, 20, "unfillable", 9),
    ]
    assert newest_gaps([]).is_empty()


def test_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    target.write_bytes(b"old")
    with pytest.raises(TypeError), export._output(target) as out:
        assert out.write(b"half") == out.write("no bytes")  # type: ignore[arg-type]
    assert target.read_bytes() == b"old"
    with export._output(target) as out:
        out.write(b"whole")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"whole"
    assert [p.name for p in tmp_path.iterdir()] == ["out.csv"]
    assert stat.S_IMODE(target.stat().st_mode) & 0o444 == 0o444 & ~os.umask(os.umask(0o22))


def test_folder_is_no_file_to_write(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot write .*: Is a directory"), export._output(tmp_path):
        pass
    assert list(tmp_path.parent.glob(f".{tmp_path.name}.*")) == []


def test_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"cannot write .*/no/out.csv: No such file or directory"),
        export._output(tmp_path / "no" / "out.csv"),
    ):
        pass
