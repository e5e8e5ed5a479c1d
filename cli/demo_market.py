"""The exchanges of the demo: a simulator that trades real recordings, fast, on one time line."""

from __future__ import annotations

import json
import socket
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from cli.supervise import Part, k2
from market.errors import ConfigError

RECORDINGS: Final = {
    "binance": ("btcusdt_20240808.gz", "btcusdt_20240809.gz"),
    "kraken": ("live-btc-eth_20260707.ndjson.gz",),
    "coinbase": ("COINBASE_part1.jsonl.gz",),
}
LISTED: Final = {"binance": ("BTC/USDT",), "kraken": ("BTC/USD", "ETH/USD"), "coinbase": ("BTC/USD", "ETH/USD")}
LEADING: Final = "binance"
"""Its trades have the times they were recorded with; the others' are moved onto its time line."""

SPEED: Final = 20.0
SPAN_SECONDS: Final = 651.0
"""Where all recordings have ended and none has started over: Binance's last trade comes 650.458 s after its first."""

HALT_SECONDS: Final = 700.0
"""Where time stands still: 40 s before the minute ends in which the recording does, so that nobody can call that minute complete."""


_UNSAID: Final = ("started_at_log_start", "feeds: K2_VENUES_URL")


class Market:
    """A simulator of the demo's exchanges, the feed that listens to it, and the flow behind both."""

    def __init__(self, instruments: Path, *, speed: float, again: bool) -> None:
        """Choose a port.

        Args:
            instruments: the instruments file.
            speed: recorded seconds a second.
            again: trade the recordings again and again, from the end of their first time on; else once.
        """
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        files = [f"--recording={exchange}={path}" for exchange, path in recordings()]
        how = [f"--skip={SPAN_SECONDS}"] if again else ["--once", f"--halt={HALT_SECONDS}"]
        options = [f"--port={port}", f"--start={LEADING}", f"--speed={speed}", "--wait-for-clients", "--no-limits", *files, *how]
        env = {"K2_INSTRUMENTS": str(instruments), "K2_VENUES_URL": self.url}
        self.parts = (
            Part("flow", k2("run"), env, stop_order=1, mute=_UNSAID),
            Part("simulator", k2("simulate", *options), env, ready="listening on", stop_order=2, mute=_UNSAID),
            Part("feed", k2("feed", "--simulated-clock"), env),
        )

    def state(self) -> Mapping[str, Any] | None:
        """Return the simulator's clock and counts; None while it does not answer."""
        try:
            with urllib.request.urlopen(f"{self.url}/books/state", timeout=5) as answer:  # noqa: S310 our own process, on loopback
                found: dict[str, Any] = json.load(answer)
        except (OSError, ValueError):
            return None
        return found

    def halted_at_us(self) -> int | None:
        """Return where the simulator's time stands still, epoch µs; None while it does not."""
        state = self.state()
        if state is None or state["halt_us"] is None or not state["has_ended"]:
            return None
        halt_us: int = state["start_us"] + state["halt_us"]
        return halt_us if state["now_us"] >= halt_us else None


def recordings() -> Iterator[tuple[str, Path]]:
    """Yield (exchange, file) of the recordings in the source tree.

    Raises:
        ConfigError: they are not there.
    """
    folder = Path(__file__).parents[1] / "tests" / "data"
    for exchange, names in RECORDINGS.items():
        for name in names:
            path = folder / exchange / name
            if not path.is_file():
                raise ConfigError(
                    f"{path} is not there: the demo needs the source tree, where its recordings are; or use `k2 load` with your own"
                )
            yield exchange, path


def instruments_text() -> str:
    """Return the demo's instruments file."""
    return "".join(f"{exchange}: [{', '.join(symbols)}]\n" for exchange, symbols in LISTED.items())
