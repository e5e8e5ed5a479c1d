from __future__ import annotations

from decimal import Decimal

import pytest

from cli.chart import Bar, draw_candles

MINUTE = 60_000_000
START = 1_723_161_300_000_000


def bar(minute: int, prices: str, *, complete: bool = True) -> Bar:
    first, high, low, last = map(Decimal, prices.split())
    return Bar(START + minute * MINUTE, first, high, low, last, complete)


def lines(*bars: Bar, width: int = 60, height: int = 8) -> list[str]:
    return draw_candles("BTC/USDT 1m", bars, width=width, height=height).plain.splitlines()


def test_chart_has_title_price_axis_and_times() -> None:
    chart = lines(*(bar(m, f"{100 + m} {102 + m} {99 + m} {101 + m}") for m in range(8)))
    assert chart[0] == "BTC/USDT 1m"
    assert len(chart) == 1 + 8 + 2
    assert chart[1].startswith("108.")
    assert "23:55" in chart[-1]
    assert "23:59" in chart[-1]


def test_rising_and_falling_differ_without_colour() -> None:
    body = "\n".join(lines(bar(0, "1 4 1 4"), bar(1, "4 4 1 1"))[1:-2])
    assert "┃" in body
    assert "█" in body


def test_wick_and_body_are_where_the_prices_are() -> None:
    chart = lines(bar(0, "2 4 0 2"), height=4)
    gutter = chart[5].index("└") + 2
    column = [line[gutter] for line in chart[1:5]]
    assert column == ["│", "│", "╿", "│"]


def test_incomplete_candles_are_marked_below() -> None:
    chart = lines(bar(0, "1 2 1 2"), bar(1, "1 2 1 2", complete=False))
    assert chart[-2].strip() == "?"
    assert "?" not in "".join(lines(bar(0, "1 2 1 2")))


def test_only_the_last_candles_that_fit_are_drawn() -> None:
    chart = lines(*(bar(m, "1 2 1 2") for m in range(200)), width=40)
    assert max(map(len, chart)) <= 40


@pytest.mark.parametrize("prices", ["5 5 5 5", "0.00000001 0.00000002 0.00000001 0.00000002", "99999 1000000 5 6"])
def test_any_prices_can_be_drawn(prices: str) -> None:
    assert len(lines(bar(0, prices))) == 11


def test_nothing_to_draw_is_said() -> None:
    assert lines() == ["BTC/USDT 1m", "no candles"]
