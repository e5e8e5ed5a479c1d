"""What differs between the rows that should be there and those that are, by hour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import polars as pl

from maintenance.fingerprint import HASH, HOUR

_EXAMPLES: Final = 5


class Difference(Enum):
    """Why a key differs."""

    MISSING = "missing"
    EXTRA = "not expected"
    CHANGED = "other values"
    REPEATED = "stored more than once"


@dataclass(frozen=True, slots=True)
class Found:
    """One difference, for a person."""

    table: str
    store: str
    difference: Difference
    key: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rows and differences by hour (hours since the epoch)."""

    expected: dict[int, int]
    actual: dict[int, int]
    differences: dict[int, int]
    examples: list[tuple[Difference, dict[str, Any]]]


def compare(expected: pl.DataFrame, actual: pl.DataFrame, key: Sequence[str], ignored: pl.Expr | None = None) -> Comparison:
    """Compare fingerprints of the rows that should be in a store with those that are.

    A missing, unexpected or changed key counts as one difference, and so does every copy of a key beyond the first.

    Args:
        expected: one row a key.
        actual: any number of rows a key.
        key: columns that name a row.
        ignored: keys for which it holds are no difference when missing.
    """
    names = list(key)
    grouped = actual.group_by(names).agg(
        pl.col(HOUR).first().alias("actual_hour"),
        pl.col(HASH).first().alias("actual_hash"),
        pl.col(HASH).n_unique().alias("kinds"),
        pl.len().alias("copies"),
    )
    both = expected.rename({HOUR: "expected_hour", HASH: "expected_hash"}).join(grouped, on=names, how="full", coalesce=True)
    missing = pl.col("actual_hash").is_null()
    extra = pl.col("expected_hash").is_null()
    changed = (pl.col("expected_hash") != pl.col("actual_hash")) | (pl.col("kinds") > 1)
    kind = (
        pl.when(missing & (ignored if ignored is not None else pl.lit(value=False)))
        .then(None)
        .when(missing)
        .then(pl.lit(Difference.MISSING.name))
        .when(extra)
        .then(pl.lit(Difference.EXTRA.name))
        .when(changed)
        .then(pl.lit(Difference.CHANGED.name))
        .when(pl.col("copies") > 1)
        .then(pl.lit(Difference.REPEATED.name))
    )
    wrong = (
        both.with_columns(kind=kind, hour=pl.coalesce("expected_hour", "actual_hour"))
        .filter(pl.col("kind").is_not_null())
        .with_columns(
            count=pl.max_horizontal(
                pl.lit(1), pl.col("copies").fill_null(1).cast(pl.Int64) - pl.col("kind").eq(Difference.REPEATED.name).cast(pl.Int64)
            )
        )
    )
    first = wrong.sort(["hour", *names]).head(_EXAMPLES)
    return Comparison(
        _by_hour(expected),
        _by_hour(actual),
        dict(wrong.group_by("hour").agg(pl.col("count").sum()).iter_rows()),
        [(Difference[row["kind"]], {name: row[name] for name in names}) for row in first.to_dicts()],
    )


def _by_hour(frame: pl.DataFrame) -> dict[int, int]:
    return dict(frame.group_by(HOUR).len().iter_rows())
