from __future__ import annotations

import pytest

from market.errors import ConfigError
from sinks.endpoint import Endpoint, ask


@pytest.mark.parametrize(
    ("url", "plain", "user", "password"),
    [
        ("http://127.0.0.1:18123", "http://127.0.0.1:18123", "default", ""),
        ("https://k2:p%40ss@ch.example.org", "https://ch.example.org:8443", "k2", "p@ss"),
        ("http://k2@[::1]:8123/clickhouse/", "http://[::1]:8123/clickhouse", "k2", ""),
        ("http://ch", "http://ch:8123", "default", ""),
    ],
)
def test_addresses_are_taken_apart(url: str, plain: str, user: str, password: str) -> None:
    found = Endpoint.parse(url)
    assert (found.url, found.user, found.password) == (plain, user, password)
    assert found.reader() == found


@pytest.mark.parametrize("url", ["", "ch:8123", "tcp://ch:9000", "http://", "http://u:secret@ch:port"])
def test_a_bad_address_is_refused_without_showing_its_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Endpoint.parse(url)
    assert "secret" not in str(caught.value)


def test_passwords_are_not_shown() -> None:
    shown = repr(Endpoint("http://h:1", "u", "secret-1", "r", "secret-2"))
    assert "secret" not in shown


def test_reading_uses_the_reading_user_where_there_is_one() -> None:
    whole = Endpoint("http://h:1", "u", "p", "r", "q")
    assert whole.reader() == Endpoint("http://h:1", "r", "q", "r", "q")
    assert Endpoint("http://h:1", "u", "p").reader() == Endpoint("http://h:1", "u", "p")


def test_nobody_there_is_no_answer() -> None:
    assert ask(Endpoint("http://127.0.0.1:1", "u", "p"), "SELECT 1", 1) is None
