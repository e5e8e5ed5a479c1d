"""What an audit answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from maintenance.compare import Difference


@dataclass(frozen=True, slots=True)
class Line:
    """What one layer of one exchange holds of one hour (of event time, epoch µs); `raw` is None where nothing was recomputed."""

    exchange: str
    hour_us: int
    layer: str
    raw: int | None
    warm: int
    cold: int
    differences: int


@dataclass(frozen=True, slots=True)
class Example:
    """One difference, for a person."""

    exchange: str
    table: str
    store: str
    difference: Difference
    key: Mapping[str, Any]


@dataclass(slots=True)
class Report:
    """What the audit found; `notes` say what could not be compared and why."""

    lines: list[Line] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def differences(self) -> int:
        """How many differences there are in all."""
        return sum(line.differences for line in self.lines)
