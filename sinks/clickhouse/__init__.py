"""The ClickHouse side of the platform: tables and the reader; the exactly-once sink is `warm`, imported by that name.

Who only reads does not wait for the compiled code that writers need (half a second).
"""

from sinks.clickhouse.ddl import prepare
from sinks.clickhouse.reader import Frontier, WarmReader

__all__ = ["Frontier", "WarmReader", "prepare"]
