"""What can go wrong, and when: faults as values, read from text or files, or drawn from a seed.

    drop@12:exchange=kraken:how=reset        kind @ run second : name=value …

Every fault may say `exchange` (else every venue), `seconds` (how long), and what its kind takes:

    kind              what happens                                                        takes
    drop              connections end                                                     how=reset|close|both, connections
    half_open         connections stay, but say and hear nothing                          connections
    delay             what is sent arrives later; control=no: but heartbeats do not       by, control
    duplicate         frames are sent twice                                               share
    reorder           frames within a window (at most 1 s) are shuffled                   window
    fragment          messages come in several WebSocket frames
    snapshot          the latest trades are sent again, unasked                           symbols
    repeat            the latest trades are sent again as new ones                        symbols, count
    skip              trades are never sent, but REST knows them                          symbols, count
    miss              some connections miss frames of trades that others get              connections, count
    lost              trades are never sent, and REST does not know them                  symbols, count
    cut               connections end as those of 24 h do                                 connections
    shutdown          it is announced, then connections end                               grace
    subscribe_error   the next subscriptions are refused                                  count, drop
    rest_429          REST refuses: too many requests                                     retry_after, drop
    rest_418          REST refuses: banned                                                retry_after, drop
    rest_5xx          REST fails                                                          status, drop
    slow_rest         REST answers late                                                   by, drop
    malformed         the next frames of trades are broken                                how=truncated|json|both, count
    clock_offset      the venue's clock is moved and stays                                by
    maintenance       connections end and none is accepted

`drop=yes` resets connections first, so that clients come back and meet the fault; drawn faults do that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from random import Random
from typing import Any, Final

from market.errors import ConfigError


class FaultKind(StrEnum):
    """What goes wrong; the table above says what each does."""

    DROP = "drop"
    HALF_OPEN = "half_open"
    DELAY = "delay"
    DUPLICATE = "duplicate"
    REORDER = "reorder"
    FRAGMENT = "fragment"
    SNAPSHOT = "snapshot"
    REPEAT = "repeat"
    SKIP = "skip"
    MISS = "miss"
    LOST = "lost"
    CUT = "cut"
    SHUTDOWN = "shutdown"
    SUBSCRIBE_ERROR = "subscribe_error"
    REST_429 = "rest_429"
    REST_418 = "rest_418"
    REST_5XX = "rest_5xx"
    SLOW_REST = "slow_rest"
    MALFORMED = "malformed"
    CLOCK_OFFSET = "clock_offset"
    MAINTENANCE = "maintenance"


# What each kind takes, with what it is unless said otherwise. `seconds` of 0: it is over at once.
_TAKES: Final[dict[FaultKind, dict[str, str]]] = {
    FaultKind.DROP: {"how": "both", "connections": "all"},
    FaultKind.HALF_OPEN: {"seconds": "30", "connections": "all"},
    FaultKind.DELAY: {"seconds": "3", "by": "1", "control": "yes"},
    FaultKind.DUPLICATE: {"seconds": "3", "share": "1"},
    FaultKind.REORDER: {"seconds": "3", "window": "0.5"},
    FaultKind.FRAGMENT: {"seconds": "3"},
    FaultKind.SNAPSHOT: {},
    FaultKind.REPEAT: {"count": "20"},
    FaultKind.SKIP: {"seconds": "30", "count": "20"},
    FaultKind.MISS: {"seconds": "30", "count": "5", "connections": "one"},
    FaultKind.LOST: {"seconds": "30", "count": "20"},
    FaultKind.CUT: {"connections": "all"},
    FaultKind.SHUTDOWN: {"grace": "5"},
    FaultKind.SUBSCRIBE_ERROR: {"seconds": "10", "count": "1", "drop": "no"},
    FaultKind.REST_429: {"seconds": "5", "retry_after": "2", "drop": "no"},
    FaultKind.REST_418: {"seconds": "5", "retry_after": "3", "drop": "no"},
    FaultKind.REST_5XX: {"seconds": "5", "status": "503", "drop": "no"},
    FaultKind.SLOW_REST: {"seconds": "5", "by": "2", "drop": "no"},
    FaultKind.MALFORMED: {"seconds": "30", "count": "3", "how": "both"},
    FaultKind.CLOCK_OFFSET: {"by": "0.5"},
    FaultKind.MAINTENANCE: {"seconds": "5"},
}
_WORDS: Final = {
    "how": ("reset", "close", "truncated", "json", "both"),
    "connections": ("all", "one", "oldest", "newest"),
    "control": ("yes", "no"),
    "drop": ("yes", "no"),
}
_MOST_REORDERED_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong.

    `at`: run seconds. `exchange`: where; "": at every venue. `symbols`: canonical; none: all, or one drawn from the seed for
    kinds that leave trades out. `options`: what the kind takes, as text.
    """

    kind: FaultKind
    at: float = 0.0
    exchange: str = ""
    symbols: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check it.

        Raises:
            ConfigError: naming what is wrong, and what would be right.
        """
        if not (math.isfinite(self.at) and self.at >= 0):
            raise ConfigError(f"fault {self.kind}: at {self.at} is no run second")
        known = _TAKES[self.kind]
        for name, value in self.options.items():
            if name not in known:
                raise ConfigError(f"fault {self.kind} takes no {name!r} (it takes: {', '.join(sorted(known)) or 'nothing'})")
            if name in _WORDS:
                if value not in _WORDS[name]:
                    raise ConfigError(f"fault {self.kind}: {name}={value!r} (known: {', '.join(_WORDS[name])})")
            elif not _is_number(value):
                raise ConfigError(f"fault {self.kind}: {name}={value!r} is no number")
        if self.kind is FaultKind.REORDER and not 0 < self.number("window") <= _MOST_REORDERED_SECONDS:
            raise ConfigError(f"fault {self.kind}: window must be at most {_MOST_REORDERED_SECONDS} s")

    def option(self, name: str) -> str:
        """Return what an option is."""
        return self.options.get(name, _TAKES[self.kind].get(name, ""))

    def number(self, name: str) -> float:
        """Return what an option is, as a number; 0 if the kind does not take it."""
        return float(self.option(name) or 0)

    @property
    def seconds(self) -> float:
        """How long it lasts, in run seconds."""
        return self.number("seconds")

    def shown(self) -> dict[str, Any]:
        """Return it with everything it means, as the books show it."""
        options = {**_TAKES[self.kind], **self.options}
        return {"kind": self.kind.value, "at": self.at, "exchange": self.exchange, "symbols": list(self.symbols), "options": options}


def parse_fault(text: str) -> Fault:
    """Read `kind@seconds[:name=value…]`.

    Raises:
        ConfigError: naming what is wrong.
    """
    head, *pairs = text.split(":")
    # A symbol list may stand in an option: symbols=BTC/USD,ETH/USD.
    kind, sign, at = head.partition("@")
    if not sign:
        raise ConfigError(f"fault {text!r}: write KIND@SECONDS, for example drop@12:exchange=kraken")
    values: dict[str, str] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign:
            raise ConfigError(f"fault {text!r}: {pair!r} is not NAME=VALUE")
        values[name.strip()] = value.strip()
    return fault_of({"kind": kind, "at": at, **values})


def fault_of(values: Mapping[str, Any]) -> Fault:
    """Return the fault that a mapping describes: `kind`, `at`, `exchange`, `symbols` and the options of its kind.

    Raises:
        ConfigError: naming what is wrong.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"a fault is a mapping with kind and at, not {values!r}")
    left = {str(name): value for name, value in values.items()}
    kind, at, exchange, symbols = left.pop("kind", ""), left.pop("at", 0), left.pop("exchange", ""), left.pop("symbols", ())
    if kind not in list(FaultKind):
        raise ConfigError(f"no fault is called {kind!r} (known: {', '.join(FaultKind)})")
    if not _is_number(str(at)):
        raise ConfigError(f"fault {kind}: at {at!r} is no run second")
    listed = tuple(symbols.split(",")) if isinstance(symbols, str) else tuple(str(symbol) for symbol in symbols)
    options = {name: ("yes" if value is True else "no" if value is False else str(value)) for name, value in left.items()}
    return Fault(kind=FaultKind(kind), at=float(at), exchange=str(exchange), symbols=listed, options=options)


def faults_of(document: object) -> list[Fault]:
    """Return the faults of a YAML or JSON document: a list of mappings, or such a list under `faults`.

    Raises:
        ConfigError: naming what is wrong.
    """
    listed = document.get("faults") if isinstance(document, Mapping) else document
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        raise ConfigError("a fault file is a list of faults: - {kind: drop, at: 12}")
    return [parse_fault(entry) if isinstance(entry, str) else fault_of(entry) for entry in listed]


def drawn_faults(
    count: int, *, seed: int, seconds: float, exchanges: Sequence[str], kinds: Sequence[FaultKind] | None = None
) -> list[Fault]:
    """Return faults drawn from a seed, ascending by time.

    Each kind comes up about equally often, and every one at least once if `count` is enough. They begin between 5 % and 85 %
    of the run, so that what they broke can be mended before its end.
    """
    random = Random(f"faults {seed}")  # noqa: S311 - meant to be repeatable
    pool = list(kinds or FaultKind)
    chosen = [kind for _ in range(-(-count // len(pool))) for kind in random.sample(pool, len(pool))][:count]
    drawn = [_drawn(kind, random, seconds, exchanges) for kind in chosen]
    return sorted(drawn, key=lambda fault: fault.at)


def _drawn(kind: FaultKind, random: Random, seconds: float, exchanges: Sequence[str]) -> Fault:
    options: dict[str, str] = {}
    takes = _TAKES[kind]
    if "connections" in takes:
        options["connections"] = random.choice(_WORDS["connections"])
    if "control" in takes:
        options["control"] = random.choice(_WORDS["control"])
    if "drop" in takes:
        options["drop"] = "yes"
    if kind is FaultKind.DROP:
        options["how"] = random.choice(("reset", "close"))
    if kind is FaultKind.CLOCK_OFFSET:
        options["by"] = f"{random.uniform(-0.4, 0.6):.3f}"
    if kind is FaultKind.DELAY:
        options["by"] = f"{random.uniform(0.2, 2.0):.3f}"
    if kind is FaultKind.SUBSCRIBE_ERROR:
        options["count"] = str(random.randint(1, 3))
    if kind in (FaultKind.SKIP, FaultKind.MISS, FaultKind.LOST, FaultKind.REPEAT):
        options["count"] = str(random.randint(1, 60))
    return Fault(kind=kind, at=round(seconds * random.uniform(0.05, 0.85), 3), exchange=random.choice(list(exchanges)), options=options)


@dataclass(slots=True)
class FaultRecord:
    """What became of a fault at one venue. Times are run µs; `end_us` None: it lasts. `ids`: by symbol, the ranges it concerns."""

    fault: Fault
    start_us: int
    end_us: int | None = None
    connections: list[str] = field(default_factory=list)
    ids: dict[str, list[tuple[int, int]]] = field(default_factory=dict)

    def concern(self, symbol: str, first_id: int, last_id: int) -> None:
        """Take note of trades it concerns; neighbours become one range."""
        ranges = self.ids.setdefault(symbol, [])
        if ranges and ranges[-1][1] + 1 == first_id:
            ranges[-1] = (ranges[-1][0], last_id)
        else:
            ranges.append((first_id, last_id))

    def shown(self) -> dict[str, Any]:
        """Return it as the books show it."""
        return self.fault.shown() | {
            "start_us": self.start_us,
            "end_us": self.end_us,
            "connections": self.connections,
            "ids": {symbol: [list(ids) for ids in ranges] for symbol, ranges in self.ids.items()},
        }


def everywhere(fault: Fault, exchanges: Sequence[str]) -> list[Fault]:
    """Return the fault once for each venue it is about."""
    return [fault] if fault.exchange else [replace(fault, exchange=name) for name in exchanges]


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
