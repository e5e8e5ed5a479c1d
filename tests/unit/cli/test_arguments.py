from __future__ import annotations

import re

import pytest

from cli.arguments import iso, one_of, parse_range, parse_time
from market.errors import ConfigError

T = 1_723_161_300_000_000


@pytest.mark.parametrize(
    "text",
    [
        str(T),
        "2024-08-08T23:55:00Z",
        "2024-08-08T23:55:00",
        "2024-08-08 23:55",
        "2024-08-09T01:55:00+02:00",
        "20240808T235500Z",
        " 2024-08-08T23:55:00.000000Z ",
    ],
)
def test_times_in_every_form(text: str) -> None:
    assert parse_time(text, "--from") == T


def test_dates_and_fractions() -> None:
    assert parse_time("2024-08-09", "--from") == T + 300_000_000
    assert parse_time("2024-08-08T23:55:00.000001Z", "--from") == T + 1
    assert parse_time("2024-08-08T23:55:00.1", "--from") == T + 100_000
    assert parse_time("2024-08-08T23:55:00.000001000Z", "--from") == T + 1
    assert parse_time("0", "--from") == 0


@pytest.mark.parametrize("text", ["", "yesterday", "2024-13-01", "12345", "2024-08-08T23:55:00.0000001Z", "9" * 19, "1e15"])
def test_what_is_no_time_is_refused_with_the_forms_that_are(text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"--to {text!r}")):
        parse_time(text, "--to")


def test_range_is_optional_on_both_sides_and_ordered() -> None:
    assert parse_range(None, None) == (None, None)
    assert parse_range(str(T), None) == (T, None)
    assert parse_range(str(T), str(T)) == (T, T)
    with pytest.raises(ConfigError, match="is before --from"):
        parse_range("2024-08-09", "2024-08-08")


def test_one_of_names_the_nearest_and_the_known() -> None:
    assert one_of("interval", " 5M ", ("1m", "5m")) == "5m"
    with pytest.raises(ConfigError, match=r"no interval is called '15': did you mean 15m\? \(known: 1m, 15m\)"):
        one_of("interval", "15", ("1m", "15m"))


def test_iso_is_for_people() -> None:
    assert iso(T) == "2024-08-08 23:55:00"
    assert iso(None) == ""
