from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cli.simulate import Request, build_config
from market.errors import ConfigError
from simulator.faults import FaultKind, fault_of

DOCUMENT = Path(__file__).parents[3] / "docs" / "simulator.md"


def request(**options: Any) -> Request:
    values: dict[str, Any] = {
        "host": "127.0.0.1", "port": 0, "exchanges": [], "symbols": ["3"], "quiet_symbols": 0, "rate": 100.0, "seed": 1, "trades": None,
        "seconds": None, "start": None, "speed": 1.0, "clock_offsets": [], "recordings": [], "once": False, "as_recorded": False,
        "faults": [], "fault_count": 0, "fault_kinds": [], "fault_file": None, "max_age": 60.0, "limits": False,
        "write_instruments": None, "exit_after": None,
    }  # fmt: skip
    return Request(**values | options)


def test_options_become_a_configuration() -> None:
    config = build_config(
        request(
            exchanges=["kraken", "binance", "kraken"],
            symbols=["kraken=BTC/USD,ETH/USD"],
            clock_offsets=["kraken=-1.5"],
            recordings=["binance=a.gz", "binance=b.gz"],
            start="2026-01-01T00:00:00Z",
            faults=["drop@3:exchange=kraken"],
            fault_count=5,
            fault_kinds=["cut"],
            seconds=100.0,
        )
    )
    assert config.exchanges == ("kraken", "binance")
    assert config.symbols_of("kraken") == ("BTC/USD", "ETH/USD")
    assert config.symbols_of("binance") == 5
    assert config.clock_offsets == {"kraken": -1.5}
    assert config.recordings == {"binance": (Path("a.gz"), Path("b.gz"))}
    assert config.start_us == 1_767_225_600_000_000
    assert [fault.kind for fault in config.faults] == [FaultKind.DROP] + [FaultKind.CUT] * 5
    assert not config.conditions.enforces_limits
    assert config.conditions.max_age_seconds == 60


def test_the_start_may_be_that_of_a_recording() -> None:
    config = build_config(request(recordings=["kraken=a.gz"], start="kraken", skip=10.0, halt=20.0, wait_for_clients=True))
    assert (config.start_of, config.start_us) == ("kraken", None)
    assert (config.skip_seconds, config.halt_seconds, config.waits_for_clients) == (10.0, 20.0, True)


def test_faults_are_read_from_yaml_and_json(tmp_path: Path) -> None:
    for text in ("- {kind: drop, at: 3}\n- cut@4\n", '{"faults": [{"kind": "drop", "at": 3}, "cut@4"]}'):
        path = tmp_path / "faults"
        path.write_text(text)
        assert [fault.at for fault in build_config(request(fault_file=path)).faults] == [3, 4]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"clock_offsets": ["kraken"]}, "EXCHANGE=VALUE"),
        ({"clock_offsets": ["kraken=soon"]}, "'soon' is no number"),
        ({"fault_count": 3}, "--seconds"),
        ({"fault_count": 3, "seconds": 9.0, "fault_kinds": ["rain"]}, "'rain'"),
        ({"fault_file": Path("/nonexistent/faults")}, "--fault-file"),
        ({"start": "tomorrow"}, "--start"),
        ({"start": "kraken"}, "--start"),
        ({"exchanges": ["nyse"]}, "'nyse'"),
    ],
)
def test_what_makes_no_sense_is_named(options: dict[str, Any], names: str) -> None:
    with pytest.raises(ConfigError) as error:
        build_config(request(**options))
    assert names in str(error.value)


def test_the_document_lists_every_fault_and_what_it_takes() -> None:
    text = DOCUMENT.read_text()
    rows = re.findall(r"^\| (`[a-z0-9_`, ]+`) \| [^|]+ \|([^|]*)\|$", text, re.MULTILINE)
    listed = {kind: set(re.findall(r"`([a-z_]+)`", takes)) for kinds, takes in rows for kind in re.findall(r"`(\w+)`", kinds)}
    assert set(listed) == set(FaultKind)
    for kind in FaultKind:
        options = set(fault_of({"kind": kind}).shown()["options"]) - {"seconds"}
        assert listed[kind] - {"symbols"} == options, kind
