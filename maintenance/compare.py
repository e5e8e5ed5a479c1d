"""What differs between the rows that should be there and those that are, by hour."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import polars as pl

from maintenance.fingerprint import HASH, HOUR

OFFSET: Final = "offset"
_EXAMPLES: Final = 5
_BLOCK_OFFSETS: Final = 100_000


class Difference(Enum):
    """Why a key differs."""

    MISSING = "missing"
    EXTRA = "not expected"
    CHANGED = "other values"
    REPEATED = "stored more than once"


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
    differences: Counter[int] = Counter()
    examples: list[tuple[Difference, dict[str, Any]]] = []
    for part, other in _blocks(expected, actual, names):
        # Sorting is cheap in time and memory and settles nearly every block; joins are neither.
        if not part.sort(names).equals(other.sort(names)):
            wrong = _differing(part, other, names, ignored)
            differences.update(dict(wrong.group_by(HOUR).agg(pl.col("count").sum()).iter_rows()))
            first = wrong.sort([HOUR, *names]).head(_EXAMPLES - len(examples)).to_dicts()
            examples += [(Difference[row["kind"]], {name: row[name] for name in names}) for row in first]
    return Comparison(_by_hour(expected), _by_hour(actual), dict(differences), examples)


def _blocks(expected: pl.DataFrame, actual: pl.DataFrame, names: list[str]) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    # Rows of the same stretch of offsets, so that a join never sees more than one stretch.
    if OFFSET not in names:
        yield expected, actual
        return
    block = pl.col(OFFSET) // _BLOCK_OFFSETS
    # Only the stretches that there are: an invented row may name an offset that no log reaches.
    found = pl.concat([frame.select(block).unique() for frame in (expected, actual)])[OFFSET]
    for number in found.unique().sort().to_list():
        inside = block == number
        yield expected.filter(inside), actual.filter(inside)


def _differing(expected: pl.DataFrame, actual: pl.DataFrame, names: list[str], ignored: pl.Expr | None) -> pl.DataFrame:
    """Return key, hour, kind and count of every key that differs."""
    grouped = actual.group_by(names).agg(
        pl.col(HOUR).first().alias("actual_hour"),
        pl.col(HASH).first().alias("actual_hash"),
        pl.col(HASH).n_unique().alias("kinds"),
        pl.len().cast(pl.Int64).alias("copies"),
    )
    both = expected.rename({HOUR: "expected_hour", HASH: "expected_hash"}).join(grouped, on=names, how="full", coalesce=True)
    missing = pl.col("actual_hash").is_null()
    kind = (
        pl.when(missing & (ignored if ignored is not None else pl.lit(value=False)))
        .then(None)
        .when(missing)
        .then(pl.lit(Difference.MISSING.name))
        .when(pl.col("expected_hash").is_null())
        .then(pl.lit(Difference.EXTRA.name))
        .when((pl.col("expected_hash") != pl.col("actual_hash")) | (pl.col("kinds") > 1))
        .then(pl.lit(Difference.CHANGED.name))
        .when(pl.col("copies") > 1)
        .then(pl.lit(Difference.REPEATED.name))
    )
    repeated = pl.col("kind").eq(Difference.REPEATED.name).cast(pl.Int64)
    return (
        both.with_columns(kind=kind, hour=pl.coalesce("expected_hour", "actual_hour"))
        .filter(pl.col("kind").is_not_null())
        .with_columns(count=pl.col("copies").fill_null(1) - repeated)
    )


def _by_hour(frame: pl.DataFrame) -> dict[int, int]:
    return dict(frame.group_by(HOUR).len().iter_rows())
