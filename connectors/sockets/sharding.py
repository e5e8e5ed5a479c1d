"""Which connection carries which instrument."""

from __future__ import annotations

from collections.abc import Sequence

from market.instrument import Instrument

Shards = list[list[Instrument]]


def resharded(shards: Sequence[Sequence[Instrument]], wanted: Sequence[Instrument], capacity: int) -> Shards:
    """Return the shards for what is wanted now; as few as can hold it, evenly filled, and moving no more than that asks for.

    Args:
        shards: the instruments of each connection now; shards keep their index.
        wanted: all instruments, each once.
        capacity: the most of one connection.

    Returns:
        As many shards as now or more; some may be empty.
    """
    listed = set(wanted)
    result = [[instrument for instrument in shard if instrument in listed] for shard in shards]
    held = {instrument for shard in result for instrument in shard}
    homeless = [instrument for instrument in wanted if instrument not in held]
    needed = -(-len(listed) // capacity)
    result += [[] for _ in range(needed - len(result))]
    fullest = sorted(range(len(result)), key=lambda index: (-len(result[index]), index))
    for index in fullest[needed:]:
        homeless += result[index]
        result[index] = []
    kept = sorted(fullest[:needed])
    for instrument in homeless:
        min((result[index] for index in kept), key=len).append(instrument)
    return result
