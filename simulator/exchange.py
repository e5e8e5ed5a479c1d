"""What all simulated venues share: trades come due, go on the tape and out to whoever subscribed; connections live and age."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from random import Random
from typing import Any, ClassVar, Final, Protocol

import numpy as np

from simulator.block import ABSENT, Block, Bools, Ints, Rows, Source
from simulator.clock import Clock
from simulator.http import Reply, Request
from simulator.recording import RecordedTrade
from simulator.session import Pace, Session, Socket
from simulator.tape import SymbolTape, Tape
from simulator.wire import fragmented, text_frame

_MOST_WAITING_BYTES: Final = 256 << 20  # a client that takes nothing for so long is cut off


class Disturbance(Protocol):
    """A fault that changes what is sent while it lasts."""

    def frames(self, session: Session, frames: list[bytes], now: float, *, is_control: bool) -> list[bytes]:
        """Return what is sent instead of these frames; what is sent later goes to `session.hold`."""


class Withholding(Protocol):
    """A fault that keeps trades from every client."""

    def kept(self, rows: Rows, due_us: Ints) -> Bools:
        """Return which trades are still sent; `due_us` is the run time of each."""


class Refusal(Protocol):
    """A fault of the REST interface."""

    def reply(self, exchange: Exchange, path: str) -> Reply | float:
        """Return an error answer, or the seconds by which the true one is late."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a connection, by run time."""

    at_us: int
    connection: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """How a venue treats its clients. `offset_us`: its clock minus ours. Ages and pings in real seconds."""

    offset_us: int = 0
    enforces_limits: bool = True
    max_age_seconds: float = 86_400.0
    ping_seconds: float = 20.0
    pong_seconds: float = 60.0
    kept_trades: int = 20_000_000


class Exchange(ABC):
    """One venue: its listings, its trades, its clients."""

    name: ClassVar[str]
    quote: ClassVar[str]
    lot_digits: ClassVar[int] = 16  # decimals of price and quantity together
    resolution_us: ClassVar[int] = 1
    stamps: ClassVar[bool] = False  # whether frames are numbered as they leave
    connects: ClassVar[tuple[float, float]]  # connection attempts allowed, in how many seconds
    messages: ClassVar[tuple[float, float]]  # client messages allowed on a connection
    requests: ClassVar[tuple[float, float]]  # REST weight allowed

    def __init__(self, source: Source, clock: Clock, conditions: Conditions) -> None:
        self.clock = clock
        self.conditions = conditions
        self.clock_steps: list[tuple[int, int]] = []  # from which run time on the venue's clock is moved by how many µs
        self.tape = Tape(source.listings)
        self.symbols = [self.symbol_of(tape) for tape in self.tape.symbols]
        self.codes = {symbol: code for code, symbol in enumerate(self.symbols)}
        self.sessions: dict[str, Session] = {}
        self.disturbances: list[Disturbance] = []
        self.withholdings: list[Withholding] = []
        self.refusals: list[Refusal] = []
        self.fragments: Random | None = None
        self.refused_subscriptions = 0
        self.is_in_maintenance = False
        self.events: list[Event] = []
        self.has_ended = False
        self.released = 0
        self._source = source
        self._block: Block | None = None
        self._rows: Rows | None = None
        self._at = 0
        self._opened = 0
        self._connect_pace = Pace(*self.connects)
        self.request_pace = Pace(*self.requests)

    # What a venue says

    @abstractmethod
    def symbol_of(self, tape: SymbolTape) -> str:
        """Return the venue's spelling of a symbol on its socket."""

    @staticmethod
    @abstractmethod
    def recorded(document: Any) -> Sequence[RecordedTrade]:
        """Return the trades of a recorded frame, with canonical symbols; [] for frames of other channels."""

    @abstractmethod
    def opened(self, session: Session, path: str, query: Mapping[str, str]) -> None:
        """Greet a client."""

    @abstractmethod
    def message(self, session: Session, text: str) -> None:
        """Answer a client's message."""

    @abstractmethod
    def broadcast(self, rows: Rows) -> None:
        """Send trades, in this order, to the sessions that want them."""

    @abstractmethod
    def snapshot(self, session: Session, code: int) -> None:
        """Send the latest trades of a symbol, where the venue has such a thing."""

    @abstractmethod
    def repeat(self, session: Session, rows: Rows) -> None:
        """Send trades of one symbol again, as if they were new."""

    @abstractmethod
    def rest(self, path: str, query: Mapping[str, str]) -> Reply:
        """Answer a REST request."""

    @abstractmethod
    def too_many(self, seconds: float) -> Reply:
        """Return the answer to a request beyond the limit; `seconds` until the next may come."""

    def serves(self, path: str) -> bool:
        """Whether the WebSocket lives at this path."""
        return path in ("", "/")

    def weight(self, path: str) -> float:  # noqa: ARG002 - most venues count requests
        """Return what a REST request counts."""
        return 1.0

    def beat(self, session: Session, now: float) -> None:  # noqa: B027 - not every venue says something
        """Send what is due by time: heartbeats, pings."""

    def has_every_subscription(self) -> bool:
        """Whether each symbol is wanted by a client."""
        masks = [session.mask for session in self.sessions.values()]
        return bool(masks) and bool(np.logical_or.reduce(masks).all())

    def shut_down_notice(self, session: Session) -> None:  # noqa: B027 - same
        """Announce that the connection will be closed, where the venue does that."""

    def frames_lost(self, session: Session) -> None:  # noqa: B027 - same
        """Leave a trace of frames that were lost on their way to a client, where the venue numbers its frames."""

    def stamped(self, session: Session, frame: bytes) -> bytes:  # noqa: ARG002 - same
        """Return a frame as it leaves: with its number, where the venue numbers its frames."""
        return frame

    def repeatable(self, code: int, count: int) -> Rows:
        """Return the latest trades of a symbol that clients have been told."""
        tape = self.tape.symbols[code]
        return tape.page_until(tape.released, count)

    def unavailable(self) -> Reply:
        """Return the answer to REST requests during maintenance."""
        return Reply(503, b"maintenance", {"Retry-After": "1"}, "text/plain")

    def maintenance_changed(self) -> None:  # noqa: B027 - same
        """Tell connected clients that maintenance began or ended, where the venue does that."""

    # Time and trades

    def now_us(self) -> int:
        """Return the time of the venue's clock, epoch µs."""
        return self.clock.now_us() + self.offset_us

    @property
    def offset_us(self) -> int:
        """The venue's clock minus ours, now."""
        run_us = self.clock.run_us()
        return self.conditions.offset_us + sum(by for at_us, by in self.clock_steps if at_us <= run_us)

    def advance(self) -> None:
        """Release every trade that is due and do what time asks for."""
        run_us = self.clock.run_us()
        while self._next_block():
            block, rows = self._block, self._rows
            if block is None or rows is None:
                break
            stop = int(np.searchsorted(block.due_us, run_us, side="right"))
            if stop > self._at:
                self._release(rows, block, self._at, stop)
                self._at = stop
            if stop < len(block) or block.end_us > run_us:
                break
            self._block = None
        self._attend()

    def _next_block(self) -> bool:
        if self._block is None and not self.has_ended:
            self._block, self._at = self._source.next_block(), 0
            if self._block is None:
                self.has_ended = True
            else:
                self.tape.trim(self.conditions.kept_trades)
                self._rows = self.tape.add(self._block, self._times(self._block), self.resolution_us)
        return self._block is not None

    def _times(self, block: Block) -> Ints:
        # What the venue's clock said when the trades happened.
        time_us = block.run_us + (self.clock.start_us + self.conditions.offset_us)
        for at_us, by_us in self.clock_steps:
            time_us += np.where(block.run_us >= at_us, by_us, 0)
        return time_us

    def _release(self, rows: Rows, block: Block, start: int, stop: int) -> None:
        part, due_us = rows.where(np.arange(start, stop)), block.due_us[start:stop]
        self.tape.release(part.symbol)
        self.released += stop - start
        present = (part.flags & ABSENT) == 0
        part, due_us = part.where(present), due_us[present]
        for withholding in self.withholdings:
            kept = withholding.kept(part, due_us)
            part, due_us = part.where(kept), due_us[kept]
        if len(part):
            self.broadcast(part)

    def _attend(self) -> None:
        now = self.clock.real()
        for session in list(self.sessions.values()):
            if session.is_frozen or not session.is_open:
                continue
            if session.held:
                self._write(session, session.due(now))
            if now - session.opened_at > self.conditions.max_age_seconds:
                self.end(session, "max age reached", 1001)
            elif session.socket.waiting() > _MOST_WAITING_BYTES:
                self.note(session, "too slow: cut off")
                session.socket.reset()
            else:
                self.beat(session, now)

    # Sending

    def say(self, session: Session, text: str) -> None:
        """Send one text message that is no trade."""
        self.deliver(session, [text_frame(text.encode())], is_control=True)

    def deliver(self, session: Session, frames: list[bytes], *, is_control: bool = False) -> None:
        """Send frames, through whatever faults there are."""
        if not frames or session.is_frozen:
            return
        now = self.clock.real()
        session.sent_at = now
        for disturbance in self.disturbances:
            frames = disturbance.frames(session, frames, now, is_control=is_control)
        if session.held and not (is_control and session.control_overtakes):
            session.hold(frames, now)
        else:
            self._write(session, frames)

    def deliver_wanted(self, session: Session, frames: list[bytes], symbols: Ints) -> None:
        """Send those of the frames whose symbols the session wants; one symbol a frame."""
        if session.wanted == len(self.symbols):
            self.deliver(session, frames)
        elif session.wanted:
            self.deliver(session, list(compress(frames, session.mask[symbols].tolist())))

    def _write(self, session: Session, frames: list[bytes]) -> None:
        if self.stamps:
            frames = [self.stamped(session, frame) for frame in frames]
        if self.fragments is not None:
            frames = [fragmented(frame, self.fragments) for frame in frames]
        if frames:
            session.socket.write(b"".join(frames))

    # Connections

    def connect(self, request: Request, path: str, socket: Socket) -> Session | Reply:
        """Accept a connection, or return the answer that refuses it."""
        if not self.serves(path):
            return Reply(404)
        now = self.clock.real()
        if self.conditions.enforces_limits and (wait := self._connect_pace.take(now)) > 0:
            return self.too_many(wait)
        if self.is_in_maintenance and not self.accepts_in_maintenance():
            return Reply(503, b"maintenance", {"Retry-After": "1"}, "text/plain")
        self._opened += 1
        session = Session(f"{self.name}-{self._opened:04d}", socket, now, np.zeros(len(self.symbols), dtype=np.bool_), Pace(*self.messages))
        session.heard_at = session.sent_at = session.pinged_at = now
        session.notes["path"], session.notes["query"] = path, dict(request.query)
        return session

    def accepts_in_maintenance(self) -> bool:
        """Whether clients may connect during maintenance."""
        return False

    def started(self, session: Session) -> None:
        """Begin: the handshake is done."""
        self.sessions[session.name] = session
        session.is_open = True
        self.note(session, "opened")
        self.opened(session, session.notes["path"], session.notes["query"])

    def received(self, session: Session, text: str) -> None:
        """Take a client's message."""
        now = self.clock.real()
        session.heard_at = now
        if self.conditions.enforces_limits and session.messages.take(now) > 0:
            self.too_many_messages(session)
        else:
            self.message(session, text)

    def ponged(self, session: Session) -> None:
        """Take note that a ping was answered."""
        session.heard_at = self.clock.real()
        session.notes.pop("unanswered_since", None)

    def too_many_messages(self, session: Session) -> None:
        """Answer a client that sends too many messages."""
        self.end(session, "too many messages", 1008)

    def closed(self, session: Session) -> None:
        """Forget a connection that is gone."""
        if self.sessions.pop(session.name, None) is not None:
            self.note(session, "gone")
        session.is_open = False

    def end(self, session: Session, why: str, code: int) -> None:
        """Close a connection with a close frame."""
        self.note(session, f"closed: {why}")
        session.socket.close(code, why)
        session.is_open = False

    def note(self, session: Session, what: str) -> None:
        """Write into the books what happened to a connection."""
        self.events.append(Event(self.clock.run_us(), session.name, what))

    def answer(self, path: str, query: Mapping[str, str]) -> Reply:
        """Answer a REST request, through whatever faults there are."""
        late = 0.0
        if self.is_in_maintenance:
            return self.unavailable()
        for refusal in self.refusals:
            found = refusal.reply(self, path)
            if isinstance(found, Reply):
                return found
            late = max(late, found)
        if self.conditions.enforces_limits and (wait := self.request_pace.take(self.clock.real(), self.weight(path))) > 0:
            return self.too_many(wait)
        reply = self.rest(path, query)
        return Reply(reply.status, reply.body, reply.headers, reply.kind, late) if late else reply

    def state(self) -> dict[str, Any]:
        """Return what the books say about the venue now."""
        return {
            "released": self.released,
            "has_ended": self.has_ended,
            "offset_us": self.offset_us,
            "in_maintenance": self.is_in_maintenance,
            "connections": {name: {"subscribed": s.wanted, "frozen": s.is_frozen} for name, s in self.sessions.items()},
            "symbols": {
                tape.listing.canonical: {
                    "first_id": tape.first_id,
                    "next_id": tape.first_id + tape.released,
                    "quiet": tape.listing.is_quiet,
                }
                for tape in self.tape.symbols
            },
        }


def limited(query: Mapping[str, str], name: str, default: int, most: int) -> int:
    """Return a count from a query, at least 1 and at most what the venue allows.

    Raises:
        ValueError: it is no whole number.
    """
    return max(1, min(int(query.get(name) or default), most))


def columns(rows: Rows, *names: str) -> Sequence[tuple[Any, ...]]:
    """Return columns of rows as tuples of Python values."""
    return list(zip(*(getattr(rows, name).tolist() for name in names), strict=True))
