"""What the flow's steps run: the decoders and the shards, built from a platform's venues and rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from connectors.venues.base import Venue
from dataflows.engine import Control, StageLogic
from market.instrument import Instruments
from market.output import TableOutput
from market.record import RawBatch
from market.rules import Rules
from market.shard import Shard
from market.trade import Decoded


@dataclass(frozen=True, slots=True)
class VenueSetup:
    """One exchange of a platform: how to read its frames, which instruments count, by which rules."""

    venue: Venue
    instruments: Instruments
    rules: Rules


Setups = Mapping[str, VenueSetup]


class DecodedBatch(NamedTuple):
    """A raw batch, the trades of its frames, and the instruments whose codes they have."""

    raw: RawBatch
    decoded: Decoded
    instruments: Instruments


def decode_with(setups: Setups, batch: RawBatch) -> DecodedBatch:
    """Decode the frames of a batch with its exchange's decoder; the batch itself stays beside them."""
    setup = setups[batch.exchange]
    return DecodedBatch(batch, setup.venue.decode(batch, setup.instruments), setup.instruments)


class ShardStage:
    """A `Shard` behind the engine's contract: the engine does not say which key it builds, so the first batch does.

    When what is listed has changed, the shard is made anew from its own state: symbols have other codes then.
    """

    def __init__(self, setups: Setups, state: bytes | None) -> None:
        self._setups = setups
        self._state = state
        self._shard: Shard | None = None
        self._instruments: Instruments | None = None

    def apply(self, value: DecodedBatch) -> list[TableOutput]:
        """Sequence and fold one decoded batch."""
        if self._shard is None or (value.instruments is not self._instruments and value.instruments != self._instruments):
            self._shard = self._open(value.raw, value.instruments, self._state if self._shard is None else self._shard.dump())
            self._instruments, self._state = value.instruments, None
        return self._shard.apply(value.raw, value.decoded)

    def _open(self, batch: RawBatch, instruments: Instruments, state: bytes | None) -> Shard:
        setup = self._setups[batch.exchange]
        made = Shard if state is None else partial(Shard.load, state)
        return made(
            exchange=batch.exchange,
            partition=batch.partition,
            instruments=instruments,
            rules=setup.rules,
            native_side_is_maker=setup.venue.native_side_is_maker,
        )

    def dump(self) -> bytes:
        """Return the shard's state; what was loaded, while no batch has come."""
        if self._shard is None:
            return self._state or b""
        return self._shard.dump()


def shard_logic(setups: Setups, control: Control, state: bytes | None) -> StageLogic:
    """Build the keyed step's logic, anew or from saved state."""
    return StageLogic(control, ShardStage(setups, state or None))
