"""An event loop whose clock jumps to whatever is due next: hours of timeouts in milliseconds."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class _Selector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("everything waits and nothing is due")
        # A little more: whoever waits for a time and is woken a rounding error before it must not wait for ever.
        self.now += max(timeout, 0.0) + 1e-9
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its `time` begins at 0 and only passes while everything waits."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)
        self.errors: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.errors.append(context))

    def time(self) -> float:
        return self._virtual.now


def run_virtual(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine on a virtual clock; fails on tasks it leaves behind and on errors that only the loop saw."""
    loop = VirtualLoop()
    try:
        loop.run_until_complete(work)
        left = asyncio.all_tasks(loop)
        assert not left, left
        assert not loop.errors, loop.errors
    finally:
        loop.close()
