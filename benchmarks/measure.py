"""The measured groups: each takes the bench (topics filled once) and returns figures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa

from benchmarks import limits
from benchmarks.generate import Workload, batches, fill, write_instruments
from benchmarks.report import Figure
from connectors.topics.registry import open_topics
from connectors.venues.registry import build_instruments, venue
from dataflows.stages import ShardStage, VenueSetup, decode_with
from market.output import TableOutput
from market.record import RawBatch, topic_name
from market.rules import Rules
from market.schema import CHANGE, Layer, all_tables
from sinks import clickhouse, iceberg
from sinks.clickhouse.warm import ClickHouseWarm
from sinks.iceberg.table import ColdTable
from sinks.warm_store import ensure, stop

PARTITIONS: Final = 4
BATCH: Final = 20_000


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass
class Bench:
    """A home with filled topics, and the raw and decoded batches in memory."""

    folder: Path
    workload: Workload
    naive_trades: int
    raw: dict[str, list[pa.RecordBatch]] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    _outputs: list[TableOutput] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.home = self.folder / "home"
        self.home.mkdir(parents=True)
        self.url = f"sqlite:///{self.home}/topics.db"
        self.env = {
            **os.environ,
            "K2_HOME": str(self.home),
            "K2_INSTRUMENTS": str(write_instruments(self.workload, self.folder / "instruments.yaml")),
        }
        log = open_topics(self.url)
        fill(log, self.workload, PARTITIONS)
        self.raw = limits.read_all(log, self.workload.exchanges, BATCH)
        log.close()

    def setups(self) -> dict[str, VenueSetup]:
        """Return decoders, instruments and rules of the workload."""
        listed = self.workload.instruments()
        return {
            e: VenueSetup(venue(e), build_instruments(e, list(s)), Rules(contiguous_ids=venue(e).contiguous_ids)) for e, s in listed.items()
        }

    def batches(self) -> Iterator[RawBatch]:
        """Yield the raw batches of all partitions."""
        for shard, records in self.raw.items():
            exchange, partition = shard.split("/")
            for batch in records:
                yield RawBatch(exchange, topic_name(exchange), int(partition), "bench", batch.column("offset")[-1].as_py() + 1, batch)

    def outputs(self) -> list[TableOutput]:
        """Return what the core makes of all batches (computed once)."""
        if not self._outputs:
            setups = self.setups()
            stages: dict[str, ShardStage] = {}
            for batch in self.batches():
                stage = stages.setdefault(batch.shard, ShardStage(setups, None))
                self._outputs += stage.apply(decode_with(setups, batch))
        return self._outputs

    def rows(self, *layers: Layer) -> dict[str, list[pa.RecordBatch]]:
        """Return non-empty outputs of the given layers, by table."""
        names = {t.name for t in all_tables(self.workload.exchanges) if t.layer in layers}
        found: dict[str, list[pa.RecordBatch]] = {}
        for output in self.outputs():
            if output.table in names and output.rows.num_rows:
                found.setdefault(output.table, []).append(output.rows)
        return found

    def k2(self, *arguments: str, **env: str) -> tuple[float, float]:
        """Run a k2 command; return its seconds and its peak memory in MB."""
        start = time.perf_counter()
        log = self.folder / "k2.log"
        with log.open("ab") as out:
            process = subprocess.Popen([sys.executable, "-m", "cli.main", *arguments], env={**self.env, **env}, stdout=out, stderr=out)
            peak = 0.0
            while process.poll() is None:
                peak = max(peak, _peak_mb(process.pid))
                time.sleep(0.02)
        if process.returncode:
            raise SystemExit(f"k2 {' '.join(arguments)} exited {process.returncode}: {log.read_text()[-2000:]}")
        return time.perf_counter() - start, peak

    def stop(self) -> None:
        """Stop the home's warm store."""
        subprocess.run([sys.executable, "-m", "cli.main", "down"], env=self.env, check=False, capture_output=True)


def _peak_mb(pid: int) -> float:
    # Not from the process's rusage: that one begins with the memory of who started it.
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def _rate(bench: Bench, name: str, seconds: float, count: float | None = None, other: str = "") -> Figure:
    rate = (count or bench.workload.trades) / seconds
    bench.rates[name] = rate
    return Figure(name, rate, other)


def topic_logs(bench: Bench) -> list[Figure]:
    """Append and read, records per second."""
    log = open_topics(bench.url)
    seconds = limits.seconds(limits.read_all, log, bench.workload.exchanges)
    records = sum(b.num_rows for batches_ in bench.raw.values() for b in batches_)
    bench.rates["topic read per trade"] = bench.workload.trades / seconds
    log.close()
    made = list(batches(bench.workload, "binance", PARTITIONS, 10_000))[:20]
    other = open_topics(f"sqlite:///{bench.folder}/append.db")
    other.create(topic_name("binance"), PARTITIONS)

    def append_all() -> None:
        for records, _ in made:
            other.append(topic_name("binance"), records)

    append = limits.seconds(append_all)
    other.close()
    return [
        Figure("limit: SQLite topic, read (records)", records / seconds),
        Figure("SQLite topic, append in batches of 10,000 (records)", sum(b.num_rows for r, _ in made for b in r.values()) / append),
    ]


def compute(bench: Bench) -> list[Figure]:
    """Decode, sequence and fold in one process, one core."""
    setups = bench.setups()
    for batch in bench.batches():  # compiled code is loaded or compiled before the clock starts
        ShardStage(setups, None).apply(decode_with(setups, batch))
        break
    per_venue = []
    decoded = []
    spent_decoding = 0.0
    for exchange in bench.workload.exchanges:
        start, count = time.perf_counter(), 0
        for batch in bench.batches():
            if batch.exchange == exchange:
                decoded.append(decode_with(setups, batch))
                count += len(decoded[-1][1].trades)
        spent = time.perf_counter() - start
        spent_decoding += spent
        per_venue.append(Figure(f"decode {exchange}", count / spent))
    stages: dict[str, ShardStage] = {}
    start = time.perf_counter()
    for item in decoded:
        bench._outputs += stages.setdefault(item[0].shard, ShardStage(setups, None)).apply(item)
    spent_folding = time.perf_counter() - start
    total = spent_decoding + spent_folding
    return [
        *per_venue,
        _rate(bench, "sequence and fold", spent_folding),
        _rate(bench, "compute: decode + sequence + fold, one core", total),
    ]


def trouble(bench: Bench) -> list[Figure]:
    """Compute with 5 % of the frames doubled or swapped."""
    workload = Workload(trades=bench.workload.trades // 4, trouble=0.05)
    setups = bench.setups()
    log = open_topics(f"sqlite:///{bench.folder}/trouble.db")
    fill(log, workload, PARTITIONS)
    raw = limits.read_all(log, workload.exchanges, BATCH)
    log.close()
    troubled = Bench.__new__(Bench)
    troubled.raw = raw
    stages: dict[str, ShardStage] = {}
    start = time.perf_counter()
    for batch in Bench.batches(troubled):
        stages.setdefault(batch.shard, ShardStage(setups, None)).apply(decode_with(setups, batch))
    return [Figure("compute with 5 % trouble, one core", workload.trades / (time.perf_counter() - start))]


def alone(bench: Bench) -> list[Figure]:
    """The limits: JSON, group-by, Parquet and Arrow insert alone."""
    json_seconds = limits.seconds(limits.decode_json, bench.raw)
    group_seconds = limits.seconds(limits.group_by, bench.rows(Layer.SILVER)["silver_trades"])
    both = bench.rows(Layer.BRONZE, Layer.SILVER)
    parquet_seconds = limits.seconds(limits.write_parquet, both, bench.folder)
    bench.k2("up")  # creates the tables to copy
    warm = {name: [b.select([c for c in b.schema.names if c not in {"payload", CHANGE}]) for b in rows] for name, rows in both.items()}
    insert_seconds = limits.insert_arrow(ensure(bench.home), warm)
    figures = [
        _rate(bench, "limit: typed JSON decode (msgspec)", json_seconds),
        _rate(bench, "limit: six polars group-bys", group_seconds),
        _rate(bench, "limit: Parquet write, bronze and silver", parquet_seconds),
        _rate(bench, "limit: Arrow insert, bronze and silver", insert_seconds),
    ]
    spent = json_seconds + group_seconds + parquet_seconds + insert_seconds + bench.workload.trades / bench.rates["topic read per trade"]
    return [*figures, _rate(bench, "all limits together", spent)]


def sinks(bench: Bench) -> list[Figure]:
    """Each sink alone: everything that the core makes of the trades, written and committed."""
    outputs = bench.outputs()
    tables = all_tables(bench.workload.exchanges)
    url = f"sqlite:///{bench.folder}/sink/catalog.db"
    iceberg.prepare(iceberg.open_catalog(url), tables)
    cold = {t.name: ColdTable(url, t) for t in tables}
    for table in cold.values():
        table.open(None)
    start = time.perf_counter()
    for output in outputs:
        cold[output.table].write(output)
    for table in cold.values():
        table.snapshot()
    for table in cold.values():
        table.drain(300)
    cold_seconds = time.perf_counter() - start
    for table in cold.values():
        table.close()

    home = bench.folder / "sink"
    endpoint = ensure(home)
    clickhouse.prepare(endpoint, tables)
    warm = ClickHouseWarm(lambda: endpoint, tables)
    parts = {(o.exchange, o.partition): (o.topic, o.generation) for o in outputs}
    opened = {(e, p): warm.open(e, topic, p, generation, None) for (e, p), (topic, generation) in parts.items()}
    start = time.perf_counter()
    for output in outputs:
        opened[output.exchange, output.partition].write(output)
    for part in opened.values():
        part.commit()
    warm_seconds = time.perf_counter() - start
    warm.close()
    stop(home)
    return [
        _rate(bench, "Iceberg sink, all tables", cold_seconds),
        _rate(bench, "ClickHouse sink, all tables", warm_seconds),
    ]


def kafka_log(bench: Bench) -> list[Figure]:
    """The Kafka log, with the test suite's broker on the same cores; left out where there is none."""
    from tests.servers.fetched import Unavailable
    from tests.servers.kafka import running_broker

    made = [records for records, _ in batches(bench.workload, "binance", PARTITIONS, 10_000)][:20]
    count = sum(b.num_rows for records in made for b in records.values())
    try:
        with running_broker(bench.folder / "broker") as broker:
            log = open_topics(broker.url)
            log.create(topic_name("binance"), PARTITIONS)

            def append_all() -> None:
                for records in made:
                    log.append(topic_name("binance"), records)

            append = limits.seconds(append_all)
            start, read = time.perf_counter(), 0
            position = dict.fromkeys(range(PARTITIONS), 0)
            while read < count:
                for partition, offset in position.items():
                    found = log.read(topic_name("binance"), partition, offset, BATCH)
                    if found is not None:
                        read += found.num_rows
                        position[partition] = found.column("offset")[-1].as_py() + 1
            reading = time.perf_counter() - start
            log.close()
    except Unavailable as error:
        return [Figure("Kafka topic", None, f"not measured: {error}")]
    return [
        Figure("Kafka topic, append in batches of 10,000 (records)", count / append),
        Figure("Kafka topic, read (records)", count / reading),
    ]


def whole_flow(bench: Bench) -> list[Figure]:
    """`k2 run --until-end` on a fresh home, everything written to both stores; start-up is measured apart and taken off."""
    idle_home = str(bench.folder / "idle")
    for _ in range(2):  # the first one starts the store
        idle, _ = bench.k2("run", "--until-end", K2_HOME=idle_home)
    bench.k2("down", K2_HOME=idle_home)
    bench.k2("up")
    seconds, memory = bench.k2("run", "--until-end")
    figure = _rate(bench, "whole flow, both stores", seconds - idle, other=f"start-up {idle:.1f} s; peak memory {memory:,.0f} MB")
    return [figure, *_ratios(bench)]


def _ratios(bench: Bench) -> list[Figure]:
    flow, limit = bench.rates["whole flow, both stores"], bench.rates.get("all limits together")
    return [Figure("whole flow / all limits together", None, f"{flow / limit:.2f}")] if limit else []


def naive(bench: Bench) -> list[Figure]:
    """The per-trade flow, in a process of its own, on a part of the trades."""
    small = Workload(trades=bench.naive_trades)
    url = f"sqlite:///{bench.folder}/naive.db"
    log = open_topics(url)
    fill(log, small, PARTITIONS)
    log.close()
    command = [sys.executable, "-m", "benchmarks.naive", url, str(PARTITIONS), *small.exchanges]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figure = _rate(bench, "naive Bytewax flow, writing nothing", json.loads(done.stdout)["seconds"], small.trades)
    if "whole flow, both stores" not in bench.rates:
        return [figure]
    return [figure, Figure("whole flow / naive flow", None, f"{bench.rates['whole flow, both stores'] / figure.rate:.1f}")]  # type: ignore[operator]


GROUPS: Final[dict[str, Callable[[Bench], list[Figure]]]] = {
    "topics": topic_logs,
    "kafka": kafka_log,
    "compute": compute,
    "trouble": trouble,
    "sinks": sinks,
    "limits": alone,
    "flow": whole_flow,
    "naive": naive,
}
