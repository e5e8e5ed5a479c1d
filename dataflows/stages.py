"""What the flow's steps run: the decoders and the shards, built from a platform's venues and rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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


def decode_with(setups: Setups, batch: RawBatch) -> tuple[RawBatch, Decoded]:
    """Decode the frames of a batch with its exchange's decoder; the batch itself stays beside them."""
    setup = setups[batch.exchange]
    return batch, setup.venue.decode(batch, setup.instruments)


class ShardStage:
    """A `Shard` behind the engine's contract: the engine does not say which key it builds, so the first batch does."""

    def __init__(self, setups: Setups, state: bytes | None) -> None:
        self._setups = setups
        self._state = state
        self._shard: Shard | None = None

    def apply(self, value: tuple[RawBatch, Decoded]) -> list[TableOutput]:
        """Sequence and fold one decoded batch."""
        batch, decoded = value
        if self._shard is None:
            self._shard = self._open(batch)
            self._state = None
        return self._shard.apply(batch, decoded)

    def _open(self, batch: RawBatch) -> Shard:
        setup = self._setups[batch.exchange]
        maker = setup.venue.native_side_is_maker
        if self._state is None:
            return Shard(
                exchange=batch.exchange,
                partition=batch.partition,
                instruments=setup.instruments,
                rules=setup.rules,
                native_side_is_maker=maker,
            )
        return Shard.load(
            self._state,
            exchange=batch.exchange,
            partition=batch.partition,
            instruments=setup.instruments,
            rules=setup.rules,
            native_side_is_maker=maker,
        )

    def dump(self) -> bytes:
        """Return the shard's state; what was loaded, while no batch has come."""
        if self._shard is None:
            return self._state or b""
        return self._shard.dump()


def shard_logic(setups: Setups, control: Control, state: bytes | None) -> StageLogic:
    """Build the keyed step's logic, anew or from saved state."""
    return StageLogic(control, ShardStage(setups, state or None))
