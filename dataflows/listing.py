"""What the flow takes in, read again when the instruments file changes.

A feed subscribes to a new symbol after it has read the file, so whoever looks at the file before each batch knows every symbol
in that batch: no trade of it can pass as one that is not listed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import structlog

from connectors.streams import check_streams, streams_of
from dataflows.stages import DecodedBatch, Setups, VenueSetup, decode_with
from market.errors import ConfigError
from market.instrument import Instruments
from market.record import RawBatch

log = structlog.get_logger()


class Listing:
    """Decodes with what is listed now. What was taken off the list stays until the flow starts again: its last trades may be unread.

    Args:
        file: the instruments file.
        load: reads it; raises `ConfigError`.
    """

    def __init__(self, file: Path, load: Callable[[], Setups]) -> None:
        self._file, self._load = file, load
        self._stamp = self._look()
        self.setups: Setups = load()

    def decode(self, batch: RawBatch) -> DecodedBatch:
        """Decode the frames of a batch."""
        stamp = self._look()
        if stamp is not None and stamp != self._stamp:
            self._stamp = stamp
            self._read_again()
        return decode_with(self.setups, batch)

    def _look(self) -> tuple[int, int, int] | None:
        # None while an editor replaces the file.
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read_again(self) -> None:
        try:
            found = self._load()
            check_streams(streams_of(_instruments(self.setups)), _instruments(found))
        except ConfigError as error:
            log.error("instruments_refused", file=str(self._file), reason=str(error))  # noqa: TRY400 the message says it all
            return
        new = {e: _joined(found[e], setup) for e, setup in self.setups.items() if e in found}
        added = {e: len(s.instruments) - len(self.setups[e].instruments) for e, s in new.items()}
        unread = sorted(found.keys() - self.setups.keys())
        self.setups = {**self.setups, **new}
        log.info("instruments_changed", added=sum(added.values()))
        if unread:
            log.warning("exchanges_need_a_restart", exchanges=unread)  # a flow's topics are fixed when it starts


def _instruments(setups: Setups) -> dict[str, Instruments]:
    return {exchange: setup.instruments for exchange, setup in setups.items()}


def _joined(new: VenueSetup, old: VenueSetup) -> VenueSetup:
    canonical, spelled = new.instruments.by_canonical, new.instruments.by_venue_symbol
    gone = [i for i in old.instruments.listed if i.canonical not in canonical and i.venue_symbol not in spelled]
    return VenueSetup(new.venue, Instruments(new.instruments.exchange, (*new.instruments.listed, *gone)), new.rules)
