"""What one connection has asked its venue for and what the venue has answered, without I/O.

    subscribe ─▶ queued ─▶ asked ─┬▶ confirmed
                  ▲               ├▶ refused ──(some minutes later)──▶ queued
                  └── one by one ─┴─ a message of many that was refused, or answered for some of them only

Venues whose messages have no ids answer in order, so there the next message waits for the answer to the last: a refusal that
names nothing is then of that message, and an old answer cannot be taken for a new one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from connectors.venues.base import Venue
from connectors.venues.feeding import FeedRules, Notice, NoticeKind, Subscription
from market.instrument import Instrument

_UNANSWERED: Final = "not answered"
_UNSUBSCRIBE_SECONDS: Final = 1.0  # an unsubscription's answer is waited for no longer


@dataclass(slots=True)
class Answer:
    """What an event changed: canonical symbols. `failed`: the venue answers nothing at all on this connection."""

    confirmed: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    reason: str = ""
    failed: bool = False

    def absorbs(self, other: Answer) -> bool:
        """Take a later answer in, if both can be told as one: what is confirmed first, then what is refused for one reason."""
        if self.refused and (other.confirmed or (other.refused and other.reason != self.reason)):
            return False
        self.confirmed += other.confirmed
        self.refused += other.refused
        self.reason = other.reason if other.refused else self.reason
        return True


@dataclass(frozen=True, slots=True)
class Retries:
    """When a refused symbol is asked for again, seconds: doubled with each refusal, up to the longest."""

    first: float
    longest: float

    def after(self, refusals: int) -> float:
        """Return the wait after so many refusals in a row, from 1."""
        return min(self.longest, self.first * 2.0 ** min(refusals - 1, 30))


@dataclass(slots=True, eq=False)
class _Request:
    subscription: Subscription
    is_subscription: bool
    waiting: dict[str, Instrument]  # by canonical symbol: not answered yet
    deadline: float = 0.0

    @property
    def is_numbered(self) -> bool:
        return self.subscription.request is not None


@dataclass(frozen=True, slots=True)
class _Refusal:
    instrument: Instrument
    again_at: float
    is_answer: bool  # or only a missing one


class Subscriptions:
    """The subscriptions of one connection.

    Args:
        venue: whose messages.
        rules: the venue's.
        answer_seconds: how long an answer may take.
        retries: when a refused symbol is asked for again.
    """

    def __init__(self, venue: Venue, rules: FeedRules, *, answer_seconds: float, retries: Retries) -> None:
        self._venue = venue
        self._rules = rules
        self._answer_seconds = answer_seconds
        self._retries = retries
        self._queue: deque[_Request] = deque()
        self._asked: list[_Request] = []
        self._refused: dict[str, _Refusal] = {}
        self._refusals: dict[str, int] = {}  # in a row
        self._next_request = 1
        self._is_answered = False
        self.confirmed: dict[str, Instrument] = {}

    @property
    def is_settled(self) -> bool:
        """Return whether every symbol is confirmed or refused."""
        return not any(request.waiting for request in (*self._queue, *self._asked))

    @property
    def refused(self) -> list[str]:
        """Return the canonical symbols that the venue does not give."""
        return list(self._refused)

    def subscribe(self, instruments: Sequence[Instrument]) -> None:
        """Queue the messages that ask for these instruments."""
        for instrument in instruments:
            self._refused.pop(instrument.canonical, None)
        self._add(self._venue.subscriptions(instruments, self._next_request), is_subscription=True)

    def unsubscribe(self, instruments: Sequence[Instrument]) -> tuple[list[str], bool]:
        """Queue the messages that end these subscriptions.

        Returns:
            The symbols that had been confirmed, and whether the venue has messages for that: if not, only a new connection
            without these symbols will do.
        """
        ended, asked = [], []
        for instrument in instruments:
            symbol = instrument.canonical
            if self.confirmed.pop(symbol, None) is not None:
                ended.append(symbol)
            refusal = self._refused.pop(symbol, None)
            if refusal is None or not refusal.is_answer:  # without an answer it may be subscribed all the same
                asked.append(instrument)
            for request in (*self._queue, *self._asked):
                if request.is_subscription:
                    request.waiting.pop(symbol, None)
        self._forget_answered()
        messages = self._venue.unsubscriptions(asked, self._next_request) if asked else []
        self._add(messages, is_subscription=False)
        return ended, bool(messages) or not asked

    def message(self, now: float) -> str | None:
        """Return the next message if one may be sent now; it counts as sent."""
        if not self._queue or self._is_blocked:
            return None
        request = self._queue.popleft()
        request.deadline = now + (self._answer_seconds if request.is_subscription else _UNSUBSCRIBE_SECONDS)
        if request.waiting:
            self._asked.append(request)
        return request.subscription.message

    @property
    def has_message(self) -> bool:
        """Return whether a message could be sent now."""
        return bool(self._queue) and not self._is_blocked

    def heard(self, notice: Notice, now: float) -> Answer:
        """Take a notice; only confirmations and refusals change anything."""
        if notice.kind is NoticeKind.CONFIRMED:
            self._is_answered = True
            return self._confirm(notice)
        if notice.kind is NoticeKind.REFUSED:
            self._is_answered = True
            return self._refuse(notice, now)
        return Answer()

    def postpone(self, now: float) -> None:
        """Give every answer its whole time again: nothing was read for a while."""
        for request in self._asked:
            request.deadline = max(request.deadline, now + self._answer_seconds)

    def seen(self, symbols: Iterable[str]) -> Answer:
        """Take canonical symbols whose frames have come: that confirms them where the venue sends no acks."""
        answer = Answer()
        for symbol in symbols:
            for request in self._asked:
                if request.is_subscription and symbol in request.waiting:
                    self._accept(request, symbol, answer)
        self._forget_answered()
        return answer

    def next_deadline(self) -> float | None:
        """Return when `late` has something to do, on the clock of `now`."""
        times = [request.deadline for request in self._asked if not (request.is_subscription and self._rules.confirms_by_data)]
        times += [refusal.again_at for refusal in self._refused.values()]
        return min(times, default=None)

    def late(self, now: float) -> Answer:
        """Deal with answers that did not come, and with refused symbols whose time has come again."""
        answer = Answer(reason=_UNANSWERED)
        again: list[Instrument] = []
        for request in [r for r in self._asked if r.deadline <= now]:
            if not request.is_subscription:
                self._asked.remove(request)
            elif not self._rules.confirms_by_data:
                if not self._is_answered:
                    return Answer(reason=f"no answer to a subscription within {self._answer_seconds:g} s", failed=True)
                again += self._give_up(request, now, answer, is_answer=False)
        again += [refusal.instrument for refusal in self._refused.values() if refusal.again_at <= now]
        self._ask_one_by_one(again)
        return answer

    @property
    def _is_blocked(self) -> bool:
        return any(not request.is_numbered and not (request.is_subscription and self._rules.confirms_by_data) for request in self._asked)

    def _add(self, messages: Iterable[Subscription], *, is_subscription: bool) -> None:
        for message in messages:
            self._next_request += 1
            self._queue.append(_Request(message, is_subscription, {i.canonical: i for i in message.instruments}))

    def _confirm(self, notice: Notice) -> Answer:
        answer = Answer()
        names = set(notice.symbols)
        for request in self._answered_by(notice):
            if request.is_subscription:
                for symbol, instrument in list(request.waiting.items()):
                    if not names or instrument.venue_symbol in names:
                        self._accept(request, symbol, answer)
            elif request.is_numbered or not any(i.venue_symbol in names for i in request.waiting.values()):
                request.waiting.clear()
        for symbol, refusal in list(self._refused.items()):
            if refusal.instrument.venue_symbol in names:  # after all
                del self._refused[symbol]
                self.confirmed[symbol] = refusal.instrument
                answer.confirmed.append(symbol)
        self._forget_answered()
        return answer

    def _refuse(self, notice: Notice, now: float) -> Answer:
        answer = Answer(reason=notice.detail or "refused")
        names = set(notice.symbols)
        others: list[Instrument] = []  # of messages that were refused because of the named ones
        unknown: list[Instrument] = []
        for request in self._answered_by(notice):
            if not request.is_subscription:
                request.waiting.clear()
                continue
            named = [symbol for symbol, i in request.waiting.items() if i.venue_symbol in names]
            for symbol in named:
                self._reject(request, symbol, now, answer, is_answer=True)
            if named and not request.is_numbered:
                others += request.waiting.values()
                request.waiting.clear()
            elif not names:
                unknown += self._give_up(request, now, answer, is_answer=True)
        self._forget_answered()
        if others:
            self.subscribe(others)
        self._ask_one_by_one(unknown)
        return answer

    def _answered_by(self, notice: Notice) -> list[_Request]:
        if notice.request is not None:
            return [r for r in self._asked if r.subscription.request == notice.request]
        if notice.symbols:
            return list(self._asked)
        return [r for r in self._asked if not r.is_numbered][-1:]

    def _give_up(self, request: _Request, now: float, answer: Answer, *, is_answer: bool) -> list[Instrument]:
        # Returns what should be asked one by one: of many that were not answered each may be the reason.
        rest = list(request.waiting.values())
        if len(request.subscription.instruments) == 1:
            for instrument in rest:
                self._reject(request, instrument.canonical, now, answer, is_answer=is_answer)
            rest = []
        request.waiting.clear()
        self._forget_answered()
        return rest

    def _ask_one_by_one(self, instruments: Iterable[Instrument]) -> None:
        for instrument in instruments:
            self.subscribe([instrument])

    def _accept(self, request: _Request, symbol: str, answer: Answer) -> None:
        self.confirmed[symbol] = request.waiting.pop(symbol)
        self._refusals.pop(symbol, None)
        answer.confirmed.append(symbol)

    def _reject(self, request: _Request, symbol: str, now: float, answer: Answer, *, is_answer: bool) -> None:
        self._refusals[symbol] = self._refusals.get(symbol, 0) + 1
        again_at = now + self._retries.after(self._refusals[symbol])
        self._refused[symbol] = _Refusal(request.waiting.pop(symbol), again_at, is_answer)
        answer.refused.append(symbol)

    def _forget_answered(self) -> None:
        self._asked = [request for request in self._asked if request.waiting]
