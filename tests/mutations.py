"""Seeded damage to JSON frames: what lines, proxies, bugs and attackers do to them."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable

_VALUE = re.compile(rb'(?<=":)(?:"[^"]*"|-?[0-9][0-9.eE+-]*|true|false|null)')
_MEMBER = re.compile(rb'"[A-Za-z_]+":(?:"[^"]*"|-?[0-9][0-9.eE+-]*|true|false|null),?')
_KEY = re.compile(rb'"[A-Za-z_]+":')
_BETWEEN = re.compile(rb"[,:{}\[\]]")

_NUMBERS = (
    *(
        b"0",
        b"-1",
        b"1",
        b"00",
        b"01.5",
        b"1.",
        b".5",
        b"-0",
        b"1e3",
        b"1E+3",
        b"2.5e-7",
        b"1e-19",
        b"1e400",
        b"1e-400",
        b"1e99999999999999999999",
    ),
    *(b"0.000000000000000000", b"0.000000000000000001", b"0.0000000000000000001", b"1.1234567890123456789", b"1.1234567890123456780"),
    *(
        b"999999999999999",
        b"1000000000000000",
        b"9223372036854775807",
        b"9223372036854775808",
        b"18446744073709551616",
        b"9" * 40,
        b"9" * 6000,
    ),
    *(
        b"0",
        b"1000",
        b"86400000",
        b"1230767999999",
        b"1230768000000",
        b"4070908800000",
        b"4070908800000000",
        b"1767225600000000",
        b"1e15",
        b"NaN",
    ),
    *(b"Infinity", b"-Infinity", b"0x10", b"1_000", b"+5", b"1.5.5", b"\xd9\xa1", b"-5.5"),
)
_TEXTS = (
    *(
        b"",
        b" ",
        b"BTCUSDT",
        b"btcusdt",
        b"BTC/USD",
        b"BTC-USD",
        b"ETHUSDT",
        b"ETH/USD",
        b"DOGE-USD",
        b"trade",
        b"aggTrade",
        b"update",
        b"snapshot",
    ),
    *(
        b"buy",
        b"SELL",
        b"Buy",
        b"MARKET",
        b"limit",
        b"market_trades",
        b"depthUpdate",
        b"\\u0041",
        b"\\ud800",
        b"\\n",
        b"\xff",
        b"\xc3\xa9",
        b"\x00",
    ),
    *(
        b"1970-01-01T00:00:00Z",
        b"2099-01-01T00:00:00.000001Z",
        b"0001-01-01T00:00:00.000000Z",
        b"2026-02-29T00:00:00Z",
        b"2025-13-01T00:00:00Z",
    ),
    *(b"2025-12-31T23:59:60Z", b"2025-12-31T23:59:59.123456789Z", b"2025-12-31T23:59:59+01:00", b"2025-12-31 23:59:59Z", b"A" * 5000),
)
_OTHERS = (b"null", b"true", b"false", b"{}", b"[]", b"[1]", b'{"a":1}', b"[" * 50 + b"]" * 50, b"[" * 3000, b'{"a":' * 2000, b"undefined")


def _value(rng: random.Random) -> bytes:
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(_NUMBERS)
    if kind < 0.6:
        return b'"' + rng.choice(_NUMBERS) + b'"'
    if kind < 0.85:
        return b'"' + rng.choice(_TEXTS) + b'"'
    return rng.choice(_OTHERS)


def _flip(frame: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(frame)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _truncate(frame: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(frame))
    return frame[:at] if rng.random() < 0.7 else frame[at:]


def _insert(frame: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(frame) + 1)
    return (
        frame[:at]
        + rng.choice((b'"', b"}", b"]", b",", b":", b"\\", b" ", b"\n", b"\xff\xfe", b"\x00", b"0", b"e", b"-", rng.randbytes(3)))
        + frame[at:]
    )


def _repeat(frame: bytes, rng: random.Random) -> bytes:
    first, last = sorted((rng.randrange(len(frame)), rng.randrange(len(frame))))
    return frame[:last] + frame[first:last] + frame[last:] if rng.random() < 0.5 else frame[:first] + frame[last:]


def _replace_value(frame: bytes, rng: random.Random) -> bytes:
    found = list(_VALUE.finditer(frame))
    if not found:
        return _flip(frame, rng)
    for _ in range(rng.choice((1, 1, 2))):
        one = rng.choice(found)
        frame = frame[: one.start()] + _value(rng) + frame[one.end() :]
        found = list(_VALUE.finditer(frame)) or found[:1]
    return frame


def _members(frame: bytes, rng: random.Random) -> bytes:
    # Drop a member, say it twice, or say it again later with another value: the last of them counts.
    found = list(_MEMBER.finditer(frame))
    if not found:
        return _insert(frame, rng)
    one = rng.choice(found)
    text = one[0]
    if rng.random() < 0.4:
        return frame[: one.start()] + frame[one.end() :]
    if rng.random() < 0.5 and text.endswith(b","):
        return frame[: one.end()] + text + frame[one.end() :]
    key = _KEY.match(text)
    again = (key[0] if key else b'"x":') + _value(rng) + b","
    return frame[: one.start()] + again + frame[one.start() :]


def _spaces(frame: bytes, rng: random.Random) -> bytes:
    # JSON all the same.
    return _BETWEEN.sub(lambda m: m[0] + (rng.choice((b" ", b"\n", b"\t")) if rng.random() < 0.2 else b""), frame)


def _reordered(frame: bytes, rng: random.Random) -> bytes:
    # The same document with shuffled keys or escapes; numbers keep their text only where Python writes them so.
    try:
        document = json.loads(frame, parse_float=str)
    except (ValueError, RecursionError):
        return _truncate(frame, rng)
    return json.dumps(_shuffled(document, rng), separators=(",", ":"), ensure_ascii=rng.random() < 0.5).encode(errors="surrogatepass")


def _shuffled(value: object, rng: random.Random) -> object:
    if isinstance(value, dict):
        members = list(value.items())
        rng.shuffle(members)
        return {k: _shuffled(v, rng) for k, v in members}
    if isinstance(value, list):
        return [_shuffled(v, rng) for v in value]
    return value


def _nest(frame: bytes, rng: random.Random) -> bytes:
    depth = rng.choice((1, 2, 100, 5000))
    return b"[" * depth + frame + b"]" * depth if rng.random() < 0.5 else b'{"data":' * depth + frame + b"}" * depth


def _escaped(frame: bytes, rng: random.Random) -> bytes:
    # A letter of a key or text as an escape: the same text.
    letters = [m.start() for m in re.finditer(rb"[A-Za-z]", frame)]
    if not letters:
        return _flip(frame, rng)
    at = rng.choice(letters)
    return frame[:at] + b"\\u%04x" % frame[at] + frame[at + 1 :]


def _else(frame: bytes, rng: random.Random) -> bytes:
    return rng.choice(
        (
            b"",
            b" ",
            b"null",
            b"0",
            b'"text"',
            b"[]",
            b"{}",
            b"ping",
            b"\xef\xbb\xbf" + frame,
            frame + frame,
            frame + b"\n",
            rng.randbytes(40),
        )
    )


_WAYS: tuple[tuple[Callable[[bytes, random.Random], bytes], int], ...] = (
    (_flip, 20), (_truncate, 8), (_insert, 12), (_repeat, 6), (_replace_value, 34), (_members, 8), (_spaces, 2), (_reordered, 3), (_nest, 2), (_escaped, 3), (_else, 2),
)  # fmt: skip


def mutated(frame: bytes, rng: random.Random) -> bytes:
    """Return the frame damaged in one way, now and then in two."""
    ways, weights = zip(*_WAYS, strict=True)
    for way in rng.choices(ways, weights, k=1 if rng.random() < 0.9 else 2):
        frame = way(frame, rng) if frame else b"{"
    return frame
