"""One connection to a venue: its subscriptions, proofs of life, and what its frames say to the feed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from connectors.pacing import Pacer
from connectors.sockets.proofs import FrameNumbers, Pings
from connectors.sockets.setup import ConnectionState, Setup
from connectors.sockets.subscribing import Answer, Retries, Subscriptions
from connectors.sockets.wire import Wire
from connectors.venues.feeding import Notice, NoticeKind
from market.instrument import Instrument, Instruments

log = structlog.get_logger()


class Connection:
    """A connection, from its opening to its end.

    Attributes:
        lost: done when the connection has ended, with the reason.
        leaving: done when a new connection should take over, with the reason.
        settled: done when every symbol has been confirmed or refused once.
    """

    def __init__(self, name: str, instruments: Sequence[Instrument], setup: Setup) -> None:
        loop = asyncio.get_running_loop()
        timing = setup.timing
        self.name = name
        self.lost: asyncio.Future[str] = loop.create_future()
        self.leaving: asyncio.Future[str] = loop.create_future()
        self.settled: asyncio.Future[None] = loop.create_future()
        self.opened_at = 0.0  # the loop's clock
        self._loop = loop
        self._setup = setup
        self._wanted = {instrument.canonical: instrument for instrument in instruments}
        self._instruments: Instruments | None = None
        retries = Retries(timing.retry_refused, timing.retry_refused_longest)
        self._subscriptions = Subscriptions(setup.venue, setup.rules, answer_seconds=timing.answer, retries=retries)
        self._pacer = Pacer(setup.rules.messages)
        self._wire: Wire | None = None
        self._timer: asyncio.Handle | None = None
        self._is_closing = False
        self._is_paused = False
        self._has_lost_frames = False
        self._frame_numbers = FrameNumbers()
        self._pings = Pings()
        self._doubt: int | None = None  # what was read may be old, until this ping is answered
        self._heard_at = self._pinged_at = self._said_at = 0.0
        self._connected_us = self._heard_us = self._frame_us = self._last_us = 0

    async def open(self) -> None:
        """Connect and begin to subscribe.

        Raises:
            ConnectFailed: no connection.
        """
        await self._setup.connector(self._setup.url, self, self._setup.timing.open)

    @property
    def is_open(self) -> bool:
        """Return whether it was opened and has not ended."""
        return self._wire is not None and not self.lost.done()

    @property
    def confirmed(self) -> dict[str, Instrument]:
        """Return the instruments that are vouched for now, by canonical symbol."""
        return self._subscriptions.confirmed if self._doubt is None else {}

    @property
    def refused(self) -> list[str]:
        """Return the symbols that the venue does not give."""
        return self._subscriptions.refused

    @property
    def state(self) -> ConnectionState:
        """Return the connection as it is now."""
        return ConnectionState(
            name=self.name,
            connected_us=self._connected_us,
            heard_us=self._heard_us,
            frame_us=self._frame_us,
            confirmed=tuple(self.confirmed),
            refused=tuple(self.refused),
        )

    def add(self, instruments: Sequence[Instrument]) -> None:
        """Subscribe to more."""
        self._wanted.update({instrument.canonical: instrument for instrument in instruments})
        self._instruments = None
        if self._wire is not None and not self._is_closing:
            self._subscriptions.subscribe(instruments)
            self._nudge()

    def remove(self, instruments: Sequence[Instrument]) -> None:
        """Unsubscribe; what was asserted about these ends now, before the venue is told."""
        for instrument in instruments:
            self._wanted.pop(instrument.canonical, None)
        self._instruments = None
        if self._wire is None or self.lost.done():
            return
        ended, is_said = self._subscriptions.unsubscribe(instruments)
        if ended and self._doubt is None:
            self._setup.listener.ended(self.name, ended, self._stamp(), "unsubscribed")
        if not is_said:
            self._leave("subscriptions cannot be ended here")
        self._nudge()

    def pause(self) -> None:
        """Read no more; silence and missing answers are our own doing until `resume`."""
        self._is_paused = True
        if self._wire is not None and not self._is_closing:
            self._wire.pause()

    def resume(self) -> None:
        """Read again."""
        self._is_paused = False
        if self._wire is not None and not self._is_closing:
            self._begin_doubt(self._wire, "not read for a while")
            self._subscriptions.postpone(self._loop.time())
            self._wire.resume()
            self._nudge()

    def doubt(self, reason: str) -> None:
        """Vouch for nothing until a ping that goes now is answered. Times begin anew: the clock may have been set back."""
        if self._wire is not None and not self._is_closing and not self.lost.done():
            self._last_us = 0
            self._begin_doubt(self._wire, reason)

    def close(self, reason: str) -> None:
        """Begin to close; `lost` is done about a second later at most."""
        if self._wire is not None and not self._is_closing and not self.lost.done():
            self._is_closing = True
            self._wire.close(reason)

    def abort(self, reason: str) -> None:
        """Drop the connection at once."""
        if self._wire is not None:
            self._is_closing = True
            self._wire.abort(reason)

    def opened(self, wire: Wire) -> None:
        """Take the open wire (`WireEvents`)."""
        self._wire = wire
        self.opened_at = self._heard_at = self._said_at = self._loop.time()
        self._connected_us = self._heard_us = self._stamp()
        self._guarded(self._begin)

    def arrived(self, messages: list[bytes], pong: bytes | None) -> None:
        """Take what one read of the socket brought (`WireEvents`)."""
        if not self.lost.done():
            self._guarded(self._hear, messages, pong)

    def ended(self, reason: str) -> None:
        """Note that the wire is closed (`WireEvents`)."""
        if self._timer is not None:
            self._timer.cancel()
        if not self.lost.done():
            self._guarded(self._setup.listener.disconnected, self.name, self._stamp(), reason)
            self.lost.set_result(reason)

    def _guarded(self, call: Callable[..., None], *args: Any) -> None:
        # We are called by the loop, which would only log what is raised.
        try:
            call(*args)
        except Exception as error:
            self._setup.fail(error)

    def _now_us(self) -> int:
        return max(self._last_us, self._setup.now_us())

    def _stamp(self) -> int:
        # The time of what the listener is told now.
        self._last_us = self._now_us()
        return self._last_us

    def _begin(self) -> None:
        instruments = list(self._wanted.values())
        self._setup.listener.connected(self.name, instruments, self._connected_us)
        self._subscriptions.subscribe(instruments)
        if self._is_paused and self._wire is not None:
            self._wire.pause()
        self._tick()

    def _hear(self, messages: list[bytes], pong: bytes | None) -> None:
        now, at_us = self._loop.time(), self._now_us()
        if self._wire is not None and self._doubt is None and self._setup.pulse.is_stalled(now, at_us):
            self._begin_doubt(self._wire, "the process did not run for a while")
            at_us = self._now_us()  # the listener has been told of a later moment than the one before it
        self._heard_at, self._heard_us = now, at_us
        if messages:
            self._last_us = at_us
            self._take(messages, at_us)
        answered = self._pings.answered(pong) if pong is not None else None
        if answered is None or self._has_lost_frames:
            return
        number, pinged_us = answered
        if self._doubt is not None and number >= self._doubt:
            self._end_doubt()
        # Where frames are numbered, only the next number proves that none is missing before it.
        elif self._doubt is None and pinged_us > self._last_us and not self._setup.rules.numbers_frames:
            self._last_us = pinged_us
            self._setup.listener.alive(self.name, pinged_us)

    def _begin_doubt(self, wire: Wire, reason: str) -> None:
        if self.confirmed:
            self._setup.listener.ended(self.name, list(self.confirmed), self._stamp(), reason)
        self._ping(wire)
        self._doubt = self._pings.last

    def _end_doubt(self) -> None:
        self._doubt = None
        if self.confirmed:
            self._setup.listener.confirmed(self.name, list(self.confirmed), self._stamp())

    def _take(self, messages: list[bytes], at_us: int) -> None:
        setup = self._setup
        self._frame_us = at_us
        if setup.rules.numbers_frames and not self._has_lost_frames:
            self._count(messages, at_us)
        setup.listener.received(self.name, messages, [at_us] * len(messages))
        if self._has_lost_frames:
            return
        notice = setup.venue.notice
        notices = [found for frame in messages if (found := notice(frame)) is not None]
        if notices:
            self._heed(notices)
        if setup.rules.confirms_by_data and not self._subscriptions.is_settled:
            self._see(messages)

    def _count(self, messages: list[bytes], at_us: int) -> None:
        # What was vouched for by earlier frames holds, and nothing beyond them.
        lost = self._frame_numbers.lost_in(map(self._setup.venue.frame_number, messages))
        if lost:
            self._has_lost_frames = True
            if self.confirmed:
                self._setup.listener.ended(self.name, list(self.confirmed), at_us, lost)
            self.abort(lost)

    def _see(self, messages: list[bytes]) -> None:
        if self._instruments is None:
            self._instruments = Instruments(self._setup.venue.exchange, tuple(self._wanted.values()))
        for frame in messages:
            self._tell(self._subscriptions.seen(self._setup.venue.symbols_in(frame, self._instruments)))

    def _heed(self, notices: list[Notice]) -> None:
        now = self._loop.time()
        answers = Answer()
        for notice in notices:
            if notice.kind is NoticeKind.RECONNECT:
                self._leave(f"the venue asks: {notice.detail}")
            elif notice.kind is NoticeKind.ERROR:
                log.warning("venue_complained", connection=self.name, detail=notice.detail)
            else:
                answer = self._subscriptions.heard(notice, now)
                if not answers.absorbs(answer):
                    self._tell(answers)
                    answers = answer
        self._tell(answers)
        self._nudge()

    def _leave(self, reason: str) -> None:
        if not self.leaving.done():
            self.leaving.set_result(reason)

    def _tell(self, answer: Answer) -> None:
        listener, at_us = self._setup.listener, self._stamp()
        if answer.confirmed and self._doubt is None:
            listener.confirmed(self.name, answer.confirmed, at_us)
        if answer.refused:
            log.warning("subscription_refused", connection=self.name, symbols=answer.refused, reason=answer.reason)
            listener.ended(self.name, answer.refused, at_us, f"refused: {answer.reason}")

    def _nudge(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._is_closing and not self.lost.done():
            self._timer = self._loop.call_soon(self._guarded, self._tick)

    def _tick(self) -> None:
        # Everything that time asks for; then again when the next such thing is due.
        if self._is_closing or self._wire is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        now = self._loop.time()
        if self._subscriptions.is_settled and not self.settled.done():
            self.settled.set_result(None)
        due = [self._send(self._wire, now), self._send_pings(self._wire, now), self._check_answers(now)]
        silent_at = self._heard_at + self._setup.rules.silence_seconds
        if self._is_paused:
            silent_at = now + self._setup.rules.silence_seconds
        elif silent_at <= now:
            self.abort(f"nothing heard for {self._setup.rules.silence_seconds:g} s")
        if not self._is_closing:
            self._timer = self._loop.call_at(min(silent_at, *due), self._guarded, self._tick)

    def _send(self, wire: Wire, now: float) -> float:
        while self._subscriptions.has_message:
            if (wait := self._pacer.wait_seconds(now)) > 0:
                return now + wait
            message = self._subscriptions.message(now)
            if message is not None:
                self._pacer.take(now)
                wire.send(message)
        return math.inf

    def _send_pings(self, wire: Wire, now: float) -> float:
        rules = self._setup.rules
        proof_at = max(self._heard_at, self._pinged_at) + rules.proof_seconds
        say_at = self._said_at + rules.ping_seconds if rules.ping_text else math.inf
        wait = self._pacer.wait_seconds(now)
        if min(proof_at, say_at) > now:
            return min(proof_at, say_at)
        if wait > 0:
            return now + wait
        self._pacer.take(now)
        if say_at <= now:
            self._said_at = now
            wire.send(rules.ping_text)
        else:
            self._ping(wire)
        return self._send_pings(wire, now)

    def _ping(self, wire: Wire) -> None:
        self._pinged_at = self._loop.time()
        wire.ping(self._pings.next_payload(self._now_us()))

    def _check_answers(self, now: float) -> float:
        # An answer that stands in a socket which is not read is not late.
        if self._is_paused:
            return math.inf
        deadline = self._subscriptions.next_deadline()
        if deadline is not None and deadline <= now:
            answer = self._subscriptions.late(now)
            if answer.failed:
                self.abort(answer.reason)
                return math.inf
            self._tell(answer)
            deadline = now  # what is to be asked again waits in the queue
        settle_at = self.opened_at + self._setup.timing.answer
        if self._setup.rules.confirms_by_data and not self.settled.done():
            if settle_at <= now:
                self.settled.set_result(None)
            else:
                deadline = min(deadline or math.inf, settle_at)
        return math.inf if deadline is None else deadline
