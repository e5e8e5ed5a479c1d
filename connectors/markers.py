"""What a connection asserts: markers that follow each other without a hole (design: time is data)."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from market.instrument import partition_of


def marker_payload(*, feed: str, exchange: str, from_us: int, to_us: int, symbols: Sequence[str]) -> bytes:
    """Return the payload of a marker: everything of these symbols with event times in (from_us, to_us] stands before it."""
    body = {"feed": feed, "exchange": exchange, "from_us": from_us, "to_us": to_us, "symbols": list(symbols)}
    return json.dumps(body, separators=(",", ":")).encode()


def event_payload(
    *, feed: str, exchange: str, kind: str, symbols: Sequence[str], detail: str, from_us: int | None = None, to_us: int | None = None
) -> bytes:
    """Return the payload of what a feed reports about itself; times that are not given are the record's receive time."""
    body = {"feed": feed, "exchange": exchange, "kind": kind, "symbols": list(symbols), "detail": detail}
    times = {"from_us": from_us, "to_us": to_us}
    return json.dumps({**body, **{k: v for k, v in times.items() if v is not None}}, separators=(",", ":")).encode()


@dataclass(slots=True)
class Assertion:
    """The running assertion of one connection over its symbols, each from its own start."""

    feed: str
    exchange: str
    partitions: int
    _asserted_to: dict[str, int] = field(default_factory=dict)

    def __contains__(self, symbol: str) -> bool:
        """Return whether the symbol is asserted."""
        return symbol in self._asserted_to

    def begin(self, symbol: str, from_us: int) -> None:
        """Take a symbol in; nothing is asserted about it at or before `from_us`."""
        self._asserted_to[symbol] = from_us

    def end(self, symbols: Iterable[str]) -> None:
        """Assert nothing more about these symbols."""
        for symbol in symbols:
            self._asserted_to.pop(symbol, None)

    def advance(self, to_us: int) -> list[tuple[int, bytes]]:
        """Return (partition, marker payload) for what can be asserted up to `to_us` beyond the last time.

        One marker a partition; symbols that have not begun together get their own until they share a stretch.
        """
        stretches: dict[tuple[int, int], list[str]] = defaultdict(list)
        for symbol, from_us in self._asserted_to.items():
            if from_us < to_us:
                stretches[partition_of(symbol, self.partitions), from_us].append(symbol)
                self._asserted_to[symbol] = to_us
        return [
            (partition, marker_payload(feed=self.feed, exchange=self.exchange, from_us=from_us, to_us=to_us, symbols=symbols))
            for (partition, from_us), symbols in sorted(stretches.items())
        ]
