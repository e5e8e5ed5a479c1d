"""Captured frames into a raw topic, with markers as a feed would have written them.

A file is read twice: first for what a feed learns as it goes (which symbols, from when, how late frames come), then to
write it. Everything that is written is a function of the file: loading it again adds duplicates and repeats assertions,
and changes no candle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from connectors.files.capture import CapturedChunk, read_chunks
from connectors.files.capture_survey import NO_SYMBOLS, FrameReader, Survey, survey_capture
from connectors.files.raw_file import export_raw, is_raw_export, load_raw
from connectors.files.raw_writer import DEFAULT_PARTITIONS, LoadedFile, Progress, RawWriter, ensure_topic, quiet
from connectors.markers import Assertion
from connectors.topics.base import TopicLog
from market.errors import ConfigError
from market.instrument import Instruments, partition_of
from market.interval import SECOND
from market.record import KIND_MARKER

__all__ = ["LoadedFile", "Progress", "export_raw", "is_raw_export", "load_capture", "load_raw"]

_MARKER_EVERY_US: Final = SECOND
_MARKER_AFTER_RECORDS: Final = 2_000  # where a marker costs a round trip to the log


def load_capture(
    log: TopicLog,
    exchange: str,
    venue: FrameReader,
    instruments: Instruments,
    files: Iterable[Path],
    *,
    feed: str = "import",
    partitions: int = DEFAULT_PARTITIONS,
    progress: Callable[[Progress], None] = quiet,
) -> list[LoadedFile]:
    """Append the frames of capture files to the exchange's raw topic, each file followed by its last markers.

    A frame is written once for each listed symbol whose trades it holds, else once to partition 0 with an empty key.
    Interrupting leaves a valid topic; loading the file again completes it. The topic is created with `partitions` unless
    it exists. `feed` begins the feed ids of the markers; the rest of them is a hash of the file's content.

    Raises:
        ConfigError: a file cannot be read; nothing of that file has been written.
    """
    topic = ensure_topic(log, exchange, partitions)
    return [_load(_Load(log, exchange, topic, Path(file), feed, progress), venue, instruments) for file in files]


@dataclass(frozen=True, slots=True)
class _Load:
    log: TopicLog
    exchange: str
    topic: str
    path: Path
    feed: str
    progress: Callable[[Progress], None]


def _load(load: _Load, venue: FrameReader, instruments: Instruments) -> LoadedFile:
    survey = survey_capture(load.path, venue, instruments, lambda done: load.progress(Progress(load.path, "survey", done, None)))
    writer = RawWriter(load.log, load.topic)
    marking = _Marking(load, survey, writer)
    count = load.log.partitions(load.topic)
    homes = [[(partition_of(s, count), s.replace("/", "-")) for s in symbols] for symbols in survey.symbol_sets]
    done = 0
    for chunk in read_chunks(load.path):
        if done + len(chunk.lines) > len(survey):
            raise ConfigError(f"{load.path}: the file grew while it was read; load it again when its recorder has stopped")
        _write(chunk, done, survey, homes, writer, marking)
        done += len(chunk.lines)
        load.progress(Progress(load.path, "write", done, len(survey)))
    marking.mark()
    writer.flush()
    symbols = {symbol for _, symbol in survey.starts}
    return LoadedFile(load.path, done, writer.written, marking.written, tuple(sorted(symbols)))


def _write(
    chunk: CapturedChunk, done: int, survey: Survey, homes: list[list[tuple[int, str]]], writer: RawWriter, marking: _Marking
) -> None:
    times = survey.received_us[done : done + len(chunk.lines)].tolist()
    codes = survey.codes[done : done + len(chunk.lines)].tolist()
    for payload, time, code, connection in zip(chunk.payloads, times, codes, chunk.connections, strict=True):
        if time > marking.reached:
            marking.reach(time)
        marking.alive[connection] = marking.reached
        received_us = time if time >= 0 else None
        if code == NO_SYMBOLS:
            writer.add(0, payload, source="live", received_us=received_us)
        else:
            for partition, key in homes[code]:
                writer.add(partition, payload, key=key, source="live", received_us=received_us)


class _Marking:
    """Writes the markers of a file, about one a second of receive time for each connection and partition.

    A marker asserts that all trades up to (last proof of life - largest delay) stand before it. A frame received in the
    same µs as that proof of life may still hold one of exactly that time, so markers are written only where the
    receive time rises, and at the end. Trades after it were then received later, and none took longer than the largest
    delay: all of them are newer. (Where the recorder's clock steps back, the time it had reached counts on both sides.)
    """

    def __init__(self, load: _Load, survey: Survey, writer: RawWriter) -> None:
        self.reached = -1  # highest receive time so far
        self.alive: dict[int, int] = {}  # connection -> last proof of life
        self.written = 0
        self._due: int | None = None
        self._writer = writer
        self._delays = survey.delays
        self._cheap = load.log.atomic_appends
        self._assertions: dict[int, Assertion] = {}
        count = load.log.partitions(load.topic)
        for (connection, symbol), start in sorted(survey.starts.items()) if survey.delays else ():
            feed = f"{load.feed}-{survey.digest}" + (f"-{connection}" if connection else "")
            assertion = self._assertions.setdefault(connection, Assertion(feed, load.exchange, count))
            assertion.begin(symbol, start - survey.delays.smallest if survey.delays else start)

    def reach(self, time: int) -> None:
        """Note that the receive time rises to `time`, before the frame received then is written."""
        if self._due is None:
            self._due = time + _MARKER_EVERY_US
        elif time >= self._due and (self._cheap or self._writer.waiting >= _MARKER_AFTER_RECORDS):
            self.mark()
            self._due = time + _MARKER_EVERY_US
        self.reached = time

    def mark(self) -> None:
        """Write what can be asserted after the frames so far."""
        if self._delays is None:
            return
        for connection, assertion in self._assertions.items():
            if connection not in self.alive:
                continue
            for partition, payload in assertion.advance(self.alive[connection] - self._delays.largest):
                self._writer.add(partition, payload, source="live", received_us=self.reached, kind=KIND_MARKER)
                self.written += 1
