from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli import lifecycle, reference
from cli.main import app, main
from market.errors import ConfigError, Fenced, InvariantViolation, Locked, PipelineError, PositionLost, SchemaMismatch, SinkUnavailable

STREAMS = ("feed", "live", "simulate")
COMMANDS = ("up", "down", "load", "run", "recover", "export", "status", "gaps", "audit", "demo", "version", *STREAMS)


@pytest.fixture(autouse=True)
def own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [n for n in os.environ if n.startswith("K2_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("K2_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("warnings.showwarning", lambda *_a, **_k: None)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        out, err = capsys.readouterr()
        return int(exit_.value.code or 0), out, err

    return call


Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_for_people(run: Run, command: str) -> None:
    code, out, err = run(command, "--help")
    assert (code, err) == (0, "")
    assert f"Usage: k2 {command}" in out
    assert len(out.splitlines()[2].strip()) > 20


def test_help_lists_every_command_and_the_exit_codes(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert [name for name in COMMANDS if not re.search(rf"^  {name} ", out, re.MULTILINE)] == []
    assert "3 refused" in out


def test_version_names_us_and_the_engines(run: Run) -> None:
    assert re.fullmatch(r"k2 \d+\.\d+\.\d+\n", run("--version")[1])
    assert "pyiceberg" in run("version")[1]


@pytest.mark.parametrize("line", [["exprt"], ["load"], ["export"], ["run", "--until"], ["status", "--jsn"], ["--nothing"]])
def test_usage_errors_exit_2_and_say_so_on_stderr(run: Run, line: list[str]) -> None:
    code, out, err = run(*line)
    assert (code, out) == (2, "")
    assert "Error:" in err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("a"), 2),
        (Locked("b"), 3),
        (Fenced("c"), 3),
        (PositionLost("d"), 3),
        (SchemaMismatch("e"), 4),
        (InvariantViolation("f"), 4),
        (SinkUnavailable("g"), 4),
        (PipelineError("h"), 4),
        (ZeroDivisionError("i"), 4),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_have_one_exit_code_each_and_no_traceback(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(lifecycle, "up", fail)
    got, out, err = run("up")
    assert (got, out) == (code, "")
    assert "Traceback" not in err
    assert str(error) in err
    assert len(err.splitlines()) <= 1


@pytest.mark.parametrize("line", [["--debug", "up"], ["up", "--debug"]])
def test_debug_shows_the_traceback_wherever_it_stands(run: Run, monkeypatch: pytest.MonkeyPatch, line: list[str]) -> None:
    def fail() -> None:
        raise Locked("held by process 7")

    monkeypatch.setattr(lifecycle, "up", fail)
    code, _, err = run(*line)
    assert code == 3
    assert "Traceback" in err
    assert err.splitlines()[-1] == "k2: held by process 7"


def test_full_disk_is_told_without_a_riddle(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/home/topics.db")

    monkeypatch.setattr(lifecycle, "up", full)
    assert run("up") == (4, "", "k2: /home/topics.db: No space left on device\n")


def test_bad_settings_exit_2_for_every_command_that_reads_them(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K2_LATENESS", "soon")
    for line in (["status"], ["gaps"], ["audit"], ["run"], ["recover"], ["up"], ["down"], ["export", "candles"], ["demo"]):
        code, out, err = run(*line)
        assert (code, out) == (2, ""), line
        assert err.startswith("k2: K2_LATENESS='soon': is not a duration"), line


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["export", "candle"], "no export is called 'candle': did you mean candles? (known: candles, trades, gaps, dead-letters, raw)"),
        (["export", "candles", "--format", "xml"], "no format is called 'xml'"),
        (["export", "candles", "--interval", "2m"], "no interval is called '2m' (known: 1m, 5m, 15m, 30m, 1h, 1d)"),
        (["export", "candles", "--store", "hot"], "no store is called 'hot'"),
        (["export", "candles", "--from", "noon"], "--from 'noon' is no time"),
        (["export", "candles", "--from", "2024-01-02", "--to", "2024-01-01"], "--to 2024-01-01 is before --from 2024-01-02"),
        (["export", "candles", "--store", "cold", "--open"], "--open is for candles of the warm store"),
        (["export", "trades", "--open"], "--open is for candles"),
        (["export", "candles", "--now"], "--now is for gaps"),
        (["export", "raw"], "add --exchange"),
        (["export", "raw", "-e", "binance", "-f", "parquet"], "raw records are JSON lines"),
        (["export", "raw", "-e", "binance", "--symbol", "BTC/USDT"], "exported whole"),
        (["export", "candles", "-e", "binanse"], "did you mean binance?"),
        (["export", "candles", "-e", "binance", "-s", "BTCUSTD"], "did you mean BTC/USDT?"),
        (["export", "candles", "-s", "DOGE/XMR"], "no symbol is called 'DOGE/XMR'"),
        (["gaps", "--store", "lukewarm"], "no store is called 'lukewarm'"),
        (["gaps", "-e", "kraken", "-s", "XBT/USB"], "did you mean BTC/USD?"),
        (["audit", "-e", "krakn"], "did you mean kraken?"),
        (["audit", "-e", "kraken"], "kraken has no raw topic"),
        (["load", "-e", "krak", "x"], "did you mean kraken?"),
        (["load", "-e", "kraken", "/nowhere/a.gz", "/nowhere/b.gz"], "no such file: /nowhere/a.gz, /nowhere/b.gz"),
        (["load", "-e", "kraken", "/"], "not a file: /"),
        (["export", "candles", "--store", "cold"], "there is no cold store"),
        (["simulate", "--port", "65536", "--symbols", "1"], "port must be 0 to 65535, not 65536"),
        (["simulate", "--symbols", "kraken=BTCUSD"], "kraken: symbol 'BTCUSD' is not BASE/QUOTE"),
        (
            ["simulate", "--port", "0", "--symbols", "1", "--write-instruments", "/nowhere/i.yaml"],
            "--write-instruments /nowhere/i.yaml: No such",
        ),
    ],
)
def test_bad_input_exits_2_naming_what_would_do(run: Run, line: list[str], message: str) -> None:
    code, out, err = run(*line)
    assert (code, out) == (2, "")
    assert message in err


def test_status_and_audit_of_an_empty_home_say_so_and_start_nothing(run: Run, tmp_path: Path) -> None:
    code, out, err = run("status")
    assert (code, out) == (0, "")
    assert "no raw topic" in err
    assert run("status", "--json")[:2] == (0, "[]\n")
    assert run("audit", "--json")[:2] == (0, "[]\n")
    assert run("audit")[:2] == (0, "nothing was compared\n")
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("url", "code", "message"),
    [("redis://x", 2, "no topic log for 'redis'"), ("kafka://u:p@h:1", 2, "a password does not belong in a URL")],
)
def test_status_of_topics_that_cannot_be_read_is_no_empty_list(
    run: Run, monkeypatch: pytest.MonkeyPatch, url: str, code: int, message: str
) -> None:
    monkeypatch.setenv("K2_TOPICS_URL", url)
    got, out, err = run("status", "--json")
    assert (got, out) == (code, "")
    assert message in err


def test_unknown_variable_is_a_warning_of_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "status", "--json"],
        env={**os.environ, "K2_HOME": str(tmp_path), "K2_FROM_ANOTHER_PROGRAM": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "[]\n")
    assert done.stderr.splitlines()[0].startswith("k2: warning: K2_FROM_ANOTHER_PROGRAM is no setting")


def test_reader_that_goes_away_ends_the_command_quietly() -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m cli.main version | true"], capture_output=True, text=True, check=False
    )
    assert done.returncode in {0, 141}
    assert done.stderr == ""


def test_command_names_in_the_help_are_the_commands() -> None:
    assert sorted(str(c.name or c.callback.__name__) for c in app.registered_commands if c.callback) == sorted(COMMANDS)


def test_command_reference_is_current() -> None:
    assert reference.PAGE.read_text() == reference.page(), "run `python -m cli.reference`"
