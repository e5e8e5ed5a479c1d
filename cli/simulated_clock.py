"""The time of a simulator, for what runs on its time line."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from typing import Any, Final

from market.errors import ConfigError
from simulator.clock import run_time_us

_LOOK_S: Final = 0.1  # less than the notice that a simulator gives before its clock runs


class SimulatedClock:
    """Follows the clock of the simulator at a URL: asks until it runs, and from then on goes by itself.

    Raises:
        ConfigError: nothing answers there.
    """

    def __init__(self, url: str) -> None:
        self._url = f"{url}/books/state"
        try:
            state, at = self._ask()
        except (OSError, ValueError) as error:
            raise ConfigError(f"K2_VENUES_URL={url}: no simulator is there: {error}") from error
        self.speed: float = state["speed"]
        self._start_us: int = state["start_us"]
        self._from_us: int = state["from_us"]
        self._halt_us: int | None = state["halt_us"]
        self._began = self._beginning(state, at)
        if self._began is None:
            threading.Thread(target=self._wait, daemon=True).start()

    def now_us(self) -> int:
        """Return the simulator's time, epoch µs."""
        began = self._began
        running = None if began is None else time.monotonic() - began
        return self._start_us + run_time_us(running, self.speed, self._from_us, self._halt_us)

    def _wait(self) -> None:
        while self._began is None:
            time.sleep(_LOOK_S)
            try:
                self._began = self._beginning(*self._ask())
            except (OSError, ValueError):
                continue  # it may be about to end; then there is no time to tell

    def _ask(self) -> tuple[dict[str, Any], float]:
        # The state, and about when it was true.
        asked = time.monotonic()
        with urllib.request.urlopen(self._url, timeout=5) as answer:  # noqa: S310 a setting that was checked
            state: dict[str, Any] = json.load(answer)
        return state, (asked + time.monotonic()) / 2

    @staticmethod
    def _beginning(state: dict[str, Any], at: float) -> float | None:
        running = state["running_seconds"]
        return None if running is None else at - running
