"""Frames of the venues that are read by a table, as each sends them, for fuzzing."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator, Sequence

from connectors.files.capture import read_capture
from tests import frames as f
from tests.recorded import recording_of

Maker = Callable[[Sequence[f.T], random.Random], bytes]


def _flag(rng: random.Random) -> str:
    return rng.choice(("true", "false"))


def bybit_frame(trades: Sequence[f.T], rng: random.Random) -> bytes:
    """A `publicTrade` frame of spot."""
    body = ",".join(
        f'{{"i":"{t.id + 229 * 10**16}","T":{t.time_us // 1000},"p":"{t.price}","v":"{t.quantity}","S":"{"Buy" if t.is_buy else "Sell"}",'
        f'"seq":{t.id},"s":"{t.symbol}","BT":{_flag(rng)},"RPI":false}}'
        for t in trades
    )
    now, kind = f'"ts":{trades[0].time_us // 1000}', '"type":"snapshot"'
    middle = f"{now},{kind}" if rng.random() < 0.8 else f"{kind},{now}"
    return f'{{"topic":"publicTrade.{trades[0].symbol}",{middle},"data":[{body}]}}'.encode()


def bybit_linear_frame(trades: Sequence[f.T], rng: random.Random) -> bytes:
    """A `publicTrade` frame of linear contracts, now and then with an id that is no UUID of the usual kind."""
    body = ",".join(
        f'{{"T":{t.time_us // 1000},"s":"{t.symbol}","S":"{"Buy" if t.is_buy else "Sell"}","v":"{t.quantity}","p":"{t.price}",'
        f'"L":"ZeroPlusTick","i":"{_uuid(rng)}","BT":{_flag(rng)},"RPI":false,"seq":{t.id}}}'
        for t in trades
    )
    return f'{{"topic":"publicTrade.{trades[0].symbol}","type":"snapshot","ts":{trades[0].time_us // 1000},"data":[{body}]}}'.encode()


def _uuid(rng: random.Random) -> str:
    text = str(uuid.UUID(int=rng.getrandbits(128), version=5))
    at = rng.randrange(len(text))
    return text if rng.random() < 0.95 else text[:at] + rng.choice("0-afgF") + text[at + rng.randrange(2) :]


def okx_frame(trades: Sequence[f.T], rng: random.Random) -> bytes:
    """A frame of either trade channel, also with merged trades."""
    channel = rng.choice(("trades-all", "trades"))
    more = rng.choice(("", ',"source":"0"', ',"count":"1","source":"0","seqId":77', ',"count":"3","seqId":78'))
    body = ",".join(
        f'{{"instId":"{t.symbol}","tradeId":"{t.id}","px":"{t.price}","sz":"{t.quantity}","side":"{"buy" if t.is_buy else "sell"}",'
        f'"ts":"{t.time_us // 1000}"{more}}}'
        for t in trades
    )
    return f'{{"arg":{{"channel":"{channel}","instId":"{trades[0].symbol}"}},"data":[{body}]}}'.encode()


def _gemini_trade(t: f.T) -> str:
    side = "buy" if t.is_buy else "sell"
    return (
        f'{{"event_id":{t.id + 5},"price":"{t.price}","quantity":"{t.quantity}","side":"{side}","symbol":"{t.symbol}","tid":{t.id},'
        f'"timestamp":{t.time_us // 1000},"type":"trade"}}'
    )


def gemini_frame(trades: Sequence[f.T], rng: random.Random) -> bytes:
    """A trade, or a symbol's first frame with past ones."""
    if len(trades) == 1 and rng.random() < 0.9:
        return _gemini_trade(trades[0]).encode()
    past = ",".join(map(_gemini_trade, trades))
    return f'{{"auction_events":[],"changes":[["buy","1.5","2"]],"symbol":"{trades[0].symbol}","trades":[{past}],"type":"l2_updates"}}'.encode()


def bitstamp_frame(trades: Sequence[f.T], rng: random.Random) -> bytes:
    """A `trade` event."""
    t = trades[0]
    data = (
        f'{{"id":{t.id},"timestamp":"{t.time_us // 10**6}","amount":{t.quantity},"amount_str":"{t.quantity}","price":{t.price},'
        f'"price_str":"{t.price}","type":{0 if t.is_buy else 1},"microtimestamp":"{t.time_us}","buy_order_id":{rng.randrange(10**16)},'
        f'"sell_order_id":{rng.randrange(10**16)}}}'
    )
    return f'{{"data":{data},"channel":"live_trades_{t.symbol.lower()}","event":"trade"}}'.encode()


def bitfinex_frame(trades: Sequence[f.T], rng: random.Random) -> bytes:
    """A `te` frame, its `tu`, or a channel's past trades, with and without a number of the frame."""
    rows = [f"[{t.id},{t.time_us // 1000},{'' if t.is_buy else '-'}{t.quantity},{t.price}]" for t in trades]
    number = rng.choice(("", f",{rng.randrange(10**6)}"))
    if len(rows) > 1:
        return f"[232959,[{','.join(rows)}]{number}]".encode()
    return f'[232959,"{rng.choice(("te", "te", "te", "tu"))}",{rows[0]}{number}]'.encode()


TABLE_MAKERS: dict[str, Maker] = {
    "bybit": bybit_frame,
    "bybit_linear": bybit_linear_frame,
    "okx": lambda trades, rng: okx_frame([_dashed(t) for t in trades], rng),
    "gemini": gemini_frame,
    "bitstamp": bitstamp_frame,
    "bitfinex": bitfinex_frame,
}


def _dashed(t: f.T) -> f.T:
    return f.T(f"{t.symbol[:3]}-{t.symbol[3:]}", t.id, t.price, t.quantity, t.time_us, t.is_buy)


def recorded_frames(exchange: str) -> Iterator[tuple[int, bytes]]:
    """(receive time µs, frame) of a venue's recording, its large frames left out."""
    for one in read_capture(recording_of(exchange)):
        if len(one.payload) < 1000:
            yield one.receive_us or 0, one.payload
