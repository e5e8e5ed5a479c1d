"""Append → candle row readable in ClickHouse, at a steady rate and default settings: `python -m benchmarks.latency`.

Every 100 ms a batch of trades is appended, the last of them of a probe symbol whose price is a counter. A reader polls the newest
1m candle of the probe symbol; the latency of a probe is from the return of the append to the first read that shows its price.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import clickhouse_connect
import numpy as np
import pyarrow as pa

from connectors.topics.base import APPEND_SCHEMA, TopicLog
from connectors.topics.registry import open_topics
from market.instrument import partition_of
from market.record import topic_name

SYMBOLS = [f"C{n:03d}/USDT" for n in range(50)]
PROBE = "C000/USDT"
BEAT = 0.1
WARM_UP = 30  # beats that meet cold code, and tables that are being claimed


def _frames(n: int, ids: dict[str, int], rng: np.random.Generator, price: int) -> dict[int, list[tuple[str, str]]]:
    now_ms = time.time_ns() // 1_000_000
    rows: dict[int, list[tuple[str, str]]] = {}
    chosen = [*rng.choice(SYMBOLS[1:], n - 1), PROBE]
    for symbol in chosen:
        ids[symbol] = ids.get(symbol, 1000) + 1
        text = f"{price}.00000000" if symbol == PROBE else f"{rng.uniform(10, 20):.8f}"
        name = symbol.replace("/", "")
        frame = f'{{"e":"trade","E":{now_ms},"s":"{name}","t":{ids[symbol]},"p":"{text}","q":"1.00000000","T":{now_ms},"m":false,"M":true}}'
        rows.setdefault(partition_of(symbol, 4), []).append((symbol.replace("/", "-"), frame))
    return rows


def _batch(rows: list[tuple[str, str]], kind: str | None = None) -> pa.RecordBatch:
    now_us = time.time_ns() // 1000
    n = len(rows)
    return pa.RecordBatch.from_pydict(
        {
            "key": [k for k, _ in rows],
            "source": ["live"] * n,
            "received_us": [now_us] * n,
            "kind": [kind] * n,
            "extra_headers": [None] * n,
            "payload": [f.encode() for _, f in rows],
        },
        schema=APPEND_SCHEMA,
    )


def measure(home: Path, seconds: int, rate: int) -> dict[str, float]:
    """Run the flow and the probe; returns milliseconds."""
    home.mkdir(parents=True, exist_ok=True)
    instruments = home / "instruments.yaml"
    instruments.write_text(json.dumps({"binance": SYMBOLS}))
    env = {**os.environ, "K2_HOME": str(home), "K2_INSTRUMENTS": str(instruments)}
    log = open_topics(f"sqlite:///{home}/topics.db")
    log.create(topic_name("binance"), 4)
    k2 = [sys.executable, "-m", "cli.main"]
    flow = subprocess.Popen([*k2, "run"], env=env, stderr=(home / "flow.log").open("wb"))
    try:
        return _probe(home, log, flow, seconds, rate)
    finally:
        flow.terminate()
        flow.wait(60)
        subprocess.run([*k2, "down"], env=env, check=False, capture_output=True)
        log.close()


def _client(home: Path, flow: subprocess.Popen[bytes]) -> clickhouse_connect.driver.Client:
    deadline = time.monotonic() + 120
    while flow.poll() is None and time.monotonic() < deadline:
        try:
            warm = json.loads((home / "run.json").read_text())["warm"]
            client = clickhouse_connect.get_client(dsn=warm["url"], username=warm["reader_user"], password=warm["reader_password"])
            client.query("SELECT count() FROM k2.ohlcv_1m")
        except Exception:
            time.sleep(0.2)
        else:
            return client
    raise SystemExit(f"the flow did not come up: {(home / 'flow.log').read_text()[-2000:]}")


def _probe(home: Path, log: TopicLog, flow: subprocess.Popen[bytes], seconds: int, rate: int) -> dict[str, float]:
    client = _client(home, flow)
    ids: dict[str, int] = {}
    rng, latencies, price, asserted = np.random.default_rng(1), [], 100, time.time_ns() // 1000 - 5_000_000
    members = {p: [s for s in SYMBOLS if partition_of(s, 4) == p] for p in range(4)}
    query = f"SELECT toFloat64(close_price) FROM k2.ohlcv_1m_view WHERE exchange='binance' AND canonical_symbol='{PROBE}' ORDER BY window_start DESC LIMIT 1"
    start = time.perf_counter()
    due = start
    beat = 0
    while due - start < seconds:
        price += 1
        beat += 1
        log.append(topic_name("binance"), {p: _batch(r) for p, r in _frames(max(2, round(rate * BEAT)), ids, rng, price).items()})
        appended = time.perf_counter()
        if beat % 10 == 0:
            to_us = time.time_ns() // 1000 - 100_000
            bodies = {
                p: json.dumps({"feed": "probe", "exchange": "binance", "from_us": asserted, "to_us": to_us, "symbols": m})
                for p, m in members.items()
            }
            log.append(topic_name("binance"), {p: _batch([("", b)], "marker") for p, b in bodies.items()})
            asserted = to_us
        while True:
            rows = client.query(query).result_rows
            if rows and rows[0][0] >= price:
                break
            if time.perf_counter() - appended > 10:
                raise SystemExit(f"a trade was not readable within 10 s; the flow said: {(home / 'flow.log').read_text()[-2000:]}")
            time.sleep(0.002)
        if beat > WARM_UP:
            latencies.append((time.perf_counter() - appended) * 1000)
        due = max(due + BEAT, time.perf_counter() - BEAT)
        time.sleep(max(0.0, due - time.perf_counter()))
    p50, p90, p99 = np.percentile(latencies, [50, 90, 99])
    return {
        "p50_ms": round(p50, 1),
        "p90_ms": round(p90, 1),
        "p99_ms": round(p99, 1),
        "max_ms": round(max(latencies), 1),
        "probes": len(latencies),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--rate", type=int, default=1000)
    parser.add_argument("--catalog-delay", type=float, default=0.0, help="seconds for which the catalog is locked, again and again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        with _slow_catalog(home / "cold" / "catalog.db", options.catalog_delay):
            print(json.dumps(measure(home, options.seconds, options.rate)))


@contextlib.contextmanager
def _slow_catalog(file: Path, delay: float) -> Iterator[None]:
    # Somebody else holds the catalog's database for `delay` seconds at a time: every commit waits that long.
    done = threading.Event()

    def hold() -> None:
        while not done.wait(0.2):
            if not file.exists():
                continue
            with (
                contextlib.suppress(sqlite3.OperationalError),
                contextlib.closing(sqlite3.connect(file, timeout=10, isolation_level=None)) as database,
            ):
                database.execute("BEGIN EXCLUSIVE")
                done.wait(delay)
                database.execute("ROLLBACK")

    thread = threading.Thread(target=hold) if delay else None
    if thread is not None:
        thread.start()
    try:
        yield
    finally:
        done.set()
        if thread is not None:
            thread.join()


if __name__ == "__main__":
    main()
