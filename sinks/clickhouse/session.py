"""One connection to a ClickHouse server: statements, Arrow in, Arrow out, our exceptions."""

from __future__ import annotations

import ipaddress
import logging
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any, Final

import clickhouse_connect
import pyarrow as pa
from clickhouse_connect.driver.httputil import get_pool_manager

from market.errors import SinkUnavailable
from sinks.clickhouse.errors import translated
from sinks.endpoint import Endpoint

DATABASE: Final = "k2"
CONNECT_SECONDS: Final = 5
ANSWER_SECONDS: Final = 30
WRITE_SETTINGS: Final[dict[str, Any]] = {
    "async_insert": 0,  # a queued block would be invisible to the resume check
    "input_format_null_as_default": 0,  # a null where none belongs is an error, not a price of 0
    "insert_deduplicate": 0,  # identical blocks are told apart by their causes, not by their content
    "max_partitions_per_insert_block": 0,  # a load of old recordings touches many months
}
READ_SETTINGS: Final[dict[str, Any]] = {
    "output_format_arrow_string_as_string": 1,
    "output_format_arrow_low_cardinality_as_dictionary": 0,
    "output_format_arrow_compression_method": "none",
}


class Session:
    """A connection for one thread at a time. Opening it asks the server for its settings (some milliseconds)."""

    def __init__(self, endpoint: Endpoint, *, answer_seconds: int = ANSWER_SECONDS) -> None:
        logging.getLogger("clickhouse_connect").setLevel(logging.CRITICAL)  # it logs what it raises
        parts = urllib.parse.urlsplit(endpoint.url)
        local = _is_loopback(parts.hostname or "")
        # A pool of its own for the local store: HTTP_PROXY must not take its requests elsewhere.
        pool = get_pool_manager() if local and parts.scheme == "http" else None
        with translated(f"connecting to {endpoint.url}"):
            self._client = clickhouse_connect.get_client(
                interface=parts.scheme,
                host=parts.hostname,
                port=parts.port,
                proxy_path=parts.path,
                username=endpoint.user,
                password=endpoint.password,
                compress=not local,
                query_retries=0,
                connect_timeout=CONNECT_SECONDS,
                send_receive_timeout=answer_seconds,
                client_name="k2",
                autogenerate_session_id=False,
                form_encode_query_params=True,
                pool_mgr=pool,
                dedicated_pool=pool is None,
            )
        self._pool = pool

    def command(self, sql: str, parameters: Mapping[str, Any] | None = None, *, settings: Mapping[str, Any] | None = None) -> None:
        """Run a statement without rows as its result."""
        with translated(sql[:60]):
            self._client.command(sql, parameters=dict(parameters or {}), settings=dict(settings or {}))

    def insert(self, sql: str, body: pa.Buffer | None, *, query_id: str) -> int:
        """Run an `INSERT … FORMAT ArrowStream` with its body, or an insert that needs none, once: the driver does not repeat it.

        Returns:
            Rows that the server says it wrote.

        Raises:
            SinkUnavailable: what became of the rows is unknown.
        """
        settings = {**WRITE_SETTINGS, "query_id": query_id}
        with translated(sql[:60]):
            if body is None:
                summary = self._client.command(sql, settings=settings)
            else:
                # The driver puts the statement together again, and keeps it in the URL as long as the body is neither text nor
                # bytes: those it would read through in search of SQL (1 µs a row), and repeat after a lost answer.
                target = sql.removeprefix("INSERT INTO ").removesuffix(" FORMAT ArrowStream")
                summary = self._client.raw_insert(target, insert_block=memoryview(body), fmt="ArrowStream", settings=settings)
        written = getattr(summary, "written_rows", None)
        if written is None:
            raise SinkUnavailable(f"ClickHouse did not say how many rows it wrote ({sql[:60]})")
        return int(written)

    def arrow(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """Run a query and return its whole result."""
        with translated(sql[:60]):
            return self._client.query_arrow(sql, parameters=dict(parameters or {}), settings=READ_SETTINGS, use_strings=True)

    def arrow_batches(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Iterator[pa.RecordBatch]:
        """Run a query and yield its result block by block; this session is taken until the end."""
        with (
            translated(sql[:60]),
            self._client.query_arrow_stream(sql, parameters=dict(parameters or {}), settings=READ_SETTINGS, use_strings=True) as stream,
        ):
            yield from stream

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        if self._pool is not None:
            self._pool.clear()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
