"""Faults made to happen: begun and ended by run time, at a venue, and written into the books.

What a fault does to a connection starts with the tick after its moment. What it does to trades (`skip`, `lost`,
`clock_offset`) goes by their own times, so the same seed loses the same trades however busy the machine is.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from random import Random
from typing import Final

import numpy as np

from market.errors import ConfigError
from simulator.block import Bools, Ints, Rows, runs
from simulator.clock import SECOND_US
from simulator.disturbances import Delay, Duplicate, Malformed, Missed, Reorder
from simulator.exchange import Disturbance, Exchange
from simulator.faults import Fault, FaultKind, FaultRecord, everywhere
from simulator.http import Reply, json_reply
from simulator.session import Session

Finish = Callable[[], None]


class Injector:
    """Begins and ends faults.

    Args:
        exchanges: the venues by name.
        faults: what goes wrong when.
        seed: of what a fault leaves open: which symbol, which connection, which bytes.
        records: the books' page of faults, written here.
    """

    def __init__(self, exchanges: Mapping[str, Exchange], faults: Sequence[Fault], *, seed: int, records: list[FaultRecord]) -> None:
        self._exchanges = exchanges
        self._records = records
        self._seed = seed
        self._numbers = count()
        self._waiting: list[tuple[int, int, Fault]] = []
        self._lasting: list[tuple[int, int, FaultRecord, Finish]] = []
        for fault in faults:
            self.add(fault)

    def add(self, fault: Fault) -> None:
        """Let a fault happen at its moment, or now if that is past.

        Raises:
            ConfigError: no venue it is about lists a symbol that it names.
        """
        places = everywhere(fault, list(self._exchanges))
        listed = {tape.listing.canonical for one in places for tape in self._exchanges[one.exchange].tape.symbols}
        for symbol in fault.symbols:
            if symbol not in listed:
                raise ConfigError(f"fault {fault.kind}: {fault.exchange or 'no exchange'} lists no {symbol!r}")
        for one in places:
            at_us = round(one.at * SECOND_US)
            heapq.heappush(self._waiting, (at_us, next(self._numbers), one))
            if one.kind is FaultKind.CLOCK_OFFSET:
                self._exchanges[one.exchange].clock_steps.append((at_us, round(one.number("by") * SECOND_US)))

    def begin(self, run_us: int) -> None:
        """Begin what is due; call it before the trades of this moment are released."""
        while self._waiting and self._waiting[0][0] <= run_us:
            at_us, number, fault = heapq.heappop(self._waiting)
            exchange = self._exchanges[fault.exchange]
            record = FaultRecord(fault, at_us)
            self._records.append(record)
            random = Random(f"{self._seed} {number} {fault.kind}")  # noqa: S311 - meant to be repeatable
            finish = _BEGIN[fault.kind](record, exchange, random)
            seconds = fault.number("grace") if fault.kind is FaultKind.SHUTDOWN else fault.seconds
            if finish is None:
                record.end_us = run_us
            else:
                heapq.heappush(self._lasting, (max(at_us, run_us) + round(seconds * SECOND_US), number, record, finish))

    def finish(self, run_us: int) -> None:
        """End what is over; call it after the trades of this moment are released."""
        while self._lasting and self._lasting[0][0] <= run_us:
            _, _, record, finish = heapq.heappop(self._lasting)
            finish()
            record.end_us = run_us


# Connections


def _chosen(record: FaultRecord, exchange: Exchange, random: Random) -> list[Session]:
    sessions = [session for session in exchange.sessions.values() if session.is_open and not session.is_frozen]
    which = record.fault.option("connections") or "all"
    if which != "all" and sessions:
        sessions = [random.choice(sessions) if which == "one" else sessions[0 if which == "oldest" else -1]]
    record.connections = [session.name for session in sessions]
    return sessions


def _drop(record: FaultRecord, exchange: Exchange, random: Random) -> None:
    for session in _chosen(record, exchange, random):
        how = record.fault.option("how")
        if how == "reset" or (how == "both" and random.random() < 0.5):
            exchange.note(session, "reset: fault")
            session.is_open = False
            session.socket.reset()
        else:
            exchange.end(session, "going away", 1001)


def _half_open(record: FaultRecord, exchange: Exchange, random: Random) -> Finish:
    sessions = _chosen(record, exchange, random)
    for session in sessions:
        exchange.note(session, "half open: fault")
        session.is_frozen = True
        session.socket.freeze()

    def finish() -> None:
        for session in sessions:
            session.socket.reset()

    return finish


def _cut(record: FaultRecord, exchange: Exchange, random: Random) -> None:
    for session in _chosen(record, exchange, random):
        exchange.end(session, "connection too old", 1001)


def _shutdown(record: FaultRecord, exchange: Exchange, random: Random) -> Finish:
    sessions = _chosen(record, exchange, random)
    for session in sessions:
        exchange.shut_down_notice(session)

    def finish() -> None:
        for session in sessions:
            if session.is_open:
                exchange.end(session, "server shutdown", 1001)

    return finish


def _maintenance(record: FaultRecord, exchange: Exchange, random: Random) -> Finish:
    exchange.is_in_maintenance = True
    exchange.maintenance_changed()
    for session in _chosen(record, exchange, random):
        exchange.end(session, "maintenance", 1001)

    def finish() -> None:
        exchange.is_in_maintenance = False
        exchange.maintenance_changed()

    return finish


def _draw_clients(record: FaultRecord, exchange: Exchange, random: Random) -> None:
    # Clients whose connections are reset come back, subscribe and ask for what they missed.
    if record.fault.option("drop") == "yes":
        for session in _chosen(record, exchange, random):
            exchange.note(session, "reset: fault")
            session.is_open = False
            session.socket.reset()


def _subscribe_error(record: FaultRecord, exchange: Exchange, random: Random) -> Finish:
    _draw_clients(record, exchange, random)
    exchange.refused_subscriptions += int(record.fault.number("count"))

    def finish() -> None:
        exchange.refused_subscriptions = 0

    return finish


# What is sent


def _disturbing(make: Callable[[FaultRecord, Exchange, Random], Disturbance]) -> Callable[[FaultRecord, Exchange, Random], Finish]:
    def begin(record: FaultRecord, exchange: Exchange, random: Random) -> Finish:
        disturbance = make(record, exchange, random)
        exchange.disturbances.append(disturbance)
        return lambda: exchange.disturbances.remove(disturbance)

    return begin


def _missed(record: FaultRecord, exchange: Exchange, random: Random) -> Disturbance:
    _chosen(record, exchange, random)
    return Missed(record, exchange, random)


def _fragment(record: FaultRecord, exchange: Exchange, random: Random) -> Finish:
    del record
    exchange.fragments = random

    def finish() -> None:
        exchange.fragments = None

    return finish


# Trades


def _codes(record: FaultRecord, exchange: Exchange, random: Random) -> list[int]:
    # The symbols a fault names; else one that trades often enough to be hit.
    by_name = {tape.listing.canonical: code for code, tape in enumerate(exchange.tape.symbols)}
    named = [by_name[symbol] for symbol in record.fault.symbols if symbol in by_name]
    busy = [code for code, tape in enumerate(exchange.tape.symbols) if not tape.listing.is_quiet] or list(by_name.values())
    return named or [random.choice(busy)]


class _Withheld:
    """Keeps the next `left` trades of a symbol from every client; from REST too if they are to be lost."""

    def __init__(self, record: FaultRecord, exchange: Exchange, code: int) -> None:
        self._record, self._tape = record, exchange.tape.symbols[code]
        self._exchange = exchange
        self._left = int(record.fault.number("count"))
        self._from_us = record.start_us
        self._to_us = record.start_us + round(record.fault.seconds * SECOND_US)

    def kept(self, rows: Rows, due_us: Ints) -> Bools:
        kept = np.ones(len(rows), dtype=np.bool_)
        meant = (rows.symbol == self._tape.code) & (due_us >= self._from_us) & (due_us < self._to_us)
        found = np.flatnonzero(meant)[: self._left]
        if len(found):
            self._left -= len(found)
            kept[found] = False
            ids = rows.trade_id[found]
            if self._record.fault.kind is FaultKind.LOST:
                self._tape.mark_lost(ids)
            else:
                for session in self._exchange.sessions.values():
                    if session.mask[self._tape.code]:
                        self._exchange.frames_lost(session)
            for start, stop in runs(ids - np.arange(len(ids))):
                self._record.concern(self._tape.listing.canonical, int(ids[start]), int(ids[stop - 1]))
        return kept


def _withhold(record: FaultRecord, exchange: Exchange, random: Random) -> Finish:
    added = [_Withheld(record, exchange, code) for code in _codes(record, exchange, random)]
    exchange.withholdings.extend(added)

    def finish() -> None:
        for withheld in added:
            exchange.withholdings.remove(withheld)

    return finish


def _snapshot(record: FaultRecord, exchange: Exchange, random: Random) -> None:
    codes = _codes(record, exchange, random) if record.fault.symbols else range(len(exchange.symbols))
    for session in _chosen(record, exchange, random):
        for code in codes:
            if session.mask[code]:
                exchange.snapshot(session, code)


def _repeat(record: FaultRecord, exchange: Exchange, random: Random) -> None:
    codes = _codes(record, exchange, random)
    rows = {code: exchange.repeatable(code, int(record.fault.number("count"))) for code in codes}
    for session in _chosen(record, exchange, random):
        for code in codes:
            if session.mask[code] and len(rows[code]):
                exchange.repeat(session, rows[code])
    for code, repeated in rows.items():
        if len(repeated):
            first, last = int(repeated.trade_id[0]), int(repeated.trade_id[-1])
            record.concern(exchange.tape.symbols[code].listing.canonical, first, last)


def _clock_offset(record: FaultRecord, exchange: Exchange, random: Random) -> None:
    """Do nothing: the step stands in the venue's `clock_steps` since the fault was added."""
    del record, exchange, random


# REST


class _RestFault:
    def __init__(self, fault: Fault) -> None:
        self._fault = fault

    def reply(self, exchange: Exchange, path: str) -> Reply | float:
        del path
        wait = self._fault.number("retry_after")
        match self._fault.kind:
            case FaultKind.REST_429:
                return exchange.too_many(wait - 1)
            case FaultKind.REST_418:
                text = f"Way too much request weight used; IP banned until {exchange.now_us() // 1000 + int(wait * 1000)}."
                return json_reply({"code": -1003, "msg": text}, 418, Retry_After=str(max(1, int(wait))))
            case FaultKind.REST_5XX:
                return Reply(int(self._fault.number("status")), b"<html><body>backend unavailable</body></html>", kind="text/html")
            case _:
                return self._fault.number("by")


def _rest(record: FaultRecord, exchange: Exchange, random: Random) -> Finish:
    _draw_clients(record, exchange, random)
    refusal = _RestFault(record.fault)
    exchange.refusals.append(refusal)
    return lambda: exchange.refusals.remove(refusal)


_BEGIN: Final[dict[FaultKind, Callable[[FaultRecord, Exchange, Random], Finish | None]]] = {
    FaultKind.DROP: _drop,
    FaultKind.HALF_OPEN: _half_open,
    FaultKind.DELAY: _disturbing(Delay),
    FaultKind.DUPLICATE: _disturbing(Duplicate),
    FaultKind.REORDER: _disturbing(Reorder),
    FaultKind.FRAGMENT: _fragment,
    FaultKind.SNAPSHOT: _snapshot,
    FaultKind.REPEAT: _repeat,
    FaultKind.SKIP: _withhold,
    FaultKind.MISS: _disturbing(_missed),
    FaultKind.LOST: _withhold,
    FaultKind.CUT: _cut,
    FaultKind.SHUTDOWN: _shutdown,
    FaultKind.SUBSCRIBE_ERROR: _subscribe_error,
    FaultKind.REST_429: _rest,
    FaultKind.REST_418: _rest,
    FaultKind.REST_5XX: _rest,
    FaultKind.SLOW_REST: _rest,
    FaultKind.MALFORMED: _disturbing(Malformed),
    FaultKind.CLOCK_OFFSET: _clock_offset,
    FaultKind.MAINTENANCE: _maintenance,
}
