"""`k2 demo`: real recordings over real sockets through the whole platform, a summary, a chart.

simulator ──WebSocket──▶ feed ──▶ raw topics ──▶ flow ──▶ ClickHouse, Iceberg, each a process of its own, on one console.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import typer

from cli.arguments import utc
from cli.demo_market import LISTED, SPEED, Market, instruments_text, recordings
from cli.demo_report import CHARTED, show_chart, summarise
from cli.logs import configure_logs
from cli.reading import Reading
from cli.screen import say
from cli.supervise import Supervisor
from config.run_file import make_home
from config.settings import Settings, load_settings
from maintenance.stored import WARM, Wanted
from market.errors import ConfigError
from market.interval import BY_NAME
from market.record import topic_name
from market.schema import OHLCV

DEFAULTS: Final = {"K2_HOME": ".k2/demo", "K2_COMMIT_INTERVAL": "2", "K2_EPOCH_INTERVAL": "2"}
_SPEED_VARIABLE: Final = "K2_DEMO_SPEED"
_MOST_SPEED: Final = 100
_STATUS_S: Final = 5.0
_SETTLE_S: Final = 2.5  # a feed's markers come every second
_PATIENCE_S: Final = 60.0


def demo(*, once: bool) -> None:
    """Run the demo; repeating it stores nothing twice.

    Raises:
        ConfigError: the recordings are not there (they come with the source tree), or a setting is wrong.
        FatalError: one of the processes ended and would end again.
        KeyboardInterrupt: Ctrl-C came before the end of the recordings, and `once` was asked for.
        typer.Exit: with 1 when the audit finds differences.
    """
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    settings = load_settings()
    configure_logs()
    list(recordings())
    speed = _speed()
    instruments = settings.home / "instruments.yaml"
    make_home(settings.home)
    instruments.write_text(instruments_text())
    os.environ["K2_INSTRUMENTS"] = str(instruments)
    settings = load_settings()
    say("ten minutes of three exchanges, recorded, in half a minute: simulator ▶ feed ▶ raw topics ▶ flow ▶ ClickHouse and Iceberg")
    was_told = _play_once(settings, speed)
    if was_told and once:
        raise KeyboardInterrupt
    if not was_told:
        differences = summarise(settings)
        show_chart(settings)
        _say_what_next(settings)
        if differences:
            raise typer.Exit(1)
        if once:
            return
        say("\nand on: the recordings again and again; Ctrl-C ends")
        market = Market(instruments, speed=speed, again=True)
        Supervisor(market.parts, status=_status(market), status_seconds=_STATUS_S).run()
    show_chart(settings)
    _say_what_next(settings)


def _play_once(settings: Settings, speed: float) -> bool:
    # Whether somebody ended it before its end.
    market = Market(settings.instruments, speed=speed, again=False)
    supervisor = Supervisor(market.parts, status=_status(market), status_seconds=_STATUS_S)
    with Reading(settings) as reading:
        supervisor.run(_Ending(market, reading, supervisor))
    return supervisor.was_told


def _speed() -> float:
    given = os.environ.get(_SPEED_VARIABLE, "")
    try:
        speed = float(given or SPEED)
    except ValueError:
        speed = 0.0
    if not 1 <= speed <= _MOST_SPEED:
        raise ConfigError(f"{_SPEED_VARIABLE}={given!r}: is no number from 1 to {_MOST_SPEED}")
    return speed


class _Ending:
    """Whether the recordings are over and in the stores; asked again and again. Stops the feed on the way."""

    def __init__(self, market: Market, reading: Reading, supervisor: Supervisor) -> None:
        self._market, self._reading, self._supervisor = market, reading, supervisor
        self._halted_at = 0.0
        self._has_fed = False

    def __call__(self) -> bool:
        halted_us = self._market.halted_at_us()
        if halted_us is None:
            return False
        now = time.monotonic()
        self._halted_at = self._halted_at or now
        is_late = now - self._halted_at > _PATIENCE_S
        if not self._has_fed and (is_late or (now - self._halted_at > _SETTLE_S and self._is_closed(halted_us))):
            self._supervisor.end("feed")
            self._has_fed = True
        return self._has_fed and (is_late or self._is_read())

    def _is_closed(self, until_us: int) -> bool:
        # Whether the last whole minute is.
        exchange, symbol, interval = CHARTED
        end_us = BY_NAME[interval].window_start(until_us)
        wanted = Wanted(exchange, (symbol,), end_us - BY_NAME[interval].length_us, end_us, closed=True)
        return any(batch.num_rows for batch in self._reading.opened(WARM).rows(OHLCV[interval], wanted, ["window_start"]))

    def _is_read(self) -> bool:
        # Iceberg's quiet tables follow when the flow ends.
        frontiers = self._reading.opened(WARM).frontiers()
        ends = {topic_name(e): self._reading.log.end_offsets(topic_name(e)) for e in LISTED}
        return all(
            all(found.offset >= end for (_, of, at), found in frontiers.items() if (of, at) == (topic, partition))
            for topic, offsets in ends.items()
            for partition, end in enumerate(offsets)
        )


def _status(market: Market) -> Callable[[], str]:
    def status() -> str:
        state = market.state()
        if state is None:
            return "starting"
        if state["running_seconds"] is None:
            return "waiting for the feed's subscriptions"
        return f"{utc(state['now_us']):%Y-%m-%d %H:%M:%S} on the recordings' clock · {state['released']:,} trades"

    return status


def _say_what_next(settings: Settings) -> None:
    k2 = f"K2_HOME={shlex.quote(_short(settings.home))} {_program()}"
    say(f"\nlook further:    {k2} status\n                 {k2} export candles -e binance -i 1m\nstop the store:  {k2} down")


def _program() -> str:
    # As it can be typed here: `make demo` runs it without putting it in the way of the shell.
    if shutil.which("k2") is not None:
        return "k2"
    return shlex.quote(_short(Path(sys.executable).parent / "k2"))


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
