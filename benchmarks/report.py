"""Figures of a benchmark run, as a table for a terminal and as a page of the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass
class Figure:
    """One measured thing; `rate` in trades (or records) per second, `other` for what is no rate."""

    name: str
    rate: float | None = None
    other: str = ""

    @property
    def text(self) -> str:
        """The figure for a person."""
        if self.rate is None:
            return self.other
        return f"{self.rate / 1000:,.0f} k/s   {1e9 / self.rate:,.0f} ns" + (f"   {self.other}" if self.other else "")


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as aligned lines."""
    width = max((len(f.name) for f in figures), default=0)
    return "\n".join(f"{f.name:<{width}}   {f.text}" for f in figures)


def page(figures: Sequence[Figure], trades: int, machine: Mapping[str, object]) -> str:
    """Return docs/performance.md."""
    rows = "\n".join(
        f"| {f.name} | {f'{f.rate / 1000:,.0f} k/s' if f.rate else ''} | {f'{1e9 / f.rate:,.0f} ns' if f.rate else ''} | {f.other} |"
        for f in figures
    )
    return f"""# Performance

Written by `python -m benchmarks --docs` in one run: {trades:,} generated trades of three venues and 200 symbols (Zipf), on
{machine["cpu_count"]} cores ({machine["machine"]}, Python {machine["python"]}). Read the ratios; absolute rates are those of one shared machine.

| what | rate | per trade | |
|---|---|---|---|
{rows}

*Limits* are each part's work done alone by the fastest library at hand, on the same trades: typed JSON decoding without checks, six
group-bys over floats, Parquet writing, Arrow inserts, reading the topic. *All limits together* is the rate of doing these one after
the other. The *naive flow* is Bytewax with one item a trade and six `fold_window` steps, writing nothing.
"""
