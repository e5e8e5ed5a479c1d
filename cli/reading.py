"""What the reading commands share: the log, the instruments and both stores of a platform, opened when asked for."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import polars as pl

from cli.arguments import one_of
from config.names import unknown
from config.settings import Settings
from connectors.topics.base import TopicLog
from connectors.topics.registry import open_log
from maintenance.stored import COLD, WARM, Stored, Wanted
from market.errors import ConfigError
from market.instrument import Instruments
from market.record import exchange_of
from market.schema import TRADE_GAPS, Table, all_tables

STORES: Final = (WARM, COLD)


class Reading:
    """Reads a platform; opens nothing it is not asked for, and writes nothing.

    Args:
        settings: of the platform.
        start: whether to start the embedded warm store when it does not run; if not, `store("warm")` is then None.
    """

    def __init__(self, settings: Settings, *, start: bool = True) -> None:
        self.settings = settings
        self._start = start
        self._log: TopicLog | None = None
        self._listed: dict[str, Instruments] | None = None
        self._stores: dict[str, Stored | None] = {}

    @property
    def log(self) -> TopicLog:
        """The raw topics."""
        if self._log is None:
            self._log = open_log(self.settings)
        return self._log

    @property
    def listed(self) -> dict[str, Instruments]:
        """The instruments file."""
        if self._listed is None:
            from connectors.instruments import load_instruments  # with the decoders behind it

            self._listed = load_instruments(self.settings)
        return self._listed

    def with_topics(self) -> tuple[str, ...]:
        """Return the exchanges that have a raw topic, sorted."""
        return tuple(sorted(exchange for name in self.log.topics() if (exchange := exchange_of(name)) is not None))

    def tables(self) -> tuple[Table, ...]:
        """Return every table that may hold rows: of the exchanges that have a raw topic."""
        return all_tables(self.with_topics())

    def store(self, name: str) -> Stored | None:
        """Return a store; None when there is none yet: no catalog file, or a warm store that does not run and is not to be started."""
        if name not in self._stores:
            self._stores[name] = self._open_warm() if name == WARM else self._open_cold()
        return self._stores[name]

    def opened(self, name: str) -> Stored:
        """Return a store.

        Raises:
            ConfigError: there is none yet.
        """
        store = self.store(name)
        if store is None:
            raise ConfigError(f"there is no {name} store in {self.settings.home} yet: `k2 up` or `k2 run` creates it")
        return store

    def _open_warm(self) -> Stored | None:
        # The drivers are imported when they are wanted: they take most of a short command's time.
        from maintenance.warm import WarmRows
        from sinks import warm_store
        from sinks.endpoint import Endpoint

        settings = self.settings
        if not settings.warm_is_embedded:
            password = settings.warm_password.get_secret_value()
            return WarmRows(Endpoint(settings.warm_url, settings.warm_user, password, settings.warm_user, password))
        if self._start:
            return WarmRows(warm_store.ensure(settings.home))
        running = warm_store.status(settings.home)
        return WarmRows(running.endpoint) if running.running and running.endpoint is not None else None

    def _open_cold(self) -> Stored | None:
        url = urlsplit(self.settings.cold_url)
        if url.scheme == "sqlite" and not Path(url.path[1:]).exists():
            return None
        from maintenance.cold import ColdRows
        from sinks.iceberg.catalog import open_catalog

        return ColdRows(open_catalog(self.settings.cold_url), self.tables())

    def wanted(self, exchange: str | None, symbol: str | None) -> Wanted:
        """Return a filter for what a person typed.

        Raises:
            ConfigError: an unknown exchange or symbol; names the known ones and the nearest.
        """
        if exchange is None:
            return Wanted(None, None if symbol is None else self._anywhere(symbol))
        from connectors.instruments import find_exchange, find_symbol

        name = exchange.strip().lower()
        if name not in self.listed and name in self.with_topics():  # its rows are still there
            return Wanted(name, None if symbol is None else (symbol.strip().upper().replace("-", "/"),))
        instruments = find_exchange(self.listed, exchange)
        return Wanted(instruments.exchange, None if symbol is None else (find_symbol(instruments, symbol),))

    def _anywhere(self, symbol: str) -> tuple[str, ...]:
        from connectors.instruments import find_symbol

        found: set[str] = set()
        for instruments in self.listed.values():
            try:
                found.add(find_symbol(instruments, symbol))
            except ConfigError:
                continue
        if not found:
            every = sorted({canonical for instruments in self.listed.values() for canonical in instruments.by_canonical})
            raise ConfigError(unknown("symbol", symbol, every, "listed in the instruments file"))
        return tuple(sorted(found))

    def gaps_now(self, name: str, wanted: Wanted = Wanted()) -> pl.DataFrame:  # noqa: B008 frozen
        """Return the gaps of now: of each (exchange, symbol, first id, last id) the newest event, unless it says filled.

        Shape: the columns of `trade_gaps`, ascending by exchange, symbol, first id.
        """
        return newest_gaps([pl.DataFrame(batch) for batch in self.opened(name).rows(TRADE_GAPS, wanted)])

    def close(self) -> None:
        """Release connections."""
        for store in self._stores.values():
            if store is not None:
                store.close()
        if self._log is not None:
            self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def newest_gaps(events: list[pl.DataFrame]) -> pl.DataFrame:
    """Return the gaps of now out of all events of the ledger, ascending by exchange, symbol, first id."""
    if not events:
        return pl.DataFrame(schema=pl.Schema(TRADE_GAPS.arrow_schema()))
    key = list(TRADE_GAPS.key)
    newest = pl.concat(events).sort("source_offset", "source_index").unique(subset=key, keep="last")
    return newest.filter(pl.col("state") != "filled").sort(key)


def store_name(text: str) -> str:
    """Return `warm` or `cold`; `ConfigError` for anything else."""
    return one_of("store", text, STORES)
