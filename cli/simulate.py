"""`k2 simulate`: a local exchange to try feeds against."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from cli.arguments import parse_time
from cli.screen import say
from config.settings import load_settings
from connectors.instruments import load_instruments
from market.errors import ConfigError
from simulator.config import EXCHANGES, SimulatorConfig
from simulator.exchange import Conditions
from simulator.faults import Fault, FaultKind, drawn_faults, faults_of, parse_fault
from simulator.simulator import Simulator


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The command's options as typed; see its help."""

    host: str
    port: int
    exchanges: Sequence[str]
    symbols: Sequence[str]
    quiet_symbols: int
    rate: float
    seed: int
    trades: int | None
    seconds: float | None
    start: str | None
    skip: float = 0.0
    halt: float | None = None
    wait_for_clients: bool = False
    speed: float
    clock_offsets: Sequence[str]
    recordings: Sequence[str]
    once: bool
    as_recorded: bool
    faults: Sequence[str]
    fault_count: int
    fault_kinds: Sequence[str]
    fault_file: Path | None
    max_age: float
    limits: bool
    write_instruments: Path | None
    exit_after: float | None


def simulate(request: Request) -> None:
    """Run a simulation until it is interrupted, or for `exit_after` seconds after trading ended.

    Raises:
        ConfigError: an option makes no sense; names it.
    """
    config = build_config(request)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(config, request))


def build_config(request: Request) -> SimulatorConfig:
    """Return what the options describe.

    Raises:
        ConfigError: naming the option.
    """
    exchanges = tuple(dict.fromkeys(request.exchanges)) or EXCHANGES
    recordings = _files(request.recordings)
    start_of = request.start if request.start in recordings else ""
    return SimulatorConfig(
        host=request.host,
        port=request.port,
        exchanges=exchanges,
        symbols=_symbols(request.symbols, exchanges),
        quiet_symbols=request.quiet_symbols,
        rate=request.rate,
        seed=request.seed,
        trades=request.trades,
        seconds=request.seconds,
        start_us=None if request.start is None or start_of else parse_time(request.start, "--start"),
        start_of=start_of,
        skip_seconds=request.skip,
        halt_seconds=request.halt,
        waits_for_clients=request.wait_for_clients,
        speed=request.speed,
        clock_offsets={name: _number("--clock-offset", text) for name, text in _named("--clock-offset", request.clock_offsets)},
        recordings=recordings,
        once=request.once,
        as_recorded=request.as_recorded,
        faults=_faults(request, exchanges),
        conditions=Conditions(enforces_limits=request.limits, max_age_seconds=request.max_age),
    )


async def _run(config: SimulatorConfig, request: Request) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    try:
        simulator = Simulator(config)
        try:
            await simulator.start()
        except OSError as error:
            raise ConfigError(f"cannot listen on {config.host}:{config.port}: {error.strerror or error}; --port chooses another") from error
        try:
            if request.write_instruments is not None:
                _write(request.write_instruments, simulator.books.instruments())
            say(f"listening on {simulator.url}")
            say(f"feeds: K2_VENUES_URL={simulator.url} · books: {simulator.url}/books/state")
            await _until_over(simulator, stopping, request.exit_after)
        finally:
            await simulator.stop()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise ConfigError(f"--write-instruments {path}: {error.strerror or error}") from error


async def _until_over(simulator: Simulator, stopping: asyncio.Event, exit_after: float | None) -> None:
    async def over() -> None:
        await simulator.ended()
        say(f"trading is over: {simulator.books.state()['released']:,} trades")
        await (asyncio.sleep(exit_after) if exit_after is not None else stopping.wait())

    waiting = [asyncio.create_task(over()), asyncio.create_task(stopping.wait())]
    done, left = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    for task in done:
        task.result()


def _symbols(given: Sequence[str], exchanges: Sequence[str]) -> int | Mapping[str, tuple[str, ...]]:
    # A number; or EXCHANGE=BTC/USD,ETH/USD; or nothing: what the instruments file lists.
    if len(given) == 1 and given[0].isdigit():
        return int(given[0])
    if given:
        return {name: tuple(text.split(",")) for name, text in _named("--symbols", given)}
    listed = load_instruments(load_settings())
    return {name: tuple(i.canonical for i in listed[name].listed) for name in exchanges if name in listed} or 5


def _named(option: str, given: Sequence[str]) -> list[tuple[str, str]]:
    pairs = [text.partition("=") for text in given]
    for name, sign, value in pairs:
        if not sign or not value:
            raise ConfigError(f"{option} {name!r}: write {option} EXCHANGE=VALUE")
    return [(name, value) for name, _, value in pairs]


def _number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"{option} {text!r} is no number") from None


def _files(given: Sequence[str]) -> dict[str, tuple[Path, ...]]:
    files: dict[str, tuple[Path, ...]] = {}
    for name, text in _named("--recording", given):
        files[name] = (*files.get(name, ()), Path(text))
    return files


def _faults(request: Request, exchanges: Sequence[str]) -> tuple[Fault, ...]:
    faults = [parse_fault(text) for text in request.faults]
    if request.fault_file is not None:
        faults += faults_of(_document(request.fault_file))
    if request.fault_count:
        if request.seconds is None:
            raise ConfigError("--faults draws moments of the run: say how long it is with --seconds")
        unknown_kinds = [kind for kind in request.fault_kinds if kind not in list(FaultKind)]
        if unknown_kinds:
            raise ConfigError(f"--fault-kinds: no fault is called {unknown_kinds[0]!r} (known: {', '.join(FaultKind)})")
        kinds = [FaultKind(kind) for kind in request.fault_kinds]
        faults += drawn_faults(request.fault_count, seed=request.seed, seconds=request.seconds, exchanges=exchanges, kinds=kinds)
    return tuple(faults)


def _document(path: Path) -> object:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML too
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--fault-file {path}: {error}") from error
