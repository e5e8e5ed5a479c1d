from __future__ import annotations

import pytest

from market.errors import ConfigError
from simulator.config import SimulatorConfig
from simulator.faults import parse_fault
from simulator.http import Reply, json_reply, parse_request, rendered
from simulator.session import Pace


def test_requests_are_taken_apart() -> None:
    request = parse_request(b"GET /kraken/v2?a=1&b=&c=%2F HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\nConnection: close")
    assert request is not None
    assert (request.path, dict(request.query)) == ("/kraken/v2", {"a": "1", "b": "", "c": "/"})
    assert request.is_upgrade
    assert not request.keeps_alive
    assert parse_request(b"nonsense") is None
    assert parse_request(b"GET / SPDY/3") is None


def test_replies_are_whole() -> None:
    text = rendered(json_reply({"a": 1}, 429, Retry_After="2"), keep_alive=True)
    head, _, body = text.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    assert b"Retry-After: 2" in head
    assert b"Content-Length: 7" in head
    assert b"Connection: keep-alive" in head
    assert body == b'{"a":1}'
    assert rendered(Reply(520), keep_alive=False).startswith(b"HTTP/1.1 520 Unknown\r\n")


def test_a_pace_says_how_long_to_wait() -> None:
    pace = Pace(3, 10.0)
    assert [pace.take(second) for second in (0.0, 1.0, 2.0)] == [0, 0, 0]
    assert pace.take(3.0) == 7.0
    assert pace.take(10.5) == 0
    assert pace.take(10.6, 2) == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"exchanges": ("nasdaq",)}, "'nasdaq'"),
        ({"exchanges": ()}, "name an exchange"),
        ({"symbols": 0}, "1 to 2000"),
        ({"symbols": {"kraken": ()}}, "kraken lists no symbol"),
        ({"rate": 0.0}, "rate must be more than 0"),
        ({"rate": float("nan")}, "rate"),
        ({"speed": -1.0}, "speed"),
        ({"faults": (parse_fault("drop@1:exchange=nyse"),)}, "'nyse'"),
        ({"recordings": {"nyse": ()}}, "'nyse'"),
        ({"exchanges": ("kraken",), "faults": (parse_fault("drop@1:exchange=binance"),)}, "binance is not simulated"),
    ],
)
def test_what_cannot_be_simulated_is_named(options: dict[str, object], names: str) -> None:
    with pytest.raises(ConfigError) as error:
        SimulatorConfig(**options)  # type: ignore[arg-type]
    assert names in str(error.value)
