"""`k2 live`: the real exchanges into both stores, as supervised processes with one console."""

from __future__ import annotations

import signal
import urllib.error
import urllib.request
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families

from cli import lifecycle
from cli.screen import say
from cli.supervise import Part, Supervisor, k2
from config.run_file import read_run
from config.settings import Settings, load_settings
from connectors.instruments import load_instruments
from dataflows.lock import ExecutionLock
from sinks import warm_store

FEED = Part("feed", k2("feed"))
FLOW = Part("flow", k2("run"))


def live() -> None:
    """Feed and run until Ctrl-C; then stop what was started, the warm store too.

    Raises:
        ConfigError: a setting or the instruments file is wrong; nothing was started.
        Locked: a flow runs in this home; nothing was started.
        FatalError: a process ended and would end again.
    """
    settings = load_settings()
    listed = load_instruments(settings)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)  # until the supervisor has its own: what was started is stopped
    with ExecutionLock(settings.recovery_dir) as lock:
        lock.acquire()
    try:
        lifecycle.up()
        say(f"live: {', '.join(f'{exchange} ({len(instruments)})' for exchange, instruments in listed.items())}; Ctrl-C ends")
        Supervisor([FEED, FLOW], status=feed_status(settings)).run()
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal that closes says so more than once
        if settings.warm_is_embedded and not lifecycle.is_flow_running(settings):  # another one may have begun at the same time
            warm_store.stop(settings.home)
    say(f"stopped; data stays in {settings.home}")


def feed_status(settings: Settings) -> Callable[[], str]:
    """Return what says, each time it is called, how the feeds of a home are, by their metrics."""
    before: dict[str, float] = {}

    def status() -> str:
        parts = [part for entry in read_run(settings.home).get("feeds", {}).values() for part in _feed(entry.get("metrics"), before)]
        return " · ".join(parts)

    return status


def _feed(url: str | None, before: dict[str, float]) -> list[str]:
    if not url:
        return []
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 our own process, on loopback
            families = {family.name: family.samples for family in text_string_to_metric_families(answer.read().decode())}
    except (OSError, ValueError):
        return []
    open_now = {s.labels["exchange"]: s.value for s in families.get("k2_feed_connections", [])}
    parts = []
    for sample in families.get("k2_feed_messages", []):
        exchange = sample.labels.get("exchange", "")
        if sample.name.endswith("_total"):
            new = sample.value - before.get(url + exchange, 0)
            before[url + exchange] = sample.value
            parts.append(f"{exchange}: {new:,.0f} messages, {open_now.get(exchange, 0):.0f} connections")
    waiting = sum(s.value for s in families.get("k2_feed_queue_bytes", []))
    return [*parts, f"{waiting / 1e6:,.1f} MB wait"] if waiting > 1e6 else parts
