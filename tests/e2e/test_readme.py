"""The README's snippets run as they stand, against a demo home."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Home, home

README = Path(__file__).parents[2] / "README.md"
SNIPPETS = {
    name: (language, text)
    for name, language, text in re.findall(r"<!-- snippet: (\w+) -->\n```(\w+)\n(.*?)```", README.read_text(), flags=re.DOTALL)
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, str]]:
    with home(tmp_path_factory.mktemp("demo") / "home") as where:
        done = where.k2("demo", "--once")
        yield where, done.stdout


def test_demo_prints_a_summary_and_exits_well(demo: tuple[Home, str]) -> None:
    _, out = demo
    for word in ("binance", "kraken", "coinbase", "19,904", "1m", "1d"):
        assert word in out, out


def test_readme_shows_how_to_query_with_all_three() -> None:
    assert set(SNIPPETS) == {"clickhouse", "polars", "duckdb"}


@pytest.mark.parametrize("name", sorted(SNIPPETS))
def test_readme_snippet_runs_as_written(demo: tuple[Home, str], name: str, tmp_path: Path) -> None:
    where, _ = demo
    language, text = SNIPPETS[name]
    command = [sys.executable, "-c", text] if language == "python" else ["bash", "-euo", "pipefail", "-c", text]
    env = {**os.environ, "K2_HOME": str(where.folder)}
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert {"clickhouse": "close_price", "polars": "close_price", "duckdb": "BTC/USDT"}[name] in done.stdout, done.stdout + done.stderr
