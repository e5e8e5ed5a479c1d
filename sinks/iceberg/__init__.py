"""The Iceberg sink: own every layer for ever, readable from polars, DuckDB, Spark, Trino and ClickHouse.

catalog    URL → catalog                      fence      one writer: commits land on the head they were planned on
layout     schema, partitions, properties     append     rows → data files, in the background
table      ColdTable: the writer              gold       candle changes → merged rows at commit time
reader     ColdReader                         committer  commits in order, never waited for

The writer is imported as `sinks.iceberg.table`: who only reads does not wait for the compiled code behind it (half a second).
"""

from sinks.iceberg.catalog import open_catalog
from sinks.iceberg.frontier import Position, TopicPartition
from sinks.iceberg.layout import prepare
from sinks.iceberg.reader import ColdReader, TableFrontier, TableStatus

__all__ = ["ColdReader", "Position", "TableFrontier", "TableStatus", "TopicPartition", "open_catalog", "prepare"]
