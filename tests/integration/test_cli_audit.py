"""An audit finds what was changed behind the platform's back, and where."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.generate import Workload
from market.instrument import partition_of
from sinks.iceberg.catalog import open_catalog
from tests.cli_calls import call
from tests.e2e.harness import Home, home

WORK = Workload(trades=3_000, symbols=6, trouble=0.02, rate=20)


def warm(where: Home, sql: str) -> str:
    """Run a statement as the writing user."""
    found: dict[str, str] = where.run_file()["warm"]  # type: ignore[assignment]
    request = urllib.request.Request(
        found["url"], data=sql.encode(), headers={"X-ClickHouse-User": found["user"], "X-ClickHouse-Key": found["password"]}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(answer.read().decode())


def differences(where: Home) -> Counter[str]:
    found: list[dict[str, Any]] = json.loads(call(where.env, "audit", "--json", code=None).text)
    return +Counter({layer: sum(r["differences"] for r in found if r["layer"] == layer) for layer in {r["layer"] for r in found}})


def test_every_kind_of_tampering_is_found_in_its_layer(tmp_path: Path) -> None:
    with home(tmp_path / "home") as where:
        where.fill(WORK)
        where.k2("run", "--until-end")
        assert call(where.env, "audit").text.splitlines()[-1] == "no differences"

        warm(where, "INSERT INTO k2.silver_trades SELECT * FROM k2.silver_trades WHERE exchange = 'kraken' LIMIT 1")
        done = call(where.env, "audit", code=None)
        assert done.code == 1
        assert "kraken silver_trades (warm): stored more than once: partition" in done.text
        assert done.text.splitlines()[-1] == "1 differences"
        assert differences(where) == {"silver": 1}
        call(where.env, "audit", "--exchange", "binance")

        warm(
            where, "INSERT INTO k2.ohlcv_1m SELECT * REPLACE(close_price + 1 AS close_price) FROM k2.ohlcv_1m FINAL WHERE is_closed LIMIT 1"
        )
        partition = partition_of(WORK.symbols_of("binance")[0], 4)
        warm(where, f"INSERT INTO k2.dead_letters SELECT 'binance', 'raw.trades.binance', 'bad_json', '', '', now64(6), {partition}, 0, 0")
        catalog = open_catalog(f"sqlite:///{where.folder}/cold/catalog.db")
        for name in ("bronze_trades_binance", "gold_ohlcv_1m"):
            table = catalog.load_table(f"cold.{name}")
            first = table.scan(limit=1).to_arrow().to_pylist()[0]
            keys = (
                ("kafka_partition", "kafka_offset", "source_index") if name.startswith("bronze") else ("source_partition", "source_offset")
            )
            where_clause = " and ".join(f"{key} = {first[key]}" for key in keys)
            if name.startswith("gold"):
                where_clause += (
                    f" and canonical_symbol = '{first['canonical_symbol']}' and window_start = '{first['window_start'].isoformat()}'"
                )
            table.delete(where_clause)
        assert differences(where) == {"silver": 1, "gold": 2, "bronze": 1, "truth": 1}
        text = call(where.env, "audit", code=None).text
        assert "binance bronze_trades_binance (cold): missing: partition" in text
        assert "ohlcv_1m (cold): missing: canonical_symbol" in text
        assert "ohlcv_1m (warm): other values: canonical_symbol" in text
        assert f"binance dead_letters (warm): not expected: partition {partition}, offset 0, index 0" in text
