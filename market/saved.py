"""A shard's state as bytes: magic, version, a JSON header, then arrays as they lie in memory (little-endian)."""

from __future__ import annotations

import json
import struct
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from market.book import Book, History, blank_symbols
from market.coverage import Coverage
from market.errors import SchemaMismatch
from market.gaps import Gaps, Unfillable
from market.layout import COVERED_TO, DELTA_HEADS, FREE, HEADS, LEVEL, LEVELS, NEVER, NEXT, SEEN, START, SYMBOL
from market.seen import SEEN_WIDTH, move_live, new_table
from market.sequence import Run, Runs
from market.state import grown
from market.trade import Int64s

MAGIC: Final = b"K2SHARD\0"
VERSION: Final = 2
_HEAD: Final = struct.Struct("<8sII")  # magic, version, length of the JSON header

Arrays = dict[str, npt.NDArray[Any]]


def save_book(book: Book, exchange: str, partition: int) -> bytes:
    """Return the state between two batches."""
    state = book.state
    histories = {symbol: book.history(symbol) for symbol in sorted(book.histories)}
    used = np.setdiff1d(np.arange(len(state.candles)), state.free[: state.progress[FREE]])
    runs = [
        (symbol, run.first, run.last, run.first_time, run.last_time, run.min_time, run.max_time)
        for symbol, history in histories.items()
        for run in history.runs.runs
    ]
    stretches = [(symbol, *stretch) for symbol, history in histories.items() for stretch in history.coverage.stretches]
    days = [(symbol, day) for symbol, history in histories.items() for day in sorted(history.days)]
    arrays: Arrays = {
        "symbols": state.symbols,
        "candles": state.candles[used],
        "sums": state.sums[used],
        "runs": np.array(runs, np.int64).reshape(-1, 7),
        "stretches": np.array(stretches, np.int64).reshape(-1, 3),
        "days": np.array(days, np.int64).reshape(-1, 2),
        "seen": state.seen[state.seen[:, 0] != -1],
    }
    header = {
        "exchange": exchange,
        "partition": partition,
        "names": book.names,
        "unfillable": [(symbol, *ids) for symbol, history in histories.items() for ids in history.gaps.unfillable],
        "arrays": [(name, array.dtype.str, array.shape) for name, array in arrays.items()],
    }
    text = json.dumps(header).encode()
    return b"".join([_HEAD.pack(MAGIC, VERSION, len(text)), text, *(np.ascontiguousarray(array).tobytes() for array in arrays.values())])


def restore_book(book: Book, data: bytes, exchange: str, partition: int) -> None:
    """Fill a new book from `save_book`.

    Raises:
        SchemaMismatch: not a state of this partition, or of a version that is not known.
    """
    header, arrays = _read(data)
    if (header["exchange"], header["partition"]) != (exchange, partition):
        raise SchemaMismatch(
            f"saved state is of {header['exchange']}/{header['partition']:02d}, not {exchange}/{partition:02d}: `k2 recover` starts anew"
        )
    codes = {name: code for code, name in enumerate(book.names)}
    for name in header["names"]:  # a symbol that is not listed now keeps its state behind the listed ones
        codes.setdefault(name, len(codes))
    book.names = list(codes)
    code_of = np.array([codes[name] for name in header["names"]], np.int64)
    symbols = blank_symbols(len(codes))
    symbols[code_of] = arrays["symbols"]
    symbols[:, HEADS : HEADS + LEVELS] = -1
    symbols[:, DELTA_HEADS : DELTA_HEADS + LEVELS] = -1
    book.state = book.state._replace(symbols=symbols)
    for name in ("candles", "runs", "stretches", "days", "seen"):
        column = SYMBOL if name == "candles" else 0
        arrays[name][:, column] = code_of[arrays[name][:, column]]
    _restore_candles(book, arrays["candles"], arrays["sums"])
    _restore_seen(book, arrays["seen"])
    unfillable = [(int(code_of[symbol]), Unfillable(first, last, reason)) for symbol, first, last, reason in header["unfillable"]]
    _restore_histories(book, arrays, unfillable)


def _read(data: bytes) -> tuple[dict[str, Any], Arrays]:
    if len(data) < _HEAD.size or data[:8] != MAGIC:
        raise SchemaMismatch("saved state is not a shard's: `k2 recover` moves it aside and starts from the log")
    _, version, length = _HEAD.unpack_from(data)
    if version != VERSION:
        raise SchemaMismatch(
            f"saved state has version {version}, this program reads {VERSION}: go on with the program that wrote it, "
            "or `k2 recover` moves it aside and starts from the log"
        )
    at = _HEAD.size + length
    header: dict[str, Any] = json.loads(data[_HEAD.size : at])
    arrays: Arrays = {}
    for name, kind, shape in header["arrays"]:
        count = int(np.prod(shape))
        arrays[name] = np.frombuffer(data, np.dtype(kind), count, at).reshape(shape).copy()
        at += arrays[name].nbytes
    return header, arrays


def _restore_candles(book: Book, candles: Int64s, sums: npt.NDArray[np.uint64]) -> None:
    book.state = grown(book.state, len(candles) + 1)
    state, count = book.state, len(candles)
    # Rising windows, each put before the last: the lists come out falling.
    order = np.argsort(candles[:, START], kind="stable")
    state.candles[:count], state.sums[:count] = candles[order], sums[order]
    for slot in range(count):
        symbol, head = state.candles[slot, SYMBOL], HEADS + state.candles[slot, LEVEL]
        state.candles[slot, NEXT] = state.symbols[symbol, head]
        state.symbols[symbol, head] = slot
    free = np.arange(len(state.candles) - 1, count - 1, -1)
    state.free[: len(free)] = free
    state.progress[FREE] = len(free)


def _restore_seen(book: Book, seen: Int64s) -> None:
    if book.rules.contiguous_ids:
        return
    table, loose = new_table(2 * len(seen) + 1_024), np.full((len(seen) + 1, SEEN_WIDTH), -1, np.int64)
    loose[: len(seen)] = seen
    move_live(loose, book.state.symbols, book.state.rules, table, book.state.progress)
    book.state = book.state._replace(seen=table)
    book.state.progress[SEEN] = int((table[:, 0] != -1).sum())


def _restore_histories(book: Book, arrays: Arrays, unfillable: list[tuple[int, Unfillable]]) -> None:
    runs: dict[int, list[Run]] = {}
    for symbol, *run in arrays["runs"].tolist():
        runs.setdefault(symbol, []).append(Run(*run))
    stretches: dict[int, list[list[int]]] = {}
    for symbol, *stretch in arrays["stretches"].tolist():
        stretches.setdefault(symbol, []).append(stretch)
    days: dict[int, set[int]] = {}
    for symbol, day in arrays["days"].tolist():
        days.setdefault(symbol, set()).add(day)
    given: dict[int, list[Unfillable]] = {}
    for symbol, ids in unfillable:
        given.setdefault(symbol, []).append(ids)
    for symbol in sorted({*runs, *stretches, *days, *given}):
        found = Runs(runs.get(symbol))
        line = int(book.state.symbols[symbol, COVERED_TO]) - book.rules.gap_grace_us
        gaps = Gaps(given.get(symbol, ()), found.holes(0, NEVER * 2), line)
        book.histories[symbol] = History(found, gaps, Coverage(stretches.get(symbol)), days.get(symbol, set()))
        book.settle(symbol, book.histories[symbol])
