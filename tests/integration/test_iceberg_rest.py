"""The Iceberg sink on a real REST catalog, also with an unreliable network in between."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pyiceberg.catalog import Catalog

from market.errors import Fenced
from market.schema import OHLCV, SILVER_TRADES, Change, bronze_table
from sinks.iceberg import ColdReader, open_catalog, prepare
from tests.gold_rows import changes_of, gold_row
from tests.integration.cold_outputs import at, batch, causes, expected, writing
from tests.integration.warm_outputs import EXCHANGE, TOPIC
from tests.servers.rest_catalog import RestServer, rest_catalog

__all__ = ["rest_catalog"]
CANDLES = OHLCV["1m"]
TABLES = (SILVER_TRADES, bronze_table(EXCHANGE), CANDLES)


@dataclass
class Network:
    """Stands between client and catalog. `trouble` decides per commit request: what to do before, after, and what to answer."""

    upstream: int
    trouble: Callable[[], Trouble] = field(default=lambda: Trouble())  # noqa: PLW0108 defined below
    commits: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"rest+http://127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Trouble:
    """What happens to one commit: does it reach the catalog, after how long, and what the client hears instead of the answer."""

    forwarded: bool = True
    answer: int | None = None
    delay_s: float = 0.0
    detached: bool = False  # the answer does not wait for the delayed request


@pytest.fixture
def network(rest_catalog: RestServer) -> Iterator[Network]:
    network = Network(rest_catalog.port)
    late: list[threading.Thread] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self, body: bytes) -> tuple[int, bytes]:
            connection = http.client.HTTPConnection("127.0.0.1", network.upstream, timeout=30)
            headers = {k: v for k, v in self.headers.items() if k.lower() not in {"host", "content-length", "connection"}}
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            answer = response.status, response.read()
            connection.close()
            return answer

        def do_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            is_commit = self.command == "POST" and b'"updates"' in body
            trouble = network.trouble() if is_commit else Trouble()
            network.commits += is_commit
            if trouble.detached:
                thread = threading.Thread(target=lambda: (time.sleep(trouble.delay_s), self.forward(body)))
                thread.start()
                late.append(thread)
                status, content = 0, b""
            else:
                time.sleep(trouble.delay_s)
                status, content = self.forward(body) if trouble.forwarded else (0, b"")
            if trouble.answer is not None:
                status = trouble.answer
                content = b'{"error":{"message":"made up","type":"MadeUp","code":%d}}' % status
            with suppress(OSError):
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

        do_GET = do_POST = do_HEAD = do_DELETE = do_any  # noqa: N815

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    network.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield network
    server.shutdown()
    thread.join()
    server.server_close()
    for thread in late:
        thread.join(30)


@pytest.fixture
def catalog(network: Network) -> Catalog:
    catalog = open_catalog(network.url)
    for table in TABLES:  # one server for all tests: begin with empty tables
        with suppress(Exception):
            catalog.drop_table(f"cold.{table.cold_name}")
    prepare(catalog, TABLES)
    return catalog


def test_rows_frontiers_and_resumption_on_a_rest_catalog(catalog: Catalog) -> None:
    with writing(catalog, interval_s=3600) as writer:
        writer.write(batch(0, 200))
        state = writer.snapshot()
    with writing(catalog, state=state) as writer:
        writer.write(batch(200, 100))
        writer.snapshot()
        writer.drain(30)
        assert writer.frontiers() == {(TOPIC, 0): at(300)}
    assert causes(catalog) == expected(300)
    assert ColdReader(catalog).status(SILVER_TRADES).rows == 900
    assert ColdReader(catalog).metadata_location(SILVER_TRADES).endswith(".metadata.json")


def test_candles_are_revised_on_a_rest_catalog(catalog: Catalog) -> None:
    with writing(catalog, CANDLES) as writer:
        for number in range(12):
            row = gold_row(number * 10, window=number % 3 * 60_000_000, trades=[(number, number + 1, "1", "1")], revision=number)
            writer.write(batch(number * 10, 10, table=CANDLES, partition=3, rows_of=changes_of([(Change.ROW, row)])))
            writer.snapshot()
            writer.drain(30)
    found = ColdReader(catalog).read(CANDLES, columns=["source_offset"])
    assert sorted(found["source_offset"].to_pylist()) == [90, 100, 110]


def test_a_zombie_is_fenced_on_a_rest_catalog(catalog: Catalog, network: Network) -> None:
    with writing(catalog, interval_s=3600) as zombie:
        zombie.write(batch(0, 50))
        zombie.snapshot()
        with writing(open_catalog(network.url)) as successor:
            with pytest.raises(Fenced):
                zombie.drain(30)
            successor.write(batch(0, 70))
            successor.snapshot()
            successor.drain(30)
    assert causes(catalog) == expected(70)


FAULTS = {
    "500 before": Trouble(forwarded=False, answer=500),
    "500 after": Trouble(answer=500),
    "409 before": Trouble(forwarded=False, answer=409),
    "409 after": Trouble(answer=409),
    "503 before": Trouble(forwarded=False, answer=503),
    "502 after": Trouble(answer=502),
    "late": Trouble(answer=500, delay_s=0.7, detached=True),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_commit_is_stored_once_whatever_the_network_says_about_it(catalog: Catalog, network: Network, fault: str) -> None:
    with writing(catalog) as writer:
        seen = network.commits
        network.trouble = lambda: FAULTS[fault] if network.commits == seen else Trouble()
        for first in range(0, 60, 20):
            writer.write(batch(first, 20))
            writer.snapshot()
            writer.drain(60)
        time.sleep(FAULTS[fault].delay_s)
        assert writer.frontiers() == {(TOPIC, 0): at(60)}
    assert causes(catalog) == expected(60)


def test_rows_and_candles_are_stored_once_under_random_faults(catalog: Catalog, network: Network) -> None:
    rng = random.Random(3)
    choices: list[Any] = [*FAULTS.values(), *[Trouble()] * 7]
    network.trouble = lambda: rng.choice(choices)
    with writing(catalog) as trades, writing(catalog, CANDLES) as candles:
        for number in range(15):
            trades.write(batch(number * 20, 20))
            row = gold_row(number * 20, window=number % 4 * 60_000_000, trades=[(number, number + 1, "1", "1")], revision=number)
            candles.write(batch(number * 20, 20, table=CANDLES, partition=3, rows_of=changes_of([(Change.ROW, row)])))
            trades.snapshot()
            candles.snapshot()
            time.sleep(0.05)
        trades.drain(100)
        candles.drain(100)
    assert causes(catalog) == expected(300)
    found = ColdReader(catalog).read(CANDLES, columns=["source_offset"])
    assert sorted(found["source_offset"].to_pylist()) == [220, 240, 260, 280]


def test_a_silent_catalog_holds_up_neither_the_barrier_nor_the_next_attempt(catalog: Catalog, network: Network) -> None:
    with writing(open_catalog(f"{network.url}?request-timeout-s=1")) as writer:
        seen = network.commits
        network.trouble = lambda: Trouble(delay_s=3) if network.commits == seen else Trouble()
        for first in range(0, 60, 20):
            writer.write(batch(first, 20))
            writer.snapshot()
        assert writer.frontiers() == {}
        writer.drain(60)
    assert causes(catalog) == expected(60)
