"""The two destinations: ClickHouse (warm) and Iceberg (cold)."""
