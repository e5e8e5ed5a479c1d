"""`k2 run` and `k2 recover`."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cli.logs import configure_logs
from cli.screen import Meter, meter, say
from cli.starting import collected_later
from cli.streams import keep_streams
from config.settings import load_settings
from connectors.instruments import load_instruments

if TYPE_CHECKING:
    from dataflows.composition import Platform


def run(*, until_end: bool, take_over: bool) -> None:
    """Run the flow; returns when it drained, or read and committed everything (`until_end`)."""
    settings = load_settings()
    configure_logs(logging.INFO)
    with collected_later():
        from dataflows import runner

    keep_streams(settings.home, load_instruments(settings))
    if until_end and sys.stderr.isatty():
        configure_logs()
        with progress_of_flow() as watch:
            runner.run(settings, until_end=True, take_over=take_over, watch=watch)
    else:
        runner.run(settings, until_end=until_end, take_over=take_over)


@contextmanager
def progress_of_flow(*, quiet: bool = False) -> Iterator[Callable[[Platform], None]]:
    """Show how many records of a bounded run are read; yields what the runner calls when the platform is built."""
    stop = threading.Event()
    with meter("reading", quiet=quiet) as shown:
        threads: list[threading.Thread] = []

        def watch(platform: Platform) -> None:
            total = sum(platform.until.values()) - sum(platform.control.position.get(shard, 0) for shard in platform.until)
            threads.append(threading.Thread(target=_follow, args=(platform, total, shown, stop), daemon=True))
            threads[0].start()

        try:
            yield watch
        finally:
            stop.set()
            for thread in threads:
                thread.join(2)


def _follow(platform: Platform, total: int, shown: Meter, stop: threading.Event) -> None:
    while not stop.wait(0.1):
        done = platform.control.records
        # Positions are known once the engine has built its sources: what an earlier run read does not count.
        behind = sum(max(0, end - platform.control.position.get(shard, 0)) for shard, end in platform.until.items())
        shown.show(done, done + behind if platform.control.position else total, "committing" if not behind and done else "reading")


def recover() -> None:
    """Move the recovery folder aside and say where it went."""
    settings = load_settings()
    configure_logs()
    from dataflows import runner

    aside = runner.recover(settings, datetime.now(UTC))
    if aside is None:
        say(f"{settings.recovery_dir}: there was no recovery folder; a new one is ready")
    else:
        say(f"the recovery folder is now {aside}; a new one is ready")
    say("`k2 run` starts at the log's beginning; what is stored already is recognised and not written again")
