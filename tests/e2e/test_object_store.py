"""The flow as it runs in production: from a Kafka broker into an Iceberg REST catalog whose tables lie on S3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from benchmarks.generate import Workload
from market.schema import OHLCV
from sinks.iceberg import open_catalog
from tests.e2e.harness import Home, home, run_with_kills
from tests.servers.fetched import or_skip
from tests.servers.kafka import OwnBroker
from tests.servers.rest_catalog import running_catalog
from tests.servers.s3 import BUCKET, S3Server, s3_server

__all__ = ["s3_server"]


@pytest.fixture
def production(own_kafka_broker: OwnBroker, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    own_kafka_broker.forget_raw_topics()
    monkeypatch.setenv("PYICEBERG_CATALOG__K2__S3__ACCESS_KEY_ID", s3_server.key)
    monkeypatch.setenv("PYICEBERG_CATALOG__K2__S3__SECRET_ACCESS_KEY", s3_server.secret)
    monkeypatch.setenv("POLARS_ICEBERG_PLANNER", "pyiceberg")
    (tmp_path / "catalog").mkdir()
    storage = {
        "io_impl": "org.apache.iceberg.aws.s3.S3FileIO",
        "warehouse": f"s3://{BUCKET}/warehouse",
        "s3__endpoint": s3_server.endpoint,
        "s3__path_style_access": "true",
        "s3__access_key_id": s3_server.key,
        "s3__secret_access_key": s3_server.secret,
        "client__region": "us-east-1",
    }
    with or_skip(running_catalog(tmp_path / "catalog", **storage)) as catalog:
        urls = {
            "K2_TOPICS_URL": own_kafka_broker.url,
            "K2_COLD_URL": f"{catalog.url}?s3.endpoint={s3_server.endpoint}&s3.region=us-east-1",
        }
        with home(tmp_path / "home", **urls, K2_EPOCH_RECORDS="1000") as made:
            yield made


@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_killed_flow_from_kafka_to_s3_stores_everything_once(production: Home, s3_server: S3Server) -> None:
    trades = production.fill(Workload(trades=200_000, symbols=60, trouble=0.02, seed=3))
    hits = run_with_kills(production, seed=5, kills=8, pause=(2.0, 8.0))
    assert hits >= 6, "the kills missed the run: make it longer"
    production.audit()
    for store in ("warm", "cold"):
        assert production.silver_count(store) == trades, store
    assert any(path.suffix == ".parquet" for path in s3_server.objects)
    assert not list(production.folder.rglob("*.parquet"))
    candles = open_catalog(production.env["K2_COLD_URL"]).load_table(f"cold.{OHLCV['1m'].cold_name}")
    assert pl.scan_iceberg(candles).select(pl.len()).collect().item() == production.rows(OHLCV["1m"], "cold").height
