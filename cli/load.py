"""`k2 load`: captured frames, or exported raw records, into a raw topic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from cli.screen import Meter, meter, say
from cli.streams import keep_streams
from config.run_file import make_home
from config.settings import load_settings
from connectors.files.loader import LoadedFile, Progress, load_capture
from connectors.files.raw_file import is_raw_export, load_raw
from connectors.instruments import find_exchange, load_instruments
from connectors.topics.registry import open_log
from connectors.venues.registry import venue
from market.errors import ConfigError


def load(exchange: str, files: Sequence[Path], *, quiet: bool) -> None:
    """Load files in the given order; tells what each became.

    Raises:
        ConfigError: an unknown exchange, a stream other than the home's, or a file that is missing or cannot be read; that file and those after it are not loaded.
        Refused: raw records of a topic with another partition count.
    """
    settings = load_settings()
    instruments = find_exchange(load_instruments(settings), exchange)
    for problem, bad in (("no such file", [p for p in files if not p.exists()]), ("not a file", [p for p in files if not p.is_file()])):
        if bad:
            raise ConfigError(f"{problem}: {', '.join(map(str, bad))}")
    make_home(settings.home)
    keep_streams(settings.home, {instruments.exchange: instruments})
    log = open_log(settings)
    try:
        for path in files:
            with meter(path.name, quiet=quiet) as shown:
                if is_raw_export(path):
                    loaded = load_raw(log, instruments.exchange, path, partitions=settings.partitions, progress=_on(shown))
                else:
                    (loaded,) = load_capture(
                        log,
                        instruments.exchange,
                        venue(instruments.exchange),
                        instruments,
                        [path],
                        partitions=settings.partitions,
                        progress=_on(shown),
                    )
            if not quiet:
                say(describe(loaded))
    finally:
        log.close()


def describe(loaded: LoadedFile) -> str:
    """Return one line about a loaded file."""
    symbols = ", ".join(loaded.symbols[:6]) + (f" and {len(loaded.symbols) - 6} more" if len(loaded.symbols) > 6 else "")
    return f"{loaded.path}: {loaded.frames:,} frames, {loaded.records:,} records ({loaded.markers:,} markers) of {symbols or 'no listed symbol'}"


def _on(shown: Meter) -> Callable[[Progress], None]:
    return lambda progress: shown.show(progress.done, progress.total, f"{progress.path.name} ({progress.step})")
