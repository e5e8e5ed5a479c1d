from __future__ import annotations

from collections import Counter

import pytest

from market.errors import ConfigError
from simulator.faults import Fault, FaultKind, drawn_faults, everywhere, fault_of, faults_of, parse_fault


def test_faults_are_read_from_text() -> None:
    fault = parse_fault("drop@12.5:exchange=kraken:how=reset")
    assert (fault.kind, fault.at, fault.exchange, fault.option("how"), fault.option("connections")) == (
        FaultKind.DROP, 12.5, "kraken", "reset", "all",
    )  # fmt: skip
    assert parse_fault("lost@3:symbols=BTC/USD,ETH/USD:count=7").symbols == ("BTC/USD", "ETH/USD")
    assert parse_fault("half_open@1").seconds == 30


def test_faults_are_read_from_documents() -> None:
    listed = [{"kind": "delay", "at": 3, "by": 0.5, "control": False}, "cut@7"]
    assert [fault.kind for fault in faults_of(listed)] == [FaultKind.DELAY, FaultKind.CUT]
    assert faults_of({"faults": listed})[0].option("control") == "no"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("drop", "KIND@SECONDS"),
        ("dorp@1", "no fault is called 'dorp'"),
        ("drop@soon", "'soon' is no run second"),
        ("drop@-1", "no run second"),
        ("drop@1:how=gently", "known: reset, close"),
        ("drop@1:by=2", "takes no 'by'"),
        ("drop@1:how", "NAME=VALUE"),
        ("delay@1:by=x", "by='x' is no number"),
        ("reorder@1:window=3", "at most 1.0 s"),
    ],
)
def test_what_is_no_fault_is_named(text: str, names: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_fault(text)
    assert names in str(error.value)


def test_documents_that_are_no_faults_are_refused() -> None:
    for document in ("drop", 3, {"faults": 3}, [3]):
        with pytest.raises(ConfigError, match="fault"):
            faults_of(document)


def test_drawn_faults_are_repeatable_and_of_every_kind() -> None:
    drawn = drawn_faults(100, seed=3, seconds=600, exchanges=("binance", "kraken"))
    assert drawn == drawn_faults(100, seed=3, seconds=600, exchanges=("binance", "kraken"))
    assert drawn != drawn_faults(100, seed=4, seconds=600, exchanges=("binance", "kraken"))
    counts = Counter(fault.kind for fault in drawn)
    assert set(counts) == set(FaultKind)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert all(30 <= fault.at <= 510 for fault in drawn)
    assert [fault.at for fault in drawn] == sorted(fault.at for fault in drawn)
    few = drawn_faults(4, seed=1, seconds=10, exchanges=("binance",), kinds=[FaultKind.DROP, FaultKind.LOST])
    assert Counter(fault.kind for fault in few) == {FaultKind.DROP: 2, FaultKind.LOST: 2}


def test_a_fault_without_an_exchange_is_everywhere() -> None:
    fault = fault_of({"kind": "drop", "at": 1})
    assert [one.exchange for one in everywhere(fault, ["binance", "kraken"])] == ["binance", "kraken"]
    named = Fault(kind=FaultKind.DROP, exchange="kraken")
    assert everywhere(named, ["binance", "kraken"]) == [named]
