"""How a page of past trades that was asked for over REST lies in a raw topic.

    {"refill":"/api/v3/historicalTrades?symbol=BTCUSDT&fromId=7","symbol":"BTCUSDT","body":[…the body as it came…]}

One record a page, with the header `source=refill`. REST bodies mostly do not name their symbol; the envelope does.
"""

from __future__ import annotations

import json
from typing import Final

ENVELOPE: Final = frozenset(("refill", "symbol", "body"))
"""The keys of such a document, and of no frame of any venue."""


def wrap(path: str, symbol: str, body: bytes) -> bytes:
    """Return the payload of a refill record.

    Args:
        path: path and query of the request.
        symbol: the venue's spelling.
        body: the response body, a JSON document; it is put in unchanged.
    """
    return b'{"refill":%b,"symbol":%b,"body":%b}' % (json.dumps(path).encode(), json.dumps(symbol).encode(), body)
