"""Sink partitions that open in the background keep every output, and their errors are not lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pyarrow as pa
import pytest

from dataflows.opening import WAITING_ROWS, Opener
from market.errors import Refused
from market.output import TableOutput

SECONDS = 30.0


class Recording:
    """A writer that remembers what it was given."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.ended: list[str] = []

    def write(self, output: TableOutput) -> None:
        self.taken.append(output.first_offset)

    def snapshot(self) -> bytes:
        return bytes(self.taken)

    def finish(self) -> None:
        self.ended.append("finish")

    def abort(self) -> None:
        self.ended.append("abort")


def output(offset: int, rows: int = 1) -> TableOutput:
    batch = pa.RecordBatch.from_pydict({"x": pa.array(range(rows), pa.int64())})
    return TableOutput("t", "binance", "raw.trades.binance", 0, "g", offset, offset + 1, batch)


@pytest.fixture
def opener() -> Iterator[Opener]:
    made = Opener(2, "test-open")
    yield made
    made.close()


def test_outputs_written_before_the_writer_is_open_come_first_and_in_order(opener: Opener) -> None:
    may_open, writer = threading.Event(), Recording()

    def opened() -> Recording:
        assert may_open.wait(SECONDS)
        return writer

    opening = opener.submit(opened)
    for offset in range(3):
        opening.write(output(offset))
    assert writer.taken == []
    may_open.set()
    assert opening.snapshot() == bytes([0, 1, 2])
    opening.write(output(3))
    assert writer.taken == [0, 1, 2, 3]


def test_what_waits_is_handed_over_when_the_writer_is_open_though_nothing_more_comes(opener: Opener) -> None:
    may_open, handed_over = threading.Event(), threading.Event()

    class Telling(Recording):
        def write(self, output: TableOutput) -> None:
            super().write(output)
            handed_over.set()

    def opened() -> Recording:
        assert may_open.wait(SECONDS)
        return Telling()

    opener.submit(opened).write(output(0))
    may_open.set()
    assert handed_over.wait(SECONDS)


def test_a_barrier_without_outputs_waits_for_the_writer(opener: Opener) -> None:
    assert opener.submit(Recording).snapshot() == b""


def test_more_rows_than_the_bound_wait_for_the_writer(opener: Opener) -> None:
    writer = Recording()
    opening = opener.submit(lambda: writer)
    opening.write(output(0, WAITING_ROWS))
    assert writer.taken == [0]


def refused() -> Recording:
    raise Refused("the table was set back: run `k2 recover`")


@pytest.mark.parametrize("use", ["snapshot", "finish"])
def test_a_refusal_is_raised_by_the_first_use_that_needs_the_writer(opener: Opener, use: str) -> None:
    opening = opener.submit(refused)
    with pytest.raises(Refused, match="k2 recover"):
        getattr(opening, use)()


def test_an_abort_lets_go_of_a_writer_that_opened_meanwhile_and_never_raises(opener: Opener) -> None:
    writer, may_open, begun = Recording(), threading.Event(), threading.Event()

    def opened() -> Recording:
        begun.set()
        assert may_open.wait(SECONDS)
        return writer

    opening = opener.submit(opened)
    opening.write(output(0))
    assert begun.wait(SECONDS)
    threading.Timer(0.05, may_open.set).start()
    opening.abort()
    assert writer.taken == []
    assert writer.ended == ["abort"]
    opener.submit(refused).abort()
