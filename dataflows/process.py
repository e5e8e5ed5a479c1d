"""What the flow, and a feed, ask of their own process once everything is open and the work begins."""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Final

_PR_SET_THP_DISABLE: Final = 41
YOUNG_OBJECTS: Final = 10_000  # made before the collector looks at the youngest ones; Python's default is 700


def settle() -> None:
    """Spare the process work on memory: for long runs, called once, before the first batch.

    What imports and opening have made stays for ever, so the collector need not look at it again. Huge pages are switched
    off, for this process and those it starts: a batch uses a part of each and gives it back, and the next one has two megabytes
    zeroed for it again.
    """
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0)  # where it is refused all works as before
