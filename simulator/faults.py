"""What can go wrong, and when: faults as values, read from text or files or drawn from a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class FaultKind(StrEnum):
    """What goes wrong."""

    DROP = "drop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong. `at`: run seconds; `seconds`: how long; `exchange`: where, "" everywhere."""

    kind: FaultKind
    at: float = 0.0
    seconds: float = 0.0
    exchange: str = ""
    symbols: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class FaultRecord:
    """What became of a fault."""

    fault: Fault

    def shown(self) -> dict[str, Any]:
        """Return it as the books show it."""
        return {"kind": self.fault.kind}
