"""Whatever the topic and the disk do, what is in one of them is everything up to some chunk: no marker without its frames."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from connectors.live.outbox import Outbox
from connectors.live.outgoing import Chunk
from connectors.live.spill import Spill
from market.errors import SourceDisconnected
from tests.feeding import Topics, chunk, marker


class Disk(Spill):
    """A spill on a disk with so many bytes left."""

    free = 1 << 30

    def append(self, chunk: Chunk) -> int:
        need = chunk.records.nbytes + 500
        if need > self.free:
            raise OSError(28, "No space left on device")
        self.free -= need
        return super().append(chunk)


SIZES = st.sampled_from([10, 3_000, 9_000])
ROOM = st.sampled_from([0, 1_500, 5_000, 12_000, 40_000])
STEPS = st.one_of(
    st.tuples(st.just("frames"), SIZES),
    st.tuples(st.just("marker"), st.just(0)),
    st.tuples(st.sampled_from(["sent", "failed"]), st.just(0)),
    st.tuples(st.just("free"), ROOM),
)


def numbers(payloads: list[str]) -> list[int]:
    return [int(payload.partition("-")[0]) for payload in payloads]


def on_disk(folder: Path) -> list[str]:
    return [p.decode() for c in Spill(folder).read(1 << 30) for p in c.records.column("payload").to_pylist()]


@settings(max_examples=150, deadline=None)
@example(steps=[("frames", 9_000), ("failed", 0), ("marker", 0)], room=5_000, atomic=True, stopped=False)
@given(steps=st.lists(STEPS, min_size=4, max_size=25), room=ROOM, atomic=st.booleans(), stopped=st.booleans())
def test_what_is_saved_is_everything_up_to_some_chunk(steps: list[tuple[str, int]], room: int, *, atomic: bool, stopped: bool) -> None:
    topics, given = Topics(atomic=atomic), 0
    with tempfile.TemporaryDirectory() as folder:
        spill = Disk(Path(folder), segment_bytes=4_000)
        spill.free = room
        outbox = Outbox(topics, spill, memory_bytes=16_000)
        for step, size in steps:
            if step in {"frames", "marker"}:
                outbox.put(marker(f"{given}-") if step == "marker" else chunk(f"{given}-{'x' * size}"))
                given += 1
            elif step == "free":
                spill.free = size
            else:
                topics.down = step == "failed"
                with contextlib.suppress(SourceDisconnected):
                    outbox.write_once()
        if stopped:
            outbox.stop(0)
        spill.close()
        saved = numbers(topics.payloads() + on_disk(Path(folder)))
        assert sorted(set(saved)) == list(range(max(saved, default=-1) + 1))
        if stopped:
            assert (0 if outbox.lost is None else outbox.lost.records) >= given - len(set(saved))
            assert outbox.lost is None or len(set(saved)) < given
        topics.down = False
        following = Outbox(topics, Spill(Path(folder) / "new"), [Spill(Path(folder))])
        while following.write_once():
            pass
        assert list(dict.fromkeys(numbers(topics.payloads()))) == sorted(set(saved))
