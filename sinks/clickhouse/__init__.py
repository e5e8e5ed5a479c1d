"""The ClickHouse side of the platform: tables, the exactly-once sink, the reader."""

from sinks.clickhouse.ddl import prepare
from sinks.clickhouse.reader import Frontier, WarmReader
from sinks.clickhouse.warm import ClickHouseWarm, WarmPartition

__all__ = ["ClickHouseWarm", "Frontier", "WarmPartition", "WarmReader", "prepare"]
