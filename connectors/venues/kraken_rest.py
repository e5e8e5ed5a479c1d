"""Kraken's REST pages of past trades: by time, ascending, everything after an instant.

    /0/public/Trades?pair=XBTUSD&since=<ns>&count=n
    {"error":[],"result":{"XXBTZUSD":[["63501.90000","0.00004134",1783465204.5907531,"b","l","",103436768],…],"last":"1783465204590753093"}}

A row is price, volume, time, taker's side (b, s), order type (l, m), miscellaneous, trade id. The answer names the pair by
another key than the one asked for. Errors come with status 200. The time is a number of seconds that has been a double: its
text is read as far as it goes and cut to µs, so it may differ from the feed's by 1 µs (a double of today resolves 0.24 µs).
Which of the two a trade keeps is decided by which record came first.

Source: docs.kraken.com, REST, get recent trades, and spot historical data, read 2026-07.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from connectors.venues.feeding import PageRequest, RestError, Wanted
from connectors.venues.reading import Item, Items
from connectors.venues.text import NumberText, Unusable, shown
from market.instrument import Instrument

OLD_NAMES: Final = {"BTC": "XBT", "DOGE": "XDG"}
"""Assets that Kraken's older interfaces name differently; v2 uses today's names."""

_SIDES: Final = {"b": "buy", "s": "sell"}
_ORDER_TYPES: Final = {"l": "limit", "m": "market"}
_COLUMNS: Final = 7
_SECONDS: Final = re.compile(r"([0-9]{1,12})(?:\.([0-9]+))?")
_SAME_INSTANT: Final = 50  # trades that may share the time of the last known one: they come first
# What asking again cannot change; all else (rate limits, maintenance, a cancelled request) passes.
_FINAL_ERRORS: Final = ("EQuery:", "EGeneral:Invalid", "EGeneral:Unknown", "EGeneral:Permission")


class Seconds(str):
    """A time in seconds as the number was written; no feed frame holds one."""

    __slots__ = ()


def page_request(instrument: Instrument, wanted: Wanted, page_rows: int) -> PageRequest:
    """Return the request for what came after the last known trade; the times of both may be cut, so from 1 µs before it."""
    rows = min(wanted.rows + _SAME_INSTANT, page_rows)
    pair = "".join(OLD_NAMES.get(name, name) for name in instrument.venue_symbol.split("/"))
    return PageRequest(f"/0/public/Trades?pair={quote(pair, safe='')}&since={(wanted.after_us - 1) * 1000}&count={rows}", rows)


def error(document: object) -> RestError | None:
    """Return what an answer complains about."""
    errors = document.get("error") if isinstance(document, dict) else None
    found = [text for text in errors if isinstance(text, str) and text.startswith("E")] if isinstance(errors, list) else []
    return RestError("; ".join(found)[:200], is_final=any(text.startswith(_FINAL_ERRORS) for text in found)) if found else None


def items(body: object, symbol: object) -> Items:
    """Return the trades of a page, spelled as in a `trade` frame.

    Raises:
        Unusable: the body has no list of trades, or more than one.
    """
    result = body.get("result") if isinstance(body, dict) else None
    lists = [rows for name, rows in result.items() if name != "last"] if isinstance(result, dict) else []
    if len(lists) != 1 or not isinstance(lists[0], list):
        raise Unusable("bad_frame", f"the page has no list of trades: {shown(result)}")
    return [_item(row, symbol) for row in lists[0]]


def _item(row: object, symbol: object) -> Item | Unusable:
    if not isinstance(row, list) or len(row) < _COLUMNS:
        return Unusable("bad_frame", f"a trade is not a list of {_COLUMNS}: {shown(row)}")
    price, volume, time, side, order_type, _, number = row[:_COLUMNS]
    fields = {
        "price": NumberText(price) if type(price) is str else None,
        "qty": NumberText(volume) if type(volume) is str else None,
        "timestamp": Seconds(time) if isinstance(time, NumberText) else None,
        "side": _SIDES.get(side) if isinstance(side, str) else None,
        "ord_type": _ORDER_TYPES.get(order_type, order_type) if isinstance(order_type, str) else None,
        "trade_id": number,
    }
    return Item(fields, symbol)


def seconds_us(text: Seconds) -> int | None:
    """Return decimal seconds, cut to µs, as epoch µs; None for another number."""
    found = _SECONDS.fullmatch(text)
    return None if found is None else int(found[1]) * 1_000_000 + int(((found[2] or "") + "000000")[:6])
