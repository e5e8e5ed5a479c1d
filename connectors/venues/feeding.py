"""What a live feed must know of a venue, as data: where to connect, how often, how to subscribe and what control frames say.

No venue's name stands in the driver; what a venue does differently stands here as a value, or in its module as a method.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from market.instrument import Instrument


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `count` in any `seconds`."""

    count: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedRules:
    """How a venue's WebSocket wants to be used.

    `silence_seconds`: with nothing heard for so long (frame, heartbeat, pong) the connection is dead. `ping_text`: a
    message to send every `ping_seconds`, where the venue wants one. `proof_seconds`: with nothing heard for so long the
    protocol's own ping asks for a proof of life (quiet symbols' candles wait for it). `max_age_seconds`: a connection is
    replaced before it is so old. `confirms_by_data`: the venue sends no acks; a symbol's first frame confirms its
    subscription. `numbers_frames`: the venue counts the frames of a connection (`Venue.frame_number`).
    """

    websocket_url: str
    symbols_per_connection: int
    symbols_per_message: int
    connects: Limit
    messages: Limit
    silence_seconds: float
    ping_seconds: float = 20.0
    ping_text: str = ""
    proof_seconds: float = 1.0
    max_age_seconds: float | None = None
    confirms_by_data: bool = False
    numbers_frames: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RestRules:
    """How a venue's REST interface returns past trades, page by page.

    `requests`: pace, in units of `weight` a request. `page_rows`: the most rows of one page. `wholly_by_time`: pages are
    asked by time and hold every trade of their span.
    """

    rest_url: str
    requests: Limit
    weight: int = 1
    page_rows: int = 1000
    wholly_by_time: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Trades of one instrument that a page is to hold.

    `first_id` to `last_id` are missing; `last_id` None: all from `first_id` on, whatever there is. `after_us`: event time of
    the last known trade below `first_id`. `rows`: how many rows to ask for, at most `page_rows`.
    """

    first_id: int
    last_id: int | None
    after_us: int
    rows: int


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Path and query below `rest_url`. A page of fewer than `rows` holds all that is newer, where `last_id` was None.

    `is_newest`: the page holds the newest trades, whatever was wanted.
    """

    path: str
    rows: int
    is_newest: bool = False


@dataclass(frozen=True, slots=True)
class RestError:
    """An error in an answer whose status is 200. `is_final`: asking again cannot help."""

    text: str
    is_final: bool


class NoticeKind(Enum):
    """What a control frame says to a feed."""

    CONFIRMED = "confirmed"  # these symbols are subscribed
    REFUSED = "refused"  # these symbols are not, and why
    RECONNECT = "reconnect"  # the venue asks for a new connection; this one goes soon
    ERROR = "error"  # the venue complains about something else


@dataclass(frozen=True, slots=True)
class Notice:
    """A control frame's message.

    `request`: the id of the request it answers; `symbols`: the venue symbols it names. A confirmation has at least one of
    them; with both, the symbols are those of that request. A refusal with neither is of the message sent last.
    """

    kind: NoticeKind
    symbols: tuple[str, ...] = ()
    request: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Subscription:
    """One message to the venue and the instruments it is about; `request` is its id where acks name it."""

    message: str
    instruments: tuple[Instrument, ...]
    request: int | None = None
