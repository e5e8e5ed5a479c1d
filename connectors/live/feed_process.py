"""All feeds of one process: drivers, feeds and refills of every exchange, over one outbox.

Start: the topics, then what an ended process left on disk, then the sockets. Stop: the sockets, the last markers, then the
outbox, which leaves on disk what its topic does not take in time.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

import structlog

from connectors.files.raw_writer import ensure_topic
from connectors.live.feed import Feed
from connectors.live.feed_metrics import FeedCounts, Latency
from connectors.live.outbox import Outbox
from connectors.live.spill_folders import SpillFolders
from connectors.live.venue_urls import rest_url, websocket_url
from connectors.refill.refill import Refiller
from connectors.refill.rest import RestClient
from connectors.refill.topic_tail import DEEP, Tail, read_tail
from connectors.sockets.proofs import WallClock
from connectors.sockets.websocket import Driver
from connectors.topics.base import TopicLog
from connectors.venues.base import Venue
from connectors.venues.feeding import FeedRules
from connectors.venues.registry import venue
from market.errors import ConfigError, FatalError, TransientError
from market.instrument import Instruments

log = structlog.get_logger()

FLUSH_S: Final = 0.006
OBSERVE_S: Final = 0.25
LOOK_S: Final = 0.05
LEFT_OVER_S: Final = 30.0
ADOPT_S: Final = 30.0
STOP_S: Final = 5.0
_RETRY_S: Final = 1.0

Result = TypeVar("Result")


@dataclass(slots=True)
class _Running:
    """One exchange."""

    feed: Feed
    driver: Driver
    refiller: Refiller
    tasks: set[asyncio.Task[None]] = field(default_factory=set)  # not ended yet


class FeedProcess:
    """Feeds until it is told to stop.

    Args:
        name: of this feed; part of its connections' names, no two processes have the same.
        topics: the log, for this object alone.
        partitions: of a topic that is not there yet.
        spills: where records wait on disk.
        spill_bytes: how many may.
        venues_url: stands in for the venues; empty: they themselves.
        now_us: wall clock, epoch µs.
        clock_speed: of `now_us`; another than 1 in simulations.
        open_log: opens the log once more, to read what a topic ends with while the other is written.
        begun: called once all exchanges of the first list are being connected.
    """

    def __init__(
        self,
        name: str,
        topics: TopicLog,
        partitions: int,
        spills: SpillFolders,
        *,
        spill_bytes: int,
        venues_url: str,
        now_us: Callable[[], int],
        open_log: Callable[[], TopicLog],
        clock_speed: float = 1.0,
        begun: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.counts: dict[str, FeedCounts] = {}
        self.latency = Latency(now_us)
        self.outbox = Outbox(topics, spills.own, spills.older, spill_bytes=spill_bytes, written=self.latency, ensure=self._ensure_topic)
        self._spills = spills
        self._topics, self._partitions, self._venues_url = topics, partitions, venues_url
        self._now_us, self._clock_speed, self._open_log, self._begun = now_us, clock_speed, open_log, begun
        self._running: dict[str, _Running] = {}
        self._flush_due: asyncio.TimerHandle | None = None
        self._listed: Mapping[str, Instruments] = {}  # what is wanted by now
        self._may_connect = False
        self._changing = asyncio.Lock()
        self._ending = False
        self._failed: asyncio.Future[None] | None = None

    async def run(self, listed: Mapping[str, Instruments], stop: asyncio.Event) -> bool:
        """Feed these exchanges until `stop` is set.

        Returns:
            Whether everything received is in its topic; else the rest is on disk, for the next process.

        Raises:
            ConfigError: an exchange has no live feed, or a topic cannot be used.
            FatalError: records are lost, in neither their topic nor on disk.
            PipelineError: nothing can be written any more.
        """
        _check_feeds(listed)
        self._listed = listed
        self.outbox.start()
        work: list[asyncio.Task[Any]] = [asyncio.create_task(c) for c in (stop.wait(), self._begin(), self._watch())]
        self._failed = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait([*work, self._failed], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in work:
                if not task.done():
                    task.cancel()
            ended = await asyncio.gather(*work, return_exceptions=True)
            await self._end()
            emptied = await asyncio.to_thread(self.outbox.stop, STOP_S)
        errors = [self._failed.exception() if self._failed.done() else None, *ended]  # looked at, or it would be reported as lost
        lost = self.outbox.lost
        if lost is not None:
            raise FatalError(f"{lost.records:,} records ({lost.nbytes:,} bytes) are lost: {lost.reason}") from self.outbox.failure
        self.outbox.check()
        for error in errors:
            if isinstance(error, Exception):
                raise error
        return emptied

    async def change(self, listed: Mapping[str, Instruments]) -> None:
        """Feed these from now on; what stays is not disturbed. While the process begins, it begins with these.

        Raises:
            ConfigError: an exchange has no live feed; nothing has changed.
        """
        _check_feeds(listed)
        self._listed = listed
        if self._may_connect:
            await self._apply()

    async def _apply(self) -> None:
        async with self._changing:
            listed = self._listed  # the newest: another change may have waited, too
            for exchange in [e for e in self._running if e not in listed]:
                await self._end_exchange(exchange)
            for exchange in [e for e in listed if e in self._running]:
                await self._change_exchange(exchange, listed[exchange])
            new = [self._prepared(e, instruments) for e, instruments in listed.items() if e not in self._running]
            # All of them before the first connects: loading and reading back would delay what comes, and markers hold delays back.
            prepared = await asyncio.gather(*new)
            for exchange, running in prepared if not self._ending else ():
                self._running[exchange] = running
                self._spawn(running, running.driver.run(listed[exchange].listed))
                self._spawn(running, running.refiller.run())
                self._spawn(running, self._look_deeper(running, listed[exchange]))

    async def _begin(self) -> None:
        # Ends only with an error, or with the process.
        waiting = self.outbox.backlog().spill_bytes
        if waiting:
            # The tail of a topic says what must be asked for again: what was received already should be in it.
            log.info("left_over_found", bytes=waiting)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.outbox.drained(), LEFT_OVER_S)
        self._may_connect = True
        await self._apply()
        self._begun()
        await asyncio.Event().wait()

    async def _change_exchange(self, exchange: str, instruments: Instruments) -> None:
        running = self._running[exchange]
        running.feed.change(instruments)
        running.refiller.change(instruments)
        await running.driver.change(instruments.listed)
        self._spawn(running, self._look_deeper(running, instruments))

    async def _prepared(self, exchange: str, instruments: Instruments) -> tuple[str, _Running]:
        found = venue(exchange)
        partitions = await self._patiently(exchange, lambda: self._ensured(exchange))
        counts = self.counts.setdefault(exchange, FeedCounts())
        feed = Feed(
            found,
            instruments,
            partitions,
            self.outbox,
            now_us=self._now_us,
            counts=counts,
            wake=self._wake,
            clock_speed=self._clock_speed,
        )
        await asyncio.to_thread(feed.warm_up)
        refiller = self._refiller(found, instruments, feed)
        feed.refills, counts.refill = refiller, refiller.counted
        refiller.begin(await self._patiently(exchange, partial(self._tail, found, instruments)))
        url = websocket_url(_rules(found).websocket_url, exchange, self._venues_url)
        driver = Driver(found, feed, url=url, feed_name=self.name, now_us=self._now_us, clock_speed=self._clock_speed)
        return exchange, _Running(feed, driver, refiller)

    def _refiller(self, found: Venue, instruments: Instruments, feed: Feed) -> Refiller:
        client = None
        if found.rest is not None:
            client = RestClient(rest_url(found.rest.rest_url, found.exchange, self._venues_url), found.rest, now_us=self._now_us)
        return Refiller(
            found,
            instruments,
            client,
            feed=f"{found.exchange}-{self.name}",
            put=feed.put,
            bounds=lambda: feed.delays.settled(self._now_us()),
            now_us=self._now_us,
            random=random.random,
        )

    async def _look_deeper(self, running: _Running, instruments: Instruments) -> None:
        # Symbols that are quiet, or were listed before, may have ids further back than a start can wait for.
        unknown, found = running.refiller.unknown(), venue(instruments.exchange)
        if unknown:
            running.refiller.begin(await self._patiently(found.exchange, partial(self._tail, found, instruments, unknown)))

    def _tail(self, found: Venue, instruments: Instruments, symbols: frozenset[str] | None = None) -> Tail:
        topics = self._open_log()
        try:
            if symbols is None:
                return read_tail(topics, found, instruments)
            return read_tail(topics, found, instruments, symbols, at_least=0, at_most=DEEP)
        finally:
            topics.close()

    def _ensured(self, exchange: str) -> int:
        return self._topics.partitions(ensure_topic(self._topics, exchange, self._partitions))

    def _ensure_topic(self, topic: str) -> None:
        if topic not in self._topics.topics():
            self._topics.create(topic, self._partitions)

    async def _patiently(self, exchange: str, call: Callable[[], Result]) -> Result:
        # In a thread, for as long as the log cannot be reached.
        said = False
        while True:
            try:
                return await asyncio.to_thread(call)
            except TransientError as error:
                if not said:
                    log.warning("topic_unreachable", exchange=exchange, error=str(error))
                said = True
                await asyncio.sleep(_RETRY_S)

    def _spawn(self, running: _Running, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        running.tasks.add(task)
        task.add_done_callback(running.tasks.discard)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if self._failed is not None and not self._failed.done():
            self._failed.set_exception(error)

    async def _end(self) -> None:
        self._ending = True
        await asyncio.gather(*(self._end_exchange(exchange) for exchange in list(self._running)), return_exceptions=True)
        if self._flush_due is not None:
            self._flush_due.cancel()

    async def _end_exchange(self, exchange: str) -> None:
        running = self._running.pop(exchange)
        await running.driver.stop()
        tasks = list(running.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await running.refiller.stop()
        running.feed.flush()

    async def _watch(self) -> None:
        # Ask the feeds for what is due by time; end when the writer has failed.
        loop = asyncio.get_running_loop()
        clock, observe_at = WallClock(self._clock_speed), loop.time()
        adopt_at = observe_at
        while True:
            await asyncio.sleep(LOOK_S)
            if self.outbox.failure is not None:
                return
            at = loop.time()
            if at >= adopt_at:
                self._adopt()
                adopt_at = at + ADOPT_S
            for topic in self.outbox.refusals():
                self._begin_anew(topic)
            if step := clock.step_seconds(at, self._now_us()):
                self._clock_was_set(step)
            is_observing = at >= observe_at
            for feed in [running.feed for running in self._running.values()]:
                if is_observing:
                    feed.observe()
                feed.mark_due(at)
            if is_observing:
                observe_at = at + OBSERVE_S

    def _clock_was_set(self, seconds: float) -> None:
        # Delays, and what a connection vouches for, are on the time line of a clock that is no more.
        log.warning("clock_was_set", seconds=round(seconds, 3))
        for running in self._running.values():
            running.feed.clock_was_set()
            running.refiller.forget_proofs()
            running.driver.doubt("the clock was set")

    def _adopt(self) -> None:
        # A feed that was killed may never be started again, and others of its home run for months.
        try:
            found = self._spills.adopt()
        except OSError as error:
            log.warning("left_over_out_of_reach", error=str(error))
            return
        if found:
            log.info("left_over_adopted", bytes=sum(spill.nbytes for spill in found))
            self.outbox.adopt(found)

    def _begin_anew(self, topic: str) -> None:
        # A record was lost to its topic: no assertion may reach across it.
        for running in self._running.values():
            if running.feed.topic == topic:
                running.refiller.forget_proofs()
                running.driver.doubt("its topic refused a record")
        self.outbox.begin(topic)

    def _wake(self) -> None:
        if self._flush_due is None:
            self._flush_due = asyncio.get_running_loop().call_later(FLUSH_S, self._flush)

    def _flush(self) -> None:
        self._flush_due = None
        try:
            for running in self._running.values():
                running.feed.flush()
        except Exception as error:  # a timer's would only be logged
            self._fail(error)


def _check_feeds(listed: Mapping[str, Instruments]) -> None:
    for exchange in listed:
        _rules(venue(exchange))


def _rules(found: Venue) -> FeedRules:
    if found.feed is None:
        raise ConfigError(f"{found.exchange} has no live feed: its frames are only loaded from files; leave it out with --exchange")
    return found.feed
