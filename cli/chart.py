"""Candles drawn with characters: two rows of resolution a line, readable without colour.

A rising body is drawn `┃`, a falling one `█`; wicks are `│`. A `?` below a candle: not proven complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from rich.text import Text

from cli.arguments import utc

# (upper half, lower half) of a cell: 0 nothing, 1 wick, 2 body.
_RISING: Final = {
    (0, 0): " ", (1, 1): "│", (0, 1): "╷", (1, 0): "╵", (2, 2): "┃", (0, 2): "╻", (2, 0): "╹", (1, 2): "╽", (2, 1): "╿",
}  # fmt: skip
_FALLING: Final = {**_RISING, (2, 2): "█", (0, 2): "▄", (2, 0): "▀", (1, 2): "▄", (2, 1): "▀"}
_LABEL_EVERY: Final = 4
_STEPS: Final = (2, 5)  # columns a candle, least and most
_TIME: Final = "%H:%M"


@dataclass(frozen=True, slots=True)
class Bar:
    """What of a candle is drawn."""

    start_us: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    complete: bool

    @property
    def style(self) -> str:
        """Colour: rising, falling."""
        return "green" if self.close >= self.open else "red"


def draw_candles(title: str, bars: Sequence[Bar], *, width: int = 100, height: int = 16) -> Text:
    """Return a chart of the last candles that fit, ascending in time.

    Args:
        title: first line.
        bars: candles, ascending.
        width: columns of the whole chart.
        height: lines of the price area.
    """
    text = Text(f"{title}\n", no_wrap=True)
    if not bars:
        return text.append("no candles\n")
    highest, lowest = max(b.high for b in bars), min(b.low for b in bars)
    digits = _digits(highest - lowest or highest)
    gutter = len(_price(highest, digits)) + 3
    shown = list(bars)[-max(1, (width - gutter) // _STEPS[0]) :]
    step = max(_STEPS[0], min(_STEPS[1], (width - gutter) // len(shown)))
    highest, lowest = max(b.high for b in shown), min(b.low for b in shown)
    span = highest - lowest
    columns = [_halves(bar, highest, span, 2 * height) for bar in shown]
    for line in range(height):
        labelled = line % _LABEL_EVERY == 0 or line == height - 1
        price = highest - span * (2 * line + 1) / (2 * height)
        text.append(f"{_price(price, digits) if labelled else '':>{gutter - 3}} {'┤' if labelled else '│'} ")
        for bar, halves in zip(shown, columns, strict=True):
            glyphs = _RISING if bar.close >= bar.open else _FALLING
            text.append(glyphs[halves[2 * line], halves[2 * line + 1]].ljust(step), bar.style)
        text.append("\n")
    text.append(f"{'':>{gutter - 2}}└{'─' * (step * len(shown) + 1)}\n")
    if not all(bar.complete for bar in shown):
        marks = "".join((" " if bar.complete else "?").ljust(step) for bar in shown).rstrip()
        text.append(f"{'':>{gutter}}{marks}\n", "yellow")
    return text.append(f"{'':>{gutter}}{_times(shown, step)}\n")


def _halves(bar: Bar, highest: Decimal, span: Decimal, count: int) -> list[int]:
    # State of each half line from the top; a body and a wick are at least one half line long.
    def at(price: Decimal) -> int:
        return 0 if not span else min(count - 1, int((highest - price) / span * count))

    halves = [0] * count
    for top, bottom, state in ((bar.high, bar.low, 1), (max(bar.open, bar.close), min(bar.open, bar.close), 2)):
        for half in range(at(top), at(bottom) + 1):
            halves[half] = state
    return halves


def _digits(span: Decimal) -> int:
    # Enough decimals that labels a few lines apart differ.
    return max(0, min(18, 2 - span.adjusted()))


def _price(price: Decimal, digits: int) -> str:
    return f"{price:,.{digits}f}"


def _times(bars: Sequence[Bar], step: int) -> str:
    label = len(utc(0).strftime(_TIME))
    every = (label + 2) // step + 1
    line = ""
    for index in range(0, len(bars), every):
        line = line.ljust(step * index) + utc(bars[index].start_us).strftime(_TIME)
    return line
