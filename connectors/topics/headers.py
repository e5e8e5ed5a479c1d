"""How headers that are no column travel: as one JSON object in `extra_headers`, without loss.

    {"trace": "abc"}                    text
    {"trace": {"b64": "/w=="}}          bytes that are not UTF-8
    {"trace": null}                     a header without a value
    {"trace": ["a", "b"]}               a header that occurs more than once, in order

A header named like a column is here when the column cannot hold it: a second one, one without value, a `received_us` that
is no number. `RAW_KEY` holds a record key that is not UTF-8; the column `key` then shows it with escapes.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable
from typing import Any, Final

from market.errors import InvariantViolation

RAW_KEY: Final = "k2.key"

Header = tuple[str, bytes | None]


def to_json(headers: Iterable[Header]) -> str | None:
    """Return the JSON object of these headers, or None when there are none."""
    found: dict[str, list[Any]] = {}
    for name, value in headers:
        found.setdefault(name, []).append(_readable(value))
    if not found:
        return None
    values = {name: values[0] if len(values) == 1 else values for name, values in found.items()}
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def from_json(text: str) -> list[Header]:
    """Return the headers that `to_json` wrote.

    Raises:
        InvariantViolation: the text is not such an object.
    """
    try:
        found = json.loads(text)
        return [(name, _bytes(v)) for name, value in found.items() for v in (value if isinstance(value, list) else [value])]
    except (ValueError, TypeError, KeyError, AttributeError, binascii.Error) as error:
        raise InvariantViolation(f"extra headers are no JSON object of headers: {text[:200]!r}") from error


def _readable(value: bytes | None) -> str | dict[str, str] | None:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def _bytes(value: Any) -> bytes | None:
    if isinstance(value, dict):
        return base64.b64decode(value["b64"], validate=True)
    return None if value is None else str(value).encode()
