r"""Rows of our tables as csv, json, jsonl, parquet or arrow, batch by batch: memory does not grow with the export.

csv      header of column names; decimals plain without trailing zeros; `true`/`false`; times `2024-08-08T23:55:00.000000Z`;
         lists and maps as JSON; null is an empty field, an empty text `""`; bytes as text, with `\xNN` for what is not UTF-8
json     one array, one object a line; decimals as text (exact), times as in csv, bytes as `payload`, or `payload_b64` where
         they are not UTF-8
jsonl    the same objects, one a line, without the array
parquet  zstd, the columns' own types
arrow    Arrow IPC file, the columns' own types
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any, Final

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

FORMATS: Final = ("csv", "json", "jsonl", "parquet", "arrow")
TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%S%.6fZ"
_ROWS: Final = 64 * 1024  # of one row group or text block


def write_rows(out: IO[bytes], form: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Write batches of `schema` to a binary stream; a result without rows still has a header or schema.

    Returns:
        The number of rows.
    """
    return _WRITERS[form](out, schema, (part for batch in batches for part in _cut(batch) if part.num_rows))


def _cut(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    for start in range(0, batch.num_rows, _ROWS):
        yield batch.slice(start, _ROWS)


def _write_csv(out: IO[bytes], schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> int:
    rows = 0
    out.write((",".join(schema.names) + "\n").encode())
    for batch in batches:
        out.write(text_frame(batch).write_csv(include_header=False).encode())
        rows += batch.num_rows
    return rows


def text_frame(batch: pa.RecordBatch) -> pl.DataFrame:
    """Return the rows with every decimal, time, list, map and bytes column as csv text."""
    columns = {field.name: _text_column(field, batch.column(index)) for index, field in enumerate(batch.schema)}
    return pl.DataFrame(columns)


def _text_column(field: pa.Field, column: pa.Array) -> pl.Series:
    kind = field.type
    if pa.types.is_list(kind) or pa.types.is_map(kind):
        return pl.Series(field.name, _json_texts(column), dtype=pl.String)
    if pa.types.is_binary(kind):
        return pl.Series(
            field.name, [None if v is None else v.decode(errors="backslashreplace") for v in column.to_pylist()], dtype=pl.String
        )
    series = pl.Series(field.name, pl.from_arrow(column))
    if pa.types.is_decimal(kind):
        return plain_decimals(series)
    if pa.types.is_timestamp(kind):
        return series.dt.strftime(TIME_FORMAT)
    return series


def plain_decimals(series: pl.Series) -> pl.Series:
    """Return decimals as text: no exponent, no trailing zeros."""
    return series.cast(pl.String).str.strip_chars_end("0").str.strip_chars_end(".")


def _json_texts(column: pa.Array) -> list[str | None]:
    # Most lists and maps of a batch are equal (empty, or one order type): each distinct one is written once.
    written: dict[Any, str] = {}
    texts: list[str | None] = []
    for value in column.to_pylist():
        if value is None:
            texts.append(None)
            continue
        key = tuple(value)
        if key not in written:
            written[key] = orjson.dumps(dict(value) if pa.types.is_map(column.type) else value).decode()
        texts.append(written[key])
    return texts


def json_rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Yield rows as JSON values."""
    frame = text_frame(batch)
    columns = [_json_column(field, batch.column(index), frame[field.name]) for index, field in enumerate(batch.schema)]
    holds_bytes = any(pa.types.is_binary(field.type) for field in batch.schema)
    names = batch.schema.names
    for values in zip(*columns, strict=True):
        items = zip(names, values, strict=True)
        yield dict(_bytes_item(*item) for item in items) if holds_bytes else dict(items)


def _json_column(field: pa.Field, column: pa.Array, text: pl.Series) -> list[Any]:
    if pa.types.is_map(field.type):
        return [None if value is None else dict(value) for value in column.to_pylist()]
    if pa.types.is_list(field.type) or pa.types.is_binary(field.type):
        return list(column.to_pylist())
    return text.to_list()


def _bytes_item(name: str, value: Any) -> tuple[str, Any]:
    if not isinstance(value, bytes):
        return name, value
    try:
        return name, value.decode()
    except UnicodeDecodeError:
        return f"{name}_b64", base64.b64encode(value).decode()


def _write_jsonl(out: IO[bytes], _schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> int:
    rows = 0
    for batch in batches:
        lines = [orjson.dumps(row) for row in json_rows(batch)]
        out.write(b"\n".join(lines) + b"\n")
        rows += len(lines)
    return rows


def _write_json(out: IO[bytes], _schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> int:
    rows = 0
    for batch in batches:
        lines = [orjson.dumps(row) for row in json_rows(batch)]
        out.write((b",\n" if rows else b"[\n") + b",\n".join(lines))
        rows += len(lines)
    out.write(b"\n]\n" if rows else b"[]\n")
    return rows


def _write_parquet(out: IO[bytes], schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> int:
    rows = 0
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def _write_arrow(out: IO[bytes], schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> int:
    rows = 0
    with pa.ipc.new_file(out, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


_WRITERS: Final[dict[str, Callable[[IO[bytes], pa.Schema, Iterator[pa.RecordBatch]], int]]] = {
    "csv": _write_csv,
    "json": _write_json,
    "jsonl": _write_jsonl,
    "parquet": _write_parquet,
    "arrow": _write_arrow,
}
