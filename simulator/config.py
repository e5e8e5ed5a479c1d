"""What to simulate: one frozen value, checked when it is made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from market.errors import ConfigError
from simulator.exchange import Conditions
from simulator.faults import Fault

EXCHANGES = ("binance", "kraken", "coinbase")  # simulated unless told otherwise
KNOWN = (*EXCHANGES, "binance_usdm")
HIGHEST_PORT = 65_535


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorConfig:
    """A simulation.

    `exchanges`: which venues. `symbols`: how many the generator lists at each, or by exchange the canonical symbols.
    `quiet_symbols`: so many of them, the last ones, trade `quiet_rate` times a second each. `rate`: trades a second of run
    time, all venues together. `trades`, `seconds`: where trading ends (the simulator stays and answers); None: never.
    `start_us`: epoch µs of run time 0; None: now. `speed`: run seconds a real second. `clock_offsets`: seconds by which a
    venue's clock is ahead. `recordings`: files by exchange, replayed instead of generated trades; `once`: not again and again;
    `as_recorded`: with the times they were recorded with. `start_of`: the venue whose recording's first moment is run time 0.
    `skip_seconds`: where run time begins; what was traded before that, only REST knows. `halt_seconds`: the run time at which the
    clock stands still; None: never. `waits_for_clients`: it stands at its beginning until every symbol is subscribed. `faults`: what goes wrong when. `conditions`: how venues treat
    clients. `tick_seconds`: how often trades are sent.
    """

    host: str = "127.0.0.1"
    port: int = 0
    exchanges: tuple[str, ...] = EXCHANGES
    symbols: int | Mapping[str, tuple[str, ...]] = 5
    quiet_symbols: int = 0
    quiet_rate: float = 0.05
    rate: float = 300.0
    seed: int = 1
    trades: int | None = None
    seconds: float | None = None
    start_us: int | None = None
    speed: float = 1.0
    clock_offsets: Mapping[str, float] = field(default_factory=dict)
    recordings: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    once: bool = False
    as_recorded: bool = False
    start_of: str = ""
    skip_seconds: float = 0.0
    halt_seconds: float | None = None
    waits_for_clients: bool = False
    faults: tuple[Fault, ...] = ()
    conditions: Conditions = field(default_factory=Conditions)
    tick_seconds: float = 0.005

    def __post_init__(self) -> None:
        """Check it.

        Raises:
            ConfigError: naming what is wrong.
        """
        named = {*self.exchanges, *self.clock_offsets, *self.recordings, *(f.exchange for f in self.faults if f.exchange)}
        named |= set(self.symbols) if isinstance(self.symbols, Mapping) else set()
        for name in sorted(named):
            if name not in KNOWN:
                raise ConfigError(f"no exchange called {name!r} can be simulated (known: {', '.join(KNOWN)})")
        if not self.exchanges:
            raise ConfigError("nothing to simulate: name an exchange")
        self._check_parts()
        if isinstance(self.symbols, int) and not 1 <= self.symbols <= 2000:
            raise ConfigError(f"symbols must be 1 to 2000, not {self.symbols}")
        for name, value in (("rate", self.rate), ("speed", self.speed), ("tick_seconds", self.tick_seconds)):
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} must be more than 0, not {value}")

    def _check_parts(self) -> None:
        for fault in self.faults:
            if fault.exchange and fault.exchange not in self.exchanges:
                raise ConfigError(f"fault {fault.kind}: {fault.exchange} is not simulated (only {', '.join(self.exchanges)})")
        if self.start_of and self.start_of not in self.recordings:
            raise ConfigError(f"run time is to start with the recording of {self.start_of}, but there is none")
        if not 0 <= self.port <= HIGHEST_PORT:
            raise ConfigError(f"port must be 0 to {HIGHEST_PORT}, not {self.port}")
        for name, listed in self.symbols.items() if isinstance(self.symbols, Mapping) else ():
            if not listed:
                raise ConfigError(f"{name} lists no symbol")
            for symbol in listed:
                if not all(symbol.partition("/")):
                    raise ConfigError(f"{name}: symbol {symbol!r} is not BASE/QUOTE, for example BTC/USD")

    def symbols_of(self, exchange: str) -> int | tuple[str, ...]:
        """Return how many symbols the generator lists at an exchange, or which."""
        return self.symbols if isinstance(self.symbols, int) else self.symbols.get(exchange, 5)
